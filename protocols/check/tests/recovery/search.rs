//! The search through all worlds of one program.

use crate::legal::{Legal, States};
use crate::program::Program;
use crate::world::{Deed, Regime, Rule, Setting, World};
use protocols::Machine;
use std::collections::HashMap;
use std::rc::Rc;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub programs: usize,
    pub states: usize,
    /// Runs that ended after a crash, and states in which a log was being fed.
    pub recovered: usize,
    pub replaying: usize,
}

/// What is wrong, and how it came about.
pub struct Wrong {
    /// Something is shown that no failure-free run shows; otherwise the run ends without having
    /// shown all, or cannot end.
    pub shows: bool,
    pub path: Vec<Deed>,
}

/// Searches all worlds of one program for the first one that is wrong.
pub fn search(
    program: &Program,
    regime: Regime,
    machine: Machine,
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
        regime,
        machine,
        without,
    };
    let start = Rc::new(World::start(program.0.len(), crashes, machine));
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
