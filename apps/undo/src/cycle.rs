//! Where the undo cycle stands, in a form that survives a death: `HOME/cycle.json`.
//!
//! ```text
//!            rewind                    replay                     (end of the timeline)
//!  Running ---------> Rewinding --> Repairing --> Replaying ------------------------> Running
//!     ^                   |             |             |                                  |
//!     |    cancel         v             v             v             cancel, commit       |
//!     +------------- Cancelling <-------+-------------+                                  |
//!     +----------------------------------------------------------------------------------+
//! ```
//!
//! A rehearsal (`replay --dry-run`) goes from Repairing to Rehearsing and back. A finished cycle stays on the list of those that can be undone, until it is committed. To undo
//! one is a cycle as well: its rewind goes *forward*, to the snapshot taken before the first one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::timeline::{Epoch, Lsn, Place, View};
use crate::{Context, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Running,
    Rewinding,
    Repairing,
    /// A replay whose effects will be taken back, to learn of the paradoxes.
    Rehearsing,
    Replaying,
    Cancelling,
}

/// One cycle of rewind, repair and replay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cycle {
    pub epoch: Epoch,
    /// History is as it was up to here, inclusive.
    pub target: Lsn,
    /// The same with what was inserted there before: the replay begins behind it.
    pub start: Place,
    /// Why the rewind has stopped before the point that the operator chose.
    #[serde(default)]
    pub note: Option<String>,
    /// The last verb before the cycle began.
    pub head: Lsn,
    pub began_us: u64,
    pub ended_us: Option<u64>,
    /// The snapshot from which the rewind starts.
    pub from: String,
    /// The state before the rewind: the way forward again.
    pub recovery: String,
    /// The state after the repair, from which a replay that was cut short begins again.
    pub repaired: Option<String>,
    /// The view of history that `recovery` belongs to.
    pub view_before: View,
    /// The cycle undoes another one.
    pub undoes: Option<Epoch>,
    /// It is limited to one user or folder, as the service understands this name.
    pub scope: Option<String>,
    /// What the replay has found, for those who ask later.
    #[serde(default)]
    pub summary: Summary,
}

/// What a replay has done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub replayed: u64,
    pub squashed: u64,
    pub seconds: f64,
    pub paradoxes: Vec<Paradox>,
}

/// An inconsistency that a user could see, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paradox {
    pub lsn: Lsn,
    pub user: String,
    pub verb: String,
    pub what: String,
    pub compensation: String,
}

/// All that is known of cycles.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ledger {
    pub phase: Phase,
    pub last_epoch: Epoch,
    pub view: View,
    pub current: Option<Cycle>,
    /// Finished cycles that can be undone, oldest first.
    pub undoable: Vec<Cycle>,
    /// At which LSN each epoch begins to differ from history before it.
    pub began: Vec<(Epoch, Lsn)>,
    #[serde(skip)]
    file: PathBuf,
}

impl Ledger {
    pub fn open(file: &Path) -> Result<Ledger> {
        let found: Option<Ledger> = crate::settled::read(file)?;
        let mut ledger = found.unwrap_or(Ledger {
            phase: Phase::Running,
            last_epoch: 0,
            view: View::new(),
            current: None,
            undoable: Vec::new(),
            began: Vec::new(),
            file: PathBuf::new(),
        });
        ledger.file = file.to_owned();
        Ok(ledger)
    }

    pub fn save(&self) -> Result<()> {
        crate::settled::write(&self.file, self).context("cycle", "save where it stands")
    }

    /// At which LSN an epoch begins to differ.
    pub fn began(&self, epoch: Epoch) -> Lsn {
        self.began
            .iter()
            .find(|(e, _)| *e == epoch)
            .map_or(0, |(_, lsn)| *lsn)
    }
}
