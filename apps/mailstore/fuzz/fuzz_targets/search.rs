//! Any octets as a message that is searched.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = mailstore::imap::search::body_has(input, b"needle");
    let _ = mailstore::imap::search::decoded(input);
});
