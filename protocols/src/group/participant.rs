//! A member of a group: it writes its state when asked, votes, waits, and goes back when told.
//!
//! The image belongs to the same durable store as the checkpoint. A vote leaves only when both the
//! tentative checkpoint and the image that says *prepared* are durable, and by one and the same
//! store, for a member that comes back knows only what its image says.

use super::{Generation, Round, ToCoordinator, ToMember};

/// Where a member stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Standing {
    /// The program runs.
    Working = 0,
    /// Voted yes; the program waits for the outcome.
    Prepared = 1,
    /// Died after the vote and came back: there is no program to go on, only the two checkpoints.
    InDoubt = 2,
    /// Died and came back; what it did since the last round is lost, and the group must go back.
    Lost = 3,
    /// At the last committed round, waiting for the others to be there too.
    Waiting = 4,
}

/// What a member is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ParticipantEvent {
    FromCoordinator(ToMember),
    /// The protocol asks for a global commit; the program waits until [`Act::proceed`].
    CommitWanted,
    /// The tentative checkpoint could not be written: said instead of sending the vote.
    CannotPrepare,
    /// Nothing has come for a while.
    Timeout,
}

/// What a member must do, in this order, the image being made durable with the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Act {
    /// Write the program's state as a tentative checkpoint.
    pub prepare: bool,
    /// The tentative checkpoint is the committed one from now on.
    pub promote: bool,
    /// The tentative checkpoint is void.
    pub discard: bool,
    /// Put the program back to its committed checkpoint, and drop every message that arrives until
    /// it runs: it was sent before its sender went back.
    pub restore: bool,
    /// The program may run (again).
    pub run: bool,
    /// The commit that was wanted is made.
    pub proceed: bool,
    pub reply: Option<ToCoordinator>,
}

/// One member's side of two-phase commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(C)]
pub struct Participant {
    /// The last round prepared, or known to have been aborted. A later word on an earlier round is
    /// an echo.
    seen: Round,
    generation: Generation,
    standing: u8,
    wanted: u8,
    reserved: [u8; 6],
}

impl Participant {
    /// A member of a new group.
    pub const fn new() -> Self {
        Participant {
            seen: 0,
            generation: 0,
            standing: Standing::Working as u8,
            wanted: 0,
            reserved: [0; 6],
        }
    }

    /// A member that joins a group between rounds, its state committed.
    pub const fn joining(committed: Round, generation: Generation) -> Self {
        Participant {
            seen: committed,
            generation,
            ..Participant::new()
        }
    }

    /// Where it stands. Bits that are no standing are a member whose work is lost.
    pub const fn standing(&self) -> Standing {
        match self.standing {
            0 => Standing::Working,
            1 => Standing::Prepared,
            2 => Standing::InDoubt,
            4 => Standing::Waiting,
            _ => Standing::Lost,
        }
    }

    /// The last round it prepared for, or knows to have been aborted.
    pub const fn seen(&self) -> Round {
        self.seen
    }

    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The member that comes back from its image after its process has died.
    #[must_use]
    pub fn revived(self) -> (Self, Act) {
        let mut back = self;
        back.wanted = 0;
        back.standing = match self.standing() {
            Standing::Prepared | Standing::InDoubt => Standing::InDoubt,
            Standing::Working | Standing::Lost => Standing::Lost,
            // It was at the committed round and had not gone on from there.
            Standing::Waiting => Standing::Waiting,
        } as u8;
        let act = back.timeout();
        (back, act)
    }

    pub fn step(&mut self, event: ParticipantEvent) -> Act {
        match event {
            ParticipantEvent::FromCoordinator(message) => match message {
                ToMember::Prepare { round } => self.prepare(round),
                ToMember::Commit { round } => self.commit(round),
                ToMember::Abort { round } => self.abort(round),
                ToMember::RollBack {
                    generation,
                    committed,
                } => self.roll_back(generation, committed),
                ToMember::Resume { generation } => self.resume(generation),
            },
            ParticipantEvent::CommitWanted => {
                self.wanted = 1;
                self.timeout()
            }
            ParticipantEvent::CannotPrepare if self.standing() == Standing::Prepared => {
                self.set(Standing::Working);
                let round = self.seen;
                Act {
                    discard: true,
                    run: self.wanted == 0,
                    reply: no(round),
                    ..Act::default()
                }
            }
            ParticipantEvent::CannotPrepare => Act::default(),
            ParticipantEvent::Timeout => self.timeout(),
        }
    }

    fn set(&mut self, standing: Standing) {
        self.standing = standing as u8;
    }

    /// Repeats what it waits for.
    fn timeout(&self) -> Act {
        let reply = match self.standing() {
            Standing::Working if self.wanted == 0 => None,
            Standing::Working => Some(ToCoordinator::Ask { after: self.seen }),
            Standing::Prepared | Standing::InDoubt => {
                Some(ToCoordinator::Inquire { round: self.seen })
            }
            Standing::Lost => Some(ToCoordinator::Lost {
                generation: self.generation,
            }),
            Standing::Waiting => Some(ToCoordinator::RolledBack {
                generation: self.generation,
            }),
        };
        Act {
            reply,
            ..Act::default()
        }
    }

    fn prepare(&mut self, round: Round) -> Act {
        if round <= self.seen {
            return Act::default();
        }
        match self.standing() {
            Standing::Working => {
                self.seen = round;
                self.set(Standing::Prepared);
                let reply = Some(ToCoordinator::Yes { round });
                Act {
                    prepare: true,
                    reply,
                    ..Act::default()
                }
            }
            // Its answer is what it would have said anyway; none of them is a yes.
            _ => self.timeout(),
        }
    }

    fn commit(&mut self, round: Round) -> Act {
        if round != self.seen {
            return Act::default();
        }
        match self.standing() {
            Standing::Prepared => {
                self.set(Standing::Working);
                let proceed = self.wanted != 0;
                self.wanted = 0;
                Act {
                    promote: true,
                    run: true,
                    proceed,
                    ..Act::default()
                }
            }
            Standing::InDoubt => {
                self.set(Standing::Working);
                Act {
                    promote: true,
                    restore: true,
                    run: true,
                    ..Act::default()
                }
            }
            _ => Act::default(),
        }
    }

    fn abort(&mut self, round: Round) -> Act {
        if round < self.seen {
            return Act::default();
        }
        match self.standing() {
            Standing::Prepared if round == self.seen => {
                self.set(Standing::Working);
                Act {
                    discard: true,
                    run: self.wanted == 0,
                    ..self.timeout()
                }
            }
            Standing::InDoubt if round == self.seen => {
                self.set(Standing::Lost);
                Act {
                    discard: true,
                    ..self.timeout()
                }
            }
            Standing::Prepared | Standing::InDoubt => Act::default(),
            _ => {
                self.seen = round;
                Act::default()
            }
        }
    }

    fn roll_back(&mut self, generation: Generation, committed: Round) -> Act {
        if generation < self.generation {
            return Act::default();
        }
        let reply = Some(ToCoordinator::RolledBack { generation });
        if generation == self.generation {
            // A question of a coordinator that came back. A member whose work is lost must say so
            // and not confirm: this generation is not whole.
            return match self.standing() {
                Standing::Lost => self.timeout(),
                _ => Act {
                    reply,
                    ..Act::default()
                },
            };
        }
        let in_hand = matches!(self.standing(), Standing::Prepared | Standing::InDoubt);
        let promote = in_hand && self.seen == committed;
        self.generation = generation;
        self.wanted = 0;
        self.set(Standing::Waiting);
        Act {
            promote,
            discard: in_hand && !promote,
            restore: true,
            reply,
            ..Act::default()
        }
    }

    fn resume(&mut self, generation: Generation) -> Act {
        if generation != self.generation || self.standing() != Standing::Waiting {
            return Act::default();
        }
        self.set(Standing::Working);
        Act {
            run: true,
            ..Act::default()
        }
    }
}

impl Default for Participant {
    fn default() -> Self {
        Participant::new()
    }
}

fn no(round: Round) -> Option<ToCoordinator> {
    Some(ToCoordinator::No { round })
}
