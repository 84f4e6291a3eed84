//! Any octets as a message: it gets its UndoID, has one only, and is itself again without it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undo_mail::names;

fuzz_target!(|input: &[u8]| {
    let marked = names::with_id(0x1234_5678, input);
    let found = names::field(&marked, names::FIELD).expect("it is marked");
    assert_eq!(u64::from_str_radix(found.trim(), 16), Ok(0x1234_5678));
    let bare = names::without_id(&marked);
    assert_eq!(bare, names::without_id(input));
    assert_eq!(bare, names::without_id(&bare));
    assert_eq!(names::field(&bare, names::FIELD), None);
    let _ = names::id_of(input);
    let _ = names::field(input, "Subject");
});
