//! Rewind, repair and replay of mail, in front of the own store and of an unmodified Dovecot.

mod house;

use house::servers::Kind;
use house::{House, Imap, USERS, until};
use undo::Service;
use undo_mail::verbs::{Act, Verb};

on_each_server!(
    bounced_by_mistake_is_delivered_after_the_repair,
    what_was_told_to_have_failed_stays_failed,
    a_virus_is_taken_out_of_history_and_its_readers_are_told,
    a_folder_that_cannot_be_made_again_is_found_below_lost_and_found,
    a_deletion_that_rests_on_altered_text_is_not_repeated,
    one_user_is_rewound_and_the_others_go_on_as_they_are,
    mail_is_taken_and_read_during_a_cycle,
    a_copy_that_was_cut_short_happens_once,
);

fn bounced_by_mistake_is_delivered_after_the_repair(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    house.mail("x@there.test", "ann@here.test", "early", "1");
    house.drain();
    let before = house.last();
    // The operator forgets ann.
    house.set_users(&["ben", "cid"]);
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
    house.set_users(&USERS);
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

fn what_was_told_to_have_failed_stays_failed(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |s| s.smtp.window_s = 1) else {
        return;
    };
    let before = house.last();
    house.set_users(&["ben"]);
    house.mail("ben@here.test", "ann@here.test", "gone", "2");
    until("ben has both notices", || {
        house.imap("ben").select("INBOX") == 2
    });
    house.proxy.manager.rewind(before, None).unwrap();
    house.set_users(&USERS);
    house.proxy.manager.replay().unwrap();
    house.drain();
    assert_eq!(house.imap("ann").select("INBOX"), 0);
    assert_eq!(house.imap("ben").select("INBOX"), 2);
}

fn a_virus_is_taken_out_of_history_and_its_readers_are_told(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
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

fn a_folder_that_cannot_be_made_again_is_found_below_lost_and_found(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
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
    assert_eq!(ann.select("Lost&-Found.work"), 1);
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

fn a_deletion_that_rests_on_altered_text_is_not_repeated(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
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

fn one_user_is_rewound_and_the_others_go_on_as_they_are(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
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
        let mail = house.proxy.manager.live_folder().join("mail/ann@here.test");
        std::fs::remove_dir_all(mail).unwrap();
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

fn mail_is_taken_and_read_during_a_cycle(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
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

/// A copy that was cut short is found or made again, though its target held a copy before.
fn a_copy_that_was_cut_short_happens_once(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    house.mail("x@there.test", "ann@here.test", "one", "text");
    house.drain();
    let mut ann = house.imap("ann");
    ann.must("CREATE f");
    ann.select("INBOX");
    ann.must("COPY 1 f");
    let shown = house.proxy.manager.show(house.last()).unwrap();
    let copy: Verb = serde_json::from_value(shown["verb"].clone()).unwrap();
    let Act::Copy {
        folder,
        messages,
        to,
    } = copy.act.clone()
    else {
        panic!("{shown}");
    };
    let move_ = Verb::new(
        "ann",
        Act::Move {
            folder,
            messages,
            to,
        },
    );
    let there = |name: &str| {
        let mut client = Imap::login(house.servers.imap, "ann");
        client.examine(name)
    };
    // As the proxy leaves it behind when it dies before the command, or behind it.
    let begun = house.settings.home.join("live/begun");
    let note = |lsn: u64, point: &str| {
        std::fs::create_dir_all(&begun).unwrap();
        std::fs::write(begun.join(lsn.to_string()), point).unwrap();
    };
    let point = || {
        let mut client = Imap::login(house.servers.imap, "ann");
        let status = client.must("STATUS f (UIDVALIDITY UIDNEXT)");
        let value = |word: &str| {
            let (_, rest) = status.split_once(word).unwrap();
            let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit());
            digits.into_iter().next().unwrap_or_default().to_owned()
        };
        format!("{} {}\n", value("UIDVALIDITY"), value("UIDNEXT"))
    };
    let settle = |verb: &Verb, lsn: u64| {
        let call = undo::Call {
            verb,
            lsn,
            time_us: 1,
            mode: undo::Mode::Settle,
        };
        let (outcome, _) = house.proxy.manager.service().execute(&call);
        assert!(outcome.is_done(), "{outcome:?}");
    };
    assert_eq!((there("INBOX"), there("f")), (1, 1));
    let before = point();
    note(9001, &before);
    settle(&copy, 9001);
    assert_eq!(there("f"), 2, "it had not happened");
    note(9002, &before);
    settle(&copy, 9002);
    assert_eq!(there("f"), 2, "it had happened");
    note(9003, &point());
    settle(&copy, 9003);
    assert_eq!(there("f"), 3);
    assert_eq!(std::fs::read_dir(&begun).unwrap().count(), 0);
    let before = point();
    ann.must("COPY 1 f");
    note(9004, &before);
    settle(&move_, 9004);
    assert_eq!((there("INBOX"), there("f")), (0, 4), "half of a move");
}

#[test]
fn the_own_store_syncs_nothing_in_a_replay_and_all_of_it_after() {
    let Some(house) = House::new(Kind::Own, "copies", |_| ()) else {
        return;
    };
    for n in 0..20 {
        house.mail("x@there.test", "ann@here.test", &n.to_string(), "text");
    }
    house.drain();
    house.proxy.manager.rewind(0, None).unwrap();
    // As the process that serves now was told.
    let told = || {
        let pid = std::fs::read_to_string(house.settings.home.join("server.pid")).ok()?;
        let pid = pid.split_whitespace().next()?.to_owned();
        let all = std::fs::read_to_string(format!("/proc/{pid}/environ")).ok()?;
        let found = all
            .split('\0')
            .find_map(|v| v.strip_prefix("MAILSTORE_SYNC="));
        found.map(str::to_owned)
    };
    assert_eq!(told().as_deref(), Some("yes"), "during the repair");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                seen.extend(told());
            }
            seen
        });
        house.proxy.manager.replay().unwrap();
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        looker.join().unwrap()
    });
    assert!(seen.contains("no"), "{seen:?}");
    assert_eq!(told().as_deref(), Some("yes"));
}
