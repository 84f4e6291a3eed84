//! Files, locks and peers that somebody else has to do with as well.

mod place;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use place::Place;

fn begin(place: &Place, program: &str) -> Child {
    place.begin(program, Stdio::piped())
}

fn append(place: &Place, name: &str, text: &str) {
    let file = OpenOptions::new().append(true).open(place.0.join(name));
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

fn contents(place: &Place, name: &str) -> String {
    fs::read_to_string(place.0.join(name)).unwrap_or_default()
}

fn resumed(place: &Place, keep: &str) -> Output {
    place
        .dcrun(&["resume", "t", "--keep", keep])
        .output()
        .unwrap()
}

/// Writes to a log that stays open, and is busy. (A wait that lasts is committed, and then
/// nothing of before is undone.)
const WRITER: &str = r#"
import os
def work():
    for _ in range(40000000): pass
f = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.getrandom(4); print("ready", flush=True)
os.write(f, b"ours 1\n"); work(); os.write(f, b"ours 2\n"); print("end", flush=True)
"#;

fn stopped_at_the_log(name: &str) -> Place {
    let place = Place::new(name);
    let child = begin(&place, WRITER);
    append(&place, "log", "THEIRS\n");
    assert!(place.kill_worker());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{told}");
    assert!(told.contains("/log: bytes 7 to 14"), "{told}");
    assert!(
        told.contains("--keep theirs") && told.contains("--keep ours"),
        "{told}"
    );
    assert_eq!(contents(&place, "log"), "ours 1\nTHEIRS\n");
    place
}

#[test]
fn what_others_appended_stays_and_the_run_says_where() {
    let place = stopped_at_the_log("theirs");
    let output = resumed(&place, "theirs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(contents(&place, "log"), "ours 1\nTHEIRS\nours 1\nours 2\n");
}

#[test]
fn ours_is_undone_all_the_same_if_the_user_says_so() {
    let place = stopped_at_the_log("ours");
    let output = resumed(&place, "ours");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(contents(&place, "log"), "ours 1\nours 2\n");
}

#[test]
fn what_others_overwrote_stays() {
    let place = Place::new("overwritten");
    fs::write(place.0.join("log"), "0123456789").unwrap();
    let program = WRITER.replace(" | os.O_APPEND", "");
    let child = begin(&place, &program);
    assert_eq!(contents(&place, "log"), "ours 1\n789");
    fs::write(place.0.join("other"), "").unwrap();
    let mut theirs = OpenOptions::new()
        .write(true)
        .open(place.0.join("log"))
        .unwrap();
    theirs.write_all(b"XX").unwrap();
    assert!(place.kill_worker());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("bytes 0 to 7"), "{told}");
    assert_eq!(contents(&place, "log"), "XXrs 1\n789");
}

#[test]
fn what_was_closed_is_not_undone_under_others() {
    let place = Place::new("closed");
    let program = WRITER.replace(
        r#"os.write(f, b"ours 1\n"); work"#,
        r#"os.write(f, b"ours 1\n"); os.close(f); work"#,
    );
    let program = program.replace(
        r#"os.write(f, b"ours 2\n")"#,
        r#"os.write(os.open("log", os.O_WRONLY | os.O_APPEND), b"ours 2\n")"#,
    );
    let child = begin(&place, &program);
    append(&place, "log", "THEIRS\n");
    assert!(place.kill_worker());
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(contents(&place, "log"), "ours 1\nTHEIRS\nours 2\n");
}

/// Whether somebody else finds a lock held.
fn is_held(place: &Place, call: &str) -> bool {
    let probe = format!(
        "import fcntl, sys\nf = open('lock', 'r+')\ntry: fcntl.{call}(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\nexcept OSError: sys.exit(9)"
    );
    let status = Command::new("/usr/bin/python3")
        .args(["-c", &probe])
        .current_dir(&place.0)
        .status();
    status.unwrap().code() == Some(9)
}

fn a_lock_is_held_over_a_death(name: &str, call: &str) {
    let place = Place::new(name);
    fs::write(place.0.join("lock"), "0123456789").unwrap();
    let program = format!(
        "import fcntl, os, time\nf = open('lock', 'r+'); fcntl.{call}(f, fcntl.LOCK_EX)\n\
         w = os.open('lock', os.O_WRONLY)\nos.getrandom(4); print('ready', flush=True)\n\
         os.pwrite(w, b'abc', 0); time.sleep(1.5)\n"
    );
    let child = begin(&place, &program);
    assert!(is_held(&place, call), "before the death");
    assert!(place.kill_worker());
    sleep(Duration::from_millis(300));
    assert!(is_held(&place, call), "after the death");
    assert!(child.wait_with_output().unwrap().status.success());
    assert!(!is_held(&place, call), "after the end");
}

#[test]
fn a_flock_is_held_over_a_death() {
    a_lock_is_held_over_a_death("flock", "flock");
}

#[test]
fn a_posix_lock_is_held_over_a_death() {
    a_lock_is_held_over_a_death("posix", "lockf");
}

#[test]
fn each_message_of_sendmmsg_goes_once_whatever_the_death_chooses() {
    let place = Place::new("messages");
    let source = place.0.join("send.c");
    fs::write(
        &source,
        r#"#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
int main(int c, char **v) {
    int s = socket(AF_INET, SOCK_DGRAM, 0), port = 0; char luck; sscanf(v[c - 1], "%d", &port);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(0x7f000001)}};
    struct iovec part[3] = {{"a", 1}, {"bb", 2}, {0, 0}};
    struct mmsghdr m[3] = {};
    getrandom(&luck, 1, 0);
    for (int i = 0; i < 3; i++) m[i].msg_hdr = (struct msghdr){&to, sizeof to, &part[i], 1, 0, 0, 0};
    return sendmmsg(s, m, 3, 0) == 3 && m[1].msg_len == 2 ? 0 : 1;
}"#,
    )
    .unwrap();
    let program = place.0.join("send");
    let built = Command::new("gcc")
        .arg("-o")
        .args([&program, &source])
        .status();
    assert!(built.unwrap().success());
    for fault in [
        "after-visible:1",
        "after-visible:2",
        "after-visible:3",
        "before-publish:2",
    ] {
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_nonblocking(true).unwrap();
        let port = peer.local_addr().unwrap().port().to_string();
        let run = place
            .dcrun(&["run", "--fresh", "--name", "t", "./send", &port])
            .env("DCRUN_FAULT", fault)
            .output()
            .unwrap();
        assert!(run.status.success(), "{fault}: {run:?}");
        let mut came = Vec::new();
        let mut bytes = [0; 8];
        while let Ok(n) = peer.recv(&mut bytes) {
            came.push(n);
        }
        assert_eq!(came, [1, 2, 0], "{fault}");
    }
}

/// Stores into a mapped file, after which it is busy, uncommitted.
const STORER: &str = r#"
import mmap, os
f = os.open("map", os.O_RDWR); m = mmap.mmap(f, 4096)
os.getrandom(4); print("ready", flush=True)
m[0:4] = b"OURS"
for _ in range(20000000): pass
print(m[0:12], flush=True)
"#;

fn stored_and_all_killed(name: &str) -> Place {
    let place = Place::new(name);
    fs::write(place.0.join("map"), vec![b'.'; 4096]).unwrap();
    let mut child = begin(&place, STORER);
    assert!(contents(&place, "map").starts_with("OURS...."));
    let worker = place.worker().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    while place::kills(worker) {
        sleep(Duration::from_millis(5));
    }
    place
}

/// What others have put beside a store nobody can tell from the program's: it is not undone
/// under somebody who has the file open.
#[test]
fn stores_are_not_undone_under_others_when_all_had_died() {
    let place = stored_and_all_killed("stored-others");
    let mut theirs = OpenOptions::new()
        .read(true)
        .write(true)
        .open(place.0.join("map"))
        .unwrap();
    std::io::Seek::seek(&mut theirs, std::io::SeekFrom::Start(4)).unwrap();
    theirs.write_all(b"THEIRS").unwrap();
    let output = place.dcrun(&["resume", "t"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{told}");
    assert!(
        told.contains("/map, which is mapped: somebody else has changed it since"),
        "{told}"
    );
    assert!(contents(&place, "map").starts_with("OURSTHEIRS.."));
    assert!(resumed(&place, "theirs").status.success());
    assert!(contents(&place, "map").starts_with("OURSTHEIRS.."));
}

#[test]
fn stores_are_undone_where_nobody_else_has_the_file() {
    let place = stored_and_all_killed("stored-alone");
    let output = place.dcrun(&["resume", "t"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("OURS........"), "{output:?}");
}

/// Writes to a log that stays open, and is busy; in a directory below.
const LOGGER: &str = r#"
import os
os.chdir("work")
f = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT); os.write(f, b"first\n")
os.getrandom(4); print("ready", flush=True)
os.write(f, b"ours\n")
for _ in range(1 if os.path.exists("../go") else 60000000): pass
os.getrandom(4); os.write(f, b"last\n"); print("end", flush=True)
"#;

/// Others rename something while the program lives, and it dies with what it has written not
/// committed.
fn renamed_by_others(name: &str, all: bool, rename: [&str; 2]) -> (Place, Output) {
    let place = Place::new(name);
    fs::create_dir(place.0.join("work")).unwrap();
    let mut child = begin(&place, LOGGER);
    let [from, to] = rename.map(|name| place.0.join(name));
    fs::rename(&from, &to).unwrap();
    if !to.is_dir() {
        fs::write(&from, "THEIRS\n").unwrap();
    }
    let worker = place.worker().unwrap();
    if all {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    while place::kills(worker) && all {
        sleep(Duration::from_millis(5));
    }
    fs::write(place.0.join("go"), "").unwrap();
    let output = match all {
        true => place.dcrun(&["resume", "t"]).output().unwrap(),
        false => child.wait_with_output().unwrap(),
    };
    (place, output)
}

#[test]
fn a_log_that_others_rotate_has_each_line_once() {
    for all in [false, true] {
        let name = format!("rotated-{all}");
        let (place, output) = renamed_by_others(&name, all, ["work/log", "work/log.1"]);
        assert!(output.status.success(), "{name}: {output:?}");
        assert_eq!(
            contents(&place, "work/log.1"),
            "first\nours\nlast\n",
            "{name}"
        );
        assert_eq!(contents(&place, "work/log"), "THEIRS\n", "{name}");
    }
}

#[test]
fn a_directory_that_others_move_is_found() {
    for all in [false, true] {
        let name = format!("moved-{all}");
        let (place, output) = renamed_by_others(&name, all, ["work", "old"]);
        assert!(output.status.success(), "{name}: {output:?}");
        assert_eq!(contents(&place, "old/log"), "first\nours\nlast\n", "{name}");
    }
}
