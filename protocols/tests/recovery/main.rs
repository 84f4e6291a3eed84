//! Consistent recovery, by exhaustion: every short program, every interleaving, every result of
//! every non-deterministic event, a crash of every subset of processes at every point, every path
//! of recovery, under every protocol.
//!
//! What a run shows must be equivalent by definition 2 to what some failure-free run shows
//! (safety), and from everywhere the computation must be able to come to its end (liveness). The
//! numbers of programs and states are pinned, so that a search that turns vacuous fails.

mod legal;
mod program;
mod world;

use legal::{Legal, States};
use program::Program;
use protocols::Protocol;
use std::collections::HashMap;
use std::rc::Rc;
use world::{Deed, Rule, Setting, World};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    programs: usize,
    states: usize,
    /// Runs that ended after a crash, and states in which a log was being fed.
    recovered: usize,
    replaying: usize,
}

/// What is wrong, and how it came about.
struct Wrong {
    /// Something is shown that no failure-free run shows; otherwise the run ends without having
    /// shown all, or cannot end.
    shows: bool,
    path: Vec<Deed>,
}

/// Searches all worlds of one program for the first one that is wrong.
fn search(
    program: &Program,
    protocol: Protocol,
    without: Option<Rule>,
    crashes: u8,
    tally: &mut Tally,
) -> Result<(), Wrong> {
    let mut states = States::default();
    let legal = Legal::of(program, &mut states);
    if legal.deadlocks {
        return Ok(());
    }
    let setting = Setting {
        program,
        legal: &legal,
        protocol,
        without,
    };
    let start = Rc::new(World::start(protocol, program.0.len(), crashes));
    let mut index = HashMap::from([(start.clone(), 0usize)]);
    let mut worlds = vec![start];
    let mut came_from = vec![(0, Deed::GroupGoesBack)];
    let mut enters: Vec<Vec<usize>> = vec![Vec::new()];
    let mut ends = Vec::new();
    let wrong = |came_from: &[(usize, Deed)], mut at: usize, last: Option<Deed>| {
        let mut path = Vec::from_iter(last);
        while at != 0 {
            path.push(came_from[at].1);
            at = came_from[at].0;
        }
        path.reverse();
        Err(Wrong {
            shows: last.is_some(),
            path,
        })
    };
    let mut at = 0;
    while at < worlds.len() {
        let world = Rc::clone(&worlds[at]);
        tally.replaying += world.is_replaying() as usize;
        if world.is_over(program) {
            if !legal.is_complete(world.shown) {
                return wrong(&came_from, at, None);
            }
            tally.recovered += (world.crashes_left < crashes) as usize;
            ends.push(at);
        }
        for (step, next) in world.successors(&setting, &mut states) {
            let Some(next) = next else {
                return wrong(&came_from, at, Some(step));
            };
            let fresh = worlds.len();
            let to = *index.entry(Rc::new(next)).or_insert_with_key(|world| {
                worlds.push(Rc::clone(world));
                came_from.push((at, step));
                enters.push(Vec::new());
                fresh
            });
            enters[to].push(at);
        }
        at += 1;
    }
    let mut live = vec![false; worlds.len()];
    while let Some(at) = ends.pop() {
        if !std::mem::replace(&mut live[at], true) {
            ends.extend(&enters[at]);
        }
    }
    if let Some(stuck) = live.iter().position(|live| !live) {
        return wrong(&came_from, stuck, None);
    }
    tally.programs += 1;
    tally.states += worlds.len();
    Ok(())
}

fn holds(protocol: Protocol, families: &[(usize, usize, u8)]) -> Tally {
    let mut tally = Tally::default();
    for &(processes, operations, crashes) in families {
        for program in Program::all(processes, operations) {
            if let Err(wrong) = search(&program, protocol, None, crashes, &mut tally) {
                panic!("{protocol}, {program}: {:#?}", wrong.path);
            }
        }
    }
    tally
}

/// Processes, operations of all of them together, crashes.
type Family = (usize, usize, u8);

/// The states searched under each protocol. Those of CAND and CPVS differ although the programs are
/// the same: it is the places of the commits that make the states.
fn pinned(families: &[Family], programs: usize, states: [usize; 7]) {
    for (protocol, states) in Protocol::ALL.into_iter().zip(states) {
        let tally = holds(protocol, families);
        eprintln!("{protocol:<11} {tally:?}");
        assert_eq!(
            (tally.programs, tally.states),
            (programs, states),
            "{protocol}"
        );
        assert!(tally.recovered > 0, "{protocol}");
        assert_eq!(tally.replaying > 0, protocol.logs(), "{protocol}");
    }
}

#[test]
fn seven_protocols_recover_every_short_program() {
    let states = [32_233, 37_972, 35_073, 46_891, 45_095, 38_594, 32_409];
    pinned(&[(1, 4, 2), (2, 5, 1), (3, 5, 1)], 252, states);
}

/// Half a minute of search in a release build: set `PROTOCOLS_DEEP=1`.
#[test]
fn seven_protocols_recover_every_longer_program() {
    if std::env::var_os("PROTOCOLS_DEEP").is_some() {
        let states = [
            898_009, 1_109_650, 1_026_704, 1_474_411, 1_402_521, 1_248_123, 981_642,
        ];
        pinned(&[(1, 6, 2), (2, 6, 2), (3, 6, 1)], 2340, states);
    }
}

#[test]
fn every_rule_is_needed() {
    use Protocol::*;
    use Rule::*;
    let rules: [(Protocol, &[Rule]); 7] = [
        (Cpvs, &[CommitBeforeVisible, CommitBeforeSend]),
        (Cand, &[CommitAfterNonDeterministic, CommitAfterReceive]),
        (
            Cbndvs,
            &[
                CommitBeforeVisible,
                CommitBeforeSend,
                FlagNonDeterministic,
                FlagReceive,
            ],
        ),
        (
            CandLog,
            &[
                CommitAfterNonDeterministic,
                LogNonDeterministic,
                LogReceive,
                FlushBeforeVisible,
                FlushBeforeSend,
            ],
        ),
        (
            CbndvsLog,
            &[
                CommitBeforeVisible,
                CommitBeforeSend,
                FlagNonDeterministic,
                LogNonDeterministic,
                LogReceive,
                FlushBeforeVisible,
                FlushBeforeSend,
            ],
        ),
        (
            Cpv2pc,
            &[CommitBeforeVisible, CommitGlobally, RollBackSurvivors],
        ),
        (
            Cbndv2pc,
            &[
                CommitBeforeVisible,
                FlagNonDeterministic,
                FlagReceive,
                CommitGlobally,
                RollBackSurvivors,
            ],
        ),
    ];
    for (protocol, rules) in rules {
        for rule in rules {
            let Some((program, wrong)) = shortest_failure(protocol, *rule) else {
                panic!("{protocol} does as well without {rule:?}");
            };
            // Each of these shows something wrong, rather than coming to a stop.
            assert!(
                wrong.shows,
                "{protocol} without {rule:?}, {program}: {:#?}",
                wrong.path
            );
        }
    }
}

/// The first program that shows that the rule is needed.
fn shortest_failure(protocol: Protocol, rule: Rule) -> Option<(Program, Wrong)> {
    [(1, 3), (2, 4), (2, 5), (3, 4), (3, 5)]
        .into_iter()
        .find_map(|(processes, operations)| {
            Program::all(processes, operations)
                .into_iter()
                .find_map(|program| {
                    let found = search(&program, protocol, Some(rule), 1, &mut Tally::default());
                    found.err().map(|wrong| (program, wrong))
                })
        })
}
