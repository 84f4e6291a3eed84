//! Killed at random, in Rust and in C, on every backend, and consistent each time.

use std::path::{Path, PathBuf};
use std::process::Command;

use killer::torment;

const KILLS: u64 = 60;

#[test]
fn the_rust_program_survives_kills() {
    for rio in ["tmpfs", "pmem", "disk"] {
        kill(Path::new(env!("CARGO_BIN_EXE_ordered-map")), rio, "rust");
    }
}

#[test]
fn the_c_program_survives_kills() {
    let program = compile();
    for rio in ["tmpfs", "pmem", "disk"] {
        kill(&program, rio, "c");
    }
}

fn kill(program: &Path, rio: &str, language: &str) {
    let image = place(&format!("image-{language}-{rio}"));
    let _ = std::fs::remove_dir_all(&image);
    let tally = torment(program, &image, rio, KILLS, 1).unwrap();
    assert!(
        tally.commits > KILLS && tally.early < KILLS / 2,
        "{tally:?}"
    );
    std::fs::remove_dir_all(&image).unwrap();
}

/// Images go to memory where there is some, or the disk's syncs would be what is tested.
fn place(name: &str) -> PathBuf {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() {
        shm.to_owned()
    } else {
        std::env::temp_dir()
    };
    base.join(format!("vista-ordered-map-{}-{name}", std::process::id()))
}

/// Builds ordered_map.c against the static library that lies beside this test.
fn compile() -> PathBuf {
    let deps = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    let output = deps.join("ordered-map-c");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiled = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(here.join("../../vista/include"))
        .arg(here.join("ordered_map.c"))
        .arg(deps.join("libvista_c.a"))
        .arg("-lm")
        .arg("-o")
        .arg(&output)
        .status();
    assert!(compiled.expect("a C compiler").success());
    output
}
