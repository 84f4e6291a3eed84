//! Lose-work: the commits that make an application's own crash final.
//!
//! Theorem 2 says where a process must commit to save its work. If the failure is the program's own,
//! it must also *lose* some: a commit from which every path leads into the crash brings the program
//! back only to crash again. (Lowell, Chandra and Chen, "Exploring Failure Transparency and the
//! Limits of Generic Recovery", OSDI 2000.) The dangerous path reaches back from the crash to the
//! last event that might have gone otherwise: the last one that is non-deterministic, transient and
//! not preserved. A user's input is non-deterministic but fixed, for the user will type the same;
//! a message is fixed once its sender is committed past it; what is logged is determined.
//!
//! A trace holds one execution, so it cannot tell whether the other results would have avoided the
//! crash. They are taken to: a crash counted as avoidable here may be final all the same, one
//! counted as final is. Where the trace says at which event the bug began its work, every later
//! commit is on the dangerous path, whatever happened in between.

use crate::record::{Place, Record};
use crate::violation::Event;
use protocols::trace::{Class, Fate};
use std::fmt;

/// A crash from which recovery leads into the same crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Final {
    pub crash: Event,
    /// The first commit on the dangerous path; 0 is the process's beginning.
    pub commit: u64,
    pub place: Place,
    pub commits: u64,
    /// The path is known to be dangerous since the bug began its work there.
    pub fault: Option<Place>,
}

/// The counts of a run.
#[derive(Clone, Debug, Default)]
pub struct LoseWork {
    /// Failures of the program itself.
    pub crashes: u64,
    /// Those of them with a commit on the dangerous path.
    pub finals: u64,
    /// The commits on dangerous paths, all together.
    pub commits: u64,
    /// The first final crash.
    pub first: Option<Final>,
    processes: Vec<Process>,
}

/// Commits along a path.
#[derive(Clone, Copy, Debug)]
struct Path {
    commits: u64,
    first: Option<(u64, Place)>,
}

#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Since the last event that might go otherwise.
    path: Path,
    /// The path that this one turns out to continue if the queued results are flushed.
    if_flushed: Option<Path>,
    /// Since the bug began its work.
    fault: Option<(Place, Path)>,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    now: Standing,
    committed: Standing,
}

impl LoseWork {
    /// An event of process number `p`. `settled` says of a receive that the message will come again
    /// as it was.
    pub fn event(&mut self, p: usize, record: &Record, settled: bool) {
        if p >= self.processes.len() {
            self.processes.resize(p + 1, Process::BEGINNING);
        }
        let process = &mut self.processes[p];
        let now = &mut process.now;
        match record.class {
            Class::NonDeterministic => now.may_go_otherwise(record.fate),
            Class::Receive if !settled => now.may_go_otherwise(record.fate),
            Class::Flush => now.flush(),
            Class::Fault => now.fault = Some((record.place, Path::NEW)),
            Class::Recover => *now = process.committed,
            Class::Crash => {
                let crash = *now;
                self.crash(record, crash);
                return;
            }
            _ => {}
        }
        if record.class == Class::Commit || record.fate == Fate::Commit {
            now.commit(record);
            process.committed = process.now;
        }
    }

    fn crash(&mut self, record: &Record, standing: Standing) {
        self.crashes += 1;
        let known = standing.fault.filter(|(_, path)| path.commits > 0);
        let path = known.map_or(standing.path, |(_, path)| path);
        let Some((commit, place)) = path.first else {
            return;
        };
        self.finals += 1;
        self.commits += path.commits;
        let (process, sequence) = (record.process, record.sequence);
        let crash = Event {
            process,
            sequence,
            place: record.place,
        };
        let fault = known.map(|(place, _)| place);
        self.first.get_or_insert(Final {
            crash,
            commit,
            place,
            commits: path.commits,
            fault,
        });
    }
}

impl Path {
    const NEW: Path = Path {
        commits: 0,
        first: None,
    };
    /// The initial state is committed.
    const BEGINNING: Path = Path {
        commits: 1,
        first: Some((0, Place { trace: 0, line: 0 })),
    };

    fn commit(&mut self, record: &Record) {
        self.commits += 1;
        self.first.get_or_insert((record.sequence, record.place));
    }
}

impl Process {
    const BEGINNING: Process = {
        let standing = Standing {
            path: Path::BEGINNING,
            if_flushed: None,
            fault: None,
        };
        Process {
            now: standing,
            committed: standing,
        }
    };
}

impl Standing {
    fn may_go_otherwise(&mut self, fate: Fate) {
        match fate {
            Fate::Open | Fate::Commit => {
                self.path = Path::NEW;
                self.if_flushed = None;
            }
            Fate::Queue => {
                self.if_flushed.get_or_insert(self.path);
                self.path = Path::NEW;
            }
            Fate::Log | Fate::Replay => {}
        }
    }

    fn flush(&mut self) {
        if let Some(path) = self.if_flushed.take() {
            self.path = path;
        }
    }

    fn commit(&mut self, record: &Record) {
        self.if_flushed = None;
        self.path.commit(record);
        if let Some((_, path)) = &mut self.fault {
            path.commit(record);
        }
    }
}

impl fmt::Display for LoseWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.crashes == 0 {
            return Ok(());
        }
        writeln!(
            f,
            "program crashes {}: final {}, by commits on the dangerous path {}; avoidable {}",
            self.crashes,
            self.finals,
            self.commits,
            self.crashes - self.finals,
        )?;
        let Some(first) = &self.first else {
            return Ok(());
        };
        let Final {
            crash,
            commit,
            place,
            commits,
            fault,
        } = first;
        write!(f, "lost: {crash} crashes again from ")?;
        match commit {
            0 => write!(f, "its beginning")?,
            commit => write!(f, "its commit {commit} ({place})")?,
        }
        match (fault, commits) {
            (Some(fault), _) => writeln!(f, ", made after the fault at {fault}"),
            (None, 1) => writeln!(f, ", since nothing after it might go otherwise"),
            (None, more) => {
                writeln!(
                    f,
                    ", the first of {more} since which nothing might go otherwise"
                )
            }
        }
    }
}
