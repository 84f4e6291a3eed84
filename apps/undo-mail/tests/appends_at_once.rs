//! Messages that are appended at once by several sessions of one user are found by the next FETCH.
//!
//! (A storm once met a Dovecot of which one process did not show what another one had just stored.)
//! `ROUNDS=1000` plays more of them.

mod house;

use std::sync::Barrier;

use house::servers::Kind;
use house::{House, Imap};

on_each_server!(what_was_appended_at_once_is_fetched_at_once);

/// So many sessions append at the same time, and look.
const TOGETHER: usize = 3;

/// Looks what is there, after all have appended.
fn look(client: &mut Imap, wanted: &[String], what: &str) {
    client.must("NOOP");
    let found = client.subjects();
    for subject in wanted {
        let times = found.iter().filter(|s| *s == subject).count();
        assert_eq!(times, 1, "{what}: {subject} in {found:?}");
    }
}

fn what_was_appended_at_once_is_fetched_at_once(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    let rounds: usize = std::env::var("ROUNDS").map_or(15, |n| n.parse().expect("ROUNDS"));
    let start = house.last();
    let mut clients: Vec<Imap> = (0..TOGETHER).map(|_| house.imap("ann")).collect();
    clients[0].must("CREATE Work");
    for client in &mut clients {
        client.select("Work");
    }
    for round in 0..rounds {
        let what = format!("{kind:?}, round {round}");
        let subjects: Vec<String> = (0..TOGETHER).map(|n| format!("m{round}-{n}")).collect();
        let (begin, end) = (Barrier::new(TOGETHER), Barrier::new(TOGETHER));
        std::thread::scope(|scope| {
            for (client, subject) in clients.iter_mut().zip(&subjects) {
                let (begin, end, subjects, what) = (&begin, &end, &subjects, &what);
                scope.spawn(move || {
                    begin.wait();
                    client.append("Work", &format!("Subject: {subject}\r\n\r\nx\r\n"));
                    end.wait();
                    look(client, subjects, what);
                });
            }
        });
        if round % 10 == 9 {
            clients[0].must("STORE 1:* +FLAGS (\\Deleted)");
            clients[0].must("EXPUNGE");
        }
    }
    // What each FETCH has found is history: a replay tells if it differs.
    house.proxy.manager.rewind(start, None).unwrap();
    let summary = house.proxy.manager.replay().unwrap();
    assert!(summary.paradoxes.is_empty(), "{:?}", summary.paradoxes);
}
