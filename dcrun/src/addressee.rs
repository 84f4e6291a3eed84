//! To whom a signal was sent that has come to dcrun: to it alone, and so to its program, or to
//! the whole group, of which the program's first process has got its own.
//!
//! The kernel gives a group's signal to one member after the other, and tells none that
//! others have it. So the keeper looks whether one waits in the kernel for the worker, or whether
//! the worker's runtime has just taken one of the same number that the keeper did not pass on.
//! It may be between the two; so what came to dcrun alone is passed on a little later. (To one
//! that ignores it neither means anything.)
//!
//! What is passed on to a worker that is dying the kernel drops without a word. The runtime
//! counts what it takes: what was passed and not taken the next worker gets.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use dc_image::header::Live;
use dc_image::stamp::Stamp;

use crate::apart;
use crate::machine::process;
use crate::machine::signals::{self, Arrived};

/// So long a worker that sleeps, or waits for a processor, may be on its way to a signal.
const ON_ITS_WAY_NS: u64 = 20_000_000;
/// So much processor time it takes at most.
const TAKEN_WITHIN_NS: u64 = 1_000_000;
/// So long one may be in the runtime's handler, which blocks all signals, on a busy machine.
const IN_HANDLER_NS: u64 = 2_000_000_000;
/// A worker's copy of a group's signal is no older than this when the keeper takes its own, which
/// waits for a processor: if it is by the same sender, and if it is by another, of whose signal
/// that of the sender was one.
const SAME_NS: u64 = 300_000_000;
const SAME_BY_OTHERS_NS: u64 = 50_000_000;
const PAUSE: Duration = Duration::from_micros(500);

/// What came to dcrun.
#[derive(Clone, Copy)]
pub struct Sent {
    pub number: i32,
    pub sender: i32,
}

impl From<&Arrived> for Sent {
    fn from(arrived: &Arrived) -> Sent {
        Sent {
            number: arrived.number,
            sender: arrived.sender,
        }
    }
}

#[derive(Default)]
pub struct Addressee {
    /// `Live::signals_of_others` as far as the keeper has had the same; more, where the worker
    /// has yet to take one that waits for it.
    matched: [u32; 32],
    /// `Live::signals_passed` when nothing was on its way, and what was passed on since.
    taken: [u32; 32],
    passed: [u32; 32],
    /// Came when the worker was dying.
    undecided: Vec<Sent>,
}

impl Addressee {
    /// For a worker that is yet to be started.
    pub fn new(live: &Live) -> Addressee {
        let mut new = Addressee::default();
        new.forget(live, 0);
        new
    }

    /// Nothing came for a while, so the worker `pid` has taken what it takes, but for what waits
    /// for it still, and unless it is dying and takes nothing. (Some of it may have come to the
    /// keeper when there was no worker to compare with.)
    pub fn settle(&mut self, pid: i32, live: &Live) {
        let (waiting, is_dying) =
            apart::look(move || (process::pending_signals(pid), process::is_dying(pid)));
        if !is_dying {
            self.forget(live, waiting);
        }
    }

    /// What has come until now is settled, but for signals that wait: bit N is signal N + 1.
    fn forget(&mut self, live: &Live, but: u64) {
        for number in (1..32).filter(|number| but << 1 >> number & 1 == 0) {
            self.passed[number] = 0;
            self.matched[number] = live.signals_of_others[number].load(SeqCst);
            self.taken[number] = live.signals_passed[number].load(SeqCst);
        }
    }

    /// Passes a signal on to the worker, if that has none of its own.
    pub fn pass(&mut self, pid: i32, arrived: &Arrived, live: &Live) {
        if self.worker_has_own(pid, arrived.into(), live) {
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

    fn worker_has_own(&mut self, pid: i32, sent: Sent, live: &Live) -> bool {
        // (A stop must not come to a worker that somebody has continued meanwhile; and of
        // real-time signals each is another one.)
        if sent.number >= 32 || sent.number == libc::SIGTSTP {
            return false;
        }
        let begun = process::monotonic_ns();
        let processor = process::processor_time_ns(pid);
        loop {
            if self.is_matched(sent, begun, live) {
                return true;
            }
            if process::peek_death(pid).is_some() {
                self.undecided.push(sent);
                return true;
            }
            let waiting = apart::look(move || process::pending_signals(pid));
            if waiting << 1 >> sent.number & 1 != 0 {
                // (One that was passed on and waits still is both, as for any process.)
                if !self.is_on_its_way(sent.number as usize, live) {
                    let matched = &mut self.matched[sent.number as usize];
                    *matched = matched.wrapping_add(1);
                }
                return true;
            }
            let busy_ns = process::processor_time_ns(pid).saturating_sub(processor);
            let waited_ns = process::monotonic_ns() - begun;
            let is_late = waited_ns > ON_ITS_WAY_NS || busy_ns > TAKEN_WITHIN_NS;
            let may_be_taken = || apart::look(move || process::is_blocked_in(pid, sent.number));
            if is_late && (waited_ns > IN_HANDLER_NS || !may_be_taken()) {
                // To look takes its time, too.
                return self.is_matched(sent, begun, live);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether the worker has taken one that the keeper had not had, shortly before it had.
    fn is_matched(&mut self, sent: Sent, now_ns: u64, live: &Live) -> bool {
        let nth = sent.number as usize;
        let Some(count) = live.signals_of_others.get(nth) else {
            return false;
        };
        let count = count.load(SeqCst);
        let last = Stamp::from_word(live.last_of_others[nth].load(SeqCst));
        // (None, where one that waited has yet to be taken.)
        let is_new = count.wrapping_sub(self.matched[nth]) as i32 > 0;
        if is_new {
            self.matched[nth] = count;
        }
        let same_ns = match last.is_by(sent.sender) {
            true => SAME_NS,
            false => SAME_BY_OTHERS_NS,
        };
        is_new && last.age_ns(now_ns) < same_ns
    }

    /// Whether something was passed on that the worker has not taken.
    fn is_on_its_way(&self, number: usize, live: &Live) -> bool {
        let taken = live.signals_passed[number].load(SeqCst);
        self.passed[number] > taken.wrapping_sub(self.taken[number])
    }

    /// The worker is dead, and these have come since it was: those that it has not got.
    pub fn lost(&mut self, dead: &[Sent], live: &Live) -> u128 {
        let now_ns = process::monotonic_ns();
        let undecided = std::mem::take(&mut self.undecided);
        let mut lost = 0;
        for sent in undecided.into_iter().chain(dead.iter().copied()) {
            if !self.is_matched(sent, now_ns, live) {
                lost |= 1 << sent.number;
            }
        }
        for number in 1..32 {
            let of_others = live.signals_of_others[number].load(SeqCst);
            // What waited for it when it died went with it.
            let has_waited = (of_others.wrapping_sub(self.matched[number]) as i32) < 0;
            if has_waited || self.is_on_its_way(number, live) {
                lost |= 1 << number;
            }
        }
        lost
    }
}
