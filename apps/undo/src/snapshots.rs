//! Which snapshots there are, of which point of history, and which are to be forgotten.
//!
//! Snapshots are taken at several granularities (every ten minutes, every hour ..); each keeps its
//! own number of them. So the recent past is covered closely and the distant past sparsely, as in
//! the paper (section 4.3). A rewind to any point goes to the nearest usable snapshot before it
//! and replays from there, so forgetting one costs time, not correctness. The first snapshot of
//! all is never forgotten: without it there would be points that nothing leads to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::timeline::{Lsn, Place, View};
use crate::{Context, Result};

/// A snapshot and the point of history that it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub name: String,
    pub time_us: u64,
    pub place: Place,
    /// The epochs whose revisions and repairs are in it.
    pub view: View,
    /// A cycle needs it to be undone: ageing leaves it alone.
    pub held: bool,
    /// Taken in a cycle that is limited to a part of the service: all the rest is not of that point of
    /// history, but of the present, so no rewind begins here.
    #[serde(default)]
    pub partial: bool,
}

/// One granularity: keep the newest snapshot of each of the last `keep` periods of `every_s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granularity {
    pub every_s: u64,
    pub keep: usize,
}

impl Granularity {
    pub fn every(&self) -> Duration {
        Duration::from_secs(self.every_s)
    }
}

/// Ten minutes for three hours, hours for a day, days for a week, weeks for a month.
pub fn default_granularities() -> Vec<Granularity> {
    [(600, 18), (3600, 24), (86_400, 7), (604_800, 5)]
        .map(|(every_s, keep)| Granularity { every_s, keep })
        .to_vec()
}

/// Returns the names of those that no granularity needs any more.
///
/// The oldest stays, what is held stays, and for each granularity the newest of each of its last
/// `keep` periods that have one.
pub fn aged(snapshots: &[Snapshot], granularities: &[Granularity]) -> Vec<String> {
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    let mut newest_first: Vec<&Snapshot> = snapshots.iter().filter(|s| !s.partial).collect();
    newest_first.sort_by_key(|s| std::cmp::Reverse((s.time_us, s.place)));
    kept.extend(newest_first.last().map(|s| s.name.as_str()));
    kept.extend(newest_first.first().map(|s| s.name.as_str()));
    kept.extend(snapshots.iter().filter(|s| s.held).map(|s| s.name.as_str()));
    for granularity in granularities {
        let mut periods = BTreeSet::new();
        for snapshot in &newest_first {
            let period = snapshot.time_us / (granularity.every_s.max(1) * 1_000_000);
            if periods.len() == granularity.keep && !periods.contains(&period) {
                break;
            }
            if periods.insert(period) {
                kept.insert(&snapshot.name);
            }
        }
    }
    snapshots
        .iter()
        .filter(|s| !kept.contains(s.name.as_str()))
        .map(|s| s.name.clone())
        .collect()
}

/// The list of snapshots, kept in `HOME/snapshots.json`.
pub struct Catalogue {
    file: PathBuf,
    pub snapshots: Vec<Snapshot>,
}

impl Catalogue {
    pub fn open(file: &Path) -> Result<Catalogue> {
        let snapshots = crate::settled::read(file)?.unwrap_or_default();
        Ok(Catalogue {
            file: file.to_owned(),
            snapshots,
        })
    }

    pub fn save(&self) -> Result<()> {
        crate::settled::write(&self.file, &self.snapshots)
            .context(self.file.display(), "save the list of snapshots")
    }

    /// The newest point that a snapshot shows, no later than `target`, and of the same history as
    /// `view` has it up to there. `began` tells at which LSN an epoch begins to differ.
    pub fn nearest(
        &self,
        target: Lsn,
        view: &View,
        began: impl Fn(crate::timeline::Epoch) -> Lsn,
    ) -> Option<&Snapshot> {
        let same_history = |snapshot: &Snapshot| {
            let differ: Vec<_> = snapshot.view.symmetric_difference(view).collect();
            differ.into_iter().all(|&epoch| {
                snapshot.place.lsn < began(epoch)
                    || (snapshot.place.lsn == began(epoch) && !snapshot.view.contains(&epoch))
            })
        };
        self.snapshots
            .iter()
            .filter(|s| !s.partial && s.place.lsn <= target && same_history(s))
            .max_by_key(|s| (s.place, s.view.len(), s.time_us))
    }
}
