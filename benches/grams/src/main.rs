//! Requests and responses, by Vistagrams and by others.
//!
//!     grams-bench roundtrip [--quick] [--out DIR] [--netns A,B]
//!     grams-bench queues memory|disk [--quick] [--out DIR] [--dir DIR]
//!
//! `roundtrip` measures what Vistagrams adds to bare UDP, by size of the message: on loopback, or
//! with `--netns` between two namespaces that have 10.77.0.1 and 10.77.0.2. Both sides are bound to
//! one processor: there nothing that a side does is hidden behind the other one, and no idle
//! processor has to be woken, which takes longer than all that is to be seen. `queues` measures it
//! beside durable queues that promise as much. Each system has a process for each side; rounds of
//! all systems interleave, so what one does to the machine meets all. Markdown goes to stdout and,
//! with JSON and figures, to `--out`.
#![deny(unsafe_code)]

/// Figures as those of Vista's benchmarks.
#[path = "../../vista/src/chart.rs"]
mod chart;
mod driver;
/// So is the loader of peers written in C, which its macro finds under this name.
mod engines {
    pub(crate) use crate::library_of_peers as library;
}
#[allow(unsafe_code)]
#[path = "../../vista/src/engines/library.rs"]
mod library_of_peers;
mod report;
mod side;
mod systems;

use std::path::PathBuf;
use std::process::ExitCode;

use driver::{Plan, measure};
use report::Report;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.first().map(String::as_str) {
        Some("client") => side::client(&words[1..]),
        Some("server") => side::server(&words[1..]),
        Some("roundtrip") => Flags::parse(&words[1..]).and_then(|flags| roundtrip(&flags)),
        Some("queues") if words.len() > 1 => {
            Flags::parse(&words[2..]).and_then(|flags| queues(&flags, words[1] == "disk"))
        }
        _ => Err(
            "usage: grams-bench roundtrip | queues memory|disk [--quick] [--out DIR] \
                  [--dir DIR] [--netns A,B]"
                .into(),
        ),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("grams-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Flags {
    quick: bool,
    out: PathBuf,
    dir: PathBuf,
    netns: Option<(String, String)>,
}

impl Flags {
    fn parse(words: &[String]) -> Result<Flags, String> {
        let mut flags = Flags {
            quick: false,
            out: "target/grams-bench".into(),
            dir: "target".into(),
            netns: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word}: its value is missing"));
            match word.as_str() {
                "--quick" => flags.quick = true,
                "--out" => flags.out = value()?.into(),
                "--dir" => flags.dir = value()?.into(),
                "--netns" => {
                    let names = value()?.split_once(',').ok_or("--netns: say A,B")?;
                    flags.netns = Some((names.0.to_owned(), names.1.to_owned()));
                }
                _ => return Err(format!("{word}: not a flag")),
            }
        }
        Ok(flags)
    }
}

fn roundtrip(flags: &Flags) -> Result<(), String> {
    let place = if flags.netns.is_some() {
        "veth"
    } else {
        "loopback"
    };
    let mut report = Report::new(&format!("roundtrip-{place}"), &flags.out)?;
    let sizes: &[usize] = match flags.quick {
        true => &[64, 8192],
        false => &[64, 256, 1024, 1400, 4096, 8192],
    };
    for &size in sizes {
        let plan = Plan {
            systems: &["udp", "grams", "grams-key"],
            size,
            dir: "/dev/shm".into(),
            durable: false,
            netns: flags.netns.clone(),
            one_cpu: true,
            rounds: if flags.quick { 7 } else { 31 },
            batch_ms: 25,
        };
        report.add(size, measure(&plan)?);
    }
    report.finish(
        &format!("A request and its response ({place})"),
        "us, median",
    )
}

fn queues(flags: &Flags, durable: bool) -> Result<(), String> {
    let place = if durable { "disk" } else { "memory" };
    let mut report = Report::new(&format!("queues-{place}"), &flags.out)?;
    let sizes: &[usize] = if flags.quick {
        &[64]
    } else {
        &[64, 1024, 8192]
    };
    for &size in sizes {
        let systems: &[&str] = match durable {
            true => &["grams-disk", "sqlite", "postgres", "redis"],
            false => &["udp", "grams", "sqlite", "postgres", "redis"],
        };
        let plan = Plan {
            systems,
            size,
            dir: if durable {
                flags.dir.clone()
            } else {
                "/dev/shm".into()
            },
            durable,
            netns: None,
            one_cpu: false,
            rounds: if flags.quick { 5 } else { 15 },
            batch_ms: 60,
        };
        report.add(size, measure(&plan)?);
    }
    report.finish(
        &format!("A request and its response, durable ({place})"),
        "us, median",
    )
}
