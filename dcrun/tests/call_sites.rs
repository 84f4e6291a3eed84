//! Programs of every make come to the runtime by a jump, not by a trap that costs ten times as much: `dcrun stats` counts
//! both, and a site traps once.

mod place;

use nix::unistd::Pid;
use place::Place;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

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

/// For each line that it is given it calls from another site, a hundred times.
const SITES: &str = "#include <stdio.h>\n\
    #define SITE case __COUNTER__: __asm__ volatile(\"mov $110, %%eax\\n syscall\" : \"=a\"(r) :: \"rcx\", \"r11\"); break;\n\
    #define FOUR SITE SITE SITE SITE\n\
    #define FORTY FOUR FOUR FOUR FOUR FOUR FOUR FOUR FOUR FOUR FOUR\n\
    int main(void) { char line[16]; int r, site;\
    for (site = 0; fgets(line, sizeof line, stdin); site++) {\
    for (int i = 0; i < 100; i++) switch (site) { FORTY FORTY FORTY }\
    puts(line); fflush(stdout); } return 0; }\n";

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
    let (calls, traps) = counted(&place);
    assert!(
        calls >= CALLS && traps <= TRAPS,
        "{name}: of {calls} calls {traps} trapped"
    );
}

fn counted(place: &Place) -> (u64, u64) {
    let stats = place.stats();
    let counter = |name: &str| stats[name].as_u64().unwrap_or_default();
    (counter("calls"), counter("calls_trapped"))
}

/// What is writable and executable.
fn stub_bytes(worker: Pid) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{worker}/maps")).unwrap();
    let stubs = maps.lines().filter(|line| line.contains("rwxp"));
    let lengths = stubs.filter_map(|line| {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        Some(to - from)
    });
    lengths.sum()
}

/// A recovery finds the stubs of before, and goes on behind them.
#[test]
fn every_site_traps_once_through_many_recoveries() {
    const SITES_USED: u64 = 120;
    let place = Place::new("sites");
    fs::write(place.0.join("sites.c"), SITES).unwrap();
    let mut built = Command::new("gcc");
    built.args(["-O1", "-o", "program", "sites.c"]);
    assert!(built.current_dir(&place.0).status().unwrap().success());
    let mut run = place
        .dcrun(&["--fresh", "--name", "t", "./program"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = run.stdin.take().unwrap();
    let mut output = BufReader::new(run.stdout.take().unwrap());
    for site in 0..SITES_USED {
        writeln!(input, "{site}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{site}\n"));
        output.read_line(&mut line).unwrap();
        assert!(place.kill_worker(), "site {site}");
    }
    let stubs = place.worker().map(stub_bytes);
    assert!(stubs.is_some_and(|bytes| bytes <= 256 << 10), "{stubs:?}");
    drop(input);
    assert!(run.wait().unwrap().success());
    let (calls, traps) = counted(&place);
    assert!(
        calls >= SITES_USED * 100 && traps <= TRAPS + SITES_USED,
        "of {calls} calls {traps} trapped"
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
