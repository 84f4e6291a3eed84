//! Any octets as a message: its parts, what IMAP says of them, each section.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstore::message::section::{Section, What};
use mailstore::message::{describe, lines, structure};

fuzz_target!(|input: &[u8]| {
    let root = structure::parse(input);
    let mut out = Vec::new();
    describe::body_structure(&mut out, input, &root, true);
    describe::envelope(&mut out, lines::split_header(input).0);
    for path in [&[][..], &[1], &[2], &[1, 1], &[2, 1, 1]] {
        for what in [What::All, What::Header, What::Text, What::Mime, What::Fields(vec!["TO".into()])] {
            let section = Section { path: path.to_vec(), what };
            let _ = section.of(input, || &root);
        }
    }
});
