//! The undo manager: between the proxy above the service and the storage below it.
//!
//! It sequences, executes and records verbs (`running`, `arrivals`), takes snapshots (`keeping`),
//! and goes through the cycle of rewind, repair and replay (`cycling`, `replay`, `scope`). After a death of
//! its own it finishes or takes back what was under way (`recover`).
//!
//! One lock, the *gate*, orders all of that: whoever executes a verb for a user holds it shared, for as
//! long as the verb takes; whoever takes or exchanges the state holds it alone. What is behind
//! the gate is the ledger, which says which phase the cycle is in.

mod arrivals;
mod cycling;
mod editing;
mod keeping;
mod recover;
mod replay;
mod running;
mod scope;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cycle::Ledger;
use crate::scoreboard::Scoreboard;
use crate::snapshots::{Catalogue, Granularity, default_granularities};
use crate::storage::Storage;
use crate::timeline::{Lsn, Timeline};
use crate::verb::Service;
use crate::{Cycle, Error, Phase, Result};

pub use editing::{Listed, Search};
pub use running::Refused;

/// What can be set about a manager.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where timeline, snapshots and live state are. One file system, of which the state is a part.
    pub home: PathBuf,
    pub granularities: Vec<Granularity>,
    /// How many verbs a replay executes at a time, where they are independent.
    pub replay_workers: usize,
    /// How many asynchronous verbs are executed at a time.
    pub executors: usize,
    /// How long after a failed attempt an asynchronous verb is tried again.
    pub retry_every_s: f64,
    /// What shows state, and changes none, is on stable storage after this time at the latest.
    /// (Verbs that change state are, before their user hears of it.)
    pub sync_shown_ms: u64,
    /// A replay takes a snapshot after so many verbs, where snapshots take constant time.
    pub checkpoint_verbs: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            home: PathBuf::from("."),
            granularities: default_granularities(),
            replay_workers: 16,
            executors: 8,
            retry_every_s: 300.0,
            sync_shown_ms: 200,
            checkpoint_verbs: 20_000,
        }
    }
}

pub struct Manager<S: Service> {
    service: S,
    storage: Box<dyn Storage>,
    timeline: Timeline,
    settings: Settings,
    board: Scoreboard<S::Verb>,
    gate: RwLock<Ledger>,
    /// Held by the one operator whose command is under way.
    operating: Mutex<()>,
    catalogue: Mutex<Catalogue>,
    queue: arrivals::Queue,
    progress: Mutex<Progress>,
    /// Asks a replay to stop.
    abort: AtomicBool,
    closing: AtomicBool,
}

/// How far a rewind or a replay is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, in words; empty if nothing is.
    pub doing: String,
    pub done: u64,
    pub total: u64,
    pub paradoxes: u64,
    pub seconds: f64,
    pub seconds_left: Option<f64>,
    #[serde(skip)]
    since: Option<Instant>,
    /// Why the last command of an operator did not succeed.
    pub failure: Option<String>,
}

/// What an operator asks first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    pub phase: Phase,
    pub storage: String,
    pub last_lsn: Lsn,
    pub timeline_bytes: u64,
    pub verbs_running: usize,
    pub verbs_waiting: usize,
    pub arrivals_queued: usize,
    pub arrivals_failed: usize,
    pub snapshots: usize,
    pub cycle: Option<Cycle>,
    pub undoable: Vec<Cycle>,
    pub progress: Progress,
}

impl<S: Service> Manager<S> {
    /// The service below.
    pub fn service(&self) -> &S {
        &self.service
    }

    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The folder of the live state.
    pub fn live_folder(&self) -> &std::path::Path {
        self.storage.live()
    }

    /// What the operator is shown by `undo status`.
    pub fn state(&self) -> State {
        let (verbs_running, verbs_waiting) = self.board.load();
        let (arrivals_queued, arrivals_failed) = self.queue.load();
        // The gate may be held for as long as a rewind takes: the last that is known will do.
        let (phase, cycle, undoable) = self.queue.shown();
        let mut progress = self.progress().clone();
        if let Some(since) = progress.since {
            progress.seconds = since.elapsed().as_secs_f64();
            let left = progress.total.saturating_sub(progress.done) as f64;
            progress.seconds_left =
                (progress.done > 0).then(|| progress.seconds / progress.done as f64 * left);
        }
        State {
            phase,
            storage: self.storage.kind().into(),
            last_lsn: self.timeline.last(),
            timeline_bytes: self.timeline.size_bytes(),
            verbs_running,
            verbs_waiting,
            arrivals_queued,
            arrivals_failed,
            snapshots: self.catalogue().snapshots.len(),
            cycle,
            undoable,
            progress,
        }
    }

    /// Waits until all that was accepted has been attempted, for at most `patience`.
    pub fn drain(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if self.queue.is_idle() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }

    /// Ends the threads of the manager. What is queued stays in the timeline for the next start.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.queue.wake_all();
    }

    fn shared(&self) -> RwLockReadGuard<'_, Ledger> {
        self.gate
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Ledger> {
        self.gate
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes the operator's place, or says that another command is under way.
    fn operate(&self) -> Result<MutexGuard<'_, ()>> {
        // Snapshots are taken in the background too, and are mostly quick.
        let end = Instant::now() + Duration::from_secs(3);
        loop {
            if let Ok(operating) = self.operating.try_lock() {
                return Ok(operating);
            }
            if Instant::now() > end {
                let advice =
                    "wait for it (`undo status` shows how far it is), or `undo cancel` a replay";
                return Err(Error::new(
                    "operator's command",
                    "begin",
                    "another one is still under way",
                )
                .advise(advice));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Changes the ledger, on disk and for all who look.
    fn publish(&self, ledger: &mut Ledger) -> Result<()> {
        ledger.save()?;
        self.queue.show(ledger);
        Ok(())
    }

    fn begin_progress(&self, doing: &str, total: usize) {
        *self.progress() = Progress {
            doing: doing.into(),
            total: total as u64,
            since: Some(Instant::now()),
            ..Progress::idle()
        };
    }

    fn end_progress(&self, result: &Result<impl Sized>) {
        let mut progress = self.progress();
        *progress = Progress {
            failure: result.as_ref().err().map(|e| e.to_string()),
            ..Progress::idle()
        };
    }
}

impl Progress {
    fn idle() -> Progress {
        Progress {
            doing: String::new(),
            done: 0,
            total: 0,
            paradoxes: 0,
            seconds: 0.0,
            seconds_left: None,
            since: None,
            failure: None,
        }
    }
}

/// The threads of a manager and the manager itself. Dropping it ends them.
pub struct Running<S: Service> {
    pub manager: Arc<Manager<S>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl<S: Service> Drop for Running<S> {
    fn drop(&mut self) {
        self.manager.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl<S: Service> std::ops::Deref for Running<S> {
    type Target = Arc<Manager<S>>;
    fn deref(&self) -> &Arc<Manager<S>> {
        &self.manager
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|e| Error::new("verb", "encode", e))
}

fn decode<T: serde::de::DeserializeOwned>(lsn: Lsn, bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| {
        Error::new(format!("verb {lsn}"), "decode", e)
            .advise("the timeline was written by another version of this program; use that one")
    })
}
