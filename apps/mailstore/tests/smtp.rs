//! Conversations with SMTP, submission and LMTP over real sockets, and the queue.

mod place;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use mailstore::settings::Service;
use place::{Client, Place};

fn greeted(place: &Place, service: Service) -> Client {
    let mut client = place.client(service);
    client.smtp_reply("220");
    client.smtp(
        if service == Service::Lmtp {
            "LHLO test"
        } else {
            "EHLO test.example"
        },
        "250",
    );
    client
}

fn messages(place: &Place, user: &str, password: &str) -> usize {
    let status = place.imap(user, password).ok("STATUS INBOX (MESSAGES)");
    status
        .split("MESSAGES ")
        .nth(1)
        .unwrap()
        .split(')')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{what} did not come"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn aliases_second_names_and_details_lead_to_accounts() {
    let place = Place::new("routes");
    let mut client = greeted(&place, Service::Smtp);
    client.smtp("MAIL FROM:<x@elsewhere.net> SIZE=100", "250");
    for recipient in [
        "team@example.org",
        "Anna@Example.COM",
        "anna+lists@example.org",
        "Postmaster",
        "postmaster@example.com",
    ] {
        client.smtp(&format!("RCPT TO:<{recipient}>"), "250");
    }
    client.smtp("RCPT TO:<nobody@example.org>", "550 5.1.1");
    client.smtp("RCPT TO:<x@elsewhere.net>", "550 5.7.1");
    client.smtp("DATA", "354");
    client.smtp("Subject: x\r\n\r\n..dot\r\n.", "250");
    client.smtp("QUIT", "221");
    // One message for each account, however many names led there.
    assert_eq!(
        (messages(&place, "anna", "a"), messages(&place, "bob", "b")),
        (1, 1)
    );
    let mut client = place.imap("anna", "a");
    client.ok("SELECT INBOX");
    assert!(
        client.ok("FETCH 1 BODY[TEXT]").contains("{6}\r\n.dot")
            || client.ok("FETCH 1 BODY[TEXT]").contains(".dot\r\n")
    );
}

#[test]
fn commands_come_in_one_packet_and_in_any_order() {
    let place = Place::new("pipelining");
    let mut client = greeted(&place, Service::Smtp);
    client.send(
        "MAIL FROM:<a@b.c>\r\nRCPT TO:<anna@example.org>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nRSET\r\nDATA\r\nFOO\r\nQUIT\r\n",
    );
    // The text was sent before the server asked for it, and is taken all the same.
    for code in ["250", "250", "354", "250", "250", "503", "500", "221"] {
        client.smtp_reply(code);
    }
    assert_eq!(client.line(), "");
    let mut client = place.client(Service::Smtp);
    client.smtp_reply("220");
    client.smtp("MAIL FROM:<a@b.c>", "503");
    client.smtp("EHLO x", "250");
    client.smtp("RCPT TO:<anna@example.org>", "503");
    client.smtp("MAIL FROM:<a@b.c> SIZE=99999999", "552 5.3.4");
    client.smtp("MAIL FROM:<\u{fc}@b.c>", "553 5.6.7");
    client.smtp("MAIL FROM:<\u{fc}@b.c> SMTPUTF8", "250");
    client.smtp("DATA", "554");
    client.smtp("AUTH PLAIN", "503");
    client.smtp("LHLO x", "500");
}

#[test]
fn texts_that_are_too_long_or_go_in_circles_are_refused() {
    let place = Place::new("refused");
    let mut client = greeted(&place, Service::Smtp);
    let mut attempt = |text: &str, code: &str| {
        client.smtp("MAIL FROM:<a@b.c>", "250");
        client.smtp("RCPT TO:<anna@example.org>", "250");
        client.smtp("DATA", "354");
        client.smtp(&format!("{text}\r\n."), code);
    };
    attempt(&"x".repeat(1_100_000), "552 5.3.4");
    attempt("a\0b", "554 5.6.0");
    attempt(
        &format!("{}\r\n", "Received: x\r\n".repeat(61)),
        "554 5.4.6",
    );
    attempt("A: b\r\n\r\nx\n.\nMAIL FROM:<evil@x>", "250");
    assert_eq!(messages(&place, "anna", "a"), 1);
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let place = Place::new("lmtp");
    let mut client = greeted(&place, Service::Lmtp);
    client.smtp("MAIL FROM:<>", "250");
    client.smtp("RCPT TO:<anna@example.org>", "250");
    client.smtp("RCPT TO:<nobody@example.org>", "550");
    client.smtp("RCPT TO:<bob@example.org>", "250");
    client.smtp("DATA", "354");
    client.send(&format!(
        "Subject: x\r\n\r\n{}\r\n.\r\n",
        "y".repeat(30_000)
    ));
    client.smtp_reply("250");
    client.smtp_reply("452 4.2.2");
    assert_eq!(
        (messages(&place, "anna", "a"), messages(&place, "bob", "b")),
        (1, 0)
    );
}

#[test]
fn submission_wants_a_login_and_adds_what_is_missing() {
    let place = Place::new("submission");
    let mut client = greeted(&place, Service::Submission);
    client.smtp("MAIL FROM:<anna@example.org>", "530");
    client.smtp("AUTH LOGIN", "334");
    client.smtp("YW5uYQ==", "334");
    client.smtp("Yg==", "535");
    client.smtp("AUTH PLAIN AGFubmEAYQ==", "235");
    client.smtp("MAIL FROM:<anna@example.org>", "250");
    client.smtp("RCPT TO:<x@elsewhere.net>", "550 5.7.1");
    client.smtp("RCPT TO:<bob@example.org>", "250");
    client.smtp("DATA", "354");
    client.smtp("Subject: x\r\n\r\nx\r\n.", "250");
    let mut client = place.imap("bob", "b");
    client.ok("SELECT INBOX");
    let header = client.ok("FETCH 1 BODY[HEADER]");
    assert!(
        header.contains("\r\nDate: ")
            && header.contains("\r\nMessage-ID: <")
            && header.contains("with ESMTPA"),
        "{header}"
    );
}

/// A relay that refuses `never@`, is not ready for `later@` the first two times,
/// and takes the rest. What it took comes out of the channel.
fn relay() -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut laters = 0;
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let mut reader = BufReader::new(stream);
            if serve_relay(&mut reader, &sender, &mut laters).is_none() {
                continue;
            }
        }
    });
    (port, receiver)
}

fn serve_relay(
    reader: &mut BufReader<TcpStream>,
    sender: &std::sync::mpsc::Sender<String>,
    laters: &mut u32,
) -> Option<()> {
    reader.get_mut().write_all(b"220 relay\r\n").ok()?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return Some(());
        }
        let reply = match line.get(..4)? {
            "EHLO" => "250-relay\r\n250 SIZE".to_string(),
            "RCPT" if line.contains("never@") => "550 5.1.1 never heard of".into(),
            "RCPT" if line.contains("later@") && *laters < 2 => {
                *laters += 1;
                "450 4.2.0 not now".into()
            }
            "DATA" => {
                reader.get_mut().write_all(b"354 go\r\n").ok()?;
                let mut text = String::new();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).ok()?;
                    if line == ".\r\n" {
                        break;
                    }
                    text.push_str(&line);
                }
                sender.send(text).ok()?;
                "250 taken".into()
            }
            "QUIT" => "221 bye".into(),
            _ => "250 fine".into(),
        };
        reader
            .get_mut()
            .write_all(format!("{reply}\r\n").as_bytes())
            .ok()?;
    }
}

#[test]
fn mail_for_elsewhere_is_retried_delivered_and_bounced() {
    let (port, taken) = relay();
    let place = Place::with(
        "relay",
        &format!(
            "[relay]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n\
             [queue]\nretry_seconds = [1]\nwarn_seconds = 1\n"
        ),
    );
    let mut client = greeted(&place, Service::Submission);
    client.smtp("AUTH PLAIN AGFubmEAYQ==", "235");
    client.smtp("MAIL FROM:<anna@example.org>", "250");
    for name in ["good", "never", "later", "good"] {
        client.smtp(&format!("RCPT TO:<{name}@elsewhere.net>"), "250");
    }
    client.smtp("DATA", "354");
    client.smtp("Subject: to the world\r\n\r\n..dot\r\n.", "250");
    let text = taken.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(
        text.ends_with("\r\n\r\n..dot\r\n") && text.contains("Subject: to the world\r\n"),
        "{text}"
    );
    taken
        .recv_timeout(Duration::from_secs(20))
        .expect("the one that was to come later");
    assert!(
        taken.recv_timeout(Duration::from_millis(300)).is_err(),
        "a recipient was served twice"
    );
    wait_for("the bounce", || messages(&place, "anna", "a") >= 1);
    let mut client = place.imap("anna", "a");
    client.ok("SELECT INBOX");
    let reports = client.ok("FETCH 1:* BODY[]");
    assert!(
        reports.contains(
            "Final-Recipient: rfc822; never@elsewhere.net\r\nAction: failed\r\nStatus: 5.1.1"
        ),
        "{reports}"
    );
    assert!(
        reports.contains("Subject: to the world\r\n") && reports.contains("Return-Path: <>"),
        "{reports}"
    );
    let queue = place.directory.0.join("data/queue");
    wait_for("the queue's end", || {
        std::fs::read_dir(&queue).unwrap().count() == 0
    });
}

#[test]
fn what_an_alias_leads_elsewhere_goes_there_reports_too() {
    let (port, taken) = relay();
    let place = Place::with(
        "away",
        &format!(
            "[[alias]]\naddress = \"away@example.org\"\nto = [\"x@elsewhere.net\", \"bob@example.org\"]\n\
             [relay]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n"
        ),
    );
    let mut client = greeted(&place, Service::Smtp);
    client.smtp("MAIL FROM:<y@elsewhere.net>", "250");
    client.smtp("RCPT TO:<away@example.org>", "250");
    client.smtp("DATA", "354");
    client.smtp("Subject: one\r\n\r\nx\r\n.", "250");
    assert!(
        taken
            .recv_timeout(Duration::from_secs(20))
            .unwrap()
            .contains("Subject: one\r\n")
    );
    assert_eq!(messages(&place, "bob", "b"), 1);
    let mut client = greeted(&place, Service::Submission);
    client.smtp("AUTH PLAIN AGFubmEAYQ==", "235");
    client.smtp("MAIL FROM:<away@example.org>", "250");
    client.smtp("RCPT TO:<never@elsewhere.net>", "250");
    client.smtp("DATA", "354");
    client.smtp("Subject: two\r\n\r\nx\r\n.", "250");
    let report = taken.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(
        report.contains("Final-Recipient: rfc822; never@elsewhere.net"),
        "{report}"
    );
    wait_for("bob's report", || messages(&place, "bob", "b") == 2);
}

#[test]
fn the_queue_outlives_the_server_and_gives_up_in_the_end() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let relay = format!("[relay]\nhost = \"127.0.0.1\"\nport = {unused}\ntls = \"none\"\n");
    let place = Place::with(
        "outlives",
        &format!("{relay}[queue]\nretry_seconds = [1]\n"),
    );
    let mut client = greeted(&place, Service::Submission);
    client.smtp("AUTH PLAIN AGFubmEAYQ==", "235");
    client.smtp("MAIL FROM:<anna@example.org>", "250");
    client.smtp("RCPT TO:<x@elsewhere.net>", "250");
    client.smtp("DATA", "354");
    client.smtp("Subject: lost\r\n\r\nx\r\n.", "250");
    drop(client);
    let directory = place.stop();
    std::fs::write(
        directory.0.join("data/queue/9.stray.message"),
        "never taken",
    )
    .unwrap();
    let place = Place::in_directory(
        directory,
        &format!("{relay}[queue]\nretry_seconds = [1]\ngive_up_seconds = 1\n"),
    );
    assert!(
        !place
            .directory
            .0
            .join("data/queue/9.stray.message")
            .exists()
    );
    wait_for("the bounce", || messages(&place, "anna", "a") == 1);
}
