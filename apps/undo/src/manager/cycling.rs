//! What an operator does: rewind, replay, cancel, undo an undo, commit.
//!
//! Each step is published in the ledger before it is made and can be made again, so a death in
//! between is followed by the same step (`recover`).

use std::sync::atomic::Ordering;

use super::Manager;
use super::replay::{Purpose, Replay};
use crate::cycle::{Cycle, Ledger, Phase, Summary};
use crate::timeline::{Body, Epoch, Head, Lsn, Place};
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

    /// Brings the repaired service forward through all that its users did since.
    pub fn replay(&self) -> Result<Summary> {
        let _operating = self.operate()?;
        self.abort.store(false, Ordering::SeqCst);
        let result = self
            .end_failed_rehearsal()
            .and_then(|()| self.begin_replay())
            .and_then(|()| self.finish_replay());
        self.end_progress(&result);
        result
    }

    pub(super) fn begin_replay(&self) -> Result<()> {
        let mut ledger = self.alone();
        if ledger.phase == Phase::Replaying {
            // The last attempt was stopped; it begins again from the repaired state.
            return self.restart_replay(&ledger);
        }
        expect(
            &ledger,
            Phase::Repairing,
            "replay",
            "begin with `undo rewind`",
        )?;
        self.service.ready()?;
        let mut cycle = current(&ledger, "replay")?;
        let mut next = ledger.clone();
        next.view = self.view_during(&cycle);
        let name = format!("repaired-{}", cycle.epoch);
        self.begin_progress("take a snapshot of the repaired state", 0);
        self.take(&next, name.clone(), cycle.start, true)?;
        cycle.repaired = Some(name);
        next.began.retain(|(epoch, _)| *epoch != cycle.epoch);
        next.began.push((cycle.epoch, cycle.target));
        self.timeline
            .append_synced(&Head::Replaying { epoch: cycle.epoch }, &Body::default())?;
        next.current = Some(cycle);
        next.phase = Phase::Replaying;
        self.publish(&mut next)?;
        *ledger = next;
        Ok(())
    }

    /// History during a cycle: as it was before the cycle that is undone, or as it is, with what
    /// this cycle changes.
    pub(super) fn view_during(&self, cycle: &Cycle) -> crate::timeline::View {
        let mut view = cycle.view_before.clone();
        if let Some(undone) = cycle.undoes {
            view.remove(&undone);
        }
        view.insert(cycle.epoch);
        view
    }

    pub(super) fn restart_replay(&self, ledger: &Ledger) -> Result<()> {
        let cycle = current(ledger, "replay")?;
        let Some(repaired) = &cycle.repaired else {
            return Err(Error::new(
                "cycle",
                "replay again",
                "the repaired state is not on record",
            )
            .advise("`undo cancel` this cycle and begin another one"));
        };
        self.begin_progress("bring back the repaired state", 0);
        self.paused(Pause::Rewind, || self.storage.restore(repaired))?;
        self.forget_checkpoints(cycle.epoch)?;
        self.service.ready()?;
        self.timeline
            .append_synced(&Head::Replaying { epoch: cycle.epoch }, &Body::default())
    }

    fn forget_checkpoints(&self, epoch: Epoch) -> Result<()> {
        let prefix = checkpoint_prefix(epoch);
        let names: Vec<String> = self
            .catalogue()
            .snapshots
            .iter()
            .filter(|s| s.name.starts_with(&prefix))
            .map(|s| s.name.clone())
            .collect();
        self.forget(&names)
    }

    pub(super) fn finish_replay(&self) -> Result<Summary> {
        let (cycle, view) = {
            let ledger = self.shared();
            (current(&ledger, "replay")?, ledger.view.clone())
        };
        let began = std::time::Instant::now();
        self.relax()?;
        let replay = Replay::new(self, &cycle, view.clone(), Purpose::Integrate);
        let mut from = cycle.start;
        // Those who read go on adding to the end; come close to it, then shut them out.
        loop {
            let to = self.drained_end();
            let order = self.timeline.order(from, to, &view);
            let near = order.len() < 64;
            if near {
                break;
            }
            self.begin_progress("replay", order.len());
            // (A snapshot of a limited cycle is of use to this cycle only.)
            let checkpoints = self.storage.is_constant_time() && cycle.scope.is_none();
            let chunk = match checkpoints {
                true => self.settings.checkpoint_verbs.max(1),
                false => usize::MAX,
            };
            for verbs in order.chunks(chunk.min(order.len())) {
                replay.run(verbs.to_vec())?;
                if verbs.len() == chunk
                    && let Some(&last) = verbs.last()
                {
                    self.checkpoint(&cycle, last)?;
                }
            }
            from = to;
        }
        let mut ledger = self.alone();
        let last = self.timeline.last();
        replay.run(self.timeline.order(
            from,
            Place {
                lsn: last,
                inserted: u64::MAX,
            },
            &view,
        ))?;
        self.timeline.sync_all()?;
        self.paused(Pause::ReplayEnds, || self.storage.sync())?;

        let mut summary = replay.summary();
        summary.seconds = began.elapsed().as_secs_f64();
        let mut next = ledger.clone();
        let ended = Cycle {
            ended_us: Some(when::now_us()),
            summary: summary.clone(),
            ..current(&next, "replay")?
        };
        if let Some(undone) = ended.undoes {
            next.undoable.retain(|c| c.epoch != undone);
        }
        next.undoable.push(ended);
        next.current = None;
        next.phase = Phase::Running;
        self.publish(&mut next)?;
        *ledger = next;
        self.reload_arrivals(&ledger, false);
        Ok(summary)
    }

    /// Tells the service that a replay begins.
    fn relax(&self) -> Result<()> {
        let _nobody_else = self.alone();
        self.paused(Pause::ReplayBegins, || Ok(()))?;
        self.service.ready()
    }

    /// The end of the timeline, with no verb before it still under way.
    fn drained_end(&self) -> Place {
        let _nobody_else = self.alone();
        Place {
            lsn: self.timeline.last(),
            inserted: u64::MAX,
        }
    }

    /// A snapshot on the way, for later rewinds: those of history before this cycle are of another
    /// history now.
    fn checkpoint(&self, cycle: &Cycle, last: Lsn) -> Result<()> {
        let slot = self.timeline.slot(last);
        let inserted =
            slot.is_some_and(|s| matches!(s.fate, crate::timeline::Fate::Inserted { .. }));
        if inserted {
            // The place of an inserted verb is behind another one; the next chunk ends elsewhere.
            return Ok(());
        }
        let ledger = self.alone();
        let name = format!("{}{last}", checkpoint_prefix(cycle.epoch));
        // Verbs inserted behind `last` are still to come.
        self.take(
            &ledger,
            name,
            Place {
                lsn: last,
                inserted: 0,
            },
            false,
        )?;
        Ok(())
    }

    /// Replays to find the paradoxes, and takes everything back.
    pub fn rehearse(&self) -> Result<Summary> {
        let _operating = self.operate()?;
        self.abort.store(false, Ordering::SeqCst);
        let result = self
            .end_failed_rehearsal()
            .and_then(|()| self.rehearse_now());
        self.end_progress(&result);
        result
    }

    fn rehearse_now(&self) -> Result<Summary> {
        let (cycle, view) = {
            let mut ledger = self.alone();
            expect(
                &ledger,
                Phase::Repairing,
                "replay --dry-run",
                "begin with `undo rewind`",
            )?;
            self.service.ready()?;
            let cycle = current(&ledger, "rehearse")?;
            self.begin_progress("take a snapshot to return to", 0);
            self.take(&ledger, rehearsal_name(&cycle), cycle.start, true)?;
            let mut next = ledger.clone();
            next.phase = Phase::Rehearsing;
            self.publish(&mut next)?;
            *ledger = next;
            let view = self.view_during(&cycle);
            (cycle, view)
        };
        let began = std::time::Instant::now();
        if let Err(error) = self.relax() {
            self.end_rehearsal()?;
            return Err(error);
        }
        let end = self.drained_end();
        let order = self.timeline.order(cycle.start, end, &view);
        self.begin_progress("rehearse the replay", order.len());
        let replay = Replay::new(self, &cycle, view, Purpose::Rehearse);
        let result = replay.run(order);
        let mut summary = replay.summary();
        summary.seconds = began.elapsed().as_secs_f64();
        self.end_rehearsal()?;
        result.map(|()| summary)
    }

    /// Takes back a rehearsal that could not be taken back when it ended.
    fn end_failed_rehearsal(&self) -> Result<()> {
        match self.shared().phase {
            Phase::Rehearsing => {}
            _ => return Ok(()),
        }
        self.end_rehearsal()
    }

    pub(super) fn end_rehearsal(&self) -> Result<()> {
        let mut ledger = self.alone();
        let cycle = current(&ledger, "end a rehearsal")?;
        self.begin_progress("bring back the state before the rehearsal", 0);
        self.paused(Pause::Rewind, || {
            self.storage.restore(&rehearsal_name(&cycle))
        })?;
        let mut next = ledger.clone();
        next.phase = Phase::Repairing;
        self.publish(&mut next)?;
        *ledger = next;
        self.forget(&[rehearsal_name(&cycle)])
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

fn checkpoint_prefix(epoch: Epoch) -> String {
    format!("replay-{epoch}-")
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
