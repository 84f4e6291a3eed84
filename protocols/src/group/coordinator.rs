//! The coordinator of a group: it numbers the rounds, counts the votes, and brings everybody back
//! when somebody's work is lost.
//!
//! The image is the whole machine, but only three numbers in it matter to a coordinator that comes
//! back: the last committed round, the generation, and how often it has come back. The votes may be
//! lost; a round without a record is aborted.

use super::{Generation, Member, Members, Round, ToCoordinator, ToMember};

/// What a coordinator is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CoordinatorEvent {
    From(Member, ToCoordinator),
    /// The member's process is gone. Sooner than a timeout, but not needed: a member that comes
    /// back says so itself.
    Died(Member),
    /// Nothing has come for a while.
    Timeout,
}

/// What a coordinator wants done: its image made durable first if `force`, then the same message
/// sent to every member named. One step sends at most two kinds of message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Orders {
    /// The image must be durable before anything is sent.
    pub force: bool,
    pub send: [Option<(Members, ToMember)>; 2],
}

impl Orders {
    const NONE: Orders = Orders {
        force: false,
        send: [None; 2],
    };

    fn one(to: Members, message: ToMember) -> Orders {
        Orders {
            force: false,
            send: [Some((to, message)), None],
        }
    }
}

/// One group's coordinator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(C)]
pub struct Coordinator {
    members: Members,
    /// The last round that committed; 0 is the members' initial state.
    committed: Round,
    generation: Generation,
    /// How often the coordinator has come back: the upper half of every round's number.
    lives: u64,
    /// The last round begun.
    begun: Round,
    /// Whether `begun` is undecided.
    voting: u64,
    yes: Members,
    /// Members that have not confirmed this generation; no round is begun while there are any.
    behind: Members,
}

impl Coordinator {
    /// The coordinator of a new group, whose members' initial states are committed.
    pub const fn new(members: Members) -> Self {
        Coordinator {
            members,
            committed: 0,
            generation: 0,
            lives: 0,
            begun: 0,
            voting: 0,
            yes: Members::NONE,
            behind: Members::NONE,
        }
    }

    pub const fn members(&self) -> Members {
        self.members
    }

    /// The last committed round.
    pub const fn committed(&self) -> Round {
        self.committed
    }

    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The last round begun, and perhaps not decided.
    pub const fn begun(&self) -> Round {
        self.begun
    }

    /// Whether a round is being voted on.
    pub const fn is_voting(&self) -> bool {
        self.voting != 0
    }

    /// Takes a member in, or lets one go, between rounds; says whether it did.
    pub fn set_members(&mut self, members: Members) -> bool {
        if self.is_voting() || !self.behind.is_empty() {
            return false;
        }
        self.members = members;
        true
    }

    /// The coordinator that comes back from its image. The image must be durable before it speaks,
    /// or a round's number could be used twice.
    #[must_use]
    pub fn revived(self) -> (Self, Orders) {
        let mut back = self;
        back.lives += 1;
        back.begun = back.lives << 32;
        back.voting = 0;
        back.yes = Members::NONE;
        // Who has confirmed the generation is not in the record, so all are asked again. For those
        // who live in it already that is a question, not an order.
        back.behind = back.members;
        let mut orders = back.roll_back();
        orders.force = true;
        (back, orders)
    }

    pub fn step(&mut self, event: CoordinatorEvent) -> Orders {
        match event {
            CoordinatorEvent::From(by, _) if !self.members.contains(by) => Orders::NONE,
            CoordinatorEvent::From(by, message) => match message {
                ToCoordinator::Ask { after } => self.ask(after),
                ToCoordinator::Yes { round } => self.yes(by, round),
                ToCoordinator::No { round } if self.is_round(round) => self.abort(),
                ToCoordinator::No { .. } => Orders::NONE,
                ToCoordinator::Inquire { round } => self.answer(by, round),
                ToCoordinator::Lost { generation } => self.lost(generation),
                ToCoordinator::RolledBack { generation } => self.confirmed(by, generation),
            },
            CoordinatorEvent::Died(who) if self.is_voting() && !self.yes.contains(who) => {
                self.abort()
            }
            CoordinatorEvent::Died(_) => Orders::NONE,
            CoordinatorEvent::Timeout if self.is_voting() => self.abort(),
            CoordinatorEvent::Timeout if !self.behind.is_empty() => self.roll_back(),
            CoordinatorEvent::Timeout => Orders::NONE,
        }
    }

    fn is_round(&self, round: Round) -> bool {
        self.is_voting() && round == self.begun
    }

    fn ask(&mut self, after: Round) -> Orders {
        // A round committed since the question has committed what the asker wanted committed.
        if self.is_voting() || !self.behind.is_empty() || after < self.committed {
            return Orders::NONE;
        }
        self.begun += 1;
        self.voting = 1;
        self.yes = Members::NONE;
        Orders::one(self.members, ToMember::Prepare { round: self.begun })
    }

    fn yes(&mut self, by: Member, round: Round) -> Orders {
        if !self.is_round(round) {
            return Orders::NONE;
        }
        self.yes = self.yes.with(by);
        if self.yes != self.members {
            return Orders::NONE;
        }
        self.voting = 0;
        self.committed = round;
        let mut orders = Orders::one(self.members, ToMember::Commit { round });
        orders.force = true;
        orders
    }

    /// Nothing is written: what has no record is aborted.
    fn abort(&mut self) -> Orders {
        self.voting = 0;
        Orders::one(self.members, ToMember::Abort { round: self.begun })
    }

    fn answer(&mut self, by: Member, round: Round) -> Orders {
        if self.is_round(round) {
            return Orders::NONE;
        }
        let outcome = if round == self.committed {
            ToMember::Commit { round }
        } else {
            ToMember::Abort { round }
        };
        Orders::one(Members::NONE.with(by), outcome)
    }

    fn lost(&mut self, generation: Generation) -> Orders {
        if generation < self.generation {
            return Orders::NONE;
        }
        let aborted = self.is_voting().then(|| self.abort());
        self.generation += 1;
        self.behind = self.members;
        let mut orders = self.roll_back();
        orders.force = true;
        orders.send[1] = aborted.and_then(|a| a.send[0]);
        orders
    }

    fn roll_back(&self) -> Orders {
        let (generation, committed) = (self.generation, self.committed);
        Orders::one(
            self.behind,
            ToMember::RollBack {
                generation,
                committed,
            },
        )
    }

    fn confirmed(&mut self, by: Member, generation: Generation) -> Orders {
        if generation != self.generation {
            return Orders::NONE;
        }
        let was_behind = !self.behind.is_empty();
        self.behind = self.behind.without(by);
        if !self.behind.is_empty() {
            return Orders::NONE;
        }
        let to = if was_behind {
            self.members
        } else {
            Members::NONE.with(by)
        };
        Orders::one(to, ToMember::Resume { generation })
    }
}
