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

use program::{EVENTS, Op, Program};
use protocols::{Machine, Protocol};
use search::{Tally, Wrong, search};
use world::{Regime, Rule};

fn holds(regime: Regime, machine: Machine, letters: &[Op], families: &[Family]) -> Tally {
    let mut tally = Tally::default();
    for &(processes, operations, crashes) in families {
        for program in Program::all(processes, operations, letters) {
            if let Err(wrong) = search(&program, regime, machine, None, crashes, &mut tally) {
                panic!("{regime:?}, {program}: {:#?}", wrong.path);
            }
        }
    }
    tally
}

fn of(protocol: Protocol) -> (Regime, Machine) {
    (Regime::Fixed(protocol.rules()), Machine::new(protocol))
}

/// Processes, operations of all of them together, crashes.
type Family = (usize, usize, u8);

/// The states searched under each protocol. Those of CAND and CPVS differ although the programs are
/// the same: it is the places of the commits that make the states.
fn pinned(families: &[Family], programs: usize, states: [usize; 7]) {
    for (protocol, states) in Protocol::ALL.into_iter().zip(states) {
        let (regime, machine) = of(protocol);
        let tally = holds(regime, machine, &EVENTS, families);
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
fn an_eager_log_recovers_as_a_lazy_one_does() {
    let states = [(Protocol::CandLog, 31_579), (Protocol::CbndvsLog, 30_235)];
    for (protocol, states) in states {
        let (regime, mut machine) = of(protocol);
        machine.set_lazy_log(false);
        let tally = holds(regime, machine, &EVENTS, &[(1, 4, 2), (2, 5, 1)]);
        assert_eq!((tally.programs, tally.states), (228, states), "{protocol}");
        assert!(tally.replaying > 0);
    }
}

#[test]
fn protocols_may_change_at_safe_points_and_nowhere_else() {
    let machine = Machine::new(Protocol::Cand);
    let tally = holds(Regime::Changing, machine, &EVENTS, &[(1, 4, 1), (2, 4, 1)]);
    assert_eq!((tally.programs, tally.states), (58, 83_878));
    assert!(tally.replaying > 0);

    let heedless = Some(Rule::ChangeAtSafePoints);
    let wrong = Program::all(1, 3, &EVENTS).into_iter().find_map(|program| {
        search(
            &program,
            Regime::Changing,
            machine,
            heedless,
            1,
            &mut Tally::default(),
        )
        .err()
    });
    assert!(wrong.is_some_and(|wrong| wrong.shows));
}

/// Corollary 1: no commit before or after an event that is visible and non-deterministic at once
/// is of any use, only one that is atomic with it.
#[test]
fn what_shows_its_own_undetermined_result_is_one_with_its_commit() {
    let letters = [Op::Flip(false), Op::Receive, Op::Gamble];
    for protocol in Protocol::ALL {
        let (regime, machine) = of(protocol);
        let tally = holds(regime, machine, &letters, &[(1, 3, 2), (2, 4, 1)]);
        assert_eq!(tally.programs, 22, "{protocol}");

        let without = Some(Rule::CommitAtomically);
        let wrong = Program::all(1, 1, &letters)
            .into_iter()
            .find_map(|program| {
                search(&program, regime, machine, without, 1, &mut Tally::default()).err()
            });
        assert!(wrong.is_some_and(|wrong| wrong.shows), "{protocol}");
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
    let (regime, machine) = of(protocol);
    let families = [(1, 3), (2, 4), (2, 5), (3, 4), (3, 5)];
    families.into_iter().find_map(|(processes, operations)| {
        Program::all(processes, operations, &EVENTS)
            .into_iter()
            .find_map(|program| {
                let mut tally = Tally::default();
                let found = search(&program, regime, machine, Some(rule), 1, &mut tally);
                found.err().map(|wrong| (program, wrong))
            })
    })
}
