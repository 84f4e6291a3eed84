//! Runs the systems beside each other, in interleaved rounds.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Plan<'a> {
    pub systems: &'a [&'static str],
    pub size: usize,
    pub dir: PathBuf,
    pub durable: bool,
    pub netns: Option<(String, String)>,
    /// Both sides on one processor.
    pub one_cpu: bool,
    pub rounds: usize,
    pub batch_ms: u64,
}

pub struct Measured {
    pub system: &'static str,
    /// Or why there is nothing.
    pub result: Result<Times, String>,
}

/// Of the rounds' medians of one round trip, the least and the median; and round trips a second of
/// the best round with eight under way, where a system can have that.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub least_ns: f64,
    pub median_ns: f64,
    pub per_second: f64,
}

pub fn measure(plan: &Plan) -> Result<Vec<Measured>, String> {
    let mut running: Vec<_> = plan
        .systems
        .iter()
        .map(|&system| (system, Running::start(system, plan)))
        .collect();
    for _ in 0..plan.rounds {
        for (_, pair) in &mut running {
            if let Ok(pair) = pair {
                pair.round(plan.batch_ms);
            }
        }
    }
    let finish = |(system, pair): (&'static str, Result<Running, String>)| Measured {
        system,
        result: pair.and_then(Running::finish),
    };
    Ok(running.into_iter().map(finish).collect())
}

/// A server process and a client process.
struct Running {
    server: Child,
    client: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    dir: PathBuf,
    medians: Vec<f64>,
    rates: Vec<f64>,
}

impl Running {
    fn start(system: &'static str, plan: &Plan) -> Result<Running, String> {
        let dir = plan
            .dir
            .join(format!("grams-bench-{}-{system}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let dir = dir.canonicalize().map_err(|error| error.to_string())?;
        let how = if plan.durable { "durable" } else { "memory" };
        let (server_space, client_space) = match &plan.netns {
            Some((server, client)) => (Some(server), Some(client)),
            None => (None, None),
        };
        let mut server = command(server_space, plan.one_cpu)?
            .args(["server", system])
            .arg(&dir)
            .args([
                how,
                if server_space.is_some() {
                    "10.77.0.1"
                } else {
                    "127.0.0.1"
                },
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        // It says where it is reached.
        let mut from_server = BufReader::new(server.stdout.take().expect("piped"));
        let address = line(&mut from_server).ok_or_else(|| {
            let _ = server.kill();
            let _ = server.wait();
            let _ = fs::remove_dir_all(&dir);
            "not run: the server did not start".to_owned()
        })?;
        let mut client = command(client_space, plan.one_cpu)?
            .args(["client", system])
            .arg(&dir)
            .args([
                how,
                if client_space.is_some() {
                    "10.77.0.2"
                } else {
                    "127.0.0.1"
                },
            ])
            .args([&address, &plan.size.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let requests = client.stdin.take().expect("piped");
        let answers = BufReader::new(client.stdout.take().expect("piped"));
        let mut running = Running {
            server,
            client,
            requests,
            answers,
            dir,
            medians: Vec::new(),
            rates: Vec::new(),
        };
        match line(&mut running.answers).as_deref() {
            Some("ready") => Ok(running),
            _ => Err(running.finish().err().unwrap_or_default()),
        }
    }

    fn round(&mut self, batch_ms: u64) {
        if writeln!(self.requests, "{batch_ms}").is_err() {
            return;
        }
        let Some(answer) = line(&mut self.answers) else {
            return;
        };
        let mut numbers = answer
            .split(' ')
            .filter_map(|word| word.parse::<f64>().ok());
        self.medians.extend(numbers.next());
        self.rates.extend(numbers.next());
    }

    fn finish(mut self) -> Result<Times, String> {
        drop(self.requests);
        let status = self.client.wait();
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.dir);
        self.medians.sort_by(f64::total_cmp);
        match self.medians.first() {
            Some(&least_ns) => Ok(Times {
                least_ns,
                median_ns: self.medians[self.medians.len() / 2],
                per_second: self.rates.iter().copied().fold(0.0, f64::max),
            }),
            None => Err(format!("not run: {status:?}")),
        }
    }
}

fn command(netns: Option<&String>, one_cpu: bool) -> Result<Command, String> {
    let itself = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut words: Vec<OsString> = Vec::new();
    if let Some(name) = netns {
        words.extend(["ip", "netns", "exec", name].map(OsString::from));
    }
    if one_cpu {
        words.extend(["taskset", "-c", "0"].map(OsString::from));
    }
    words.push(itself.into());
    let mut command = Command::new(words.remove(0));
    command.args(words);
    Ok(command)
}

fn line(from: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|&len| len > 0)?;
    Some(line.trim_end().to_owned())
}
