//! Two copies of one message in a folder, and two sessions that remove the first of them.
//!
//! The second one must stay, whoever is first, also if a session has not heard that the first one
//! has gone, if the proxy has forgotten what it knew of the folder in between, and in a replay.

mod house;

use std::sync::Barrier;

use house::servers::Kind;
use house::{House, Imap};

on_each_server!(
    two_that_remove_the_first_at_once_leave_the_second,
    one_that_has_not_heard_of_it_does_not_remove_the_second,
);

/// A mail twice in the INBOX of ann, of which the second is flagged, and her two sessions.
fn two_equal(house: &House, subject: &str) -> (Imap, Imap) {
    house.mail("ben@here.test", "ann@here.test", subject, "text");
    house.drain();
    let mut first = house.imap("ann");
    assert_eq!(first.select("INBOX"), 1, "{subject}");
    first.must("COPY 1 INBOX");
    first.must("NOOP");
    first.must("STORE 2 +FLAGS (\\Flagged)");
    let mut second = house.imap("ann");
    assert_eq!(second.select("INBOX"), 2, "{subject}");
    (first, second)
}

/// The flagged one is there, and no other; then it goes as well.
fn only_the_second_is_left(house: &House, what: &str) {
    for mut client in [house.imap("ann"), Imap::login(house.servers.imap, "ann")] {
        assert_eq!(client.select("INBOX"), 1, "{what}");
        let answer = client.must("FETCH 1 (FLAGS)");
        assert!(answer.contains("\\Flagged"), "{what}: {answer}");
    }
}

fn empty(house: &House) {
    let mut client = house.imap("ann");
    client.select("INBOX");
    client.must("STORE 1:* +FLAGS (\\Deleted)");
    client.must("EXPUNGE");
}

fn two_that_remove_the_first_at_once_leave_the_second(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    let start = house.last();
    for round in 0..10 {
        let what = format!("round {round}");
        let (first, second) = two_equal(&house, &what);
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            for mut client in [first, second] {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    client.ask("STORE 1 +FLAGS.SILENT (\\Deleted)");
                    client.ask("EXPUNGE");
                });
            }
        });
        only_the_second_is_left(&house, &what);
        if round < 9 {
            empty(&house);
        }
    }
    house.proxy.manager.rewind(start, None).unwrap();
    let summary = house.proxy.manager.replay().unwrap();
    house.drain();
    assert!(summary.paradoxes.is_empty(), "{:?}", summary.paradoxes);
    only_the_second_is_left(&house, "replayed");
}

fn one_that_has_not_heard_of_it_does_not_remove_the_second(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    for forgets in [false, true] {
        let what = format!("forgets: {forgets}");
        let (mut first, mut second) = two_equal(&house, &what);
        first.must("STORE 1 +FLAGS (\\Deleted)");
        first.must("EXPUNGE");
        if forgets {
            house.proxy.manager.service().pool.forget();
        }
        // Its number 1 is the message that has gone: nobody has told it.
        second.ask("STORE 1 +FLAGS.SILENT (\\Deleted)");
        second.ask("EXPUNGE");
        only_the_second_is_left(&house, &what);
        empty(&house);
    }
}
