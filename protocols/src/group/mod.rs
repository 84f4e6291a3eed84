//! Two-phase commit over a group of processes, with presumed abort.
//!
//! Under CPV-2PC and CBNDV-2PC a process that is about to show something asks for a *round*: every
//! member writes its state tentatively, votes, and makes it its committed state when the coordinator
//! says that all have voted yes. Two things make this smaller than the textbook's protocol.
//!
//! - The group always commits together, and a member that has voted waits. So a member that asks
//!   about a round asks about the latest one, and the coordinator's whole memory is the number of
//!   the last committed round: there is nothing to acknowledge and nothing to forget.
//! - A member that dies between rounds takes uncommitted events with it on which others may depend
//!   by messages. No dependencies are tracked, so every member goes back to the last committed
//!   round. The time between two such returns is a *generation*. Nobody goes on in a new generation
//!   before all have left the old one, so that no message crosses from one into the other.
//!
//! A network may lose, repeat and reorder the messages. Members and coordinator may die at any
//! point; each comes back from its image, which must be durable before the messages of the same
//! step leave. Nobody measures time here: whoever runs a machine tells it of a timeout, and every
//! machine answers one by repeating what it waits for.
//!
//! A process joins and leaves a group between rounds. What it leaves behind must be committed, so
//! it leaves after a round.

mod coordinator;
mod participant;

pub use coordinator::{Coordinator, CoordinatorEvent, Orders};
pub use participant::{Act, Participant, ParticipantEvent, Standing};

/// A member's number in its group.
pub type Member = u8;

/// The largest number of members, the width of a [`Members`].
pub const MEMBERS_MAX: u32 = u64::BITS;

/// A set of members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Members(pub u64);

impl Members {
    pub const NONE: Members = Members(0);

    /// The members 0 to `count - 1`.
    pub const fn first(count: u32) -> Members {
        assert!(count <= MEMBERS_MAX);
        Members(if count == MEMBERS_MAX {
            u64::MAX
        } else {
            (1 << count) - 1
        })
    }

    pub const fn contains(self, member: Member) -> bool {
        (member as u32) < MEMBERS_MAX && self.0 & (1 << member) != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn with(self, member: Member) -> Members {
        Members(self.0 | (1 << member))
    }

    #[must_use]
    pub const fn without(self, member: Member) -> Members {
        Members(self.0 & !(1 << member))
    }

    /// The members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Member> {
        (0..MEMBERS_MAX as Member).filter(move |m| self.contains(*m))
    }
}

/// The number of a round. Numbers only rise, also over the coordinator's deaths.
pub type Round = u64;

/// The number of a generation.
pub type Generation = u64;

/// What a coordinator says to members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum ToMember {
    /// Write your state tentatively and vote.
    Prepare { round: Round },
    /// All voted yes: what you wrote is your committed state.
    Commit { round: Round },
    /// Drop what you wrote and go on.
    Abort { round: Round },
    /// Go back to round `committed`, and wait there.
    RollBack {
        generation: Generation,
        committed: Round,
    },
    /// All have gone back: go on.
    Resume { generation: Generation },
}

/// What a member says to its coordinator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum ToCoordinator {
    /// A round, please, later than `after`, the last one I know of.
    Ask { after: Round },
    /// My state is written, and I wait.
    Yes { round: Round },
    /// I could not write it.
    No { round: Round },
    /// What came of that round?
    Inquire { round: Round },
    /// I died, and what I did since the last round is lost.
    Lost { generation: Generation },
    /// I have gone back, and wait.
    RolledBack { generation: Generation },
}
