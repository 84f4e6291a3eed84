//! Rewind, repair and replay of mail, in front of an unmodified Dovecot.

mod house;

use std::sync::atomic::{AtomicU64, Ordering};

use house::{House, Imap, USERS, until};

/// What one user does, drawn from a seed.
fn session(house: &House, user: &str, verbs: usize, seed: u64) {
    static MAILS: AtomicU64 = AtomicU64::new(0);
    let mut random = seed;
    let mut below = |n: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let mut client = house.imap(user);
    let mut count = client.select("INBOX");
    for n in 0..verbs {
        let folder = format!("f{}", below(3));
        let one = if count > 0 {
            below(u64::from(count)) + 1
        } else {
            1
        };
        // Whether each succeeds depends on what the others do: that is the point.
        match below(16) {
            0..=2 => {
                let mail = MAILS.fetch_add(1, Ordering::SeqCst);
                let to = USERS[below(USERS.len() as u64) as usize];
                house.mail(
                    &format!("{user}@here.test"),
                    &format!("{to}@here.test"),
                    &format!("mail {mail}"),
                    "text",
                );
            }
            3 => drop(client.ask(&format!("CREATE {folder}"))),
            4 => {
                let text = format!("Subject: own {user} {n}\r\n\r\nx\r\n");
                client.ask(&format!(
                    "APPEND {folder} (\\Seen) {{{}+}}\r\n{text}",
                    text.len()
                ));
            }
            5 => drop(client.ask(&format!("COPY {one} {folder}"))),
            6 => drop(client.ask(&format!("MOVE {one} {folder}"))),
            7 => drop(client.ask(&format!("STORE {one} +FLAGS (\\Deleted)"))),
            8 => drop(client.ask("EXPUNGE")),
            9 => drop(client.ask(&format!("STORE {one} FLAGS (\\Flagged)"))),
            10 => drop(client.ask("LIST \"\" \"*\"")),
            11 => drop(client.ask("FETCH 1:* (ENVELOPE FLAGS)")),
            12 => drop(client.ask(&format!("FETCH {one} (BODY[])"))),
            13 if below(4) == 0 => drop(client.ask(&format!("RENAME {folder} g{}", below(2)))),
            13 if below(3) == 0 => drop(client.ask(&format!("DELETE {folder}"))),
            14 => {
                let folders = client.folders();
                let folder = folders[below(folders.len() as u64) as usize].clone();
                client.ask("CLOSE");
                client.ask(&format!("SELECT \"{folder}\""));
            }
            _ => {}
        }
        let noop = client.ask("NOOP");
        let exists = noop.lines().rfind(|l| l.ends_with("EXISTS"));
        if let Some(number) = exists
            .and_then(|l| l.split(' ').nth(1))
            .and_then(|n| n.parse().ok())
        {
            count = number;
        }
    }
}

/// Two sessions for each user, and more mail.
/// One user after the other. With `SESSIONS=1` or more all users are there at once, each
/// with so many sessions: for that the order of verbs is not complete yet, see "Not solved
/// yet" in the README.
fn storm(house: &House, verbs: usize, seed: u64) {
    let sessions: usize = std::env::var("SESSIONS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let of = |n: usize| seed ^ ((n as u64 + 1) << 40);
    if sessions == 0 {
        for (n, user) in USERS.iter().enumerate() {
            session(house, user, verbs, of(n));
        }
    } else {
        std::thread::scope(|scope| {
            let all = USERS
                .iter()
                .flat_map(|user| std::iter::repeat_n(user, sessions));
            for (n, user) in all.enumerate() {
                scope.spawn(move || session(house, user, verbs, of(n)));
            }
        });
    }
    house.drain();
}

/// Messages without their flags.
fn texts(messages: &[String]) -> Vec<&str> {
    let text = |m: &'_ String| m.find("BODY[").unwrap_or(0);
    let mut texts: Vec<&str> = messages.iter().map(|m| &m[text(m)..]).collect();
    texts.sort_unstable();
    texts
}

/// Played where `UNDO_MAIL_STORM` is set: a known fault of the order of verbs makes it fail
/// now and then, see "Not solved yet" in the README.
fn replay_without_a_repair(storage: &str) {
    if std::env::var_os("UNDO_MAIL_STORM").is_none() {
        println!("{storage}: not played; UNDO_MAIL_STORM=1 plays it");
        return;
    }
    let verbs = std::env::var("VERBS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(25);
    let Some(house) = House::new(storage, |_| ()) else {
        return;
    };
    let start = house.last();
    storm(&house, verbs, 1);
    house.proxy.manager.snapshot().unwrap();
    storm(&house, verbs / 2, 2);
    let (mailboxes, last) = (house.mailboxes(), house.last());
    let messages: usize = mailboxes.values().map(Vec::len).sum();
    assert!(
        messages > 20 && mailboxes.len() > 8,
        "the storm has left something: {mailboxes:?}"
    );
    assert!(house.proxy.manager.timeline().gaps().is_empty());
    for target in [start, last / 2, last - 10] {
        house.proxy.manager.rewind(target, None).unwrap();
        let summary = house.proxy.manager.replay().unwrap();
        println!(
            "{storage}: from {target} to {last}: {} verbs in {:.2} s, {} a second",
            summary.replayed,
            summary.seconds,
            (summary.replayed as f64 / summary.seconds) as u64
        );
        assert!(
            summary.paradoxes.is_empty(),
            "{storage} from {target}: {:#?}",
            summary.paradoxes
        );
        let now = house.mailboxes();
        for (folder, before) in &mailboxes {
            let after = now.get(folder).cloned().unwrap_or_default();
            assert_eq!(
                texts(&after),
                texts(before),
                "{storage} from {target}: {folder}"
            );
            // Flags are no part of what must be consistent; see the limits in the README.
            let differ = after.iter().filter(|m| !before.contains(m)).count();
            if differ > 0 {
                println!("{storage} from {target}: {folder}: {differ} messages have other flags");
            }
        }
        assert_eq!(now.len(), mailboxes.len());
    }
}

#[test]
fn replay_without_a_repair_on_copies() {
    replay_without_a_repair("copies");
}

#[test]
fn replay_without_a_repair_on_btrfs() {
    replay_without_a_repair("btrfs");
}

#[test]
fn replay_without_a_repair_on_overlay() {
    replay_without_a_repair("overlay");
}

#[test]
fn bounced_by_mistake_is_delivered_after_the_repair() {
    let Some(house) = House::new("copies", |_| ()) else {
        return;
    };
    house.mail("x@there.test", "ann@here.test", "early", "1");
    house.drain();
    let before = house.last();
    // The operator forgets ann.
    house.dovecot.set_users(&["ben", "cid"]);
    house.mail("ben@here.test", "ann@here.test", "lost?", "2");
    house.drain();
    assert_eq!(house.proxy.manager.state().arrivals_failed, 1);
    // ben is told at once that it is being tried.
    let mut ben = house.imap("ben");
    until("ben has the notice", || {
        house.imap("ben").select("INBOX") == 1
    });
    ben.select("INBOX");
    assert_eq!(ben.subjects(), ["Delayed mail (still being retried)"]);

    house.proxy.manager.rewind(before, None).unwrap();
    house.dovecot.set_users(&USERS);
    let summary = house.proxy.manager.replay().unwrap();
    assert!(summary.paradoxes.is_empty(), "{summary:?}");
    let mut ann = house.imap("ann");
    ann.select("INBOX");
    let mut subjects = ann.subjects();
    subjects.sort();
    assert_eq!(subjects, ["early", "lost?"]);
    assert_eq!(house.proxy.manager.state().arrivals_failed, 0);
    assert_eq!(house.imap("ben").select("INBOX"), 1, "no second notice");
}

#[test]
fn what_was_told_to_have_failed_stays_failed() {
    let Some(house) = House::new("copies", |s| s.smtp.window_s = 1) else {
        return;
    };
    let before = house.last();
    house.dovecot.set_users(&["ben"]);
    house.mail("ben@here.test", "ann@here.test", "gone", "2");
    until("ben has both notices", || {
        house.imap("ben").select("INBOX") == 2
    });
    house.proxy.manager.rewind(before, None).unwrap();
    house.dovecot.set_users(&USERS);
    house.proxy.manager.replay().unwrap();
    house.drain();
    assert_eq!(house.imap("ann").select("INBOX"), 0);
    assert_eq!(house.imap("ben").select("INBOX"), 2);
}

#[test]
fn a_virus_is_taken_out_of_history_and_its_readers_are_told() {
    let Some(house) = House::new("copies", |_| ()) else {
        return;
    };
    let before = house.last();
    house.mail("evil@there.test", "ann@here.test", "virus", "run me");
    house.mail("evil@there.test", "ben@here.test", "virus", "run me");
    house.mail("dan@there.test", "ann@here.test", "honest", "hello");
    house.drain();
    let mut ann = house.imap("ann");
    ann.select("INBOX");
    ann.must("CREATE saved");
    ann.must("FETCH 1:* (BODY[])");
    ann.must("COPY 1:* saved");
    house.proxy.manager.rewind(before, None).unwrap();
    let search = undo::manager::Search {
        subject: "virus".into(),
        kind: "deliver".into(),
        ..Default::default()
    };
    let found = house.proxy.manager.list(&search).unwrap();
    assert_eq!(found.len(), 2);
    for verb in found {
        house.proxy.manager.drop_verb(verb.lsn).unwrap();
    }
    let rehearsed = house.proxy.manager.rehearse().unwrap();
    let summary = house.proxy.manager.replay().unwrap();
    // (Which of two that commute explains first is a matter of chance.)
    let what = |s: &undo::Summary| {
        s.paradoxes
            .iter()
            .map(|p| (p.lsn, p.what.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(what(&rehearsed), what(&summary));
    assert!(
        summary.paradoxes.iter().all(|p| p.user == "ann"),
        "{summary:?}"
    );
    let mut ann = house.imap("ann");
    ann.select("INBOX");
    let subjects = ann.subjects();
    assert_eq!(subjects.iter().filter(|s| *s == "honest").count(), 1);
    assert!(!subjects.contains(&"virus".into()), "{subjects:?}");
    assert_eq!(
        subjects
            .iter()
            .filter(|s| s.starts_with("About changes"))
            .count(),
        1,
        "{subjects:?}"
    );
    ann.select("saved");
    assert_eq!(ann.subjects(), ["honest"]);
    assert_eq!(
        house.imap("ben").select("INBOX"),
        0,
        "ben never saw it, and is not told"
    );
}

#[test]
fn a_folder_that_cannot_be_made_again_is_found_below_lost_and_found() {
    let Some(house) = House::new("copies", |_| ()) else {
        return;
    };
    let before = house.last();
    let mut ann = house.imap("ann");
    ann.must("CREATE work");
    ann.append("work", "Subject: precious\r\n\r\nx\r\n");
    ann.select("work");
    ann.must("STORE 1 +FLAGS (\\Seen)");
    house.proxy.manager.rewind(before, None).unwrap();
    house.proxy.manager.drop_verb(before + 1).unwrap();
    let summary = house.proxy.manager.replay().unwrap();
    assert!(!summary.paradoxes.is_empty());
    let mut ann = house.imap("ann");
    assert_eq!(ann.select("Lost&-Found/work"), 1);
    assert_eq!(ann.subjects(), ["precious"]);
    assert!(
        ann.must("FETCH 1 FLAGS").contains("\\Seen"),
        "later verbs found it there"
    );
    ann.select("INBOX");
    assert!(
        ann.subjects()
            .iter()
            .any(|s| s.starts_with("About changes"))
    );
}

#[test]
fn a_deletion_that_rests_on_altered_text_is_not_repeated() {
    let Some(house) = House::new("copies", |_| ()) else {
        return;
    };
    let before = house.last();
    house.mail("x@there.test", "ann@here.test", "offer", "garbage");
    house.mail("x@there.test", "ann@here.test", "other", "text");
    house.drain();
    let mut ann = house.imap("ann");
    ann.select("INBOX");
    ann.must("FETCH 1:* (BODY[])");
    ann.must("STORE 1:* +FLAGS (\\Deleted)");
    ann.must("EXPUNGE");
    house.proxy.manager.rewind(before, None).unwrap();
    // The garbage was the fault of a filter; the operator puts the real text back.
    let mut verb = house.proxy.manager.show(before + 1).unwrap()["verb"].clone();
    let act = verb["act"]["Deliver"]["body"]
        .as_str()
        .unwrap()
        .replace("garbage", "a million");
    verb["act"]["Deliver"]["body"] = act.into();
    house.proxy.manager.change_verb(before + 1, verb).unwrap();
    let summary = house.proxy.manager.replay().unwrap();
    assert!(summary.squashed > 0, "{summary:?}");
    let mut ann = house.imap("ann");
    ann.select("INBOX");
    let subjects = ann.subjects();
    assert!(
        subjects.contains(&"offer".into()) && !subjects.contains(&"other".into()),
        "{subjects:?}"
    );
    assert!(subjects.iter().any(|s| s.starts_with("About changes")));
}

#[test]
fn one_user_is_rewound_and_the_others_go_on_as_they_are() {
    let Some(house) = House::new("copies", |_| ()) else {
        return;
    };
    for user in ["ann", "ben"] {
        house.mail("x@there.test", &format!("{user}@here.test"), "first", "1");
    }
    house.drain();
    let before = house.last();
    house.mail("x@there.test", "ann@here.test", "second", "2");
    house.drain();
    // rm -r, by an operator.
    house.proxy.manager.look(|_| {
        std::fs::remove_dir_all(house.proxy.manager.live_folder().join("mail/ann")).unwrap();
    });
    house
        .proxy
        .manager
        .rewind(before, Some("ann".into()))
        .unwrap();
    let summary = house.proxy.manager.replay().unwrap();
    assert!(summary.paradoxes.is_empty(), "{summary:?}");
    let mut ann = house.imap("ann");
    ann.select("INBOX");
    let mut subjects = ann.subjects();
    subjects.sort();
    assert_eq!(subjects, ["first", "second"]);
    assert_eq!(house.imap("ben").select("INBOX"), 1);
}

#[test]
fn mail_is_taken_and_read_during_a_cycle() {
    let Some(house) = House::new("copies", |_| ()) else {
        return;
    };
    house.mail("x@there.test", "ann@here.test", "one", "1");
    house.drain();
    house.proxy.manager.rewind(house.last(), None).unwrap();
    house.mail("x@there.test", "ann@here.test", "two", "2");
    let mut ann: Imap = house.imap("ann");
    let selected = ann.must("SELECT INBOX");
    assert!(
        selected.contains("[ALERT]") && selected.contains("READ-ONLY"),
        "{selected}"
    );
    assert!(ann.must("FETCH 1 (BODY[])").contains("Subject: one"));
    assert!(ann.ask("CREATE x").contains("the operator is repairing"));
    let summary = house.proxy.manager.replay().unwrap();
    assert!(summary.paradoxes.is_empty(), "{summary:?}");
    house.drain();
    assert_eq!(house.imap("ann").select("INBOX"), 2);
}
