//! Theorem 2 itself, and the checker with it: for every way of committing, good and bad.
//!
//! Here programs commit of their own accord, anywhere, under no protocol. The search says whether
//! recovery is consistent whatever crashes. The checker reads a trace of every failure-free
//! interleaving, without any crash, and says whether the commit invariant holds. That it holds in
//! all of them must be sufficient for consistent recovery. Its safety half must be necessary too
//! where assumption 1 is met: what is uncommitted is a flip, and every process shows its state last.

use crate::legal::{Legal, States};
use crate::program::{Op, Program};
use crate::search::{Tally, search};
use crate::world::{Deed, Regime, Setting, World};
use protocols::trace::{Class, Clock, Fate, Line, Note};
use protocols::{Machine, Protocol, Rules, Scope, When};
use protocols_check::{Kind, Report, Traces, Violation, check};
use std::collections::HashMap;

const NO_RULES: Rules = Rules {
    before_visible: When::Never,
    before_send: When::Never,
    after_non_deterministic: false,
    log: false,
    scope: Scope::Local,
};

const OPERATIONS: [Op; 4] = [Op::Flip(false), Op::Show, Op::Receive, Op::Commit];

type Knowledge = Clock<3>;

/// The trace of a run as it grows, deed by deed.
#[derive(Clone, Default)]
struct Trace {
    text: String,
    clocks: [Knowledge; 3],
    /// The sends of each pair of processes, and how many of them are received.
    sent: HashMap<(usize, usize), Vec<(u64, Knowledge)>>,
    received: HashMap<(usize, usize), usize>,
}

impl Trace {
    fn deed(&mut self, deed: Deed) {
        match deed {
            Deed::Comes {
                process,
                outcome: crate::legal::Outcome::Flipped(_),
            } => {
                self.line(process, Class::NonDeterministic, Fate::Open, Note::None);
            }
            Deed::Comes {
                process,
                outcome: crate::legal::Outcome::Received { from, .. },
            } => {
                let pair = (from as usize, process);
                let number = self.received.entry(pair).or_default();
                let (sequence, clock) = self.sent[&pair][*number];
                *number += 1;
                self.clocks[process].merge(clock.as_slice()).expect("room");
                let note = Note::From(from.into(), sequence);
                self.line(process, Class::Receive, Fate::Open, note);
            }
            Deed::Shows { process, .. } => {
                self.line(process, Class::Visible, Fate::Open, Note::None);
            }
            Deed::Sends { process, to } => {
                self.line(process, Class::Send, Fate::Open, Note::None);
                let clock = self.clocks[process];
                let sent = (clock.get(process as u32), clock);
                self.sent
                    .entry((process, to as usize))
                    .or_default()
                    .push(sent);
            }
            Deed::Commits { process } => {
                self.line(process, Class::Commit, Fate::Commit, Note::None);
            }
            _ => {}
        }
    }

    fn line(&mut self, p: usize, class: Class, fate: Fate, note: Note) {
        let process = p as u32;
        let sequence = self.clocks[p].tick(process).expect("room");
        let clock = self.clocks[p].as_slice();
        let mut buffer = [0; 120];
        let line = Line {
            process,
            sequence,
            class,
            call: class.name(),
            fate,
            clock,
            note,
        };
        let len = line.write_to(&mut buffer).expect("the line fits");
        self.text
            .push_str(std::str::from_utf8(&buffer[..len]).expect("it is ASCII"));
    }

    /// A receive has a sibling only if another message could have come first; a flip always has one.
    fn is_unsafe_by_a_flip(&self, violation: &Violation) -> bool {
        match violation {
            Violation::Unsafe { on, .. } => {
                let line = self.text.lines().nth(on.place.line as usize - 1);
                line.is_some_and(|line| line.contains(Class::NonDeterministic.name()))
            }
            _ => false,
        }
    }

    fn report(&self) -> Report {
        check(Traces::one(self.text.as_bytes())).expect("the trace is readable")
    }
}

/// Visits the failure-free interleavings. The results of flips make no difference to a trace, so
/// one of the two is followed; whether a message has one content or another, neither.
fn interleavings(
    world: &World,
    trace: &Trace,
    setting: &Setting,
    states: &mut States,
    visit: &mut impl FnMut(&Trace),
) {
    let mut ended = true;
    for (deed, next) in world.successors(setting, states) {
        ended = false;
        let tails = crate::legal::Outcome::Flipped(true);
        if matches!(deed, Deed::Comes { outcome, .. } if outcome == tails) {
            continue;
        }
        let next = next.expect("a failure-free run is legal");
        let mut trace = trace.clone();
        trace.deed(deed);
        interleavings(&next, &trace, setting, states, visit);
    }
    if ended {
        visit(trace);
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// The invariant holds in every interleaving, and recovery is consistent.
    upheld: usize,
    /// It is violated in some, and recovery is inconsistent.
    violated: usize,
    /// It is violated, and yet recovery is consistent, since assumption 1 or 2 is not met.
    excused: usize,
    traces: usize,
}

fn compare(processes: usize, operations: usize) -> Counts {
    let mut counts = Counts::default();
    for program in Program::all(processes, operations, &OPERATIONS) {
        let mut states = States::default();
        let legal = Legal::of(&program, &mut states);
        if legal.deadlocks {
            continue;
        }
        let setting = Setting {
            program: &program,
            legal: &legal,
            regime: Regime::Fixed(NO_RULES),
            machine: Machine::new(Protocol::Cpvs),
            without: None,
        };
        let (mut violated, mut by_a_flip) = (false, false);
        let world = World::start(processes, 0, setting.machine);
        interleavings(
            &world,
            &Trace::default(),
            &setting,
            &mut states,
            &mut |trace| {
                let report = trace.report();
                let other = report
                    .violations
                    .iter()
                    .find(|v| !matches!(v.kind(), Kind::Safety | Kind::Liveness));
                assert!(other.is_none(), "{program}: {report}");
                violated |= !report.is_consistent();
                by_a_flip |= report
                    .violations
                    .iter()
                    .any(|v| trace.is_unsafe_by_a_flip(v));
                counts.traces += 1;
            },
        );
        let consistent = search(
            &program,
            setting.regime,
            setting.machine,
            None,
            1,
            &mut Tally::default(),
        )
        .is_ok();
        match (violated, consistent) {
            (false, true) => counts.upheld += 1,
            (false, false) => panic!("{program}: the invariant holds and is not sufficient"),
            (true, false) => counts.violated += 1,
            (true, true) => {
                let shows_last = program.0.iter().all(|word| word.last() == Some(&Op::Show));
                assert!(!(by_a_flip && shows_last), "{program}: it is not necessary");
                counts.excused += 1;
            }
        }
    }
    counts
}

fn pinned(processes: usize, operations: usize, expected: [usize; 4]) {
    let counts = compare(processes, operations);
    let Counts {
        upheld,
        violated,
        excused,
        traces,
    } = counts;
    assert_eq!(
        [upheld, violated, excused, traces],
        expected,
        "{processes}, {operations}"
    );
}

#[test]
fn the_commit_invariant_is_sufficient_and_its_safety_necessary() {
    // With one process there is no excuse: the invariant holds if and only if recovery is
    // consistent. With several most excuses are receives that could have received nothing else.
    pinned(1, 5, [55, 66, 0, 121]);
    pinned(2, 5, [55, 50, 83, 2115]);
    pinned(3, 5, [6, 17, 1, 5269]);
    if std::env::var_os("PROTOCOLS_DEEP").is_some() {
        pinned(1, 7, [377, 716, 0, 1093]);
        pinned(2, 6, [474, 521, 538, 51_440]);
        pinned(3, 6, [152, 259, 32, 537_825]);
    }
}
