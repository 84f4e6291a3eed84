//! Brings the traces of several processes into one order.
//!
//! Each process may write a trace of its own, and the clocks say how they interleave: a line's turn
//! comes when the events it depends on have had theirs. One line of each trace is held. If no
//! line's turn comes, some clock or line is wrong; then they are taken as they stand, and the judge
//! finds what it is.
//!
//! A process that was killed may have been writing its last line. What does not end with a newline
//! is no line, however complete it looks: half a number is a number too.

use crate::record::{Place, Record, TraceError};
use std::collections::HashMap;
use std::io::BufRead;

/// Traces to be read as one.
pub struct Traces<R> {
    traces: Vec<Trace<R>>,
    /// The last event handed out, of each process.
    seen: HashMap<u32, u64>,
    /// The trace that was read from last.
    turn: usize,
}

struct Trace<R> {
    reader: R,
    number: u32,
    lines: u64,
    text: String,
    /// Its last line was never finished.
    torn: bool,
    head: Record,
    state: Head,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    Unread,
    Waiting,
    Ended,
}

impl<R: BufRead> Traces<R> {
    /// One trace that holds every process's lines.
    pub fn one(reader: R) -> Self {
        Traces {
            traces: vec![Trace::new(reader, 0)],
            seen: HashMap::new(),
            turn: 0,
        }
    }

    /// One or several traces.
    pub fn new(readers: impl IntoIterator<Item = R>) -> Self {
        let mut traces: Vec<Trace<R>> = readers
            .into_iter()
            .zip(1..)
            .map(|(reader, number)| Trace::new(reader, number))
            .collect();
        if let [only] = &mut traces[..] {
            only.number = 0;
        }
        Traces {
            traces,
            seen: HashMap::new(),
            turn: 0,
        }
    }

    /// The next event, or nothing at the end of all traces.
    pub fn next(&mut self, record: &mut Record) -> Result<bool, TraceError> {
        if let [only] = &mut self.traces[..] {
            return only.read(record);
        }
        for trace in &mut self.traces {
            trace.fill()?;
        }
        let count = self.traces.len();
        let order = || (0..count).map(|i| (self.turn + i) % count.max(1));
        let waiting = |at: &usize| self.traces[*at].state == Head::Waiting;
        let ready = |at: &usize| waiting(at) && self.is_ready(&self.traces[*at].head);
        let Some(at) = order().find(ready).or_else(|| order().find(waiting)) else {
            return Ok(false);
        };
        self.turn = at;
        let trace = &mut self.traces[at];
        trace.state = Head::Unread;
        std::mem::swap(&mut trace.head, record);
        self.seen.insert(record.process, record.sequence);
        Ok(true)
    }

    /// How many traces end within a line.
    pub fn torn(&self) -> usize {
        self.traces.iter().filter(|trace| trace.torn).count()
    }

    fn is_ready(&self, record: &Record) -> bool {
        record.clock.iter().all(|(process, sequence)| {
            *process == record.process || self.seen.get(process).is_some_and(|s| s >= sequence)
        })
    }
}

impl<R: BufRead> Trace<R> {
    fn new(reader: R, number: u32) -> Self {
        let (text, head) = (String::new(), Record::new());
        Trace {
            reader,
            number,
            lines: 0,
            text,
            torn: false,
            head,
            state: Head::Unread,
        }
    }

    fn fill(&mut self) -> Result<(), TraceError> {
        if self.state == Head::Unread {
            let mut head = std::mem::take(&mut self.head);
            let more = self.read(&mut head)?;
            self.head = head;
            self.state = if more { Head::Waiting } else { Head::Ended };
        }
        Ok(())
    }

    fn read(&mut self, record: &mut Record) -> Result<bool, TraceError> {
        loop {
            self.text.clear();
            if self
                .reader
                .read_line(&mut self.text)
                .map_err(TraceError::Read)?
                == 0
            {
                return Ok(false);
            }
            if !self.text.ends_with('\n') {
                self.torn = true;
                return Ok(false);
            }
            self.lines += 1;
            let place = Place {
                trace: self.number,
                line: self.lines,
            };
            if record.parse(&self.text, place)? {
                return Ok(true);
            }
        }
    }
}
