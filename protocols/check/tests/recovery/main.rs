//! Consistent recovery, by exhaustion: every short program, every interleaving, every result of
//! every non-deterministic event, a crash of every subset of processes at every point, every path
//! of recovery, under every protocol.
//!
//! What a run shows must be equivalent by definition 2 to what some failure-free run shows
//! (safety), and from everywhere the computation must be able to come to its end (liveness). The
//! numbers of programs and states are pinned, so that a search that turns vacuous fails.

mod legal;
mod program;
mod search;
mod theorem;
mod world;

use program::{EVENTS, Program};
use protocols::Protocol;
use search::{Tally, Wrong, search};
use world::Rule;

fn holds(protocol: Protocol, families: &[(usize, usize, u8)]) -> Tally {
    let mut tally = Tally::default();
    for &(processes, operations, crashes) in families {
        for program in Program::all(processes, operations, &EVENTS) {
            if let Err(wrong) = search(&program, protocol.rules(), None, crashes, &mut tally) {
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
            Program::all(processes, operations, &EVENTS)
                .into_iter()
                .find_map(|program| {
                    let found = search(
                        &program,
                        protocol.rules(),
                        Some(rule),
                        1,
                        &mut Tally::default(),
                    );
                    found.err().map(|wrong| (program, wrong))
                })
        })
}
