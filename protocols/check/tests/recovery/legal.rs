//! What failure-free runs show: the yardstick of definition 2.
//!
//! The outputs of all runs without failures form a tree. What a run with failures has shown, less
//! the repetitions of what it had shown before, must be a path in that tree, and must reach a leaf
//! when the run is over. A run's whole output is therefore one number, a node of the tree.

use crate::program::{Op, PROCESSES_MAX, Program};
use std::collections::{HashMap, HashSet};

/// A process's state: all it knows. Equal numbers are equal states.
pub type State = u32;

/// The result of a non-deterministic event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Outcome {
    Flipped(bool),
    Received { from: u8, content: State },
}

/// Numbers for states, handed out as they are met.
#[derive(Default)]
pub struct States(HashMap<(State, Outcome), State>);

impl States {
    /// The state of a process before its first event.
    pub fn initial(process: usize) -> State {
        process as State
    }

    pub fn after(&mut self, state: State, outcome: Outcome) -> State {
        let fresh = (PROCESSES_MAX + self.0.len()) as State;
        *self.0.entry((state, outcome)).or_insert(fresh)
    }
}

/// Something shown: by whom, at which place in its word, and what.
pub type Output = (u8, u8, State);

/// A node of the tree of outputs; 0 is the root, where nothing has been shown.
pub type Shown = u32;

#[derive(Default)]
pub struct Legal {
    children: HashMap<(Shown, Output), Shown>,
    parents: Vec<(Shown, Output)>,
    complete: HashSet<Shown>,
    /// Whether some failure-free run comes to a stop before its end.
    pub deadlocks: bool,
}

impl Legal {
    pub fn of(program: &Program, states: &mut States) -> Legal {
        let mut legal = Legal {
            parents: vec![(0, (0, 0, 0))],
            ..Legal::default()
        };
        let mut met = HashSet::new();
        let mut pending = vec![Run::start(program.0.len())];
        while let Some(run) = pending.pop() {
            if !met.insert(run.clone()) {
                continue;
            }
            let next = run.successors(program, states, &mut legal);
            if next.is_empty() {
                if run.is_over(program) {
                    legal.complete.insert(run.shown);
                } else {
                    legal.deadlocks = true;
                }
            }
            pending.extend(next);
        }
        legal
    }

    /// What has been shown once `output` is shown too, or nothing if no failure-free run shows it.
    pub fn show(&self, shown: Shown, output: Output) -> Option<Shown> {
        let mut earlier = shown;
        while earlier != 0 {
            let (parent, old) = self.parents[earlier as usize];
            if old == output {
                return Some(shown);
            }
            earlier = parent;
        }
        self.children.get(&(shown, output)).copied()
    }

    pub fn is_complete(&self, shown: Shown) -> bool {
        self.complete.contains(&shown)
    }

    fn grow(&mut self, shown: Shown, output: Output) -> Shown {
        let fresh = self.parents.len() as Shown;
        let node = *self.children.entry((shown, output)).or_insert(fresh);
        if node == fresh {
            self.parents.push((shown, output));
        }
        node
    }
}

/// A failure-free run, somewhere on its way.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Run {
    at: Vec<(u8, State)>,
    under_way: Vec<(u8, u8, State)>,
    shown: Shown,
}

impl Run {
    fn start(processes: usize) -> Run {
        let at = (0..processes).map(|p| (0, States::initial(p))).collect();
        Run {
            at,
            under_way: Vec::new(),
            shown: 0,
        }
    }

    fn is_over(&self, program: &Program) -> bool {
        self.at
            .iter()
            .zip(&program.0)
            .all(|((at, _), word)| *at as usize == word.len())
    }

    fn successors(&self, program: &Program, states: &mut States, legal: &mut Legal) -> Vec<Run> {
        let mut next = Vec::new();
        for (process, &(at, state)) in self.at.iter().enumerate() {
            let Some(op) = program.0[process].get(at as usize) else {
                continue;
            };
            let mut go = |change: &mut dyn FnMut(&mut Run)| {
                let mut run = self.clone();
                run.at[process].0 += 1;
                change(&mut run);
                next.push(run);
            };
            match *op {
                Op::Flip(_) => {
                    for result in [false, true] {
                        let after = states.after(state, Outcome::Flipped(result));
                        go(&mut |run| run.at[process].1 = after);
                    }
                }
                Op::Show => {
                    let shown = legal.grow(self.shown, (process as u8, at, state));
                    go(&mut |run| run.shown = shown);
                }
                Op::Commit => go(&mut |_| {}),
                Op::Gamble => {
                    for result in [false, true] {
                        let after = states.after(state, Outcome::Flipped(result));
                        let shown = legal.grow(self.shown, (process as u8, at, after));
                        go(&mut |run| {
                            run.at[process].1 = after;
                            run.shown = shown;
                        });
                    }
                }
                Op::Send(to) => go(&mut |run| run.under_way.push((process as u8, to, state))),
                Op::Receive => {
                    for from in 0..self.at.len() as u8 {
                        let first = self
                            .under_way
                            .iter()
                            .position(|(f, t, _)| *f == from && *t as usize == process);
                        let Some(first) = first else { continue };
                        let content = self.under_way[first].2;
                        let after = states.after(state, Outcome::Received { from, content });
                        go(&mut |run| {
                            run.under_way.remove(first);
                            run.at[process].1 = after;
                        });
                    }
                }
            }
        }
        next
    }
}
