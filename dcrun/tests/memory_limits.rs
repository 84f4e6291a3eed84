//! Limits of memory that dcrun is called under: the program is held to its soft limit, whatever the runtime needs; a hard
//! limit that leaves no room is an error that says so.

mod place;

use std::process::{Command, Output};

use place::Place;

/// Under `ulimit OPTION` in a shell.
fn under(name: &str, option: &str, program: &str) -> Output {
    let place = Place::new(name);
    let dcrun = env!("CARGO_BIN_EXE_dcrun");
    let line =
        format!("ulimit {option} && exec {dcrun} --fresh --name t /usr/bin/python3 -c '{program}'");
    Command::new("bash")
        .args(["-c", &line])
        .current_dir(&place.0)
        .env("DCRUN_STATE", place.0.join("state"))
        .output()
        .unwrap()
}

/// Has a limit, and less memory fits than it says.
fn asks(limit: &str, bytes: &str) -> String {
    format!(
        "import resource
print(resource.getrlimit(resource.{limit})[0])
small = bytearray(1 << 20)
try: bytearray({bytes}); print(\"not refused\")
except MemoryError: print(\"refused\")"
    )
}

#[test]
fn the_program_is_held_to_its_soft_limits() {
    for (name, option, limit) in [
        ("as", "-Sv 4000000", "RLIMIT_AS"),
        ("data", "-Sd 4000000", "RLIMIT_DATA"),
    ] {
        let out = under(name, option, &asks(limit, "4 << 30"));
        let said = String::from_utf8_lossy(&out.stdout);
        assert_eq!(
            said,
            "4096000000\nrefused\n",
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}

#[test]
fn a_hard_limit_without_room_is_named() {
    let out = under("hard", "-v 4000000", "print(1)");
    if out.status.success() {
        // Who may raise hard limits does so.
        assert_eq!(out.stdout, b"1\n");
        return;
    }
    assert_eq!(out.status.code(), Some(125));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        said.contains("hard limit of 4000000 KiB") && said.contains("ulimit -Hv"),
        "{said}"
    );
}
