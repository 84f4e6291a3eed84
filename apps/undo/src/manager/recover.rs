//! Opening a manager: what a death has left under way is finished or taken back.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use super::arrivals::Queue;
use super::{Manager, Progress, Running, Settings, decode, encode};
use crate::cycle::{Ledger, Phase};
use crate::scoreboard::Scoreboard;
use crate::snapshots::Catalogue;
use crate::storage::Storage;
use crate::timeline::{Body, Head, Place, Timeline};
use crate::verb::{Call, Mode, Service};
use crate::{Context, Result};

/// So long after the last command of an operator, what it has put aside is removed: most often
/// another one follows soon.
const CALM: Duration = Duration::from_secs(30);

impl<S: Service> Manager<S> {
    /// Opens the manager of the folder `settings.home`. The service must be running, on the live
    /// state of `storage`. A cycle that was under way goes on in a thread.
    pub fn open(settings: Settings, storage: Box<dyn Storage>, service: S) -> Result<Running<S>> {
        let home = &settings.home;
        std::fs::create_dir_all(home).context(home.display(), "create")?;
        let ledger = Ledger::open(&home.join("cycle.json"))?;
        let manager = Arc::new(Manager {
            timeline: Timeline::open(&home.join("timeline"))?,
            catalogue: Mutex::new(Catalogue::open(&home.join("snapshots.json"))?),
            queue: Queue::new(&ledger),
            gate: RwLock::new(ledger),
            service,
            storage,
            board: Scoreboard::default(),
            operating: Mutex::new(()),
            progress: Mutex::new(Progress::idle()),
            abort: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            settings,
        });
        manager.reconcile_snapshots()?;
        manager.settle_unfinished()?;
        if manager.catalogue().snapshots.is_empty() {
            let ledger = manager.alone();
            let lsn = manager.timeline.last();
            manager.take(
                &ledger,
                "origin".into(),
                Place { lsn, inserted: lsn },
                false,
            )?;
        }
        manager.reload_arrivals(&manager.alone(), true);
        Ok(Running {
            threads: threads(&manager)?,
            manager,
        })
    }

    /// Removes snapshots that are not in the list, and forgets listed ones that are not there.
    fn reconcile_snapshots(&self) -> Result<()> {
        let there = self.storage.list()?;
        let mut catalogue = self.catalogue();
        let listed: Vec<String> = catalogue.snapshots.iter().map(|s| s.name.clone()).collect();
        for name in there.iter().filter(|name| !listed.contains(name)) {
            self.storage.remove(name)?;
        }
        catalogue.snapshots.retain(|s| there.contains(&s.name));
        catalogue.save()
    }

    /// Verbs whose execution was cut short are executed so that they have happened once. Their
    /// users have seen no answer, so a failure is as good as a success.
    fn settle_unfinished(&self) -> Result<()> {
        for lsn in self.timeline.unfinished() {
            let Some((time_us, bytes)) = self.timeline.read_unfinished(lsn)? else {
                continue;
            };
            let verb: S::Verb = decode(lsn, &bytes)?;
            let call = Call {
                verb: &verb,
                lsn,
                time_us,
                mode: Mode::Settle,
            };
            let (outcome, _) = self.service.execute(&call);
            let (head, tag) = match outcome.is_done() {
                true => (Head::Ended { lsn }, encode(&outcome.tag)?),
                false => (Head::Voided { lsn }, Vec::new()),
            };
            self.timeline.append(
                &head,
                &Body {
                    verb: Vec::new(),
                    tag,
                },
            )?;
        }
        // Numbers that were given out, with nothing written under them yet.
        for lsn in self.timeline.gaps() {
            self.timeline
                .append(&Head::Voided { lsn }, &Body::default())?;
        }
        self.timeline.sync_all()
    }

    /// Goes on with the cycle that a death has interrupted.
    fn go_on(&self) {
        let _operating = self.operating.lock().unwrap_or_else(|p| p.into_inner());
        let phase = self.shared().phase;
        let result = match phase {
            Phase::Running | Phase::Repairing => return,
            Phase::Rewinding => self.finish_rewind().and_then(|cycle| match cycle.undoes {
                None => Ok(()),
                // To undo a cycle is one command: nobody waits to repair anything.
                Some(_) => self
                    .begin_replay()
                    .and_then(|()| self.finish_replay().map(drop)),
            }),
            Phase::Rehearsing => self.end_rehearsal(),
            Phase::Replaying => {
                let restarted = self.restart_replay(&self.alone());
                restarted.and_then(|()| self.finish_replay().map(drop))
            }
            Phase::Cancelling => self.finish_cancel(),
        };
        self.end_progress(&result);
    }

    /// Syncs what was shown, looks after failed arrivals, takes snapshots: until the end.
    fn keep(&self) {
        let mut snapshots = Instant::now();
        let mut failed = Instant::now();
        let tick = Duration::from_millis(self.settings.sync_shown_ms.clamp(1, 1000));
        let look = Duration::from_secs_f64((self.settings.retry_every_s / 4.0).clamp(0.05, 5.0));
        let mut synced = 0;
        while !self.closing() {
            std::thread::sleep(tick);
            let written = self.timeline.size_bytes();
            if written > synced && self.timeline.sync(written).is_ok() {
                synced = written;
            }
            if failed.elapsed() > look {
                failed = Instant::now();
                self.look_after_failed();
            }
            if snapshots.elapsed() > Duration::from_secs(1) {
                snapshots = Instant::now();
                if let Err(error) = self.snapshot_if_due() {
                    self.progress().failure = Some(error.to_string());
                }
            }
        }
    }

    /// Removes what rewinds have put aside, when nothing else has gone on for a while: until the end.
    fn tidy(&self) {
        let mut calm = Instant::now();
        while !self.closing() {
            std::thread::sleep(Duration::from_millis(200));
            if !self.is_calm() {
                calm = Instant::now();
            }
            if calm.elapsed() < CALM {
                continue;
            }
            let stop = || self.closing() || !self.is_calm();
            if let Err(error) = self.storage.tidy(&stop) {
                self.progress().failure = Some(error.to_string());
            }
            calm = Instant::now();
        }
    }

    /// No command of an operator is under way.
    fn is_calm(&self) -> bool {
        let phase = self.queue.shown().0;
        matches!(phase, Phase::Running | Phase::Repairing) && self.progress().doing.is_empty()
    }
}

fn threads<S: Service>(manager: &Arc<Manager<S>>) -> Result<Vec<std::thread::JoinHandle<()>>> {
    let mut threads = Vec::new();
    let mut start = |name: String, work: Box<dyn FnOnce() + Send>| -> Result<()> {
        let thread = std::thread::Builder::new().name(name.clone()).spawn(work);
        threads.push(thread.context(format!("thread {name}"), "start")?);
        Ok(())
    };
    for number in 0..manager.settings.executors.max(1) {
        let manager = manager.clone();
        start(
            format!("executor-{number}"),
            Box::new(move || manager.execute_arrivals()),
        )?;
    }
    let keeper = manager.clone();
    start("keeper".into(), Box::new(move || keeper.keep()))?;
    let tidier = manager.clone();
    start("tidier".into(), Box::new(move || tidier.tidy()))?;
    let cycle = manager.clone();
    start("cycle".into(), Box::new(move || cycle.go_on()))?;
    Ok(threads)
}
