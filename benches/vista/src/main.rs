//! The benchmarks of the thesis' chapter 3, against today's systems.
//!
//!     vista-bench memory|disk|own [--quick] [--out DIR] [--dir DIR]
//!
//! `memory` runs on tmpfs, `disk` where `--dir` says (else under `target/`), `own` measures what
//! only Vista has: group commit, recovery, opening, heap, found pages. Each prints Markdown and
//! writes the same as JSON, with figures, to `--out`.
#![deny(unsafe_code)]

mod chart;
mod driver;
mod engine;
/// All systems are driven over raw mappings or C interfaces.
#[allow(unsafe_code)]
mod engines;
#[allow(unsafe_code)]
mod own;
mod peer;
mod report;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use driver::{Plan, measure};
use peer::{DISK, MEMORY, Peer};
use report::Report;
use workloads::{SIZES, Workload};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["serve", name, workload, dir, how] => match Workload::parse(workload) {
            Some(workload) => peer::serve(name, workload, Path::new(dir), how == "durable"),
            None => Err(format!("{workload}: no such workload")),
        },
        [what @ ("memory" | "disk" | "own"), ref rest @ ..] => {
            Flags::parse(rest).and_then(|flags| match what {
                "memory" => compare(&flags, MEMORY, false),
                "disk" => compare(&flags, DISK, true),
                _ => own_measurements(&flags),
            })
        }
        _ => Err("usage: vista-bench memory|disk|own [--quick] [--out DIR] [--dir DIR]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vista-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Flags {
    quick: bool,
    out: PathBuf,
    dir: Option<PathBuf>,
}

impl Flags {
    fn parse(words: &[&str]) -> Result<Flags, String> {
        let mut flags = Flags {
            quick: false,
            out: "target/vista-bench".into(),
            dir: None,
        };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            match (word, word == "--quick" || words.len() > 0) {
                ("--quick", _) => flags.quick = true,
                ("--out", true) => flags.out = words.next().expect("one more").into(),
                ("--dir", true) => flags.dir = Some(words.next().expect("one more").into()),
                _ => return Err(format!("{word}: not a flag, or its value is missing")),
            }
        }
        Ok(flags)
    }

    /// A directory that is removed with the value.
    fn scratch(&self, durable: bool) -> Result<Scratch, String> {
        let base = match &self.dir {
            Some(dir) => dir.clone(),
            None if durable => "target".into(),
            None => "/dev/shm".into(),
        };
        let dir = base.join(format!("vista-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Scratch(dir))
    }
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn compare(flags: &Flags, peers: &'static [Peer], durable: bool) -> Result<(), String> {
    let scratch = flags.scratch(durable)?;
    let sizes: Vec<String> = match flags.quick {
        true => vec!["8".into(), "4096".into()],
        false => SIZES.iter().map(usize::to_string).collect(),
    };
    let others = ["debit-credit".to_owned(), "order-entry".to_owned()];
    let mut report = Report::new(if durable { "disk" } else { "memory" }, &flags.out)?;
    for workload in others.iter().chain(&sizes) {
        let plan = Plan {
            workload,
            dir: &scratch.0,
            durable,
            // Many short rounds: some of them meet a quiet machine, and the minimum is theirs.
            rounds: match (flags.quick, durable) {
                (true, _) => 5,
                (false, true) => 21,
                (false, false) => 25,
            },
            batch_ms: if durable { 15 } else { 8 },
        };
        report.add(workload, measure(peers, &plan))?;
    }
    report.finish()
}

fn own_measurements(flags: &Flags) -> Result<(), String> {
    let memory = flags.scratch(false)?;
    let mut report = Report::new("own", &flags.out)?;
    report.add_rows("operations", "ns", own::operations(&memory.0)?)?;
    report.add_rows(
        "found pages, to a durable commit",
        "ns a page",
        own::found_pages(&memory.0)?,
    )?;
    report.add_rows("opening a sound image", "us", own::opening(&memory.0)?)?;
    report.add_rows("recovery", "ms", own::recovery(&memory.0)?)?;
    drop(memory);
    let disk = flags.scratch(true)?;
    report.add_rows(
        "debit-credit on disk",
        "transactions/s",
        own::group_commit(&disk.0)?,
    )?;
    report.finish()
}
