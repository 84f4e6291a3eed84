//! What others do while they have the lock of a program that has died, keeper and all; and
//! what they do when it has given one back.

mod place;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use place::Place;

/// Begins a program, and kills it with its keeper when it has been `ready` for a while.
fn killed(place: &Place, program: &str) {
    let mut child = place.begin(program, Stdio::piped());
    sleep(Duration::from_millis(300));
    let worker = place.worker().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    while place::kills(worker) {
        sleep(Duration::from_millis(5));
    }
}

fn resumed(place: &Place, keep: &[&str]) -> Output {
    let args = [&["resume", "t"], keep].concat();
    place.dcrun(&args).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn python(place: &Place, program: &str) -> Child {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", program]).current_dir(&place.0);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

fn wait_for(place: &Place, name: &str) {
    let begun = Instant::now();
    while !place.0.join(name).exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{name}");
        sleep(Duration::from_millis(10));
    }
}

/// Is in the middle of a transaction when it is killed; parts of it are in the log already.
const TRANSACTION: &str = r#"
import sqlite3, os
c = sqlite3.connect("d.db", isolation_level=None, timeout=20)
c.execute("pragma cache_size=5"); c.execute("pragma cache_spill=5")
c.execute("begin immediate")
for i in range(200): c.execute("insert into t values('ours'||?)", ("x" * 900,))
os.getrandom(4); print("ready", flush=True)
for i in range(200): c.execute("insert into t values('ours'||?)", ("y" * 900,))
for i in range(1 if os.path.exists("go") else 90000000): pass
c.execute("commit")
os.getrandom(4); print("end", flush=True)
"#;

/// Has the database open all the time, and writes into it when it is told to.
const OTHER: &str = r#"
import sqlite3, os, time
c = sqlite3.connect("d.db", isolation_level=None, timeout=20); c.execute("select * from t").fetchall()
open("open", "w").close()
while not os.path.exists("write"): time.sleep(.02)
for i in range(3): c.execute("insert into t values('THEIRS')")
open("wrote", "w").close()
if os.path.exists("die"): os.kill(os.getpid(), 9)
while not os.path.exists("over"): time.sleep(.02)
"#;

const LOOK: &str = r#"
import sqlite3
c = sqlite3.connect("d.db", timeout=20)
print(c.execute("pragma integrity_check").fetchall(), c.execute("select count(*) from t where who = 'THEIRS'").fetchall())
"#;

/// The other one's rows are there, whatever it and the user do.
fn a_transaction_and_another_writer(name: &str, mode: &str, dies: bool) {
    let place = Place::new(name);
    let made = format!(
        "import sqlite3; c = sqlite3.connect('d.db'); c.execute('pragma journal_mode={mode}'); c.execute('create table t(who text)')"
    );
    assert!(python(&place, &made).wait().unwrap().success());
    let mut other = python(&place, OTHER);
    wait_for(&place, "open");
    killed(&place, TRANSACTION);
    if dies {
        fs::write(place.0.join("die"), "").unwrap();
    }
    fs::write(place.0.join("write"), "").unwrap();
    wait_for(&place, "wrote");
    fs::write(place.0.join("go"), "").unwrap();
    for keep in [&[] as &[&str], &["--keep", "theirs"]] {
        let output = resumed(&place, keep);
        assert_eq!(output.status.code(), Some(125), "{}", told(&output));
        let whole = python(&place, LOOK).wait_with_output().unwrap();
        let whole = String::from_utf8_lossy(&whole.stdout).into_owned();
        assert_eq!(whole, "[('ok',)] [(3,)]\n", "{}", told(&output));
    }
    fs::write(place.0.join("over"), "").unwrap();
    other.wait().unwrap();
}

#[test]
fn rows_of_others_stay_in_a_write_ahead_log() {
    a_transaction_and_another_writer("wal", "wal", false);
}

#[test]
fn rows_of_others_who_have_gone_stay_in_a_write_ahead_log() {
    a_transaction_and_another_writer("wal-gone", "wal", true);
}

#[test]
fn rows_of_others_stay_beside_a_rollback_journal() {
    a_transaction_and_another_writer("journal", "persist", false);
}

/// Has a lock at its last commit, and goes on inside of it.
const INSIDE: &str = r#"
import fcntl, os
l = open("lock", "w"); fcntl.CALL(l, fcntl.LOCK_EX)
f = os.open("data", os.O_RDWR); n = os.pread(f, 4, 0)
os.getrandom(4); print("ready", flush=True)
for i in range(1 if os.path.exists("go") else 90000000): pass
os.pwrite(f, b"%04d" % (int(n) + 1), 0)
print("end", flush=True)
"#;

fn inside_a_lock(name: &str, call: &str, theirs: Option<&str>) -> (Place, Output) {
    let place = Place::new(name);
    fs::write(place.0.join("data"), "0041").unwrap();
    killed(&place, &INSIDE.replace("CALL", call));
    if let Some(theirs) = theirs {
        let mut data = OpenOptions::new()
            .write(true)
            .open(place.0.join("data"))
            .unwrap();
        data.write_all(theirs.as_bytes()).unwrap();
    }
    fs::write(place.0.join("go"), "").unwrap();
    let output = resumed(&place, &["--keep", "theirs"]);
    (place, output)
}

fn data(place: &Place) -> String {
    fs::read_to_string(place.0.join("data")).unwrap()
}

#[test]
fn nobody_goes_on_inside_of_a_lock_that_others_have_had() {
    for call in ["flock", "lockf"] {
        let (place, output) = inside_a_lock(&format!("inside-{call}"), call, Some("0099"));
        let told = told(&output);
        assert_eq!(output.status.code(), Some(125), "{told}");
        assert!(
            told.contains("inside of the lock on") && told.contains("/data since"),
            "{told}"
        );
        assert!(told.contains("--keep ours"), "{told}");
        assert_eq!(data(&place), "0099");
        assert!(resumed(&place, &["--keep", "ours"]).status.success());
        assert_eq!(data(&place), "0042");
    }
}

/// Has the lock already when the run is resumed, and changes something while that waits.
const STILL_INSIDE: &str = r#"
import fcntl, os, time
l = open("lock", "r+"); fcntl.CALL(l, fcntl.LOCK_EX)
open("has", "w").close()
time.sleep(0.7)
os.pwrite(os.open("data", os.O_RDWR), b"0099", 0)
"#;

#[test]
fn nobody_goes_on_inside_of_a_lock_that_others_still_have() {
    for call in ["flock", "lockf"] {
        let place = Place::new(&format!("still-{call}"));
        fs::write(place.0.join("data"), "0041").unwrap();
        killed(&place, &INSIDE.replace("CALL", call));
        let mut other = python(&place, &STILL_INSIDE.replace("CALL", call));
        wait_for(&place, "has");
        fs::write(place.0.join("go"), "").unwrap();
        let output = resumed(&place, &[]);
        let told = told(&output);
        assert!(other.wait().unwrap().success());
        assert_eq!(data(&place), "0099", "{call}: {told}");
        assert_eq!(output.status.code(), Some(125), "{told}");
        assert!(told.contains("inside of the lock on"), "{told}");
    }
}

#[test]
fn where_nobody_had_the_lock_a_program_goes_on_inside_of_it() {
    for call in ["flock", "lockf"] {
        let (place, output) = inside_a_lock(&format!("alone-{call}"), call, None);
        assert!(output.status.success(), "{}", told(&output));
        assert_eq!(data(&place), "0042");
    }
}

/// Has written since its last commit, inside of a lock that it had then already.
#[test]
fn its_own_changes_inside_of_a_lock_are_not_those_of_others() {
    let program = INSIDE
        .replace("CALL", "flock")
        .replace("for i in", "os.pwrite(f, b'....', 8)\nfor i in");
    for theirs in [false, true] {
        let place = Place::new(&format!("own-{theirs}"));
        fs::write(place.0.join("data"), "0041............").unwrap();
        killed(&place, &program);
        if theirs {
            // Elsewhere than the program.
            let mut data = OpenOptions::new()
                .write(true)
                .open(place.0.join("data"))
                .unwrap();
            data.write_all(b"0099").unwrap();
        }
        fs::write(place.0.join("go"), "").unwrap();
        let output = resumed(&place, &[]);
        assert_eq!(output.status.success(), !theirs, "{}", told(&output));
        assert_eq!(&data(&place)[..4], if theirs { "0099" } else { "0042" });
    }
}

/// Stores into a mapped file, and is busy. (See also files_of_others.rs.)
const STORER: &str = r#"
import mmap, os
f = os.open("data", os.O_RDWR); m = mmap.mmap(f, 4096)
os.getrandom(4); print("ready", flush=True)
m[0:4] = b"OURS"
for i in range(1 if os.path.exists("go") else 90000000): pass
print(m[0:12], flush=True)
"#;

#[test]
fn stores_are_not_undone_over_those_who_came_and_went() {
    for by_mapping in [false, true] {
        let place = Place::new(&format!("went-{by_mapping}"));
        fs::write(place.0.join("data"), vec![b'.'; 4096]).unwrap();
        killed(&place, STORER);
        let theirs = match by_mapping {
            true => {
                "import mmap, os; m = mmap.mmap(os.open('data', os.O_RDWR), 4096); m[4:10] = b'THEIRS'"
            }
            false => "import os; os.pwrite(os.open('data', os.O_RDWR), b'THEIRS', 4)",
        };
        assert!(python(&place, theirs).wait().unwrap().success());
        fs::write(place.0.join("go"), "").unwrap();
        let output = resumed(&place, &[]);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(125), "{by_mapping}: {told}");
        assert!(
            told.contains("somebody else has changed it since"),
            "{told}"
        );
        assert_eq!(&data(&place)[..10], "OURSTHEIRS");
    }
}

/// As `STORER`, and then a child that it forks stores into the same page.
const FORKED_STORER: &str = r#"
import mmap, os, time
f = os.open("data", os.O_RDWR); m = mmap.mmap(f, 4096)
os.getrandom(4); print("ready", flush=True)
m[0:4] = b"OURS"
time.sleep(0.05)
pid = os.fork()
m[4:8] = b"HERS" if pid == 0 else m[4:8]
for i in range(1 if os.path.exists("go") else 90000000): pass
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
print(m[0:12], flush=True)
"#;

#[test]
fn stores_of_a_child_are_not_those_of_others() {
    let place = Place::new("childs");
    fs::write(place.0.join("data"), vec![b'.'; 4096]).unwrap();
    killed(&place, FORKED_STORER);
    fs::write(place.0.join("go"), "").unwrap();
    let output = resumed(&place, &[]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(&data(&place)[..10], "OURSHERS..");
}

/// Gives a lock back that is a name, and is busy.
const BY_NAME: &str = r#"
import os
MAKE
os.getrandom(4); print("locked", flush=True)
while not os.path.exists("give"): pass
f = os.open("box", os.O_WRONLY | os.O_APPEND | os.O_CREAT); os.write(f, b"ours\n")
REMOVE
for i in range(30000000): pass
"#;

/// What a program did inside of such a lock stays, and the lock that another one has taken since
/// is not touched.
fn a_lock_that_is_a_name(name: &str, make: &str, remove: &str) {
    let place = Place::new(name);
    let program = BY_NAME.replace("MAKE", make).replace("REMOVE", remove);
    let output = fs::File::create(place.0.join("out")).unwrap();
    let mut command = place.python(&[], &program);
    let child = command
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let waits = |what: &str| {
        assert!(begun.elapsed() < Duration::from_secs(60), "{name}: {what}");
        sleep(Duration::from_millis(10));
    };
    while !place.said().contains("locked") {
        waits("not locked");
    }
    fs::write(place.0.join("give"), "").unwrap();
    while fs::symlink_metadata(place.0.join("box.lock")).is_ok() {
        waits("not given back");
    }
    sleep(Duration::from_millis(100));
    fs::write(place.0.join("box.lock"), "theirs").unwrap();
    let mut mail = OpenOptions::new()
        .append(true)
        .open(place.0.join("box"))
        .unwrap();
    mail.write_all(b"THEIRS\n").unwrap();
    assert!(place.kill_worker());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name}: {}", told(&output));
    assert!(told(&output).is_empty(), "{name}: {}", told(&output));
    let lock = fs::read_to_string(place.0.join("box.lock")).unwrap();
    let mail = fs::read_to_string(place.0.join("box")).unwrap();
    assert_eq!((&*lock, &*mail), ("theirs", "ours\nTHEIRS\n"), "{name}");
}

#[test]
fn locks_that_are_names_are_given_back_once() {
    let exclusive = "os.close(os.open('box.lock', os.O_CREAT | os.O_EXCL | os.O_WRONLY))";
    let linked = "os.close(os.open('own', os.O_CREAT | os.O_WRONLY)); os.link('own', 'box.lock'); os.unlink('own')";
    let unlink = "os.unlink('box.lock')";
    a_lock_that_is_a_name("exclusive", exclusive, unlink);
    a_lock_that_is_a_name("linked", linked, unlink);
    a_lock_that_is_a_name("directory", "os.mkdir('box.lock')", "os.rmdir('box.lock')");
    a_lock_that_is_a_name("symlink", "os.symlink('host:1', 'box.lock')", unlink);
    a_lock_that_is_a_name("renamed", exclusive, "os.rename('box.lock', 'box.done')");
}
