//! Waits end when they would have, whatever dies meanwhile: by each call that waits, and by timers.

mod place;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use place::Place;

const SPAN: Duration = Duration::from_millis(2400);
/// What recoveries, and a machine with other things to do, may add.
const LATE: Duration = Duration::from_millis(500);
/// How late this test may see that a wait has begun. A wait that begins anew is 700 late.
const EARLY: Duration = Duration::from_millis(250);
const KINDS: &[&str] = &[
    "nanosleep",
    "clock_nanosleep",
    "clock_nanosleep_until",
    "clock_nanosleep_real",
    "poll",
    "ppoll",
    "select",
    "pselect",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "futex",
    "cond",
    "semaphore",
    "sigtimedwait",
    "setitimer",
    "timer_create",
    "timerfd",
    "poll-loop",
    "threads",
];

fn build(place: &Place) -> PathBuf {
    let program = place.0.join("deadlines");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/deadlines.c");
    let built = Command::new("gcc")
        .args(["-O1", "-pthread", "-o"])
        .args([&program, &source])
        .status();
    assert!(built.unwrap().success());
    program
}

fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Instant {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < limit, "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    Instant::now()
}

struct Run<'a> {
    place: &'a Place,
    program: &'a Path,
    kind: &'a str,
}

impl Run<'_> {
    fn start(&self) -> Child {
        let program = self.program.to_str().unwrap();
        let output = || {
            File::options()
                .append(true)
                .create(true)
                .open(self.place.0.join("out"))
        };
        self.place
            .dcrun(&["--name", "t", "--", program, self.kind])
            .stdin(Stdio::null())
            .stdout(output().unwrap())
            .stderr(output().unwrap())
            .spawn()
            .unwrap()
    }

    fn said(&self, word: &str) -> bool {
        let all = std::fs::read_to_string(self.place.0.join("out")).unwrap_or_default();
        all.lines().any(|line| line == word)
    }

    /// Kills at 0.7 and 1.5 s; `all` kills dcrun itself as well. How long it took.
    fn play(&self, all: bool) -> Duration {
        let mut dcrun = self.start();
        let begin = until("ready", Duration::from_secs(20), || self.said("ready"));
        for at in [700, 1500] {
            std::thread::sleep(Duration::from_millis(at).saturating_sub(begin.elapsed()));
            if all {
                let worker = self.place.worker();
                dcrun.kill().unwrap();
                dcrun.wait().unwrap();
                worker.map(place::kills);
                dcrun = self.start();
            } else {
                assert!(self.place.kill_worker(), "{}: nobody to kill", self.kind);
            }
        }
        let end = until("the end", Duration::from_secs(20), || self.said("end"));
        assert!(dcrun.wait().unwrap().success(), "{}", self.kind);
        end - begin
    }
}

fn all_end_in_time(name: &str, kinds: &[&str], all: bool) {
    let home = Place::new(name);
    let program = build(&home);
    let late = std::thread::scope(|scope| {
        let runs: Vec<_> = kinds
            .iter()
            .map(|kind| {
                let program = &program;
                scope.spawn(move || {
                    let place = Place::new(&format!("{name}-{kind}"));
                    (
                        kind,
                        Run {
                            place: &place,
                            program,
                            kind,
                        }
                        .play(all),
                    )
                })
            })
            .collect();
        let took = runs.into_iter().map(|run| run.join().unwrap());
        let wrong = |&(_, took): &(_, Duration)| took < SPAN - EARLY || took > SPAN + LATE;
        took.filter(wrong).collect::<Vec<_>>()
    });
    assert!(late.is_empty(), "{name}: {late:?} instead of {SPAN:?}");
}

#[test]
fn waits_end_in_time_over_deaths_of_the_worker() {
    all_end_in_time("warm", KINDS, false);
}

#[test]
fn waits_end_in_time_over_deaths_of_all() {
    all_end_in_time("cold", KINDS, true);
}
