//! The trace of a program that commits by transactions: Vistagrams as a protocol of the theory.
//!
//! A receive is non-deterministic; a commit stands before every send and everything visible
//! (thesis, section 4.4.1). Lines go to a file as events happen. Commits and sends are known only
//! once the transaction is durable, so their numbers and clock lie in the program's own memory, in
//! the same transaction: a start adds the lines that a death kept from being written.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use protocols::trace::{Class, Clock, Fate, HEADER, Line, Note};
use vista::persistent;

/// Programs that one of them may come to depend on.
const PROGRAMS: usize = 16;

persistent! {
    /// What was committed last.
    pub struct TraceRow {
        /// The number of the commit among the program's events; 0 before the first.
        pub commit: u64,
        /// Messages that left with it.
        pub sends: u64,
        pub clock_len: u64,
        pub processes: [u64; PROGRAMS],
        pub sequences: [u64; PROGRAMS],
    }
}

pub struct Trace {
    process: u32,
    clock: Clock<PROGRAMS>,
    file: Option<File>,
}

/// The event that has sent a message.
#[derive(Clone)]
pub struct Stamp {
    process: u32,
    sequence: u64,
    clock: Vec<(u32, u64)>,
}

impl Trace {
    /// Goes on with a trace, or begins one; without a path nothing is written.
    pub fn open(process: u32, path: Option<&str>, row: &TraceRow) -> io::Result<Trace> {
        let mut trace = Trace {
            process,
            clock: row.clock(),
            file: None,
        };
        let Some(path) = path else {
            return Ok(trace);
        };
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // What a death has torn is no line.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        trace.file = Some(file);
        match text[..whole]
            .lines()
            .rev()
            .find(|line| !line.starts_with('#'))
        {
            None => trace.put(HEADER),
            Some(last) => trace.go_on(last, row),
        }
        Ok(trace)
    }

    /// The lines that the last life did not come to write, its death, and the return to its commit.
    fn go_on(&mut self, last: &str, row: &TraceRow) {
        let committed = self.clock;
        self.clock = parse_clock(last);
        let written = self.clock.get(self.process);
        let last_send = row.commit + row.sends;
        if written < last_send {
            // The commit is durable, so all before it is on the trace, or it and its sends alone
            // are missing.
            self.clock = committed;
            for sequence in written.max(row.commit.saturating_sub(1)) + 1..=last_send {
                self.at(sequence);
                match sequence == row.commit {
                    true => self.line(Class::Commit, "end-transaction", Note::None),
                    false => self.line(Class::Send, "deferred-send", Note::None),
                }
            }
        }
        // A start may have died between these two lines.
        if last.split(' ').nth(2) != Some(Class::Kill.name()) {
            self.event(Class::Kill, "kill", Note::None);
        }
        let own = self.clock.get(self.process);
        self.clock = committed;
        self.at(own);
        self.event(Class::Recover, "recover", Note::To(row.commit));
    }

    pub fn received(&mut self, stamp: &Stamp) {
        self.clock.merge(&stamp.clock).expect("few programs");
        self.event(
            Class::Receive,
            "receive",
            Note::From(stamp.process, stamp.sequence),
        );
    }

    pub fn visible(&mut self) {
        self.event(Class::Visible, "write", Note::None);
    }

    /// The stamps of messages that will leave with the next commit, which is the next event.
    pub fn stamps(&self, count: usize) -> Vec<Stamp> {
        let first = self.clock.get(self.process) + 2;
        let stamp = |sequence| {
            let mut clock = self.clock;
            clock.learn(self.process, sequence).expect("few programs");
            Stamp {
                process: self.process,
                sequence,
                clock: clock.as_slice().to_vec(),
            }
        };
        (first..first + count as u64).map(stamp).collect()
    }

    /// What the next commit is to keep.
    pub fn row(&self, sends: usize) -> TraceRow {
        let commit = self.clock.get(self.process) + 1;
        let mut row = TraceRow {
            commit,
            sends: sends as u64,
            clock_len: 0,
            processes: [0; PROGRAMS],
            sequences: [0; PROGRAMS],
        };
        let mut clock = self.clock;
        clock.learn(self.process, commit).expect("few programs");
        for (index, (process, sequence)) in clock.as_slice().iter().enumerate() {
            (row.processes[index], row.sequences[index]) = ((*process).into(), *sequence);
            row.clock_len = index as u64 + 1;
        }
        row
    }

    pub fn committed(&mut self, sends: usize) {
        self.event(Class::Commit, "end-transaction", Note::None);
        for _ in 0..sends {
            self.event(Class::Send, "deferred-send", Note::None);
        }
    }

    fn at(&mut self, sequence: u64) {
        self.clock
            .learn(self.process, sequence)
            .expect("few programs");
    }

    fn event(&mut self, class: Class, call: &str, note: Note) {
        self.clock.tick(self.process).expect("few programs");
        self.line(class, call, note);
    }

    fn line(&mut self, class: Class, call: &str, note: Note) {
        let mut buffer = [0; 1024];
        let line = Line {
            process: self.process,
            sequence: self.clock.get(self.process),
            class,
            call,
            fate: Fate::Open,
            clock: self.clock.as_slice(),
            note,
        };
        let len = line.write_to(&mut buffer).expect("a line is short");
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        self.put(&text);
    }

    fn put(&mut self, text: &str) {
        if let Some(file) = &mut self.file {
            // One write, so that only the last line can be torn.
            file.write_all(text.as_bytes()).expect("write the trace");
        }
    }
}

impl TraceRow {
    fn clock(&self) -> Clock<PROGRAMS> {
        let mut clock = Clock::new();
        for index in 0..(self.clock_len as usize).min(PROGRAMS) {
            let (process, sequence) = (self.processes[index], self.sequences[index]);
            clock
                .learn(process as u32, sequence)
                .expect("as many as were stored");
        }
        clock
    }
}

/// The sixth field of a line.
fn parse_clock(line: &str) -> Clock<PROGRAMS> {
    let mut clock = Clock::new();
    let field = line.split_whitespace().nth(5).unwrap_or("");
    for entry in field.split(',') {
        if let Some((process, sequence)) = entry.split_once(':')
            && let (Ok(process), Ok(sequence)) = (process.parse(), sequence.parse())
        {
            clock
                .learn(process, sequence)
                .expect("as many as were written");
        }
    }
    clock
}

impl Stamp {
    /// The message with its stamp: process u32, sequence u64, entries u32, then process u32 and
    /// sequence u64 of each.
    pub fn before(&self, body: &[u8]) -> Vec<u8> {
        let mut bytes = self.process.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&(self.clock.len() as u32).to_le_bytes());
        for (process, sequence) in &self.clock {
            bytes.extend_from_slice(&process.to_le_bytes());
            bytes.extend_from_slice(&sequence.to_le_bytes());
        }
        bytes.extend_from_slice(body);
        bytes
    }

    pub fn split(bytes: &[u8]) -> Option<(Stamp, &[u8])> {
        let (process, rest) = bytes.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (count, mut rest) = rest.split_first_chunk::<4>()?;
        let mut clock = Vec::new();
        for _ in 0..u32::from_le_bytes(*count).min(PROGRAMS as u32) {
            let (process, more) = rest.split_first_chunk::<4>()?;
            let (sequence, more) = more.split_first_chunk::<8>()?;
            clock.push((u32::from_le_bytes(*process), u64::from_le_bytes(*sequence)));
            rest = more;
        }
        let stamp = Stamp {
            process: u32::from_le_bytes(*process),
            sequence: u64::from_le_bytes(*sequence),
            clock,
        };
        Some((stamp, rest))
    }
}

/// Puts the lines of several traces into one order: each after those it depends on.
pub fn merge(traces: &[String]) -> String {
    let mut queues: Vec<_> = traces
        .iter()
        .map(|text| {
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .peekable()
        })
        .collect();
    let mut seen = std::collections::HashMap::<u32, u64>::new();
    let mut merged = HEADER.to_owned();
    loop {
        let ready = queues.iter_mut().position(|queue| {
            queue.peek().is_some_and(|line| {
                let own = line.split(' ').next().and_then(|id| id.parse().ok());
                let clock = parse_clock(line);
                clock.as_slice().iter().all(|(process, sequence)| {
                    Some(*process) == own || seen.get(process).is_some_and(|last| last >= sequence)
                })
            })
        });
        // If no line's turn comes, they are taken as they stand: the judge finds what is wrong.
        let left = queues.iter_mut().position(|queue| queue.peek().is_some());
        let Some(index) = ready.or(left) else {
            return merged;
        };
        if let Some(line) = queues[index].next() {
            let mut fields = line.split(' ');
            let process = fields.next().and_then(|id| id.parse().ok());
            let sequence = fields.next().and_then(|id| id.parse().ok());
            if let (Some(process), Some(sequence)) = (process, sequence) {
                seen.insert(process, sequence);
            }
            merged.push_str(line);
            merged.push('\n');
        }
    }
}
