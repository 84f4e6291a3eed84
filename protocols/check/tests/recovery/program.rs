//! Short programs, and all of them.
//!
//! A program is a word for each process. Its processes are as inconvenient as assumption 1 says
//! real ones are: a process's state is everything that ever happened to it and to those it heard
//! from, and what it shows is its whole state. So no two paths join, and two outputs that stem from
//! different results of one event never occur together in a failure-free run.

use std::fmt;

pub const PROCESSES_MAX: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Op {
    /// A non-deterministic event of two possible results; `true` if it can be logged.
    Flip(bool),
    Show,
    Send(u8),
    Receive,
    /// A commit that the program makes of its own accord.
    Commit,
    /// Visible and non-deterministic at once.
    Gamble,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program(pub Vec<Vec<Op>>);

/// What programs are made of that leave committing to their protocol.
pub const EVENTS: [Op; 4] = [Op::Flip(false), Op::Flip(true), Op::Show, Op::Receive];

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (process, word) in self.0.iter().enumerate() {
            write!(f, "{}P{process}:", if process == 0 { "" } else { "  " })?;
            for op in word {
                match op {
                    Op::Flip(false) => write!(f, " flip")?,
                    Op::Flip(true) => write!(f, " read")?,
                    Op::Show => write!(f, " show")?,
                    Op::Send(to) => write!(f, " send({to})")?,
                    Op::Receive => write!(f, " receive")?,
                    Op::Commit => write!(f, " commit")?,
                    Op::Gamble => write!(f, " gamble")?,
                }
            }
        }
        Ok(())
    }
}

impl Program {
    /// Every program of that many processes and at most that many operations which shows something,
    /// made of those operations and of sends.
    ///
    /// Left out are words that end with an event nobody could learn of, processes that do nothing,
    /// programs that wait for more messages than are sent, programs that fall into two that never
    /// hear of each other, and the mirror images of others.
    pub fn all(processes: usize, operations: usize, letters: &[Op]) -> Vec<Program> {
        let words: Vec<Vec<Vec<Op>>> = (0..processes)
            .map(|p| words(p, processes, operations, letters))
            .collect();
        let mut all = Vec::new();
        let mut chosen = Vec::new();
        choose(&words, operations, &mut chosen, &mut all);
        all.retain(|program| program.is_worth_running());
        all
    }

    fn is_worth_running(&self) -> bool {
        let ops = || self.0.iter().flatten();
        let shows = ops().any(|op| matches!(op, Op::Show | Op::Gamble));
        let receives = |word: &[Op]| word.iter().filter(|op| **op == Op::Receive).count();
        let fed = self.0.iter().enumerate().all(|(process, word)| {
            receives(word) <= ops().filter(|op| **op == Op::Send(process as u8)).count()
        });
        shows && fed && self.is_one_computation() && self.is_first_of_its_mirrors()
    }

    /// Whether messages tie all processes together; else it is two programs side by side.
    fn is_one_computation(&self) -> bool {
        let mut tied = vec![0usize];
        let mut next = 0;
        while let Some(&process) = tied.get(next) {
            for other in 0..self.0.len() {
                let sends = |a: usize, b: usize| self.0[a].contains(&Op::Send(b as u8));
                let hears = |p: usize| self.0[p].contains(&Op::Receive);
                let tie = (sends(process, other) && hears(other))
                    || (sends(other, process) && hears(process));
                if tie && !tied.contains(&other) {
                    tied.push(other);
                }
            }
            next += 1;
        }
        tied.len() == self.0.len()
    }

    fn is_first_of_its_mirrors(&self) -> bool {
        let orders: &[&[usize]] = match self.0.len() {
            1 => &[&[0]],
            2 => &[&[0, 1], &[1, 0]],
            _ => &[
                &[0, 1, 2],
                &[0, 2, 1],
                &[1, 0, 2],
                &[1, 2, 0],
                &[2, 0, 1],
                &[2, 1, 0],
            ],
        };
        let own = self.key(orders[0]);
        orders.iter().all(|order| own <= self.key(order))
    }

    /// The program written with process `order[i]` in place `i`, as numbers that can be compared.
    fn key(&self, order: &[usize]) -> Vec<Vec<u8>> {
        let place = |p: u8| order.iter().position(|o| *o == p as usize).unwrap_or(0) as u8;
        let number = |op: &Op| match *op {
            Op::Flip(loggable) => loggable as u8,
            Op::Show => 2,
            Op::Receive => 3,
            Op::Commit => 4,
            Op::Gamble => 5,
            Op::Send(to) => 6 + place(to),
        };
        order
            .iter()
            .map(|p| self.0[*p].iter().map(number).collect())
            .collect()
    }
}

fn words(process: usize, processes: usize, longest: usize, letters: &[Op]) -> Vec<Vec<Op>> {
    let mut letters = letters.to_vec();
    letters.extend(
        (0..processes)
            .filter(|to| *to != process)
            .map(|to| Op::Send(to as u8)),
    );
    let mut all: Vec<Vec<Op>> = Vec::new();
    let mut last: Vec<Vec<Op>> = vec![Vec::new()];
    for _ in 0..longest {
        last = last
            .iter()
            .flat_map(|word| {
                letters
                    .iter()
                    .map(|letter| [word.as_slice(), &[*letter]].concat())
            })
            .collect();
        let ends_well =
            |word: &&Vec<Op>| matches!(word.last(), Some(Op::Show | Op::Gamble | Op::Send(_)));
        all.extend(last.iter().filter(ends_well).cloned());
    }
    all
}

fn choose(words: &[Vec<Vec<Op>>], left: usize, chosen: &mut Vec<Vec<Op>>, all: &mut Vec<Program>) {
    let Some((first, rest)) = words.split_first() else {
        return all.push(Program(chosen.clone()));
    };
    for word in first.iter().filter(|word| word.len() + rest.len() <= left) {
        chosen.push(word.clone());
        choose(rest, left - word.len(), chosen, all);
        chosen.pop();
    }
}
