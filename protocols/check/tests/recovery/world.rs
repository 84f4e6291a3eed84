//! One state of a computation under a protocol: processes, commits, logs and messages.
//!
//! The protocol is the real machine. Everything it decides is a step of its own here, so that a
//! crash can fall between a decision and its effect, before and after a commit, and between a
//! commit and the event it was made for. A global commit is one step: that a round is all or
//! nothing, whoever dies in it, is what `two_phase`, a test of `protocols`, shows.
//!
//! Messages are kept until a rollback of their receiver can no longer need them, which is for ever
//! here, and repeated ones are dropped by number. That is the theory's assumption about redoable
//! receives and sends, and a receiver's number is part of its state.

use crate::legal::{Legal, Outcome, Output, Shown, State, States};
use crate::program::{Op, PROCESSES_MAX, Program};
use protocols::{Decision, Event, Machine, Protocol, Rules, Scope};

/// A commit rule, to be taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Rule {
    CommitBeforeVisible,
    CommitBeforeSend,
    CommitAfterNonDeterministic,
    CommitAfterReceive,
    LogNonDeterministic,
    LogReceive,
    FlushBeforeVisible,
    FlushBeforeSend,
    FlagNonDeterministic,
    FlagReceive,
    CommitGlobally,
    RollBackSurvivors,
    CommitAtomically,
    ChangeAtSafePoints,
}

/// What a commit preserves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Standpoint {
    at: u8,
    state: State,
    sent: [u8; PROCESSES_MAX],
    received: [u8; PROCESSES_MAX],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Ready,
    /// What was asked for before the event is done.
    Cleared,
    /// A commit is asked for before the process may go on.
    OwesCommit,
    /// Failed, and waiting for the group to go back.
    Halted,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Message {
    from: u8,
    to: u8,
    content: State,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Process {
    now: Standpoint,
    phase: Phase,
    machine: Machine,
    committed: Standpoint,
    /// Records since the commit; the first `fed` of them are behind the process, and a crash loses
    /// those after the first `durable`.
    log: Vec<Outcome>,
    fed: u8,
    durable: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    processes: Vec<Process>,
    /// Every message ever sent and not aborted, by sender, receiver and number.
    messages: Vec<Message>,
    pub shown: Shown,
    pub crashes_left: u8,
    /// A member of the group has lost its work and the others have not gone back yet.
    broken: bool,
}

/// What never changes during a search.
pub struct Setting<'a> {
    pub program: &'a Program,
    pub legal: &'a Legal,
    pub regime: Regime,
    /// The machine that every process begins with.
    pub machine: Machine,
    pub without: Option<Rule>,
}

/// By what rules processes commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Regime {
    Fixed(Rules),
    /// By those of its machine's protocol, which may become another local one at any safe point.
    Changing,
}

impl Setting<'_> {
    fn is_group(&self) -> bool {
        matches!(self.regime, Regime::Fixed(rules) if rules.scope == Scope::Group)
    }
}

/// What happened in one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    Comes { process: usize, outcome: Outcome },
    PreparesTo { process: usize, op: Op },
    Shows { process: usize, output: Output },
    Sends { process: usize, to: u8 },
    CommitsAfter { process: usize },
    Commits { process: usize },
    Changes { process: usize, to: Protocol },
    Crash { subset: u8 },
    GroupGoesBack,
}

/// A step, and the world after it; no world if it showed what no failure-free run shows.
pub type Step = (Deed, Option<World>);

impl World {
    pub fn start(processes: usize, crashes: u8, machine: Machine) -> World {
        let process = |p| {
            let state = States::initial(p);
            let now = Standpoint {
                at: 0,
                state,
                sent: [0; 3],
                received: [0; 3],
            };
            Process {
                now,
                phase: Phase::Ready,
                machine,
                committed: now,
                log: Vec::new(),
                fed: 0,
                durable: 0,
            }
        };
        World {
            processes: (0..processes).map(process).collect(),
            messages: Vec::new(),
            shown: 0,
            crashes_left: crashes,
            broken: false,
        }
    }

    pub fn is_over(&self, program: &Program) -> bool {
        let ended = |(p, word): (&Process, &Vec<Op>)| {
            p.now.at as usize == word.len() && p.phase == Phase::Ready
        };
        !self.broken && self.processes.iter().zip(&program.0).all(ended)
    }

    pub fn is_replaying(&self) -> bool {
        self.processes
            .iter()
            .any(|p| (p.fed as usize) < p.log.len())
    }

    pub fn successors(&self, setting: &Setting, states: &mut States) -> Vec<Step> {
        let mut next = Vec::new();
        for p in 0..self.processes.len() {
            self.run(p, setting, states, &mut next);
        }
        let group = setting.is_group();
        if self.broken {
            let mut world = self.clone();
            world.roll_back_all();
            next.push((Deed::GroupGoesBack, Some(world)));
        }
        if self.crashes_left > 0 {
            for subset in 1u8..1 << self.processes.len() {
                let mut world = self.clone();
                world.crashes_left -= 1;
                let alone = setting.without == Some(Rule::RollBackSurvivors);
                world.crash(subset, group && !alone);
                next.push((Deed::Crash { subset }, Some(world)));
            }
        }
        next
    }

    fn run(&self, p: usize, setting: &Setting, states: &mut States, next: &mut Vec<Step>) {
        let process = &self.processes[p];
        if setting.regime == Regime::Changing && process.phase == Phase::Ready {
            self.changes(p, setting, next);
        }
        let mut go = |deed: Deed, change: &mut dyn FnMut(&mut World) -> bool| {
            let mut world = self.clone();
            let legal = change(&mut world);
            next.push((deed, legal.then_some(world)));
        };
        if process.phase == Phase::OwesCommit {
            let owed = Decision {
                global: setting.is_group(),
                ..Decision::NONE
            };
            if !(owed.global && self.broken) {
                go(Deed::CommitsAfter { process: p }, &mut |w| {
                    w.commit(p, &owed, setting)
                });
            }
            return;
        }
        if process.phase == Phase::Halted {
            return;
        }
        let Some(op) = setting.program.0[p].get(process.now.at as usize).copied() else {
            return;
        };
        match op {
            Op::Flip(loggable) => {
                let event = Event::NonDeterministic { loggable };
                for outcome in [false, true].map(Outcome::Flipped) {
                    if process.next_record().is_none_or(|r| r == outcome) {
                        let after = states.after(process.now.state, outcome);
                        go(
                            Deed::Comes {
                                process: p,
                                outcome,
                            },
                            &mut |w| w.happen(p, event, outcome, after, setting),
                        );
                    }
                }
            }
            Op::Receive => {
                for from in 0..self.processes.len() {
                    let number = process.now.received[from] as usize;
                    let Some(message) = self.message(from, p, number) else {
                        continue;
                    };
                    let outcome = Outcome::Received {
                        from: from as u8,
                        content: self.messages[message].content,
                    };
                    // A fed record may differ from what the channel holds by now: that is the log's
                    // business, and only its source must agree.
                    let outcome = match process.next_record() {
                        Some(Outcome::Received { from: f, .. }) if f as usize != from => continue,
                        Some(record) => record,
                        None => outcome,
                    };
                    let after = states.after(process.now.state, outcome);
                    go(
                        Deed::Comes {
                            process: p,
                            outcome,
                        },
                        &mut |w| {
                            w.processes[p].now.received[from] += 1;
                            w.happen(p, Event::Receive, outcome, after, setting)
                        },
                    );
                }
            }
            Op::Commit => go(Deed::Commits { process: p }, &mut |w| {
                w.processes[p].go_on();
                w.commit(p, &Decision::NONE, setting)
            }),
            Op::Show | Op::Send(_) | Op::Gamble if process.phase == Phase::Ready => {
                let event = match op {
                    Op::Show => Event::Visible,
                    Op::Gamble => Event::VisibleNonDeterministic,
                    _ => Event::Send,
                };
                let (machine, decision) = decide(process.machine, event, setting);
                if decision.commit_before && decision.global && self.broken {
                    return;
                }
                go(Deed::PreparesTo { process: p, op }, &mut |w| {
                    w.processes[p].machine = machine;
                    w.processes[p].phase = Phase::Cleared;
                    if decision.flush {
                        w.processes[p].flush();
                    }
                    !decision.commit_before || w.commit(p, &decision, setting)
                });
            }
            Op::Gamble if setting.is_group() && self.broken => {}
            Op::Gamble => {
                for outcome in [false, true].map(Outcome::Flipped) {
                    let after = states.after(process.now.state, outcome);
                    let output = (p as u8, process.now.at, after);
                    let shown = setting.legal.show(self.shown, output);
                    go(Deed::Shows { process: p, output }, &mut |w| {
                        w.gamble(p, after, shown, setting)
                    });
                }
            }
            Op::Show => {
                let output = (p as u8, process.now.at, process.now.state);
                let shown = setting.legal.show(self.shown, output);
                go(Deed::Shows { process: p, output }, &mut |w| {
                    w.processes[p].go_on();
                    w.shown = shown.unwrap_or(w.shown);
                    shown.is_some()
                });
            }
            Op::Send(to) => go(Deed::Sends { process: p, to }, &mut |w| {
                w.send(p, to as usize)
            }),
        }
    }

    /// Moves to other protocols; heedless ones do so anywhere.
    fn changes(&self, p: usize, setting: &Setting, next: &mut Vec<Step>) {
        let heedless = setting.without == Some(Rule::ChangeAtSafePoints);
        for to in Protocol::ALL.into_iter().filter(|to| !to.is_two_phase()) {
            let mut machine = self.processes[p].machine;
            let changes = if heedless {
                let mut image = machine.to_bytes();
                image[0] = to as u8;
                machine = Machine::from_bytes(image).expect("only the protocol is another");
                true
            } else {
                machine.change_to(to)
            };
            if changes && machine != self.processes[p].machine {
                let mut world = self.clone();
                world.processes[p].machine = machine;
                next.push((Deed::Changes { process: p, to }, Some(world)));
            }
        }
    }

    /// An event that shows its own undetermined result.
    fn gamble(&mut self, p: usize, after: State, shown: Option<Shown>, setting: &Setting) -> bool {
        let process = &mut self.processes[p];
        process.now.state = after;
        process.go_on();
        self.shown = shown.unwrap_or(self.shown);
        let decision = Decision {
            global: setting.is_group(),
            ..Decision::NONE
        };
        if setting.without == Some(Rule::CommitAtomically) {
            self.processes[p].phase = Phase::OwesCommit;
        } else {
            self.commit(p, &decision, setting);
        }
        shown.is_some()
    }

    /// A non-deterministic event, live or fed from the log.
    fn happen(
        &mut self,
        p: usize,
        event: Event,
        outcome: Outcome,
        after: State,
        setting: &Setting,
    ) -> bool {
        let process = &mut self.processes[p];
        let replayed = process.next_record().is_some();
        process.now.state = after;
        process.go_on();
        if replayed {
            process.fed += 1;
            return true;
        }
        let (machine, decision) = decide(process.machine, event, setting);
        process.machine = machine;
        if decision.log {
            process.log.push(outcome);
            process.fed += 1;
        }
        if decision.flush {
            process.flush();
        }
        if decision.commit_after {
            process.phase = Phase::OwesCommit;
        }
        true
    }

    fn send(&mut self, from: usize, to: usize) -> bool {
        let number = self.processes[from].now.sent[to] as usize;
        let content = self.processes[from].now.state;
        let taken = self.processes[to].now.received[from] as usize;
        match self.message(from, to, number) {
            None => {
                let place = |m: &Message| (m.from as usize, m.to as usize) <= (from, to);
                let place = self.messages.partition_point(place);
                let message = Message {
                    from: from as u8,
                    to: to as u8,
                    content,
                };
                self.messages.insert(place, message);
            }
            // A repetition; one that was not taken yet may be overtaken by the new one.
            Some(old) if number >= taken => self.messages[old].content = content,
            Some(_) => {}
        }
        self.processes[from].now.sent[to] += 1;
        self.processes[from].go_on();
        true
    }

    fn commit(&mut self, p: usize, decision: &Decision, setting: &Setting) -> bool {
        if decision.global && setting.without != Some(Rule::CommitGlobally) {
            self.processes.iter_mut().for_each(Process::commit);
        } else {
            self.processes[p].commit();
        }
        if self.processes[p].phase == Phase::OwesCommit {
            self.processes[p].phase = Phase::Ready;
        }
        true
    }

    fn crash(&mut self, subset: u8, group: bool) {
        for (p, process) in self.processes.iter_mut().enumerate() {
            if subset & (1 << p) != 0 {
                process.roll_back();
                if group {
                    process.phase = Phase::Halted;
                }
            }
        }
        self.broken |= group;
    }

    fn roll_back_all(&mut self) {
        self.broken = false;
        for process in &mut self.processes {
            process.roll_back();
        }
        let mut kept = [[0; PROCESSES_MAX]; PROCESSES_MAX];
        let processes = &self.processes;
        self.messages.retain(|message| {
            let (from, to) = (message.from as usize, message.to as usize);
            kept[from][to] += 1;
            kept[from][to] <= processes[from].now.sent[to]
        });
    }

    /// The place of the message of that number between two processes.
    fn message(&self, from: usize, to: usize, number: usize) -> Option<usize> {
        let between = |m: &Message| m.from as usize == from && m.to as usize == to;
        (0..self.messages.len())
            .filter(|i| between(&self.messages[*i]))
            .nth(number)
    }
}

/// The machine's decision, less the rule that was taken away.
fn decide(mut machine: Machine, event: Event, setting: &Setting) -> (Machine, Decision) {
    let without = |rule| setting.without == Some(rule);
    let flip = matches!(event, Event::NonDeterministic { .. });
    let receive = event == Event::Receive;
    if (flip && without(Rule::FlagNonDeterministic)) || (receive && without(Rule::FlagReceive)) {
        return (machine, Decision::NONE);
    }
    let mut rules = match setting.regime {
        Regime::Fixed(rules) => rules,
        Regime::Changing => machine.protocol().rules(),
    };
    if (flip && without(Rule::CommitAfterNonDeterministic))
        || (receive && without(Rule::CommitAfterReceive))
    {
        rules.after_non_deterministic = false;
    }
    let mut decision = machine.step_under(&rules, event);
    if (event == Event::Visible && without(Rule::CommitBeforeVisible))
        || (event == Event::Send && without(Rule::CommitBeforeSend))
    {
        decision.commit_before = false;
    }
    if (flip && without(Rule::LogNonDeterministic)) || (receive && without(Rule::LogReceive)) {
        decision.log = false;
    }
    if (event == Event::Visible && without(Rule::FlushBeforeVisible))
        || (event == Event::Send && without(Rule::FlushBeforeSend))
    {
        decision.flush = false;
    }
    (machine, decision)
}

impl Process {
    fn go_on(&mut self) {
        self.now.at += 1;
        self.phase = Phase::Ready;
    }

    /// The record that re-execution is fed with next.
    fn next_record(&self) -> Option<Outcome> {
        self.log.get(self.fed as usize).copied()
    }

    fn flush(&mut self) {
        self.durable = self.log.len() as u8;
        self.machine.step(Event::Flushed);
    }

    fn commit(&mut self) {
        self.committed = self.now;
        // Records that are not fed yet lie ahead of this commit and stay.
        self.log.drain(..self.fed as usize);
        self.fed = 0;
        self.durable = self.log.len() as u8;
        self.machine.step(Event::Committed);
    }

    fn roll_back(&mut self) {
        self.now = self.committed;
        self.phase = Phase::Ready;
        self.fed = 0;
        self.log.truncate(self.durable as usize);
        self.machine.step(Event::RolledBack);
    }
}
