//! Intervals that are long in one way or another: more is read than a journal holds, more of a file changes than is worth
//! keeping, and children come and go in between.

mod place;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use place::Place;

#[test]
fn more_input_than_the_journal_holds() {
    let place = Place::new("input");
    // The second counts in a child, which has no commits.
    for program in [
        "import os\nn = 0\nwhile b := os.read(0, 65536): n += len(b)\nprint(n)",
        "import os\nif os.fork(): os.wait()\nelse:\n n = 0\n while b := os.read(0, 65536): n += len(b)\n print(n)",
    ] {
        let mut run = place
            .python(&[], program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = run.stdin.take().unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..300 {
            input.write_all(&chunk).unwrap();
        }
        drop(input);
        let out = run.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out.stdout),
            format!("{}\n", 300 << 20)
        );
    }
}

/// The kernel adds what a reaped child has read and written to the counts of its parent, which are what tells a
/// recovery how far a call under way had come.
#[test]
fn a_reaped_child_changes_nothing_for_its_parent() {
    let place = Place::new("child");
    let script = "while read line; do head -c 300000 /dev/zero | tail -c 5 > tail; echo \"got $line\"; done; echo end";
    let mut run = place
        .dcrun(&["--fresh", "--name", "t", "/bin/sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = run.stdin.take().unwrap();
    let mut output = BufReader::new(run.stdout.take().unwrap());
    for nth in 0..8 {
        writeln!(input, "line {nth}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("got line {nth}\n"));
        // It waits in the next read.
        std::thread::sleep(Duration::from_millis(60));
        assert!(place.kill_worker());
        std::thread::sleep(Duration::from_millis(60));
    }
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "end\n");
    assert!(run.wait().unwrap().success());
}

const CHANGES: &str = "
import os
fd = os.open('big', os.O_RDWR)
os.pwrite(fd, b'n' * 20_000_000, 3)
print(os.fstat(fd).st_size, flush=True)
os.write(fd, b'o' * 18_000_000)
print(os.lseek(fd, 0, 1), flush=True)
os.ftruncate(fd, 1000)
print(os.fstat(fd).st_size, os.pread(fd, 2, 0), flush=True)
open('other', 'wb').close()
with open('other', 'ab') as f: f.write(b'p' * 50)
print(os.stat('other').st_size, os.pread(fd, 2, 998), flush=True)
";

#[test]
fn changes_of_much_of_a_file_are_committed_around() {
    let place = Place::new("files");
    let mut crashes = 0;
    for fault in ["before-publish", "after-commit"] {
        for nth in 1..=16 {
            fs::write(place.0.join("big"), vec![b'a'; 40_000_000]).unwrap();
            fs::write(place.0.join("other"), vec![b'b'; 40_000_000]).unwrap();
            let out = place
                .python(&[], CHANGES)
                .env("DCRUN_FAULT", format!("{fault}:{nth}"))
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&out.stdout).into_owned();
            assert_eq!(
                told,
                "40000000\n18000000\n1000 b'oo'\n50 b'oo'\n",
                "{fault} {nth}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
            assert_eq!(fs::read(place.0.join("other")).unwrap(), vec![b'p'; 50]);
            assert_eq!(fs::read(place.0.join("big")).unwrap(), vec![b'o'; 1000]);
            let counted = place.stats();
            crashes += counted["recoveries"].as_u64().unwrap();
            let commits = counted["commits"].as_u64().unwrap();
            assert!(commits >= 8, "two for each of four changes: {commits}");
        }
    }
    assert!(crashes >= 16, "{crashes}");
}
