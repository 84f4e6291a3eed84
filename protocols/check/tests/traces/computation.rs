//! A computation of any number of processes that runs at random under a protocol and writes the
//! trace of what it does, crashes and recoveries included. It is read like a file of any length.

use protocols::trace::{Class, Fate, HEADER, Line, Note};
use protocols::{Decision, Event, Machine, Protocol};
use std::collections::VecDeque;
use std::io::Read;

/// How a computation spends its time, in parts of the sum.
#[derive(Clone, Copy)]
pub struct Mix {
    pub signals: u64,
    pub reads: u64,
    pub visible: u64,
    pub messages: u64,
    pub kills: u64,
    /// Keys of a user: non-deterministic, and the same again.
    pub keys: u64,
    /// Bugs, which begin their work unseen and end it by a crash a while later.
    pub bugs: u64,
}

pub const EVEN: Mix = Mix {
    signals: 20,
    reads: 40,
    visible: 40,
    messages: 60,
    kills: 1,
    keys: 0,
    bugs: 0,
};

#[derive(Clone)]
struct Sent {
    from: u32,
    sequence: u64,
    clock: Vec<u64>,
}

/// A record of the log: what it takes to write the line again.
#[derive(Clone)]
enum Logged {
    Read,
    Key,
    Received(Sent),
}

struct Process {
    machine: Machine,
    clock: Vec<u64>,
    committed: Vec<u64>,
    inbox: VecDeque<Sent>,
    log: Vec<Logged>,
    durable: usize,
    /// A bug is at work; the next event but few is its crash.
    bug: bool,
}

pub struct Computation {
    protocol: Protocol,
    mix: Mix,
    processes: Vec<Process>,
    events: u64,
    left: u64,
    round: u64,
    /// Whether the trace says where a bug began its work.
    pub tells_faults: bool,
    random: u64,
    text: Vec<u8>,
    read: usize,
}

impl Computation {
    /// One that ends after about that many events.
    pub fn new(protocol: Protocol, processes: usize, mix: Mix, events: u64) -> Self {
        let process = |_| Process {
            machine: Machine::new(protocol),
            clock: vec![0; processes],
            committed: vec![0; processes],
            inbox: VecDeque::new(),
            log: Vec::new(),
            durable: 0,
            bug: false,
        };
        Computation {
            protocol,
            mix,
            processes: (0..processes).map(process).collect(),
            events: 0,
            left: events,
            round: 0,
            tells_faults: false,
            random: 0x9e37_79b9_7f4a_7c15,
            text: HEADER.as_bytes().to_vec(),
            read: 0,
        }
    }

    fn pick(&mut self, below: u64) -> u64 {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn line(&mut self, p: usize, class: Class, call: &str, fate: Fate, note: Note) {
        let process = &mut self.processes[p];
        process.clock[p] += 1;
        let known = process.clock.iter().enumerate().filter(|(_, c)| **c > 0);
        let clock: Vec<(u32, u64)> = known.map(|(q, c)| (q as u32 + 1, *c)).collect();
        let (sequence, process) = (process.clock[p], p as u32 + 1);
        let line = Line {
            process,
            sequence,
            class,
            call,
            fate,
            clock: &clock,
            note,
        };
        let at = self.text.len();
        self.text.resize(at + 128 + clock.len() * 32, 0);
        let len = line.write_to(&mut self.text[at..]).expect("the line fits");
        self.text.truncate(at + len);
        self.events += 1;
        self.left = self.left.saturating_sub(1);
    }

    fn step(&mut self) {
        let p = self.pick(self.processes.len() as u64) as usize;
        if self.processes[p].bug && self.pick(5) == 0 {
            return self.fail(p, Class::Crash, "SIGSEGV");
        }
        let Mix {
            signals,
            reads,
            visible,
            messages,
            kills,
            keys,
            bugs,
        } = self.mix;
        let mut choice = self.pick(signals + reads + visible + messages + kills + keys + bugs);
        let mut is = |part: u64| {
            let hit = choice < part;
            choice = choice.wrapping_sub(part);
            hit
        };
        if is(signals) {
            self.happens(p, Event::NonDeterministic { loggable: false }, Logged::Read);
        } else if is(reads) {
            self.happens(p, Event::NonDeterministic { loggable: true }, Logged::Read);
        } else if is(visible) {
            self.before(p, Event::Visible);
            self.line(p, Class::Visible, "write", Fate::Open, Note::None);
        } else if is(messages) && self.processes.len() > 1 {
            match self.processes[p].inbox.pop_front() {
                Some(sent) => self.happens(p, Event::Receive, Logged::Received(sent)),
                None => self.send(p),
            }
        } else if is(keys) {
            self.happens(p, Event::NonDeterministic { loggable: true }, Logged::Key);
        } else if is(bugs) {
            self.processes[p].bug = true;
            if self.tells_faults {
                self.line(p, Class::Fault, "bug", Fate::Open, Note::None);
            }
        } else {
            self.fail(p, Class::Kill, "SIGKILL");
        }
    }

    fn happens(&mut self, p: usize, event: Event, what: Logged) {
        let decision = self.processes[p].machine.step(event);
        let fate = if decision.log {
            Fate::Queue
        } else {
            Fate::Open
        };
        let loggable = event != Event::NonDeterministic { loggable: false };
        self.tell(p, &what, fate, if loggable { "read" } else { "signal" });
        if decision.log {
            self.processes[p].log.push(what);
        }
        if decision.commit_after {
            self.commit(p, &decision);
        }
    }

    fn tell(&mut self, p: usize, what: &Logged, fate: Fate, call: &str) {
        match what {
            Logged::Read => self.line(p, Class::NonDeterministic, call, fate, Note::None),
            Logged::Key => self.line(p, Class::Fixed, call, fate, Note::None),
            Logged::Received(sent) => {
                for (mine, theirs) in self.processes[p].clock.iter_mut().zip(&sent.clock) {
                    *mine = (*mine).max(*theirs);
                }
                let note = Note::From(sent.from, sent.sequence);
                self.line(p, Class::Receive, "recvmsg", fate, note);
            }
        }
    }

    fn before(&mut self, p: usize, event: Event) {
        let decision = self.processes[p].machine.step(event);
        if decision.flush {
            self.line(p, Class::Flush, "log", Fate::Open, Note::None);
            let process = &mut self.processes[p];
            process.machine.step(Event::Flushed);
            process.durable = process.log.len();
        }
        if decision.commit_before {
            self.commit(p, &decision);
        }
    }

    fn send(&mut self, p: usize) {
        self.before(p, Event::Send);
        self.line(p, Class::Send, "sendmsg", Fate::Open, Note::None);
        let others = self.processes.len() as u64 - 1;
        let to = (p + 1 + self.pick(others) as usize) % self.processes.len();
        let clock = self.processes[p].clock.clone();
        let sent = Sent {
            from: p as u32 + 1,
            sequence: clock[p],
            clock,
        };
        self.processes[to].inbox.push_back(sent);
    }

    fn commit(&mut self, p: usize, decision: &Decision) {
        if !decision.global {
            self.line(p, Class::Commit, "checkpoint", Fate::Commit, Note::None);
            self.processes[p].commit();
            return;
        }
        self.round += 1;
        let round = Note::Round(self.round);
        let all = 0..self.processes.len();
        for q in all.clone() {
            self.line(q, Class::Prepare, "checkpoint", Fate::Open, round);
        }
        let known: Vec<u64> = all.clone().map(|q| self.processes[q].clock[q]).collect();
        // The commits of a round are not ordered among themselves, and know all its votes.
        for q in all {
            for (mine, theirs) in self.processes[q].clock.iter_mut().zip(&known) {
                *mine = (*mine).max(*theirs);
            }
            self.line(q, Class::Commit, "checkpoint", Fate::Commit, round);
            self.processes[q].commit();
        }
    }

    fn fail(&mut self, p: usize, class: Class, call: &str) {
        self.line(p, class, call, Fate::Open, Note::None);
        self.processes[p].bug = false;
        if self.protocol.is_two_phase() {
            for q in 0..self.processes.len() {
                self.recover(q);
                self.processes[q].inbox.clear();
            }
        } else {
            self.recover(p);
        }
    }

    fn recover(&mut self, p: usize) {
        let process = &mut self.processes[p];
        let own = process.clock[p];
        process.clock.clone_from(&process.committed);
        process.clock[p] = own;
        process.machine.step(Event::RolledBack);
        process.log.truncate(process.durable);
        let log = process.log.clone();
        self.line(
            p,
            Class::Recover,
            "restore",
            Fate::Open,
            Note::To(self.processes[p].committed[p]),
        );
        for record in &log {
            self.tell(p, record, Fate::Replay, "read");
        }
    }
}

impl Process {
    fn commit(&mut self) {
        self.machine.step(Event::Committed);
        self.committed.clone_from(&self.clock);
        self.log.clear();
        self.durable = 0;
    }
}

impl Read for Computation {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.read == self.text.len() {
            self.text.clear();
            self.read = 0;
            while self.left > 0 && self.text.len() < 1 << 16 {
                self.step();
            }
        }
        let len = (&self.text[self.read..]).read(buffer)?;
        self.read += len;
        Ok(len)
    }
}
