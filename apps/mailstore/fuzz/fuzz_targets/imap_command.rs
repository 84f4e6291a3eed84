//! Any octets as an IMAP command, and as a line that may announce a literal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstore::imap::{frame, parse};

fuzz_target!(|input: &[u8]| {
    let _ = parse::command(input);
    let _ = frame::announced(input);
    let _ = frame::tag_of(input);
});
