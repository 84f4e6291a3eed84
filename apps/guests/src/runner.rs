//! Runs a session in a mode and says what came of it.
//!
//! The native run comes first and twice: a session that does not even agree with itself proves nothing about anybody
//! else. Each further run stands in a fresh directory with a fresh dcrun state, so no run can lean on another.

use crate::compare::{Difference, Kind, compare};
use crate::console::Console;
use crate::dcrun::{Dcrun, Stats};
use crate::drive::{Driver, Peace};
use crate::error::{Error, Result};
use crate::killer::{Killer, Kills, Plan, Victim};
use crate::outcome::Outcome;
use crate::report::Report;
use crate::session::Session;
use crate::toolchain::locate;
use crate::workdir::WorkDir;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Once more without dcrun: what the session says of itself.
    Native,
    /// Under dcrun, left in peace.
    Hosted,
    /// Under dcrun, the worker killed at random moments.
    KillWorker,
    /// Under dcrun, keeper and worker killed and the same command run again at the same terminal.
    KillAll,
    /// Under dcrun, now the one and now the other.
    KillMixed,
    /// Under dcrun, one run for each place of this kind, with a crash there.
    Every(Fault),
}

/// Where a test build of dcrun lets the worker die, once in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    AfterCommit,
    BeforePublish,
    AfterVisible,
    AfterRead,
}

impl Fault {
    pub const ALL: [Fault; 4] = [
        Fault::AfterCommit,
        Fault::BeforePublish,
        Fault::AfterVisible,
        Fault::AfterRead,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::AfterCommit => "after-commit",
            Fault::BeforePublish => "before-publish",
            Fault::AfterVisible => "after-visible",
            Fault::AfterRead => "after-read",
        }
    }
}

impl Mode {
    /// Whether a run in this mode is to be killed at random moments.
    pub fn kills(self) -> bool {
        matches!(self, Mode::KillWorker | Mode::KillAll)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Native => f.write_str("native"),
            Mode::Hosted => f.write_str("hosted"),
            Mode::KillWorker => f.write_str("kill-worker"),
            Mode::KillAll => f.write_str("kill-all"),
            Mode::KillMixed => f.write_str("kill-mixed"),
            Mode::Every(fault) => write!(f, "every {}", fault.name()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub dcrun: PathBuf,
    /// The most kills in one run; a run that ends earlier sees fewer.
    pub kills: usize,
    pub seed: u64,
    /// The mean time between kills; else as it fits the length of the native run.
    pub gap: Option<Duration>,
    /// For dcrun: a planted bug, a log.
    pub env: Vec<(String, String)>,
    pub protocol: Option<String>,
    /// dcrun's `--interval`, ms.
    pub interval_ms: Option<u32>,
    /// How much longer than natively a step may be silent.
    pub patience: u32,
    /// The most places that an [`Mode::Every`] visits.
    pub places: u64,
    /// An [`Mode::Every`] ends at the first place that differs.
    pub stop_early: bool,
    /// Have dcrun trace the run, and check the trace.
    pub check: bool,
    /// Keep the directory of a run that differs.
    pub keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            dcrun: PathBuf::from("target/release/dcrun"),
            kills: 10,
            seed: 1,
            gap: None,
            env: Vec::new(),
            protocol: None,
            interval_ms: None,
            patience: 3,
            places: 100_000,
            stop_early: false,
            check: false,
            keep: false,
        }
    }
}

/// What a native run leaves behind, and how long it takes.
pub struct Reference {
    pub outcome: Outcome,
    pub duration: Duration,
}

impl Reference {
    /// What was recorded of the session before in this process, or is now.
    pub fn known(session: &Session) -> Result<Arc<Self>> {
        static KNOWN: Mutex<BTreeMap<&str, Arc<Reference>>> = Mutex::new(BTreeMap::new());
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reference) = known().get(session.name) {
            return Ok(Arc::clone(reference));
        }
        let reference = Arc::new(Reference::record(session)?);
        known().insert(session.name, Arc::clone(&reference));
        Ok(reference)
    }

    /// Runs the session natively twice; an error when the two do not agree.
    pub fn record(session: &Session) -> Result<Self> {
        let first = native_run(session, None)?;
        if let Some(stuck) = &first.outcome.stuck {
            return Err(Error::new(format!("{}: natively: {stuck}", session.name)));
        }
        if first.outcome.status != Some(session.status) {
            return Err(Error::new(format!(
                "{}: natively: exit status {:?}: {}{}",
                session.name,
                first.outcome.status,
                String::from_utf8_lossy(&first.outcome.output),
                String::from_utf8_lossy(&first.outcome.errors)
            )));
        }
        // The second run may take its time to come to the same screens.
        let second = native_run(session, Some(&first.outcome))?;
        let verdict = compare(&first.outcome, &second.outcome, session.stream);
        match verdict.differences.first() {
            // The second did not have to wait for screens to come to rest.
            None => Ok(Reference {
                duration: second.duration,
                ..first
            }),
            Some(difference) => Err(Error::new(format!(
                "{}: two native runs differ: {difference}",
                session.name
            ))),
        }
    }
}

/// Records a reference and plays the session once more in this mode.
pub fn run(session: &Session, mode: Mode, options: &Options) -> Result<Report> {
    run_against(session, &Reference::record(session)?, mode, options)
}

/// Plays the session in this mode and compares with a reference recorded before.
pub fn run_against(
    session: &Session,
    reference: &Reference,
    mode: Mode,
    options: &Options,
) -> Result<Report> {
    let started = Instant::now();
    let mut report = Report::new(session.name, &mode.to_string(), options.seed);
    match mode {
        Mode::Native => {
            let again = native_run(session, Some(&reference.outcome))?;
            report.add_verdict(compare(&reference.outcome, &again.outcome, session.stream));
        }
        Mode::Hosted => {
            Hosting {
                session,
                reference,
                options,
                plan: None,
                fault: None,
            }
            .run(&mut report)?;
        }
        Mode::KillWorker | Mode::KillAll | Mode::KillMixed => {
            let victim = match mode {
                Mode::KillWorker => Victim::Worker,
                Mode::KillAll => Victim::KeeperAndWorker,
                _ => Victim::Either,
            };
            let share = reference.duration / (options.kills as u32 + 1);
            let gap = options
                .gap
                .unwrap_or(share.clamp(Duration::from_millis(1), Duration::from_millis(300)));
            let plan = Some(Plan {
                victim,
                kills: options.kills,
                gap,
                seed: options.seed,
            });
            Hosting {
                session,
                reference,
                options,
                plan,
                fault: None,
            }
            .run(&mut report)?;
        }
        Mode::Every(fault) => {
            for place in 1..=options.places {
                let fault = Some((fault, place));
                let before = report.recoveries;
                Hosting {
                    session,
                    reference,
                    options,
                    plan: None,
                    fault,
                }
                .run(&mut report)?;
                // A run that was not crashed has fewer places than this.
                if report.recoveries == before || (options.stop_early && !report.agrees()) {
                    break;
                }
            }
        }
    }
    report.duration_ms = started.elapsed().as_millis() as u64;
    Ok(report)
}

fn native_run(session: &Session, expected: Option<&Outcome>) -> Result<Reference> {
    let dir = WorkDir::prepare(session, false)?;
    let console = Console::open(
        session.channel,
        &dir,
        &command(session)?,
        &env(session, &dir),
    )?;
    let patience = Duration::from_secs(session.patience_s);
    let started = Instant::now();
    let mut outcome = Driver::new(session, console, &Peace, expected, patience).play()?;
    let duration = started.elapsed();
    outcome.files = dir.collect()?;
    Ok(Reference { outcome, duration })
}

/// One run under dcrun.
struct Hosting<'a> {
    session: &'a Session,
    reference: &'a Reference,
    options: &'a Options,
    plan: Option<Plan>,
    fault: Option<(Fault, u64)>,
}

impl Hosting<'_> {
    fn run(&self, report: &mut Report) -> Result<()> {
        let (session, options) = (self.session, self.options);
        let mut dir = WorkDir::prepare(session, false)?;
        let dcrun = Dcrun::new(&options.dcrun, dir.state());
        // Only a run that nobody restarts may ask for a fresh one.
        let fresh = self.plan.is_none();
        let trace = options.check.then(|| dir.trace());
        let line = dcrun.command_line(
            session,
            fresh,
            options,
            trace.as_deref(),
            &command(session)?,
        );
        let mut env = env(session, &dir);
        env.push(("DCRUN_STATE".into(), dir.state().into()));
        env.extend(
            options
                .env
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
        if let Some((fault, place)) = self.fault {
            env.push((
                "DCRUN_FAULT".into(),
                format!("{}:{place}", fault.name()).into(),
            ));
        }
        let console = Console::open(session.channel, &dir, &line, &env)?;
        let (mut outcome, kills) = self.play(console, &dcrun)?;
        outcome.files = dir.collect()?;

        // A run that never began has no counters.
        let stats = match dcrun.find(session.name)? {
            Some(_) => dcrun.stats(session.name)?,
            None => Stats::default(),
        };
        self.count(kills, stats, report);
        report.retyped += outcome.retyped;
        let mut verdict = compare(&self.reference.outcome, &outcome, session.stream);
        if let Some(trace) = &trace
            && let Some(flaw) = dcrun.check(trace)?
        {
            verdict.differences.push(Difference {
                kind: Kind::Different,
                subject: "trace".into(),
                detail: flaw,
            });
        }
        let place = match self.fault {
            Some((fault, place)) => format!("{}:{place}: ", fault.name()),
            None => String::new(),
        };
        for difference in &mut verdict.differences {
            difference.detail.insert_str(0, &place);
            for notice in &outcome.notices {
                difference.detail += &format!("\n    said: {notice}");
            }
        }
        if !verdict.agrees() && options.keep {
            report.kept.push(dir.keep().display().to_string());
        } else {
            dcrun.remove(session.name);
        }
        report.add_verdict(verdict);
        Ok(())
    }

    fn play(&self, console: Console, dcrun: &Dcrun) -> Result<(Outcome, Kills)> {
        let session = self.session;
        let patience = Duration::from_secs(session.patience_s) * self.options.patience;
        let expected = Some(&self.reference.outcome);
        let Some(plan) = self.plan else {
            let outcome = Driver::new(session, console, &Peace, expected, patience).play()?;
            return Ok((outcome, Kills::default()));
        };
        let killer = Killer::new(dcrun, session.name, console.session_id(), plan);
        let outcome = std::thread::scope(|scope| {
            let hunt = scope.spawn(|| killer.hunt());
            let outcome = Driver::new(session, console, &killer, expected, patience).play();
            killer.stop();
            let ended = hunt.join();
            outcome.and_then(|outcome| match ended {
                Ok(()) => Ok(outcome),
                Err(_) => Err(Error::new("the killer's thread panicked")),
            })
        })?;
        Ok((outcome, killer.kills()))
    }

    /// Prefers dcrun's own figures where it has them.
    fn count(&self, mut kills: Kills, stats: Stats, report: &mut Report) {
        let recoveries = stats.recoveries.unwrap_or(0) as usize;
        if self.fault.is_some() {
            kills.kills = recoveries;
            kills.recoveries = recoveries;
        }
        if stats.recovery_us.len() >= kills.recoveries {
            kills.seen_us = stats
                .recovery_us
                .iter()
                .map(|us| us.round() as u64)
                .collect();
        }
        report.commits += stats.commits.unwrap_or(0);
        report.logged += stats.logged_events.unwrap_or(0);
        report.replayed += stats.replayed_events.unwrap_or(0);
        report.bound_commits += stats.log_bound_commits.unwrap_or(0);
        report.protocol_moves += stats.protocol_moves.unwrap_or(0);
        report.add_kills(kills);
    }
}

fn command(session: &Session) -> Result<Vec<OsString>> {
    let program = match &session.program {
        crate::session::Program::InWorkDir(name) => PathBuf::from(format!("./{name}")),
        other => locate(other)?,
    };
    Ok([program.into()]
        .into_iter()
        .chain(session.args.iter().map(OsString::from))
        .collect())
}

/// The same small environment for everybody: nothing of the caller's must reach the program.
fn env(session: &Session, dir: &WorkDir) -> Vec<(OsString, OsString)> {
    let fixed = [
        ("TERM", "xterm"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/games"),
    ];
    let mut env: Vec<(OsString, OsString)> = vec![("HOME".into(), dir.home().into())];
    env.extend(
        fixed
            .iter()
            .chain(&session.env)
            .map(|(name, value)| (name.into(), value.into())),
    );
    env
}
