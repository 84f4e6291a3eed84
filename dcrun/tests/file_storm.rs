//! Undo is the inverse: random changes of files, a death at a random one of them, and
//! the sums over the whole tree as in a native run.
//!
//! `scripts/soak-files` does the same a hundred thousand times. `FILE_STORM_SEQUENCES` and
//! `FILE_STORM_SEED` say how many sequences, and which is the first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Changes in a sequence.
const STEPS: u64 = 60;

struct Place {
    directory: PathBuf,
    /// On another file system.
    other: PathBuf,
    program: PathBuf,
}

impl Place {
    fn new(name: &str) -> Place {
        let name = format!("dcrun-storm-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        let other = Path::new("/dev/shm").join(&name);
        for directory in [&directory, &other] {
            let _ = fs::remove_dir_all(directory);
            fs::create_dir_all(directory).unwrap();
        }
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../apps/guests/programs/file-storm.c");
        let program = directory.join("file-storm");
        let built = Command::new("gcc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&program, &source])
            .status();
        assert!(built.unwrap().success());
        Place {
            directory,
            other,
            program,
        }
    }

    fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// Runs a command that ends in the program, in fresh directories.
    fn play(&self, mut command: Command, seed: u64) -> Output {
        let other = self.other.join("work");
        for directory in [&self.work(), &other] {
            let _ = fs::remove_dir_all(directory);
            fs::create_dir(directory).unwrap();
        }
        let mut storm = format!("{seed} {STEPS}");
        if seed % 2 == 1 {
            storm += &format!(" {}", other.display());
        }
        command
            .current_dir(self.work())
            .env("FILE_STORM", storm)
            .output()
            .unwrap()
    }

    fn native(&self, seed: u64) -> Output {
        self.play(Command::new(&self.program), seed)
    }

    fn hosted(&self, seed: u64, fault: &str, plant: Option<&str>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dcrun"));
        command
            .args(["run", "--fresh", "--verbose", "--name", "storm"])
            .arg(&self.program)
            .env("DCRUN_STATE", self.directory.join("state"))
            .env("DCRUN_FAULT", fault);
        if let Some(plant) = plant {
            command.env("DCRUN_PLANT", plant);
        }
        self.play(command, seed)
    }

    /// The same with a fault that dcrun dies of as well, and then `dcrun resume`. None if no fault
    /// met it. What was shown last may come twice.
    fn resumed(&self, seed: u64, fault: &str) -> Option<(Output, String)> {
        let first = self.hosted(seed, &format!("all-{fault}"), None);
        if first.status.success() {
            return None;
        }
        let resumed = Command::new(env!("CARGO_BIN_EXE_dcrun"))
            .args(["resume", "storm"])
            .current_dir(self.work())
            .env("DCRUN_STATE", self.directory.join("state"))
            .output()
            .unwrap();
        let mut shown = String::new();
        for output in [&first, &resumed] {
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                if !shown.ends_with(&format!("{line}\n")) {
                    shown += &format!("{line}\n");
                }
            }
        }
        Some((resumed, shown))
    }

    /// Names of ours that were left behind.
    fn left_behind(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![self.work(), self.other.clone()];
        while let Some(directory) = waiting.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(".dcrun-") || name.starts_with("kept-") {
                    found.push(name);
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push(entry.path());
                }
            }
        }
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir_all(&self.other);
    }
}

/// The fault of a sequence, before or after one of its changes; and those for a sequence that
/// makes less of them.
fn faults(seed: u64) -> impl Iterator<Item = String> {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let when = ["before-change", "after-change"][mixed as usize % 2];
    let first = 1 + mixed / 2 % (STEPS / 5);
    let halved = std::iter::successors(Some(first), |&nth| (nth > 1).then_some(nth / 2));
    halved.map(move |nth| format!("{when}:{nth}"))
}

fn fault(seed: u64) -> String {
    faults(seed).next().unwrap()
}

/// Plays a sequence under dcrun until a fault meets it.
fn killed(place: &Place, seed: u64, native: &Output) -> bool {
    for fault in faults(seed) {
        let hosted = place.hosted(seed, &fault, None);
        assert_eq!(
            (
                hosted.status.code(),
                String::from_utf8_lossy(&hosted.stdout)
            ),
            (Some(0), String::from_utf8_lossy(&native.stdout)),
            "seed {seed}, {fault}: {}",
            String::from_utf8_lossy(&hosted.stderr)
        );
        assert_eq!(place.left_behind(), Vec::<String>::new(), "seed {seed}");
        if died(&hosted) {
            return true;
        }
    }
    false
}

fn from_environment(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

fn died(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("died by SIGKILL")
}

#[test]
fn a_tree_is_as_it_was_whatever_change_the_death_chooses() {
    let place = Place::new("sequences");
    let first = from_environment("FILE_STORM_SEED", 1);
    let count = from_environment("FILE_STORM_SEQUENCES", 80);
    let mut deaths = 0;
    for seed in first..first + count {
        let native = place.native(seed);
        assert!(native.status.success());
        deaths += u64::from(killed(&place, seed, &native));
    }
    println!("{count} sequences, {deaths} deaths, 0 different");
    assert!(deaths * 10 >= count * 9, "only {deaths} deaths of {count}");
}

#[test]
fn a_tree_is_as_it_was_when_all_had_died() {
    let place = Place::new("cold");
    let first = from_environment("FILE_STORM_SEED", 1);
    let count = from_environment("FILE_STORM_SEQUENCES", 80) / 2;
    let mut deaths = 0;
    for seed in first..first + count {
        let native = place.native(seed);
        let met = faults(seed).find_map(|fault| Some((place.resumed(seed, &fault)?, fault)));
        let Some(((resumed, shown), fault)) = met else {
            continue;
        };
        deaths += 1;
        assert_eq!(
            (resumed.status.code(), &*shown),
            (Some(0), &*String::from_utf8_lossy(&native.stdout)),
            "seed {seed}, {fault}: {}",
            String::from_utf8_lossy(&resumed.stderr)
        );
        assert_eq!(place.left_behind(), Vec::<String>::new(), "seed {seed}");
    }
    println!("{count} sequences, {deaths} deaths of all, 0 different");
    assert!(deaths * 10 >= count * 9, "only {deaths} deaths of {count}");
}

#[test]
fn a_rollback_that_leaves_a_record_out_is_caught() {
    let place = Place::new("planted");
    let caught = (1..40).any(|seed| {
        let native = place.native(seed);
        let hosted = place.hosted(seed, &fault(seed), Some("skip-undo"));
        died(&hosted) && native.stdout != hosted.stdout
    });
    assert!(caught, "no sequence of 39 shows what is not undone");
}

/// The kinds of records that a storm makes (planted_undo.rs has the others); `DCRUN_PLANT=skip-undo-of-KIND` leaves one out.
const KINDS: [&str; 9] = [
    "bytes",
    "created",
    "made-dir",
    "unlinked",
    "removed-dir",
    "renamed",
    "meta",
    "attribute",
    "wrote",
];

#[test]
fn each_kind_of_record_that_is_left_out_is_caught() {
    let place = Place::new("kinds");
    let mut left: Vec<&str> = KINDS.to_vec();
    for seed in 1..400 {
        if left.is_empty() {
            return;
        }
        let native = place.native(seed);
        left.retain(|kind| {
            let plant = format!("skip-undo-of-{kind}");
            let hosted = place.hosted(seed, &fault(seed), Some(&plant));
            let caught = died(&hosted) && native.stdout != hosted.stdout;
            if caught {
                println!("{kind}: caught by sequence {seed}");
            }
            !caught
        });
    }
    panic!("no sequence of 399 shows that these are not undone: {left:?}");
}
