//! `kill -9` at random moments: while running, while rewinding, while replaying.
//!
//! Whatever was acknowledged is there exactly once and in order, the timeline has no gap, and the
//! cycle goes on or is cancelled. `KILLS=300` makes it a soak.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
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

struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(home: &Path, storage: &str) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keyvalue"))
            .arg(home)
            .arg(storage)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the server starts again after any death");
        Server {
            child,
            stdin,
            stdout,
        }
    }

    /// `None`: the server died before it answered.
    fn ask(&mut self, line: &str) -> Option<String> {
        writeln!(self.stdin, "{line}").ok()?;
        self.answer()
    }

    /// Asks, and kills the server while it works, or just before or after. It may have answered.
    fn ask_and_kill(&mut self, line: &str, delay: Duration) -> Option<String> {
        writeln!(self.stdin, "{line}").ok()?;
        std::thread::sleep(delay);
        self.child.kill().unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Option<String> {
        let mut answer = String::new();
        match self.stdout.read_line(&mut answer) {
            Ok(n) if n > 0 && answer.ends_with('\n') => Some(answer.trim_end().to_owned()),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Known {
    appended: Vec<String>,
    posted: BTreeSet<u64>,
    perhaps: BTreeSet<String>,
    perhaps_posted: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Moment {
    Running,
    Rewinding,
    Replaying,
    Cancelling,
}

fn phase(home: &Path) -> Option<String> {
    let status = Client::connect(home).ok()?.ask(&Request::Status).ok()?;
    status["phase"].as_str().map(str::to_owned)
}

/// Asks in a thread of its own, which the death of the server ends.
fn command(home: &Path, request: Request) -> std::thread::JoinHandle<Option<Value>> {
    let home = home.to_owned();
    std::thread::spawn(move || Client::connect(&home).ok()?.ask(&request).ok())
}

/// Brings whatever cycle is under way to its end.
fn end_cycle(home: &Path, random: &mut Random) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(
            Instant::now() < deadline,
            "the cycle does not end: {:?}",
            phase(home)
        );
        match phase(home).as_deref() {
            Some("running") => return,
            Some("repairing") => {
                let request = match random.below(2) {
                    0 => Request::Replay { dry_run: false },
                    _ => Request::Cancel,
                };
                // It may be the rewind's own thread that is still ending.
                if let Ok(mut client) = Client::connect(home) {
                    let _ = client.ask(&request);
                }
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn check(server: &mut Server, known: &mut Known) {
    let lines = |answer: &str| -> Vec<String> {
        match answer
            .split_once("Value(Some(\"")
            .and_then(|(_, rest)| rest.rsplit_once("\"))"))
        {
            Some((text, _)) => text.split("\\n").map(str::to_owned).collect(),
            None => Vec::new(),
        }
    };
    let appended = lines(&server.ask("get ann log").unwrap());
    let mut expected = known.appended.iter().peekable();
    let mut seen = BTreeSet::new();
    for line in &appended {
        assert!(seen.insert(line.clone()), "{line} is there twice");
        if expected.peek() == Some(&line) {
            expected.next();
        } else {
            assert!(
                known.perhaps.contains(line),
                "{line} is out of order, or nobody's"
            );
        }
    }
    assert_eq!(expected.next(), None, "this was acknowledged, and is lost");
    // What was found is known from now on.
    known.appended = appended;
    known.perhaps.clear();

    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let posted = lines(&server.ask("get ann in").unwrap());
        let numbers: Vec<u64> = posted
            .iter()
            .filter_map(|l| l.strip_prefix("p")?.parse().ok())
            .collect();
        let set: BTreeSet<u64> = numbers.iter().copied().collect();
        assert_eq!(numbers.len(), set.len(), "a post is there twice");
        let all: BTreeSet<u64> = known.posted.union(&known.perhaps_posted).copied().collect();
        assert!(set.is_subset(&all), "a post is nobody's");
        if known.posted.is_subset(&set) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "accepted, and lost: {:?}",
            known.posted.difference(&set)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kills(storage: &str, kills: u64, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let mut random = Random(seed);
    let mut known = Known::default();
    let mut counter = 0u64;
    let mut met = std::collections::BTreeMap::new();
    let mut server = Server::start(home, storage);
    for round in 0..kills {
        end_cycle(home, &mut random);
        check(&mut server, &mut known);
        let gaps = Client::connect(home)
            .unwrap()
            .ask(&Request::Status)
            .unwrap();
        assert!(gaps["progress"]["failure"].is_null(), "{gaps}");

        let moment = match random.below(5) {
            0 | 1 => Moment::Running,
            2 => Moment::Rewinding,
            3 => Moment::Replaying,
            _ => Moment::Cancelling,
        };
        *met.entry(moment).or_insert(0) += 1;
        let mut work = |server: &mut Server, verbs: u64, random: &mut Random, kill: bool| {
            for n in 0..verbs {
                counter += 1;
                let line = match random.below(3) {
                    0 => format!("post ann in {counter} 60000 p{counter}"),
                    _ => format!("append ann log a{counter}"),
                };
                let answer = match kill && n + 1 == verbs {
                    true => server.ask_and_kill(&line, Duration::from_micros(random.below(6000))),
                    false => server.ask(&line),
                };
                match answer {
                    Some(text) if text.starts_with("ok") => {
                        known.appended.push(format!("a{counter}"))
                    }
                    Some(text) if text.starts_with("accepted") => known.posted.extend([counter]),
                    Some(text) => assert!(text.starts_with("refused"), "{text}"),
                    None => {
                        known.perhaps.insert(format!("a{counter}"));
                        known.perhaps_posted.insert(counter);
                        return;
                    }
                }
            }
        };
        work(
            &mut server,
            5 + random.below(20),
            &mut random,
            moment == Moment::Running,
        );
        if moment != Moment::Running {
            let status = Client::connect(home)
                .unwrap()
                .ask(&Request::Status)
                .unwrap();
            let last = status["last_lsn"].as_u64().unwrap();
            let to = (last - random.below(last.min(40))).to_string();
            if random.below(4) == 0 {
                let _ = command(home, Request::Snapshot).join();
            }
            let rewind = command(home, Request::Rewind { to, scope: None });
            if moment != Moment::Rewinding {
                let rewound = rewind.join().unwrap();
                assert!(rewound.is_some(), "a rewind that nobody disturbs succeeds");
                match moment {
                    Moment::Replaying => command(
                        home,
                        Request::Replay {
                            dry_run: random.below(3) == 0,
                        },
                    ),
                    _ => command(home, Request::Cancel),
                };
            }
            std::thread::sleep(Duration::from_micros(random.below(30_000)));
            // Posts are accepted in every phase.
            work(&mut server, 2, &mut random, false);
        }
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        server = Server::start(home, storage);
        if round % 10 == 9 {
            println!("{storage}: {} kills {met:?}", round + 1);
        }
    }
    end_cycle(home, &mut random);
    check(&mut server, &mut known);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let timeline = undo::timeline::Timeline::open(&home.join("timeline")).unwrap();
    assert!(timeline.gaps().is_empty());
    assert!(
        known.appended.len() as u64 > kills,
        "the work was real: {}",
        known.appended.len()
    );
    println!(
        "{storage}: {kills} kills {met:?}, {} appends, {} posts",
        known.appended.len(),
        known.posted.len()
    );
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled() {
    let count = std::env::var("KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1);
    let storage = std::env::var("STORAGE").unwrap_or("copies".into());
    kills(&storage, count, seed);
}
