//! What an operator does: rewind, replay, cancel, undo an undo, commit.
//!
//! Each step is published in the ledger before it is made and can be made again, so a death in
//! between is followed by the same step (`recover`).

use std::sync::atomic::Ordering;

mod rehearsing;
mod replaying;

use super::Manager;
use super::replay::{Purpose, Replay};
use crate::cycle::{Cycle, Ledger, Phase, Summary};
use crate::timeline::{Epoch, Lsn, Place};
use crate::verb::{Pause, Service};
use crate::{Error, Result, when};

impl<S: Service> Manager<S> {
    /// Takes the state back to just behind `target`, and stops there for repairs. `scope` limits
    /// that to what the service understands by this name, for example one user.
    pub fn rewind(&self, target: Lsn, scope: Option<String>) -> Result<Cycle> {
        let _operating = self.operate()?;
        self.abort.store(false, Ordering::SeqCst);
        let result = match self.has_failed_half_way(target) {
            Ok(true) => self.finish_rewind(),
            Ok(false) => self
                .begin_rewind(target, scope)
                .and_then(|()| self.finish_rewind()),
            Err(error) => Err(error),
        };
        self.end_progress(&result);
        result
    }

    /// Whether a rewind to there has begun, and ended with an error: then it goes on.
    fn has_failed_half_way(&self, target: Lsn) -> Result<bool> {
        let ledger = self.shared();
        if ledger.phase != Phase::Rewinding {
            return Ok(false);
        }
        let begun = current(&ledger, "rewind")?.target;
        if begun == target.min(self.timeline.last()) {
            return Ok(true);
        }
        let why = format!("the last one, to {begun}, has ended with an error");
        let advice =
            format!("`undo rewind --to {begun}` goes on with it, `undo cancel` gives it up");
        Err(Error::new("rewind", "begin another", why).advise(advice))
    }

    fn begin_rewind(&self, target: Lsn, scope: Option<String>) -> Result<()> {
        let mut ledger = self.alone();
        expect(
            &ledger,
            Phase::Running,
            "rewind",
            "end the cycle first: `undo replay` or `undo cancel`",
        )?;
        let head = self.timeline.last();
        let target = target.min(head);
        let (from, place) = {
            let catalogue = self.catalogue();
            let found = catalogue.nearest(target, &ledger.view, |epoch| ledger.began(epoch));
            found.map(|s| (s.name.clone(), s.place)).ok_or_else(|| {
                Error::new(
                    format!("LSN {target}"),
                    "rewind",
                    "no snapshot is old enough",
                )
                .advise("choose a later point: `undo snapshots` lists what there is")
            })?
        };
        if let Some(scope) = &scope {
            self.check_scope(scope, place, &ledger.view)?;
        }
        self.enter_cycle(&mut ledger, |epoch, recovery, view_before| Cycle {
            epoch,
            target,
            start: Place {
                lsn: target,
                inserted: head,
            },
            note: None,
            head,
            began_us: when::now_us(),
            ended_us: None,
            from,
            recovery,
            repaired: None,
            view_before,
            undoes: None,
            scope,
            summary: Summary::default(),
        })
    }

    /// Takes the snapshot that leads back, and publishes that a cycle is under way.
    fn enter_cycle(
        &self,
        ledger: &mut Ledger,
        cycle: impl FnOnce(Epoch, String, crate::timeline::View) -> Cycle,
    ) -> Result<()> {
        let epoch = ledger.last_epoch + 1;
        let name = format!("before-cycle-{epoch}");
        let last = self.timeline.last();
        self.begin_progress("take a snapshot of the present state", 0);
        self.take(
            ledger,
            name.clone(),
            Place {
                lsn: last,
                inserted: last,
            },
            true,
        )?;
        let cycle = cycle(epoch, name, ledger.view.clone());
        let mut next = ledger.clone();
        next.last_epoch = epoch;
        next.phase = Phase::Rewinding;
        next.current = Some(cycle);
        self.publish(&mut next)?;
        *ledger = next;
        Ok(())
    }

    /// Brings back the snapshot, replays from it to the exact verb, and lets the operator repair.
    ///
    /// That replay goes through the service as it is now, before the repair. If the service does
    /// not do again what it did (because it is what must be repaired), the snapshot is brought
    /// back once more and the rewind ends there: then the repaired service replays that part too.
    pub(super) fn finish_rewind(&self) -> Result<Cycle> {
        let mut cycle = self.bring_back()?;
        if cycle.undoes.is_none() {
            let from = {
                let catalogue = self.catalogue();
                let found = catalogue.snapshots.iter().find(|s| s.name == cycle.from);
                found.map_or(cycle.start, |s| s.place)
            };
            let view = cycle.view_before.clone();
            let order = self.timeline.order(from, cycle.start, &view);
            self.begin_progress("replay from the snapshot to the point chosen", order.len());
            let approach = Replay::new(self, &cycle, view, Purpose::Approach);
            approach.run(order)?;
            if let Some(drift) = approach.summary().paradoxes.first() {
                let note = format!(
                    "the service does not do again what it did: {}, LSN {}: {}. \
                     So the rewind has gone to the snapshot before {}, to LSN {}",
                    drift.verb, drift.lsn, drift.what, cycle.target, from.lsn
                );
                cycle = self.bring_back()?;
                cycle.target = from.lsn;
                cycle.start = from;
                cycle.note = Some(note);
            }
        }
        let mut ledger = self.alone();
        let mut next = ledger.clone();
        next.phase = Phase::Repairing;
        next.current = Some(cycle.clone());
        self.publish(&mut next)?;
        *ledger = next;
        Ok(cycle)
    }

    fn bring_back(&self) -> Result<Cycle> {
        let ledger = self.alone();
        let cycle = current(&ledger, "rewind")?;
        self.begin_progress("bring back a snapshot", 0);
        self.paused(Pause::Rewind, || match &cycle.scope {
            Some(scope) => {
                let paths = self.service.scope_paths(scope).unwrap_or_default();
                self.storage.restore_paths(&cycle.from, &paths)
            }
            None => self.storage.restore(&cycle.from),
        })?;
        Ok(cycle)
    }

    /// Gives the cycle up: the state becomes what it was before the rewind. A replay under way is
    /// stopped first.
    pub fn cancel(&self) -> Result<()> {
        self.abort.store(true, Ordering::SeqCst);
        let _operating = self.operating.lock().unwrap_or_else(|p| p.into_inner());
        let result = (|| {
            {
                let mut ledger = self.alone();
                if ledger.phase == Phase::Running {
                    return Err(Error::new("cycle", "cancel", "none is under way")
                        .advise("`undo undo` takes back a cycle that has ended"));
                }
                let mut next = ledger.clone();
                next.phase = Phase::Cancelling;
                self.publish(&mut next)?;
                *ledger = next;
            }
            self.finish_cancel()
        })();
        self.abort.store(false, Ordering::SeqCst);
        self.end_progress(&result);
        result
    }

    pub(super) fn finish_cancel(&self) -> Result<()> {
        let mut ledger = self.alone();
        let cycle = current(&ledger, "cancel")?;
        self.begin_progress("bring back the state before the rewind", 0);
        self.paused(Pause::Rewind, || self.storage.restore(&cycle.recovery))?;
        let mut next = ledger.clone();
        next.view = cycle.view_before.clone();
        next.current = None;
        next.phase = Phase::Running;
        self.publish(&mut next)?;
        *ledger = next;
        self.reload_arrivals(&ledger, false);
        let mut names = vec![cycle.recovery.clone(), rehearsal_name(&cycle)];
        names.extend(cycle.repaired.clone());
        self.forget_checkpoints(cycle.epoch)?;
        self.forget(&names)
    }

    /// Undoes the last cycle that has ended: forward to the state before it, and the verbs since
    /// then replayed. This can be undone as well.
    pub fn undo_cycle(&self) -> Result<Summary> {
        {
            let _operating = self.operate()?;
            self.abort.store(false, Ordering::SeqCst);
            let result = self
                .begin_undo_cycle()
                .and_then(|()| self.finish_rewind().map(drop));
            self.end_progress(&result);
            result?;
        }
        self.replay()
    }

    fn begin_undo_cycle(&self) -> Result<()> {
        let mut ledger = self.alone();
        expect(
            &ledger,
            Phase::Running,
            "undo a cycle",
            "end the one under way: `undo cancel`",
        )?;
        let Some(undone) = ledger.undoable.last().cloned() else {
            return Err(Error::new(
                "cycle",
                "undo",
                "none can be undone: there is none, or it is committed",
            ));
        };
        let head = undone.head;
        self.enter_cycle(&mut ledger, |epoch, recovery, view_before| Cycle {
            epoch,
            target: head,
            start: Place {
                lsn: head,
                inserted: head,
            },
            note: None,
            head,
            began_us: when::now_us(),
            ended_us: None,
            from: undone.recovery.clone(),
            recovery,
            repaired: None,
            view_before,
            undoes: Some(undone.epoch),
            scope: None,
            summary: Summary::default(),
        })
    }

    /// Declares the finished cycles final, and gives up the snapshots that led back.
    pub fn commit(&self) -> Result<usize> {
        let _operating = self.operate()?;
        let mut ledger = self.alone();
        expect(
            &ledger,
            Phase::Running,
            "commit",
            "end the cycle first: `undo replay`",
        )?;
        let names: Vec<String> = ledger.undoable.iter().map(|c| c.recovery.clone()).collect();
        let mut next = ledger.clone();
        next.undoable.clear();
        self.publish(&mut next)?;
        *ledger = next;
        drop(ledger);
        self.forget(&names)?;
        Ok(names.len())
    }
}

fn rehearsal_name(cycle: &Cycle) -> String {
    format!("rehearsal-{}", cycle.epoch)
}

pub(super) fn current(ledger: &Ledger, action: &str) -> Result<Cycle> {
    ledger
        .current
        .clone()
        .ok_or_else(|| Error::new("cycle", action, "none is under way"))
}

fn expect(ledger: &Ledger, phase: Phase, action: &str, advice: &str) -> Result<()> {
    if ledger.phase == phase {
        return Ok(());
    }
    Err(Error::new(
        "cycle",
        action,
        format!("the service is {:?}", ledger.phase).to_lowercase(),
    )
    .advise(advice))
}
