//! The scoreboard: which verbs are under way, and which must wait for which.
//!
//! A verb that enters is stalled until every earlier verb that does not commute with it, or is not
//! independent of it, has left (paper, section 3.2.1). So the order of entering is an order in
//! which the service could have executed the verbs one by one, and the timeline that records this
//! order is causally consistent. Each entry counts what it still waits for and knows who waits for
//! it; leaving wakes exactly those whose count becomes zero. (A condition variable for all would
//! wake every waiter for each verb that leaves.)
//!
//! A waiting verb may be overtaken by one that is preferred to it, if that one conflicts with
//! nothing else ahead: [`Verb::prefers`] says so, and only a verb that has not begun is overtaken.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::verb::Verb;

pub struct Scoreboard<V> {
    board: Mutex<Board<V>>,
}

struct Board<V> {
    next: u64,
    entries: BTreeMap<u64, Entry<V>>,
}

struct Entry<V> {
    verb: Arc<V>,
    waits_for: usize,
    waiters: Vec<u64>,
    wake: Arc<Condvar>,
    begun: bool,
    overtaken: bool,
}

/// A place on the board. Dropping it lets those go on that wait for it.
pub struct Ticket<'a, V: Verb> {
    board: &'a Scoreboard<V>,
    number: u64,
    wake: Arc<Condvar>,
}

impl<V: Verb> Default for Scoreboard<V> {
    fn default() -> Self {
        Scoreboard {
            board: Mutex::new(Board {
                next: 0,
                entries: BTreeMap::new(),
            }),
        }
    }
}

impl<V: Verb> Scoreboard<V> {
    /// Takes a place in the order of verbs. `numbered` is called within that order: what it
    /// counts has the order of the board. Does not wait.
    ///
    /// A replay uses this, and fixes the order when the verb is listed.
    pub fn enter_numbered<T>(
        &self,
        verb: Arc<V>,
        numbered: impl FnOnce() -> T,
    ) -> (Ticket<'_, V>, T) {
        let mut board = self.lock();
        let number = board.insert(verb, false);
        let value = numbered();
        let wake = board.entries[&number].wake.clone();
        (
            Ticket {
                board: self,
                number,
                wake,
            },
            value,
        )
    }

    /// Takes a place, perhaps before verbs that still wait.
    pub fn enter(&self, verb: Arc<V>) -> Ticket<'_, V> {
        let mut board = self.lock();
        let number = board.insert(verb, true);
        let wake = board.entries[&number].wake.clone();
        Ticket {
            board: self,
            number,
            wake,
        }
    }

    /// How many verbs are on the board: those that run, and those that wait.
    pub fn load(&self) -> (usize, usize) {
        let board = self.lock();
        let running = board.entries.values().filter(|e| e.waits_for == 0).count();
        (running, board.entries.len() - running)
    }

    fn lock(&self) -> MutexGuard<'_, Board<V>> {
        self.board
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<V: Verb> Board<V> {
    fn insert(&mut self, verb: Arc<V>, may_overtake: bool) -> u64 {
        let number = self.next;
        self.next += 1;
        let conflicts: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| conflict(&*entry.verb, &*verb))
            .map(|(&n, _)| n)
            .collect();
        let mut waits_for = 0;
        let mut waiters = Vec::new();
        for n in conflicts {
            let entry = self.entries.get_mut(&n).expect("it was just found");
            // Whoever was overtaken once is not overtaken again: nobody waits for ever.
            let overtakes = may_overtake
                && !entry.begun
                && entry.waits_for > 0
                && !entry.overtaken
                && entry.waiters.is_empty()
                && verb.prefers(&entry.verb) == Ordering::Less;
            if overtakes {
                entry.waits_for += 1;
                entry.overtaken = true;
                waiters.push(n);
            } else {
                entry.waiters.push(number);
                waits_for += 1;
            }
        }
        self.entries.insert(
            number,
            Entry {
                verb,
                waits_for,
                waiters,
                wake: Arc::default(),
                begun: false,
                overtaken: false,
            },
        );
        number
    }

    fn leave(&mut self, number: u64) {
        let Some(left) = self.entries.remove(&number) else {
            return;
        };
        for waiter in left.waiters {
            if let Some(entry) = self.entries.get_mut(&waiter) {
                entry.waits_for -= 1;
                if entry.waits_for == 0 {
                    entry.wake.notify_one();
                }
            }
        }
    }
}

fn conflict<V: Verb>(a: &V, b: &V) -> bool {
    !a.commutes(b) || !a.independent(b)
}

impl<V: Verb> Ticket<'_, V> {
    /// Waits for all that is ahead. `begin` is called while the board is held, so that what it
    /// numbers is in the order in which conflicting verbs are executed.
    pub fn wait<T>(&self, begin: impl FnOnce() -> T) -> T {
        let mut board = self.board.lock();
        while board.entries[&self.number].waits_for > 0 {
            board = self
                .wake
                .wait(board)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if let Some(entry) = board.entries.get_mut(&self.number) {
            entry.begun = true;
        }
        begin()
    }
}

impl<V: Verb> Drop for Ticket<'_, V> {
    fn drop(&mut self) {
        self.board.lock().leave(self.number);
    }
}
