//! `dcrun ps`: all runs of this user, with their state.
//!
//! A run is alive while its lock is held; what it is doing then is in the live
//! page of its image. Nothing here disturbs a run: it is looked at, not asked.

use std::io::Write;
use std::sync::atomic::Ordering::Acquire;

use dc_image::Status;
use dc_image::run::{Life, Process};
use serde_json::{Value, json};

use crate::image;
use crate::machine::shared::SharedLive;
use crate::message::{Outcome, json_text, printable};
use crate::record::Record;
use crate::run_directory::{self, RunDirectory};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    Recovering,
    Dead,
    Suspended,
    Done,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Recovering => "recovering",
            State::Dead => "dead",
            State::Suspended => "suspended",
            State::Done => "done",
        }
    }
}

/// One line of the list.
struct Line {
    state: State,
    record: Record,
    processes: Vec<Member>,
    worker_pid: Option<u32>,
    keeper_pid: Option<i32>,
    commits: u64,
    /// Results in its log: what a run gets on by when it does not commit.
    logged_events: u64,
    recoveries: u64,
}

pub fn show(as_json: bool) -> Outcome<u8> {
    let mut lines = Vec::new();
    for run in run_directory::all()? {
        match run.check().and_then(|()| run.record()) {
            Ok(Some(record)) => lines.push(look(&run, record)),
            Ok(None) => {}
            Err(failure) => crate::message::say(&failure.to_string()),
        }
    }
    let text = if as_json {
        let list: Value = lines.iter().map(Line::to_json).collect();
        json_text(&list)
    } else {
        table(&lines)
    };
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// What a run is doing.
pub fn state_of(alive: bool, done: bool, status: Option<Status>) -> State {
    match (alive, status) {
        _ if done => State::Done,
        (_, Some(Status::Done)) => State::Done,
        (true, Some(Status::Recovering)) => State::Recovering,
        (false, Some(Status::Suspended)) => State::Suspended,
        (true, Some(Status::Stopped)) | (false, _) => State::Dead,
        (true, _) => State::Running,
    }
}

fn look(run: &RunDirectory, record: Record) -> Line {
    let keeper_pid = run.alive();
    // What is damaged is there: the run is done, and nothing is known of it.
    let done = run.done().unwrap_or_else(|failure| {
        crate::message::say(&failure.to_string());
        Some(Value::Null)
    });
    let live = image::open(&record.image, run)
        .ok()
        .flatten()
        .and_then(|file| image::live(&file).ok());
    let status = live
        .as_ref()
        .and_then(|live| Status::from_u32(live.status.load(Acquire)));
    let state = state_of(keeper_pid.is_some(), done.is_some(), status);
    let of_done = |key: &str| {
        done.as_ref()
            .and_then(|done| done[key].as_u64())
            .unwrap_or(0)
    };
    let worker_pid = live
        .as_ref()
        .map(|live| live.first().real.load(Acquire) as u32)
        .filter(|&pid| pid != 0 && keeper_pid.is_some());
    let processes = match (&live, keeper_pid) {
        (Some(live), Some(_)) => members(live),
        _ => Vec::new(),
    };
    Line {
        processes,
        state,
        worker_pid,
        keeper_pid,
        commits: live
            .as_ref()
            .map_or_else(|| of_done("commits"), |live| live.commits.load(Acquire)),
        logged_events: live.as_ref().map_or_else(
            || of_done("logged_events"),
            |live| live.logged_events.load(Acquire),
        ),
        recoveries: live.as_ref().map_or_else(
            || of_done("recoveries"),
            |live| live.recoveries.load(Acquire),
        ),
        record,
    }
}

/// A process of a run.
struct Member {
    /// The kernel's number of its worker; none of one that has ended.
    pid: Option<u32>,
    parent: Option<u32>,
    state: &'static str,
    command: String,
}

/// The processes of a run that lives, the first one first.
fn members(live: &SharedLive) -> Vec<Member> {
    let all = live.processes();
    let number = |slot: usize| all.get(slot).map(|p| p.real.load(Acquire) as u32);
    all.iter()
        .enumerate()
        .filter(|(slot, p)| *slot == 0 || p.life() != Life::None)
        .map(|(slot, p)| Member {
            pid: number(slot).filter(|&pid| pid != 0),
            parent: p
                .parent_at(u64::MAX)
                .and_then(number)
                .filter(|&pid| pid != 0),
            state: match p.life() {
                Life::Zombie => "zombie",
                // The first one of a program that goes on without it.
                Life::None => "ended",
                Life::Lives => "running",
            },
            command: name_of(p),
        })
        .collect()
}

/// What a process runs, as the kernel names it.
pub fn name_of(p: &Process) -> String {
    let name = p.name.split(|&b| b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

impl Member {
    fn is_parent_of(&self, other: &Member) -> bool {
        self.pid.is_some() && self.pid == other.parent && self.pid != other.pid
    }

    fn to_json(&self) -> Value {
        json!({
            "pid": self.pid,
            "parent": self.parent,
            "state": self.state,
            "command": self.command,
        })
    }
}

impl Line {
    fn to_json(&self) -> Value {
        json!({
            "name": self.record.name,
            "state": self.state.name(),
            "protocol": self.record.protocol.name(),
            "worker_pid": self.worker_pid,
            "keeper_pid": self.keeper_pid,
            "commits": self.commits,
            "logged_events": self.logged_events,
            "recoveries": self.recoveries,
            "command": self.record.command_line(),
            "rio": self.record.rio.to_string(),
            "processes": self.processes.iter().map(Member::to_json).collect::<Vec<_>>(),
        })
    }

    fn cells(&self) -> Vec<String> {
        let pid = |pid: Option<String>| pid.unwrap_or_else(|| "-".to_owned());
        vec![
            self.record.name.clone(),
            self.state.name().to_owned(),
            self.record.protocol.name().to_owned(),
            pid(self.worker_pid.map(|pid| pid.to_string())),
            pid(self.keeper_pid.map(|pid| pid.to_string())),
            self.commits.to_string(),
            self.recoveries.to_string(),
            self.record.rio.to_string(),
            self.record.command_line(),
        ]
    }
}

fn table(lines: &[Line]) -> String {
    let head = [
        "NAME",
        "STATE",
        "PROTOCOL",
        "WORKER",
        "KEEPER",
        "COMMITS",
        "RECOVERIES",
        "RIO",
        "COMMAND",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for line in lines {
        rows.push(line.cells());
        if line.processes.len() > 1 {
            rows.extend(family(&line.processes));
        }
    }
    align(&rows)
}

/// The processes of a run as a tree: a row each, children below their parents.
fn family(members: &[Member]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    // (Who has no parent among them is a child of the keeper.)
    let of_keeper = |m: &Member| !members.iter().any(|other| other.is_parent_of(m));
    let mut waiting: Vec<(&Member, String)> = members
        .iter()
        .filter(|m| of_keeper(m))
        .rev()
        .map(|m| (m, String::new()))
        .collect();
    while let Some((member, indent)) = waiting.pop() {
        let number = member.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let mut row = vec![String::new(); 9];
        row[1] = member.state.to_owned();
        row[3] = number;
        row[8] = format!("{indent}{}", member.command);
        rows.push(row);
        let children = members.iter().filter(|m| member.is_parent_of(m)).rev();
        waiting.extend(children.map(|m| (m, format!("{indent}  "))));
    }
    rows
}

/// Columns as wide as their widest cell, but for the last. A cell may be longer
/// than a width of `format!` (65,535).
pub fn align(rows: &[Vec<String>]) -> String {
    let shown: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let columns = shown.first().map_or(0, Vec::len);
    let width = |cell: &String| cell.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            shown
                .iter()
                .map(|row| width(&row[column]))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in &shown {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if column + 1 < columns {
                line.push_str(&" ".repeat(widths[column] - width(cell) + 2));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_dead_when_nobody_holds_it() {
        assert_eq!(state_of(true, false, Some(Status::Running)), State::Running);
        assert_eq!(state_of(true, false, Some(Status::New)), State::Running);
        assert_eq!(
            state_of(true, false, Some(Status::Recovering)),
            State::Recovering
        );
        assert_eq!(state_of(false, false, Some(Status::Running)), State::Dead);
        assert_eq!(
            state_of(false, false, Some(Status::Recovering)),
            State::Dead
        );
        let suspended = Some(Status::Suspended);
        assert_eq!(state_of(false, false, suspended), State::Suspended);
        // Its keeper has yet to go.
        assert_eq!(state_of(true, false, suspended), State::Running);
        assert_eq!(state_of(false, false, None), State::Dead);
        assert_eq!(state_of(false, true, None), State::Done);
    }

    #[test]
    fn columns_line_up() {
        let row = |words: [&str; 2]| words.map(str::to_owned).to_vec();
        assert_eq!(
            align(&[row(["A", "B"]), row(["long", "x"])]),
            "A     B\nlong  x\n"
        );
        let long = "x".repeat(70_000);
        assert_eq!(align(&[row([&long, "a\n"])]), format!("{long}  a\\n\n"));
    }
}
