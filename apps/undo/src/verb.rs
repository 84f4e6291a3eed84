//! What a service must tell the undo manager: its verbs, and how to carry them out.
//!
//! A verb is one interaction of a user that changes state or shows state (paper, section 3.2). To
//! the manager it is a value with six questions. Three are about order ([`Verb::commutes`],
//! [`Verb::independent`], [`Verb::prefers`]) and need the verbs alone. Three are about consistency
//! ([`Service::consistent`], [`Service::compensate`], [`Service::squash`]) and may need the
//! service, so they belong to it. Nothing in this crate knows what a verb means.

use std::cmp::Ordering;
use std::fmt::{Debug, Display};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::timeline::{Epoch, Lsn};

/// An interaction of a user with the service, by intent and with names that do not depend on
/// today's state of the service.
pub trait Verb: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static {
    /// Both orders of the two verbs give the same results.
    fn commutes(&self, other: &Self) -> bool;
    /// The two verbs may be executed at the same time.
    fn independent(&self, other: &Self) -> bool;
    /// Which of two waiting verbs that do not commute should be executed first: `Less` means
    /// `self`. `Equal` leaves them in the order of their arrival.
    fn prefers(&self, other: &Self) -> Ordering;
    /// Whether the user waits for the outcome.
    fn timing(&self) -> Timing;
    /// What the verb does to the state.
    fn access(&self) -> Access<Self>;
    /// Whether its user may hear of its success only when it is on stable storage. What does not
    /// wait is there within [`crate::Settings::sync_shown_ms`].
    fn is_durable(&self) -> bool {
        !matches!(self.access(), Access::Reads)
    }
    /// What an operator can search for, and see in a list.
    fn about(&self) -> About;
    /// The part of this verb that concerns `scope` (one user, one folder), for a cycle that is
    /// limited to it. `None`: the verb has nothing to do with it.
    fn within(&self, scope: &str) -> Option<Self> {
        let _ = scope;
        Some(self.clone())
    }
    /// Whether the part of this verb within `scope` cannot be executed without what lies outside,
    /// which a limited cycle leaves as it is: then the scope that has both.
    fn reaches_outside(&self, scope: &str) -> Option<String> {
        let _ = scope;
        None
    }
}

/// Whether the user waits for the outcome of a verb (paper, section 3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// The user sees success or failure at once. A failure is not recorded.
    Synchronous,
    /// The user hears of a failure only when `window` has passed. Until then it is tried again.
    Asynchronous { window: Duration },
}

/// What a verb does to the state, which decides what becomes of it while a cycle is under way.
#[derive(Debug, Clone)]
pub enum Access<V> {
    /// It shows state and changes nothing.
    Reads,
    /// It shows state and changes some; this form of it only shows.
    ReadsAs(V),
    /// It changes state, and there is no form of it that does not.
    Writes,
}

/// A verb as an operator sees it. A field that makes no sense for a verb is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub kind: String,
    pub user: String,
    pub folder: String,
    pub sender: String,
    pub subject: String,
    /// The whole verb in one line.
    pub line: String,
}

/// Whether a verb did what it was meant to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Done,
    Failed(String),
}

/// What came of a verb: its status, and the tag, a record (usually hashes) of what it showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome<T> {
    pub status: Status,
    pub tag: T,
}

impl<T> Outcome<T> {
    pub fn done(tag: T) -> Self {
        Outcome {
            status: Status::Done,
            tag,
        }
    }
    pub fn failed(why: impl Display, tag: T) -> Self {
        Outcome {
            status: Status::Failed(why.to_string()),
            tag,
        }
    }
    pub fn is_done(&self) -> bool {
        self.status == Status::Done
    }
}

/// Under which circumstances a verb is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For the first time, for a user who may be waiting.
    Normal,
    /// For a user, while the service is in an undo cycle: the verb is of a form that only reads.
    ReadOnly,
    /// Again, from the timeline.
    Replay(Epoch),
    /// The last execution was cut short: perhaps it happened, perhaps not, perhaps half of it.
    /// After this execution it must have happened once.
    Settle,
}

/// One execution of a verb.
#[derive(Debug)]
pub struct Call<'a, V> {
    pub verb: &'a V,
    pub lsn: Lsn,
    /// When the user asked for it, in microseconds since 1970. The same at each execution.
    pub time_us: u64,
    pub mode: Mode,
}

/// What a verb that is affected by an inconsistency becomes (paper, section 3.2.1).
#[derive(Debug)]
pub enum Squash<V> {
    /// It is harmless as it is.
    Unchanged,
    /// Another verb is executed in its place.
    Changed(V, String),
    /// Nothing is executed; the service has told the user.
    Cancelled(String),
}

/// What came of a compensation.
#[derive(Debug)]
pub struct Compensation<T> {
    /// What was done, for the operator's list.
    pub words: String,
    /// What the verb has come to after all, if the compensation made it succeed.
    pub outcome: Option<Outcome<T>>,
}

/// Why the state of the service is about to be taken or exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// A snapshot: what was acknowledged must be in files. The service may go on running unless
    /// `files_closed`, when it must not hold any file open.
    Snapshot { files_closed: bool },
    /// A rewind: the state is exchanged beneath the service. It must forget all that it knows.
    Rewind,
    /// A replay is about to begin. What is done until it ends need not be on stable storage, for a
    /// replay that is cut short begins again, from a snapshot that is.
    ReplayBegins,
    /// It has ended, and what was done is brought to stable storage as a whole.
    ReplayEnds,
}

/// The service below, and the rules of its consistency.
pub trait Service: Send + Sync + 'static {
    type Verb: Verb;
    /// A record of what a verb has shown to the outside; usually hashes of it.
    type Tag: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static;
    /// What differs between two executions, in a form that a compensation can work with.
    type Inconsistency: Display + Clone + Debug + Send + Sync + 'static;
    /// What a user gets to see; the tag is made of it. It is not recorded.
    type Answer: Send + 'static;

    /// Carries out a verb. The same code serves users and replays.
    fn execute(&self, call: &Call<Self::Verb>) -> (Outcome<Self::Tag>, Self::Answer);

    /// Compares the outcome that the user knows with that of a replay.
    fn consistent(
        &self,
        verb: &Self::Verb,
        original: &Outcome<Self::Tag>,
        replayed: &Outcome<Self::Tag>,
    ) -> std::result::Result<(), Self::Inconsistency>;

    /// Makes up for an inconsistency, or explains it to the user.
    fn compensate(
        &self,
        call: &Call<Self::Verb>,
        what: &Self::Inconsistency,
        replayed: &Outcome<Self::Tag>,
    ) -> Result<Compensation<Self::Tag>>;

    /// Decides what becomes of a verb that does not commute with earlier inconsistent ones.
    fn squash(
        &self,
        call: &Call<Self::Verb>,
        because: &[Self::Inconsistency],
    ) -> Squash<Self::Verb>;

    /// Tells the user that an asynchronous verb has failed so far and will be tried again.
    fn report_attempt(&self, call: &Call<Self::Verb>, outcome: &Outcome<Self::Tag>) {
        let _ = (call, outcome);
    }

    /// Whether the service answers at all. A replay that meets a failure asks, so that a server
    /// that is down is an error of the replay and not a paradox of each verb.
    fn ready(&self) -> Result<()>;

    /// Tells the user that an asynchronous verb has failed for good. May be called twice for the
    /// same verb if the machine dies in between.
    fn report_failure(&self, call: &Call<Self::Verb>, outcome: &Outcome<Self::Tag>) -> Result<()>;

    /// Makes the service hold still; [`Service::resume`] follows, also after an error.
    fn quiesce(&self, pause: Pause) -> Result<()>;

    /// Lets the service go on, from whatever state is there now.
    fn resume(&self, pause: Pause) -> Result<()>;

    /// The paths, below the live state, that belong to a scope. `None`: there is no such scope.
    fn scope_paths(&self, scope: &str) -> Option<Vec<std::path::PathBuf>> {
        let _ = scope;
        None
    }

    /// Whether such a part of the service is known to be there, or to have been: a limited cycle
    /// of one that is not would do nothing.
    fn has_scope(&self, scope: &str) -> bool {
        let _ = scope;
        true
    }
}
