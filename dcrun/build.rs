//! Builds the runtime, so that `dcrun` carries it inside: `cargo install --path dcrun` is enough.
//!
//! The runtime is a program of its own, linked in its own way, and cargo builds no program for
//! another one. So it is built by a cargo of its own, into a directory of its own (the one that
//! builds `dcrun` holds the lock of the usual one). It depends on nothing outside of this
//! repository, so nothing is downloaded.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the runtime is made of, from the repository's root.
const SOURCES: [&str; 10] = [
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
];

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

/// Builds the runtime below `place`; where it lies.
fn build(root: &Path, place: &Path) -> PathBuf {
    let target = variable("TARGET");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args(["build", "--release", "--package", "dc-runtime", "--offline"])
        .args(["--target", &target])
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
    match cargo.status() {
        Ok(status) if status.success() => place.join(target).join("release/dc-runtime"),
        Ok(status) => panic!("the runtime (package dc-runtime) was not built: {status}"),
        Err(error) => panic!("cargo, to build the runtime (package dc-runtime): {error}"),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}, which cargo sets: {error}"))
}
