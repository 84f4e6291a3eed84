//! The worker is killed in the middle of a recovery after the death of all: what was not made again yet cannot be taken over.

mod place;

use std::fs::File;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use place::Place;

/// What lies in a pipe, and where a file is read, are of before the death.
const PROGRAM: &str = r#"
import os, time
there, here = os.pipe()
data = open("data", "w+")
data.write("one\ntwo\n"); data.flush(); data.seek(4)
os.write(here, b"in the pipe")
print("ready", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
print(os.read(there, 100), data.read())
"#;

/// A child has the pipe too.
const TREE: &str = r#"
import os, time
there, here = os.pipe()
data = open("data", "w+")
data.write("one\ntwo\n"); data.flush(); data.seek(4)
os.write(here, b"in the pipe")
child = os.fork()
if child == 0:
    while not os.path.exists("go"):
        time.sleep(0.01)
    os.write(here, b", and more")
    os._exit(3)
print("ready", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
print(os.waitpid(child, 0)[1] >> 8, os.read(there, 100), data.read())
"#;

#[test]
fn it_begins_again_as_cold_as_before() {
    interrupted("one", PROGRAM, "b'in the pipe' two\n\n");
    interrupted("tree", TREE, "3 b'in the pipe, and more' two\n\n");
}

fn interrupted(name: &str, program: &str, expected: &str) {
    let place = Place::new(&format!("interrupted-{name}"));
    let mut run = place.begin(program, Stdio::null());
    let worker = place.worker().unwrap();
    run.kill().unwrap();
    place::kills(worker);
    run.wait().unwrap();
    std::fs::write(place.0.join("go"), "").unwrap();
    let out = place.0.join("resumed");
    let mut resumed = place.dcrun(&["resume", "-v", "t"]);
    resumed
        .env("DCRUN_FAULT", "in-recovery")
        .stdin(Stdio::null());
    resumed.stdout(File::create(&out).unwrap());
    let mut resumed = resumed.stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while resumed.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it hangs");
        sleep(Duration::from_millis(10));
    }
    let ended = resumed.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        said.contains("died by SIGKILL"),
        "no worker was killed: {said}"
    );
    let printed = std::fs::read_to_string(&out).unwrap();
    assert_eq!(printed, expected, "{said}");
    assert_eq!(ended.status.code(), Some(0), "{said}");
}
