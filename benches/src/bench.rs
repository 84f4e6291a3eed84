//! What a benchmark is given: the programs to measure and a place to work in.

use std::path::{Path, PathBuf};

use crate::failure::{Doing, Failure, Outcome};

pub struct Bench {
    pub dcrun: PathBuf,
    pub criu: PathBuf,
    pub quick: bool,
    /// Removed at the end: guests, inputs, the state of the runs.
    pub place: PathBuf,
}

impl Bench {
    pub fn new(dcrun: &Path, criu: &Path, quick: bool) -> Outcome<Bench> {
        let dcrun = std::fs::canonicalize(dcrun).doing(|| format!("dcrun {}", dcrun.display()))?;
        if !dcrun.with_file_name("dc-runtime").exists() {
            return Err(Failure::new(format!(
                "{}: no dc-runtime beside it; `cargo build --release -p dcrun -p dc-runtime`",
                dcrun.display()
            )));
        }
        let place = std::env::temp_dir().join(format!("dc-benches-{}", std::process::id()));
        std::fs::create_dir_all(&place).doing(|| format!("make {}", place.display()))?;
        Ok(Bench {
            dcrun,
            criu: criu.to_owned(),
            quick,
            place,
        })
    }

    /// One of two figures: for a look, or for the record.
    pub fn either<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Progress, for people who wait.
    pub fn say(&self, text: &str) {
        eprintln!("benches: {text}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.place);
    }
}
