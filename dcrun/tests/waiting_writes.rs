//! Output that waits for room. A write that waits takes all that it is given, and neither a death of the worker nor the
//! clock of `--interval` nor another thread's commit may cut it short; and while it waits, the other threads run.

mod place;

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use place::Place;

/// Long lines, each in one call, and a word on standard error about each that was cut short.
const FEEDS: &str = "
import os, signal, sys, threading
def line(nth): return b'%06d;' % nth * 20000
def write(nth):
    left = memoryview(line(nth))
    while len(left):
        n = os.write(1, left)
        if n < len(left): os.write(2, b'cut\\n')
        left = left[n:]
";
const LINES: usize = 40;

/// What a reader gets who is slower than the writer and kills its worker meanwhile, how often, and how many writes were cut
/// short.
fn read_slowly(place: &Place, options: &[&str], program: &str) -> (Vec<u8>, usize, usize) {
    let mut run = place
        .python(options, &format!("{FEEDS}{program}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = run.stdout.take().unwrap();
    let mut all = Vec::new();
    let mut buffer = vec![0; 5000];
    let mut kills = 0;
    let mut last = Instant::now();
    loop {
        let n = output.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..n]);
        std::thread::sleep(Duration::from_micros(300));
        // Never twice at the same place of a line.
        let gap = Duration::from_micros(20_000 + kills as u64 * 7_919 % 50_000);
        if last.elapsed() > gap && kills < 40 && place.kill_worker() {
            kills += 1;
            last = Instant::now();
        }
    }
    let mut said = String::new();
    run.stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(run.wait().unwrap().success(), "{said}");
    let cut = said.lines().filter(|line| *line == "cut").count();
    (all, kills, cut)
}

fn expected() -> Vec<u8> {
    let lines = (0..LINES).map(|nth| format!("{nth:06};").repeat(20_000));
    lines.collect::<String>().into_bytes()
}

fn is_whole(name: &str, options: &[&str], program: &str) {
    let (all, kills, cut) = read_slowly(&Place::new(name), options, program);
    assert!(kills > 5, "{kills} kills");
    assert!(all == expected(), "{name}: {} bytes", all.len());
    assert_eq!(cut, 0, "{name}: writes that were cut short");
}

#[test]
fn a_death_cuts_no_write_short() {
    is_whole("death", &[], "for i in range(40): write(i)");
    let log = ["--protocol", "cbndvs-log"];
    is_whole("death-log", &log, "for i in range(40): write(i)");
}

#[test]
fn the_clock_cuts_no_write_short() {
    let clock = ["--interval", "7"];
    is_whole("clock", &clock, "for i in range(40): write(i)");
}

#[test]
fn several_buffers_are_one_write() {
    let program = "
for i in range(40):
    buffers = [line(i)[at : at + 7001] for at in range(0, 140000, 7001)]
    if os.writev(1, buffers) != 140000: os.write(2, b'cut\\n')
";
    is_whole("buffers", &["--interval", "7"], program);
}

#[test]
fn nothing_is_cut_short_beside_another_thread() {
    let program = "
end = threading.Event()
thread = threading.Thread(target=end.wait)
thread.start()
for i in range(40): write(i)
end.set()
thread.join()
";
    is_whole("threads", &[], program);
    is_whole("threads-clock", &["--interval", "7"], program);
}

/// A signal does, as it does everywhere; of what is left the program makes a write of its own.
#[test]
fn a_signal_ends_a_write_and_loses_nothing() {
    let program = "
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.013, 0.013)
for i in range(40): write(i)
signal.setitimer(signal.ITIMER_REAL, 0)
";
    for options in [&[][..], &["--protocol", "cbndvs-log"], &["--interval", "7"]] {
        let (all, kills, cut) = read_slowly(&Place::new("signals"), options, program);
        assert!(kills > 5, "{kills} kills");
        assert!(cut > 0, "no signal came while it waited");
        assert!(all == expected(), "{options:?}: {} bytes", all.len());
    }
}

fn ends_within(run: &mut Child, time: Duration) -> bool {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if run.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    run.kill().unwrap();
    false
}

/// One thread feeds what the other one reads, through a socket, a pipe, and a child that copies.
#[test]
fn another_thread_may_be_the_one_who_makes_room() {
    let program = "
import os, socket, subprocess, threading
data = bytes(range(256)) * 8192
def through(send, receive, close):
    got = []
    def read():
        while part := os.read(receive, 65536): got.append(part)
    reader = threading.Thread(target=read)
    reader.start()
    n = os.write(send, data)
    close()
    reader.join()
    os.write(1, b'%d %r\\n' % (n, b''.join(got) == data))
a, b = socket.socketpair()
through(a.fileno(), b.fileno(), lambda: a.shutdown(1))
r, w = os.pipe()
through(w, r, lambda: os.close(w))
cat = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
through(cat.stdin.fileno(), cat.stdout.fileno(), cat.stdin.close)
os.mkfifo('fifo')
r = os.open('fifo', os.O_RDONLY | os.O_NONBLOCK)
w = os.open('fifo', os.O_WRONLY)
os.set_blocking(r, True)
through(w, r, lambda: os.close(w))
";
    let place = Place::new("room");
    for options in [&[][..], &["--protocol", "cpvs"], &["--interval", "7"]] {
        let _ = std::fs::remove_file(place.0.join("fifo"));
        let mut run = place
            .python(options, program)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(ends_within(&mut run, Duration::from_secs(60)), "it hangs");
        let mut said = String::new();
        let mut output = run.stdout.take().unwrap();
        output.read_to_string(&mut said).unwrap();
        assert_eq!(said, "2097152 True\n".repeat(4), "{options:?}");
    }
}
