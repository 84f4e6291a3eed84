//! Any octets as a message that is reported about.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstore::message::structure::{self, Inside};
use mailstore::queue::Envelope;
use mailstore::queue::bounce::{Kind, report};

fuzz_target!(|input: &[u8]| {
    let envelope = Envelope::new("a@b", vec!["c@d".into()]);
    let reply = String::from_utf8_lossy(input).into_owned();
    let about = [("c@d".to_string(), reply)];
    let now = std::time::UNIX_EPOCH;
    let report = report(Kind::Failed, "host", "1", &envelope, &about, input, now);
    let Inside::Parts(parts) = structure::parse(&report).inside else { panic!("no parts") };
    assert_eq!(parts.len(), 3);
});
