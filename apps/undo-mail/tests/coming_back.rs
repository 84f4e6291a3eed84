//! Messages that come back to a folder in which they have been: moved away and back, moved or
//! copied within it, or copied into it again.

mod house;

use std::collections::BTreeSet;

use house::servers::Kind;
use house::{House, Imap};

on_each_server!(
    what_comes_back_has_a_file_of_its_own,
    what_comes_back_is_as_it_was,
    of_what_cannot_all_come_back_nothing_does,
);

/// The names of ann's files in a folder, without flags.
fn files(house: &House, folder: &str) -> BTreeSet<String> {
    let place = house.settings.home.join("live/mail/ann@here.test");
    let of = |sub: &str| std::fs::read_dir(place.join(folder).join(sub)).unwrap();
    let names = of("cur").chain(of("new"));
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .map(|name| name.split(':').next().unwrap().to_owned())
        .collect()
}

/// What a folder has held, and what it holds.
struct Watched<'a> {
    house: &'a House,
    folder: &'static str,
    past: BTreeSet<String>,
    now: BTreeSet<String>,
}

impl Watched<'_> {
    /// Looks again: no file has come under the name of one that has gone.
    fn look(&mut self, what: &str) {
        let now = files(self.house, self.folder);
        let again: Vec<_> = now.intersection(&self.past).collect();
        assert!(
            again.is_empty(),
            "{what}: {} has {again:?} again",
            self.folder
        );
        let gone = self.now.difference(&now).cloned();
        self.past.extend(gone);
        self.now = now;
    }
}

fn what_comes_back_has_a_file_of_its_own(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    house.mail("ben@here.test", "ann@here.test", "one", "text");
    house.drain();
    let mut ann = house.imap("ann");
    ann.must("CREATE Away");
    let watch = |folder| Watched {
        house: &house,
        folder,
        past: BTreeSet::new(),
        now: files(&house, folder),
    };
    let (mut inbox, mut away) = (watch("."), watch(".Away"));
    let mut look = |what: &str| {
        inbox.look(what);
        away.look(what);
    };
    for round in 0..4 {
        assert_eq!(ann.select("INBOX"), 1);
        ann.must("MOVE 1 INBOX");
        look(&format!("round {round}, moved within the folder"));
        assert_eq!(ann.select("INBOX"), 1);
        ann.must("MOVE 1 Away");
        look(&format!("round {round}, moved away"));
        assert_eq!(ann.select("Away"), 1);
        ann.must("MOVE 1 INBOX");
        look(&format!("round {round}, moved back"));
        assert_eq!(ann.select("INBOX"), 1);
        ann.must("COPY 1 INBOX");
        ann.must("STORE 1 +FLAGS (\\Deleted)");
        ann.must("EXPUNGE");
        look(&format!("round {round}, copied within the folder"));
        ann.must("COPY 1 Away");
        look(&format!("round {round}, copied"));
        assert_eq!(ann.select("Away"), 1);
        ann.must("STORE 1 +FLAGS (\\Deleted)");
        ann.must("EXPUNGE");
        look(&format!("round {round}, removed"));
    }
    // Also when the proxy has to read what it knew.
    house.proxy.manager.service().pool.forget();
    assert_eq!(ann.select("INBOX"), 1);
    ann.must("COPY 1 Away");
    look("copied after all was forgotten");
}

/// What there is to see of the only message of a folder, but for what tells where it is.
fn shown(client: &mut Imap, folder: &str) -> String {
    assert_eq!(client.select(folder), 1, "{folder}");
    let answer = client.must("FETCH 1 (FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])");
    let answer = answer.replace("\\Recent", "");
    let mut lines: Vec<&str> = answer.lines().collect();
    lines.pop();
    lines.join("\n").replace("( ", "(").replace(" )", ")")
}

fn what_comes_back_is_as_it_was(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    let mut ann = house.imap("ann");
    ann.must("CREATE Away");
    let text = "Subject: \u{e9}\r\n\r\n.\r\n\r\nten apples\r\n";
    let date = "01-Feb-2003 04:05:06 +0700";
    let length = text.len();
    ann.must(&format!(
        "APPEND INBOX (\\Flagged storm) \"{date}\" {{{length}+}}\r\n{text}"
    ));
    ann.select("INBOX");
    let before = shown(&mut ann, "INBOX");
    for part in ["ten apples", "storm", "\\Flagged", "-2003 "] {
        assert!(before.contains(part), "{before}");
    }
    for round in 0..3 {
        ann.must("MOVE 1 Away");
        assert_eq!(shown(&mut ann, "Away"), before, "round {round}, moved away");
        ann.must("MOVE 1 INBOX");
        assert_eq!(
            shown(&mut ann, "INBOX"),
            before,
            "round {round}, moved back"
        );
        ann.must("MOVE 1 INBOX");
        assert_eq!(
            shown(&mut ann, "INBOX"),
            before,
            "round {round}, moved within"
        );
    }
}

fn of_what_cannot_all_come_back_nothing_does(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    let mut ann = house.imap("ann");
    ann.must("CREATE Away");
    for n in 0..3 {
        ann.append(
            "INBOX",
            &format!("Subject: m{n}\r\n\r\n{}", "text\r\n".repeat(1000)),
        );
    }
    ann.select("INBOX");
    ann.must("COPY 1:3 Away");
    ann.select("Away");
    ann.must("STORE 1:3 +FLAGS (\\Deleted)");
    ann.must("EXPUNGE");
    // There is room for four and a half of them.
    house.servers.set_quota(27);
    house.proxy.manager.service().restart_server().unwrap();
    house.proxy.manager.service().pool.forget();
    let before = house.mailboxes_of(&["ann"]);
    for command in ["COPY 1:3 Away", "COPY 1:3 INBOX"] {
        ann.select("INBOX");
        let answer = ann.ask(command);
        assert!(answer.contains(" NO "), "{command}: {answer}");
        assert_eq!(house.mailboxes_of(&["ann"]), before, "{command}");
    }
    assert_eq!(ann.select("INBOX"), 3);
    ann.must("COPY 1 Away");
    assert_eq!(ann.select("Away"), 1);
}
