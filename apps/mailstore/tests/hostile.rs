//! Input that was bent at random goes through every parser: none may panic, run
//! away, or break what it promises. `fuzz/` does the same for hours; this is the
//! part of it that is short enough for every run.

use mailstore::imap::search;
use mailstore::imap::{frame, parse};
use mailstore::maildir::keywords::Keywords;
use mailstore::maildir::modseq::Notes;
use mailstore::maildir::name;
use mailstore::maildir::uidlist::UidList;
use mailstore::message::section::{Section, What};
use mailstore::message::{address, describe, lines, structure};
use mailstore::queue::client;
use mailstore::settings::Settings;
use mailstore::smtp::command;
use mailstore::smtp::data::Text;

const SEEDS: &[&str] = &[
    "a1 UID FETCH 1:*,5 (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (To \"x y\")]<5.10> ENVELOPE) (CHANGEDSINCE 12)\r\n",
    "a2 SEARCH RETURN (MIN ALL) CHARSET UTF-8 OR (SEEN NOT FROM {3}\r\nabc) UID 1:5 SINCE 1-Jan-2020\r\n",
    "a3 APPEND INBOX (\\Seen $x) \" 1-Jan-2020 00:00:00 +0000\" {4+}\r\na\r\nb\r\n",
    "a4 LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (\"a*\" %) RETURN (STATUS (MESSAGES))\r\n",
    "a5 STORE 1:* (UNCHANGEDSINCE 5) -FLAGS.SILENT (\\Deleted key)\r\n",
    "MAIL FROM:<\"a \\\" b\"@[127.0.0.1]> SIZE=10 BODY=8BITMIME SMTPUTF8\r\n",
    "RCPT TO:<@r,@s:anna+x@example.org>\r\n.\r\n..x\r\n.\r\n",
    "From: \"A, B\" <a@x>, Team: b@y (c), d;\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\r\nDate: Sun, 29 Nov 2026 10:00:00 +0100\r\n\
     Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nx\r\n\
     --b\r\nContent-Transfer-Encoding: base64\r\n\r\nbmVlZGxl\r\n--b--\r\n",
    "3 V1275660208 N25022 G3085f01b\n25006 W2 :1276528487.M364837P9451.kurkku,S=1355,W=1394:2,FSa\n",
    "H 40\nM 1 41 S\nM 2 42 FSa\n0 $Forwarded\n1 Junk\n",
    "hostname = \"a\"\ndata = \"x\"\n[listen]\nimap = [\"127.0.0.1:143\"]\n[[domain]]\nname = \"b\"\n[[alias]]\naddress = \"c@b\"\nto = [\"d@b\"]\n",
];

const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "{5}\r\n",
    "{99999999999999999999}",
    "(",
    ")",
    "\"",
    "\\",
    "<",
    ">",
    "\0",
    "\u{fc}",
    "--b\r\n",
    "4294967295",
    "18446744073709551616",
    ":*",
    "=?utf-8?Q?=",
    ";",
    ",",
    "@",
    "[",
    "]",
    " ",
    ".",
    "\r\n.\r\n",
    "NOT ",
    "OR ",
];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound.max(1)
    }
}

/// A seed with some octets changed, cut out, repeated, or put in.
fn bent(random: &mut Random) -> Vec<u8> {
    let mut input = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..random.below(6) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(20)).min(input.len());
        match random.below(5) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 => drop(input.drain(at..end)),
            2 => {
                let part = input[at..end].repeat(1 + random.below(50));
                input.splice(at..at, part);
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())].as_bytes();
                input.splice(at..at, piece.iter().copied());
            }
        }
    }
    input
}

fn check(input: &[u8]) {
    let _ = parse::command(input);
    let _ = (frame::announced(input), frame::tag_of(input));
    let _ = command::parse(input);
    let _ = address::parse_list(input);

    let mut whole = Text::new(1 << 20);
    let (used, done) = whole.take(input);
    let mut single = Text::new(1 << 20);
    let ended = input.iter().position(|octet| single.take(&[*octet]).1);
    assert_eq!(
        (used, done),
        (ended.map_or(input.len(), |at| at + 1), ended.is_some())
    );
    assert_eq!(whole.octets, single.octets);
    let (stored, wire_len) = lines::to_stored(input);
    assert_eq!(lines::to_wire(stored).len(), wire_len);
    let sent = client::stuffed(input);
    assert_eq!(
        Text::new(1 << 20).take(&sent),
        (sent.len(), true),
        "a message ends inside of itself"
    );

    let root = structure::parse(input);
    let mut out = Vec::new();
    describe::body_structure(&mut out, input, &root, true);
    describe::envelope(&mut out, lines::split_header(input).0);
    for path in [&[][..], &[1], &[2], &[1, 1]] {
        for what in [
            What::All,
            What::Header,
            What::Mime,
            What::Fields(vec!["TO".into()]),
        ] {
            let _ = Section {
                path: path.to_vec(),
                what,
            }
            .of(input, || &root);
        }
    }
    let _ = (search::body_has(input, b"needle"), search::decoded(input));

    if let Ok(list) = UidList::parse(input) {
        assert!(
            list.validity > 0
                && list
                    .uids
                    .values()
                    .all(|uid| *uid < list.next || *uid == u32::MAX)
        );
    }
    let text = String::from_utf8_lossy(input);
    let _ = (
        Keywords::parse(&text).names().count(),
        Notes::parse(&text).next_modseq(),
    );
    let (base, flags) = name::split(&text);
    assert_eq!(name::split(&name::join(base, flags)), (base, flags));
    let _ = (name::order(base), name::size_field(base, 'S'));
    let _ = Settings::parse(&text, std::path::Path::new("/nonexistent"));
}

#[test]
fn bent_input_breaks_no_parser() {
    let rounds = if cfg!(debug_assertions) {
        20_000
    } else {
        100_000
    };
    let mut random = Random(0x5eed_5eed_5eed);
    for _ in 0..rounds {
        let input = bent(&mut random);
        if std::panic::catch_unwind(|| check(&input)).is_err() {
            panic!("broken by {:?}", String::from_utf8_lossy(&input));
        }
    }
}

#[test]
fn hostile_sizes_take_no_long_time() {
    let begun = std::time::Instant::now();
    for unit in [
        "(",
        "\"",
        "[",
        "a, ",
        "<",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n",
        "\r\n ",
        "=?utf-8?Q?a?= ",
        "--b\r\n",
        ":",
    ] {
        let input = unit.repeat(400_000 / unit.len());
        let _ = parse::command(input.as_bytes());
        let _ = address::parse_list(input.as_bytes());
        let root = structure::parse(input.as_bytes());
        describe::body_structure(&mut Vec::new(), input.as_bytes(), &root, true);
        describe::envelope(&mut Vec::new(), input.as_bytes());
        let message =
            format!("Content-Type: multipart/mixed; boundary=b\r\nTo: {input}\r\n\r\n{input}");
        let root = structure::parse(message.as_bytes());
        describe::body_structure(&mut Vec::new(), message.as_bytes(), &root, true);
        describe::envelope(&mut Vec::new(), message.as_bytes());
    }
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}
