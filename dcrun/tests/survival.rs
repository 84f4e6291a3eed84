//! Real programs under dcrun, killed, and compared with their native runs.
//!
//! The sessions and the judge are those of `apps/guests`; `scripts/soak` plays
//! them a thousand times as long. Here each is short enough for every change.

use std::path::PathBuf;
use std::sync::Mutex;

use guests::{
    Fault, Mode, Options, Plant, Reference, Session, catch, run_against, session, sessions,
};

fn options() -> Options {
    Options {
        dcrun: PathBuf::from(env!("CARGO_BIN_EXE_dcrun")),
        // (The scripts for soaks play a thousand.)
        kills: 4,
        ..Options::default()
    }
}

/// Plays sessions, two at a time, and fails with everything that differed.
/// `least` is what must have happened for the test to mean anything.
fn play(what: &str, mut list: Vec<Session>, mode: Mode, options: &Options, least: usize) {
    // (The first ones take the longest.)
    list.reverse();
    let waiting = Mutex::new(list);
    let differences = Mutex::new(Vec::new());
    let kills = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(session) = waiting.lock().unwrap().pop() else {
                        return;
                    };
                    let played = Reference::known(&session)
                        .and_then(|known| run_against(&session, &known, mode, options));
                    match played {
                        Ok(report) => {
                            *kills.lock().unwrap() += report.kills;
                            let mut all = differences.lock().unwrap();
                            all.extend(
                                report
                                    .differences
                                    .iter()
                                    .map(|d| format!("{}: {d}", session.name)),
                            );
                        }
                        Err(error) => differences
                            .lock()
                            .unwrap()
                            .push(format!("{}: {error}", session.name)),
                    }
                }
            });
        }
    });
    let differences = differences.into_inner().unwrap();
    assert!(
        differences.is_empty(),
        "{what}:\n{}",
        differences.join("\n")
    );
    let kills = kills.into_inner().unwrap();
    assert!(
        kills >= least,
        "{what}: only {kills} kills; this proves nothing"
    );
}

fn named(names: &[&str]) -> Vec<Session> {
    names
        .iter()
        .map(|name| session(name).unwrap_or_else(|| panic!("no session {name}")))
        .collect()
}

/// The programs of the promise: editors, prompts, sheets, games, batch jobs.
const PROGRAMS: &[&str] = &[
    "nvi",
    "vim",
    "python-repl",
    "python-threads",
    "sqlite-memory",
    "sqlite-file",
    "sqlite-wal",
    "bc",
    "sc",
    "robotfindskitten",
    "lua",
    "node",
    "go",
    "static-musl",
    "static-glibc",
    "xz",
    "cc1",
];

fn probes() -> Vec<Session> {
    sessions()
        .into_iter()
        .filter(|s| s.name.starts_with("probe-"))
        .collect()
}

#[test]
fn nobody_sees_that_a_program_is_hosted() {
    play("hosted", probes(), Mode::Hosted, &options(), 0);
}

#[test]
fn programs_survive_the_death_of_the_worker() {
    play(
        "worker killed",
        named(PROGRAMS),
        Mode::KillWorker,
        &options(),
        30,
    );
}

/// A clock that commits wherever it likes must not come between a program and the
/// output that it has yet to meet again.
#[test]
fn programs_with_a_clock_survive_the_death_of_the_worker() {
    let options = Options {
        interval_ms: Some(7),
        ..options()
    };
    let programs = ["vim", "python-threads", "sqlite-file", "bc", "lua", "go"];
    play(
        "worker killed, with a clock",
        named(&programs),
        Mode::KillWorker,
        &options,
        12,
    );
}

#[test]
fn programs_survive_the_death_of_keeper_and_worker() {
    let options = Options {
        kills: 2,
        ..options()
    };
    let mut programs = named(PROGRAMS);
    // (They compute for long, and nothing else.)
    programs.retain(|program| !matches!(program.name, "xz" | "cc1"));
    play("all killed", programs, Mode::KillAll, &options, 10);
}

#[test]
fn every_kernel_fact_survives_the_death_of_the_worker() {
    play(
        "probes, worker killed",
        probes(),
        Mode::KillWorker,
        &options(),
        60,
    );
}

#[test]
fn every_kernel_fact_survives_the_death_of_one_and_of_all() {
    // One after the other: a recovery of what the last one has made anew.
    let options = Options {
        kills: 3,
        ..options()
    };
    let mut probes = probes();
    probes.retain(|probe| {
        !matches!(
            probe.name,
            // Descriptors in a message are lost with it.
            "probe-sockets-handed"
        )
    });
    play(
        "probes, one or all killed",
        probes,
        Mode::KillMixed,
        &options,
        45,
    );
}

/// Programs that start others.
const TREES: &[&str] = &[
    "tree-pipelines",
    "tree-jobs",
    "tree-fifos",
    "tree-make",
    "tree-git",
    "tree-python",
    "probe-tree-file-removed",
];

/// Programs that run others on terminals of their own.
const TERMINALS: &[&str] = &["terminal-script", "terminal-python", "terminal-vim"];

#[test]
fn terminals_of_programs_survive_the_death_of_any_process_and_of_all() {
    play(
        "terminals, hosted",
        named(TERMINALS),
        Mode::Hosted,
        &options(),
        0,
    );
    for (mode, least) in [(Mode::KillWorker, 7), (Mode::KillAll, 6)] {
        let options = Options {
            kills: 4,
            ..options()
        };
        play("terminals, killed", named(TERMINALS), mode, &options, least);
    }
}

#[test]
fn trees_are_hosted_unseen() {
    play("trees, hosted", named(TREES), Mode::Hosted, &options(), 0);
}

#[test]
fn trees_survive_the_death_of_any_process() {
    let options = Options {
        // Theorem 2 holds for all processes of a run as for one.
        check: true,
        ..options()
    };
    play(
        "a process killed",
        named(TREES),
        Mode::KillWorker,
        &options,
        14,
    );
}

#[test]
fn trees_survive_the_death_of_all() {
    let options = Options {
        kills: 3,
        ..options()
    };
    play(
        "trees, all killed",
        named(TREES),
        Mode::KillAll,
        &options,
        9,
    );
}

/// A crash at each commit of short sessions, before and after it is published,
/// after each visible event and after each read.
#[test]
fn a_crash_at_every_commit_and_every_event() {
    let short = [
        "probe-stdin-lines",
        "probe-chance",
        "probe-counter",
        "probe-signal-restart",
    ];
    for fault in [
        Fault::AfterCommit,
        Fault::BeforePublish,
        Fault::AfterVisible,
        Fault::AfterRead,
    ] {
        let options = Options {
            places: 40,
            ..options()
        };
        let least = if fault == Fault::AfterRead { 5 } else { 30 };
        play(
            &format!("{fault:?}"),
            named(&short),
            Mode::Every(fault),
            &options,
            least,
        );
    }
}

/// A commit takes out what lies in a terminal of the program's own, and puts it back: a crash
/// at each step of that, and at each of what led to it.
#[test]
fn no_crash_divides_a_look_into_a_terminal() {
    for fault in [Fault::BeforePublish, Fault::AfterVisible] {
        let options = Options {
            places: 40,
            ..options()
        };
        play(
            &format!("a crash beside terminals, {fault:?}"),
            named(&["probe-ptys-unread"]),
            Mode::Every(fault),
            &options,
            40,
        );
    }
}

/// What a call has moved and what it has yet to note of it belong together, also where
/// another process commits between the two.
#[test]
fn no_commit_divides_a_transfer() {
    let options = Options {
        places: 40,
        ..options()
    };
    play(
        "a commit at each line beside transfers",
        named(&["probe-transfers-beside"]),
        Mode::Every(Fault::AfterCommit),
        &options,
        20,
    );
}

/// Memory that processes share goes back with them, also where the one that stores into it
/// could not open it any more.
#[test]
fn who_has_given_up_rights_goes_back_with_the_others() {
    let options = Options {
        places: 15,
        ..options()
    };
    play(
        "a crash in commits of processes with fewer rights",
        named(&["probe-fewer-rights"]),
        Mode::Every(Fault::BeforePublish),
        &options,
        10,
    );
}

/// A harness that cannot fail proves nothing.
#[test]
fn planted_bugs_are_caught() {
    let options = Options {
        kills: 10,
        ..options()
    };
    for plant in Plant::ALL {
        match catch(plant, &options) {
            Ok(Some(report)) => println!("{plant:?} caught: {report}"),
            Ok(None) => panic!("{plant:?} was planted and nobody noticed"),
            Err(error) => panic!("{plant:?}: {error}"),
        }
    }
}
