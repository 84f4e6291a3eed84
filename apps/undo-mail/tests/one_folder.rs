//! One folder of one user is taken back; all others stay as they are.

mod house;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use house::House;
use house::servers::Kind;
use undo::Phase;

on_each_server!(
    a_folder_is_taken_back_alone,
    an_inbox_is_taken_back_alone,
    what_is_not_of_the_folder_alone_is_refused,
);

fn message(subject: &str) -> String {
    format!("Subject: {subject}\r\n\r\nten apples\r\n")
}

/// An upgrade damages the text of all messages in a folder of ann.
fn damage(house: &House, folder: &str) {
    let place = house.settings.home.join("live/mail/ann@here.test");
    let owner = std::fs::metadata(&place).unwrap();
    let mut damaged = 0;
    for sub in ["cur", "new"] {
        for file in std::fs::read_dir(place.join(folder).join(sub)).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            // (A copy in another folder may be a second name of the same file.)
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, text.replace("ten apples", "no apples!")).unwrap();
            std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
}

type Mailboxes = BTreeMap<String, Vec<String>>;

fn without(mailboxes: &Mailboxes, folder: &str) -> Mailboxes {
    let mut others = mailboxes.clone();
    others.remove(folder).expect("it is there");
    others
}

fn a_folder_is_taken_back_alone(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    let manager = &house.proxy.manager;
    house.mail("ben@here.test", "ann@here.test", "first", "ten apples");
    house.drain();
    let mut ann = house.imap("ann");
    ann.must("CREATE Work");
    ann.must("CREATE Done");
    for subject in ["a", "b", "c"] {
        ann.append("Work", &message(subject));
    }
    manager.snapshot().unwrap();
    let point = house.last();
    ann.append("Work", &message("d"));
    ann.select("Work");
    ann.must("MOVE 1 Done");
    ann.must("COPY 1 Work");
    ann.must("COPY 2 Done");
    ann.must("STORE 1 +FLAGS (\\Answered)");
    house.mail("ben@here.test", "ann@here.test", "second", "ten apples");
    house.drain();
    let good = house.mailboxes();
    damage(&house, ".Work");
    manager.rewind(point, Some("ann/Work".into())).unwrap();
    let now = house.mailboxes();
    assert_eq!(now["ann/Work"].len(), 3, "{:?}", now["ann/Work"]);
    assert_eq!(without(&now, "ann/Work"), without(&good, "ann/Work"));
    let summary = manager.replay().unwrap();
    assert!(summary.paradoxes.is_empty(), "{:?}", summary.paradoxes);
    assert_eq!(house.mailboxes(), good);
    // All of it is a part of history like any other cycle.
    manager.rewind(point, None).unwrap();
    let summary = manager.replay().unwrap();
    house.drain();
    assert!(summary.paradoxes.is_empty(), "{:?}", summary.paradoxes);
    assert_eq!(house.mailboxes(), good);
}

fn an_inbox_is_taken_back_alone(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    let manager = &house.proxy.manager;
    let mut ann = house.imap("ann");
    ann.must("CREATE Work");
    ann.append("Work", &message("a"));
    house.mail("ben@here.test", "ann@here.test", "first", "ten apples");
    house.mail("ben@here.test", "dan@here.test", "other", "ten apples");
    house.drain();
    manager.snapshot().unwrap();
    let point = house.last();
    house.mail("ben@here.test", "ann@here.test", "second", "ten apples");
    house.drain();
    ann.select("INBOX");
    ann.must("COPY 1 Work");
    ann.must("STORE 2 +FLAGS (\\Flagged)");
    let good = house.mailboxes();
    damage(&house, ".");
    damage(&house, ".Work");
    manager.rewind(point, Some("ann/inbox".into())).unwrap();
    assert_eq!(house.mailboxes()["ann/INBOX"].len(), 1);
    let summary = manager.replay().unwrap();
    house.drain();
    assert!(summary.paradoxes.is_empty(), "{:?}", summary.paradoxes);
    let now = house.mailboxes();
    assert_eq!(without(&now, "ann/Work"), without(&good, "ann/Work"));
    let work = now["ann/Work"].concat();
    assert!(work.contains("no apples!"), "not touched: {work}");
}

fn what_is_not_of_the_folder_alone_is_refused(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    let manager = &house.proxy.manager;
    house.mail("ben@here.test", "ann@here.test", "first", "ten apples");
    house.drain();
    let mut ann = house.imap("ann");
    for name in ["Work", "Other", "Top", "Top.Deep"] {
        ann.must(&format!("CREATE {name}"));
    }
    manager.snapshot().unwrap();
    let point = house.last();
    ann.select("INBOX");
    ann.must("MOVE 1 Work");
    ann.must("RENAME Top Peak");
    let good = house.mailboxes();
    for (scope, why) in [
        ("ann/Work", "move INBOX"),
        ("ann/Top.Deep", "rename Top to Peak"),
        ("ann/Peak.Deep", "rename Top to Peak"),
        ("ann/Nowhere", "no such part"),
        ("ann/../ben", "no such part"),
        ("ann/", "no such part"),
    ] {
        let refused = manager.rewind(point, Some(scope.into()));
        let error = refused.expect_err(scope).to_string();
        assert!(error.contains(why), "{scope}: {error}");
        assert_eq!(manager.state().phase, Phase::Running, "{scope}");
    }
    assert_eq!(house.mailboxes(), good);
    // A folder that they do not concern is not held up, also if an rm -r has taken it away.
    let other = house.settings.home.join("live/mail/ann@here.test/.Other");
    std::fs::remove_dir_all(&other).unwrap();
    manager.rewind(point, Some("ann/Other".into())).unwrap();
    assert!(Path::new(&other).exists());
    manager.replay().unwrap();
    assert_eq!(house.mailboxes(), good);
}
