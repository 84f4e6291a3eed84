//! Two-phase commit under every order of messages, repetitions, losses, timeouts and deaths.
//!
//! The search is exhaustive within its bounds and pins the number of states it visited; a search
//! that went vacuous would fail, and so would one that never saw the situations in `Sometimes`.
//! Each mutant takes one rule away, and must be caught by the property named beside it.

mod world;

use std::collections::{HashMap, VecDeque};
use world::{Bounds, Mutant, Property, World};

/// Situations that a search must have met to mean anything.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sometimes {
    committed_twice: bool,
    aborted: bool,
    in_doubt_while_committed: bool,
    third_generation: bool,
    coordinator_died_voting: bool,
}

struct Search {
    states: usize,
    sometimes: Sometimes,
    violated: Option<(Property, Vec<String>)>,
}

fn search(bounds: Bounds, mutant: Option<Mutant>) -> Search {
    let start = World::new(bounds, mutant);
    let mut index: HashMap<World, u32> = HashMap::new();
    let mut came_from: Vec<(u32, String)> = vec![(0, String::new())];
    let mut enters: Vec<Vec<u32>> = vec![Vec::new()];
    let mut settled: VecDeque<u32> = VecDeque::new();
    let mut queue = VecDeque::from([(0u32, start.clone())]);
    index.insert(start, 0);
    let mut sometimes = Sometimes::default();
    let path = |came_from: &[(u32, String)], mut at: u32| {
        let mut steps = Vec::new();
        while at != 0 {
            steps.push(came_from[at as usize].1.clone());
            at = came_from[at as usize].0;
        }
        steps.reverse();
        steps
    };
    while let Some((at, world)) = queue.pop_front() {
        sometimes.committed_twice |= world.decided.len() > 1;
        sometimes.aborted |= world.has_aborted();
        sometimes.in_doubt_while_committed |= world.in_doubt_while_committed();
        sometimes.third_generation |= world.generation() >= 2;
        sometimes.coordinator_died_voting |= world.coordinator_died_voting;
        if let Some(property) = world.violated {
            let violated = Some((property, path(&came_from, at)));
            return Search {
                states: index.len(),
                sometimes,
                violated,
            };
        }
        if world.is_settled() {
            settled.push_back(at);
        }
        for (step, next) in world.successors() {
            let fresh = index.len() as u32;
            let to = *index.entry(next.clone()).or_insert(fresh);
            if to == fresh {
                came_from.push((at, step));
                enters.push(Vec::new());
                queue.push_back((fresh, next));
            }
            enters[to as usize].push(at);
        }
    }
    // Liveness: backwards from the states where everybody works and nobody waits.
    let mut live = vec![false; index.len()];
    let mut pending = settled;
    while let Some(at) = pending.pop_front() {
        if !std::mem::replace(&mut live[at as usize], true) {
            pending.extend(&enters[at as usize]);
        }
    }
    let stuck = live.iter().position(|l| !l);
    let violated = stuck.map(|at| (Property::EverybodyGoesOn, path(&came_from, at as u32)));
    Search {
        states: index.len(),
        sometimes,
        violated,
    }
}

fn bounds(members: u32, wishes: u32, deaths: u32, lives: u32, timeouts: u32) -> Bounds {
    let rumours = 0;
    Bounds {
        members,
        wishes,
        deaths,
        lives,
        timeouts,
        rumours,
    }
}

fn holds(bounds: Bounds) -> (usize, Sometimes) {
    let search = search(bounds, None);
    if let Some((property, path)) = search.violated {
        panic!("{property:?} is violated by\n  {}", path.join("\n  "));
    }
    (search.states, search.sometimes)
}

#[test]
fn a_pair_survives_two_deaths() {
    let (states, seen) = holds(bounds(2, 1, 2, 0, 0));
    assert_eq!(states, 22_197);
    assert!(seen.in_doubt_while_committed && seen.third_generation);
}

#[test]
fn a_pair_survives_its_coordinator_and_a_member() {
    let (states, seen) = holds(bounds(2, 1, 1, 1, 0));
    assert_eq!(states, 24_978);
    assert!(seen.coordinator_died_voting && seen.aborted);
}

#[test]
fn a_death_may_be_heard_of_before_it_is_told() {
    let (states, seen) = holds(Bounds {
        rumours: 1,
        ..bounds(2, 1, 1, 0, 0)
    });
    assert_eq!(states, 23_941);
    assert!(seen.in_doubt_while_committed && seen.aborted);
}

#[test]
fn a_pair_survives_a_round_given_up() {
    let (states, seen) = holds(bounds(2, 2, 0, 0, 1));
    assert_eq!(states, 3_423);
    assert!(seen.aborted && seen.committed_twice);
}

/// Minutes of search, and gigabytes: set `PROTOCOLS_DEEP=1`, and build with `--release`.
#[test]
fn larger_groups_and_more_deaths() {
    if std::env::var_os("PROTOCOLS_DEEP").is_none() {
        return;
    }
    let table = [
        (bounds(2, 2, 2, 0, 0), 158_268),
        (bounds(3, 1, 1, 0, 0), 96_849),
        (bounds(2, 2, 1, 1, 1), 2_389_826),
    ];
    for (bounds, expected) in table {
        assert_eq!(holds(bounds).0, expected, "{bounds:?}");
    }
}

#[test]
fn every_rule_is_needed() {
    let bounds = bounds(2, 2, 1, 1, 1);
    let expected = [
        (Mutant::CommitAtFirstYes, Property::RoundIsWhole),
        (Mutant::ForgetCommitRecord, Property::Agreement),
        (Mutant::HideLoss, Property::NoLostWorkIsCommitted),
        (Mutant::PrepareForAnEcho, Property::RoundIsWhole),
        (Mutant::ReuseRoundNumbers, Property::RoundIsWhole),
        (Mutant::PresumeAbortInDoubt, Property::Agreement),
        (
            Mutant::GoOnBeforeOthersAreBack,
            Property::GenerationsNeverMeet,
        ),
    ];
    for (mutant, property) in expected {
        let (violated, path) = search(bounds, Some(mutant)).violated.unwrap_or_else(|| {
            panic!("{mutant:?} is not noticed");
        });
        assert_eq!(violated, property, "{mutant:?}:\n  {}", path.join("\n  "));
    }
}
