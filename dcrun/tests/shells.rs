//! What shells and their like do with ends, children and numbers of processes: nobody waits for ever, and a child of vfork leaves
//! its parent what is the parent's.

mod place;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use place::Place;

/// The output of a Python program, which must end in time.
fn plays(name: &str, program: &str) -> String {
    let place = Place::new(name);
    let mut run = place
        .python(&[], program)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while run.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(30) {
            let _ = place.dcrun(&["kill", "t"]).output();
            let _ = run.wait();
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    said(&run.wait_with_output().unwrap())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// As ksh closes the end of a coprocess: under a new number, the old ones have been closed before.
#[test]
fn the_last_number_of_an_end_is_closed() {
    let program = r#"
import os, socket, time
here, there = socket.socketpair()
here, there = here.detach(), there.detach()
child = os.fork()
if child == 0:
    os.close(here)
    os.write(there, b"x")
    while os.read(there, 100):
        pass
    os._exit(3)
os.close(there)
os.read(here, 1)
time.sleep(0.2)
print("begins", flush=True)
new = os.dup(here)
os.close(here)
os.close(new)
print(os.waitpid(child, 0)[1] >> 8)
"#;
    assert_eq!(plays("last-number", program), "begins\n3\n");
}

/// A child waits for what a close of its parent brings about, and the parent for the child.
#[test]
fn a_close_is_made_before_a_wait_for_a_child() {
    let program = r#"
import ctypes, os
libc = ctypes.CDLL(None)
IN_CLOSE_WRITE = 8
file = os.open("f", os.O_CREAT | os.O_WRONLY, 0o600)
child = os.fork()
if child == 0:
    os.close(file)
    watch = libc.inotify_init()
    libc.inotify_add_watch(watch, b"f", IN_CLOSE_WRITE)
    os.write(1, b"watches\n")
    os.kill(os.getppid(), 10)
    os.read(watch, 100)
    os._exit(4)
import signal
signal.sigwait({signal.SIGUSR1}) if not os.path.exists("ready") else None
os.close(file)
print(os.waitpid(child, 0)[1] >> 8)
"#;
    // (Blocked before the fork, or the signal could come before it is waited for.)
    let blocks = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n";
    assert_eq!(
        plays("close-and-wait", &format!("{blocks}{program}")),
        "watches\n4\n"
    );
}

/// As zsh asks for a child until there is none.
#[test]
fn a_process_that_was_waited_for_is_no_more() {
    let program = r#"
import os
found = 0
for _ in range(300):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    for ask in (lambda: os.kill(child, 0), lambda: os.getpgid(child), lambda: os.pidfd_open(child)):
        try:
            ask()
            found += 1
        except ProcessLookupError:
            pass
print(found)
"#;
    assert_eq!(plays("waited-for", program), "0\n");
}

/// dash makes its children by vfork. The run dies while one has yet to leave its parent's memory.
#[test]
fn a_shell_goes_on_behind_its_child_of_vfork() {
    const LINE: &str =
        "sh -c 'for i in 1 2 3 4; do echo $i; sleep 0.02; done; echo e' | cat; echo end";
    for count in 1..=8 {
        for _ in 0..2 {
            let place = Place::new("vfork");
            let run = place
                .dcrun(&["--fresh", "--name", "t", "/bin/sh", "-c", LINE])
                .env("DCRUN_FAULT", format!("before-publish:{count}"))
                .output()
                .unwrap();
            assert_eq!(said(&run), "1\n2\n3\n4\ne\nend\n", "before commit {count}");
            assert_eq!(run.status.code(), Some(0), "before commit {count}");
        }
    }
}

/// Files without a name that parent and child have, and close, and whose numbers are soon those of other such files (GNU
/// parallel): as long as one is open it has a second name, by which a cold recovery finds it.
#[test]
fn what_is_open_keeps_a_name() {
    const PROGRAM: &str = r#"
import os, socket, time
to_others = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
living = {}
def begin(i):
    ends = []
    for kind in "ab":
        name = f"tmp{i}{kind}"
        ends.append(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        ends.append(os.open(name, os.O_RDONLY))
        os.unlink(name)
    child = os.fork()
    if child == 0:
        os.close(ends[2])
        os.close(ends[3])
        for _ in range(12):
            time.sleep(0.003)
            to_others.sendto(b".", ("127.0.0.1", 9))
        os._exit(0)
    os.close(ends[2])
    os.close(ends[3])
    living[child] = ends[:2]
i = 0
while i < 100 or living:
    while i < 100 and len(living) < 4:
        begin(i)
        i += 1
    for end in living.pop(os.wait()[0]):
        os.close(end)
"#;
    let place = Place::new("keeps-a-name");
    let mut run = place.python(&[], PROGRAM).spawn().unwrap();
    let (mut seen, mut nameless) = (0, 0);
    while run.try_wait().unwrap().is_none() {
        for names in temporary_files(run.id()) {
            seen += 1;
            nameless += u32::from(names == 0);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(run.wait().unwrap().success());
    assert!(seen > 100, "{seen} descriptors were seen");
    // (A descriptor that a process closes as it ends may be met behind the name.)
    assert!(nameless < 8, "{nameless} of {seen} open files had no name");
}

/// How many names the files have that the processes of a run have open.
fn temporary_files(keeper: u32) -> Vec<u64> {
    let path = format!("/proc/{keeper}/task/{keeper}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let mut counts = Vec::new();
    for child in children.split_whitespace() {
        let Ok(entries) = fs::read_dir(format!("/proc/{child}/fd")) else {
            continue;
        };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            let is_one = fs::read_link(&path).is_ok_and(|to| {
                to.to_string_lossy().contains("/tmp") && to.to_string_lossy().ends_with("(deleted)")
            });
            if is_one && let Ok(file) = fs::metadata(&path) {
                counts.push(file.nlink());
            }
        }
    }
    counts
}
