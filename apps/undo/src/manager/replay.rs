//! Replay: executing a part of history again, in parallel where verbs are independent.
//!
//! The same scoreboard that sequences users sequences the workers: each takes the next verb of
//! history and a place on the board in one step, and waits there for what it conflicts with. So
//! when a verb begins, all earlier ones that it does not commute with have ended, and whether one
//! of them was inconsistent is known.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::scope::alone;
use super::{Manager, decode, encode};
use crate::cycle::{Cycle, Paradox, Summary};
use crate::timeline::{Body, Head, Lsn, Recorded, View};
use crate::verb::{Call, Mode, Outcome, Service, Squash, Verb};
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// From a snapshot to the point that the operator wants: history as it was.
    Approach,
    /// After the repair: check, compensate, squash, and record what differs.
    Integrate,
    /// As after the repair, but recording nothing.
    Rehearse,
}

pub(super) struct Replay<'a, S: Service> {
    manager: &'a Manager<S>,
    cycle: &'a Cycle,
    view: View,
    purpose: Purpose,
    found: Mutex<Found<S>>,
    replayed: AtomicU64,
    squashed: AtomicU64,
    stopped: AtomicBool,
}

struct Found<S: Service> {
    inconsistent: Vec<(Arc<S::Verb>, S::Inconsistency)>,
    paradoxes: Vec<Paradox>,
    failure: Option<Error>,
}

struct Item<V> {
    verb: Arc<V>,
    recorded: Recorded,
}

impl<'a, S: Service> Replay<'a, S> {
    pub fn new(manager: &'a Manager<S>, cycle: &'a Cycle, view: View, purpose: Purpose) -> Self {
        Replay {
            manager,
            cycle,
            view,
            purpose,
            found: Mutex::new(Found {
                inconsistent: vec![],
                paradoxes: vec![],
                failure: None,
            }),
            replayed: AtomicU64::new(0),
            squashed: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    pub fn summary(&self) -> Summary {
        let mut paradoxes = self.found().paradoxes.clone();
        paradoxes.sort_by_key(|p| p.lsn);
        Summary {
            replayed: self.replayed.load(Ordering::Relaxed),
            squashed: self.squashed.load(Ordering::Relaxed),
            seconds: 0.0,
            paradoxes,
        }
    }

    /// Executes these verbs. An error, or the operator's wish, stops all workers.
    pub fn run(&self, order: Vec<Lsn>) -> Result<()> {
        let workers = self
            .manager
            .settings
            .replay_workers
            .clamp(1, order.len().max(1));
        let next = Mutex::new(order.into_iter());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while !self.stopped.load(Ordering::Relaxed) {
                        match self.step(&next) {
                            Ok(true) => {}
                            Ok(false) => return,
                            Err(error) => self.stop(error),
                        }
                    }
                });
            }
        });
        match self.found().failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn stop(&self, error: Error) {
        self.stopped.store(true, Ordering::Relaxed);
        self.found().failure.get_or_insert(error);
    }

    fn found(&self) -> MutexGuard<'_, Found<S>> {
        self.found
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes and executes the next verb. False: there is none.
    fn step(&self, next: &Mutex<std::vec::IntoIter<Lsn>>) -> Result<bool> {
        if self.manager.abort.load(Ordering::Relaxed) || self.manager.closing() {
            return Err(Error::new("replay", "go on", "it was stopped")
                .advise("`undo replay` begins it again, `undo cancel` gives it up"));
        }
        // Reading and entering are one step, so that the board has the order of history.
        let mut order = next.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(lsn) = order.next() else {
            return Ok(false);
        };
        let Some(item) = self.read(lsn)? else {
            self.count();
            return Ok(true);
        };
        let (ticket, ()) = self.manager.board.enter_numbered(item.verb.clone(), || ());
        drop(order);
        ticket.wait(|| ());
        // Whoever waited while another one stopped the replay must not begin.
        if !self.stopped.load(Ordering::Relaxed) {
            self.execute(item)?;
            self.count();
        }
        drop(ticket);
        Ok(true)
    }

    fn count(&self) {
        self.replayed.fetch_add(1, Ordering::Relaxed);
        self.manager.progress().done += 1;
    }

    fn read(&self, lsn: Lsn) -> Result<Option<Item<S::Verb>>> {
        let Some(recorded) = self.manager.timeline.read(lsn, &self.view)? else {
            return Ok(None);
        };
        let verb: S::Verb = decode(lsn, &recorded.verb)?;
        let verb = match &self.cycle.scope {
            None => verb,
            Some(scope) => {
                // (The operator may have put such a verb into history.)
                alone(&verb, lsn, scope)?;
                match verb.within(scope) {
                    Some(part) => part,
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(Item {
            verb: Arc::new(verb),
            recorded,
        }))
    }

    fn execute(&self, item: Item<S::Verb>) -> Result<()> {
        let lsn = item.recorded.lsn;
        let mode = Mode::Replay(self.cycle.epoch);
        let time_us = item.recorded.time_us;
        if self.purpose == Purpose::Approach {
            return self.approach(
                &item,
                &Call {
                    verb: &*item.verb,
                    lsn,
                    time_us,
                    mode,
                },
            );
        }
        let mut verb = item.verb.clone();
        let mut original = self.original(&item.recorded)?;
        let because = self.inconsistent_before(&verb);
        if !because.is_empty() {
            match self.manager.service.squash(
                &Call {
                    verb: &*verb,
                    lsn,
                    time_us,
                    mode,
                },
                &because,
            ) {
                Squash::Unchanged => {}
                Squash::Changed(other, words) => {
                    self.squashed(&item, words, Some(&other))?;
                    verb = Arc::new(other);
                    original = None;
                }
                Squash::Cancelled(words) => return self.squashed(&item, words, None),
            }
        }
        let (mut outcome, _) = self.manager.service.execute(&Call {
            verb: &*verb,
            lsn,
            time_us,
            mode,
        });
        if !outcome.is_done() && original.as_ref().is_none_or(Outcome::is_done) {
            self.manager.service.ready()?;
        }
        // A failure that its user has not heard of may well become a success.
        let untold =
            item.recorded.arrival.is_some() && original.as_ref().is_some_and(|o| !o.is_done());
        if let Some(original) = original.as_ref().filter(|_| !untold)
            && let Err(what) = self.manager.service.consistent(&verb, original, &outcome)
        {
            let made_up = self.manager.service.compensate(
                &Call {
                    verb: &*verb,
                    lsn,
                    time_us,
                    mode,
                },
                &what,
                &outcome,
            )?;
            self.paradox(&item, &what, made_up.words);
            self.found().inconsistent.push((verb, what));
            if let Some(better) = made_up.outcome {
                outcome = better;
            }
        }
        self.record(&item, original, outcome)
    }

    /// Executes a verb of history as it was, and notes if it does not come to the same.
    fn approach(&self, item: &Item<S::Verb>, call: &Call<'_, S::Verb>) -> Result<()> {
        let (outcome, _) = self.manager.service.execute(call);
        let Some(original) = self.original(&item.recorded)? else {
            return Ok(());
        };
        if original.is_done() && !outcome.is_done() {
            self.manager.service.ready()?;
        }
        let untold = item.recorded.arrival.is_some() && !original.is_done();
        if !untold
            && let Err(what) = self
                .manager
                .service
                .consistent(call.verb, &original, &outcome)
        {
            self.paradox(item, &what, String::new());
        }
        Ok(())
    }

    fn original(&self, recorded: &Recorded) -> Result<Option<Outcome<S::Tag>>> {
        let Some((status, tag)) = &recorded.outcome else {
            return Ok(None);
        };
        Ok(Some(Outcome {
            status: status.clone(),
            tag: decode(recorded.lsn, tag)?,
        }))
    }

    fn inconsistent_before(&self, verb: &S::Verb) -> Vec<S::Inconsistency> {
        let found = self.found();
        let conflicting = found
            .inconsistent
            .iter()
            .filter(|(other, _)| !other.commutes(verb));
        conflicting.map(|(_, what)| what.clone()).collect()
    }

    fn paradox(&self, item: &Item<S::Verb>, what: &S::Inconsistency, compensation: String) {
        let about = item.verb.about();
        let mut found = self.found();
        found.paradoxes.push(Paradox {
            lsn: item.recorded.lsn,
            user: about.user,
            verb: about.line,
            what: what.to_string(),
            compensation,
        });
        self.manager.progress().paradoxes = found.paradoxes.len() as u64;
    }

    fn squashed(&self, item: &Item<S::Verb>, words: String, other: Option<&S::Verb>) -> Result<()> {
        self.squashed.fetch_add(1, Ordering::Relaxed);
        let about = item.verb.about();
        self.found().paradoxes.push(Paradox {
            lsn: item.recorded.lsn,
            user: about.user,
            verb: about.line,
            what: "the verb depends on an earlier inconsistency".into(),
            compensation: words,
        });
        if self.purpose == Purpose::Rehearse {
            return Ok(());
        }
        let verb = other.map(encode).transpose()?.unwrap_or_default();
        let head = Head::Squashed {
            epoch: self.cycle.epoch,
            lsn: item.recorded.lsn,
            cancelled: other.is_none(),
        };
        self.manager.timeline.append(
            &head,
            &Body {
                verb,
                tag: Vec::new(),
            },
        )?;
        Ok(())
    }

    /// Writes down an outcome that is not the one on record. (So a replay that finds everything
    /// as it was adds nothing to the log.)
    fn record(
        &self,
        item: &Item<S::Verb>,
        original: Option<Outcome<S::Tag>>,
        outcome: Outcome<S::Tag>,
    ) -> Result<()> {
        if self.purpose == Purpose::Rehearse {
            return Ok(());
        }
        let tag = encode(&outcome.tag)?;
        if let Some(original) = original
            && original.status == outcome.status
            && encode(&original.tag)? == tag
        {
            return Ok(());
        }
        let head = Head::Revised {
            epoch: self.cycle.epoch,
            lsn: item.recorded.lsn,
            status: outcome.status,
        };
        self.manager.timeline.append(
            &head,
            &Body {
                verb: Vec::new(),
                tag,
            },
        )?;
        Ok(())
    }
}
