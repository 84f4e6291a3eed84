//! Runs that are suspended, by their user or by what is sent at a shutdown, and go on later: nothing is lost, nothing comes
//! twice, and the program has seen no signal.

mod place;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::Place;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const TOLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/told.py");
const WAYS: [&str; 8] = [
    "default", "handler", "ignores", "blocks", "waits", "signalfd", "tree", "own",
];

/// A run of `told.py`, whose lines go to the file `out`.
struct Run {
    place: Place,
    lines: usize,
    keeper: Option<Child>,
}

impl Run {
    fn begin(name: &str, way: &str, lines: usize, options: &[&str]) -> Run {
        let place = Place::new(name);
        let lines_text = lines.to_string();
        let program = ["/usr/bin/python3", TOLD, way, &lines_text];
        let head = ["--name", "t", "--rio", "disk"];
        let mut command = place.dcrun(&[&head, options, &program[..]].concat());
        let file = |name| {
            File::options()
                .append(true)
                .create(true)
                .open(place.0.join(name))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(file("out").unwrap())
            .stderr(file("said").unwrap())
            .spawn()
            .unwrap();
        let run = Run {
            place,
            lines,
            keeper: Some(child),
        };
        run.await_lines(5);
        run
    }

    fn out(&self) -> String {
        self.place.said()
    }

    fn await_lines(&self, count: usize) {
        let begun = Instant::now();
        while self.out().lines().count() < count {
            assert!(begun.elapsed() < PATIENCE, "{}{}", self.out(), self.said());
            sleep(Duration::from_millis(5));
        }
    }

    fn said(&self) -> String {
        let read = |name| fs::read_to_string(self.place.0.join(name)).unwrap_or_default();
        read("said") + &read("state/t/messages")
    }

    fn command(&self, words: &[&str]) -> Output {
        let mut command = self.place.dcrun(words);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn ps(&self) -> Value {
        let listed = self.command(&["ps", "--json"]);
        serde_json::from_slice::<Value>(&listed.stdout).unwrap()[0].clone()
    }

    /// Keeper and workers.
    fn pids(&self) -> (Option<i32>, Vec<i32>) {
        let run = self.ps();
        let processes = run["processes"].as_array().cloned().unwrap_or_default();
        let workers = processes.iter().filter_map(|p| p["pid"].as_i64());
        (
            run["keeper_pid"].as_i64().map(|pid| pid as i32),
            workers.map(|pid| pid as i32).collect(),
        )
    }

    fn await_state(&self, state: &str) {
        let begun = Instant::now();
        // (Its keeper tells its end before it has gone.)
        let is_over = |run: &Value| state == "running" || run["keeper_pid"].is_null();
        while !Some(self.ps()).is_some_and(|run| run["state"] == state && is_over(&run)) {
            assert!(
                begun.elapsed() < PATIENCE,
                "{state}: {} {}",
                self.ps(),
                self.said()
            );
            sleep(Duration::from_millis(5));
        }
    }

    fn reap(&mut self) -> Option<i32> {
        self.keeper
            .take()
            .and_then(|mut child| child.wait().unwrap().code())
    }

    /// Every line once, in order, to the end.
    fn is_whole(&self) {
        let out = self.out();
        let mut lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.pop(), Some("end"), "{out}{}", self.said());
        assert_eq!(lines.len(), self.lines, "{out}{}", self.said());
        let mut last = 0;
        for (number, line) in lines.iter().enumerate() {
            let (first, total) = line
                .split_once(' ')
                .unwrap_or_else(|| panic!("{line}: {out}"));
            let total: u64 = total.parse().unwrap();
            assert_eq!(first, number.to_string(), "{out}");
            assert!(total >= last, "{line}: the sum goes on: {out}");
            last = total;
        }
    }
}

fn send(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What its shutdown sends, in this order; then the death of all that is left.
fn shut_down(run: &mut Run, signal: Signal, keeper_first: bool) {
    let (keeper, workers) = run.pids();
    let keeper = keeper.into_iter();
    let order: Vec<i32> = match keeper_first {
        true => keeper.chain(workers.clone()).collect(),
        false => workers.iter().copied().chain(keeper).collect(),
    };
    order.iter().for_each(|&pid| send(pid, signal));
    run.await_state("suspended");
    order.iter().for_each(|&pid| send(pid, Signal::SIGKILL));
}

#[test]
fn a_shutdown_suspends_whatever_the_program_does_with_the_signal() {
    for way in WAYS {
        let options = ["--on-term", "suspend", "--on-hup", "suspend"];
        let mut run = Run::begin(&format!("told-{way}"), way, 100, &options);
        for (nth, signal) in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTERM]
            .into_iter()
            .enumerate()
        {
            shut_down(&mut run, signal, nth % 2 == 0);
            if nth == 0 {
                assert_eq!(run.reap(), Some(143), "{way}: {}", run.said());
            }
            let resumed = run.command(&["resume", "--all"]);
            assert!(
                resumed.status.success(),
                "{way}: {resumed:?} {}",
                run.said()
            );
            let lines = run.out().lines().count();
            run.await_lines(lines + 5);
        }
        run.await_state("done");
        run.is_whole();
        // Nobody was told so far.
        let told = run.command(&["resume", "t"]);
        assert_eq!(told.status.code(), Some(0), "{told:?}");
        assert!(
            text(&told).contains("had ended already, with status 0"),
            "{told:?}"
        );
    }
}

#[test]
fn without_the_option_the_program_gets_it() {
    let mut run = Run::begin("not-told", "default", 1000, &[]);
    let keeper = run.pids().0.unwrap();
    send(keeper, Signal::SIGTERM);
    assert_eq!(run.reap(), Some(143));
    assert_eq!(run.ps()["state"], "done");
    // A hang-up is not a termination.
    let mut run = Run::begin("other-told", "default", 1000, &["--on-hup", "suspend"]);
    send(run.pids().0.unwrap(), Signal::SIGTERM);
    assert_eq!(run.reap(), Some(143));
    assert_eq!(run.ps()["state"], "done");
}

#[test]
fn a_signal_to_a_worker_alone_suspends_too() {
    for way in ["default", "tree", "waits"] {
        let mut run = Run::begin(&format!("alone-{way}"), way, 60, &["--on-term", "suspend"]);
        let workers = run.pids().1;
        send(*workers.last().unwrap(), Signal::SIGTERM);
        run.await_state("suspended");
        assert_eq!(run.reap(), Some(143));
        assert_eq!(
            run.command(&["resume", "t"]).status.code(),
            Some(0),
            "{}",
            run.said()
        );
        let out = run.out();
        assert!(!out.contains("GOT"), "{out}");
    }
}

/// The commit that is made for it has what the program has done since its last one.
#[test]
fn what_was_done_since_the_last_commit_is_not_done_again() {
    let place = Place::new("suspend-commit");
    let program =
        "import time; print('ready', flush=True)\nfor n in range(300): time.sleep(0.01)\nprint(n)";
    let file = File::create(place.0.join("out")).unwrap();
    let mut command = place.python(&[], program);
    let mut child = command.stdin(Stdio::null()).stdout(file).spawn().unwrap();
    while !place.said().contains("ready") {
        sleep(Duration::from_millis(5));
    }
    sleep(Duration::from_secs(2));
    let before = place.stats()["commits"].as_u64().unwrap();
    let suspended = place.dcrun(&["suspend", "t"]).output().unwrap();
    assert!(suspended.status.success(), "{suspended:?}");
    assert!(text(&suspended).contains("is in memory"), "{suspended:?}");
    child.wait().unwrap();
    let after = place.stats()["commits"].as_u64().unwrap();
    assert_eq!(after, before + 1);
    let begun = Instant::now();
    let resumed = place
        .dcrun(&["resume", "t"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(resumed.stdout, b"299\n", "{resumed:?}");
    assert!(
        begun.elapsed() < Duration::from_millis(2500),
        "it has begun again"
    );
}

#[test]
fn killed_in_the_middle_of_it_the_run_is_as_after_any_death() {
    let mut run = Run::begin("suspend-killed", "tree", 150, &["--on-term", "suspend"]);
    for nth in 0..8u64 {
        let (keeper, workers) = run.pids();
        let Some(keeper) = keeper else { break };
        let mut asked = run
            .place
            .dcrun(&["suspend", "t"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(Duration::from_micros(nth * 1500));
        match nth % 3 {
            0 => send(keeper, Signal::SIGKILL),
            1 => workers.iter().for_each(|&pid| send(pid, Signal::SIGKILL)),
            _ => {
                send(workers[nth as usize % workers.len()], Signal::SIGKILL);
                send(keeper, Signal::SIGTERM);
            }
        }
        let _ = asked.wait().unwrap();
        let begun = Instant::now();
        while run.pids().0.is_some() {
            assert!(begun.elapsed() < PATIENCE, "{}", run.said());
            sleep(Duration::from_millis(2));
        }
        run.reap();
        let resumed = run.command(&["resume", "--all"]);
        assert!(resumed.status.success(), "{resumed:?} {}", run.said());
        sleep(Duration::from_millis(60));
    }
    run.await_state("done");
    run.is_whole();
}

/// As a shutdown that has no patience: all get the signal, and are killed a moment later.
#[test]
fn a_shutdown_without_patience_loses_nothing() {
    let mut run = Run::begin("impatient", "handler", 120, &["--on-term", "suspend"]);
    for nth in 0..6u64 {
        let (keeper, workers) = run.pids();
        let all: Vec<i32> = workers.into_iter().chain(keeper).collect();
        all.iter().for_each(|&pid| send(pid, Signal::SIGTERM));
        sleep(Duration::from_micros(nth * 700));
        all.iter().for_each(|&pid| send(pid, Signal::SIGKILL));
        let begun = Instant::now();
        while run.pids().0.is_some() && begun.elapsed() < PATIENCE {
            sleep(Duration::from_millis(2));
        }
        run.reap();
        let resumed = run.command(&["resume", "--all"]);
        assert!(resumed.status.success(), "{resumed:?} {}", run.said());
        sleep(Duration::from_millis(60));
    }
    run.await_state("done");
    run.is_whole();
}

#[test]
fn a_run_that_does_not_answer_is_suspended_at_its_last_commit() {
    let mut run = Run::begin("suspend-stopped", "default", 40, &[]);
    let (keeper, workers) = run.pids();
    workers.iter().for_each(|&pid| send(pid, Signal::SIGSTOP));
    send(keeper.unwrap(), Signal::SIGSTOP);
    let begun = Instant::now();
    let suspended = run.command(&["suspend", "t"]);
    assert!(suspended.status.success(), "{suspended:?}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(run.reap(), Some(143));
    assert_eq!(run.command(&["resume", "t"]).status.code(), Some(0));
}

#[test]
fn two_at_once_and_once_more_are_one() {
    let mut run = Run::begin("suspend-twice", "default", 60, &[]);
    let asked: Vec<Child> = (0..2)
        .map(|_| {
            let mut command = run.place.dcrun(&["suspend", "t"]);
            command
                .stdin(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in asked {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    run.reap();
    let again = run.command(&["suspend", "t"]);
    assert!(
        again.status.success() && text(&again).contains("already"),
        "{again:?}"
    );
    assert!(run.command(&["suspend", "--all"]).status.success());
    let listed = run.command(&["ps"]);
    assert!(
        String::from_utf8_lossy(&listed.stdout).contains("suspended"),
        "{listed:?}"
    );
    assert_eq!(run.ps()["state"], "suspended");
    // Into the background, where it is not resumed twice.
    assert!(run.command(&["resume", "--detach", "t"]).status.success());
    let twice = run.command(&["resume", "--detach", "t"]);
    assert_eq!(twice.status.code(), Some(125), "{twice:?}");
    assert!(run.command(&["resume", "--all"]).status.success());
    run.await_state("done");
    run.is_whole();
    let dead = run.command(&["suspend", "t"]);
    assert_eq!(dead.status.code(), Some(125), "{dead:?}");
}

/// What was stopped for a reason, what had a terminal, and what is gone, is left, and said.
#[test]
fn all_are_not_those_that_wait_for_somebody() {
    let mut run = Run::begin("suspend-left", "default", 1000, &[]);
    assert!(run.command(&["kill", "t"]).status.success());
    run.reap();
    let resumed = run.command(&["resume", "--all"]);
    assert!(
        resumed.status.success() && text(&resumed).contains("t: not resumed: it was stopped"),
        "{resumed:?}"
    );
    assert!(run.command(&["rm", "t"]).status.success());

    let program = format!(
        "{} --name t --rio disk --on-hup suspend /bin/cat",
        env!("CARGO_BIN_EXE_dcrun")
    );
    let mut terminal = Command::new("/usr/bin/script")
        .args(["-qc", &program, "/dev/null"])
        .env("DCRUN_STATE", run.place.0.join("state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    run.await_state("running");
    let begun = Instant::now();
    while run.ps()["commits"].as_u64() < Some(1) && begun.elapsed() < PATIENCE {
        sleep(Duration::from_millis(5));
    }
    // The terminal is closed: that is a hang-up, by the kernel.
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    run.await_state("suspended");
    let resumed = run.command(&["resume", "--all"]);
    assert!(text(&resumed).contains("it had a terminal"), "{resumed:?}");
    assert_eq!(run.command(&["resume", "-d", "t"]).status.code(), Some(125));
    assert_eq!(run.ps()["state"], "suspended");
    // At its user's hands it goes on, with what is given then.
    let resumed = run.command(&["resume", "t"]);
    assert!(text(&resumed).contains("resuming t"), "{resumed:?}");
}

/// What had a name comes back by it; what had none is read from nothing, and written to the run's directory.
#[test]
fn standard_descriptors_come_back_by_their_names() {
    let place = Place::new("suspend-standard");
    fs::write(
        place.0.join("in"),
        (0..100).map(|n| format!("{n}\n")).collect::<String>(),
    )
    .unwrap();
    let program = "
import sys, time
for line in sys.stdin:
    print('out', line, end='', flush=True)
    print('err', line, end='', file=sys.stderr, flush=True)
    time.sleep(0.02)
";
    let mut command = place.dcrun(&["--name", "t", "/usr/bin/python3", "-uc", program]);
    let file = File::create(place.0.join("out")).unwrap();
    let child = command
        .stdin(File::open(place.0.join("in")).unwrap())
        .stdout(file)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !place.said().contains("out 10\n") {
        sleep(Duration::from_millis(5));
    }
    assert!(
        place
            .dcrun(&["suspend", "--all"])
            .status()
            .unwrap()
            .success()
    );
    let first = child.wait_with_output().unwrap();
    let resumed = place.dcrun(&["resume", "--all"]).output().unwrap();
    assert!(text(&resumed).contains("state/t/output"), "{resumed:?}");
    let begun = Instant::now();
    let output = || fs::read_to_string(place.0.join("state/t/output")).unwrap_or_default();
    while !output().contains("err 99\n") {
        assert!(begun.elapsed() < PATIENCE, "{} {}", place.said(), output());
        sleep(Duration::from_millis(5));
    }
    let lines = |word: &str| {
        (0..100)
            .map(|n| format!("{word} {n}\n"))
            .collect::<String>()
    };
    assert_eq!(place.said(), lines("out"));
    let errors = String::from_utf8_lossy(&first.stderr).into_owned() + &output();
    let errors: String = errors
        .lines()
        .filter(|line| line.starts_with("err"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(errors, lines("err"));
}
