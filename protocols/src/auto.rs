//! The choice of a protocol at run time, which the thesis leaves as future work.
//!
//! What a protocol would have cost need not be guessed: a protocol is a machine of eight bytes, so
//! one of each kind follows the program as a shadow, and counts the commits and log records that it
//! would have asked for. Priced with what these cost here and now, the counts are the answer.
//!
//! A shadow that does better gathers credit, event by event, and loses it when it does worse. When
//! its credit is worth several commits, it takes over. So a small advantage wins in time, a moment's
//! whim does not, and whenever the program changes its ways the loss is bounded by that credit. A
//! margin in percent, the obvious rule, would have to be small to follow small advantages and large
//! not to flap; it cannot be both.
//!
//! A program whose every turn has a phase for each of two protocols would have them take over from
//! each other without end, each move for a commit. So a move back that comes soon makes the next
//! ones dearer, and a long stay makes them cheaper again.
//!
//! Two things are outside its sight. A commit is priced alike whether it follows the last one
//! closely or after a long time, although more pages are dirty then. And only protocols of one scope
//! are compared, because a move between local and group protocols concerns every process of the
//! group at once (see [`Machine::change_to`]).

use crate::event::Event;
use crate::machine::Machine;
use crate::rules::Protocol;
use core::fmt;

/// What things cost here, as whoever runs the machine has measured it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Costs {
    pub commit_ns: u64,
    /// Appending one record to the log.
    pub record_ns: u64,
    /// And each 1024 bytes of it.
    pub record_kib_ns: u64,
    /// Making the tail of the log durable.
    pub flush_ns: u64,
}

/// What a protocol has asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Demand {
    pub commits: u64,
    pub records: u64,
    pub logged_bytes: u64,
    pub flushes: u64,
}

impl Demand {
    pub const fn cost_ns(&self, costs: &Costs) -> u64 {
        let commits = self.commits.saturating_mul(costs.commit_ns);
        let records = self.records.saturating_mul(costs.record_ns);
        let bytes = self.logged_bytes.saturating_mul(costs.record_kib_ns) / 1024;
        let flushes = self.flushes.saturating_mul(costs.flush_ns);
        commits
            .saturating_add(records)
            .saturating_add(bytes)
            .saturating_add(flushes)
    }

    fn add(&mut self, other: &Demand) {
        self.commits += other.commits;
        self.records += other.records;
        self.logged_bytes += other.logged_bytes;
        self.flushes += other.flushes;
    }
}

/// A move to another protocol, and the reason in numbers; `Display` gives it in words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    pub from: Protocol,
    pub to: Protocol,
    /// The events since `to` began to be the better one.
    pub events: u64,
    pub as_is: Demand,
    pub instead: Demand,
    pub as_is_ns: u64,
    pub instead_ns: u64,
}

/// What to do about the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    Stay,
    /// The machine may move now.
    Move(Choice),
    /// A commit made for no other reason would be worth it; ask again after it.
    CommitToMove(Choice),
}

/// Credit at which a protocol takes over, in commits: at a safe point, where moving is free, and
/// elsewhere.
const CREDIT_AT_SAFE_POINT: u64 = 2;
const CREDIT_ELSEWHERE: u64 = 5;

/// A stay that costs fewer commits than the first was too short, if the protocol before it comes
/// back; one that costs more than the second was long.
const SHORT_STAY: u64 = 16;
const LONG_STAY: u64 = 256;
/// What credit may be multiplied with for it.
const MOST_WEIGHT: u64 = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shadow {
    protocol: Protocol,
    machine: Machine,
    /// Asked for by the event that is being watched.
    now: Demand,
    /// What it and the protocol in force have asked for since it began to be better.
    events: u64,
    instead: Demand,
    as_is: Demand,
    /// It has shown something, and the storage does not have that on record.
    shown: bool,
}

/// Watches one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auto {
    shadows: [Shadow; Protocol::ALL.len()],
    in_force: Protocol,
    moves: u64,
    output_is_flushed: bool,
    /// The protocol before, what was spent since, and what moves have come to cost.
    came_from: Option<Protocol>,
    spent_ns: u64,
    weight: u64,
}

impl Auto {
    /// Begins with a protocol, whose scope it will keep to.
    pub fn new(protocol: Protocol) -> Self {
        let shadow = |protocol| Shadow {
            protocol,
            machine: Machine::new(protocol),
            now: Demand::default(),
            events: 0,
            instead: Demand::default(),
            as_is: Demand::default(),
            shown: false,
        };
        Auto {
            shadows: Protocol::ALL.map(shadow),
            in_force: protocol,
            moves: 0,
            output_is_flushed: false,
            came_from: None,
            spent_ns: 0,
            weight: 1,
        }
    }

    /// Tells whether a log must have what was shown before more is shown: on a
    /// disk, where a flush is a matter of its own.
    pub fn set_output_is_flushed(&mut self, is: bool) {
        self.output_is_flushed = is;
    }

    /// The protocol it believes to be in force.
    pub const fn in_force(&self) -> Protocol {
        self.in_force
    }

    /// How often it has moved.
    pub const fn moves(&self) -> u64 {
        self.moves
    }

    /// Several threads run, or no longer (see [`Machine::set_always_nd`]).
    pub fn set_always_nd(&mut self, several_threads: bool) {
        for shadow in &mut self.shadows {
            shadow.machine.set_always_nd(several_threads);
        }
    }

    /// The process has met an event; `bytes` is what logging it would take, if it can be logged.
    pub fn watch(&mut self, event: Event, bytes: u64, costs: &Costs) {
        // The shadows make their own commits and flushes.
        if matches!(event, Event::Committed | Event::Flushed) {
            return;
        }
        let output_is_flushed = self.output_is_flushed;
        for shadow in self.rivals_mut() {
            shadow.follow(event, bytes, output_is_flushed);
        }
        self.settle(1, costs);
    }

    /// So many results that can be logged, of so many bytes in all, came one behind the other, and
    /// the machine in force had its flag set and did nothing about them. It is as if each had been
    /// watched: until then no rival gains by such a result, so that none could have taken over.
    pub fn passed(&mut self, events: u64, bytes: u64, costs: &Costs) {
        let first = bytes.checked_div(events).unwrap_or(0);
        // The first may find a machine otherwise than it leaves it; the others are alike.
        let parts = [
            (events.min(1), first),
            (events.saturating_sub(1), bytes - first),
        ];
        for (events, bytes) in parts.into_iter().filter(|part| part.0 > 0) {
            for shadow in self.rivals_mut() {
                shadow.follow(Event::NonDeterministic { loggable: true }, bytes, false);
                shadow.now.records *= events;
                shadow.now.commits *= events;
            }
            self.settle(events, costs);
        }
    }

    /// Sets what each rival asked for, in so many events, against what the protocol in force did.
    fn settle(&mut self, events: u64, costs: &Costs) {
        let as_is = self.shadows[self.in_force as usize].now;
        self.spent_ns = self.spent_ns.saturating_add(as_is.cost_ns(costs));
        for shadow in self.rivals_mut() {
            shadow.settle(events, &as_is, costs);
        }
    }

    /// The process has done, with its last event, what no rollback undoes and no record tells of:
    /// whoever keeps a log commits, if it has not for that event.
    pub fn outlived(&mut self, costs: &Costs) {
        for shadow in self.rivals_mut() {
            let commits = shadow.protocol.logs() && shadow.now.commits == 0;
            shadow.now = Demand {
                commits: commits.into(),
                ..Demand::default()
            };
            if commits {
                shadow.machine.step(Event::Committed);
                shadow.shown = false;
            }
        }
        self.settle(0, costs);
    }

    /// Whether to move, given the machine that is in force. Cheap enough to be asked at every event.
    pub fn advise(&self, machine: &Machine, costs: &Costs) -> Advice {
        let Some(best) = self.rivals().max_by_key(|s| s.credit_ns(costs)) else {
            return Advice::Stay;
        };
        let commit = costs.commit_ns.saturating_mul(self.weight);
        let credit = |commits: u64| best.credit_ns(costs) > commits.saturating_mul(commit);
        if machine.at_safe_point() && credit(CREDIT_AT_SAFE_POINT) {
            Advice::Move(self.choice(best, costs))
        } else if credit(CREDIT_ELSEWHERE) {
            Advice::CommitToMove(self.choice(best, costs))
        } else {
            Advice::Stay
        }
    }

    /// The machine has moved; every protocol begins again without credit.
    pub fn moved(&mut self, to: Protocol, costs: &Costs) {
        let stay = self.spent_ns / costs.commit_ns.max(1);
        if self.came_from == Some(to) && stay < SHORT_STAY {
            self.weight = (self.weight * 4).min(MOST_WEIGHT);
        } else if stay > LONG_STAY {
            self.weight = (self.weight / 2).max(1);
        }
        self.came_from = Some(self.in_force);
        self.spent_ns = 0;
        self.in_force = to;
        self.moves += 1;
        for shadow in &mut self.shadows {
            shadow.forget();
        }
    }

    /// The shadows that the machine could move to, and its own.
    fn rivals(&self) -> impl Iterator<Item = &Shadow> {
        let two_phase = self.in_force.is_two_phase();
        let shadows = self.shadows.iter();
        shadows.filter(move |s| s.protocol.is_two_phase() == two_phase)
    }

    fn rivals_mut(&mut self) -> impl Iterator<Item = &mut Shadow> {
        let two_phase = self.in_force.is_two_phase();
        let shadows = self.shadows.iter_mut();
        shadows.filter(move |s| s.protocol.is_two_phase() == two_phase)
    }

    fn choice(&self, best: &Shadow, costs: &Costs) -> Choice {
        Choice {
            from: self.in_force,
            to: best.protocol,
            events: best.events,
            as_is: best.as_is,
            instead: best.instead,
            as_is_ns: best.as_is.cost_ns(costs),
            instead_ns: best.instead.cost_ns(costs),
        }
    }
}

impl Shadow {
    fn follow(&mut self, event: Event, bytes: u64, output_is_flushed: bool) {
        self.now = Demand::default();
        let decision = self.machine.step(event);
        let shows = matches!(
            event,
            Event::Visible | Event::Send | Event::VisibleNonDeterministic
        );
        let flush = decision.flush || shows && self.shown && !decision.commit_before;
        self.shown &= !flush && !decision.commits();
        self.shown |= shows && output_is_flushed && self.protocol.logs() && !decision.commit_after;
        if decision.log {
            self.now.records = 1;
            self.now.logged_bytes = bytes;
        }
        if flush {
            self.now.flushes = 1;
            self.machine.step(Event::Flushed);
        }
        self.now.commits = decision.commit_before as u64 + decision.commit_after as u64;
        if decision.commits() {
            self.machine.step(Event::Committed);
            // Between the two commits of one event nothing happens that a machine would see.
        }
    }

    fn settle(&mut self, events: u64, as_is: &Demand, costs: &Costs) {
        self.events += events;
        self.instead.add(&self.now);
        self.as_is.add(as_is);
        if self.credit_ns(costs) == 0 {
            self.forget();
        }
    }

    /// How much less it would have cost than the protocol in force. At today's prices: those that
    /// it was gathered at may have been a guess.
    fn credit_ns(&self, costs: &Costs) -> u64 {
        let instead = self.instead.cost_ns(costs);
        self.as_is.cost_ns(costs).saturating_sub(instead)
    }

    fn forget(&mut self) {
        self.events = 0;
        self.instead = Demand::default();
        self.as_is = Demand::default();
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Choice {
            from,
            to,
            events,
            as_is,
            instead,
            as_is_ns,
            instead_ns,
        } = self;
        write!(
            f,
            "{to} instead of {from}: in {events} events it takes {instead} "
        )?;
        write!(
            f,
            "({}) where {from} takes {as_is} ({})",
            Time(*instead_ns),
            Time(*as_is_ns)
        )
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.commits {
            1 => write!(f, "1 commit")?,
            commits => write!(f, "{commits} commits")?,
        }
        if self.records > 0 {
            write!(
                f,
                ", {} records of {} bytes in all",
                self.records, self.logged_bytes
            )?;
            write!(f, ", flushed {} times", self.flushes)?;
        }
        Ok(())
    }
}

/// A time with the unit that makes it short.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ns @ 0..10_000 => write!(f, "{ns} ns"),
            ns @ 10_000..10_000_000 => write!(f, "{} us", ns / 1000),
            ns => write!(f, "{} ms", ns / 1_000_000),
        }
    }
}
