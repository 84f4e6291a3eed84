//! The memory of a worker that has died goes, and with it the process that held it: at each death, the first one too.

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
