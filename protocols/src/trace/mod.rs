//! The trace of a run: one line an event, in a form that a person can read and a checker can judge.
//!
//! ```text
//! # trace 1
//! PROCESS SEQUENCE CLASS   CALL         FATE   CLOCK      [KEY=VALUE]
//! 7       1        nd      gettimeofday -      7:1
//! 7       2        commit  before-send  commit 7:2
//! 7       3        send    sendto       -      7:3
//! 9       1        receive recvfrom     -      7:3,9:1    from=7:3
//! ```
//!
//! Fields are separated by spaces, as many as one likes; `#` begins a comment. Sequence numbers of a
//! process rise by one from 1 and are never used twice, also not after a failure. The clock is the
//! event's vector clock: for each process the last of its events that this one may depend on,
//! itself included. In the lines of several processes an event stands after those it depends on.
//! A run of several system processes that commit together is one process here; `CALL@PROCESS` says
//! which of them, if not the first, has made the call.
//! Whoever goes on with the trace of a process that died cuts it behind its last newline first.
//!
//! The writer is here, because it runs inside the process it writes about, into a buffer that is
//! given to it; the reader needs memory and lives in `protocols-check`. Both use the names below.

mod clock;
mod line;

pub use clock::{Clock, ClockFull};
pub use line::{BufferFull, Line, Note};

/// The first line of a trace.
pub const HEADER: &str = "# trace 1\n";

/// What kind of event a line tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Class {
    /// Non-deterministic, and transient: another time it may well be otherwise.
    NonDeterministic,
    /// Non-deterministic, but fixed: whoever decided it will decide so again. A user's input is.
    Fixed,
    /// A message from another process of the computation; the note says which.
    Receive,
    Visible,
    Send,
    /// A commit; if it belongs to a round, the note says to which.
    Commit,
    /// A vote of yes: the state is written, and becomes committed if the round commits.
    Prepare,
    /// The round that was prepared for has come to nothing.
    Abort,
    /// Queued log records are durable.
    Flush,
    /// A bug has begun to do its work, where that is known.
    Fault,
    /// The program has failed by its own fault.
    Crash,
    /// The program was stopped by something else: a kill, a power cut.
    Kill,
    /// The process stands again at an earlier event; the note says at which.
    Recover,
}

/// What makes an event survive a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fate {
    /// Nothing yet.
    Open,
    /// It is a commit, or one with a commit.
    Commit,
    /// Its result is in the log, durably.
    Log,
    /// Its result will be in the log after the next flush.
    Queue,
    /// Its result was fed from the log, so it was determined.
    Replay,
}

impl Class {
    pub const ALL: [Class; 13] = [
        Class::NonDeterministic,
        Class::Fixed,
        Class::Receive,
        Class::Visible,
        Class::Send,
        Class::Commit,
        Class::Prepare,
        Class::Abort,
        Class::Flush,
        Class::Fault,
        Class::Crash,
        Class::Kill,
        Class::Recover,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Class::NonDeterministic => "nd",
            Class::Fixed => "fixed",
            Class::Receive => "receive",
            Class::Visible => "visible",
            Class::Send => "send",
            Class::Commit => "commit",
            Class::Prepare => "prepare",
            Class::Abort => "abort",
            Class::Flush => "flush",
            Class::Fault => "fault",
            Class::Crash => "crash",
            Class::Kill => "kill",
            Class::Recover => "recover",
        }
    }

    pub fn from_name(name: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|c| c.name() == name)
    }

    /// Whether re-execution may see another result, if nothing is done about it.
    pub const fn is_non_deterministic(self) -> bool {
        matches!(
            self,
            Class::NonDeterministic | Class::Fixed | Class::Receive
        )
    }
}

impl Fate {
    pub const ALL: [Fate; 5] = [
        Fate::Open,
        Fate::Commit,
        Fate::Log,
        Fate::Queue,
        Fate::Replay,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Fate::Open => "-",
            Fate::Commit => "commit",
            Fate::Log => "log",
            Fate::Queue => "queue",
            Fate::Replay => "replay",
        }
    }

    pub fn from_name(name: &str) -> Option<Fate> {
        Fate::ALL.into_iter().find(|f| f.name() == name)
    }
}
