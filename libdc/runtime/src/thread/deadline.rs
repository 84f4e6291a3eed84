//! Until when a call waits that has a timeout.
//!
//! A wait is broken off for the runtime's own sake: a commit of another thread, a
//! tick of the clock. Made again as it was, it would wait from the beginning each
//! time, and never end if that happens more often than its timeout. The same is true
//! of a wait that a death has broken off: how long it was to be is remembered outside
//! of commits ([`super::moment`]).
//!
//! A wait until a point in time, or one that the program measures itself, is as long as
//! what it has read of a clock says, which a rollback makes it read anew. So a wait that
//! lasts is committed once: after the first [`SLICE`] of it, if what came before it may
//! not repeat itself. A short wait costs nothing, and a long one is hardly made longer by
//! a death.
#![allow(unsafe_code)]

use super::moment;
use crate::commit::{self, now_ns};
use crate::engine::engine;
use crate::event;
use crate::machine::frame::Local;
use crate::machine::sys::errno::{EAGAIN, EFAULT, EINTR, ETIMEDOUT};
use crate::machine::{nr, user};
use crate::{log, sys};

const NS: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
/// So much of a wait may be waited once more after a death.
const SLICE: u64 = 50 * MS;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Milliseconds,
    Timespec,
    /// A timespec or timeval in which the kernel leaves what is left.
    TimespecLeft,
    TimevalLeft,
    /// A point in time, on this clock.
    Until(usize),
}

pub struct Deadline {
    /// The argument, and the time at which it is over (of `Until`: on its clock).
    end: Option<(usize, Unit, u64)>,
    left: [u64; 2],
    /// The program's own argument.
    own: usize,
    /// Where a sleep that a signal ends says what is left, 0 if nowhere. The kernel is not
    /// told: a call that it answers with EFAULT would be made, and slept, once more.
    left_at: usize,
    /// The call was given another time than the program's: of our making, or short.
    replaced: bool,
    sliced: bool,
    begun_before: bool,
    /// The number of the newest commit as the wait began.
    published: u64,
    /// Sets of descriptors, which the kernel empties when the time is over.
    sets: [[u64; 16]; 3],
}

impl Deadline {
    /// Of a call that begins now, or began before a death.
    pub fn of(l: &Local, nr: usize, args: &[usize; 6]) -> Deadline {
        let mut begun_before = false;
        let end = timeout(nr, args).and_then(|(at, unit)| {
            let spec = || user::read::<[u64; 2]>(args[at]);
            let ns = match unit {
                Unit::Milliseconds => u64::try_from(args[at] as i32).ok()? * MS,
                Unit::TimevalLeft => {
                    let [s, us] = spec()?;
                    s.checked_mul(NS)?.checked_add(us.checked_mul(1000)?)?
                }
                _ => {
                    // What the kernel refuses (EINVAL) it is to see as it is.
                    let [s, ns] = spec().filter(|spec| spec[1] < NS)?;
                    s.checked_mul(NS)?.checked_add(ns)?
                }
            };
            if matches!(unit, Unit::Until(_)) {
                return Some((at, unit, ns));
            }
            let end = now_ns().checked_add(ns)?;
            // What does not wait is not remembered.
            if ns == 0 {
                return Some((at, unit, end));
            }
            // (The runtime's own pointers tell nothing.)
            let known_by = match nr {
                nr::RT_SIGTIMEDWAIT => [0; 6],
                _ => *args,
            };
            let (end, before) = moment::end_of_wait(l, nr, &known_by, ns);
            begun_before = before;
            Some((at, unit, end))
        });
        Deadline {
            end,
            left: [0; 2],
            own: end.map_or(0, |(at, ..)| args[at]),
            left_at: 0,
            replaced: false,
            sliced: false,
            begun_before,
            published: engine().store.published(),
            sets: [[0; 16]; 3],
        }
    }

    /// Before the call is made first: it waits for what is left, or for a while only.
    pub fn begin(&mut self, nr: usize, args: &mut [usize; 6]) {
        let Some((at, unit, end)) = self.end else {
            return;
        };
        match (unit, nr) {
            (Unit::Timespec, nr::NANOSLEEP) => self.left_at = core::mem::take(&mut args[1]),
            (Unit::Timespec, nr::CLOCK_NANOSLEEP) => self.left_at = core::mem::take(&mut args[3]),
            _ => {}
        }
        let now = self.now(unit);
        let long = end.saturating_sub(now) > SLICE;
        if long && is_to_be_committed() && self.keep_sets(nr, args) {
            self.sliced = true;
            self.give(at, unit, now + SLICE, args);
        } else if self.begun_before {
            self.give(at, unit, end, args);
        }
    }

    /// Whether a call that has ended with `r` has only waited for a while; then what is
    /// before it is committed, and it is to be made again.
    pub fn goes_on(&mut self, l: &mut Local, nr: usize, args: &mut [usize; 6], r: isize) -> bool {
        let over = match nr {
            nr::FUTEX | nr::FUTEX_WAITV => r == -ETIMEDOUT,
            nr::RT_SIGTIMEDWAIT => r == -EAGAIN,
            _ => r == 0,
        };
        if !self.sliced || !over {
            return false;
        }
        self.sliced = false;
        self.put_sets_back(nr, args);
        let guard = engine().lock.acquire(l);
        // Another commit since has found this thread waiting.
        if is_to_be_committed() && engine().store.published() == self.published {
            event::tell(protocols::Event::CommitRequested, 0);
            commit::commit(l);
        }
        drop(guard);
        self.shorten(args);
        true
    }

    /// The same call again waits for what is left.
    pub fn shorten(&mut self, args: &mut [usize; 6]) {
        let Some((at, unit, end)) = self.end else {
            return;
        };
        match unit {
            Unit::Until(_) => args[at] = self.own,
            // The program's own has been made shorter by the kernel.
            Unit::TimespecLeft | Unit::TimevalLeft if !self.replaced => {}
            _ => self.give(at, unit, end, args),
        }
    }

    fn now(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Until(clock) => {
                let mut now = [0u64; 2];
                sys!(CLOCK_GETTIME, clock, now.as_mut_ptr());
                now[0] * NS + now[1]
            }
            _ => now_ns(),
        }
    }

    fn give(&mut self, at: usize, unit: Unit, until: u64, args: &mut [usize; 6]) {
        self.replaced = true;
        let left = until.saturating_sub(now_ns());
        self.left = match unit {
            Unit::Milliseconds => {
                args[at] = left.div_ceil(MS) as usize;
                return;
            }
            Unit::Timespec | Unit::TimespecLeft => [left / NS, left % NS],
            Unit::TimevalLeft => [left / NS, left % NS / 1000],
            Unit::Until(_) => [until / NS, until % NS],
        };
        args[at] = self.left.as_ptr() as usize;
    }

    /// The call has ended with `r`: what is left is where the program looks for it, and
    /// what it is told.
    pub fn give_back(&self, r: isize) -> isize {
        let Some((_, unit, end)) = self.end else {
            return r;
        };
        let left = end.saturating_sub(now_ns());
        let spec = [left / NS, left % NS];
        match unit {
            Unit::TimespecLeft if self.replaced => {
                user::write(self.own, &spec);
            }
            Unit::TimevalLeft if self.replaced => {
                user::write(self.own, &[left / NS, left % NS / 1000]);
            }
            Unit::Timespec
                if r == -EINTR && self.left_at != 0 && !user::write(self.left_at, &spec) =>
            {
                return -EFAULT;
            }
            _ => {}
        }
        r
    }

    /// Copies of select's sets; false if they are too large.
    fn keep_sets(&mut self, nr: usize, args: &[usize; 6]) -> bool {
        self.each_set(nr, args, |copy, at| match user::read(at) {
            Some(word) => {
                *copy = word;
                true
            }
            None => false,
        })
    }

    fn put_sets_back(&mut self, nr: usize, args: &[usize; 6]) {
        self.each_set(nr, args, |copy, at| user::write(at, copy));
    }

    fn each_set(
        &mut self,
        nr: usize,
        args: &[usize; 6],
        mut f: impl FnMut(&mut u64, usize) -> bool,
    ) -> bool {
        if !matches!(nr, nr::SELECT | nr::PSELECT6) {
            return true;
        }
        let words = args[0].div_ceil(64);
        if words > 16 {
            return false;
        }
        let sets = self.sets.iter_mut().zip(&args[1..4]).filter(|s| *s.1 != 0);
        for (copy, &at) in sets {
            for (i, word) in copy[..words].iter_mut().enumerate() {
                if !f(word, at + i * 8) {
                    return false;
                }
            }
        }
        true
    }
}

/// Whether a rollback from here might take another way, and nothing else forbids a commit.
pub fn is_to_be_committed() -> bool {
    let e = engine();
    e.machine.flag() && !event::is_behind() && !log::is_kept()
}

/// Which argument says how long a call waits.
fn timeout(nr: usize, args: &[usize; 6]) -> Option<(usize, Unit)> {
    const TIMER_ABSTIME: usize = 1;
    const FUTEX_COMMAND: usize = 127;
    const FUTEX_REALTIME: usize = 256;
    const FUTEX_WAIT: usize = 0;
    const FUTEX_WAIT_BITSET: usize = 9;
    const REALTIME: usize = 0;
    const MONOTONIC: usize = 1;
    match nr {
        nr::POLL => Some((2, Unit::Milliseconds)),
        nr::EPOLL_WAIT | nr::EPOLL_PWAIT => Some((3, Unit::Milliseconds)),
        nr::NANOSLEEP => Some((0, Unit::Timespec)),
        nr::CLOCK_NANOSLEEP if args[1] & TIMER_ABSTIME == 0 => Some((2, Unit::Timespec)),
        nr::CLOCK_NANOSLEEP if args[0] <= MONOTONIC => Some((2, Unit::Until(args[0]))),
        nr::PPOLL => Some((2, Unit::TimespecLeft)),
        nr::PSELECT6 => Some((4, Unit::TimespecLeft)),
        nr::SELECT => Some((4, Unit::TimevalLeft)),
        nr::RT_SIGTIMEDWAIT => Some((2, Unit::Timespec)),
        nr::EPOLL_PWAIT2 => Some((3, Unit::Timespec)),
        nr::FUTEX if args[1] & FUTEX_COMMAND == FUTEX_WAIT => Some((3, Unit::Timespec)),
        nr::FUTEX if args[1] & FUTEX_COMMAND == FUTEX_WAIT_BITSET => {
            let clock = match args[1] & FUTEX_REALTIME {
                0 => MONOTONIC,
                _ => REALTIME,
            };
            Some((3, Unit::Until(clock)))
        }
        nr::FUTEX_WAITV if args[4] <= MONOTONIC => Some((3, Unit::Until(args[4]))),
        _ => None,
    }
    .filter(|&(at, unit)| unit == Unit::Milliseconds || args[at] != 0)
}
