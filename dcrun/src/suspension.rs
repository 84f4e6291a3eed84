//! The keeper's half of a suspension: a last commit, then the end of all processes.
//!
//! What was done since the last commit would be done again, so one more commit is asked for,
//! as the clock of `--interval` asks: by a word in the image and the runtime's own signal. Whoever
//! sees the word first makes it. A program that cannot commit now (it catches up with a log,
//! waits where nothing breaks it off, hangs) is not waited for longer than [`PATIENCE`]: the run
//! goes on from its last commit then, which is always right.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use dc_image::header::{ASKED, Live};
use dc_image::run::Life;

use crate::machine::shared::SharedLive;
use crate::machine::signals::{self, Arrived};
use crate::tree::RUNTIMES_OWN;

/// How long a run may take to begin its last commit.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// And to end one that it makes: much memory takes its time on a disk.
const COMMIT: Duration = Duration::from_secs(30);
/// After this it is asked once more, another process first.
const AGAIN: Duration = Duration::from_millis(100);
/// Between two looks.
pub const LOOKS: Duration = Duration::from_millis(1);

/// A suspension that has begun.
pub struct Suspension {
    begun: Instant,
    asked: Option<Instant>,
    times: usize,
    /// The newest commit when it began.
    published: u64,
}

/// Whether the run is to be suspended.
pub fn is_wanted(live: &Live) -> bool {
    live.suspend_wanted.load(Acquire) != 0
}

/// The signal that asked for it, or the one that would have.
pub fn signal(live: &Live) -> i32 {
    match live.suspend_wanted.load(Relaxed) {
        number @ 1..=31 => number as i32,
        _ => libc::SIGTERM,
    }
}

/// By `dcrun suspend`: whatever the run's own signals mean.
pub fn ask(live: &Live) {
    live.suspend_wanted.store(ASKED, Release);
}

/// Whether a signal to the keeper asks for a suspension; then that is noted, and nobody else gets it.
pub fn is_asked_by(arrived: &Arrived, live: &Live) -> bool {
    let number = arrived.number;
    let of_terminal = number == libc::SIGHUP && !arrived.by_process;
    let asks = suspends(number, live) && (arrived.by_process || of_terminal);
    if asks {
        live.suspend_wanted.store(number as u32, Release);
    }
    asks
}

/// Whether a signal, sent from outside, suspends the run.
pub fn suspends(number: i32, live: &Live) -> bool {
    (1..32).contains(&number) && live.suspend_on.load(Relaxed) >> (number - 1) & 1 != 0
}

impl Suspension {
    pub fn begin(live: &Live) -> Suspension {
        Suspension {
            begun: Instant::now(),
            asked: None,
            times: 0,
            published: live.published.load(Acquire),
        }
    }

    /// Asks for the commit, or ends the run's processes when it is made or has been waited for.
    pub fn step(&mut self, live: &SharedLive) {
        let is_made = live.published.load(Acquire) != self.published;
        let under_way = live.run().stopping.load(Acquire) != 0;
        let patience = if under_way { COMMIT } else { PATIENCE };
        if is_made || self.begun.elapsed() > patience {
            live.commit_wanted.store(0, Relaxed);
            living(live).for_each(|pid| signals::send(pid, libc::SIGKILL));
        } else if self.asked.is_none_or(|at| at.elapsed() > AGAIN) {
            live.commit_wanted.store(1, Release);
            let pids: Vec<i32> = living(live).collect();
            let first = self.times % pids.len().max(1);
            for &pid in pids[first..].iter().chain(&pids[..first]) {
                signals::send(pid, RUNTIMES_OWN);
            }
            self.asked = Some(Instant::now());
            self.times += 1;
        }
    }
}

/// The workers of all processes that have not ended.
fn living(live: &SharedLive) -> impl Iterator<Item = i32> {
    let lives = |pid: &i32| *pid > 0 && crate::machine::process::is_own_child(*pid);
    let all = live.processes().iter();
    all.filter(|p| p.life() == Life::Lives)
        .map(|p| p.real.load(Acquire))
        .filter(lives)
}
