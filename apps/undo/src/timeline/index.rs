//! What is kept of the timeline in memory: where each verb is, and what became of it.

use std::collections::{BTreeMap, BTreeSet};

use super::segment::Location;
use super::{Epoch, Head, Lsn};
use crate::verb::Status;

/// The epochs whose revisions of history count.
pub type View = BTreeSet<Epoch>;

/// A point of history: behind the verb `lsn`, and behind those inserted there whose own LSN is
/// not above `inserted`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Place {
    pub lsn: Lsn,
    pub inserted: Lsn,
}

/// What became of an LSN when it was first executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is being executed, or its execution was cut short.
    Unfinished,
    Done(Location),
    /// It failed; only attempts at arrivals are on record as failures.
    Failed(String, Location),
    /// Nothing happened under this LSN.
    Void,
    /// An operator has inserted it.
    Inserted {
        epoch: Epoch,
        after: Lsn,
    },
}

#[derive(Debug, Clone)]
pub struct Slot {
    pub time_us: u64,
    pub arrival: Option<u64>,
    pub fate: Fate,
    verb: Option<Location>,
}

impl Slot {
    pub(super) fn verb_at(&self) -> Option<Location> {
        self.verb
    }
}

/// An operator's change to one verb of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    Dropped,
    Changed(Location),
    Inserted { after: Lsn },
}

#[derive(Debug, Clone)]
struct Revision {
    epoch: Epoch,
    what: Revised,
}

#[derive(Debug, Clone)]
enum Revised {
    Dropped,
    Changed(Location),
    Outcome(Status, Location),
    /// A replay executed another verb in its place, or (`None`) none.
    Squashed(Option<Location>),
}

impl Revised {
    /// It comes from an operator, not from a replay.
    fn is_edit(&self) -> bool {
        matches!(self, Revised::Dropped | Revised::Changed(_))
    }
}

/// An asynchronous verb, from its acceptance on.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub time_us: u64,
    pub(super) verb: Location,
    /// The attempts at it, oldest first.
    pub attempts: Vec<Lsn>,
    pub reporting: bool,
    pub reported: bool,
}

/// What has become of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrivalState {
    Waiting,
    Done,
    /// All attempts have failed so far.
    Failed,
    /// The failure is being told, or was told, to the user.
    Reported,
}

#[derive(Default)]
pub(super) struct Index {
    pub slots: BTreeMap<Lsn, Slot>,
    pub arrivals: BTreeMap<u64, Arrival>,
    pub last: Lsn,
    pub last_arrival: u64,
    revisions: BTreeMap<Lsn, Vec<Revision>>,
    /// Inserted verbs, by the LSN behind which they stand.
    inserted: BTreeMap<Lsn, Vec<Lsn>>,
}

/// Where a verb and its outcome are to be read.
pub(super) struct Found {
    pub time_us: u64,
    pub arrival: Option<u64>,
    pub verb: Location,
    pub outcome: Option<(Status, Location)>,
}

impl Index {
    /// Takes a record into account: the same for one just written and one found at opening.
    pub fn note(&mut self, head: &Head, at: Location) {
        match head.clone() {
            Head::Accepted { arrival, time_us } => {
                self.last_arrival = self.last_arrival.max(arrival);
                self.arrivals.insert(
                    arrival,
                    Arrival {
                        time_us,
                        verb: at,
                        attempts: Vec::new(),
                        reporting: false,
                        reported: false,
                    },
                );
            }
            Head::Began { lsn, time_us } => {
                self.slot(lsn, time_us, None, Some(at), Fate::Unfinished)
            }
            Head::Ended { lsn } => self.fate(lsn, Fate::Done(at)),
            Head::Attempted {
                lsn,
                arrival,
                time_us,
                status,
            } => {
                let fate = match status {
                    Status::Done => Fate::Done(at),
                    Status::Failed(why) => Fate::Failed(why, at),
                };
                let verb = self.arrivals.get_mut(&arrival).map(|known| {
                    known.attempts.push(lsn);
                    known.verb
                });
                self.slot(lsn, time_us, Some(arrival), verb, fate);
            }
            Head::Showed { lsn, time_us } => {
                self.slot(lsn, time_us, None, Some(at), Fate::Done(at))
            }
            Head::Voided { lsn } => {
                if self.slots.contains_key(&lsn) {
                    self.fate(lsn, Fate::Void);
                } else {
                    self.slot(lsn, 0, None, None, Fate::Void);
                }
            }
            Head::Reporting { arrival } => {
                if let Some(known) = self.arrivals.get_mut(&arrival) {
                    known.reporting = true;
                }
            }
            Head::Reported { arrival } => {
                if let Some(known) = self.arrivals.get_mut(&arrival) {
                    known.reported = true;
                }
            }
            Head::Replaying { epoch } => {
                for revisions in self.revisions.values_mut() {
                    revisions.retain(|r| r.epoch != epoch || r.what.is_edit());
                }
            }
            Head::Dropped { epoch, lsn } => self.edit(epoch, lsn, Revised::Dropped),
            Head::Changed { epoch, lsn } => self.edit(epoch, lsn, Revised::Changed(at)),
            Head::Inserted {
                epoch,
                lsn,
                after,
                time_us,
            } => {
                self.slot(
                    lsn,
                    time_us,
                    None,
                    Some(at),
                    Fate::Inserted { epoch, after },
                );
                self.inserted.entry(after).or_default().push(lsn);
            }
            Head::Unedited { epoch, lsn } => self.unedit(epoch, lsn),
            Head::Revised { epoch, lsn, status } => {
                self.revise(epoch, lsn, Revised::Outcome(status, at))
            }
            Head::Squashed {
                epoch,
                lsn,
                cancelled,
            } => self.revise(epoch, lsn, Revised::Squashed((!cancelled).then_some(at))),
        }
    }

    fn slot(
        &mut self,
        lsn: Lsn,
        time_us: u64,
        arrival: Option<u64>,
        verb: Option<Location>,
        fate: Fate,
    ) {
        self.last = self.last.max(lsn);
        self.slots.insert(
            lsn,
            Slot {
                time_us,
                arrival,
                fate,
                verb,
            },
        );
    }

    fn fate(&mut self, lsn: Lsn, fate: Fate) {
        if let Some(slot) = self.slots.get_mut(&lsn) {
            slot.fate = fate;
        }
    }

    fn edit(&mut self, epoch: Epoch, lsn: Lsn, what: Revised) {
        self.unedit(epoch, lsn);
        self.revise(epoch, lsn, what);
    }

    fn revise(&mut self, epoch: Epoch, lsn: Lsn, what: Revised) {
        self.revisions
            .entry(lsn)
            .or_default()
            .push(Revision { epoch, what });
    }

    fn unedit(&mut self, epoch: Epoch, lsn: Lsn) {
        if let Some(revisions) = self.revisions.get_mut(&lsn) {
            revisions.retain(|r| r.epoch != epoch || !r.what.is_edit());
        }
        if let Some(slot) = self.slots.get_mut(&lsn)
            && let Fate::Inserted { epoch: of, after } = slot.fate
            && of == epoch
        {
            slot.fate = Fate::Void;
            self.inserted
                .entry(after)
                .or_default()
                .retain(|&l| l != lsn);
        }
    }

    pub fn order(&self, from: Place, to: Place, view: &View) -> Vec<Lsn> {
        let within = |place: Place| from < place && place <= to;
        let mut places: Vec<(Place, Lsn)> = self
            .slots
            .range(from.lsn..=to.lsn)
            .filter(|(_, slot)| !matches!(slot.fate, Fate::Inserted { .. }))
            .map(|(&lsn, _)| (Place { lsn, inserted: 0 }, lsn))
            .collect();
        for (&lsn, verbs) in self.inserted.range(from.lsn..=to.lsn) {
            places.extend(
                verbs
                    .iter()
                    .map(|&inserted| (Place { lsn, inserted }, inserted)),
            );
        }
        places.sort_unstable();
        places
            .into_iter()
            .filter(|&(place, lsn)| within(place) && self.find(lsn, view).is_some())
            .map(|(_, lsn)| lsn)
            .collect()
    }

    pub fn find(&self, lsn: Lsn, view: &View) -> Option<Found> {
        let slot = self.slots.get(&lsn)?;
        let mut found = Found {
            time_us: slot.time_us,
            arrival: slot.arrival,
            verb: slot.verb?,
            outcome: None,
        };
        match &slot.fate {
            Fate::Unfinished | Fate::Void => return None,
            Fate::Inserted { epoch, .. } if !view.contains(epoch) => return None,
            Fate::Inserted { .. } => {}
            Fate::Done(at) => found.outcome = Some((Status::Done, *at)),
            Fate::Failed(why, at) => found.outcome = Some((Status::Failed(why.clone()), *at)),
        }
        for revision in self.revisions.get(&lsn).into_iter().flatten() {
            if !view.contains(&revision.epoch) {
                continue;
            }
            match &revision.what {
                Revised::Dropped | Revised::Squashed(None) => return None,
                Revised::Changed(at) | Revised::Squashed(Some(at)) => {
                    found.verb = *at;
                    found.outcome = None;
                }
                Revised::Outcome(status, at) => {
                    found.outcome = Some((status.clone(), *at));
                }
            }
        }
        if self.superseded(lsn, slot, &found, view) {
            None
        } else {
            Some(found)
        }
    }

    /// A failed attempt does not count once a later one has succeeded, or once its failure was
    /// told: in both cases a replay must not execute it.
    fn superseded(&self, lsn: Lsn, slot: &Slot, found: &Found, view: &View) -> bool {
        let failed = matches!(found.outcome, Some((Status::Failed(_), _)));
        let Some(arrival) = slot.arrival.and_then(|a| self.arrivals.get(&a)) else {
            return false;
        };
        if !failed {
            return false;
        }
        arrival.reporting
            || arrival
                .attempts
                .iter()
                .any(|&other| other > lsn && self.is_done(other, view))
    }

    /// Whether an attempt counts as done, by its own record or the latest revision in the view.
    fn is_done(&self, lsn: Lsn, view: &View) -> bool {
        let mut done = matches!(self.slots.get(&lsn).map(|s| &s.fate), Some(Fate::Done(_)));
        for revision in self.revisions.get(&lsn).into_iter().flatten() {
            if view.contains(&revision.epoch) {
                match &revision.what {
                    // Whoever drops a delivery does not want to see it tried again.
                    Revised::Dropped | Revised::Squashed(None) => done = true,
                    Revised::Changed(_) | Revised::Squashed(Some(_)) => {}
                    Revised::Outcome(status, _) => done = *status == Status::Done,
                }
            }
        }
        done
    }

    pub fn arrival_state(&self, arrival: u64, view: &View) -> Option<ArrivalState> {
        let known = self.arrivals.get(&arrival)?;
        Some(
            if known.attempts.iter().any(|&lsn| self.is_done(lsn, view)) {
                ArrivalState::Done
            } else if known.reporting {
                ArrivalState::Reported
            } else if known.attempts.is_empty() {
                ArrivalState::Waiting
            } else {
                ArrivalState::Failed
            },
        )
    }

    pub fn open_arrivals(&self, view: &View) -> Vec<(u64, Arrival)> {
        self.arrivals
            .iter()
            .filter(|(number, known)| match self.arrival_state(**number, view) {
                Some(ArrivalState::Waiting | ArrivalState::Failed) => true,
                Some(ArrivalState::Reported) => !known.reported,
                _ => false,
            })
            .map(|(&number, known)| (number, known.clone()))
            .collect()
    }

    pub fn unfinished(&self) -> Vec<Lsn> {
        let unfinished = |slot: &Slot| slot.fate == Fate::Unfinished;
        self.slots
            .iter()
            .filter(|(_, s)| unfinished(s))
            .map(|(&lsn, _)| lsn)
            .collect()
    }

    pub fn lsn_at(&self, time_us: u64) -> Lsn {
        // Times rise with LSNs but for verbs that waited; the last one that fits is meant.
        self.slots
            .iter()
            .rev()
            .find(|(_, slot)| {
                slot.time_us != 0
                    && slot.time_us <= time_us
                    && !matches!(slot.fate, Fate::Inserted { .. })
            })
            .map_or(0, |(&lsn, _)| lsn)
    }

    pub fn edits(&self, epoch: Epoch) -> Vec<(Lsn, Edit)> {
        let mut edits = Vec::new();
        for (&lsn, revisions) in &self.revisions {
            for revision in revisions.iter().filter(|r| r.epoch == epoch) {
                match &revision.what {
                    Revised::Dropped => edits.push((lsn, Edit::Dropped)),
                    Revised::Changed(at) => edits.push((lsn, Edit::Changed(*at))),
                    Revised::Outcome(..) | Revised::Squashed(_) => {}
                }
            }
        }
        for (&after, verbs) in &self.inserted {
            for &lsn in verbs {
                if self
                    .slots
                    .get(&lsn)
                    .is_some_and(|s| s.fate == Fate::Inserted { epoch, after })
                {
                    edits.push((lsn, Edit::Inserted { after }));
                }
            }
        }
        edits.sort_by_key(|(lsn, _)| *lsn);
        edits
    }
}
