//! Any text as a point of time that an operator names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undo::when;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    if let Ok(when::When::Time(us)) = when::parse(&text, 1_796_000_000_000_000) {
        // (A year has four digits.)
        let shown = when::show(us.min(253_402_300_799_000_000));
        assert!(when::parse(&shown, 0).is_ok(), "{text:?} is {shown}");
    }
});
