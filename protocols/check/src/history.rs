//! Follows what every process depends on, event by event.
//!
//! Beside a process's vector clock stands, for each component, the earliest non-deterministic event
//! in that prefix of the other process's history which no commit in the same prefix covers. It
//! travels with the clock: a send carries both, a receive takes over the components that are news.
//! So whether theorem 2 holds of an event is answered by looking at one vector, and the histories
//! themselves need not be kept. A commit that its maker never told anybody of does not help those
//! who depend on him, which is the theorem's second requirement, and comes for nothing here.

use crate::record::{Place, Record};
use crate::violation::Event;
use std::collections::{HashMap, VecDeque};

/// A non-deterministic event that is not committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open {
    pub sequence: u64,
    pub place: Place,
    /// A recovery has undone it since.
    pub aborted: bool,
}

/// What a process knows at one of its events.
#[derive(Clone, Default, Debug)]
struct Knowledge {
    sequence: u64,
    clock: Vec<u64>,
    open: Vec<Option<Open>>,
}

#[derive(Debug)]
struct Process {
    id: u32,
    place: Place,
    now: Knowledge,
    /// The earliest of its own log records that only a flush will save.
    queued: Option<Open>,
    committed: Knowledge,
    /// Its latest votes, the last one first, by round. A member that is slow to commit a round may
    /// hear of others that have voted for the next one, but not for the one after.
    prepared: [Option<(u64, Knowledge)>; 2],
    stopped: Option<Place>,
    /// Its events that recoveries have undone: first and last, ascending; the latest of them. What
    /// others know is marked at once, so this is for messages that are still under way.
    aborted: VecDeque<(u64, u64)>,
    sends: VecDeque<Knowledge>,
    forgot_sends: bool,
}

/// How a receive relates to its send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// The send is known; `settled` if it depends on nothing uncommitted.
    Known {
        settled: bool,
    },
    /// It lies too far back to be remembered.
    Forgotten,
    NotSent,
}

/// All processes of a computation.
#[derive(Debug, Default)]
pub struct History {
    places: HashMap<u32, usize>,
    processes: Vec<Process>,
    latest: usize,
}

/// Sends remembered, of all processes together, in components of clocks.
const REMEMBERED_COMPONENTS: usize = 1 << 20;

/// Recoveries remembered of each process.
const REMEMBERED_RECOVERIES: usize = 1 << 12;

impl History {
    /// The number under which this process is kept, handed out at its first event.
    pub fn process(&mut self, id: u32) -> usize {
        if self.processes.get(self.latest).is_some_and(|p| p.id == id) {
            return self.latest;
        }
        let fresh = self.processes.len();
        self.latest = *self.places.entry(id).or_insert(fresh);
        if self.latest == fresh {
            self.processes.push(Process::new(id, fresh));
            for process in &mut self.processes {
                process.now.make_room(fresh + 1);
            }
        }
        self.latest
    }

    pub fn count(&self) -> usize {
        self.processes.len()
    }

    pub fn id(&self, p: usize) -> u32 {
        self.processes[p].id
    }

    /// The last event of a process: its number and place.
    pub fn last(&self, p: usize) -> (u64, Place) {
        (self.processes[p].now.sequence, self.processes[p].place)
    }

    pub fn stopped(&self, p: usize) -> Option<Place> {
        self.processes[p].stopped
    }

    pub fn committed(&self, p: usize) -> u64 {
        self.processes[p].committed.sequence
    }

    /// An event of process `p` begins.
    pub fn begin(&mut self, p: usize, record: &Record) {
        let process = &mut self.processes[p];
        process.place = record.place;
        process.now.sequence = record.sequence;
        process.now.clock[p] = record.sequence;
    }

    /// Where the line's clock and the messages received disagree: process, says, knows.
    pub fn clock_differs(&self, p: usize, record: &Record) -> Option<(u32, u64, u64)> {
        let now = &self.processes[p].now;
        let mut nonzero = 0;
        for (id, says) in &record.clock {
            let knows = match self.places.get(id) {
                _ if *id == record.process => now.clock[p],
                Some(q) => now.clock[*q],
                None => 0,
            };
            if *says != knows {
                return Some((*id, *says, knows));
            }
            nonzero += (knows != 0) as usize;
        }
        let known = now.clock.iter().filter(|c| **c != 0).count();
        if known == nonzero {
            return None;
        }
        let unsaid =
            |q: &usize| now.clock[*q] != 0 && record.clock.iter().all(|(id, _)| *id != self.id(*q));
        (0..now.clock.len())
            .find(unsaid)
            .map(|q| (self.id(q), 0, now.clock[q]))
    }

    /// The non-deterministic events that process `p` depends on and that are not committed, its own
    /// excepted.
    pub fn foreign(&self, p: usize) -> impl Iterator<Item = (Event, bool)> {
        let open = self.processes[p].now.open.iter().enumerate();
        open.filter(move |(q, _)| *q != p)
            .filter_map(|(q, open)| open.map(|o| self.event(q, o)))
    }

    /// The one that stands first in the trace, its own not excepted: the root of the matter.
    pub fn earliest(&self, p: usize) -> Option<(Event, bool)> {
        let own = self.processes[p].open(p).map(|open| self.event(p, open));
        own.into_iter()
            .chain(self.foreign(p))
            .min_by_key(|(event, _)| event.place)
    }

    /// Names the event, and says whether a recovery has undone it.
    fn event(&self, q: usize, open: Open) -> (Event, bool) {
        let process = self.id(q);
        let event = Event {
            process,
            sequence: open.sequence,
            place: open.place,
        };
        (event, open.aborted)
    }

    /// Process `p` has met a result that nothing preserves yet; `queued` if the next flush will.
    pub fn non_deterministic(&mut self, p: usize, queued: bool) {
        let process = &mut self.processes[p];
        let open = Open {
            sequence: process.now.sequence,
            place: process.place,
            aborted: false,
        };
        let slot = if queued {
            &mut process.queued
        } else {
            &mut process.now.open[p]
        };
        slot.get_or_insert(open);
    }

    pub fn flush(&mut self, p: usize) {
        self.processes[p].queued = None;
    }

    pub fn send(&mut self, p: usize) {
        let most = (REMEMBERED_COMPONENTS / self.count() / self.count()).max(16);
        let process = &mut self.processes[p];
        let reused = if process.sends.len() >= most {
            process.forgot_sends = true;
            process.sends.pop_front()
        } else {
            None
        };
        let mut sent = reused.unwrap_or_default();
        sent.clone_from(&process.now);
        sent.open[p] = process.open(p);
        process.sends.push_back(sent);
    }

    pub fn receive(&mut self, p: usize, from: (u32, u64), record: &Record) -> Received {
        let Some(&q) = self.places.get(&from.0) else {
            return Received::NotSent;
        };
        let sender = &mut self.processes[q];
        match sender
            .sends
            .binary_search_by_key(&from.1, |sent| sent.sequence)
        {
            Ok(at) => {
                // Taken out for the moment, since two processes cannot be borrowed at once.
                let sent = std::mem::take(&mut sender.sends[at]);
                self.learn(p, &sent);
                let settled = sent.open.iter().all(Option::is_none);
                self.processes[q].sends[at] = sent;
                Received::Known { settled }
            }
            Err(0) if sender.forgot_sends => {
                self.believe(p, record);
                Received::Forgotten
            }
            Err(_) => Received::NotSent,
        }
    }

    /// Takes the components of that knowledge which are news.
    fn learn(&mut self, p: usize, other: &Knowledge) {
        for (q, (clock, open)) in other.clock.iter().zip(&other.open).enumerate() {
            let now = &self.processes[p].now;
            if q == p || *clock <= now.clock[q] {
                continue;
            }
            // A dependency on an event that was undone does not end by hearing of what its process
            // did afterwards.
            let orphan = now.open[q].is_some_and(|o| o.aborted);
            let undone = |o: Open| o.aborted || self.processes[q].has_aborted(o.sequence);
            let open = open.map(|o| Open {
                aborted: undone(o),
                ..o
            });
            let now = &mut self.processes[p].now;
            now.clock[q] = *clock;
            if !orphan {
                now.open[q] = open;
            }
        }
    }

    /// Takes the line's clock for what nothing is known about any more.
    fn believe(&mut self, p: usize, record: &Record) {
        for (id, says) in &record.clock {
            match self.places.get(id) {
                Some(&q) if q != p => {
                    let clock = &mut self.processes[p].now.clock[q];
                    *clock = (*clock).max(*says);
                }
                _ => {}
            }
        }
    }

    /// Process `p` commits alone, or with the rest of what its round has prepared.
    pub fn commit(&mut self, p: usize) {
        let process = &mut self.processes[p];
        process.now.open[p] = None;
        process.queued = None;
        process.committed.clone_from(&process.now);
    }

    pub fn prepare(&mut self, p: usize, round: u64) {
        let process = &mut self.processes[p];
        let mut knowledge = process.now.clone();
        knowledge.open[p] = None;
        if let Some(earlier) = process.prepared[0].take() {
            process.prepared[1] = Some(earlier);
        }
        process.prepared[0] = Some((round, knowledge));
    }

    pub fn abort_round(&mut self, p: usize, round: u64) {
        for vote in &mut self.processes[p].prepared {
            vote.take_if(|(of, _)| *of == round);
        }
    }

    /// Process `p` has heard that a round commits: it knows what every member has prepared for it.
    pub fn join_round(&mut self, p: usize, round: u64) {
        for q in 0..self.count() {
            let mut votes = self.processes[q].prepared.iter_mut();
            let vote = votes.find_map(|vote| vote.take_if(|(of, _)| *of == round));
            let Some((_, prepared)) = vote else { continue };
            self.learn(p, &prepared);
            let covers = |open: Open| prepared.sequence >= open.sequence && !open.aborted;
            if q != p && self.processes[p].now.open[q].is_some_and(covers) {
                self.processes[p].now.open[q] = None;
            }
            let votes = &mut self.processes[q].prepared;
            let empty = votes.iter_mut().find(|vote| vote.is_none());
            empty.map(|vote| vote.insert((round, prepared)));
        }
    }

    pub fn stop(&mut self, p: usize) {
        self.processes[p].stopped = Some(self.processes[p].place);
    }

    /// Process `p` stands again at its last commit, or at what it prepared for a round that has
    /// committed since; false if `to` is neither.
    pub fn recover(&mut self, p: usize, to: u64) -> bool {
        let sequence = self.processes[p].now.sequence;
        self.processes[p].stopped = None;
        if self.processes[p].committed.sequence != to {
            let mut votes = self.processes[p].prepared.iter().flatten();
            let Some((round, knowledge)) = votes.find(|(_, k)| k.sequence == to) else {
                return false;
            };
            let (round, knowledge) = (*round, knowledge.clone());
            let count = self.count();
            self.processes[p].now = knowledge;
            self.processes[p].now.make_room(count);
            self.join_round(p, round);
            self.processes[p].committed = self.processes[p].now.clone();
        }
        let count = self.count();
        let process = &mut self.processes[p];
        process.now.clone_from(&process.committed);
        process.now.make_room(count);
        process.now.sequence = sequence;
        process.now.clock[p] = sequence;
        process.queued = None;
        if to + 1 < sequence {
            self.undo(p, to + 1, sequence - 1);
        }
        true
    }

    /// The events from `first` to `last` of process `p` no longer count, whoever knows of them.
    fn undo(&mut self, p: usize, first: u64, last: u64) {
        let aborted = &mut self.processes[p].aborted;
        while aborted.back().is_some_and(|(earlier, _)| *earlier >= first) {
            aborted.pop_back();
        }
        aborted.push_back((first, last));
        if aborted.len() > REMEMBERED_RECOVERIES {
            aborted.pop_front();
        }
        for process in &mut self.processes {
            let votes = process.prepared.iter_mut().flatten();
            let prepared = votes.map(|(_, knowledge)| knowledge);
            let known = [&mut process.now, &mut process.committed]
                .into_iter()
                .chain(prepared);
            for open in known.filter_map(|k| k.open.get_mut(p)).flatten() {
                open.aborted |= (first..=last).contains(&open.sequence);
            }
        }
    }
}

impl Process {
    fn new(id: u32, own: usize) -> Self {
        let mut now = Knowledge::default();
        now.make_room(own + 1);
        Process {
            id,
            place: Place::default(),
            committed: now.clone(),
            now,
            queued: None,
            prepared: [None, None],
            stopped: None,
            aborted: VecDeque::new(),
            sends: VecDeque::new(),
            forgot_sends: false,
        }
    }

    fn open(&self, own: usize) -> Option<Open> {
        let earlier = |a: Open, b: Open| if a.sequence < b.sequence { a } else { b };
        match (self.now.open[own], self.queued) {
            (Some(a), Some(b)) => Some(earlier(a, b)),
            (a, b) => a.or(b),
        }
    }

    fn has_aborted(&self, sequence: u64) -> bool {
        let at = self.aborted.partition_point(|(_, last)| *last < sequence);
        self.aborted
            .get(at)
            .is_some_and(|(first, _)| *first <= sequence)
    }
}

impl Knowledge {
    fn make_room(&mut self, processes: usize) {
        self.clock.resize(processes, 0);
        self.open.resize(processes, None);
    }
}
