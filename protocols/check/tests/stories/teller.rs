//! Plays a run: the real machines decide, the real writer writes, the real checker judges.

use protocols::trace::{Class, Clock, Fate, Line, Note};
use protocols::{Decision, Event, Machine, Protocol};
use protocols_check::equivalence::{Comparison, compare};
use protocols_check::{Record, Traces, cascade, check};
use std::collections::BTreeMap;
use std::fmt::Write;

type Knowledge = Clock<8>;

struct Process {
    machine: Option<Machine>,
    clock: Knowledge,
    committed: Knowledge,
    /// What was logged since the commit, and how much of it a flush has saved.
    log: Vec<(Class, String, Note)>,
    durable: usize,
}

#[derive(Default)]
struct Run {
    protocol: Option<Protocol>,
    processes: BTreeMap<u32, Process>,
    /// Messages by name: the last send of it.
    messages: BTreeMap<String, (u32, u64, Knowledge)>,
    shown: Vec<String>,
    rounds: u64,
    trace: String,
    epilogue: String,
}

/// What comes of the run that these lines tell.
pub fn tell(lines: &[&str]) -> String {
    let mut run = Run::default();
    for line in lines {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.is_empty() {
            run.command(&words);
        }
    }
    let report = check(Traces::one(run.trace.as_bytes())).expect("the trace is readable");
    format!("{}{report}{}", run.trace, run.epilogue)
}

impl Run {
    fn command(&mut self, words: &[&str]) {
        match words {
            ["run", "none"] => {}
            ["run", name] => self.protocol = Some(Protocol::from_name(name).expect("a protocol")),
            ["legal", legal @ ..] => self.compare(legal),
            ["cascade", failed] => self.cascade(failed.parse().expect("a process")),
            ["recover", "all"] => {
                let all: Vec<u32> = self.processes.keys().copied().collect();
                all.into_iter().for_each(|p| self.recover(p));
            }
            [process, rest @ ..] => self.event(process.parse().expect("a process"), rest),
            [] => {}
        }
    }

    fn process(&mut self, p: u32) -> &mut Process {
        let protocol = self.protocol;
        self.processes.entry(p).or_insert_with(|| Process {
            machine: protocol.map(Machine::new),
            clock: Knowledge::new(),
            committed: Knowledge::new(),
            log: Vec::new(),
            durable: 0,
        })
    }

    fn event(&mut self, p: u32, words: &[&str]) {
        self.process(p);
        match *words {
            ["nd", call] => {
                let loggable = call == "read";
                let event = Event::NonDeterministic { loggable };
                self.happens(p, Class::NonDeterministic, call, event, Note::None);
            }
            ["fixed", call] => {
                let event = Event::NonDeterministic { loggable: true };
                self.happens(p, Class::Fixed, call, event, Note::None);
            }
            ["receive", name] => {
                let (from, sequence, clock) = self.messages[name];
                self.process(p).clock.merge(clock.as_slice()).expect("room");
                let note = Note::From(from, sequence);
                self.happens(p, Class::Receive, name, Event::Receive, note);
            }
            ["visible", what] => {
                self.before(p, Event::Visible);
                self.line(p, Class::Visible, what, Fate::Open, Note::None);
                self.shown.push(what.to_string());
            }
            ["send", _to, name] => {
                self.before(p, Event::Send);
                self.line(p, Class::Send, name, Fate::Open, Note::None);
                let clock = self.process(p).clock;
                self.messages
                    .insert(name.to_string(), (p, clock.get(p), clock));
            }
            ["commit"] => {
                let asked = Event::CommitRequested;
                let decision = self.process(p).machine.as_mut().map(|m| m.step(asked));
                self.commit(p, decision.unwrap_or_default());
            }
            ["fault"] => self.line(p, Class::Fault, "bug", Fate::Open, Note::None),
            ["kill"] => self.line(p, Class::Kill, "SIGKILL", Fate::Open, Note::None),
            ["crash"] => self.line(p, Class::Crash, "SIGSEGV", Fate::Open, Note::None),
            ["recover"] => self.recover(p),
            _ => panic!("no story tells {words:?}"),
        }
    }

    fn happens(&mut self, p: u32, class: Class, call: &str, event: Event, note: Note) {
        let decision = self
            .process(p)
            .machine
            .as_mut()
            .map(|m| m.step(event))
            .unwrap_or_default();
        let fate = if decision.log {
            Fate::Queue
        } else {
            Fate::Open
        };
        self.line(p, class, call, fate, note);
        if decision.log {
            self.process(p).log.push((class, call.to_string(), note));
        }
        if decision.commit_after {
            self.commit(p, decision);
        }
    }

    fn before(&mut self, p: u32, event: Event) {
        let decision = self
            .process(p)
            .machine
            .as_mut()
            .map(|m| m.step(event))
            .unwrap_or_default();
        if decision.flush {
            self.line(p, Class::Flush, "log", Fate::Open, Note::None);
            let process = self.process(p);
            process.durable = process.log.len();
            process.machine.as_mut().map(|m| m.step(Event::Flushed));
        }
        if decision.commit_before {
            self.commit(p, decision);
        }
    }

    fn commit(&mut self, p: u32, decision: Decision) {
        if !decision.global {
            self.line(p, Class::Commit, "checkpoint", Fate::Commit, Note::None);
            self.process(p).commit();
            return;
        }
        self.rounds += 1;
        let round = Note::Round(self.rounds);
        let all: Vec<u32> = self.processes.keys().copied().collect();
        for &q in &all {
            self.line(q, Class::Prepare, "checkpoint", Fate::Open, round);
        }
        let votes: Vec<Knowledge> = all.iter().map(|q| self.processes[q].clock).collect();
        for &q in &all {
            for vote in &votes {
                self.process(q).clock.merge(vote.as_slice()).expect("room");
            }
            self.line(q, Class::Commit, "checkpoint", Fate::Commit, round);
            self.process(q).commit();
        }
    }

    fn recover(&mut self, p: u32) {
        let process = self.process(p);
        let own = process.clock.get(p);
        let to = process.committed.get(p);
        process.clock = process.committed;
        process.clock.learn(p, own).expect("room");
        process.machine.as_mut().map(|m| m.step(Event::RolledBack));
        process.log.truncate(process.durable);
        let log = process.log.clone();
        self.line(p, Class::Recover, "restore", Fate::Open, Note::To(to));
        for (class, call, note) in log {
            if class == Class::Receive {
                let clock = self.messages[&call].2;
                self.process(p).clock.merge(clock.as_slice()).expect("room");
            }
            self.line(p, class, &call, Fate::Replay, note);
        }
    }

    fn line(&mut self, p: u32, class: Class, call: &str, fate: Fate, note: Note) {
        let process = self.process(p);
        let sequence = process.clock.tick(p).expect("room");
        let clock = process.clock;
        let clock = clock.as_slice();
        let mut buffer = [0; 200];
        let len = Line {
            process: p,
            sequence,
            class,
            call,
            fate,
            clock,
            note,
        }
        .write_to(&mut buffer)
        .expect("the line fits");
        self.trace
            .push_str(std::str::from_utf8(&buffer[..len]).expect("it is ASCII"));
    }

    fn compare(&mut self, legal: &[&str]) {
        let legal: Vec<String> = legal.iter().map(|w| w.to_string()).collect();
        let verdict = match compare(&self.shown, &legal) {
            Comparison::Equivalent { repeated: 0 } => "the same as".to_string(),
            Comparison::Equivalent { repeated } => {
                format!("equivalent, with {repeated} repeated, to")
            }
            Comparison::Begins { missing, .. } => {
                format!("no complete recovery, {missing} missing, of")
            }
            Comparison::Differs { shown, .. } => format!("inconsistent, by {shown}, with"),
        };
        let (shown, legal) = (self.shown.join(" "), legal.join(" "));
        let _ = writeln!(self.epilogue, "shown: {shown}: {verdict} {legal}");
    }

    fn cascade(&mut self, failed: u32) {
        let mut records = Vec::new();
        for line in self.trace.lines() {
            let mut record = Record::new();
            if record.parse(line, Default::default()).expect("a line") {
                records.push(record);
            }
        }
        let lines = [
            ("classically", cascade::classical(&records, failed)),
            ("by the theory", cascade::by_theory(&records, failed)),
        ];
        for (how, line) in lines {
            let _ = write!(self.epilogue, "when {failed} fails, {how}:");
            for (process, at) in line {
                let last = self.processes[&process].clock.get(process);
                let _ = match at {
                    _ if at == last => write!(self.epilogue, " {process} goes on"),
                    0 => write!(self.epilogue, " {process} back to its beginning"),
                    at => write!(self.epilogue, " {process} back to {at}"),
                };
                self.epilogue.push(',');
            }
            self.epilogue.pop();
            self.epilogue.push('\n');
        }
    }
}

impl Process {
    fn commit(&mut self) {
        self.committed = self.clock;
        self.log.clear();
        self.durable = 0;
        self.machine.as_mut().map(|m| m.step(Event::Committed));
    }
}
