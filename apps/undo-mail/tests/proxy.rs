//! The proxy as clients see it, in front of the own store and of an unmodified Dovecot.

mod house;

use house::servers::Kind;
use house::{House, Imap, Smtp, until};

on_each_server!(
    mail_comes_in_and_is_read_copied_moved_and_removed,
    no_uid_names_two_messages_after_a_rewind,
    smtp_refuses_what_it_must_and_survives_nonsense,
    an_idle_client_hears_of_new_mail,
    of_equal_messages_the_one_that_is_meant_goes,
);

fn mail_comes_in_and_is_read_copied_moved_and_removed(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    for n in 1..=3 {
        house.mail(
            "out@there.test",
            "ann@here.test",
            &format!("mail {n}"),
            ".\r\n..dots",
        );
    }
    house.drain();
    let mut ann = house.imap("ann");
    assert_eq!(ann.select("INBOX"), 3);
    let text = ann.must("FETCH 1 (UID FLAGS BODY[])");
    assert!(text.contains("\r\n.\r\n..dots\r\n"), "{text}");
    assert!(
        text.contains("* 1 FETCH (UID 1 ") && text.contains("\\Seen"),
        "{text}"
    );
    assert!(
        text.contains("X-Undo-ID: ") && text.contains("Received: "),
        "{text}"
    );
    let mut subjects = ann.subjects();
    subjects.sort();
    assert_eq!(subjects, ["mail 1", "mail 2", "mail 3"]);

    ann.must("CREATE work");
    assert!(
        ann.append("work", "Subject: own\r\n\r\nx\r\n")
            .contains("APPENDUID")
    );
    let copied = ann.must("COPY 1:2 work");
    assert!(copied.contains("COPYUID"), "{copied}");
    let moved = ann.must("UID MOVE 3 work");
    assert!(
        moved.contains("* 3 EXPUNGE") && moved.contains("COPYUID"),
        "{moved}"
    );
    assert_eq!(ann.select("work"), 4);
    let stored = ann.must("STORE 1 +FLAGS (\\Deleted)");
    assert!(
        stored.contains("* 1 FETCH (FLAGS (") && stored.contains("\\Deleted"),
        "{stored}"
    );
    assert_eq!(
        ann.must("SEARCH DELETED").lines().next(),
        Some("* SEARCH 1")
    );
    assert_eq!(
        ann.must("UID SEARCH 2:3 NOT HEADER Subject own")
            .lines()
            .next(),
        Some("* SEARCH 2 3")
    );
    assert!(ann.must("EXPUNGE").contains("* 1 EXPUNGE"));
    let status = ann.must("STATUS work (MESSAGES UIDNEXT)");
    assert!(status.contains("(MESSAGES 3 UIDNEXT 5)"), "{status}");
    ann.must("RENAME work done.work");
    assert!(ann.folders().contains(&"done.work".into()));
    assert_eq!(ann.select("done.work"), 3);
    assert!(
        ann.must("UID FETCH 1:* FLAGS").contains("UID 2"),
        "UIDs outlast a rename"
    );
    ann.must("CLOSE");
    ann.must("DELETE done.work");
    assert!(!ann.folders().contains(&"done.work".into()));
    assert!(ann.ask("SELECT done.work").contains(" NO "));
    ann.must("LOGOUT");
}

fn no_uid_names_two_messages_after_a_rewind(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    house.mail("a@there.test", "ann@here.test", "one", "1");
    house.drain();
    let mut ann = house.imap("ann");
    ann.select("INBOX");
    let before = house.last();
    house.mail("a@there.test", "ann@here.test", "two", "2");
    house.drain();
    assert!(ann.must("NOOP").contains("* 2 EXISTS"));
    let two = ann.must("FETCH 2 (UID BODY.PEEK[])");
    assert!(two.contains("UID 2"));

    house.proxy.manager.rewind(before, None).unwrap();
    // The same session goes on, and sees the message go.
    let noop = ann.must("NOOP");
    assert!(noop.contains("* 2 EXPUNGE"), "{noop}");
    let refused = ann.ask("STORE 1 +FLAGS (\\Seen)");
    assert!(refused.contains("NO [UNAVAILABLE]"), "{refused}");
    house.proxy.manager.drop_verb(before + 1).unwrap();
    house.mail("a@there.test", "ann@here.test", "three", "3");
    house.proxy.manager.replay().unwrap();
    house.drain();
    // The real server gives its UID 2 to another message now.
    ann.select("INBOX");
    let all = ann.must("UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])");
    assert!(all.contains("UID 1 ") && !all.contains("UID 2 "), "{all}");
    assert!(all.contains("three") && !all.contains("two"), "{all}");
}

fn smtp_refuses_what_it_must_and_survives_nonsense(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    let mut smtp = Smtp::connect(house.proxy.smtp.port());
    let mut ask = |line: &str, code: &str| {
        let reply = smtp.ask(line);
        assert!(reply.starts_with(code), "{line}: {reply}");
    };
    ask("MAIL FROM:<a@b>", "503");
    ask("EHLO", "501");
    ask("EHLO me", "250");
    ask("RCPT TO:<ann@here.test>", "503");
    ask("DATA", "503");
    ask("MAIL FROM:a@b", "501");
    ask("MAIL FROM:<a@b> SIZE=99999999999", "552");
    ask("MAIL FROM:<a@b> FOO=1", "555");
    ask("MAIL FROM:<a@b> SIZE=100 BODY=8BITMIME", "250");
    ask("MAIL FROM:<a@b>", "503");
    ask("RCPT TO:<x@elsewhere.test>", "550 5.7.1");
    ask("RCPT TO:<no address>", "553");
    ask("RCPT TO:<unknown@here.test>", "250");
    ask("RSET", "250");
    ask("BDAT 12", "500");
    ask(&"x".repeat(9000), "500");
    ask("NOOP", "250");
    for n in 0..40 {
        let mut client = Imap::connect(house.proxy.imap.port());
        let line = match n % 10 {
            0 => "".to_owned(),
            1 => "a".into(),
            2 => "a LOGIN".into(),
            3 => "a LOGIN x y".into(),
            4 => "+ FETCH".into(),
            5 => "a FETCH 1 (".into(),
            6 => format!("a LOGIN {} y", "x".repeat(n)),
            7 => "a AUTHENTICATE PLAIN AAAA".into(),
            8 => "a LOGIN ann*proxy secret".into(),
            _ => "a \u{0} \"".into(),
        };
        let answer = client.ask(&format!("X\r\n{line}\r\nz NOOP"));
        assert!(answer.contains("BAD"), "{answer}");
    }
    let mut master = Imap::connect(house.proxy.imap.port());
    assert!(
        master.ask("LOGIN ann*proxy secret").contains(" NO "),
        "the master's name is not for clients"
    );
    assert!(master.ask("LOGIN ann wrong").contains(" NO "));
    let mut ann = house.imap("ann");
    for bad in [
        "SELECT",
        "FETCH 1 FLAGS",
        "SELECT nowhere",
        "STATUS INBOX (FOO)",
        "UID",
        "UID FOO",
        "APPEND INBOX x",
        "RENAME INBOX x",
    ] {
        let answer = ann.ask(bad);
        assert!(
            answer.contains(" BAD ") || answer.contains(" NO "),
            "{bad}: {answer}"
        );
    }
    ann.select("INBOX");
    for bad in [
        "FETCH 0 FLAGS",
        "FETCH 1 FOO",
        "FETCH 1 (BODY[)",
        "STORE 1 FOO x",
        "STORE 1 FLAGS (\\Recent)",
        "SEARCH SUBJECT",
        "COPY 1",
        "FETCH a b",
    ] {
        let answer = ann.ask(bad);
        assert!(answer.contains(" BAD "), "{bad}: {answer}");
    }
}

fn an_idle_client_hears_of_new_mail(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    let mut ann = house.imap("ann");
    ann.select("INBOX");
    let port = house.proxy.smtp.port();
    let sender = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        house::send(port, "a@b.test", "ann@here.test", "Subject: s\r\n\r\nx\r\n")
    });
    // DONE comes after the mail has: what was said in between is read with the tagged line.
    let answer = {
        let waiting = std::thread::spawn(move || {
            let answer = ann.ask_idle(2500);
            drop(ann);
            answer
        });
        waiting.join().unwrap()
    };
    assert!(sender.join().unwrap().starts_with("250"));
    assert!(answer.contains("* 1 EXISTS"), "{answer}");
    until("it is quiet", || {
        house.proxy.manager.state().verbs_running == 0
    });
}

fn of_equal_messages_the_one_that_is_meant_goes(kind: Kind) {
    let Some(house) = House::new(kind, "copies", |_| ()) else {
        return;
    };
    house.mail("a@b.test", "ann@here.test", "twin", "x");
    house.drain();
    let mut one = house.imap("ann");
    one.select("INBOX");
    one.must("COPY 1 INBOX");
    one.must("NOOP");
    one.must("STORE 2 +FLAGS (\\Answered)");
    let before = house.last();
    let mut two = house.imap("ann");
    assert_eq!(two.select("INBOX"), 2);
    // Both want to remove the first one. The second client has not heard that it has gone.
    one.must("STORE 1 +FLAGS (\\Deleted)");
    one.must("EXPUNGE");
    two.ask("STORE 1 +FLAGS (\\Deleted)");
    two.ask("EXPUNGE");
    let left = two.must("FETCH 1:* (FLAGS)");
    assert!(
        left.contains("* 1 FETCH") && left.contains("\\Answered"),
        "{left}"
    );
    let mailboxes = house.mailboxes();
    house.proxy.manager.rewind(before, None).unwrap();
    let summary = house.proxy.manager.replay().unwrap();
    assert!(summary.paradoxes.is_empty(), "{summary:?}");
    assert_eq!(mailboxes, house.mailboxes());
}
