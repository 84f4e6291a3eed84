//! A thousand sessions of clients that do everything wrong: the server answers or
//! hangs up, and serves a good client after them as before.

mod place;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use mailstore::settings::Service;
use place::Place;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const IMAP: &[&str] = &[
    "a LOGIN anna a",
    "a LOGIN {4}",
    "a LOGIN {99999999999}",
    "b SELECT INBOX",
    "c FETCH 1:* (BODY[] ENVELOPE)",
    "d UID STORE 1:* +FLAGS (\\Deleted)",
    "e IDLE",
    "DONE",
    "f SEARCH OR OR OR",
    "g APPEND INBOX {20+}",
    "h LIST \"\" \"%*%*%*\"",
    "i FETCH 4294967295:* BODY[9.9.9.HEADER]<9223372036854775807.1>",
    "j STARTTLS",
    "k AUTHENTICATE PLAIN",
    "*",
    "=",
    "{0}",
    "l COPY * Trash",
    "m MOVE 1 Trash",
    "n CREATE ../../etc",
    "o RENAME INBOX {3+}",
    "p DELETE Trash",
    "\0\u{1}\u{7f}",
    "q ENABLE",
    "r LOGOUT",
    "s EXPUNGE",
    "t STATUS INBOX (",
    "u UID FETCH 1 (FLAGS) (CHANGEDSINCE 99999999999999999999)",
];

const SMTP: &[&str] = &[
    "EHLO x",
    "LHLO x",
    "HELO",
    "MAIL FROM:<>",
    "MAIL FROM:<a@b> SIZE=99999999999999999999",
    "RCPT TO:<anna@example.org>",
    "RCPT TO:<@@@>",
    "RCPT TO:<\"",
    "DATA",
    ".",
    "..",
    "AUTH PLAIN =",
    "AUTH PLAIN !!!",
    "AUTH LOGIN",
    "*",
    "STARTTLS",
    "BDAT 9",
    "VRFY root",
    "NOOP \u{fc}",
    "RSET",
    "QUIT",
    "\0",
    "HELP",
    "MAIL FROM:<a@b> BODY=",
    "x\r",
    "Subject: x",
];

fn misbehave(address: SocketAddr, words: &[&str], random: &mut Random) {
    let Ok(mut stream) = TcpStream::connect(address) else {
        panic!("the server is gone")
    };
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut buffer = [0; 4096];
    for _ in 0..random.below(12) {
        let mut octets = match random.below(10) {
            0 => (0..random.below(200))
                .map(|_| random.below(256) as u8)
                .collect(),
            1 => vec![b'('; random.below(70_000)],
            2 => random.of(words).repeat(1 + random.below(30)).into_bytes(),
            _ => random.of(words).as_bytes().to_vec(),
        };
        if random.below(6) == 0 && !octets.is_empty() {
            let at = random.below(octets.len());
            octets[at] ^= 1 << random.below(8);
        }
        octets.extend_from_slice(if random.below(8) == 0 { b"\n" } else { b"\r\n" });
        if stream.write_all(&octets).is_err() {
            return;
        }
        if random.below(3) == 0 {
            let _ = stream.read(&mut buffer);
        }
    }
    if random.below(2) == 0 {
        let _ = stream.shutdown(Shutdown::Write);
        while stream.read(&mut buffer).is_ok_and(|len| len > 0) {}
    }
}

#[test]
fn a_thousand_bad_sessions_do_no_harm() {
    let place = Place::with("bad", "[limits]\nlogin_seconds = 5\n");
    place.deliver("anna@example.org", "Subject: x\r\n\r\nx");
    let mut sessions = Vec::new();
    for worker in 0..4u64 {
        let (imap, smtp, lmtp, imaps) = (
            place.address(Service::Imap),
            place.address(Service::Smtp),
            place.address(Service::Lmtp),
            place.address(Service::Imaps),
        );
        sessions.push(std::thread::spawn(move || {
            let mut random = Random(0x1234_5678_9abc + worker * 7919);
            for session in 0..250 {
                match session % 5 {
                    0 | 1 => misbehave(imap, IMAP, &mut random),
                    2 => misbehave(smtp, SMTP, &mut random),
                    3 => misbehave(lmtp, SMTP, &mut random),
                    _ => misbehave(imaps, IMAP, &mut random),
                }
            }
        }));
    }
    sessions
        .into_iter()
        .for_each(|session| session.join().unwrap());
    assert!(
        place
            .deliver("anna@example.org", "Subject: after\r\n\r\nx")
            .starts_with("250")
    );
    let mut client = place.imap("anna", "a");
    client.ok("SELECT INBOX");
    assert!(client.ok("SEARCH SUBJECT after").starts_with("* SEARCH "));
}
