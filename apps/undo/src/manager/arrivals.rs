//! Asynchronous verbs: accepted at once, executed when the service is there, tried again while
//! their window is open, and only then reported as failed (paper, sections 3.2.2 and 4.1.2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::{Manager, decode, encode};
use crate::cycle::{Ledger, Phase};
use crate::timeline::{ArrivalState, Body, Head};
use crate::verb::{Call, Mode, Outcome, Service, Status, Timing, Verb};
use crate::{Cycle, Result, when};

/// What is to be executed, and what the state of the cycle lets be executed.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

struct Waiting {
    ready: VecDeque<Ready>,
    /// Arrivals whose attempts have failed so far, with the time of the next one.
    failed: BTreeMap<u64, u64>,
    executing: BTreeSet<u64>,
    phase: Phase,
    cycle: Option<Cycle>,
    undoable: Vec<Cycle>,
}

#[derive(Clone, Copy)]
struct Ready {
    arrival: u64,
    /// The last execution may have been cut short.
    unsettled: bool,
}

impl Queue {
    pub fn new(ledger: &Ledger) -> Queue {
        Queue {
            waiting: Mutex::new(Waiting {
                ready: VecDeque::new(),
                failed: BTreeMap::new(),
                executing: BTreeSet::new(),
                phase: ledger.phase,
                cycle: ledger.current.clone(),
                undoable: ledger.undoable.clone(),
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// How many arrivals wait for an execution, and how many have failed so far.
    pub fn load(&self) -> (usize, usize) {
        let waiting = self.lock();
        (
            waiting.ready.len() + waiting.executing.len(),
            waiting.failed.len(),
        )
    }

    pub fn is_idle(&self) -> bool {
        self.load().0 == 0
    }

    pub fn wake_all(&self) {
        self.changed.notify_all();
    }

    pub fn show(&self, ledger: &Ledger) {
        let mut waiting = self.lock();
        waiting.phase = ledger.phase;
        waiting.cycle = ledger.current.clone();
        waiting.undoable = ledger.undoable.clone();
        self.changed.notify_all();
    }

    pub fn shown(&self) -> (Phase, Option<Cycle>, Vec<Cycle>) {
        let waiting = self.lock();
        (
            waiting.phase,
            waiting.cycle.clone(),
            waiting.undoable.clone(),
        )
    }
}

impl<S: Service> Manager<S> {
    /// Takes over an asynchronous verb. It is on stable storage when this returns, and will be
    /// executed once: its user need not keep it. Never waits for a cycle.
    pub fn accept(&self, verb: &S::Verb) -> Result<u64> {
        Ok(self.accept_all(std::slice::from_ref(verb))?[0])
    }

    /// Takes over several asynchronous verbs with one sync.
    pub fn accept_all(&self, verbs: &[S::Verb]) -> Result<Vec<u64>> {
        let mut arrivals = Vec::new();
        let mut until = 0;
        for verb in verbs {
            let arrival = self.timeline.number_arrival();
            let body = Body {
                verb: encode(verb)?,
                tag: Vec::new(),
            };
            let time_us = when::now_us();
            until = self
                .timeline
                .append(&Head::Accepted { arrival, time_us }, &body)?;
            arrivals.push(arrival);
        }
        self.timeline.sync(until)?;
        let ready = arrivals.iter().map(|&arrival| Ready {
            arrival,
            unsettled: false,
        });
        self.queue.lock().ready.extend(ready);
        self.queue.changed.notify_all();
        Ok(arrivals)
    }

    pub fn arrival_state(&self, arrival: u64) -> Option<ArrivalState> {
        let view = self.shared().view.clone();
        self.timeline.arrival(arrival, &view)
    }

    /// Queues what the timeline has left open: at the start, and when a cycle has ended.
    pub(super) fn reload_arrivals(&self, ledger: &Ledger, unsettled: bool) {
        let open = self.timeline.open_arrivals(&ledger.view);
        let mut waiting = self.queue.lock();
        waiting.failed.clear();
        // One that an executor has in its hands already must not get into another one's.
        let mut queued: BTreeSet<u64> = waiting.ready.iter().map(|r| r.arrival).collect();
        queued.extend(&waiting.executing);
        for (arrival, known) in open {
            if queued.contains(&arrival) {
                continue;
            }
            if known.attempts.is_empty() {
                waiting.ready.push_back(Ready { arrival, unsettled });
            } else {
                waiting.failed.insert(arrival, 0);
            }
        }
        if unsettled {
            // An attempt at one that failed before may have been cut short as well.
            for ready in &mut waiting.ready {
                ready.unsettled = true;
            }
        }
        self.queue.changed.notify_all();
    }

    /// A thread that executes arrivals until the manager closes.
    pub(super) fn execute_arrivals(&self) {
        while let Some(ready) = self.next_arrival() {
            let done = self.attempt(ready);
            let mut waiting = self.queue.lock();
            waiting.executing.remove(&ready.arrival);
            match done {
                Ok(Attempted::Settled) => {
                    waiting.failed.remove(&ready.arrival);
                }
                Ok(Attempted::Failed) => {
                    let next = when::now_us() + (self.settings.retry_every_s * 1e6) as u64;
                    waiting.failed.insert(ready.arrival, next);
                }
                Ok(Attempted::NotNow) => waiting.ready.push_front(ready),
                Err(error) => {
                    // It cannot be recorded. It stays first in the queue, and the disk may get better.
                    waiting.ready.push_front(Ready {
                        unsettled: true,
                        ..ready
                    });
                    drop(waiting);
                    self.progress().failure = Some(error.to_string());
                    std::thread::sleep(Duration::from_millis(500));
                }
            }
        }
    }

    fn next_arrival(&self) -> Option<Ready> {
        let mut waiting = self.queue.lock();
        loop {
            if self.closing() {
                return None;
            }
            if waiting.phase == Phase::Running
                && let Some(ready) = waiting.ready.pop_front()
            {
                waiting.executing.insert(ready.arrival);
                return Some(ready);
            }
            waiting = self
                .queue
                .changed
                .wait(waiting)
                .unwrap_or_else(|p| p.into_inner());
        }
    }

    fn attempt(&self, ready: Ready) -> Result<Attempted> {
        let arrival = ready.arrival;
        let ledger = self.shared();
        if ledger.phase != Phase::Running {
            return Ok(Attempted::NotNow);
        }
        let state = self.timeline.arrival(arrival, &ledger.view);
        let first = state == Some(ArrivalState::Waiting);
        if !first && state != Some(ArrivalState::Failed) {
            return Ok(Attempted::Settled);
        }
        let Some((accepted_us, bytes)) = self.timeline.read_arrival(arrival)? else {
            return Ok(Attempted::Settled);
        };
        let verb: Arc<S::Verb> = Arc::new(decode(arrival, &bytes)?);
        let ticket = self.board.enter(verb.clone());
        let lsn = ticket.wait(|| self.timeline.number());
        // A second attempt is a settlement too: the first may have failed half-way.
        let mode = if first && !ready.unsettled {
            Mode::Normal
        } else {
            Mode::Settle
        };
        let call = Call {
            verb: &*verb,
            lsn,
            time_us: accepted_us,
            mode,
        };
        let (outcome, _) = self.service.execute(&call);
        if outcome.is_done() || first {
            let body = Body {
                verb: Vec::new(),
                tag: encode(&outcome.tag)?,
            };
            let status = outcome.status.clone();
            let head = Head::Attempted {
                lsn,
                arrival,
                time_us: accepted_us,
                status,
            };
            self.timeline.append(&head, &body)?;
        } else {
            self.timeline
                .append(&Head::Voided { lsn }, &Body::default())?;
        }
        drop(ticket);
        if outcome.is_done() {
            return Ok(Attempted::Settled);
        }
        if first {
            self.service.report_attempt(&call, &outcome);
        }
        Ok(Attempted::Failed)
    }

    /// Tries failed arrivals again, and reports those whose window has closed. A thread calls this
    /// every now and then.
    pub(super) fn look_after_failed(&self) {
        let now = when::now_us();
        let failed: Vec<(u64, u64)> = self
            .queue
            .lock()
            .failed
            .iter()
            .map(|(&a, &next)| (a, next))
            .collect();
        for (arrival, next) in failed {
            let ledger = self.shared();
            if ledger.phase != Phase::Running || self.closing() {
                return;
            }
            match self.report_if_due(arrival, now, &ledger) {
                Ok(true) => {
                    self.queue.lock().failed.remove(&arrival);
                }
                Ok(false) if next <= now => {
                    let mut waiting = self.queue.lock();
                    if waiting.failed.remove(&arrival).is_some() {
                        waiting.ready.push_back(Ready {
                            arrival,
                            unsettled: true,
                        });
                    }
                    self.queue.changed.notify_all();
                }
                Ok(false) => {}
                Err(error) => self.progress().failure = Some(error.to_string()),
            }
        }
    }

    /// Tells the user of a failure if the window has closed. True: there is nothing more to do.
    fn report_if_due(&self, arrival: u64, now: u64, ledger: &Ledger) -> Result<bool> {
        let state = self.timeline.arrival(arrival, &ledger.view);
        if !matches!(state, Some(ArrivalState::Failed | ArrivalState::Reported)) {
            return Ok(true);
        }
        let Some((accepted_us, bytes)) = self.timeline.read_arrival(arrival)? else {
            return Ok(true);
        };
        let verb: S::Verb = decode(arrival, &bytes)?;
        let window = match verb.timing() {
            Timing::Asynchronous { window } => window,
            Timing::Synchronous => Duration::ZERO,
        };
        if now < accepted_us + window.as_micros() as u64 {
            return Ok(false);
        }
        let Some((lsn, outcome)) = self.last_failure(arrival)? else {
            return Ok(true);
        };
        // From here on a replay must not deliver it: its user may have been told.
        self.timeline
            .append_synced(&Head::Reporting { arrival }, &Body::default())?;
        let call = Call {
            verb: &verb,
            lsn,
            time_us: accepted_us,
            mode: Mode::Normal,
        };
        self.service.report_failure(&call, &outcome)?;
        self.timeline
            .append_synced(&Head::Reported { arrival }, &Body::default())?;
        Ok(true)
    }

    fn last_failure(&self, arrival: u64) -> Result<Option<(u64, Outcome<S::Tag>)>> {
        let Some(lsn) = self.timeline.first_attempt(arrival) else {
            return Ok(None);
        };
        let Some((status, tag)) = self.timeline.recorded_outcome(lsn)? else {
            return Ok(None);
        };
        let status = match status {
            Status::Done => Status::Failed("it could not be delivered after the repair".into()),
            failed => failed,
        };
        Ok(Some((
            lsn,
            Outcome {
                status,
                tag: decode(lsn, &tag)?,
            },
        )))
    }
}

enum Attempted {
    /// Nothing more is to be done for it.
    Settled,
    Failed,
    /// A cycle has begun.
    NotNow,
}
