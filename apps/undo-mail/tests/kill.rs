//! `kill -9` of the proxy with its manager, of the mail server, and of both, while they run, rewind,
//! replay, rehearse a replay, cancel, undo a cycle, take snapshots and commit.
//!
//! Every mail that was answered with 250 is there exactly once, and so is every message that was
//! appended with OK; the timeline has no gap, and the cycle goes on or is cancelled. (Of Dovecot, all
//! processes are killed that have a session.) `KILLS=300` makes it a soak: `scripts/undo-kills`.

mod house;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use house::servers::{Kind, Servers};
use house::{Imap, USERS, free_port, until};
use undo::control::{Client, Request};

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A process that does not outlive a test that fails.
struct Ours(Child);

impl Ours {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(settings: &Path) -> Ours {
    let mut child = Command::new(env!("CARGO_BIN_EXE_undo-mail"))
        .arg(settings)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(
        line.starts_with("undo-mail: SMTP on"),
        "it starts again after any death"
    );
    Ours(child)
}

/// Sends a mail. `None`: the connection ended before the answer.
fn send(port: u16, to: &str, subject: &str) -> Option<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .ok()?;
    let mut reader = BufReader::new(stream);
    let mut reply = |line: Option<String>| {
        if let Some(line) = line {
            write!(reader.get_mut(), "{line}\r\n").ok()?;
        }
        let mut answer = String::new();
        reader.read_line(&mut answer).ok().filter(|n| *n > 0)?;
        Some(answer)
    };
    reply(None)?;
    reply(Some("HELO test".into()))?;
    reply(Some("MAIL FROM:<>".into()))?;
    reply(Some(format!("RCPT TO:<{to}@here.test>")))?;
    reply(Some("DATA".into()))?;
    reply(Some(format!("Subject: {subject}\r\n\r\ntext\r\n.")))
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Proxy,
    Server,
    Both,
}

fn status(home: &Path) -> Option<serde_json::Value> {
    Client::connect(home).ok()?.ask(&Request::Status).ok()
}

fn phase(home: &Path) -> Option<String> {
    status(home)?["phase"].as_str().map(str::to_owned)
}

/// Has the cycle go on, or cancels it. A command of the operator that has ended with an error, because
/// the mail server was killed under it, is given again.
fn end_cycle(home: &Path, random: &mut Random) {
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut idle = 0;
    loop {
        let status = status(home).unwrap_or_default();
        assert!(
            Instant::now() < deadline,
            "the cycle does not end: {status}"
        );
        let is_idle = status["progress"]["doing"] == "";
        idle = if is_idle { idle + 1 } else { 0 };
        let again = match status["phase"].as_str() {
            Some("running") => return,
            Some("repairing") => Request::Replay { dry_run: false },
            // (Between two steps nothing is done for a moment.)
            Some(_) if idle < 50 => {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            Some("rewinding") => Request::Rewind {
                to: status["cycle"]["target"].to_string(),
                scope: None,
            },
            Some(_) => Request::Replay { dry_run: false },
            None => continue,
        };
        if idle >= 50 {
            println!(
                "given again: {again:?}, after {}",
                status["progress"]["failure"]
            );
            idle = 0;
        }
        let request = [again, Request::Cancel]
            .into_iter()
            .nth(random.below(2) as usize);
        if let (Ok(mut client), Some(request)) = (Client::connect(home), request) {
            let _ = client.ask(&request);
        }
    }
}

/// How often each subject is in the mailboxes, as the real server tells it.
fn subjects(imap: u16) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for user in USERS {
        let mut client = Imap::login(imap, user);
        if client.examine("INBOX") > 0 {
            for subject in client.subjects() {
                *found.entry(subject).or_insert(0) += 1;
            }
        }
    }
    found
}

on_each_server!(mail_that_was_taken_is_there_exactly_once);

fn mail_that_was_taken_is_there_exactly_once(kind: Kind) {
    if !kind.is_there() {
        return;
    }
    let kills: u64 = std::env::var("KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    let mut random = Random(
        std::env::var("SEED")
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(1),
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let home = folder.path().join("home");
    let live = home.join("live");
    std::fs::create_dir_all(&live).unwrap();
    let servers = Servers::start(kind, &folder.path().join("servers"), &live, &USERS);
    let (smtp, imap) = (free_port(), free_port());
    let settings = folder.path().join("settings.toml");
    let command = servers
        .command()
        .map_or_else(String::new, |c| format!("server = {c:?}\n"));
    let text = format!(
        "home = {home:?}\n{command}storage = \"copies\"\nretry_every_s = 0.2\ngranularities = []\n\
         [smtp]\nlisten = \"127.0.0.1:{smtp}\"\nserver = \"127.0.0.1:{}\"\nlmtp = true\ndomains = [\"here.test\"]\n\
         [imap]\nlisten = \"127.0.0.1:{imap}\"\nserver = \"127.0.0.1:{}\"\nmaster_name = \"{{user}}*proxy\"\nmaster_password = \"secret\"\n",
        servers.mail, servers.imap
    );
    std::fs::write(&settings, text).unwrap();

    let mut acknowledged: Vec<String> = Vec::new();
    let mut perhaps: Vec<String> = Vec::new();
    let mut number = 0u64;
    let mut child = start(&settings);
    let mut killed = BTreeMap::new();
    for round in 0..=kills {
        end_cycle(&home, &mut random);
        until("the mail server answers", || {
            TcpStream::connect(("127.0.0.1", servers.imap)).is_ok()
        });
        // (Two minutes Dovecot waits for a lock on a list of UIDs that a killed process has left.)
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            let found = subjects(servers.imap);
            for (subject, count) in &found {
                assert_eq!(*count, 1, "{subject} is there {count} times");
                assert!(
                    acknowledged.contains(subject) || perhaps.contains(subject),
                    "{subject}?"
                );
            }
            let missing: Vec<&String> = acknowledged
                .iter()
                .filter(|s| !found.contains_key(*s))
                .collect();
            if missing.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                let all = undo::manager::Search::default();
                let listed = Client::connect(&home)
                    .and_then(|mut c| c.ask(&Request::Timeline { search: all }));
                for verb in listed.unwrap_or_default().as_array().into_iter().flatten() {
                    println!("{verb}");
                }
                let mut find = Command::new("grep");
                find.arg("-rl")
                    .args(missing.iter().flat_map(|s| ["-e", s.as_str()]));
                println!("{:?}", find.arg(&live).output());
                println!("{:#?}", servers.complaints());
                panic!("taken, and lost: {missing:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if round == kills {
            break;
        }
        if round > 0 && round % 50 == 0 {
            println!("{kind:?}: killed {killed:?}");
        }
        for _ in 0..5 + random.below(10) {
            number += 1;
            let user = USERS[random.below(5) as usize];
            let subject = format!("m{number}");
            if random.below(3) == 0 {
                let mut client = Imap::login(imap, user);
                let body = format!("Subject: {subject}\r\n\r\nx\r\n");
                client.must(&format!("APPEND INBOX {{{}+}}\r\n{body}", body.len()));
                acknowledged.push(subject);
            } else if send(smtp, user, &subject).is_some_and(|reply| reply.starts_with("250")) {
                acknowledged.push(subject);
            } else {
                perhaps.push(subject);
            }
        }
        let last = Client::connect(&home)
            .unwrap()
            .ask(&Request::Status)
            .unwrap()["last_lsn"]
            .as_u64()
            .unwrap();
        let to = last.saturating_sub(random.below(30)).to_string();
        let rewind = Request::Rewind { to, scope: None };
        let replay = |dry_run| Request::Replay { dry_run };
        let requests = match random.below(7) {
            0 => vec![],
            1 => vec![rewind],
            2 => vec![rewind, replay(false)],
            3 => vec![rewind, Request::Cancel],
            4 => vec![rewind, replay(true)],
            5 => vec![rewind, replay(false), Request::Undo],
            _ => vec![Request::Snapshot, Request::Commit],
        };
        let place = home.clone();
        let operator = std::thread::spawn(move || {
            for request in requests {
                let _ = Client::connect(&place).and_then(|mut client| client.ask(&request));
            }
        });
        let sender = {
            number += 1;
            let subject = format!("m{number}");
            perhaps.push(subject.clone());
            std::thread::spawn(move || (send(smtp, "ann", &subject), subject))
        };
        // In a phase that is chosen first, as far as it comes: a step may take long on a busy disk.
        let phases = [
            "running",
            "rewinding",
            "replaying",
            "cancelling",
            "rehearsing",
        ];
        let wanted = phases[random.below(5) as usize];
        let patience = Instant::now() + Duration::from_secs(5);
        while !operator.is_finished()
            && phase(&home).as_deref() != Some(wanted)
            && Instant::now() < patience
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(random.below(60)));
        let victim = [Victim::Proxy, Victim::Server, Victim::Both][random.below(3) as usize];
        let during = phase(&home).unwrap_or_else(|| "starting".into());
        *killed.entry(format!("{victim:?} {during}")).or_insert(0) += 1;
        if victim != Victim::Proxy {
            servers.kill(&home);
        }
        if victim != Victim::Server {
            child.kill();
        }
        let (reply, subject) = sender.join().unwrap();
        if reply.is_some_and(|reply| reply.starts_with("250")) {
            acknowledged.push(subject);
        }
        if victim != Victim::Server {
            child = start(&settings);
        }
        // (What it had not asked for yet it asks the new one.)
        operator.join().unwrap();
    }
    child.kill();
    println!("{kind:?}: killed {killed:?}");
    let timeline = undo::timeline::Timeline::open(&home.join("timeline")).unwrap();
    assert!(timeline.gaps().is_empty());
    println!(
        "{kind:?}: {kills} kills, {} mails, each there once",
        acknowledged.len()
    );
    assert!(acknowledged.len() as u64 > kills * 5);
}
