//! Any octets as a line of SMTP.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstore::smtp::command;

fuzz_target!(|input: &[u8]| {
    let _ = command::parse(input);
});
