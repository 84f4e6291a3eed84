//! `dcrun resume --all` and `--detach`: runs go on without anybody who waits for them.
//!
//! Each gets a keeper of its own, a `dcrun` in a session of its own, which gives the run the
//! standard descriptors that it had (see `standard`). Whoever asked is told once the program runs,
//! or why it does not; what is said later is in `messages` in the run's directory, as of daemons.
//!
//! `--all` means what a restart of the machine has left: runs that are suspended, and those whose
//! keeper was killed. It leaves those that were stopped for a reason, those that had a terminal,
//! and those whose image went with the memory, and says so of each.

use std::os::fd::IntoRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use dc_image::Status;

use crate::cli::ResumeOptions;
use crate::launch;
use crate::machine::descriptors;
use crate::machine::shared::SharedLive;
use crate::message::{self, Doing, Failure, OWN_FAULT, Outcome, say};
use crate::record::Record;
use crate::run_directory::{self, RunDirectory};
use crate::{image, standard};

/// A recovery that takes longer goes on, but is not waited for: its images are read first.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOKS: Duration = Duration::from_millis(2);

/// `dcrun resume`.
pub fn resume(options: &ResumeOptions) -> Outcome<u8> {
    match &options.name {
        Some(name) if !options.detach => launch::resume(options, name),
        Some(name) => {
            let (run, record) = run_directory::existing(name)?;
            if standard::has_terminal(&record.standard) {
                return Err(Failure::own(format!(
                    "{name}: it had a terminal, and in the background there is none; \
                     `dcrun resume {name}` at one goes on with it"
                )));
            }
            if run.alive().is_some() {
                return Err(Failure::own(format!("{name}: this run is alive already")));
            }
            Keeper::start(run, record, options)?.await_program()?;
            Ok(0)
        }
        None => resume_all(options),
    }
}

fn resume_all(options: &ResumeOptions) -> Outcome<u8> {
    let mut failed = false;
    let mut keepers = Vec::new();
    for run in run_directory::all()? {
        let name = run.name.clone();
        let started = choose(run).and_then(|chosen| match chosen {
            Some((run, record)) => Keeper::start(run, record, options).map(Some),
            None => Ok(None),
        });
        match started {
            Ok(keeper) => keepers.extend(keeper),
            Err(failure) => {
                failed = true;
                say(&named(&name, &failure));
            }
        }
    }
    for keeper in keepers {
        if let Err(failure) = keeper.await_program() {
            failed = true;
            say(&failure.to_string());
        }
    }
    Ok(if failed { OWN_FAULT } else { 0 })
}

/// A failure that names what it is about.
fn named(name: &str, failure: &Failure) -> String {
    let text = failure.to_string();
    match text.contains(name) {
        true => text,
        false => format!("{name}: {text}"),
    }
}

/// The run, if `--all` means it; else why not is said, if somebody might miss it.
fn choose(run: RunDirectory) -> Outcome<Option<(RunDirectory, Record)>> {
    run.check()?;
    let Some(record) = run.record()? else {
        return Ok(None);
    };
    if run.alive().is_some() || run.done()?.is_some() {
        return Ok(None);
    }
    let name = &run.name;
    let left = |why: &str| {
        say(&format!("{name}: {why}"));
        Ok(None)
    };
    let Some(file) = image::open(&record.image, &run)? else {
        return left(&format!(
            "not resumed: its image {} is gone, as after a restart of the machine with --rio \
             tmpfs; `dcrun rm {name}` removes the rest",
            record.image.display()
        ));
    };
    let live = image::live(&file)?;
    match status(&live) {
        Some(Status::Stopped) => left(&format!(
            "not resumed: it was stopped, by `dcrun kill` or because it could not go on; \
             `dcrun resume {name}` tries"
        )),
        Some(Status::Done) => left(&format!(
            "not resumed: its program had ended; `dcrun resume {name}` tells its status"
        )),
        _ if standard::has_terminal(&record.standard) => left(&format!(
            "not resumed: it had a terminal, so it waits for its user; `dcrun resume {name}` at \
             one goes on with it"
        )),
        _ => Ok(Some((run, record))),
    }
}

fn status(live: &SharedLive) -> Option<Status> {
    Status::from_u32(live.status.load(Acquire))
}

/// A keeper in the background that was just started.
struct Keeper {
    run: RunDirectory,
    record: Record,
    process: Child,
    /// How long `messages` was before.
    messages: u64,
}

impl Keeper {
    fn start(run: RunDirectory, record: Record, options: &ResumeOptions) -> Outcome<Keeper> {
        let says = |what: &str| format!("{}: {what}", run.name);
        let messages = run.open_to_add(run_directory::MESSAGES)?;
        let before = messages
            .metadata()
            .doing(|| says("look at its messages"))?
            .len();
        let own = std::env::current_exe().doing(|| "dcrun: find its own executable".to_owned())?;
        let mut command = Command::new(own);
        command.args(["resume", "--background"]);
        if let Some(keep) = &options.keep {
            command.args(["--keep", keep]);
        }
        if let Some(trace) = &options.trace {
            command.arg("--trace").arg(trace);
        }
        if options.verbose {
            command.arg("--verbose");
        }
        let process = command
            .args(["--", &run.name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(messages)
            .spawn()
            .doing(|| says("start a keeper for it"))?;
        Ok(Keeper {
            run,
            record,
            process,
            messages: before,
        })
    }

    /// Until the program goes on, has ended, or cannot.
    fn await_program(mut self) -> Outcome<()> {
        let name = self.run.name.clone();
        let begun = Instant::now();
        let file = image::open(&self.record.image, &self.run)?;
        let live = file.as_ref().map(image::live).transpose()?;
        let own = self.process.id();
        let goes_on = || {
            live.as_ref().is_some_and(|live| {
                live.keeper_pid.load(Acquire) == own && status(live) == Some(Status::Running)
            })
        };
        let ended = loop {
            if goes_on() {
                break None;
            }
            let ended = self.process.try_wait();
            if let Some(ended) = ended.doing(|| format!("{name}: wait for its keeper"))? {
                break Some(ended);
            }
            if begun.elapsed() > PATIENCE {
                say(&format!(
                    "{name}: it is being recovered still; `dcrun ps` shows it, {} says how it went",
                    self.run.path.join(run_directory::MESSAGES).display()
                ));
                return Ok(());
            }
            std::thread::sleep(LOOKS);
        };
        match ended {
            Some(status)
                if status.code() == Some(OWN_FAULT.into()) || status.signal().is_some() =>
            {
                Err(Failure::own(format!(
                    "{name}: not resumed: {}",
                    self.said()
                )))
            }
            Some(status) => {
                let status = status.code().unwrap_or_default();
                say(&format!(
                    "{name}: resumed; its program has ended with status {status}"
                ));
                Ok(())
            }
            None => {
                let output = self.run.path.join(standard::OUTPUT);
                let where_to = match standard::prints_elsewhere(&self.record.standard) {
                    true => format!(", and prints to {}", output.display()),
                    false => String::new(),
                };
                say(&format!("{name}: goes on in the background{where_to}"));
                Ok(())
            }
        }
    }

    /// What the keeper has said, as one line.
    fn said(&self) -> String {
        let text = self.run.added(run_directory::MESSAGES, self.messages);
        let mut lines = text.lines().map(|line| line.trim_start_matches("dcrun: "));
        let last = lines.rfind(|line| !line.is_empty());
        let own = format!("{}: ", self.run.name);
        last.map_or("its keeper died".to_owned(), |line| {
            line.strip_prefix(&own).unwrap_or(line).to_owned()
        })
    }
}

/// This process is to keep a run in the background: it leaves its caller's session, says what it
/// has to say into the run's `messages`, and has the run's own standard descriptors.
pub fn become_keeper(run: &RunDirectory, record: &Record) -> Outcome<()> {
    // (Whoever leads a group already is none's leader afterwards, and needs not be.)
    let _ = nix::unistd::setsid();
    descriptors::close_range(3, i32::MAX);
    message::speak_through(run.open_to_add(run_directory::MESSAGES)?.into_raw_fd());
    standard::put_back(run, &record.standard)
}
