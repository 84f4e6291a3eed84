//! Runs the systems beside each other, in interleaved rounds, and keeps minima and medians.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::peer::Peer;

pub struct Measured {
    pub name: &'static str,
    pub about: &'static str,
    /// Nanoseconds a transaction, or why there is none.
    pub result: Result<Times, String>,
}

#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub median_ns: f64,
    pub min_ns: f64,
}

pub struct Plan<'a> {
    pub workload: &'a str,
    pub dir: &'a Path,
    pub durable: bool,
    pub rounds: usize,
    pub batch_ms: u64,
}

pub fn measure(peers: &'static [Peer], plan: &Plan) -> Vec<Measured> {
    let mut running: Vec<_> = peers
        .iter()
        .map(|peer| (peer, Running::start(peer, plan)))
        .collect();
    // How many transactions fill a batch, found by doubling; that also warms everything up.
    for (_, process) in &mut running {
        let Ok(process) = process else { continue };
        let budget = plan.batch_ms as f64 * 1e6;
        while process.count < 1 << 24 {
            let spent = process.batch().unwrap_or(budget);
            if spent > budget / 2.0 {
                break;
            }
            process.count *= if spent < budget / 20.0 { 8 } else { 2 };
        }
    }
    for _ in 0..plan.rounds {
        for (_, process) in &mut running {
            let Ok(process) = process else { continue };
            if let Some(spent) = process.batch() {
                process.times.push(spent / process.count as f64);
            }
        }
    }
    let finish = |(peer, process): (&'static Peer, Result<Running, String>)| {
        let result = process.and_then(Running::finish);
        Measured {
            name: peer.name,
            about: peer.about,
            result,
        }
    };
    running.into_iter().map(finish).collect()
}

struct Running {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    dir: PathBuf,
    count: u64,
    times: Vec<f64>,
}

impl Running {
    fn start(peer: &Peer, plan: &Plan) -> Result<Running, String> {
        let dir = plan
            .dir
            .join(format!("{}-{}", peer.name, std::process::id()));
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let itself = std::env::current_exe().map_err(|error| error.to_string())?;
        let spawned = Command::new(itself)
            .args(["serve", peer.name, plan.workload])
            .arg(&dir)
            .arg(if plan.durable { "durable" } else { "memory" })
            .envs(peer.environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|error| error.to_string())?;
        let requests = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut running = Running {
            child,
            requests,
            answers,
            dir,
            // A batch on disk is never so short that a lucky transaction is all of it.
            count: if plan.durable { 64 } else { 1 },
            times: Vec::new(),
        };
        match running.answer().as_deref() {
            Some("ready") => Ok(running),
            _ => Err(running.finish().err().unwrap_or_default()),
        }
    }

    fn batch(&mut self) -> Option<f64> {
        writeln!(self.requests, "{}", self.count).ok()?;
        self.answer()?.parse().ok()
    }

    fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .ok()
            .filter(|&len| len > 0)?;
        Some(line.trim_end().to_owned())
    }

    fn finish(mut self) -> Result<Times, String> {
        drop(self.requests);
        let status = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
        self.times.sort_by(f64::total_cmp);
        match self.times.first() {
            Some(&min_ns) => Ok(Times {
                median_ns: self.times[self.times.len() / 2],
                min_ns,
            }),
            None => Err(format!("not run: {status:?}")),
        }
    }
}
