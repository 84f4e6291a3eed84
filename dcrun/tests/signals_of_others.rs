//! Signals that others send to dcrun, or to the group in which it is with its program: each
//! comes once, also if the program is dying just then.

mod place;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use place::Place;

const ROUNDS: usize = 10;

/// Tells of each signal, and is busy or waits.
const PROGRAM: &str = "
import os, signal, sys, time
n = 0
def handle(number, frame):
    global n
    n += 1
    os.write(1, b'%d is %d\\n' % (n, number))
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP): signal.signal(number, handle)
if HAS_CHILD and os.fork() == 0:
    os.setpgid(0, 0)
    while not os.path.exists('end'): time.sleep(0.02)
    os._exit(n)
os.write(1, b'ready\\n')
while not os.path.exists('end'):
    if WAITS: time.sleep(0.03)
    else: sum(range(3000))
if HAS_CHILD: os.write(1, b'child %d\\n' % os.wait()[1])
os.write(1, b'end\\n')
";

#[derive(Clone, Copy, PartialEq, Debug)]
enum Death {
    None,
    Before,
    Behind,
}

struct Run {
    place: Place,
    dcrun: Child,
}

impl Run {
    fn start(name: &str, waits: bool, has_child: bool) -> Run {
        let place = Place::new(name);
        let word = |holds| if holds { "True" } else { "False" };
        let program = PROGRAM.replace("WAITS", word(waits));
        let program = program.replace("HAS_CHILD", word(has_child));
        let out = File::create(place.0.join("out")).unwrap();
        let mut command = place.python(&[], &program);
        let dcrun = command.stdout(out).process_group(0).spawn().unwrap();
        let run = Run { place, dcrun };
        run.wait_for("ready");
        // So that there is a commit to go back to.
        sleep(Duration::from_millis(200));
        run
    }

    fn said(&self) -> String {
        fs::read_to_string(self.place.0.join("out")).unwrap()
    }

    fn wait_for(&self, word: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.said().contains(word) {
            assert!(Instant::now() < end, "no {word:?} in {:?}", self.said());
            sleep(Duration::from_millis(5));
        }
    }

    fn send(&self, signal: Signal, to_group: bool) {
        let pid = Pid::from_raw(self.dcrun.id() as i32);
        match to_group {
            true => killpg(pid, signal).unwrap(),
            false => kill(pid, signal).unwrap(),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.dcrun.kill();
        let _ = self.dcrun.wait();
    }
}

fn each_comes_once(name: &str, to_group: bool, waits: bool, has_child: bool) {
    let mut run = Run::start(name, waits, has_child);
    let (mut sent, mut deaths) = (0, 0);
    let mut want = "ready\n".to_owned();
    for round in 0..ROUNDS {
        let signal = [Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGHUP][round % 3];
        for death in [Death::None, Death::Before, Death::Behind] {
            let worker = run.place.worker().expect("a worker");
            let kill_worker = || place::kills(worker);
            let pause = Duration::from_micros([0, 0, 30, 300, 2000][round % 5]);
            if death == Death::Before {
                assert!(kill_worker());
                sleep(pause);
            }
            run.send(signal, to_group);
            if death == Death::Behind {
                sleep(pause);
                assert!(kill_worker());
            }
            deaths += usize::from(death != Death::None);
            sent += 1;
            want += &format!("{sent} is {}\n", signal as i32);
            run.wait_for(&want);
            // A second one would come now.
            sleep(Duration::from_millis(60));
            assert_eq!(run.said(), want, "round {round}, {signal}, {death:?}");
        }
    }
    fs::write(run.place.0.join("end"), "").unwrap();
    assert!(run.dcrun.wait().unwrap().success());
    want += if has_child { "child 0\n" } else { "" };
    assert_eq!(run.said(), want + "end\n");
    let recoveries = run.place.stats()["recoveries"].as_u64().unwrap();
    assert!(recoveries as usize >= deaths * 9 / 10, "{recoveries}");
}

#[test]
fn to_dcrun_while_the_program_waits() {
    each_comes_once("alone-waits", false, true, false);
}

#[test]
fn to_dcrun_while_the_program_is_busy() {
    each_comes_once("alone-busy", false, false, false);
}

#[test]
fn to_the_group_while_the_program_waits() {
    each_comes_once("group-waits", true, true, false);
}

#[test]
fn to_the_group_while_the_program_is_busy() {
    each_comes_once("group-busy", true, false, false);
}

/// Not to a child with a group of its own, which dies and comes back with its parent.
#[test]
fn to_dcrun_while_the_program_has_a_child() {
    each_comes_once("alone-child", false, true, true);
}

/// What sigqueue(3) sends along comes along.
#[test]
fn what_is_sent_along_comes_along() {
    let place = Place::new("queued");
    let program = "
import ctypes, os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGRTMIN])
os.write(1, b'ready\\n')
info = ctypes.create_string_buffer(128)
sets = ctypes.create_string_buffer(128)
libc = ctypes.CDLL(None)
for number in (signal.SIGUSR1, signal.SIGRTMIN): libc.sigaddset(sets, int(number))
for _ in range(2):
    libc.sigwaitinfo(sets, info)
    os.write(1, b'value %d\\n' % int.from_bytes(info.raw[24:28], 'little'))
";
    let out = File::create(place.0.join("out")).unwrap();
    let dcrun = place.python(&[], program).stdout(out).spawn().unwrap();
    let mut run = Run { place, dcrun };
    run.wait_for("ready");
    for (signal, value) in [("USR1", "77"), ("RTMIN", "88")] {
        let pid = run.dcrun.id().to_string();
        let sent = Command::new("/bin/kill")
            .args(["--signal", signal, "--queue", value, &pid])
            .status();
        assert!(sent.unwrap().success());
        sleep(Duration::from_millis(100));
    }
    assert!(run.dcrun.wait().unwrap().success());
    assert_eq!(run.said(), "ready\nvalue 77\nvalue 88\n");
}
