//! Bugs that a test build of dcrun commits on purpose, and the sessions in which they must come to light.
//!
//! A harness that has never seen a failure proves little: for each planted bug there is a session whose outcome depends
//! on exactly what the bug breaks, with the crash where it hurts.

use crate::error::{Error, Result};
use crate::report::Report;
use crate::runner::{Fault, Mode, Options, Reference, run_against};
use crate::sessions::session;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A dirty page is not copied at a commit.
    SkipPage,
    /// A commit that was due before a visible event is skipped.
    SkipCommit,
    /// A write that was performed before the crash is performed again.
    RepeatWrite,
    /// Input that was taken from the kernel before the crash is not fed again.
    LoseRead,
    /// A result is left out of the log that a replay needs.
    SkipRecord,
    /// Memory that is laid together anew stays mapped from frames that are then used again.
    StaleFold,
    /// A dirty page of a child is not copied at a commit.
    SkipChildPage,
    /// How a child has ended is forgotten by a recovery.
    LoseStatus,
    /// What lies in a pipe between processes comes back twice.
    DoublePipe,
    /// A process of a tree is left out of a commit.
    LagBehind,
    /// A process that was killed from outside is taken for one that has ended.
    OwnKill,
}

impl Plant {
    pub const ALL: [Plant; 11] = [
        Plant::SkipPage,
        Plant::SkipCommit,
        Plant::RepeatWrite,
        Plant::LoseRead,
        Plant::SkipRecord,
        Plant::StaleFold,
        Plant::SkipChildPage,
        Plant::LoseStatus,
        Plant::DoublePipe,
        Plant::LagBehind,
        Plant::OwnKill,
    ];

    /// What DCRUN_PLANT calls it.
    pub fn name(self) -> &'static str {
        match self {
            Plant::SkipPage => "skip-page",
            Plant::SkipCommit => "skip-commit",
            Plant::RepeatWrite => "repeat-write",
            Plant::LoseRead => "lose-read",
            Plant::SkipRecord => "skip-record",
            Plant::StaleFold => "stale-fold",
            Plant::SkipChildPage => "skip-child-page",
            Plant::LoseStatus => "lose-status",
            Plant::DoublePipe => "double-pipe",
            Plant::LagBehind => "lag-behind",
            Plant::OwnKill => "own-kill",
        }
    }

    fn trials(self) -> &'static [(&'static str, Mode)] {
        match self {
            Plant::SkipPage => &[
                ("probe-heap-churn", Mode::KillWorker),
                ("probe-map-churn", Mode::KillWorker),
                ("probe-brk-growth", Mode::Every(Fault::AfterCommit)),
            ],
            Plant::SkipCommit => &[
                ("probe-chance", Mode::Every(Fault::AfterVisible)),
                ("probe-chance", Mode::KillWorker),
            ],
            Plant::RepeatWrite => &[
                ("probe-counter", Mode::Every(Fault::AfterVisible)),
                ("probe-counter", Mode::KillWorker),
            ],
            Plant::LoseRead => &[
                ("probe-stdin-lines", Mode::Every(Fault::AfterRead)),
                ("python-repl", Mode::KillWorker),
            ],
            Plant::SkipRecord => &[("probe-stdin-lines", Mode::Every(Fault::AfterVisible))],
            Plant::StaleFold => &[("probe-memory-cold", Mode::Hosted)],
            Plant::SkipChildPage => &[
                ("probe-child-memory", Mode::KillWorker),
                ("probe-child-memory", Mode::Every(Fault::AfterCommit)),
            ],
            Plant::LoseStatus => &[("probe-waits", Mode::Every(Fault::AfterCommit))],
            Plant::DoublePipe => &[
                ("probe-pipes-within", Mode::KillAll),
                ("tree-python-shared", Mode::KillAll),
            ],
            Plant::LagBehind => &[("probe-child-memory", Mode::Every(Fault::AfterCommit))],
            // (The kills may all meet the first process.)
            Plant::OwnKill => &[
                ("probe-waits", Mode::KillWorker),
                ("probe-child-memory", Mode::KillWorker),
                ("probe-tree-storm", Mode::KillWorker),
                ("tree-jobs", Mode::KillWorker),
            ],
        }
    }
}

/// The protocol under which the bug can do harm, where it is not any.
fn protocol_for(plant: Plant) -> Option<String> {
    (plant == Plant::SkipRecord).then(|| "cbndvs-log".to_owned())
}

/// Plants the bug and plays its sessions until one differs; None when the bug was never noticed. An error when a session
/// differs without the bug as well: then it would prove nothing.
pub fn catch(plant: Plant, options: &Options) -> Result<Option<Report>> {
    for (name, mode) in plant.trials() {
        let session =
            session(name).ok_or_else(|| Error::new(format!("no session {name} to plant in")))?;
        let reference = Reference::known(&session)?;
        let mut options = Options {
            places: options.places.min(30),
            // A lost line leaves the script waiting.
            patience: 1,
            stop_early: true,
            protocol: protocol_for(plant).or_else(|| options.protocol.clone()),
            ..options.clone()
        };
        let healthy = run_against(&session, &reference, *mode, &options)?;
        if let Some(difference) = healthy.differences.first() {
            return Err(Error::new(format!(
                "{name} differs without a planted bug: {difference}"
            )));
        }
        options
            .env
            .push(("DCRUN_PLANT".into(), plant.name().into()));
        let report = run_against(&session, &reference, *mode, &options)?;
        if !report.agrees() {
            return Ok(Some(report));
        }
    }
    Ok(None)
}
