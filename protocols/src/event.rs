//! What a protocol is told, and what it answers.
//!
//! The events are the theory's, not the kernel's: a table of system calls beside the runtime says
//! which call is which event. Two of them are there because the theory has a hole where a real
//! system has a call: [`Event::VisibleNonDeterministic`] (corollary 1) and [`Event::Unknown`].

/// One thing that happens to a process, as far as recovery cares.
///
/// A visible event or a send is told *before* it is performed, a non-deterministic event or a
/// receive *after* its result is known and before the program sees it. That is where the theory
/// needs the commit to fall, and where a runtime can still put one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Event {
    /// A result that re-execution may not see again: input, time, a signal, a readiness.
    /// `loggable` if the result can be written down and fed again, which a signal's cannot.
    NonDeterministic { loggable: bool },
    /// A message has arrived from another process of the computation. It is non-deterministic in
    /// its order and can be logged; it has a name of its own because it also carries causality.
    Receive,
    /// The outside world is about to see something.
    Visible,
    /// A message is about to leave for another process of the computation. Forking a child, writing
    /// shared memory and exiting under a waiting parent are sends too.
    Send,
    /// Both at once, inseparably: it shows something and its result is not determined. No commit
    /// fits between the two halves, so only one that is atomic with the event is of any use.
    VisibleNonDeterministic,
    /// Something nobody has classified. It is committed around on both sides, never taken as pure.
    Unknown,
    /// A commit for a reason outside the theory: the clock, the application's own wish, or a log
    /// that has reached its bound.
    CommitRequested,
    /// The commit that was asked for is durable.
    Committed,
    /// The tail of the log is durable.
    Flushed,
    /// The process stands again at its last commit, its log not yet replayed. Results fed from the
    /// log are determined, and are not told as events.
    RolledBack,
}

/// What whoever runs the machine must do about one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Decision {
    /// Commit, and only then perform the event.
    pub commit_before: bool,
    /// Commit once the event is performed, before the program goes on.
    pub commit_after: bool,
    /// Append the event's result to the log; no commit is owed for it.
    pub log: bool,
    /// The log must be durable before the event's effect leaves the process.
    pub flush: bool,
    /// The commits asked for here are rounds of two-phase commit over the whole group.
    pub global: bool,
    /// The commit after the event must be one with it (see [`Event::VisibleNonDeterministic`]).
    pub atomic: bool,
}

impl Decision {
    /// Nothing is owed.
    pub const NONE: Decision = Decision {
        commit_before: false,
        commit_after: false,
        log: false,
        flush: false,
        global: false,
        atomic: false,
    };

    /// Whether any commit is asked for.
    pub const fn commits(&self) -> bool {
        self.commit_before || self.commit_after
    }
}
