//! Builds the runtime, so that `dcrun` carries it inside: `cargo install --path dcrun` is enough; and
//! reads the runtime's table of system calls, for `dcrun doctor PROGRAM`.
//!
//! The runtime is a program of its own, linked in its own way, and cargo builds no program for
//! another one. So it is built by a cargo of its own, into a directory of its own (the one that
//! builds `dcrun` holds the lock of the usual one). It depends on nothing outside of this
//! repository, so it is built without the network; only where cargo knows nothing yet of what
//! other parts of the repository depend on, it has to ask.

#[path = "build/rows.rs"]
mod rows;

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the runtime is made of, from the repository's root.
const SOURCES: [&str; 11] = [
    "Cargo.toml",
    "libdc/image/Cargo.toml",
    "libdc/image/src",
    "libdc/runtime",
    "protocols/Cargo.toml",
    "protocols/src",
    "rio-sim/core",
    "vista/core/Cargo.toml",
    "vista/core/src",
    "dcrun/build.rs",
    "dcrun/build",
];

/// The table of system calls.
const TABLE: &str = "libdc/runtime/src/table.rs";

/// What is meant for the build of `dcrun`: a linter in the place of the compiler, or flags under
/// which no program could run that has no library.
const NOT_FOR_IT: [&str; 5] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
];

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    write_limits(&root.join(TABLE), &out.join("limits.rs"));
    let built = build(&root, &out.join("runtime"));
    let inside = out.join("dc-runtime");
    if let Err(error) = fs::copy(&built, &inside) {
        panic!(
            "{}: copy it to {}: {error}",
            built.display(),
            inside.display()
        );
    }
}

/// The calls that are refused or not kept, as an array of `call_limits::Limit`.
fn write_limits(table: &Path, to: &Path) {
    let text = fs::read_to_string(table)
        .unwrap_or_else(|error| panic!("{}: read it: {error}", table.display()));
    let mut limits = String::from("[\n");
    for row in rows::rows(&text) {
        let treatment = row.treatment();
        let (kind, parts) = match () {
            () if row.is_refused() => {
                let why = treatment
                    .trim_start_matches("refused ")
                    .replacen("):", ")", 1);
                ("Refused", [why, row.note.clone()])
            }
            () if row.stops_recovery() => {
                let why = row.note.split_once(": ").map_or("", |(_, why)| why);
                ("StopsRecovery", [why.to_owned(), String::new()])
            }
            () if row.is_unknown() => ("NotKept", [treatment, row.note.clone()]),
            () if row.is_lost_for().is_some() => {
                let why = row.is_lost_for().unwrap_or_default();
                ("NotKept", [why, row.note.clone()])
            }
            () => continue,
        };
        let parts: Vec<&str> = parts
            .iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        let (name, says) = (&row.name, parts.join("; "));
        let _ = writeln!(
            limits,
            "Limit {{ call: {name:?}, kind: Kind::{kind}, says: {says:?} }},"
        );
    }
    limits.push_str("]\n");
    fs::write(to, limits).unwrap_or_else(|error| panic!("{}: write it: {error}", to.display()));
}

/// Builds the runtime below `place`; where it lies.
fn build(root: &Path, place: &Path) -> PathBuf {
    let target = variable("TARGET");
    let call = |how: &[&str]| {
        let mut cargo = Command::new(variable("CARGO"));
        cargo
            .args(["build", "--release", "--package", "dc-runtime"])
            .args(["--target", &target])
            .args(how)
            .arg("--manifest-path")
            .arg(root.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(place)
            // Nobody debugs what is inside of another program; as a file of its own it has lines.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        for name in NOT_FOR_IT {
            cargo.env_remove(name);
        }
        match cargo.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    if let Err(first) = call(&["--offline"])
        && let Err(error) = call(&[])
    {
        panic!("build the runtime (package dc-runtime): {error}\nand without the network: {first}");
    }
    place.join(&target).join("release/dc-runtime")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}, which cargo sets: {error}"))
}
