//! What can be wrong with a trace, in words.

use crate::record::Place;
use std::fmt;

/// An event that is spoken of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct Event {
    pub process: u32,
    pub sequence: u64,
    pub place: Place,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "event {} of process {} ({})",
            self.sequence, self.process, self.place
        )
    }
}

/// The kinds of violation, for counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The trace itself does not hold together.
    Sequence,
    Clock,
    Message,
    Failure,
    /// Theorem 2, safety.
    Safety,
    /// Theorem 2, liveness.
    Liveness,
}

/// One thing that is wrong, with the lines concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// Events of a process are not in the trace.
    Missing { before: Event, first: u64 },
    /// An event stands behind a later one of its process.
    Reordered { event: Event, after: Event },
    /// A sequence number is used again.
    Repeated { event: Event },
    /// A component of a clock is not what messages have made it.
    WrongClock {
        event: Event,
        about: u32,
        says: u64,
        knows: u64,
    },
    /// A receive of what is no send, or none yet.
    NotSent { event: Event, from: (u32, u64) },
    /// A process goes on after its failure without having recovered.
    RunsOn { event: Event, failure: Place },
    /// A recovery to where there is no commit.
    WrongRecovery {
        event: Event,
        to: u64,
        committed: u64,
    },
    /// A visible event depends on a non-deterministic one that nothing preserves.
    Unsafe {
        event: Event,
        call: String,
        on: Event,
        aborted: bool,
    },
    /// A commit preserves a dependency on such an event of another process.
    Livelock {
        event: Event,
        call: String,
        on: Event,
        aborted: bool,
    },
}

impl Violation {
    pub fn kind(&self) -> Kind {
        match self {
            Violation::Missing { .. }
            | Violation::Reordered { .. }
            | Violation::Repeated { .. } => Kind::Sequence,
            Violation::WrongClock { .. } => Kind::Clock,
            Violation::NotSent { .. } => Kind::Message,
            Violation::RunsOn { .. } | Violation::WrongRecovery { .. } => Kind::Failure,
            Violation::Unsafe { .. } => Kind::Safety,
            Violation::Livelock { .. } => Kind::Liveness,
        }
    }

    /// The lines concerned, the one at which it was found last.
    pub fn places(&self) -> Vec<Place> {
        match self {
            Violation::Reordered { event, after } => vec![after.place, event.place],
            Violation::RunsOn { event, failure } => vec![*failure, event.place],
            Violation::Unsafe { event, on, .. } | Violation::Livelock { event, on, .. } => {
                vec![on.place, event.place]
            }
            Violation::Missing { before: event, .. }
            | Violation::Repeated { event }
            | Violation::WrongClock { event, .. }
            | Violation::NotSent { event, .. }
            | Violation::WrongRecovery { event, .. } => vec![event.place],
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Missing { before, first } => {
                let last = before.sequence - 1;
                let process = before.process;
                let place = before.place;
                match last - first {
                    0 => write!(
                        f,
                        "event {first} of process {process} is missing before {place}"
                    ),
                    _ => write!(
                        f,
                        "events {first} to {last} of process {process} are missing before {place}"
                    ),
                }
            }
            Violation::Reordered { event, after } => {
                write!(
                    f,
                    "{event} stands after its event {} ({})",
                    after.sequence, after.place
                )
            }
            Violation::Repeated { event } => write!(f, "{event} is there for the second time"),
            Violation::WrongClock {
                event,
                about,
                says,
                knows,
            } => write!(
                f,
                "the clock of {event} says that it depends on process {about} up to event {says}; \
                 by the messages received it is {knows}"
            ),
            Violation::NotSent { event, from } => write!(
                f,
                "{event} receives what event {} of process {} sent, but that is no send before it",
                from.1, from.0
            ),
            Violation::RunsOn { event, failure } => {
                write!(
                    f,
                    "{event} comes after the failure of its process ({failure})"
                )
            }
            Violation::WrongRecovery {
                event,
                to,
                committed,
            } => write!(
                f,
                "{event} recovers to event {to}, but the last commit is event {committed}"
            ),
            Violation::Unsafe {
                event,
                call,
                on,
                aborted,
            } => {
                let fate = fate(*aborted);
                write!(
                    f,
                    "unsafe: {event}, {call}, is visible and depends on {on}, which is {fate}"
                )
            }
            Violation::Livelock {
                event,
                call,
                on,
                aborted,
            } => {
                let fate = fate(*aborted);
                write!(
                    f,
                    "livelock: {event}, {call}, commits a dependency on {on}, which is {fate}"
                )
            }
        }
    }
}

fn fate(aborted: bool) -> &'static str {
    if aborted {
        "non-deterministic and was rolled back"
    } else {
        "non-deterministic and not committed"
    }
}
