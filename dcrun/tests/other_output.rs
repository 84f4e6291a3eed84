//! A run that is resumed with its output going elsewhere: into a pipe after a file, into a file after a pipe; and whose
//! worker dies then.

mod place;

use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use place::Place;

const LINES: &str = "import os\nfor i in range(400):\n    os.getrandom(4); print('line', i, flush=True)\n    if i in (100, 200):\n        import time; time.sleep(1)";

/// Begins the run with its output in a file or a pipe, and kills all of it in its sleep.
fn begun(place: &Place, into_file: bool) -> String {
    let out = place.0.join("begun");
    let mut command = place.python(&[], LINES);
    if into_file {
        command.stdout(File::create(&out).unwrap());
    } else {
        command.stdout(Stdio::piped());
    }
    let mut run = command.spawn().unwrap();
    let worker = in_sleep(place, 100);
    run.kill().unwrap();
    place::kills(worker);
    let mut printed = String::new();
    match run.stdout.take() {
        Some(mut pipe) => _ = pipe.read_to_string(&mut printed).unwrap(),
        None => printed = fs::read_to_string(&out).unwrap(),
    }
    run.wait().unwrap();
    printed
}

/// The worker, in the sleep that comes behind so many commits.
fn in_sleep(place: &Place, commits: u64) -> nix::unistd::Pid {
    let begun = Instant::now();
    while place.worker().is_none() || commits_of(place) < commits {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it has not begun"
        );
        sleep(Duration::from_millis(5));
    }
    sleep(Duration::from_millis(100));
    place.worker().unwrap()
}

fn commits_of(place: &Place) -> u64 {
    place.stats()["commits"].as_u64().unwrap_or(0)
}

/// Resumes the run, and kills its worker in the second sleep.
fn resumed(place: &Place, into: Stdio) -> String {
    let before = commits_of(place);
    let mut command = place.dcrun(&["resume", "t"]);
    let run = command.stdout(into).spawn().unwrap();
    place::kills(in_sleep(place, before + 60));
    let done = run.wait_with_output().unwrap();
    assert!(done.status.success());
    assert!(place.stats()["recoveries"].as_u64() >= Some(2));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// All lines in their order; the last one before the death may come twice where nobody could tell whether it was out.
fn check(what: &str, first: &str, second: &str) {
    let mut lines: Vec<&str> = first.lines().chain(second.lines()).collect();
    lines.dedup();
    let expected: Vec<String> = (0..400).map(|i| format!("line {i}")).collect();
    assert_eq!(lines, expected, "{what}");
}

#[test]
fn a_pipe_after_a_file() {
    let place = Place::new("pipe-after-file");
    let first = begun(&place, true);
    check("a pipe", &first, &resumed(&place, Stdio::piped()));
}

#[test]
fn a_file_after_a_pipe() {
    let place = Place::new("file-after-pipe");
    let first = begun(&place, false);
    let out = place.0.join("rest");
    resumed(&place, File::create(&out).unwrap().into());
    check("a file", &first, &fs::read_to_string(&out).unwrap());
}
