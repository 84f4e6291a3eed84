//! Storms of users: a replay without a repair shows nobody anything else.
//!
//! Users copy, move, mark and remove messages while mail comes for them, first one user after the
//! other, then all at once with two sessions each.
//! What the store does then is history. A replay of it, from the beginning, from the middle and
//! from shortly before the end, must give no paradox and the same mailboxes with the same flags.
//!
//! `UNDO_MAIL_SEED=n` plays another storm. (The same seed gives the same commands; how they
//! interleave is new each time.) `UNDO_MAIL_USERS=n` and `UNDO_MAIL_VERBS=n` set how many users there
//! are, and that they go on until the timeline has so many verbs: `scripts/undo-storms`.

mod house;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use house::servers::Kind;
use house::{House, Imap, USERS};

/// How many commands each session tries.
const COMMANDS: usize = 20;

/// A folder is tidied when it holds more: each copy of all of it would double it.
const MANY: u32 = 60;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect(name))
}

/// Numbers that follow from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// How long a storm lasts.
#[derive(Clone, Copy)]
enum Length {
    /// So many commands of each session.
    Commands(usize),
    /// Until the timeline has so many verbs.
    Until(u64),
}

/// What one session of a user does.
fn session(house: &House, user: &str, length: Length, seed: u64) {
    let mut draw = Draw(seed);
    let mut client = house.imap(user);
    let mut count = client.select("INBOX");
    for n in 0.. {
        match length {
            Length::Commands(all) if n == all => break,
            Length::Until(verbs) if house.last() >= verbs => break,
            _ => {}
        }
        // Whether each succeeds depends on what the others do: that is the point.
        one_command(house, user, &mut client, &mut draw, count, n);
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

fn one_command(
    house: &House,
    user: &str,
    client: &mut Imap,
    draw: &mut Draw,
    count: u32,
    n: usize,
) {
    static MAILS: AtomicU64 = AtomicU64::new(0);
    // A copy into INBOX, or within a folder, makes two messages that only their order tells apart.
    let folder = match draw.below(8) {
        0 => "INBOX".to_owned(),
        other => format!("f{}", other % 3),
    };
    let one = draw.below(u64::from(count.max(1))) + 1;
    if count > MANY {
        client.ask(&format!("STORE {MANY}:* +FLAGS (\\Deleted)"));
        client.ask("EXPUNGE");
        return;
    }
    let set = match draw.below(4) {
        0 => format!("1:{one}"),
        1 => format!("{one}:*"),
        _ => one.to_string(),
    };
    match draw.below(18) {
        0..=2 => {
            let mail = MAILS.fetch_add(1, Ordering::SeqCst);
            let to = &house.users[draw.below(house.users.len() as u64) as usize];
            let (from, to) = (format!("{user}@here.test"), format!("{to}@here.test"));
            house.mail(&from, &to, &format!("mail {mail}"), "text");
        }
        3 => drop(client.ask(&format!("CREATE {folder}"))),
        4 => {
            let text = format!("Subject: own {user} {n}\r\n\r\nx\r\n");
            let length = text.len();
            client.ask(&format!("APPEND {folder} (\\Seen) {{{length}+}}\r\n{text}"));
        }
        5 => drop(client.ask(&format!("COPY {set} {folder}"))),
        6 => drop(client.ask(&format!("MOVE {one} {folder}"))),
        7 => drop(client.ask(&format!("STORE {one} +FLAGS (\\Deleted)"))),
        8 => drop(client.ask("EXPUNGE")),
        9 => drop(client.ask(&format!("STORE {set} FLAGS (\\Flagged)"))),
        10 => drop(client.ask("LIST \"\" \"*\"")),
        11 => drop(client.ask("FETCH 1:* (ENVELOPE FLAGS)")),
        12 => drop(client.ask(&format!("FETCH {one} (BODY[])"))),
        13 if draw.below(4) == 0 => {
            client.ask(&format!("RENAME {folder} g{}", draw.below(2)));
        }
        13 if draw.below(3) == 0 && folder != "INBOX" => {
            client.ask(&format!("DELETE {folder}"));
        }
        14 => {
            let folders = client.folders();
            let folder = folders[draw.below(folders.len() as u64) as usize].clone();
            client.ask("CLOSE");
            client.ask(&format!("SELECT \"{folder}\""));
        }
        15 => drop(client.ask(&format!("STORE {set} -FLAGS.SILENT (\\Seen \\Flagged)"))),
        16 => drop(client.ask(&format!("STORE {one} +FLAGS (\\Answered storm)"))),
        _ => {}
    }
}

/// All users at once, each with `sessions` sessions; with none, one user after the other.
fn storm(house: &House, length: Length, sessions: usize, seed: u64) {
    let of = |n: usize| seed ^ ((n as u64 + 1) << 40);
    if sessions == 0 {
        for (n, user) in house.users.iter().enumerate() {
            session(house, user, length, of(n));
        }
    } else {
        std::thread::scope(|scope| {
            let all = house
                .users
                .iter()
                .flat_map(|user| std::iter::repeat_n(user, sessions));
            for (n, user) in all.enumerate() {
                scope.spawn(move || session(house, user, length, of(n)));
            }
        });
    }
    house.drain();
}

/// What is in one and not in the other, by folder.
fn differences(
    before: &BTreeMap<String, Vec<String>>,
    now: &BTreeMap<String, Vec<String>>,
) -> Vec<String> {
    let folders: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let mut found = Vec::new();
    for folder in folders {
        match (before.get(folder), now.get(folder)) {
            (Some(before), Some(now)) if before != now => {
                let only = |a: &[String], b: &[String]| -> Vec<String> {
                    let mut rest = b.to_vec();
                    let new = |m: &&String| match rest.iter().position(|r| r == *m) {
                        Some(at) => {
                            rest.remove(at);
                            false
                        }
                        None => true,
                    };
                    a.iter().filter(new).cloned().collect()
                };
                found.push(format!(
                    "{folder}: had {:?}, has {:?}",
                    only(before, now),
                    only(now, before)
                ));
            }
            (Some(_), Some(_)) => {}
            (Some(_), None) => found.push(format!("{folder} has gone")),
            (None, _) => found.push(format!("{folder} is new")),
        }
    }
    found
}

fn replay_without_a_repair(kind: Kind, storage: &str) {
    let seed = number("UNDO_MAIL_SEED").unwrap_or(1);
    let more = (USERS.len()..).map(|n| format!("u{n}"));
    let users = USERS.iter().map(|user| (*user).to_owned()).chain(more);
    let count = number("UNDO_MAIL_USERS").map_or(USERS.len(), |n| n as usize);
    let users: Vec<String> = users.take(count).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let Some(house) = House::of(kind, storage, &users, |_| ()) else {
        return;
    };
    let manager = &house.proxy.manager;
    let (start, began) = (house.last(), std::time::Instant::now());
    storm(
        &house,
        Length::Commands(COMMANDS / 2),
        0,
        seed.wrapping_mul(3),
    );
    manager.snapshot().unwrap();
    let length = number("UNDO_MAIL_VERBS").map_or(Length::Commands(COMMANDS), Length::Until);
    storm(&house, length, 2, seed.wrapping_mul(3) + 1);
    let (mailboxes, last) = (house.mailboxes(), house.last());
    let messages: usize = mailboxes.values().map(Vec::len).sum();
    println!(
        "{kind:?} on {storage}: {last} verbs in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert!(
        messages > 20 && mailboxes.len() > users.len(),
        "the storm has left something: {mailboxes:?}"
    );
    assert!(manager.timeline().gaps().is_empty());
    let mut wrong = Vec::new();
    let mut whose = std::collections::BTreeSet::new();
    for target in [start, last / 2, last - 10] {
        let cycle = manager.rewind(target, None).unwrap();
        // On the way to the target, the verbs since the snapshot are replayed as well.
        wrong.extend(cycle.note);
        let summary = manager.replay().unwrap();
        println!(
            "{kind:?} on {storage}: from {target} to {last}: {} verbs in {:.2} s, {} a second",
            summary.replayed,
            summary.seconds,
            (summary.replayed as f64 / summary.seconds) as u64
        );
        house.drain();
        let paradoxes = summary.paradoxes.iter();
        whose.extend(paradoxes.clone().map(|p| p.user.clone()));
        wrong.extend(paradoxes.map(|p| format!("from {target}: paradox: {p:?}")));
        let differ = differences(&mailboxes, &house.mailboxes()).into_iter();
        wrong.extend(differ.map(|d| format!("from {target}: {d}")));
        if !wrong.is_empty() {
            break;
        }
    }
    if !wrong.is_empty() {
        let search = undo::manager::Search::default();
        for verb in manager.list(&search).unwrap() {
            let user = verb.about.user.split('@').next().unwrap_or_default();
            if whose.is_empty() || whose.contains(user) {
                println!("{}", manager.show(verb.lsn).unwrap());
            }
        }
        for line in house.servers.complaints() {
            println!("{line}");
        }
    }
    assert!(
        wrong.is_empty(),
        "{kind:?} on {storage}, UNDO_MAIL_SEED={seed}: {wrong:#?}"
    );
}

macro_rules! storms {
    ($($name:ident: $kind:ident on $storage:literal;)*) => {
        $(#[test]
        fn $name() {
            replay_without_a_repair(Kind::$kind, $storage);
        })*
    };
}

storms! {
    dovecot_on_copies: Dovecot on "copies";
    dovecot_on_btrfs: Dovecot on "btrfs";
    dovecot_on_overlay: Dovecot on "overlay";
    own_on_copies: Own on "copies";
    own_on_btrfs: Own on "btrfs";
    own_on_overlay: Own on "overlay";
    postfix_on_copies: Postfix on "copies";
    postfix_on_btrfs: Postfix on "btrfs";
    postfix_on_overlay: Postfix on "overlay";
}
