//! To whom a signal was sent that has come to dcrun: to it alone, and so to its program, or to
//! the whole group, of which the program's first process has got its own.
//!
//! The kernel gives a group's signal to one member after the other, and tells none that
//! others have it. So the keeper looks whether the worker's runtime has just taken one of the
//! same number that the keeper did not pass on. The runtime may not have come to it yet; so
//! what came to dcrun alone is passed on a little later. (A worker that blocks the signal has
//! its own waiting, which a second one joins; to one that ignores it neither means anything.)
//!
//! What is passed on to a worker that is dying the kernel drops without a word. The runtime
//! counts what it takes: what was passed and not taken the next worker gets.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use dc_image::header::Live;

use crate::machine::process;
use crate::machine::signals::{self, Arrived};

/// So long a worker that sleeps, or waits for a processor, may be on its way to a signal.
const ON_ITS_WAY_NS: u64 = 20_000_000;
/// So much processor time it takes at most.
const TAKEN_WITHIN_NS: u64 = 1_000_000;
/// A worker's copy of a group's signal is no older than this when the keeper takes its own.
const SAME_NS: u64 = 50_000_000;
const PAUSE: Duration = Duration::from_micros(500);

#[derive(Default)]
pub struct Addressee {
    /// `Live::signals_of_others` as far as the keeper has had the same.
    matched: [u32; 32],
    /// `Live::signals_passed` when nothing was on its way, and what was passed on since.
    taken: [u32; 32],
    passed: [u32; 32],
    /// Came when the worker was dying: bit N stands for signal N.
    undecided: u128,
}

impl Addressee {
    /// For a worker that is yet to be started.
    pub fn new(live: &Live) -> Addressee {
        let mut new = Addressee::default();
        new.settle(live);
        new
    }

    /// Nothing came for a while, so the worker has taken what it takes. (Some of it may have
    /// come to the keeper when there was no worker to compare with.)
    pub fn settle(&mut self, live: &Live) {
        self.passed = [0; 32];
        for number in 1..32 {
            self.matched[number] = live.signals_of_others[number].load(SeqCst);
            self.taken[number] = live.signals_passed[number].load(SeqCst);
        }
    }

    /// Passes a signal on to the worker, if that has none of its own.
    pub fn pass(&mut self, pid: i32, arrived: &Arrived, live: &Live) {
        if self.worker_has_own(pid, arrived.number, live) {
            return;
        }
        self.was_passed(arrived.number);
        signals::pass(pid, arrived);
    }

    pub fn was_passed(&mut self, number: i32) {
        if let Some(passed) = self.passed.get_mut(number as usize) {
            *passed += 1;
        }
    }

    fn worker_has_own(&mut self, pid: i32, number: i32, live: &Live) -> bool {
        // (A stop must not come to a worker that somebody has continued meanwhile; and of
        // real-time signals each is another one.)
        if number >= 32 || number == libc::SIGTSTP {
            return false;
        }
        let begun = process::monotonic_ns();
        let processor = process::processor_time_ns(pid);
        loop {
            if self.is_matched(number, begun, live) {
                return true;
            }
            if process::peek_death(pid).is_some() {
                self.undecided |= 1 << number;
                return true;
            }
            let busy_ns = process::processor_time_ns(pid).saturating_sub(processor);
            let waited_ns = process::monotonic_ns() - begun;
            if waited_ns > ON_ITS_WAY_NS || busy_ns > TAKEN_WITHIN_NS {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether the worker has taken one that the keeper had not had, shortly before it had.
    fn is_matched(&mut self, number: i32, now_ns: u64, live: &Live) -> bool {
        let nth = number as usize;
        let Some(count) = live.signals_of_others.get(nth) else {
            return false;
        };
        let count = count.load(SeqCst);
        let last_ns = live.signals_of_others_ns[nth].load(SeqCst);
        let is_new = self.matched[nth] != count;
        self.matched[nth] = count;
        is_new && last_ns.saturating_add(SAME_NS) > now_ns
    }

    /// The worker is dead, and these have come since it was: those that it has not got.
    pub fn lost(&mut self, dead: &[i32], live: &Live) -> u128 {
        let now_ns = process::monotonic_ns();
        let undecided = (1..32).filter(|number| self.undecided >> number & 1 != 0);
        let late: Vec<i32> = undecided.chain(dead.iter().copied()).collect();
        let mut lost = 0;
        for number in late {
            if !self.is_matched(number, now_ns, live) {
                lost |= 1 << number;
            }
        }
        for number in 1..32 {
            let taken = live.signals_passed[number].load(SeqCst);
            if self.passed[number] > taken.wrapping_sub(self.taken[number]) {
                lost |= 1 << number;
            }
        }
        lost
    }
}
