//! Programs of every make come to the runtime by a jump, not by a trap that costs ten times as much: `dcrun stats` counts
//! both, and a site traps once.

mod place;

use place::Place;
use serde_json::Value;
use std::fs;
use std::process::Command;

const CALLS: u64 = 4000;
/// Sites are many at the start of a program, each once.
const TRAPS: u64 = 200;

const DIRECT: &str = "#include <unistd.h>\n#include <sys/syscall.h>\n\
    int main(void) { for (int i = 0; i < 4000; i++) syscall(SYS_getppid); return 0; }\n";

const READS: &str = "#include <fcntl.h>\n#include <unistd.h>\n\
    int main(void) { char b; int f = open(\"/dev/zero\", O_RDONLY);\
    for (int i = 0; i < 4000; i++) if (read(f, &b, 1) != 1) return 1; return 0; }\n";

const GO: &str = "package main\n\nimport \"os\"\n\nfunc main() {\n\tfile, err := os.Open(\"/dev/zero\")\n\
    \tif err != nil {\n\t\tos.Exit(1)\n\t}\n\tbyte := make([]byte, 1)\n\
    \tfor i := 0; i < 4000; i++ {\n\t\tfile.Read(byte)\n\t}\n}\n";

fn traps_once(name: &str, source: &str, text: &str, compiler: &[&str]) {
    let place = Place::new(name);
    fs::write(place.0.join(source), text).unwrap();
    let built = Command::new(compiler[0])
        .args(&compiler[1..])
        .args(["-o", "program", source])
        .current_dir(&place.0)
        .env("GOCACHE", place.0.join("cache"))
        .env("GO111MODULE", "off")
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "{name}: {} does not build it",
        compiler[0]
    );
    let run = place
        .dcrun(&["--fresh", "--name", "t", "./program"])
        .status()
        .unwrap();
    assert!(run.success(), "{name}: {run}");
    let stats = place.dcrun(&["stats", "t", "--json"]).output().unwrap();
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    let [calls, traps] =
        ["calls", "calls_trapped"].map(|counter| stats[counter].as_u64().unwrap_or_default());
    assert!(
        calls >= CALLS && traps <= TRAPS,
        "{name}: of {calls} calls {traps} trapped"
    );
}

#[test]
fn syscall_of_glibc_traps_once() {
    traps_once("direct", "direct.c", DIRECT, &["gcc", "-O1"]);
}

#[test]
fn read_of_glibc_traps_once() {
    traps_once("glibc", "reads.c", READS, &["gcc", "-O1"]);
}

#[test]
fn read_of_musl_traps_once() {
    traps_once("musl", "reads.c", READS, &["musl-gcc", "-O1", "-static"]);
}

#[test]
fn read_of_go_traps_once() {
    traps_once("go", "reads.go", GO, &["go", "build"]);
}
