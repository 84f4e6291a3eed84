//! `guests`: plays the sessions from the command line, natively, hosted and under kills.

#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand, ValueEnum};
use guests::{
    Fault, Mode, Options, Plant, Reference, Report, Session, Tally, catch, run_against, session,
    sessions,
};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "Real programs driven through a pty, killed and compared with a native run")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Names the sessions.
    List,
    /// Plays one session natively and prints what it leaves: screens, output, files.
    Show { session: String },
    /// Plays sessions (all of them when none is named) in one mode, and compares with a native run.
    Run {
        sessions: Vec<String>,
        #[arg(long, value_enum, default_value = "native")]
        mode: ModeName,
        /// Which places an every-place run visits.
        #[arg(long, value_enum, default_value = "after-commit")]
        fault: FaultName,
        /// The most kills in one run.
        #[arg(long, default_value_t = 10)]
        kills: usize,
        /// The most places that an every-place run visits.
        #[arg(long, default_value_t = 100_000)]
        places: u64,
        /// Repeat with the next seeds.
        #[arg(long, default_value_t = 1)]
        times: u64,
        #[command(flatten)]
        hosting: Hosting,
    },
    /// Has dcrun commit each planted bug, and says whether a session caught it.
    Plants {
        #[command(flatten)]
        hosting: Hosting,
    },
    /// Kills sessions, run after run, until enough kills are counted.
    Soak {
        sessions: Vec<String>,
        #[arg(long, default_value_t = 1000)]
        kills: usize,
        /// The most kills in one run.
        #[arg(long, default_value_t = 25)]
        kills_per_run: usize,
        #[arg(long, value_enum, default_value = "kill-worker")]
        mode: ModeName,
        /// Stop a session after so many runs that differ.
        #[arg(long, default_value_t = 5)]
        failures: usize,
        #[command(flatten)]
        hosting: Hosting,
    },
}

#[derive(Args)]
struct Hosting {
    #[arg(long, default_value = "target/release/dcrun")]
    dcrun: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The mean time between kills.
    #[arg(long, value_name = "MS")]
    gap_ms: Option<u64>,
    #[arg(long)]
    protocol: Option<String>,
    /// Commit by the clock as well
    #[arg(long)]
    interval_ms: Option<u32>,
    /// For the hosted run only, such as DCRUN_PLANT=skip-page.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Trace the runs, and have dcrun check the traces.
    #[arg(long)]
    check: bool,
    /// Keep the directories of runs that differ.
    #[arg(long)]
    keep: bool,
    /// Reports as JSON lines on standard output.
    #[arg(long)]
    json: bool,
    /// Reports as JSON lines into this file.
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum ModeName {
    Native,
    Hosted,
    KillWorker,
    KillAll,
    KillMixed,
    EveryCommit,
}

#[derive(Clone, Copy, ValueEnum)]
enum FaultName {
    AfterCommit,
    BeforePublish,
    AfterVisible,
    AfterRead,
}

/// Runs more with kills that come as early as they can, where none came.
const EARLIER_KILLS: usize = 10;

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::List => {
            for session in sessions() {
                println!("{:24} {}", session.name, session.about);
            }
            Ok(true)
        }
        Verb::Show { session } => chosen(&[session]).and_then(|found| {
            for session in found {
                tell(&Reference::record(&session)?);
            }
            Ok(true)
        }),
        Verb::Run {
            sessions,
            mode,
            fault,
            kills,
            places,
            times,
            hosting,
        } => {
            let mode = mode.with(fault);
            each(&sessions, &hosting, |session| {
                let reference = Reference::record(session)?;
                let mut sum = Report::new(session.name, &mode.to_string(), hosting.seed);
                for seed in (hosting.seed..).take(times as usize) {
                    let options = Options {
                        seed,
                        kills,
                        places,
                        ..hosting.options()
                    };
                    sum.absorb(run_against(session, &reference, mode, &options)?);
                }
                // A short session may end before the first kill: it is killed earlier then.
                for seed in (hosting.seed + times..).take(EARLIER_KILLS) {
                    if !mode.kills() || kills == 0 || sum.kills > 0 || !sum.agrees() {
                        break;
                    }
                    let options = Options {
                        seed,
                        kills,
                        gap: Some(Duration::from_millis(1)),
                        ..hosting.options()
                    };
                    sum.absorb(run_against(session, &reference, mode, &options)?);
                }
                if mode.kills() && kills > 0 {
                    sum.expect_a_kill();
                }
                Ok(sum)
            })
        }
        Verb::Plants { hosting } => plants(&hosting.options()),
        Verb::Soak {
            sessions,
            kills,
            kills_per_run,
            mode,
            failures,
            hosting,
        } => {
            let mode = mode.with(FaultName::AfterCommit);
            let tally = Tally { kills, failures };
            let options = Options {
                kills: kills_per_run,
                ..hosting.options()
            };
            each(&sessions, &hosting, |session| {
                guests::soak(session, mode, tally, &options, |sum| {
                    eprint!("\r\x1b[K{sum}")
                })
                .inspect(|_| eprint!("\r\x1b[K"))
            })
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("guests: {error}");
            ExitCode::from(2)
        }
    }
}

fn plants(options: &Options) -> guests::Result<bool> {
    let mut all = true;
    for plant in Plant::ALL {
        match catch(plant, options) {
            Err(error) => {
                eprintln!("guests: {}: {error}", plant.name());
                all = false;
            }
            Ok(Some(report)) => {
                println!(
                    "{}: caught by {} ({})",
                    plant.name(),
                    report.session,
                    report.mode
                );
                if let Some(first) = report.differences.first() {
                    println!("  {first}");
                }
            }
            Ok(None) => {
                println!("{}: not noticed", plant.name());
                all = false;
            }
        }
    }
    Ok(all)
}

fn tell(reference: &Reference) {
    let outcome = &reference.outcome;
    for (name, screen) in &outcome.screens {
        println!("--- screen {name}\n{screen}");
    }
    println!(
        "--- output\n{}",
        String::from_utf8_lossy(&outcome.output).escape_debug()
    );
    for (name, file) in &outcome.files {
        match file {
            guests::FileImage::File { mode, bytes } => {
                println!("--- file {name}: {} bytes, mode {mode:o}", bytes.len());
            }
            other => println!("--- {name}: {other:?}"),
        }
    }
    println!(
        "--- status {:?} after {:?}",
        outcome.status, reference.duration
    );
}

/// Does the work for each session that was named; true when all agree with their native runs.
fn each(
    names: &[String],
    hosting: &Hosting,
    work: impl Fn(&Session) -> guests::Result<Report>,
) -> guests::Result<bool> {
    let mut agree = true;
    let mut file =
        match &hosting.json_file {
            None => None,
            Some(path) => Some(File::create(path).map_err(|cause| {
                guests::Error::new(format!("create {}: {cause}", path.display()))
            })?),
        };
    for session in chosen(names)? {
        if let Some(path) = session.missing() {
            eprintln!(
                "guests: {}: {} is not installed",
                session.name,
                path.display()
            );
            agree = false;
            continue;
        }
        match work(&session) {
            Ok(report) => {
                agree &= report.agrees();
                show(&report, hosting, file.as_mut())?;
            }
            Err(error) => {
                eprintln!("guests: {}: {error}", session.name);
                agree = false;
            }
        }
    }
    Ok(agree)
}

/// The sessions of these names, where `probe-*` stands for all that begin so.
fn chosen(names: &[String]) -> guests::Result<Vec<Session>> {
    if names.is_empty() {
        return Ok(sessions());
    }
    let mut chosen = Vec::new();
    for name in names {
        if let Some(start) = name.strip_suffix('*') {
            chosen.extend(sessions().into_iter().filter(|s| s.name.starts_with(start)));
        } else {
            let none = || guests::Error::new(format!("no session {name}; see guests list"));
            chosen.push(session(name).ok_or_else(none)?);
        }
    }
    Ok(chosen)
}

fn show(report: &Report, hosting: &Hosting, file: Option<&mut File>) -> guests::Result<()> {
    let failed = |cause: &dyn std::fmt::Display| guests::Error::new(format!("report: {cause}"));
    let line = serde_json::to_string(report).map_err(|cause| failed(&cause))?;
    if let Some(file) = file {
        writeln!(file, "{line}").map_err(|cause| failed(&cause))?;
    }
    if hosting.json {
        println!("{line}");
        eprintln!("{report}");
    } else {
        println!("{report}");
    }
    for difference in report.differences.iter().take(10) {
        eprintln!("  {difference}");
    }
    for kept in &report.kept {
        eprintln!("  kept: {kept}");
    }
    Ok(())
}

impl Hosting {
    fn options(&self) -> Options {
        Options {
            dcrun: self.dcrun.clone(),
            seed: self.seed,
            gap: self.gap_ms.map(Duration::from_millis),
            env: self
                .env
                .iter()
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            protocol: self.protocol.clone(),
            interval_ms: self.interval_ms,
            check: self.check,
            keep: self.keep,
            ..Options::default()
        }
    }
}

impl ModeName {
    fn with(self, fault: FaultName) -> Mode {
        match self {
            ModeName::Native => Mode::Native,
            ModeName::Hosted => Mode::Hosted,
            ModeName::KillWorker => Mode::KillWorker,
            ModeName::KillAll => Mode::KillAll,
            ModeName::KillMixed => Mode::KillMixed,
            ModeName::EveryCommit => Mode::Every(match fault {
                FaultName::AfterCommit => Fault::AfterCommit,
                FaultName::BeforePublish => Fault::BeforePublish,
                FaultName::AfterVisible => Fault::AfterVisible,
                FaultName::AfterRead => Fault::AfterRead,
            }),
        }
    }
}
