//! A program that runs again from its last commit has first to catch up with the output that was seen of it. What comes
//! from outside meanwhile, the clock of `--interval`, signals, other threads, must not make it repeat any.

mod place;

use std::io::Read;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Instant;

use place::Place;

/// What a program writes while its worker is killed again and again, and how often it was: a dozen times, be the
/// machine slow or fast, for a run that nobody kills has said how long it takes.
fn killed(name: &str, options: &[&str], program: &str) -> (String, u32) {
    let place = Place::new(name);
    let begin = Instant::now();
    let alone = place.python(options, program).output().unwrap();
    assert!(alone.status.success(), "{}", alone.status);
    let gap = begin.elapsed() / 12;
    let mut run = place
        .python(options, program)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = run.stdout.take().unwrap();
    let (done, seen) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        done.send(()).unwrap();
        text
    });
    let mut kills = 0;
    // Never twice at the same distance from a recovery: between 0.6 and 1.4 of the gap.
    let wait = |kills: u32| gap * (60 + kills * 17 % 80) / 100;
    while seen.recv_timeout(wait(kills)).is_err() {
        if kills < 30 && place.kill_worker() {
            kills += 1;
        }
    }
    let status = run.wait().unwrap();
    let text = reader.join().unwrap();
    assert!(status.success(), "{status} after {kills} kills: {text}");
    (text, kills)
}

/// The lines of one writer, in order, each once.
fn lines(text: &str, writer: &str) -> Vec<usize> {
    text.lines()
        .filter_map(|line| line.strip_prefix(writer)?.trim().parse().ok())
        .collect()
}

/// Computes for some milliseconds between two lines, and nothing that is chance.
const COMPUTES: &str = "
import os
for i in range(150):
    for j in range(3): sum(k * k for k in range(30000)); os.write(1, b'' if j else b'a%d\\n' % i)
";

#[test]
fn the_clock_waits_until_output_is_met_again() {
    // A tick has to fall into the time that it takes to catch up.
    for ms in ["7", "23", "37"] {
        let (text, kills) = killed(&format!("clock-{ms}"), &["--interval", ms], COMPUTES);
        assert!(kills > 5, "{kills} kills");
        assert_eq!(lines(&text, "a"), (0..150).collect::<Vec<_>>(), "{text}");
    }
}

#[test]
fn signals_wait_until_output_is_met_again() {
    let handler = "
import signal
signal.signal(signal.SIGALRM, lambda *_: os.write(1, b'tick\\n'))
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
for i in range(150):";
    // At its end Python gives signals back to the kernel, which would kill it.
    let quiet = "signal.setitimer(signal.ITIMER_REAL, 0)\n";
    let program = COMPUTES.replace("\nfor i in range(150):", handler) + quiet;
    let (text, kills) = killed("signals", &[], &program);
    assert!(kills > 5, "{kills} kills");
    assert!(text.contains("tick"));
    assert_eq!(lines(&text, "a"), (0..150).collect::<Vec<_>>(), "{text}");
}

#[test]
fn threads_wait_until_output_is_met_again() {
    let program = "
import os, threading
def write(name):
    for i in range(600): sum(k * k for k in range(3000)); os.write(1, b'%s%d\\n' % (name, i))
threads = [threading.Thread(target=write, args=(name,)) for name in (b'a', b'b', b'c')]
for thread in threads: thread.start()
for thread in threads: thread.join()
";
    let (text, kills) = killed("threads", &[], program);
    assert!(kills > 5, "{kills} kills");
    for writer in ["a", "b", "c"] {
        let expected: Vec<_> = (0..600).collect();
        assert_eq!(lines(&text, writer), expected, "{text}");
    }
}

/// A wait that is broken off for the runtime's own sake ends when it would have.
#[test]
fn waits_end_however_often_the_clock_ticks() {
    let program = "
import os, select, signal, threading, time
signal.pthread_sigmask(signal.SIG_BLOCK, [10])
waits = [
    lambda: select.poll().poll(100),
    lambda: select.epoll().poll(0.1),
    lambda: select.select([], [], [], 0.1),
    lambda: time.sleep(0.1),
    lambda: signal.sigtimedwait([10], 0.1),
    lambda: threading.Event().wait(0.1),
]
for nth, wait in enumerate(waits):
    begin = time.monotonic()
    wait()
    took = time.monotonic() - begin
    os.write(1, b'a%d\\n' % nth if 0.099 < took < 2 else b'wait %d took %f s\\n' % (nth, took))
";
    let place = Place::new("waits");
    let out = place.python(&["--interval", "5"], program).output();
    let text = String::from_utf8(out.unwrap().stdout).unwrap();
    assert_eq!(lines(&text, "a"), (0..6).collect::<Vec<_>>(), "{text}");
}
