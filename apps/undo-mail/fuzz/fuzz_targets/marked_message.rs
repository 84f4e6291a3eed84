//! Any octets as a message: it gets its UndoID, has one only, and is itself again without it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undo_mail::names;

fuzz_target!(|input: &[u8]| {
    let marked = names::with_id(0x1234_5678, input);
    assert_eq!(names::marked_id(&marked), Some(0x1234_5678));
    assert_eq!(names::id_of(&marked), 0x1234_5678);
    let bare = names::without_id(&marked);
    // (A folded line at the beginning becomes a part of the mark.)
    if !matches!(input.first(), Some(b' ' | b'\t')) {
        assert_eq!(bare, names::without_id(input));
    }
    assert_eq!(bare, names::without_id(&bare));
    assert_eq!(names::field(&bare, names::FIELD), None);
    let _ = names::id_of(input);
    let _ = names::field(input, "Subject");
});
