//! One state of a group: the machines, the messages, and what an onlooker who knows everything
//! remembers in order to judge them.
//!
//! A message that was ever sent can be delivered at any time, any number of times, or never. That
//! is the strongest network there is, and it makes losses and repetitions free of extra states. A
//! death and the coming back are one step: being away for long looks like slow messages.

use protocols::group::{
    Act, Coordinator, CoordinatorEvent, Member, Members, Orders, Participant, ParticipantEvent,
    Standing, ToCoordinator, ToMember,
};
use std::collections::{BTreeMap, BTreeSet};

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    pub members: u32,
    /// Global commits that members want.
    pub wishes: u32,
    /// Deaths of members.
    pub deaths: u32,
    /// Deaths of the coordinator.
    pub lives: u32,
    /// Timeouts of the coordinator while it counts votes, and states that cannot be written.
    pub timeouts: u32,
    /// Deaths of members that the coordinator hears of from others.
    pub rumours: u32,
}

/// A rule taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// The coordinator decides on the first yes.
    CommitAtFirstYes,
    /// The coordinator speaks of a commit before its record is durable.
    ForgetCommitRecord,
    /// A member that lost its work goes on as if it had not.
    HideLoss,
    /// A member prepares for a round it has seen the end of.
    PrepareForAnEcho,
    /// A coordinator that comes back numbers its rounds as before.
    ReuseRoundNumbers,
    /// A member in doubt does not ask.
    PresumeAbortInDoubt,
    /// A member that has gone back does not wait for the others.
    GoOnBeforeOthersAreBack,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Property {
    /// When a round is decided, every member has written its state for it, once, and waits.
    RoundIsWhole,
    /// Nobody drops what a decided round committed, or commits what was not decided; whoever goes
    /// back in one generation goes back to the same round.
    Agreement,
    /// A decided round holds no work that depends on work that somebody lost.
    NoLostWorkIsCommitted,
    /// No two members run in different generations.
    GenerationsNeverMeet,
    /// From everywhere the group can get back to work without further deaths.
    EverybodyGoesOn,
}

/// A member's tentative checkpoint, as the onlooker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Tentative {
    round: u64,
    generation: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct World {
    bounds: Bounds,
    mutant: Option<Mutant>,
    coordinator: Coordinator,
    durable: Coordinator,
    members: Vec<Participant>,
    to_members: BTreeSet<(Member, ToMember)>,
    to_coordinator: BTreeSet<(Member, ToCoordinator)>,

    /// Deaths that the coordinator may still hear of, before the member says so itself or after.
    unheard: Members,
    tentative: Vec<Option<Tentative>>,
    committed: Vec<u64>,
    last_prepared: Vec<u64>,
    /// The rounds that were decided to commit.
    pub decided: BTreeSet<u64>,
    /// Generations in which somebody lost work.
    broken: BTreeSet<u64>,
    /// Generation to the round that members went back to.
    went_back: BTreeMap<u64, u64>,
    pub coordinator_died_voting: bool,
    pub violated: Option<Property>,
}

impl World {
    pub fn new(bounds: Bounds, mutant: Option<Mutant>) -> World {
        let n = bounds.members as usize;
        let coordinator = Coordinator::new(Members::first(bounds.members));
        World {
            bounds,
            mutant,
            coordinator,
            durable: coordinator,
            members: vec![Participant::new(); n],
            to_members: BTreeSet::new(),
            to_coordinator: BTreeSet::new(),
            unheard: Members::NONE,
            tentative: vec![None; n],
            committed: vec![0; n],
            last_prepared: vec![0; n],
            decided: BTreeSet::new(),
            broken: BTreeSet::new(),
            went_back: BTreeMap::new(),
            coordinator_died_voting: false,
            violated: None,
        }
    }

    pub fn has_aborted(&self) -> bool {
        self.to_members
            .iter()
            .any(|(_, m)| matches!(m, ToMember::Abort { .. }))
    }

    pub fn in_doubt_while_committed(&self) -> bool {
        let round = self.coordinator.committed();
        self.members
            .iter()
            .zip(&self.tentative)
            .any(|(member, tentative)| {
                member.standing() == Standing::InDoubt
                    && tentative.is_some_and(|t| t.round == round)
            })
    }

    pub fn generation(&self) -> u64 {
        self.members
            .iter()
            .map(|m| m.generation())
            .max()
            .unwrap_or(0)
    }

    /// Everybody works, and nobody waits for a commit.
    pub fn is_settled(&self) -> bool {
        self.members.iter().all(|m| {
            let idle = m.clone().step(ParticipantEvent::Timeout) == Act::default();
            m.standing() == Standing::Working && idle
        })
    }

    pub fn successors(&self) -> Vec<(String, World)> {
        let mut next = Vec::new();
        let mut add = |step: String, change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            if world.mutant.is_none() {
                world.forget_the_dead_letters();
            }
            if world != *self {
                next.push((step, world));
            }
        };
        for &(to, message) in &self.to_members {
            let event = ParticipantEvent::FromCoordinator(message);
            add(format!("member {to} gets {message:?}"), &|w| {
                w.tell_member(to, event)
            });
        }
        for &(to, message) in self.to_members.iter().filter(|_| self.bounds.timeouts > 0) {
            if matches!(message, ToMember::Prepare { .. }) {
                let event = ParticipantEvent::FromCoordinator(message);
                add(format!("member {to} cannot write for {message:?}"), &|w| {
                    w.bounds.timeouts -= 1;
                    w.fail_to_prepare(to, event);
                });
            }
        }
        for &(from, message) in &self.to_coordinator {
            let event = CoordinatorEvent::From(from, message);
            add(format!("coordinator gets {message:?} from {from}"), &|w| {
                w.tell_coordinator(event)
            });
        }
        for member in 0..self.members.len() as Member {
            let standing = self.members[member as usize].standing();
            if self.unheard.contains(member) {
                add(
                    format!("coordinator hears that member {member} died"),
                    &|w| {
                        w.unheard = w.unheard.without(member);
                        w.tell_coordinator(CoordinatorEvent::Died(member));
                    },
                );
            }
            add(format!("member {member} repeats"), &|w| {
                w.tell_member(member, ParticipantEvent::Timeout);
            });
            if self.bounds.wishes > 0 && standing == Standing::Working {
                add(format!("member {member} wants a commit"), &|w| {
                    w.bounds.wishes -= 1;
                    w.tell_member(member, ParticipantEvent::CommitWanted);
                });
            }
            if self.bounds.deaths > 0 {
                add(format!("member {member} dies"), &|w| w.kill_member(member));
            }
        }
        if self.bounds.lives > 0 {
            add("coordinator dies".into(), &|w| w.kill_coordinator());
        }
        if !self.coordinator.is_voting() {
            add("coordinator repeats".into(), &|w| {
                w.tell_coordinator(CoordinatorEvent::Timeout)
            });
        } else if self.bounds.timeouts > 0 {
            add("coordinator gives up".into(), &|w| {
                w.bounds.timeouts -= 1;
                w.tell_coordinator(CoordinatorEvent::Timeout);
            });
        }
        next
    }

    /// Drops what no delivery, now or later, could act upon: words about rounds and generations
    /// that their receiver has left behind, whose numbers never come back. (Under a mutant they
    /// may, so there nothing is dropped.)
    fn forget_the_dead_letters(&mut self) {
        let members = &self.members;
        self.to_members.retain(|(to, message)| {
            let member = &members[*to as usize];
            match *message {
                ToMember::Prepare { round } => round > member.seen(),
                ToMember::Commit { round } | ToMember::Abort { round } => {
                    let waits = matches!(member.standing(), Standing::Prepared | Standing::InDoubt);
                    round > member.seen() || (waits && round == member.seen())
                }
                ToMember::RollBack { generation, .. } => generation >= member.generation(),
                ToMember::Resume { generation } => generation >= member.generation(),
            }
        });
        let coordinator = &self.coordinator;
        self.to_coordinator
            .retain(|(from, message)| match *message {
                ToCoordinator::Ask { after } => after >= coordinator.committed(),
                ToCoordinator::Yes { round } | ToCoordinator::No { round } => {
                    coordinator.is_voting() && round == coordinator.begun()
                }
                ToCoordinator::Inquire { round } => round >= members[*from as usize].seen(),
                ToCoordinator::Lost { generation } | ToCoordinator::RolledBack { generation } => {
                    generation >= coordinator.generation()
                }
            });
        let oldest = members.iter().map(|m| m.generation()).min().unwrap_or(0);
        self.broken.retain(|generation| *generation >= oldest);
        self.went_back.retain(|generation, _| *generation >= oldest);
    }

    fn tell_coordinator(&mut self, event: CoordinatorEvent) {
        let mut orders = self.coordinator.step(event);
        if self.mutant == Some(Mutant::CommitAtFirstYes) {
            orders = self.count_for_all(event).unwrap_or(orders);
        }
        self.obey(orders);
    }

    /// A yes, taken for everybody's; what the coordinator orders then.
    fn count_for_all(&mut self, event: CoordinatorEvent) -> Option<Orders> {
        let CoordinatorEvent::From(_, yes @ ToCoordinator::Yes { .. }) = event else {
            return None;
        };
        let mut votes = self.coordinator.members().iter();
        votes.find_map(|member| {
            let orders = self.coordinator.step(CoordinatorEvent::From(member, yes));
            orders.force.then_some(orders)
        })
    }

    fn obey(&mut self, orders: Orders) {
        let forgetful = self.mutant == Some(Mutant::ForgetCommitRecord);
        let commits = matches!(orders.send[0], Some((_, ToMember::Commit { .. })));
        if orders.force && commits {
            self.judge_decision();
        }
        if orders.force && !(forgetful && commits) {
            self.durable = self.coordinator;
        }
        for (to, message) in orders.send.into_iter().flatten() {
            self.to_members
                .extend(to.iter().map(|member| (member, message)));
        }
    }

    /// At the instant of the decision, before anybody hears of it.
    fn judge_decision(&mut self) {
        let round = self.coordinator.committed();
        let mut generations = BTreeSet::new();
        for tentative in &self.tentative {
            match tentative {
                Some(t) if t.round == round => generations.insert(t.generation),
                _ => return self.violate(Property::RoundIsWhole),
            };
        }
        if generations.len() > 1 || !self.broken.is_disjoint(&generations) {
            self.violate(Property::NoLostWorkIsCommitted);
        }
        self.decided.insert(round);
    }

    fn tell_member(&mut self, member: Member, event: ParticipantEvent) {
        let at = member as usize;
        let before = self.members[at];
        match event {
            ParticipantEvent::FromCoordinator(ToMember::Prepare { round })
                if self.mutant == Some(Mutant::PrepareForAnEcho)
                    && before.standing() == Standing::Working =>
            {
                self.members[at] = Participant::joining(round - 1, before.generation());
            }
            _ => {}
        }
        let act = self.members[at].step(event);
        self.act(member, before, act);
        if self.mutant == Some(Mutant::GoOnBeforeOthersAreBack)
            && self.members[at].standing() == Standing::Waiting
        {
            let generation = self.members[at].generation();
            let resume = ParticipantEvent::FromCoordinator(ToMember::Resume { generation });
            self.members[at].step(resume);
        }
        self.judge_generations();
    }

    /// The vote is not sent, since what it promises could not be written.
    fn fail_to_prepare(&mut self, member: Member, prepare: ParticipantEvent) {
        let at = member as usize;
        let before = self.members[at];
        if self.members[at].step(prepare).prepare {
            let act = self.members[at].step(ParticipantEvent::CannotPrepare);
            self.last_prepared[at] = self.members[at].seen();
            self.act(
                member,
                before,
                Act {
                    discard: false,
                    ..act
                },
            );
        } else {
            self.members[at] = before;
        }
    }

    fn act(&mut self, member: Member, before: Participant, act: Act) {
        let at = member as usize;
        if act.prepare {
            let Some(ToCoordinator::Yes { round }) = act.reply else {
                return self.violate(Property::RoundIsWhole);
            };
            if round <= self.last_prepared[at] {
                return self.violate(Property::RoundIsWhole);
            }
            self.last_prepared[at] = round;
            let generation = before.generation();
            self.tentative[at] = Some(Tentative { round, generation });
        }
        if act.promote || act.discard {
            let Some(tentative) = self.tentative[at].take() else {
                return self.violate(Property::RoundIsWhole);
            };
            // A round is written down at most once by each member, so its number says what it holds.
            if act.promote != self.decided.contains(&tentative.round) {
                self.violate(Property::Agreement);
            }
            if act.promote {
                self.committed[at] = tentative.round;
            }
        }
        if act.discard && before.standing() == Standing::InDoubt {
            self.broken.insert(before.generation());
        }
        let generation = self.members[at].generation();
        if generation != before.generation() {
            let round = *self
                .went_back
                .entry(generation)
                .or_insert(self.committed[at]);
            if round != self.committed[at] {
                self.violate(Property::Agreement);
            }
        }
        self.to_coordinator
            .extend(act.reply.map(|reply| (member, reply)));
    }

    fn judge_generations(&mut self) {
        let running = self
            .members
            .iter()
            .filter(|m| m.standing() == Standing::Working);
        let generations: BTreeSet<u64> = running.map(|m| m.generation()).collect();
        if generations.len() > 1 {
            self.violate(Property::GenerationsNeverMeet);
        }
    }

    fn kill_member(&mut self, member: Member) {
        self.bounds.deaths -= 1;
        if self.bounds.rumours > 0 {
            self.bounds.rumours -= 1;
            self.unheard = self.unheard.with(member);
        }
        let at = member as usize;
        let before = self.members[at];
        if before.standing() == Standing::Working {
            self.broken.insert(before.generation());
        }
        let (mut back, act) = before.revived();
        if self.mutant == Some(Mutant::HideLoss) && back.standing() == Standing::Lost {
            back = Participant::joining(before.seen(), before.generation());
            self.members[at] = back;
            return;
        }
        self.members[at] = back;
        self.act(member, before, act);
        let in_doubt = self.tentative[at].filter(|_| back.standing() == Standing::InDoubt);
        match in_doubt {
            Some(tentative) if self.mutant == Some(Mutant::PresumeAbortInDoubt) => {
                let abort = ToMember::Abort {
                    round: tentative.round,
                };
                self.tell_member(member, ParticipantEvent::FromCoordinator(abort));
            }
            _ => {}
        }
    }

    fn kill_coordinator(&mut self) {
        self.bounds.lives -= 1;
        self.coordinator_died_voting |= self.coordinator.is_voting();
        if self.mutant == Some(Mutant::ReuseRoundNumbers) {
            self.coordinator = self.durable;
            return;
        }
        let (back, orders) = self.durable.revived();
        self.coordinator = back;
        self.obey(orders);
    }

    fn violate(&mut self, property: Property) {
        self.violated.get_or_insert(property);
    }
}
