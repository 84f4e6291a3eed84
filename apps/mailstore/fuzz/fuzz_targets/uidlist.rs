//! Any octets as the files of a mailbox.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailstore::maildir::keywords::Keywords;
use mailstore::maildir::modseq::Notes;
use mailstore::maildir::name;
use mailstore::maildir::uidlist::UidList;

fuzz_target!(|input: &[u8]| {
    if let Ok(list) = UidList::parse(input) {
        assert!(list.validity > 0 && list.uids.values().all(|uid| *uid < list.next || *uid == u32::MAX));
    }
    let text = String::from_utf8_lossy(input);
    let _ = Keywords::parse(&text).names().count();
    let _ = Notes::parse(&text).next_modseq();
    let (base, flags) = name::split(&text);
    assert_eq!(name::split(&name::join(base, flags)).1, flags);
    let _ = (name::order(base), name::size_field(base, 'W'));
});
