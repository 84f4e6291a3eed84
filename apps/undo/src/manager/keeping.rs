//! Snapshots while the service runs: when, and how long they are kept.

use super::Manager;
use crate::cycle::{Ledger, Phase};
use crate::snapshots::{Snapshot, aged};
use crate::timeline::Place;
use crate::verb::{Pause, Service};
use crate::{Error, Result, when};

impl<S: Service> Manager<S> {
    /// Takes a snapshot now. Users wait for as long as it takes.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let _operating = self.operate()?;
        let ledger = self.alone();
        if ledger.phase != Phase::Running {
            return Err(Error::new("snapshot", "take", "an undo cycle is under way")
                .advise("end it first: `undo replay` or `undo cancel`"));
        }
        let lsn = self.timeline.last();
        let place = Place { lsn, inserted: lsn };
        let snapshot = self.take(
            &ledger,
            format!("at-{lsn}-{}", when::now_us()),
            place,
            false,
        )?;
        drop(ledger);
        self.age()?;
        Ok(snapshot)
    }

    /// Takes a snapshot of the live state, with the gate held alone or nobody else at work.
    pub(super) fn take(
        &self,
        ledger: &Ledger,
        name: String,
        place: Place,
        held: bool,
    ) -> Result<Snapshot> {
        self.timeline.sync_all()?;
        let pause = Pause::Snapshot {
            files_closed: self.storage.wants_files_closed(),
        };
        self.paused(pause, || self.storage.snapshot(&name))?;
        let snapshot = Snapshot {
            name,
            time_us: when::now_us(),
            place,
            view: ledger.view.clone(),
            held,
            partial: ledger.current.as_ref().is_some_and(|c| c.scope.is_some()),
        };
        let mut catalogue = self.catalogue();
        catalogue.snapshots.retain(|s| s.name != snapshot.name);
        catalogue.snapshots.push(snapshot.clone());
        catalogue.save()?;
        Ok(snapshot)
    }

    /// Does something with the service held still, and lets it go on whatever came of it.
    pub(super) fn paused<T>(&self, pause: Pause, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = self.service.quiesce(pause).and_then(|()| work());
        let resumed = self.service.resume(pause);
        let value = result?;
        resumed?;
        Ok(value)
    }

    pub fn snapshots(&self) -> Vec<Snapshot> {
        let mut snapshots = self.catalogue().snapshots.clone();
        snapshots.sort_by_key(|s| s.time_us);
        snapshots
    }

    /// Forgets the snapshots that no granularity needs any more.
    pub(super) fn age(&self) -> Result<()> {
        let names = aged(&self.catalogue().snapshots, &self.settings.granularities);
        self.forget(&names)
    }

    /// The catalogue first: what it does not name is removed at the next start at the latest.
    pub(super) fn forget(&self, names: &[String]) -> Result<()> {
        {
            let mut catalogue = self.catalogue();
            catalogue.snapshots.retain(|s| !names.contains(&s.name));
            catalogue.save()?;
        }
        names.iter().try_for_each(|name| self.storage.remove(name))
    }

    /// Takes a snapshot if the finest granularity wants one and anything happened since the last.
    pub(super) fn snapshot_if_due(&self) -> Result<()> {
        let Some(every) = self.settings.granularities.iter().map(|g| g.every()).min() else {
            return Ok(());
        };
        let newest = self
            .catalogue()
            .snapshots
            .iter()
            .map(|s| (s.time_us, s.place.lsn))
            .max();
        let due = match newest {
            Some((time_us, lsn)) => {
                when::now_us() >= time_us + every.as_micros() as u64 && self.timeline.last() > lsn
            }
            None => true,
        };
        if due && self.queue.shown().0 == Phase::Running && self.operating.try_lock().is_ok() {
            self.snapshot()?;
        }
        Ok(())
    }
}
