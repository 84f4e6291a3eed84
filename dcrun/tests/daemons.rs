//! Programs whose first process ends while others live on: dcrun tells its caller, and the run goes on.

mod place;

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::Place;
use serde_json::Value;

/// A daemon of two processes: one waits for `go` and counts into a pipe, the other one writes what comes into a file. The caller ends with 7.
const DAEMON: &str = r#"
import os, sys, time
print("begins", flush=True)
if os.fork():
    os._exit(7)
os.setsid()
null = os.open("/dev/null", os.O_RDWR)
for number in 0, 1, 2:
    os.dup2(null, number)
there, here = os.pipe()
if os.fork() == 0:
    os.close(there)
    while not os.path.exists("go"):
        time.sleep(0.01)
    for number in range(120):
        os.write(here, b"%d\n" % number)
        time.sleep(0.02)
    os._exit(0)
os.close(here)
with open("count", "a") as count:
    for line in os.fdopen(there):
        count.write(line)
        count.flush()
    count.write("end %d\n" % os.wait()[1])
"#;

const PATIENCE: Duration = Duration::from_secs(60);

struct Run {
    keeper: i32,
    workers: Vec<i32>,
}

fn listed(place: &Place) -> Option<Run> {
    let listed = place.dcrun(&["ps", "--json"]).output().unwrap().stdout;
    let runs: Value = serde_json::from_slice(&listed).unwrap_or_default();
    let keeper = runs[0]["keeper_pid"].as_i64()? as i32;
    let processes = runs[0]["processes"].as_array()?;
    let workers = processes.iter().filter_map(|p| p["pid"].as_i64());
    Some(Run {
        keeper,
        workers: workers.map(|pid| pid as i32).collect(),
    })
}

fn counted(place: &Place) -> String {
    fs::read_to_string(place.0.join("count")).unwrap_or_default()
}

fn await_end(place: &Place) {
    let begun = Instant::now();
    while !counted(place).contains("end") {
        assert!(
            begun.elapsed() < PATIENCE,
            "the daemon does not end: {}",
            counted(place)
        );
        sleep(Duration::from_millis(20));
    }
}

fn expected() -> String {
    let numbers: String = (0..120).map(|number| format!("{number}\n")).collect();
    numbers + "end 0\n"
}

/// Begins it: dcrun has come back before the daemon counts.
fn begun(place: &Place) -> Run {
    // Through pipes, as in `$(dcrun ..)`: they end when nobody has them any more.
    let told = place.python(&[], DAEMON).stdin(Stdio::null()).output();
    let told = told.unwrap();
    assert_eq!(told.status.code(), Some(7), "{told:?}");
    assert_eq!(told.stdout, b"begins\n");
    assert!(
        !counted(place).contains("end"),
        "dcrun has waited for the daemon"
    );
    let begun = Instant::now();
    let run = loop {
        let run = listed(place).expect("the run lives");
        if run.workers.len() == 2 {
            break run;
        }
        assert!(begun.elapsed() < PATIENCE, "its processes live");
        sleep(Duration::from_millis(5));
    };
    fs::write(place.0.join("go"), "").unwrap();
    run
}

#[test]
fn the_caller_is_told_and_the_run_goes_on() {
    let place = Place::new("daemon");
    begun(&place);
    await_end(&place);
    assert_eq!(counted(&place), expected());
}

#[test]
fn a_process_of_it_is_killed() {
    let place = Place::new("daemon-killed");
    let keeper = begun(&place).keeper;
    for nth in 0..6 {
        sleep(Duration::from_millis(150));
        let Some(run) = listed(&place) else { break };
        assert_eq!(run.keeper, keeper, "the same keeper still keeps it");
        if let Some(&pid) = run.workers.get(nth % 2) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    await_end(&place);
    assert_eq!(counted(&place), expected());
}

#[test]
fn all_of_it_is_killed_and_resumed() {
    let place = Place::new("daemon-resumed");
    let run = begun(&place);
    sleep(Duration::from_millis(300));
    for pid in run.workers.iter().chain([&run.keeper]) {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    // (Nobody here can wait for the keeper: it is no child of this process.)
    let begun = Instant::now();
    while listed(&place).is_some() && begun.elapsed() < PATIENCE {
        sleep(Duration::from_millis(5));
    }
    let resumed = place.dcrun(&["resume", "t"]).output().unwrap();
    assert_eq!(resumed.status.code(), Some(7), "{resumed:?}");
    assert_eq!(counted(&place), expected());
}

#[test]
fn a_run_in_the_background_is_ended_by_name() {
    let place = Place::new("daemon-ended");
    let run = begun(&place);
    let ended = place.dcrun(&["kill", "t"]).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let lives = |pid: &i32| kill(Pid::from_raw(*pid), None).is_ok();
    let begun = Instant::now();
    while run.workers.iter().any(lives) {
        assert!(begun.elapsed() < PATIENCE, "it lives on");
        sleep(Duration::from_millis(10));
    }
    assert!(listed(&place).is_none());
    let messages = fs::read_to_string(place.0.join("state/t/messages")).unwrap();
    assert!(messages.contains("dcrun resume t"), "{messages}");
}

/// What ends by itself a moment later needs no keeper of its own.
#[test]
fn a_job_that_ends_at_once_is_waited_for() {
    let place = Place::new("daemon-short");
    let command = [
        "--fresh",
        "--name",
        "t",
        "/bin/sh",
        "-c",
        "sleep 0.03 & exit 3",
    ];
    let told = place.dcrun(&command).output().unwrap();
    assert_eq!(told.status.code(), Some(3));
    assert!(listed(&place).is_none(), "it is over");
}

/// A real one: redis with a file of its number, which must stay the number of the process.
#[test]
fn redis_as_a_daemon() {
    let place = Place::new("daemon-redis");
    let socket = place.0.join("socket");
    let dir = place.0.display().to_string();
    let options = [
        "--fresh",
        "--name",
        "t",
        "/usr/bin/redis-server",
        "--daemonize",
        "yes",
        "--port",
        "0",
        "--appendonly",
        "yes",
        "--dir",
        &dir,
        "--pidfile",
        &format!("{dir}/pid"),
        "--unixsocket",
        &socket.display().to_string(),
    ];
    let told = place.dcrun(&options).stdin(Stdio::null()).output().unwrap();
    assert!(told.status.success(), "{told:?}");
    let ask = |words: &[&str]| {
        let begun = Instant::now();
        loop {
            let mut client = Command::new("/usr/bin/redis-cli");
            let said = client.arg("-s").arg(&socket).args(words).output().unwrap();
            let answer = String::from_utf8_lossy(&said.stdout).into_owned();
            if said.status.success() && !answer.is_empty() || begun.elapsed() > PATIENCE {
                return answer;
            }
            sleep(Duration::from_millis(50));
        }
    };
    for number in 1..=20 {
        assert_eq!(ask(&["incr", "n"]), format!("{number}\n"));
        if number % 5 == 0 {
            let run = listed(&place).expect("it lives");
            let _ = kill(Pid::from_raw(run.workers[0]), Signal::SIGKILL);
        }
    }
    if nix::unistd::geteuid().is_root() {
        let noted = fs::read_to_string(place.0.join("pid")).unwrap();
        let run = listed(&place).expect("it lives");
        assert_eq!(noted.trim(), run.workers[0].to_string());
    }
    // (It answers nothing.)
    let mut client = Command::new("/usr/bin/redis-cli");
    client
        .arg("-s")
        .arg(&socket)
        .arg("shutdown")
        .output()
        .unwrap();
}
