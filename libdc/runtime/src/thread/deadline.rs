//! Until when a call waits that has a timeout.
//!
//! A wait is broken off for the runtime's own sake: a commit of another thread, a
//! tick of the clock. Made again as it was, it would wait from the beginning each
//! time, and never end if that happens more often than its timeout. (ppoll,
//! select and pselect6 have what is left from the kernel.)

use crate::commit::now_ns;
use crate::machine::{nr, user};

const NS: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

#[derive(Clone, Copy)]
enum Unit {
    Milliseconds,
    Timespec,
}

pub struct Deadline {
    /// The argument, and the time at which it is over.
    end: Option<(usize, Unit, u64)>,
    left: [u64; 2],
}

impl Deadline {
    /// Of a call that begins now.
    pub fn of(nr: usize, args: &[usize; 6]) -> Deadline {
        let end = timeout(nr, args).and_then(|(at, unit)| {
            let ns = match unit {
                Unit::Milliseconds => u64::try_from(args[at] as i32).ok()? * MS,
                Unit::Timespec => {
                    let [s, ns] = user::read::<[u64; 2]>(args[at])?;
                    s.checked_mul(NS)?.checked_add(ns)?
                }
            };
            Some((at, unit, now_ns().checked_add(ns)?))
        });
        Deadline { end, left: [0; 2] }
    }

    /// The same call again waits for what is left.
    pub fn shorten(&mut self, args: &mut [usize; 6]) {
        let Some((at, unit, end)) = self.end else {
            return;
        };
        let left = end.saturating_sub(now_ns());
        match unit {
            Unit::Milliseconds => args[at] = left.div_ceil(MS) as usize,
            Unit::Timespec => {
                self.left = [left / NS, left % NS];
                args[at] = self.left.as_ptr() as usize;
            }
        }
    }
}

/// Which argument says how long a call waits from now on.
fn timeout(nr: usize, args: &[usize; 6]) -> Option<(usize, Unit)> {
    const TIMER_ABSTIME: usize = 1;
    const FUTEX_COMMAND: usize = 127;
    const FUTEX_WAIT: usize = 0;
    match nr {
        nr::POLL => Some((2, Unit::Milliseconds)),
        nr::EPOLL_WAIT | nr::EPOLL_PWAIT => Some((3, Unit::Milliseconds)),
        nr::NANOSLEEP => Some((0, Unit::Timespec)),
        nr::CLOCK_NANOSLEEP if args[1] & TIMER_ABSTIME == 0 => Some((2, Unit::Timespec)),
        nr::RT_SIGTIMEDWAIT => Some((2, Unit::Timespec)),
        nr::EPOLL_PWAIT2 => Some((3, Unit::Timespec)),
        nr::FUTEX if args[1] & FUTEX_COMMAND == FUTEX_WAIT => Some((3, Unit::Timespec)),
        _ => None,
    }
    .filter(|&(at, unit)| matches!(unit, Unit::Milliseconds) || args[at] != 0)
}
