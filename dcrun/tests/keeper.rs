//! The keeper at work, with a stand-in for the runtime that dies as it is told.
//!
//! Every test has a state directory of its own. The arguments of the program
//! are the stand-in's script: see `stand_in/runtime.rs`.

mod stand_in;

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use stand_in::{State, finish, kill, sleeping, wait_until_stopped};

#[test]
fn passes_the_programs_own_exit_status_on() {
    let state = State::new("exit");
    assert_eq!(
        finish(state.script("", "say:hello exit:7")),
        (7, "hello\n".into(), "".into())
    );
    let run = &state.ps()[0];
    assert_eq!(run["state"], "done");
    assert_eq!(run["command"], "/bin/true say:hello exit:7");
    assert_eq!(run["worker_pid"], Value::Null);
    assert!(!state.path.join("r/image").exists());
}

#[test]
fn hands_arguments_and_environment_over() {
    let state = State::new("arguments");
    let mut command = state.script("", "args env");
    command.env("MARK", "a b").env("DCRUN_PLANT", "skip-page");
    let (status, said, _) = finish(command);
    assert_eq!(status, 0);
    assert!(said.starts_with("/bin/true\nargs\nenv\n"), "{said}");
    assert!(said.contains("\nMARK=a b\n"));
    assert!(!said.contains("DCRUN_PLANT"));
}

#[test]
fn runs_scripts_by_their_interpreter() {
    let state = State::new("script");
    fs::create_dir_all(&state.path).unwrap();
    let script = state.path.join("script");
    fs::write(&script, "#!/bin/sh args\n").unwrap();
    Command::new("chmod")
        .arg("700")
        .arg(&script)
        .arg(&state.path)
        .status()
        .unwrap();
    let line = format!("--rio disk {} boot", script.display());
    let (status, said, _) = finish(state.dcrun(&line));
    // The stand-in's first word is the interpreter's argument.
    let expected = format!("/bin/sh\nargs\n{}\nboot\n", script.display());
    assert_eq!((status, said.as_str()), (98, expected.as_str()));
}

#[test]
fn recovers_warm_with_the_same_pid_and_exact_counters() {
    let state = State::new("warm");
    let (status, said, complaints) =
        finish(state.script("", "commit say:1234567 kill:9 boot kill:11 boot exit:3"));
    assert_eq!((status, complaints.as_str()), (3, ""));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[1].contains("mode=1 "), "{said}");
    assert!(lines[1].contains("known=1 rchar=0 wchar=8 "), "{said}");
    assert!(lines[1].contains("pid="), "{said}");
    let counted = state.dcrun("stats r --json").output().unwrap();
    let counted: Value = serde_json::from_slice(&counted.stdout).unwrap();
    assert_eq!(counted["recoveries"], 2);
    let times = counted["recovery_us"].as_array().unwrap();
    assert_eq!(times.len(), 2);
    assert!(
        times.iter().all(|time| time.as_f64().unwrap() > 0.0),
        "{times:?}"
    );
    assert_eq!(counted["exit_status"], 3);
}

#[test]
fn starts_over_if_nothing_was_committed() {
    let state = State::new("over");
    let (status, said, complaints) = finish(state.script("-v", "kill:9 boot exit:0"));
    assert_eq!(status, 0);
    assert!(said.contains("mode=0 "), "{said}");
    assert!(complaints.contains("starting again"), "{complaints}");
}

#[test]
fn a_program_that_is_told_to_die_dies() {
    let state = State::new("told");
    assert_eq!(finish(state.script("", "commit kill:15 exit:0")).0, 143);
    assert_eq!(state.state_of_r(), "done");
}

#[test]
fn stops_after_three_crashes_from_one_commit() {
    let state = State::new("loop");
    let script = "commit kill:11 kill:11 kill:11 exit:6";
    let (status, _, complaints) = finish(state.script("", script));
    assert_eq!(status, 139);
    assert!(
        complaints.contains("SIGSEGV 3 times from commit 1"),
        "{complaints}"
    );
    assert!(complaints.contains("--fresh") && complaints.contains("dcrun resume r"));
    assert_eq!(state.state_of_r(), "dead");
    let (status, _, complaints) = finish(state.dcrun("resume r"));
    assert_eq!(
        (status, complaints.as_str()),
        (6, "dcrun: resuming r from commit 1\n")
    );
}

#[test]
fn kills_from_outside_are_no_crash_loop() {
    let state = State::new("kills");
    let script = "commit kill:9 kill:9 kill:9 kill:9 kill:9 exit:1";
    assert_eq!(finish(state.script("", script)).0, 1);
}

#[test]
fn says_why_the_runtime_gave_up() {
    let state = State::new("fatal");
    let (status, _, complaints) = finish(state.script("", "commit fatal exit:5"));
    assert_eq!(status, 125);
    assert!(
        complaints.starts_with("dcrun: r: the stand-in gave up; "),
        "{complaints}"
    );
    assert!(complaints.contains("make room"), "{complaints}");
    assert_eq!(
        finish(state.script("", "commit fatal exit:5")).0,
        5,
        "the same line resumes"
    );
}

#[test]
fn the_worker_dies_with_its_keeper_and_the_same_line_goes_on() {
    let state = State::new("cold");
    let (mut child, run) = sleeping(&state);
    let (worker, keeper) = (
        run["worker_pid"].as_i64().unwrap(),
        run["keeper_pid"].as_i64().unwrap(),
    );
    assert_eq!(keeper, i64::from(child.id()));
    kill(keeper, "-9");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    state.wait_for("death", |run| run["state"] == "dead");
    // It follows its keeper; a zombie has no memory.
    let lives = || fs::read(format!("/proc/{worker}/maps")).is_ok_and(|maps| !maps.is_empty());
    let begun = Instant::now();
    while lives() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{worker} lives");
        sleep(Duration::from_millis(1));
    }
    let (status, _, complaints) = finish(state.script("", "commit sleep:20000 exit:4"));
    assert_eq!(
        (status, complaints.as_str()),
        (4, "dcrun: resuming r from commit 1\n")
    );
}

#[test]
fn resumes_at_once_after_both_were_killed() {
    let state = State::new("at-once");
    let (mut child, run) = sleeping(&state);
    kill(run["keeper_pid"].as_i64().unwrap(), "-9");
    let again = finish(state.script("", "commit sleep:20000 exit:4"));
    assert_eq!(again.0, 4, "{again:?}");
    child.wait().unwrap();
}

#[test]
fn an_exit_status_that_the_keeper_could_not_tell_is_told_by_the_same_line() {
    const SCRIPT: &str = "commit say:ran done:7 sleep:20000";
    let ended = "dcrun: r: its program had ended already, with status 7\n";
    let told = (7, String::new(), ended.to_owned());
    let state = State::new("untold");
    for last_words in [false, true] {
        let mut child = state.script("", SCRIPT).spawn().unwrap();
        let run = state.wait_for("the program's end", |run| {
            run["state"] == "done" && run["worker_pid"].is_number()
        });
        if last_words {
            // The keeper counts the run as finished, and can just not return.
            kill(run["worker_pid"].as_i64().unwrap(), "-9");
            assert_eq!(child.wait().unwrap().code(), Some(7));
            fs::write(state.path.join("r/untold"), "").unwrap();
        } else {
            kill(run["keeper_pid"].as_i64().unwrap(), "-9");
            child.wait().unwrap();
        }
        assert_eq!(finish(state.script("", SCRIPT)), told);
    }
    // Told once: the next is a new run.
    let other = "commit say:ran exit:3";
    let (status, said, _) = finish(state.script("", other));
    assert_eq!((status, said.as_str()), (3, "ran\n"));
}

#[test]
fn a_run_is_alive_once() {
    let state = State::new("alive");
    let (mut child, _) = sleeping(&state);
    let (status, _, complaints) = finish(state.script("", "commit sleep:20000 exit:4"));
    assert_eq!(status, 125);
    assert!(complaints.contains("alive already"), "{complaints}");
    assert_eq!(finish(state.dcrun("rm r")).0, 125);
    assert_eq!(finish(state.dcrun("kill r")).0, 0);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(state.state_of_r(), "dead");
    assert_eq!(finish(state.dcrun("kill r")).0, 125);
    assert_eq!(finish(state.dcrun("rm r")).0, 0);
    assert_eq!(state.ps(), Value::Array(Vec::new()));
}

#[test]
fn passes_signals_on_that_were_sent_to_the_keeper() {
    let state = State::new("signals");
    let (mut child, run) = sleeping(&state);
    kill(run["keeper_pid"].as_i64().unwrap(), "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn stops_and_continues_along_with_its_worker() {
    let state = State::new("stop");
    let mut command = state.script("", "commit stop:20 exit:2");
    // A group of its own, whose leader has a parent outside: stops are not ignored.
    let mut child = command.process_group(0).spawn().unwrap();
    wait_until_stopped(&child);
    kill(i64::from(child.id()), "-CONT");
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn a_worker_that_stops_again_at_once_is_no_riddle() {
    let state = State::new("stop-again");
    // As when a program is continued in the background and reads its terminal.
    let mut command = state.script("", "commit stop:20 stop:21 exit:2");
    let mut child = command.process_group(0).spawn().unwrap();
    for _ in 0..2 {
        wait_until_stopped(&child);
        kill(i64::from(child.id()), "-CONT");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn the_program_finds_descriptors_and_signals_untouched() {
    let state = State::new("untouched");
    let inner = state.script("", "commit open signals kill:9 open signals exit:0");
    let mut shell = Command::new("/bin/bash");
    // Standard input closed, 7 open, SIGUSR1 ignored.
    shell.args(["-c", "trap '' USR1; exec \"$@\" 7</dev/null <&-", "-"]);
    shell.arg(inner.get_program()).args(inner.get_args());
    for (key, value) in inner.get_envs() {
        shell.env(key, value.unwrap());
    }
    let (status, said, complaints) = finish(shell);
    // Whoever runs the tests may have left further ones open or ignored.
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((status, complaints.as_str()), (0, ""), "{said}");
    assert!(lines[0].starts_with("open: 1 2 7"), "{said}");
    let (blocked, ignored) = lines[1].split_once(" ignored=").unwrap();
    assert_eq!(blocked, "blocked=0");
    let sigusr1 = 1u64 << 9;
    assert_ne!(u64::from_str_radix(ignored, 16).unwrap() & sigusr1, 0);
    assert_eq!(lines[..2], lines[2..], "and the next worker finds the same");
}

#[test]
fn faults_fire_in_one_worker() {
    let state = State::new("faults");
    let mut command = state.script("", "commit boot kill:9 boot exit:0");
    command.env("DCRUN_FAULT", "after-read:3");
    let (_, said, _) = finish(command);
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].contains("fault=4:3") && lines[1].contains("fault=0:3"),
        "{said}"
    );
    let mut command =
        state.dcrun("--rio disk --name s /bin/true commit boot kill:9 boot kill:9 boot");
    command
        .env("DCRUN_FAULT", "in-recovery")
        .env("DCRUN_PLANT", "lose-read");
    let (_, said, _) = finish(command);
    let faults: Vec<bool> = said
        .lines()
        .map(|line| line.contains("fault=5:1 plant=4"))
        .collect();
    assert_eq!(faults, [false, true, false], "{said}");
}

#[test]
fn refuses_with_the_documented_statuses() {
    let state = State::new("refusals");
    fs::create_dir_all(&state.path).unwrap();
    Command::new("chmod")
        .arg("700")
        .arg(&state.path)
        .status()
        .unwrap();
    for (line, status, word) in [
        ("no-such-program-at-all", 127, "not found"),
        ("/no/such/program", 127, "No such file"),
        ("/etc/passwd", 126, "not executable"),
        ("/tmp", 126, "directory"),
        ("--protocol nonsense /bin/true", 125, "nonsense"),
        ("--rio pmem /bin/true", 125, "DAX"),
        ("resume nothing", 125, "no run"),
        ("rm nothing", 125, "no run"),
        ("stats nothing", 125, "no run"),
        ("check /dev/null", 125, "no event"),
    ] {
        let (found, _, complaints) = finish(state.dcrun(line));
        assert_eq!(found, status, "{line}: {complaints}");
        assert!(
            complaints.starts_with("dcrun: ") && complaints.contains(word),
            "{complaints}"
        );
    }
    assert_eq!(
        state.ps(),
        Value::Array(Vec::new()),
        "nothing is left of them"
    );
}

#[test]
fn tells_damaged_images_from_those_of_other_versions() {
    for (at, word) in [(0, "corrupt"), (8, "another version"), (17, "checksum")] {
        let state = State::new(&format!("damaged-{at}"));
        assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
        let image = state.path.join("r/image");
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(image)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let (status, _, complaints) = finish(state.script("", "commit fatal exit:5"));
        assert_eq!(status, 125);
        assert!(complaints.contains(word), "byte {at}: {complaints}");
        assert_eq!(finish(state.script("--fresh", "commit exit:3")).0, 3);
    }
}

#[test]
fn says_so_when_the_image_did_not_survive() {
    let state = State::new("lost");
    assert_eq!(finish(state.script("", "commit fatal exit:5")).0, 125);
    fs::remove_file(state.path.join("r/image")).unwrap();
    assert_eq!(finish(state.dcrun("resume r")).0, 125);
    let (status, _, complaints) = finish(state.script("", "commit fatal exit:5"));
    assert_eq!(status, 125, "it began again, and gave up again");
    assert!(
        complaints.contains("starting from the beginning"),
        "{complaints}"
    );
}
