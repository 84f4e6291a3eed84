//! timerfd: armed again at recovery with what was left of it.
//!
//! state:    words[0] clock, [1] flags of settime, [2..6] itimerspec,
//!           [6] CLOCK_MONOTONIC ns when it was set, [7] armed
//! survives: warm and cold

use super::descriptor::*;
use crate::commit::now_ns;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::state::Kind;
use crate::sys;

const TFD_TIMER_ABSTIME: u64 = 1;

pub fn create(_l: &mut Local, a: [usize; 6]) -> isize {
    if !has_numbers(1) {
        return -EMFILE;
    }
    let r = sys!(TIMERFD_CREATE, a[0], a[1]);
    if failed(r) {
        return r;
    }
    let Some(file) = new_file(Kind::TimerFd) else {
        return -EMFILE;
    };
    let f = open_file(file);
    f.flags = (a[1] & O_NONBLOCK) as u32 | 2;
    f.words[0] = a[0] as u64;
    enter(r as i32, file, a[1] & O_CLOEXEC != 0);
    r
}

pub fn settime(l: &mut Local, a: [usize; 6]) -> isize {
    let fd = a[0] as i32;
    let Some(file) = file_of(fd) else {
        return -EBADF;
    };
    let r = sys!(TIMERFD_SETTIME, fd, a[1], a[2], a[3]);
    if !failed(r) {
        let f = open_file(file);
        if let Some(spec) = user::read::<[u64; 4]>(a[2]) {
            f.words[1] = a[1] as u64;
            f.words[2..6].copy_from_slice(&spec);
            f.words[6] = now_ns();
            f.words[7] = (spec[2] | spec[3] != 0) as u64;
            super::timers::set_before_a_death(
                l,
                crate::machine::nr::TIMERFD_SETTIME,
                &a,
                spec[2].saturating_mul(1_000_000_000),
            );
        }
    }
    r
}

/// At recovery, warm or cold: arms it with what is left.
pub fn restore(file: u32, fd: i32) {
    let f = open_file(file);
    if f.words[7] == 0 {
        let zero = [0u64; 4];
        sys!(TIMERFD_SETTIME, fd, 0, &raw const zero, 0);
        return;
    }
    let mut spec = [f.words[2], f.words[3], f.words[4], f.words[5]];
    if f.words[1] & TFD_TIMER_ABSTIME == 0 {
        left(&mut spec, f.words[6]);
    }
    sys!(TIMERFD_SETTIME, fd, f.words[1], &raw const spec, 0);
}

/// In a replay: it was set at that time, so less of it is left.
pub fn was_set_at(fd: i32, at_ns: u64) {
    if let Some(file) = known_file(fd)
        && open_file(file).kind == Kind::TimerFd
    {
        open_file(file).words[6] = at_ns;
        restore(file, fd);
    }
}

/// Its expirations were read. What rings once is over then, and so a recovery
/// must not have it ring again; `fed` if the kernel does not know of it.
pub fn was_read(file: u32, fd: i32, fed: bool) {
    let f = open_file(file);
    if f.kind == Kind::TimerFd && f.words[2] | f.words[3] == 0 {
        f.words[7] = 0;
        if fed {
            restore(file, fd);
        }
    }
}

/// A relative timer that was set at `set_at`: what is left of it, at least a
/// nanosecond; of a periodic one, to its next period.
pub fn left(spec: &mut [u64; 4], set_at: u64) {
    let first = spec[2] * 1_000_000_000 + spec[3];
    let period = spec[0] * 1_000_000_000 + spec[1];
    let gone = now_ns().saturating_sub(set_at);
    let left = if gone < first {
        first - gone
    } else if period > 0 {
        period - (gone - first) % period
    } else {
        1
    };
    spec[2] = left / 1_000_000_000;
    spec[3] = left % 1_000_000_000;
}

/// At cold recovery.
pub fn remake(file: u32) -> isize {
    let f = open_file(file);
    sys!(TIMERFD_CREATE, f.words[0], f.flags as usize & O_NONBLOCK)
}
