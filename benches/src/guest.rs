//! The programs that are measured: C sources beside this crate, compiled when
//! needed, and programs from packages.

use std::path::PathBuf;
use std::process::Command;

use crate::bench::Bench;
use crate::failure::{Doing, Failure, Outcome};

const CLOCK_H: &str = include_str!("../guests/clock.h");
pub const TREES_PY: &str = include_str!("../guests/trees.py");
pub const HEAP_PY: &str = include_str!("../guests/heap.py");

pub struct Source {
    name: &'static str,
    text: &'static str,
    flags: &'static [&'static str],
}

pub const COMMIT: Source = source("commit", include_str!("../guests/commit.c"), &[]);
pub const CHANCE: Source = source("chance", include_str!("../guests/chance.c"), &[]);
pub const CALLS: Source = source("calls", include_str!("../guests/calls.c"), &["-pthread"]);
pub const RESIDENT: Source = source("resident", include_str!("../guests/resident.c"), &[]);
pub const BIRTHS: Source = source("births", include_str!("../guests/births.c"), &[]);
pub const SPIN: Source = source("spin", include_str!("../guests/spin.c"), &[]);
pub const HELLO: Source = source("hello", include_str!("../guests/hello.c"), &["-static"]);

const fn source(name: &'static str, text: &'static str, flags: &'static [&'static str]) -> Source {
    Source { name, text, flags }
}

/// The executable of a guest.
pub fn compile(bench: &Bench, source: &Source) -> Outcome<PathBuf> {
    let program = bench.file(source.name);
    if program.exists() {
        return Ok(program);
    }
    let write = |name: &str, text: &str| {
        std::fs::write(bench.file(name), text).doing(|| format!("write {name}"))
    };
    write("clock.h", CLOCK_H)?;
    let file = format!("{}.c", source.name);
    write(&file, source.text)?;
    let done = Command::new("cc")
        .args(["-O2", "-o"])
        .arg(&program)
        .arg(bench.file(&file))
        .args(source.flags)
        .status()
        .doing(|| "cc".to_owned())?;
    if done.success() {
        Ok(program)
    } else {
        Err(Failure::new(format!("cc {file}: {done}")))
    }
}

/// The file of a program from a package; wrappers in other directories, which
/// are scripts that exec, are passed over.
pub fn packaged(name: &str) -> Outcome<PathBuf> {
    ["/usr/bin", "/bin"]
        .iter()
        .map(|directory| PathBuf::from(directory).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| Failure::new(format!("{name}: not installed; scripts/bench installs it")))
}
