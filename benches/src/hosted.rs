//! One program under dcrun: started, asked, killed and cleared away.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bench::Bench;
use crate::failure::{Doing, Failure, Outcome};

/// How a program is run: natively, or under dcrun with these options.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Under {
    Nothing,
    Dcrun,
    /// Committing by the clock as well, every so many ms.
    Interval(u64),
    /// With this protocol, and commits there.
    Protocol(&'static str, Rio),
}

/// Where commits go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rio {
    Tmpfs,
    Disk,
}

impl Rio {
    pub fn name(self) -> &'static str {
        match self {
            Rio::Tmpfs => "tmpfs",
            Rio::Disk => "disk",
        }
    }
}

/// A run's name, unique in this process.
pub struct Run<'a> {
    bench: &'a Bench,
    pub name: String,
    pub under: Under,
}

impl<'a> Run<'a> {
    pub fn new(bench: &'a Bench, under: Under) -> Run<'a> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        Run {
            bench,
            name: format!("b{nth}"),
            under,
        }
    }

    /// The command that runs `program` so; standard error goes to a file.
    pub fn command(&self, program: &Path) -> Outcome<Command> {
        let mut command = match self.under {
            Under::Nothing => Command::new(program),
            Under::Dcrun => self.dcrun(),
            Under::Interval(ms) => {
                let mut command = self.dcrun();
                command.args(["--interval", &ms.to_string()]);
                command
            }
            Under::Protocol(protocol, rio) => {
                let mut command = self.dcrun();
                command.args(["--protocol", protocol, "--rio", rio.name()]);
                command
            }
        };
        if self.under != Under::Nothing {
            command.args(["--name", &self.name, "--"]).arg(program);
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .doing(|| format!("open {}", self.log().display()))?;
        command.stderr(log);
        Ok(command)
    }

    /// Runs to its end, with what it printed.
    pub fn output(&self, program: &Path, arguments: &[&str]) -> Outcome<String> {
        let done = self
            .command(program)?
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .doing(|| format!("run {}", program.display()))?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        Err(Failure::new(format!(
            "{} {}: {}{}",
            program.display(),
            arguments.join(" "),
            done.status,
            self.complaint()
        )))
    }

    /// Starts it with pipes for input and output.
    pub fn start(&self, program: &Path, arguments: &[&str]) -> Outcome<Conversation> {
        let mut child = self
            .command(program)?
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .doing(|| format!("start {}", program.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("pipes of a child"));
        };
        Ok(Conversation {
            child,
            input: Some(input),
            output: BufReader::new(output),
        })
    }

    pub fn stats(&self) -> Outcome<Value> {
        self.ask(&["stats", &self.name, "--json"])
    }

    /// Where dcrun writes what it runs; there from soon after the start.
    pub fn record(&self) -> std::path::PathBuf {
        self.bench.file("state").join(&self.name).join("run.json")
    }

    /// The pid of the worker that lives now.
    pub fn worker(&self) -> Outcome<Pid> {
        let runs = self.ask(&["ps", "--json"])?;
        let pid = runs.as_array().into_iter().flatten().find_map(|run| {
            (run["name"] == self.name.as_str()).then(|| run["worker_pid"].as_i64())?
        });
        pid.map(|pid| Pid::from_raw(pid as i32))
            .doing(|| format!("{}: worker in ps{}", self.name, self.complaint()))
    }

    /// What dcrun and the program said on standard error.
    pub fn complaint(&self) -> String {
        match std::fs::read_to_string(self.log()) {
            Ok(text) if !text.is_empty() => format!(": {}", text.trim()),
            _ => String::new(),
        }
    }

    fn dcrun(&self) -> Command {
        let mut command = Command::new(&self.bench.dcrun);
        command.env("DCRUN_STATE", self.bench.file("state"));
        command
    }

    fn ask(&self, arguments: &[&str]) -> Outcome<Value> {
        let doing = || format!("dcrun {}", arguments.join(" "));
        let done = self.dcrun().args(arguments).output().doing(doing)?;
        serde_json::from_slice(&done.stdout).doing(doing)
    }

    fn log(&self) -> std::path::PathBuf {
        self.bench.file(&format!("{}.err", self.name))
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.log());
        if self.under == Under::Nothing {
            return;
        }
        for words in [&["kill"] as &[&str], &["rm", "--force"]] {
            let _ = self.dcrun().args(words).arg(&self.name).output();
        }
    }
}

/// A program that is spoken to through pipes.
pub struct Conversation {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Conversation {
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn say(&mut self, text: &str) -> Outcome<()> {
        match &mut self.input {
            Some(input) => input.write_all(text.as_bytes()).doing(|| "write".into()),
            None => Err(Failure::new("the input is closed")),
        }
    }

    /// The next line, without its end.
    pub fn hear(&mut self) -> Outcome<String> {
        let mut line = String::new();
        let length = self.output.read_line(&mut line).doing(|| "read".into())?;
        if length == 0 {
            return Err(Failure::new("the program ended without an answer"));
        }
        Ok(line.trim_end().to_owned())
    }

    /// Ends the input and waits for the program to end.
    pub fn finish(mut self) -> Outcome<()> {
        self.input = None;
        let mut rest = String::new();
        while matches!(self.output.read_line(&mut rest), Ok(1..)) {}
        self.child.wait().doing(|| "wait".into()).map(|_| ())
    }

    /// Waits for a program that was killed.
    pub fn reap(&mut self) {
        let _ = self.child.wait();
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.input = None;
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Kills at once, and says when (CLOCK_MONOTONIC, ns).
pub fn kill_now(pid: Pid) -> Outcome<u64> {
    let at = monotonic_ns();
    kill(pid, Signal::SIGKILL).doing(|| format!("kill {pid}"))?;
    Ok(at)
}

pub fn monotonic_ns() -> u64 {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(time) => time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64,
        Err(_) => 0,
    }
}

/// Wall time and processor time of something that runs children and reaps them.
pub struct Spent {
    pub wall: Duration,
    pub processor: Duration,
}

pub fn spent<T>(doing: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Spent)> {
    let (begun, used) = (Instant::now(), children_used());
    let done = doing()?;
    let spent = Spent {
        wall: begun.elapsed(),
        processor: children_used().saturating_sub(used),
    };
    Ok((done, spent))
}

fn children_used() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN);
    used.map_or(Duration::ZERO, |used| {
        let us = used.user_time().num_microseconds() + used.system_time().num_microseconds();
        Duration::from_micros(us.max(0) as u64)
    })
}
