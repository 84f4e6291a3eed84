//! The timeline: the log of all verbs, in the order of their execution.
//!
//! It is append-only. What a cycle changes in history is appended too, under the number of the
//! cycle (its *epoch*), so that history as it was is never lost, and an undo can be undone: which
//! epochs count is a set of numbers, the *view*. A verb has a number, its *LSN*. Those that are
//! accepted before they are executed (asynchronous ones) have an *arrival* number before; each
//! attempt at an execution is an LSN of its own.
//!
//! `frame` has the bytes of a record, `segment` the files, `index` what is kept in memory.

mod frame;
mod index;
mod segment;

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

pub use frame::Body;
use index::Index;
pub use index::{Arrival, ArrivalState, Edit, Fate, Place, Slot, View};
use segment::Segments;

use crate::verb::Status;
use crate::{Context, Result};

/// The number of a verb in the timeline, from 1. The manager's measure of time.
pub type Lsn = u64;
/// The number of an undo cycle, from 1.
pub type Epoch = u32;

/// The head of a record: what happened. The body has the verb and the tag where there are any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Head {
    /// An asynchronous verb was taken over from its user. Body: verb.
    Accepted { arrival: u64, time_us: u64 },
    /// A synchronous verb is about to be executed. Body: verb.
    Began { lsn: Lsn, time_us: u64 },
    /// The verb that began has come to this. Body: tag.
    Ended { lsn: Lsn },
    /// An attempt to execute an arrival. Body: tag.
    Attempted {
        lsn: Lsn,
        arrival: u64,
        time_us: u64,
        status: Status,
    },
    /// A verb that changes nothing, and what it showed. Body: verb and tag.
    Showed { lsn: Lsn, time_us: u64 },
    /// The LSN was given out, but nothing happened under it.
    Voided { lsn: Lsn },
    /// The failure of an arrival is about to be told to its user: it will not be tried again.
    Reporting { arrival: u64 },
    /// It has been told.
    Reported { arrival: u64 },
    /// A cycle began. Its revisions before this record do not count.
    Replaying { epoch: Epoch },
    /// An operator took the verb out of history.
    Dropped { epoch: Epoch, lsn: Lsn },
    /// An operator put another verb in its place. Body: verb.
    Changed { epoch: Epoch, lsn: Lsn },
    /// An operator put a new verb behind `after`. Body: verb.
    Inserted {
        epoch: Epoch,
        lsn: Lsn,
        after: Lsn,
        time_us: u64,
    },
    /// An edit was taken back.
    Unedited { epoch: Epoch, lsn: Lsn },
    /// A replay had another outcome than is recorded. Body: tag.
    Revised {
        epoch: Epoch,
        lsn: Lsn,
        status: Status,
    },
    /// A replay executed another verb in the place of this one, or none. Body: verb.
    Squashed {
        epoch: Epoch,
        lsn: Lsn,
        cancelled: bool,
    },
}

pub struct Timeline {
    segments: Segments,
    index: Mutex<Index>,
}

/// A verb of the timeline with its outcome, under some view.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub lsn: Lsn,
    pub time_us: u64,
    pub arrival: Option<u64>,
    pub verb: Vec<u8>,
    /// `None`: no execution of this verb is on record (it was inserted or changed).
    pub outcome: Option<(Status, Vec<u8>)>,
}

impl Timeline {
    /// Opens the timeline in a folder, or begins one there.
    pub fn open(folder: &Path) -> Result<Timeline> {
        let mut index = Index::default();
        let segments = Segments::open(folder, |at, frame| {
            let head: Head =
                postcard::from_bytes(frame.head).context(folder.display(), "read a record")?;
            index.note(&head, at);
            Ok(())
        })?;
        Ok(Timeline {
            segments,
            index: Mutex::new(index),
        })
    }

    /// Takes the next LSN, and says so to nobody yet.
    pub fn number(&self) -> Lsn {
        let mut index = self.index();
        index.last += 1;
        index.last
    }

    /// Takes the next number of an arrival.
    pub fn number_arrival(&self) -> u64 {
        let mut index = self.index();
        index.last_arrival += 1;
        index.last_arrival
    }

    /// The last LSN that was given out.
    pub fn last(&self) -> Lsn {
        self.index().last
    }

    /// Appends a record. Returns what [`Timeline::sync`] must be told to have it on disk.
    pub fn append(&self, head: &Head, body: &Body) -> Result<u64> {
        let encoded = postcard::to_stdvec(head).context("timeline", "encode a record")?;
        let bytes = frame::encode(&encoded, body);
        let (at, until) = self.segments.append(&bytes)?;
        self.index().note(head, at);
        Ok(until)
    }

    /// Appends a record and returns when it is on stable storage.
    pub fn append_synced(&self, head: &Head, body: &Body) -> Result<()> {
        let until = self.append(head, body)?;
        self.sync(until)
    }

    pub fn sync(&self, until: u64) -> Result<()> {
        self.segments.sync(until)
    }

    pub fn sync_all(&self) -> Result<()> {
        self.sync(self.segments.written())
    }

    /// The size of the log in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.segments.written()
    }

    /// The verbs behind `from`, up to `to` inclusive, in the order of history as `view` has it.
    pub fn order(&self, from: Place, to: Place, view: &View) -> Vec<Lsn> {
        self.index().order(from, to, view)
    }

    /// The verb under an LSN as `view` has it; `None` if there is none.
    pub fn read(&self, lsn: Lsn, view: &View) -> Result<Option<Recorded>> {
        let Some(found) = self.index().find(lsn, view) else {
            return Ok(None);
        };
        let body = self.segments.read(found.verb)?;
        let outcome = match found.outcome {
            Some((status, at)) if at == found.verb => Some((status, body.tag)),
            Some((status, at)) => Some((status, self.segments.read(at)?.tag)),
            None => None,
        };
        let verb = body.verb;
        Ok(Some(Recorded {
            lsn,
            time_us: found.time_us,
            arrival: found.arrival,
            verb,
            outcome,
        }))
    }

    /// The verb of an arrival and the time of its acceptance.
    pub fn read_arrival(&self, arrival: u64) -> Result<Option<(u64, Vec<u8>)>> {
        let Some((time_us, at)) = self
            .index()
            .arrivals
            .get(&arrival)
            .map(|a| (a.time_us, a.verb))
        else {
            return Ok(None);
        };
        Ok(Some((time_us, self.segments.read(at)?.verb)))
    }

    /// The last LSN that began no later than `time_us`; 0 if there is none.
    pub fn lsn_at(&self, time_us: u64) -> Lsn {
        self.index().lsn_at(time_us)
    }

    /// The times of all verbs, in microseconds since 1970.
    pub fn times(&self) -> Vec<u64> {
        let index = self.index();
        index
            .slots
            .values()
            .filter(|s| s.fate != Fate::Void)
            .map(|s| s.time_us)
            .collect()
    }

    /// What is known of one LSN without its bytes.
    pub fn slot(&self, lsn: Lsn) -> Option<Slot> {
        self.index().slots.get(&lsn).cloned()
    }

    /// The edits that an epoch has made so far.
    pub fn edits(&self, epoch: Epoch) -> Vec<(Lsn, Edit)> {
        self.index().edits(epoch)
    }

    /// The arrivals that are neither done nor reported: those that were never attempted, and
    /// those whose attempts have failed so far.
    pub fn open_arrivals(&self, view: &View) -> Vec<(u64, Arrival)> {
        self.index().open_arrivals(view)
    }

    pub fn arrival(&self, arrival: u64, view: &View) -> Option<ArrivalState> {
        self.index().arrival_state(arrival, view)
    }

    /// Synchronous verbs that began and of which no end is on record.
    pub fn unfinished(&self) -> Vec<Lsn> {
        self.index().unfinished()
    }

    /// The LSNs from 1 to the last that have no record at all. There are none in a whole timeline.
    pub fn gaps(&self) -> Vec<Lsn> {
        let index = self.index();
        (1..=index.last)
            .filter(|lsn| !index.slots.contains_key(lsn))
            .collect()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Timeline {
    /// The first attempt at an arrival.
    pub fn first_attempt(&self, arrival: u64) -> Option<Lsn> {
        self.index()
            .arrivals
            .get(&arrival)
            .and_then(|a| a.attempts.first().copied())
    }

    /// The outcome of an LSN as it was at its first execution, whatever replays have said since.
    pub fn recorded_outcome(&self, lsn: Lsn) -> Result<Option<(Status, Vec<u8>)>> {
        let (status, at) = match self.index().slots.get(&lsn).map(|slot| slot.fate.clone()) {
            Some(Fate::Done(at)) => (Status::Done, at),
            Some(Fate::Failed(why, at)) => (Status::Failed(why), at),
            _ => return Ok(None),
        };
        Ok(Some((status, self.segments.read(at)?.tag)))
    }

    /// The verb of an execution that was cut short, and when it was asked for.
    pub fn read_unfinished(&self, lsn: Lsn) -> Result<Option<(u64, Vec<u8>)>> {
        let Some((time_us, Some(at))) = self
            .index()
            .slots
            .get(&lsn)
            .map(|s| (s.time_us, s.verb_at()))
        else {
            return Ok(None);
        };
        Ok(Some((time_us, self.segments.read(at)?.verb)))
    }
}
