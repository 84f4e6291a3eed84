//! A delivery that was acknowledged is seen by the next look, however soon that comes.

mod place;

use std::fs::File;

use mailstore::maildir::account::Account;
use mailstore::maildir::disk::Disk;
use place::Directory;

#[test]
fn whoever_looks_after_a_delivery_sees_it() {
    let directory = Directory::new("arrivals");
    let account = Account::new("a@b", directory.0.join("a"), None, Disk::default());
    let inbox = account.mailbox("INBOX").unwrap().unwrap();
    let new = File::open(directory.0.join("a/new")).unwrap();
    for n in 1..=20 {
        let before = new.metadata().unwrap().modified().unwrap();
        account.deliver("INBOX", b"Subject: s\r\n\r\n").unwrap();
        // Before Linux 6.13 the clock of files stands still for some milliseconds.
        new.set_modified(before).unwrap();
        let mut state = inbox.lock();
        inbox.sync(&mut state, None).unwrap();
        assert_eq!(state.messages.len(), n);
    }
}
