//! What a worker that died leaves: its memory goes, and with it the process that held it, at each death, the first one
//! too; nothing that it had open meets the next one.

mod place;

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use place::Place;

/// The children of a process that hold the memory of workers.
fn holders(keeper: u32) -> Vec<String> {
    let path = format!("/proc/{keeper}/task/{keeper}/children");
    let children = fs::read_to_string(path).unwrap();
    let named = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "dcrun-memory\n")
    };
    children
        .split_whitespace()
        .filter(named)
        .map(str::to_owned)
        .collect()
}

/// Waits until there is one holder, and says which.
fn the_holder(keeper: u32) -> String {
    let begun = Instant::now();
    loop {
        let all = holders(keeper);
        match &all[..] {
            [one] => return one.clone(),
            _ => assert!(begun.elapsed() < Duration::from_secs(5), "{all:?}"),
        }
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_is_left_of_a_worker_that_died() {
    let place = Place::new("memory-of-the-dead");
    let mut run = place
        .python(
            &[],
            "import time\nfor i in range(1000): print(flush=True); time.sleep(0.01)",
        )
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while place.worker().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(5), "no worker");
        sleep(Duration::from_millis(5));
    }
    let mut seen = vec![the_holder(run.id())];
    for _ in 0..3 {
        assert!(place.kill_worker());
        let begun = Instant::now();
        while holders(run.id()).iter().all(|one| seen.contains(one)) {
            assert!(begun.elapsed() < Duration::from_secs(5), "no new worker");
            sleep(Duration::from_millis(5));
        }
        seen.push(the_holder(run.id()));
    }
    let _ = place.dcrun(&["kill", "t"]).status();
    let _ = run.wait();
}

/// A death before the first commit begins all anew, in the table of descriptors that the dead has left.
#[test]
fn nothing_that_it_had_open_meets_the_next_one() {
    let place = Place::new("open-of-the-dead");
    for nth in ["1", "2"] {
        let ran = place
            .dcrun(&["--fresh", "--name", "t", "/bin/ls", "/proc/self/fd"])
            .env("DCRUN_FAULT", format!("in-load:{nth}"))
            .output()
            .unwrap();
        let native = std::process::Command::new("/bin/ls")
            .arg("/proc/self/fd")
            .output()
            .unwrap();
        let low = |shown: &[u8]| -> Vec<u32> {
            let shown = String::from_utf8_lossy(shown);
            let all = shown.lines().filter_map(|line| line.parse().ok());
            let mut low: Vec<u32> = all.filter(|&fd| fd < 100).collect();
            low.sort_unstable();
            low
        };
        assert_eq!(low(&ran.stdout), low(&native.stdout), "in-load:{nth}");
        assert_eq!(place.stats()["recoveries"], 1, "in-load:{nth}");
    }
}

/// The run's lock is free before its last process is gone; whoever resumes waits for the image, which all of them have.
#[test]
fn a_resume_waits_for_the_last_of_the_dead() {
    let place = Place::new("last-of-the-dead");
    let count = "import time\nfor i in range(5): print(i, flush=True); time.sleep(0.1)";
    let mut run = place
        .python(&[], count)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while place.worker().is_none() || place.stats()["commits"].as_u64() < Some(3) {
        assert!(begun.elapsed() < Duration::from_secs(5), "no commit");
        sleep(Duration::from_millis(5));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    let record = fs::read_to_string(place.0.join("state/t/run.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let image = fs::File::open(record["image"].as_str().unwrap()).unwrap();
    // One that is slow to die.
    let begun = Instant::now();
    while image.try_lock().is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the worker lives");
        sleep(Duration::from_millis(1));
    }
    let mut resumed = place
        .dcrun(&["resume", "t"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let commits = place.stats()["commits"].as_u64();
    sleep(Duration::from_millis(300));
    assert!(resumed.try_wait().unwrap().is_none(), "it has not waited");
    assert_eq!(place.stats()["commits"].as_u64(), commits);
    assert_eq!(place.stats()["recoveries"], 0);
    image.unlock().unwrap();
    assert!(resumed.wait().unwrap().success());
    assert_eq!(place.stats()["recoveries"], 1);
}
