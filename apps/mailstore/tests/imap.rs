//! Conversations with the IMAP server over real sockets.

mod place;

use std::time::Duration;

use mailstore::settings::Service;
use place::Place;

const MIXED: &str = "From: Anna <anna@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n\
    Date: Sun, 29 Nov 2026 10:00:00 +0100\r\nX-Undo: 7\r\nMessage-ID: <m@x>\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
    Sch\u{f6}ne Gr\u{fc}\u{df}e\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\nxyz\r\n--b--";

fn appended(place: &Place, count: usize) -> place::Client {
    let mut client = place.imap("anna", "a");
    for number in 0..count {
        let text = format!("Subject: message {number}\r\n\r\nbody {number}\r\n");
        client.ok(&format!("APPEND INBOX {{{}+}}\r\n{text}", text.len()));
    }
    client
}

#[test]
fn a_delivery_is_there_with_its_headers_untouched() {
    let place = Place::new("delivery");
    assert!(place.deliver("anna@example.org", MIXED).starts_with("250"));
    let mut client = place.imap("anna@example.org", "a");
    let selected = client.ok("SELECT INBOX");
    for part in [
        "1 EXISTS",
        "1 RECENT",
        "UNSEEN 1",
        "UIDVALIDITY",
        "UIDNEXT 2",
        "HIGHESTMODSEQ",
        "READ-WRITE",
    ] {
        assert!(selected.contains(part), "{part}: {selected}");
    }
    let fetched = client.ok("FETCH 1 (BODY.PEEK[] RFC822.SIZE)");
    assert!(
        fetched.contains("X-Undo: 7\r\nMessage-ID: <m@x>\r\n"),
        "{fetched}"
    );
    assert!(fetched.contains(
        "Return-Path: <sender@elsewhere.net>\r\nDelivered-To: anna@example.org\r\nReceived: "
    ));
    assert!(client.ok("FETCH 1 BODY[1]").contains("BODY[1] {15}"));
    assert!(client.ok("FETCH 1 FLAGS").contains("\\Seen"));
    assert!(
        client
            .ok("FETCH 1 BODY.PEEK[2.MIME]<0.7>")
            .contains("BODY[2.MIME]<0> {7}\r\nContent")
            || client
                .ok("FETCH 1 BODY.PEEK[2.MIME]<0.7>")
                .contains("BODY[2.MIME]<0> {7}Content")
    );
    assert!(
        client
            .ok("FETCH 1 ENVELOPE")
            .contains("\"=?utf-8?Q?Gr=C3=BC=C3=9Fe?=\" ((\"Anna\" NIL \"anna\" \"example.org\"))")
    );
    for (search, found) in [
        ("SUBJECT {6+}\r\ngr\u{fc}\u{df}", "* SEARCH 1"),
        ("BODY {9+}\r\nSCH\u{d6}NE G", "* SEARCH 1"),
        ("HEADER X-Undo 7 SENTON 29-Nov-2026", "* SEARCH 1"),
        ("HEADER X-Undo 8", "* SEARCH"),
        ("NOT TEXT xyz", "* SEARCH 1"),
        ("OR FROM nobody TO bob", "* SEARCH 1"),
        (
            "SINCE 1-Jan-2020 LARGER 100 SMALLER 5000 SEEN",
            "* SEARCH 1",
        ),
    ] {
        let answer = client.ok(&format!("SEARCH {search}"));
        assert_eq!(answer.lines().next(), Some(found), "{search}");
    }
}

#[test]
fn changes_are_told_to_other_sessions_when_they_may_be() {
    let place = Place::new("sessions");
    let mut one = appended(&place, 4);
    one.ok("SELECT INBOX");
    let mut other = place.imap("anna", "a");
    other.ok("SELECT INBOX");
    one.ok("STORE 2 +FLAGS.SILENT (\\Flagged $Work)");
    let told = other.ok("NOOP");
    assert!(told.contains("* 2 FETCH (FLAGS (\\Flagged $Work"), "{told}");
    one.ok("STORE 1,3 +FLAGS (\\Deleted)");
    assert!(one.ok("EXPUNGE").starts_with("* 1 EXPUNGE\n* 2 EXPUNGE\n"));
    // Between them the numbers stay: a FETCH must not tell of an EXPUNGE.
    let fetched = other.ok("FETCH 4 BODY.PEEK[TEXT]");
    assert!(
        fetched.contains("body 3") && !fetched.contains("EXPUNGE"),
        "{fetched}"
    );
    assert!(
        other.ok("FETCH 3 FLAGS").starts_with("t"),
        "an expunged message has no answer"
    );
    assert!(other.ok("NOOP").starts_with("* 1 EXPUNGE\n* 2 EXPUNGE\n"));
    assert!(other.ok("FETCH 2 BODY.PEEK[TEXT]").contains("body 3"));
    // IDLE hears of a delivery without asking.
    other.send("i IDLE\r\n");
    other.expect("+");
    place.deliver("anna@example.org", "Subject: x\r\n\r\nx");
    other.expect("* 3 EXISTS");
    other.expect("* 1 RECENT");
    other.send("DONE\r\n");
    other.expect("i OK");
    // A mailbox that goes away ends the sessions that have it.
    one.ok("CREATE Doomed");
    other.ok("SELECT Doomed");
    one.ok("DELETE Doomed");
    other.send("n NOOP\r\n");
    other.expect("* BYE");
}

#[test]
fn headers_are_whole_however_long_they_and_their_messages_are() {
    let place = Place::new("headers");
    let mut client = place.imap("anna", "a");
    for (number, length) in [0, 1, 8_150, 8_192, 8_200, 20_000].into_iter().enumerate() {
        let header = format!("Subject: {}\r\nX-Last: yes\r\n\r\n", "s".repeat(length));
        let text = format!("{header}{}\r\n", "body ".repeat(10_000));
        client.ok(&format!("APPEND INBOX {{{}+}}\r\n{text}", text.len()));
        client.ok("SELECT INBOX");
        let fetched = client.ok(&format!(
            "FETCH {} (BODY.PEEK[HEADER] RFC822.SIZE)",
            number + 1
        ));
        assert!(
            fetched.contains(&format!("BODY[HEADER] {{{}}}", header.len())),
            "{length}"
        );
        assert!(
            fetched.contains(&format!("RFC822.SIZE {}", text.len())),
            "{length}"
        );
        assert!(fetched.contains("X-Last: yes\r\n\r\n"), "{length}");
    }
}

#[test]
fn uids_of_appends_copies_and_moves_are_told() {
    let place = Place::new("uidplus");
    let mut client = appended(&place, 3);
    client.ok("SELECT INBOX");
    let copied = client.ok("UID COPY 1:2 Archive");
    assert!(
        copied.contains("[COPYUID ") && copied.contains(" 1:2 1:2] Copied"),
        "{copied}"
    );
    let moved = client.ok("MOVE 2:3 Archive");
    assert!(
        moved.contains(" 2:3 3:4] Moved") && moved.contains("* 2 EXPUNGE\n* 2 EXPUNGE\n"),
        "{moved}"
    );
    client.ok("STORE 1 +FLAGS (one two \\Answered)");
    client.ok("COPY 1 Sent");
    assert!(
        client
            .with("COPY 1 Nowhere", "NO [TRYCREATE]")
            .starts_with('t')
    );
    client.ok("EXAMINE Sent");
    assert!(client.ok("FETCH 1 FLAGS").contains("\\Answered one two"));
    client.with("STORE 1 FLAGS ()", "NO [READ-ONLY]");
    client.ok("SELECT Archive");
    client.ok("UID STORE 1:* +FLAGS.SILENT (\\Deleted)");
    assert!(
        client
            .ok("UID EXPUNGE 2,4")
            .starts_with("* 2 EXPUNGE\n* 3 EXPUNGE\n")
    );
    let searched = client.ok("UID SEARCH RETURN (MIN MAX COUNT ALL) ALL");
    assert!(
        searched.contains("UID MIN 1 MAX 3 ALL 1,3 COUNT 2"),
        "{searched}"
    );
    // A UID that was the last is not given again, also by the next server.
    client.ok("MOVE 1:2 Trash");
    let directory = {
        drop(client);
        place.stop()
    };
    let place = Place::in_directory(directory, "");
    let mut client = place.imap("anna", "a");
    assert!(
        client
            .ok("STATUS Archive (UIDNEXT MESSAGES)")
            .contains("(UIDNEXT 5 MESSAGES 0)")
    );
}

#[test]
fn mod_sequences_rise_and_guard_stores() {
    let place = Place::new("condstore");
    let mut client = appended(&place, 2);
    let selected = client.ok("SELECT INBOX (CONDSTORE)");
    let highest: u64 = selected
        .split("HIGHESTMODSEQ ")
        .nth(1)
        .unwrap()
        .split(']')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let stored = client.ok("STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\\Seen)");
    assert!(
        stored.contains("[MODIFIED 1]") && !stored.contains("FETCH"),
        "{stored}"
    );
    let stored = client.ok(&format!(
        "STORE 1 (UNCHANGEDSINCE {highest}) +FLAGS.SILENT (\\Seen)"
    ));
    assert!(stored.contains("* 1 FETCH (MODSEQ ("), "{stored}");
    let changed = client.ok(&format!("FETCH 1:* (FLAGS) (CHANGEDSINCE {highest})"));
    assert!(
        changed.starts_with("* 1 FETCH (FLAGS (\\Seen") && changed.lines().count() == 2,
        "{changed}"
    );
    assert!(
        client
            .ok(&format!("SEARCH MODSEQ {}", highest + 1))
            .starts_with("* SEARCH 1 (MODSEQ ")
    );
    let directory = {
        drop(client);
        place.stop()
    };
    // Without the notes all looks changed; it must never look unchanged.
    std::fs::remove_file(
        directory
            .0
            .join("data/mail/anna@example.org/mailstore-modseq"),
    )
    .unwrap();
    let place = Place::in_directory(directory, "");
    let mut client = place.imap("anna", "a");
    client.ok("SELECT INBOX");
    assert_eq!(
        client
            .ok(&format!("FETCH 1:* (FLAGS) (CHANGEDSINCE {highest})"))
            .lines()
            .count(),
        3
    );
}

#[test]
fn mailboxes_are_made_listed_renamed_and_removed() {
    let place = Place::new("folders");
    let mut client = place.imap("anna", "a");
    client.ok("CREATE Lists.rust.users");
    client.with("CREATE lists/rust", "NO [CANNOT]");
    client.with("CREATE inbox", "NO [ALREADYEXISTS]");
    let listed = client.ok("LIST \"\" Lists%");
    assert!(
        listed.starts_with("* LIST (\\Noselect \\HasChildren) \".\" \"Lists\"\n"),
        "{listed}"
    );
    let listed = client.ok("LIST (SPECIAL-USE) \"\" * RETURN (STATUS (MESSAGES))");
    assert!(
        listed.contains("\\Sent) \".\" \"Sent\"\n* STATUS \"Sent\" (MESSAGES 0)"),
        "{listed}"
    );
    client.ok("SUBSCRIBE Lists.rust.users");
    assert!(
        client
            .ok("LSUB \"\" Lists.%")
            .contains("* LSUB (\\Noselect) \".\" \"Lists.rust\"")
    );
    client.ok("RENAME Lists.rust Old");
    assert!(
        client.ok("LIST \"\" Old*").contains("\"Old.users\"")
            || client.ok("LIST \"\" *").contains("\"Old.users\"")
    );
    client.ok("RENAME Old.users Old.users.all");
    client.with("RENAME Nowhere x", "NO [NONEXISTENT]");
    client.with("RENAME Sent Trash", "NO [ALREADYEXISTS]");
    client.with("DELETE INBOX", "NO [CANNOT]");
    client.ok("APPEND INBOX {10+}\r\nA: b\r\n\r\nxx");
    client.ok("RENAME INBOX Kept");
    assert!(client.ok("STATUS Kept (MESSAGES)").contains("MESSAGES 1"));
    assert!(client.ok("STATUS INBOX (MESSAGES)").contains("MESSAGES 0"));
    client.ok("DELETE Kept");
    client.ok("CREATE Kept");
    assert!(client.ok("NAMESPACE").contains("((\"\" \".\"))"));
}

#[test]
fn a_recreated_mailbox_has_another_uidvalidity() {
    let place = Place::new("validity");
    let mut client = place.imap("anna", "a");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        client.ok("CREATE x");
        assert!(
            seen.insert(
                client
                    .ok("STATUS x (UIDVALIDITY)")
                    .lines()
                    .next()
                    .unwrap()
                    .to_string()
            )
        );
        client.ok("DELETE x");
    }
}

#[test]
fn quotas_hold_and_are_told() {
    let place = Place::new("quota");
    let mut client = place.imap("bob", "b");
    let text = format!("Subject: x\r\n\r\n{}\r\n", "x".repeat(9000));
    let append = format!("APPEND INBOX {{{}+}}\r\n{text}", text.len());
    client.ok(&append);
    client.ok(&append);
    client.with(&append, "NO [OVERQUOTA]");
    assert!(
        client
            .ok("GETQUOTAROOT INBOX")
            .contains("* QUOTA \"\" (STORAGE 18 20)")
    );
    client.ok("SELECT INBOX");
    client.with("COPY 1 Sent", "NO [OVERQUOTA]");
    assert!(
        place
            .deliver("bob@example.org", &text)
            .starts_with("452 4.2.2")
    );
    client.ok("STORE 1 +FLAGS (\\Deleted)");
    client.ok("CLOSE");
    assert!(place.deliver("bob@example.org", &text).starts_with("250"));
}

#[test]
fn who_may_log_in_and_how() {
    let place = Place::new("login");
    let mut client = place.client(Service::Imap);
    client.expect("* OK");
    client.with("SELECT INBOX", "BAD");
    client.with("FETCH 1 FLAGS", "BAD");
    client.with("LOGIN anna b", "NO [AUTHENTICATIONFAILED]");
    client.ok("LOGIN \"anna@EXAMPLE.com\" {1+}\r\na");
    // The master opens any account, by both commands.
    let mut client = place.imap("anna*op", "m");
    client.ok("SELECT INBOX");
    use base64::Engine;
    let plain = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    for response in ["anna@example.org\0op\0m", "\0bob*op\0m", "bob\0bob\0b"] {
        let mut client = place.client(Service::Imap);
        client.expect("* OK");
        client.ok(&format!("AUTHENTICATE PLAIN {}", plain(response)));
    }
    for response in [
        "anna\0op\0a",
        "anna\0bob\0b",
        "\0anna*bob\0b",
        "\0\0",
        "x",
        "\0op\0m",
    ] {
        let mut client = place.client(Service::Imap);
        client.expect("* OK");
        client.send("t1 AUTHENTICATE PLAIN\r\n");
        client.expect("+ ");
        client.send(&format!("{}\r\n", plain(response)));
        client.expect("t1 NO");
    }
}

#[test]
fn tls_begins_clean() {
    let place = Place::with("tls", "[limits]\nplain_login = \"never\"\n");
    let mut client = place.client(Service::Imap);
    let greeting = client.expect("* OK");
    assert!(
        greeting.contains("STARTTLS")
            && greeting.contains("LOGINDISABLED")
            && !greeting.contains("AUTH=")
    );
    client.with("LOGIN anna a", "NO [PRIVACYREQUIRED]");
    // A command that was slipped in before TLS is not carried out inside of it.
    client.send("a STARTTLS\r\nb NOOP\r\n");
    assert!(client.line().starts_with("a BAD"));
    assert_eq!(client.line(), "");
}

#[test]
fn too_long_and_senseless_input_is_told() {
    let place = Place::new("limits");
    let mut client = place.imap("anna", "a");
    client.with("APPEND INBOX {2000000}", "NO [TOOBIG]");
    client.send(&format!(
        "x APPEND INBOX {{1500000+}}\r\n{}\r\n",
        "y".repeat(1_500_000)
    ));
    client.expect("x NO [TOOBIG]");
    client.ok("NOOP");
    client.with("FETCH 1 FLAGS", "BAD");
    client.with("FROB", "BAD");
    let mut stranger = place.client(Service::Imap);
    stranger.expect("* OK");
    stranger.send("a APPEND INBOX {5000}\r\n");
    stranger.expect("a ");
    stranger.send(&format!("a LOGIN {}\r\n", "x".repeat(100_000)));
    let line = stranger.line();
    assert!(line.starts_with("* BYE") || line.is_empty(), "{line}");
}

#[test]
fn what_other_programs_do_to_the_maildir_is_seen() {
    let place = Place::new("outside");
    let mut client = appended(&place, 2);
    client.ok("SELECT INBOX");
    let cur = place.mail_of("anna@example.org").join("cur");
    let mut files: Vec<_> = std::fs::read_dir(&cur)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let renamed = format!("{}F", files[0].to_str().unwrap());
    std::fs::rename(&files[0], renamed).unwrap();
    std::fs::remove_file(&files[1]).unwrap();
    std::fs::write(
        place.mail_of("anna@example.org").join("new/123.other.host"),
        "A: b\r\n\r\nby hand\n",
    )
    .unwrap();
    // The change may lie in the same tick as the server's own look.
    std::thread::sleep(Duration::from_millis(1600));
    let told = client.ok("NOOP");
    assert!(
        told.contains("* 1 FETCH (FLAGS (\\Flagged")
            && told.contains("* 2 EXPUNGE")
            && told.contains("* 2 EXISTS"),
        "{told}"
    );
    let fetched = client.ok("FETCH 2 (UID RFC822.SIZE BODY.PEEK[])");
    assert!(
        fetched.contains("UID 3 RFC822.SIZE 17") && fetched.contains("by hand\r\n"),
        "{fetched}"
    );
}
