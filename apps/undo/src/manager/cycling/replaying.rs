//! The replay of a cycle: begun, begun again after a death, and brought to its end.

use std::sync::atomic::Ordering;

use super::{current, expect};
use crate::cycle::{Cycle, Ledger, Phase, Summary};
use crate::manager::Manager;
use crate::manager::replay::{Purpose, Replay};
use crate::timeline::{Body, Epoch, Fate, Head, Lsn, Place, View};
use crate::verb::{Pause, Service};
use crate::{Error, Result, when};

impl<S: Service> Manager<S> {
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

    pub(in crate::manager) fn begin_replay(&self) -> Result<()> {
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
    pub(in crate::manager) fn view_during(&self, cycle: &Cycle) -> View {
        let mut view = cycle.view_before.clone();
        if let Some(undone) = cycle.undoes {
            view.remove(&undone);
        }
        view.insert(cycle.epoch);
        view
    }

    pub(in crate::manager) fn restart_replay(&self, ledger: &Ledger) -> Result<()> {
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

    pub(super) fn forget_checkpoints(&self, epoch: Epoch) -> Result<()> {
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

    pub(in crate::manager) fn finish_replay(&self) -> Result<Summary> {
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
    pub(super) fn relax(&self) -> Result<()> {
        let _nobody_else = self.alone();
        self.paused(Pause::ReplayBegins, || Ok(()))?;
        self.service.ready()
    }

    /// The end of the timeline, with no verb before it still under way.
    pub(super) fn drained_end(&self) -> Place {
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
        let inserted = slot.is_some_and(|s| matches!(s.fate, Fate::Inserted { .. }));
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
}

fn checkpoint_prefix(epoch: Epoch) -> String {
    format!("replay-{epoch}-")
}
