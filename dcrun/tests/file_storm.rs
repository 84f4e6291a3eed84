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

/// The fault of a sequence: before or after one of its changes.
fn fault(seed: u64) -> String {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let when = ["before-change", "after-change"][mixed as usize % 2];
    format!("{when}:{}", 1 + mixed / 2 % (STEPS / 5))
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
    let count = from_environment("FILE_STORM_SEQUENCES", 120);
    let mut deaths = 0;
    for seed in first..first + count {
        let native = place.native(seed);
        assert!(native.status.success());
        let hosted = place.hosted(seed, &fault(seed), None);
        assert_eq!(
            (
                hosted.status.code(),
                String::from_utf8_lossy(&hosted.stdout)
            ),
            (Some(0), String::from_utf8_lossy(&native.stdout)),
            "seed {seed}, {}: {}",
            fault(seed),
            String::from_utf8_lossy(&hosted.stderr)
        );
        assert_eq!(place.left_behind(), Vec::<String>::new(), "seed {seed}");
        deaths += u64::from(died(&hosted));
    }
    println!("{count} sequences, {deaths} deaths, 0 different");
    assert!(deaths * 3 > count, "only {deaths} deaths of {count}");
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
