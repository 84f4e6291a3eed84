//! Numbered lines that leave a program which is killed: into a pipe, to peers, devices and processes.
//! None is lost, none comes twice, and none comes with two contents. (`scripts/soak-outside` kills a
//! thousand times on each way.)

mod place;
mod storm;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use storm::{Death, Outsider, Storm, guest, kills, wait_for};

/// What came, against what was sent.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    sent: u64,
    lost: u64,
    repeated: u64,
    contradicted: u64,
    /// Neither one line nor the next.
    torn: u64,
}

impl Seen {
    fn of(text: &str, sent: u64) -> Seen {
        let mut words: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        let mut seen = Seen {
            sent,
            ..Seen::default()
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            let parts: Vec<&str> = line.split(' ').collect();
            match (parts.as_slice(), parts.get(1).map(|n| n.parse())) {
                (["line", _, word], Some(Ok(n))) => words.entry(n).or_default().push(word),
                _ => seen.torn += 1,
            }
        }
        seen.lost = (1..=sent).filter(|n| !words.contains_key(n)).count() as u64;
        seen.torn += words.keys().filter(|&&n| n < 1 || n > sent).count() as u64;
        for all in words.values() {
            seen.repeated += all.len() as u64 - 1;
            seen.contradicted += u64::from(all.iter().any(|word| word != &all[0]));
        }
        seen
    }
}

struct Way {
    channel: &'static str,
    /// Microseconds between two lines.
    pace: u64,
    /// Lines at most.
    last: u64,
}

const fn way(channel: &'static str) -> Way {
    Way {
        channel,
        pace: 500,
        last: u64::MAX >> 1,
    }
}

/// A name of this process's own: of a socket, an interface, or in the kernel's log.
fn mark(channel: &str) -> String {
    match channel {
        "tun" => format!("dcst{}", std::process::id() % 10_000_000),
        "kmsg" => format!("dcrun-storm-{}", std::process::id()),
        other => other.to_owned(),
    }
}

/// Kills the program so often while it sends, and says what came.
fn sent(way: &Way, deaths: &[Death], count: u64, plant: Option<&str>) -> (Storm, Seen) {
    let channel = way.channel;
    let kind = if deaths.contains(&Death::Cold) {
        "cold"
    } else {
        "warm"
    };
    let planted = plant.unwrap_or("whole");
    let name = format!("once-{channel}-{kind}-{planted}");
    let (pace, last) = (way.pace.to_string(), way.last.to_string());
    let args = |place| [channel.to_owned(), place, pace.clone(), last.clone()];
    // (Its folder is not there before.)
    let mut storm = Storm::new(&name, "numbered-lines.py", &[]);
    let (observer, place) = match channel {
        "pipe" => {
            let (read, write) = nix::unistd::pipe().unwrap();
            let mut command = Command::new("/usr/bin/python3");
            command.arg(guest("observer.py")).args(["pipe", "-"]);
            command.current_dir(&storm.place.0).stdin(Stdio::from(read));
            let observer = Outsider(command.spawn().unwrap());
            storm = storm.output(File::from(write));
            (observer, "-".to_owned())
        }
        _ => {
            let own = mark(channel);
            let observer = Outsider::start(&storm.place, "observer.py", &[channel, &own], "at");
            wait_for(&storm.place.0.join("at"), "\n");
            let at = fs::read_to_string(storm.place.0.join("at")).unwrap();
            (observer, at.trim_start_matches("at ").trim().to_owned())
        }
    };
    let place = match channel {
        "kmsg" => mark(channel),
        _ => place,
    };
    storm = storm.with(&args(place));
    if let Some(plant) = plant {
        storm = storm.hindered(plant);
    }
    storm.start();
    for _ in 0..count {
        let death = deaths[storm.chance.below(deaths.len() as u64) as usize];
        let longest = Duration::from_micros(way.pace * 2).max(Duration::from_millis(6));
        if let Err(what) = storm.kill(death, longest) {
            panic!("{channel}: {what}");
        }
    }
    if let Err(what) = storm.finish() {
        panic!("{channel}: {what}");
    }
    let sent = fs::read_to_string(storm.place.0.join("sent")).unwrap();
    let sent: u64 = sent.trim().parse().unwrap();
    // What is on its way comes within that.
    let arrived = Instant::now() + Duration::from_secs(10);
    let seen = |storm: &Storm| fs::read_to_string(storm.place.0.join("seen")).unwrap();
    while !seen(&storm).contains(&format!("line {sent} ")) && Instant::now() < arrived {
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_millis(100));
    let text = seen(&storm);
    let seen = Seen::of(&text, sent);
    if let Some(kept) = std::env::var_os("STORM_KEPT") {
        fs::write(std::path::Path::new(&kept).join(&name), text).unwrap();
        let errors = fs::read(storm.place.0.join("err")).unwrap();
        fs::write(std::path::Path::new(&kept).join(name + ".err"), errors).unwrap();
    }
    fs::write(storm.place.0.join("over"), "").unwrap();
    if channel != "pipe" {
        observer.ended().unwrap();
    }
    (storm, seen)
}

fn told(way: &Way, storm: &Storm, seen: &Seen) {
    let (channel, kills) = (way.channel, storm.told());
    let Seen {
        sent,
        lost,
        repeated,
        contradicted,
        torn,
    } = seen;
    println!(
        "{channel}: {kills}; {sent} lines: {lost} lost, {repeated} repeated, {contradicted} contradicted, {torn} torn"
    );
}

fn each_comes_once(way: &Way, usual: u64) {
    let (storm, seen) = sent(way, &[Death::Warm], kills(usual), None);
    told(way, &storm, &seen);
    let whole = Seen {
        sent: seen.sent,
        ..Seen::default()
    };
    assert_eq!(seen, whole, "{}, seed {}", way.channel, storm.seed);
    assert!(seen.sent > 2, "it got on by {} lines only", seen.sent);
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("not played: nobody but root may");
    }
    root
}

#[test]
fn into_a_pipe() {
    each_comes_once(&way("pipe"), 24);
}

#[test]
fn over_tcp() {
    each_comes_once(&way("tcp"), 24);
}

#[test]
fn over_a_unix_socket() {
    each_comes_once(&way("unix"), 24);
}

#[test]
fn to_a_peer_of_udp() {
    each_comes_once(&way("udp"), 24);
}

#[test]
fn to_a_peer_of_unix_datagrams() {
    each_comes_once(&way("unix-datagram"), 24);
}

/// The log of the kernel is everybody's, so there are a few hundred lines at most.
const KMSG: Way = Way {
    channel: "kmsg",
    pace: 30_000,
    last: 300,
};

#[test]
fn into_the_log_of_the_kernel() {
    if is_root() {
        each_comes_once(&KMSG, 20);
    }
}

#[test]
fn into_a_tun() {
    if is_root() && fs::exists("/dev/net/tun").unwrap() {
        each_comes_once(&way("tun"), 24);
    }
}

/// One may come twice where the program died while it sent it, and then dcrun says so, once for a run.
#[test]
fn signals_with_numbers() {
    let way = way("signal");
    let (storm, seen) = sent(&way, &[Death::Warm], kills(24), None);
    told(&way, &storm, &seen);
    let errors = fs::read_to_string(storm.place.0.join("err")).unwrap();
    let said = errors.contains("may be sent twice");
    println!("signal: it was said that one may come twice: {said}");
    // (One death in seven falls there, for the program does little else. Each one would be what
    // the next test sees.)
    let allowed = if said { storm.warm / 2 } else { 0 };
    assert_eq!((seen.lost, seen.torn), (0, 0), "seed {}", storm.seed);
    assert!(seen.repeated <= allowed, "{seen:?}, seed {}", storm.seed);
}

/// A recovery that makes each line again is seen on each way.
#[test]
fn what_comes_again_is_seen_on_each_way() {
    let ways = ["pipe", "tcp", "unix", "udp", "unix-datagram", "signal"].map(way);
    let of_root = [KMSG, way("tun")];
    let root = is_root() && fs::exists("/dev/net/tun").unwrap();
    for way in ways.iter().chain(&of_root[..if root { 2 } else { 0 }]) {
        let (storm, seen) = sent(way, &[Death::Warm], 12, Some("repeat-write"));
        println!("hindered, {}: {seen:?}", way.channel);
        assert!(seen.repeated > 3, "{}: {seen:?}", storm.told());
    }
}

#[test]
fn what_is_wrong_is_counted() {
    let seen = |text| {
        let Seen {
            lost,
            repeated,
            contradicted,
            torn,
            ..
        } = Seen::of(text, 3);
        (lost, repeated, contradicted, torn)
    };
    assert_eq!(seen("line 1 a\nline 2 b\nline 3 c\n"), (0, 0, 0, 0));
    assert_eq!(seen("line 1 a\nline 3 c\n"), (1, 0, 0, 0));
    assert_eq!(
        seen("line 1 a\nline 1 a\nline 2 b\nline 3 c\n"),
        (0, 1, 0, 0)
    );
    assert_eq!(
        seen("line 1 a\nline 2 b\nline 2 x\nline 3 c\n"),
        (0, 1, 1, 0)
    );
    assert_eq!(seen("line 1 a\nline 2 bline 3 c\n"), (2, 0, 0, 1));
    assert_eq!(
        seen("line 1 a\nline 2 b\nline 3 c\nline 4 d\n"),
        (0, 0, 0, 1)
    );
}

/// When dcrun dies as well, what went last may come twice, each time; it does not come changed.
fn each_comes_after_a_death_of_all(way: &Way, usual: u64) {
    let (storm, seen) = sent(way, &[Death::Cold], kills(usual), None);
    told(way, &storm, &seen);
    let seed = storm.seed;
    let whole = (seen.lost, seen.contradicted, seen.torn) == (0, 0, 0);
    assert!(whole, "{}, seed {seed}: {seen:?}", way.channel);
    assert!(
        seen.repeated <= storm.cold,
        "{}, seed {seed}: {seen:?}",
        way.channel
    );
}

#[test]
fn into_a_pipe_when_all_die() {
    each_comes_after_a_death_of_all(&way("pipe"), 12);
}

#[test]
fn to_a_peer_of_udp_when_all_die() {
    each_comes_after_a_death_of_all(&way("udp"), 12);
}

#[test]
fn to_a_peer_of_unix_datagrams_when_all_die() {
    each_comes_after_a_death_of_all(&way("unix-datagram"), 12);
}

#[test]
fn into_the_log_of_the_kernel_when_all_die() {
    if is_root() {
        each_comes_after_a_death_of_all(&KMSG, 12);
    }
}

#[test]
fn signals_when_all_die() {
    each_comes_after_a_death_of_all(&way("signal"), 12);
}
