//! Asks of every event what the commit invariant asks, in one pass.

use crate::history::{History, Received};
use crate::lose_work::LoseWork;
use crate::record::{Record, TraceError};
use crate::source::Traces;
use crate::violation::{Event, Kind, Violation};
use protocols::trace::{Class, Fate, Note};
use std::fmt;
use std::io::BufRead;

/// Violations that are kept in words; the others are only counted.
const KEPT: usize = 16;

/// What a run was like, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Report {
    pub processes: usize,
    pub events: u64,
    /// Events of each class, in the order of [`Class::ALL`].
    pub classes: [u64; Class::ALL.len()],
    /// Non-deterministic events that a log preserves.
    pub logged: u64,
    /// Events that are one with their commit; they are not of class commit.
    pub atomic: u64,
    /// Receives of sends too far back to be compared with.
    pub unverified: u64,
    /// Traces that end within a line, as that of a killed process may.
    pub torn: usize,
    /// The first violations, in the order of the trace.
    pub violations: Vec<Violation>,
    pub violated: u64,
    pub lose_work: LoseWork,
}

impl Report {
    pub fn is_consistent(&self) -> bool {
        self.violated == 0
    }

    pub fn of(&self, class: Class) -> u64 {
        self.classes[class as usize]
    }

    /// All commits, with an event of their own or without.
    pub fn commits(&self) -> u64 {
        self.of(Class::Commit) + self.atomic
    }

    /// The first violation of a kind.
    pub fn first(&self, kind: Kind) -> Option<&Violation> {
        self.violations.iter().find(|v| v.kind() == kind)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "processes {}, events {}: commits {}, visible {}, sends {}, receives {}, \
             other non-deterministic {}, logged {}",
            self.processes,
            self.events,
            self.commits(),
            self.of(Class::Visible),
            self.of(Class::Send),
            self.of(Class::Receive),
            self.of(Class::NonDeterministic) + self.of(Class::Fixed),
            self.logged,
        )?;
        if self.unverified > 0 {
            let count = self.unverified;
            writeln!(
                f,
                "{count} receives are of sends too far back to be compared with"
            )?;
        }
        if self.torn > 0 {
            writeln!(f, "traces that end within a line: {}", self.torn)?;
        }
        write!(f, "{}", self.lose_work)?;
        if self.violations.is_empty() {
            return writeln!(
                f,
                "recovery is consistent: the commit invariant holds throughout"
            );
        }
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        match self.violated - self.violations.len() as u64 {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

/// Judges a run by its traces.
pub fn check<R: BufRead>(mut traces: Traces<R>) -> Result<Report, TraceError> {
    let mut judge = Judge {
        history: History::default(),
        report: Report::default(),
    };
    let mut record = Record::new();
    while traces.next(&mut record)? {
        judge.event(&record);
    }
    judge.report.torn = traces.torn();
    judge.report.processes = judge.history.count();
    Ok(judge.report)
}

struct Judge {
    history: History,
    report: Report,
}

impl Judge {
    fn event(&mut self, record: &Record) {
        self.report.events += 1;
        self.report.classes[record.class as usize] += 1;
        let p = self.history.process(record.process);
        let event = event_of(record);
        if !self.is_in_sequence(p, event) {
            return;
        }
        match self.history.stopped(p) {
            Some(failure) if record.class != Class::Recover => {
                self.found(Violation::RunsOn { event, failure });
            }
            _ => {}
        }
        self.history.begin(p, record);
        let settled = self.dependencies(p, event, record);
        if let Some((about, says, knows)) = self.history.clock_differs(p, record) {
            self.found(Violation::WrongClock {
                event,
                about,
                says,
                knows,
            });
        }
        self.preservation(p, event, record);
        self.report.lose_work.event(p, record, settled);
    }

    fn is_in_sequence(&mut self, p: usize, event: Event) -> bool {
        let (last, place) = self.history.last(p);
        if event.sequence > last {
            if event.sequence > last + 1 {
                self.found(Violation::Missing {
                    before: event,
                    first: last + 1,
                });
            }
            return true;
        }
        // If it was missed before, the lines are in the wrong order; that is one violation, not two.
        let missed = |v: &&mut Violation| match v {
            Violation::Missing { before, first } => {
                before.process == event.process && event.sequence == *first
            }
            _ => false,
        };
        if let Some(violation) = self.report.violations.iter_mut().find(missed) {
            let Violation::Missing { before, .. } = *violation else {
                return false;
            };
            *violation = Violation::Reordered {
                event,
                after: before,
            };
        } else if event.sequence == last {
            self.found(Violation::Repeated { event });
        } else {
            let after = Event {
                process: event.process,
                sequence: last,
                place,
            };
            self.found(Violation::Reordered { event, after });
        }
        false
    }

    /// What the event makes its process depend on; whether a received message is sure to come again
    /// as it was.
    fn dependencies(&mut self, p: usize, event: Event, record: &Record) -> bool {
        match (record.class, record.note) {
            (Class::Receive, Note::From(process, sequence)) => {
                match self.history.receive(p, (process, sequence), record) {
                    Received::Known { settled } => return settled,
                    Received::Forgotten => self.report.unverified += 1,
                    Received::NotSent => {
                        let from = (process, sequence);
                        self.found(Violation::NotSent { event, from });
                    }
                }
            }
            (Class::Commit, Note::Round(round)) => self.history.join_round(p, round),
            (Class::Abort, Note::Round(round)) => self.history.abort_round(p, round),
            (Class::Recover, Note::To(to)) => {
                let committed = self.history.committed(p);
                if !self.history.recover(p, to) {
                    self.found(Violation::WrongRecovery {
                        event,
                        to,
                        committed,
                    });
                }
            }
            _ => {}
        }
        false
    }

    /// What the event preserves, and what it must find preserved.
    fn preservation(&mut self, p: usize, event: Event, record: &Record) {
        if record.class.is_non_deterministic() {
            match record.fate {
                Fate::Open | Fate::Commit => self.history.non_deterministic(p, false),
                Fate::Queue => self.history.non_deterministic(p, true),
                Fate::Log | Fate::Replay => {}
            }
            self.report.logged += matches!(record.fate, Fate::Log | Fate::Queue) as u64;
        }
        let commits = record.class == Class::Commit || record.fate == Fate::Commit;
        if commits {
            let foreign = self.history.foreign(p).next();
            if let Some((on, aborted)) = foreign {
                let call = record.call.clone();
                self.found(Violation::Livelock {
                    event,
                    call,
                    on,
                    aborted,
                });
            }
            self.report.atomic += (record.class != Class::Commit) as u64;
            self.history.commit(p);
        }
        match (record.class, record.note) {
            (Class::Visible, _) => {
                if let Some((on, aborted)) = self.history.earliest(p) {
                    let call = record.call.clone();
                    self.found(Violation::Unsafe {
                        event,
                        call,
                        on,
                        aborted,
                    });
                }
            }
            (Class::Send, _) => self.history.send(p),
            (Class::Flush, _) => self.history.flush(p),
            (Class::Prepare, Note::Round(round)) => self.history.prepare(p, round),
            (Class::Crash | Class::Kill, _) => self.history.stop(p),
            _ => {}
        }
    }

    fn found(&mut self, violation: Violation) {
        self.report.violated += 1;
        if self.report.violations.len() < KEPT {
            self.report.violations.push(violation);
        }
    }
}

fn event_of(record: &Record) -> Event {
    Event {
        process: record.process,
        sequence: record.sequence,
        place: record.place,
    }
}
