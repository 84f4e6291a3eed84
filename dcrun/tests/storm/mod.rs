//! A run called `t` that is killed again and again at random, warm (one of its processes) or cold
//! (dcrun and all of them), and goes on. What it did to others is for the tests to judge.
//!
//! `STORM_KILLS` says how many kills, `STORM_SEED` which ones.

// No test uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::place::Place;

/// Longer than a recovery or an end takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is done when a recovery has stopped with a word.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Stopped {
    /// `--fresh`: the program begins anew.
    Fresh,
    /// `--keep ours`, which may harm: it shows that the test sees harm.
    Ours,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Death {
    Warm,
    Cold,
}

/// Random numbers of a seed.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    /// Most are short.
    pub fn pause(&mut self, longest: Duration) -> Duration {
        let longest = longest.as_micros() as u64;
        let bound = if self.below(2) == 0 {
            longest
        } else {
            longest / 8
        };
        Duration::from_micros(self.below(bound.max(1)))
    }
}

pub struct Storm {
    pub place: Place,
    pub seed: u64,
    pub chance: Chance,
    command: Vec<String>,
    plant: Option<String>,
    stopped: Stopped,
    /// Words of which one stands in each stop that is allowed.
    allowed: Vec<&'static str>,
    /// Where its output goes; to the end of `out` if none is given.
    output: Option<File>,
    run: Option<Child>,
    /// How long `err` was when it was started.
    errors_before: u64,
    pub warm: u64,
    pub cold: u64,
    /// By death and word.
    pub stops: BTreeMap<String, u64>,
    /// What was said at the first of each.
    first: Vec<String>,
    last: Death,
}

pub fn from_environment(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// How many kills there are to be.
pub fn kills(usual: u64) -> u64 {
    from_environment("STORM_KILLS", usual)
}

/// A program of the tests.
pub fn guest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/guests")
        .join(name)
}

/// A process that is no part of the run, and ends with the test.
pub struct Outsider(pub Child);

impl Outsider {
    pub fn start(place: &Place, script: &str, args: &[&str], output: &str) -> Outsider {
        let output = File::create(place.0.join(output)).unwrap();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(guest(script)).args(args).current_dir(&place.0);
        Outsider(command.stdin(Stdio::null()).stdout(output).spawn().unwrap())
    }

    /// It was told to end; whether it ended well.
    pub fn ended(mut self) -> Result<(), String> {
        match wait_for_end(&mut self.0) {
            Some(status) if status.success() => Ok(()),
            other => Err(format!("the other one ended with {other:?}")),
        }
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for_end(child: &mut Child) -> Option<ExitStatus> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        sleep(Duration::from_millis(2));
    }
    None
}

pub fn wait_for(path: &Path, word: &str) {
    let end = Instant::now() + PATIENCE;
    while !fs::read_to_string(path).is_ok_and(|text| text.contains(word)) {
        assert!(Instant::now() < end, "no {word:?} in {}", path.display());
        sleep(Duration::from_millis(5));
    }
}

impl Storm {
    /// A Python program of the tests, in a folder of its own.
    pub fn new(name: &str, script: &str, args: &[&str]) -> Storm {
        let seed = from_environment("STORM_SEED", 1);
        let mut command = vec!["/usr/bin/python3".to_owned()];
        command.push(guest(script).to_str().unwrap().to_owned());
        command.extend(args.iter().map(|&arg| arg.to_owned()));
        Storm {
            place: Place::new(name),
            seed,
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            command,
            plant: None,
            stopped: Stopped::Fresh,
            allowed: Vec::new(),
            output: None,
            run: None,
            errors_before: 0,
            warm: 0,
            cold: 0,
            stops: BTreeMap::new(),
            first: Vec::new(),
            last: Death::Warm,
        }
    }

    /// More arguments.
    pub fn with(mut self, args: &[String]) -> Storm {
        self.command.extend_from_slice(args);
        self
    }

    pub fn stops_with(mut self, words: &[&'static str]) -> Storm {
        self.allowed.extend(words);
        self
    }

    pub fn hindered(mut self, plant: &str) -> Storm {
        self.plant = Some(plant.to_owned());
        self
    }

    pub fn when_stopped(mut self, stopped: Stopped) -> Storm {
        self.stopped = stopped;
        self
    }

    pub fn output(mut self, output: File) -> Storm {
        self.output = Some(output);
        self
    }

    /// Starts the program, and waits until it has made a file `ready`.
    pub fn start(&mut self) {
        self.begin();
        let end = Instant::now() + PATIENCE;
        while !self.place.0.join("ready").exists() {
            assert!(Instant::now() < end, "not ready: {}", self.errors());
            sleep(Duration::from_millis(5));
        }
    }

    fn begin(&mut self) {
        let rio = format!("tmpfs:{}", self.place.0.join("image").display());
        let head = ["run", "--fresh", "--name", "t", "--rio", &rio, "--"];
        let words: Vec<&str> = head
            .into_iter()
            .chain(self.command.iter().map(String::as_str))
            .collect();
        let command = self.place.dcrun(&words);
        self.spawn(command);
    }

    fn resume(&mut self, more: &[&str]) {
        let command = self.place.dcrun(&[&["resume", "t"], more].concat());
        self.spawn(command);
    }

    fn spawn(&mut self, mut command: Command) {
        let append = |name: &str| {
            let mut options = OpenOptions::new();
            let file = options.append(true).create(true);
            file.open(self.place.0.join(name)).unwrap()
        };
        let errors = append("err");
        self.errors_before = errors.metadata().unwrap().len();
        let output = match &self.output {
            Some(file) => file.try_clone().unwrap(),
            None => append("out"),
        };
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        if let Some(plant) = &self.plant {
            command.env("DCRUN_PLANT", plant);
        }
        self.run = Some(command.spawn().unwrap());
    }

    /// What dcrun has said since it was started last.
    pub fn errors(&self) -> String {
        let all = fs::read(self.place.0.join("err")).unwrap_or_default();
        String::from_utf8_lossy(&all[self.errors_before as usize..]).into_owned()
    }

    fn failed(&self, what: &str) -> String {
        let errors = self.errors();
        let (seed, warm, cold) = (self.seed, self.warm, self.cold);
        format!("seed {seed}, after {warm} warm and {cold} cold kills: {what}: {errors}")
    }

    fn listed(&self) -> Value {
        let listed = self.place.dcrun(&["ps", "--json"]).output().unwrap();
        serde_json::from_slice::<Value>(&listed.stdout).unwrap_or_default()[0].clone()
    }

    /// dcrun has ended before it was told to: with a stop that is allowed it goes on, as chosen.
    fn go_on(&mut self, status: ExitStatus) -> Result<(), String> {
        let errors = self.errors();
        let word = self.allowed.iter().find(|word| errors.contains(**word));
        let Some(word) = word.filter(|_| status.code() == Some(125)) else {
            return Err(self.failed(&format!("it ended with {status}")));
        };
        let what = format!("{:?}: {word}", self.last);
        let count = self.stops.entry(what).or_default();
        *count += 1;
        if *count == 1 {
            self.first
                .push(errors.lines().last().unwrap_or_default().to_owned());
        }
        match self.stopped {
            Stopped::Fresh => self.begin(),
            Stopped::Ours => self.resume(&["--keep", "ours"]),
        }
        Ok(())
    }

    /// The run, once it runs.
    fn alive(&mut self) -> Result<Value, String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.run.as_mut().unwrap().try_wait().unwrap() {
                self.go_on(status)?;
            }
            let run = self.listed();
            let commits = run["commits"].as_u64().unwrap_or(0);
            if run["state"] == "running" && run["worker_pid"].is_u64() && commits > 0 {
                return Ok(run);
            }
            sleep(Duration::from_millis(1));
        }
        Err(self.failed("it does not run"))
    }

    /// Waits at random, kills, and waits until it goes on.
    pub fn kill(&mut self, death: Death, longest: Duration) -> Result<(), String> {
        self.alive()?;
        sleep(self.chance.pause(longest));
        // (Children come and go, and nobody else is to be killed.)
        let run = self.alive()?;
        let processes = run["processes"].as_array().unwrap();
        let mut pids: Vec<i32> = processes
            .iter()
            .filter_map(|process| Some(process["pid"].as_i64()? as i32))
            .collect();
        let keeper = self.run.as_ref().unwrap().id() as i32;
        self.last = death;
        match death {
            Death::Warm => {
                let victim = pids[self.chance.below(pids.len() as u64) as usize];
                let _ = kill(Pid::from_raw(victim), Signal::SIGKILL);
                if self.chance.below(6) == 0 {
                    // Once more, perhaps in the recovery.
                    sleep(self.chance.pause(Duration::from_millis(6)));
                    let _ = kill(Pid::from_raw(victim), Signal::SIGKILL);
                }
            }
            Death::Cold => {
                pids.insert(self.chance.below(pids.len() as u64 + 1) as usize, keeper);
                for &pid in &pids {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                self.run.as_mut().unwrap().wait().unwrap();
                sleep(self.chance.pause(Duration::from_millis(30)));
                self.resume(&[]);
            }
        }
        if !self.came_back(&run, death)? {
            return Ok(());
        }
        match death {
            Death::Warm => self.warm += 1,
            Death::Cold => self.cold += 1,
        }
        Ok(())
    }

    /// Until there was one recovery more, or it has stopped. False if nobody has died, for the
    /// process had ended already.
    fn came_back(&mut self, before: &Value, death: Death) -> Result<bool, String> {
        let recoveries = before["recoveries"].as_u64().unwrap();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.run.as_mut().unwrap().try_wait().unwrap() {
                return self.go_on(status).map(|()| true);
            }
            let run = self.listed();
            if run["recoveries"].as_u64() > Some(recoveries) && run["state"] == "running" {
                return Ok(true);
            }
            let unhurt = run["recoveries"] == before["recoveries"] && run["state"] == "running";
            if death == Death::Warm && unhurt && begun.elapsed() > Duration::from_secs(2) {
                return Ok(false);
            }
            sleep(Duration::from_millis(1));
        }
        Err(self.failed("it does not come back"))
    }

    /// Tells the program to end by a file `end`, and waits for that.
    pub fn finish(&mut self) -> Result<(), String> {
        fs::write(self.place.0.join("end"), "").unwrap();
        loop {
            match wait_for_end(self.run.as_mut().unwrap()) {
                None => return Err(self.failed("it does not end")),
                Some(status) if status.success() => return Ok(()),
                Some(status) => self.go_on(status)?,
            }
        }
    }

    pub fn said(&self) -> String {
        fs::read_to_string(self.place.0.join("out")).unwrap_or_default()
    }

    /// How many kills there were, and how many stops, with the first of each kind.
    pub fn told(&self) -> String {
        let stops: u64 = self.stops.values().sum();
        let (warm, cold) = (self.warm, self.cold);
        let told = format!(
            "{warm} warm kills, {cold} cold kills, {stops} stops {:?}",
            self.stops
        );
        let first: Vec<String> = self
            .first
            .iter()
            .map(|said| format!("\n  as: {said}"))
            .collect();
        told + &first.concat()
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        if let Some(run) = &mut self.run {
            // (Its processes are ended by the place.)
            let _ = self.place.dcrun(&["kill", "t"]).output();
            let _ = run.kill();
            let _ = run.wait();
        }
    }
}
