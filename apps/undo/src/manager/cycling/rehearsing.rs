//! Rehearsals: a replay whose effects are taken back, to learn of the paradoxes.

use std::sync::atomic::Ordering;

use super::{current, expect, rehearsal_name};
use crate::Result;
use crate::cycle::{Phase, Summary};
use crate::manager::Manager;
use crate::manager::replay::{Purpose, Replay};
use crate::verb::{Pause, Service};

impl<S: Service> Manager<S> {
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
    pub(super) fn end_failed_rehearsal(&self) -> Result<()> {
        match self.shared().phase {
            Phase::Rehearsing => {}
            _ => return Ok(()),
        }
        self.end_rehearsal()
    }

    pub(in crate::manager) fn end_rehearsal(&self) -> Result<()> {
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
}
