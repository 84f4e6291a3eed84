//! What is known of a folder is of this folder: not of one that had its name before.

mod house;

use std::sync::mpsc::channel;

use house::House;
use house::servers::Kind;
use undo_mail::imap::pool::{Listing, Pool, Tried, good};
use undo_mail::names::{self, Message};

on_each_server!(a_session_that_saw_an_earlier_folder_changes_nothing_of_this_one);

fn ask(pool: &Pool, command: &str) {
    let done = pool.with("ann", |session| good(session.ask(command.as_bytes())?));
    done.unwrap_or_else(|trouble| panic!("{command}: {trouble}"));
}

fn append(pool: &Pool, id: u64) {
    let text = String::from_utf8(names::with_id(id, b"Subject: s\r\n\r\nx\r\n")).unwrap();
    ask(pool, &format!("APPEND f {{{}+}}\r\n{text}", text.len()));
}

fn listed(pool: &Pool) -> Tried<Listing> {
    pool.within("ann", "f", false, |_, listing| Ok(listing.clone()))
}

fn message(id: u64, nth: u16) -> Message {
    Message { id, nth }
}

/// A session has a folder open and goes on with it, while the folder is deleted and another one of
/// its name is made, in which there are two copies of a message.
fn a_session_that_saw_an_earlier_folder_changes_nothing_of_this_one(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    let pool = &house.proxy.manager.service().pool;
    ask(pool, "CREATE f");
    append(pool, 1);
    append(pool, 1);
    // (A UIDVALIDITY is a time in seconds.)
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let ((opened, is_open), (go, may_go)) = (channel(), channel());
    let old = std::thread::scope(|scope| {
        let old = scope.spawn(move || {
            pool.within("ann", "f", false, |session, listing| {
                assert_eq!(listing.len(), 2);
                opened.send(()).unwrap();
                may_go.recv().unwrap();
                let again = pool.listing("ann", session);
                pool.write_names("ann", session, &[message(1, 1)])?;
                again
            })
        });
        is_open.recv().unwrap();
        pool.forget_folder("ann", "f");
        ask(pool, "DELETE f");
        pool.remove_folder("ann", "f").unwrap();
        ask(pool, "CREATE f");
        append(pool, 1);
        append(pool, 1);
        append(pool, 1);
        let names: Vec<Message> = listed(pool).unwrap().iter().map(|(_, m)| *m).collect();
        assert_eq!(names, [message(1, 1), message(1, 2), message(1, 3)]);
        for command in ["UID STORE 1 +FLAGS (\\Deleted)", "UID EXPUNGE 1"] {
            let done = pool.within("ann", "f", false, |session, _| {
                good(session.ask(command.as_bytes())?)
            });
            done.unwrap();
        }
        go.send(()).unwrap();
        old.join().unwrap()
    });
    // The second one is the second one, also when nothing is known but what is written down.
    for what in ["known", "read"] {
        let names: Vec<Message> = listed(pool).unwrap().iter().map(|(_, m)| *m).collect();
        assert_eq!(names, [message(1, 2), message(1, 3)], "{what}");
        pool.forget();
    }
    assert!(old.is_err(), "it is told that its folder has gone: {old:?}");
}
