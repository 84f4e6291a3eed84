//! A process is killed with all that holds its descriptors, so that the others see its end before the keeper is told: nothing of
//! that is ever committed.

mod place;

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::{Place, kills};

/// The parent prints at once what it sees of its child's end, and asks it to end afterwards.
const PROGRAM: &str = r#"
import os, select, socket, time
way = "WAY"
if way == "pipe":
    there, here = os.pipe()
    again, ask = os.pipe()
else:
    one, other = socket.socketpair()
    there, here, again, ask = one.fileno(), other.fileno(), other.fileno(), one.fileno()
child = os.fork()
if child == 0:
    for end in {there, ask}:
        os.close(end)
    os.write(here, b"here")
    os.read(again, 1)
    os.write(here, b"bye")
    os._exit(3)
for end in {here, again}:
    os.close(end)
print(os.read(there, 4), flush=True)
# (The child sleeps by now, and no commit needs it.)
for word in "and", "ready":
    time.sleep(0.2)
    print(word, flush=True)
poll = select.poll()
poll.register(there, select.POLLIN)
while not poll.poll(20):
    if os.path.exists("go"):
        os.write(ask, b"x")
        os.unlink("go")
print("it says", os.read(there, 3), flush=True)
print(os.waitpid(child, 0)[1] >> 8, flush=True)
"#;

const READY: &str = "b'here'\nand\nready\n";

#[test]
fn the_end_of_a_pipe() {
    dies_unseen("pipe");
}

#[test]
fn the_end_of_a_socket() {
    dies_unseen("socket");
}

fn dies_unseen(way: &str) {
    let place = Place::new(&format!("seen-dead-{way}"));
    let mut run = place.begin(&PROGRAM.replace("WAY", way), Stdio::null());
    let keeper = Pid::from_raw(run.id() as i32);
    let parent = place.worker().unwrap();
    kill(keeper, Signal::SIGSTOP).unwrap();
    let others: Vec<Pid> = children_of(keeper).filter(|&pid| pid != parent).collect();
    assert_eq!(others.len(), 3, "a child, and two that hold memory");
    for &other in &others {
        kills(other);
    }
    // Time enough to see it, and to say so.
    sleep(Duration::from_millis(500));
    assert_eq!(
        place.said(),
        READY,
        "the end of a process that lives was seen"
    );
    kill(keeper, Signal::SIGCONT).unwrap();
    fs::write(place.0.join("go"), "").unwrap();
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = run.try_wait().unwrap() {
            break ended;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it hangs");
        sleep(Duration::from_millis(10));
    };
    assert_eq!(place.said(), format!("{READY}it says b'bye'\n3\n"));
    assert_eq!(ended.code(), Some(0));
}

fn children_of(keeper: Pid) -> impl Iterator<Item = Pid> {
    let is_child = move |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' '));
        fields.and_then(|mut fields| fields.nth(1)) == Some(&keeper.to_string())
    };
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(is_child).map(Pid::from_raw)
}
