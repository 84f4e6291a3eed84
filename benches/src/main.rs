//! `benches`: measures the promises of the project beside a native run, prints
//! tables, writes JSON and draws pictures.
//!
//! Every benchmark is one file with one function from a [`bench::Bench`] to a
//! [`report::Report`]; what they share is how a program is hosted
//! ([`hosted`]), how samples are reduced ([`sample`]) and how results are shown
//! ([`report`], [`chart`], [`readme`]). Native and hosted runs alternate within
//! one benchmark, so that a machine which slows down slows down both.

#![forbid(unsafe_code)]

mod bench;
mod calls;
mod chart;
mod commit;
mod failure;
mod growth;
mod guest;
mod hosted;
mod interval;
mod mixes;
mod peers;
mod playoff;
mod protocols;
mod readme;
mod recovery;
mod replay;
mod report;
mod sample;
mod scale;
mod space;
mod sqlite;
mod startup;
mod surroundings;
mod tree;
mod typing;
mod typist;
mod waiting;
mod watcher;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde_json::json;

use bench::Bench;
use failure::{Doing, Outcome};
use report::Report;

#[derive(Parser)]
#[command(about = "Measures dcrun beside native runs and its peers")]
struct Cli {
    what: What,
    /// Few repetitions and small sizes: does it work, not how fast is it
    #[arg(long)]
    quick: bool,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the figures into this directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// The dcrun to measure, with dc-runtime beside it
    #[arg(long, value_name = "PATH", default_value = "target/release/dcrun")]
    dcrun: PathBuf,
    /// The CRIU to compare with; the one on PATH if not given
    #[arg(long, value_name = "PATH", default_value = "criu")]
    criu: PathBuf,
    /// With `readme`: where the JSON files lie and README.md goes
    #[arg(long, value_name = "DIR", default_value = "benches/results")]
    results: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Every benchmark, one after the other
    All,
    /// Cost of a commit against the pages touched (figure 5.2)
    Commit,
    /// Overhead and log size against the interval (figures 5.3 and 5.4)
    Interval,
    /// Cost of single system calls
    Calls,
    /// Time to start and end a program
    Startup,
    /// Time from kill -9 until the program goes on
    Recovery,
    /// Recovery time against the length of the log
    Replay,
    /// Bytes in Rio against resident size and dirty set
    RioGrowth,
    /// The protocols side by side (figures 6.3 to 6.7), and auto
    Protocols,
    /// The protocols, a key every 100 ms
    Typing,
    /// Births of processes, and commits of many
    Tree,
    /// CRIU doing the same
    Peers,
    /// Write README.md from the JSON files of earlier runs
    Readme,
}

type Measure = fn(&Bench) -> Outcome<Report>;

const BENCHMARKS: [(What, Measure); 11] = [
    (What::Commit, commit::measure),
    (What::Interval, interval::measure),
    (What::Calls, calls::measure),
    (What::Startup, startup::measure),
    (What::Recovery, recovery::measure),
    (What::Replay, replay::measure),
    (What::RioGrowth, growth::measure),
    (What::Protocols, protocols::measure),
    (What::Typing, typing::measure),
    (What::Tree, tree::measure),
    (What::Peers, peers::measure),
];

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("benches: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every benchmark could be taken; a target that is not reached is a
/// result, not a failure.
fn run(cli: &Cli) -> Outcome<bool> {
    if cli.what == What::Readme {
        return readme::write(&cli.results).map(|()| true);
    }
    let bench = Bench::new(&cli.dcrun, &cli.criu, cli.quick)?;
    let mut all_taken = true;
    let mut results = Vec::new();
    for (what, measure) in BENCHMARKS {
        if cli.what != What::All && cli.what != what {
            continue;
        }
        let before = surroundings::describe();
        match measure(&bench) {
            Ok(report) => {
                print!("{}", report.text());
                if let Some(directory) = &cli.svg {
                    draw(&report, directory)?;
                }
                results.push(report.to_json(&before, cli.quick));
            }
            Err(failure) => {
                let name = what
                    .to_possible_value()
                    .map(|value| value.get_name().to_owned());
                eprintln!("benches: {}: {failure}", name.unwrap_or_default());
                all_taken = false;
            }
        }
    }
    if let Some(file) = &cli.json {
        let value = match cli.what {
            What::All => json!(results),
            _ => json!(results.first()),
        };
        if value.is_array() || value.is_object() {
            write(file, &format!("{value:#}\n"))?;
        }
    }
    Ok(all_taken)
}

fn draw(report: &Report, directory: &Path) -> Outcome<()> {
    for (file, _, svg) in report.drawings() {
        write(&directory.join(format!("{file}.svg")), &svg)?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Outcome<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory).doing(|| format!("make {}", directory.display()))?;
    }
    std::fs::write(file, text).doing(|| format!("write {}", file.display()))
}
