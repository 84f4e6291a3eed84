//! The runtime's own descriptors: at reserved numbers, above all that a program can have
//! ([`high_fd`]).

use crate::engine::engine;
use crate::sys;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use dc_image::boot::high_fd;

/// Moves a fresh low descriptor to its reserved number.
pub fn move_high(fd: isize, which: i32) -> i32 {
    let to = engine().high_fd(which);
    if fd as i32 == to {
        return to;
    }
    const O_CLOEXEC: usize = 0o2000000;
    sys!(DUP3, fd, to, O_CLOEXEC);
    sys!(CLOSE, fd);
    if OF_ONE_CALL.contains(&which) {
        LEFT_OPEN.store(true, Relaxed);
    }
    to
}

/// What is open for one call, and stays so until the next one needs its place.
const OF_ONE_CALL: RangeInclusive<i32> = high_fd::DIRECTORY..=high_fd::VAULT;

static LEFT_OPEN: AtomicBool = AtomicBool::new(false);

/// Whether a call has left something open.
#[inline]
pub fn has_left_open() -> bool {
    LEFT_OPEN.load(Relaxed)
}

/// Closes that, for it keeps a file system from being unmounted. Under the big lock.
pub fn close_left_open() {
    if LEFT_OPEN.swap(false, Relaxed) {
        let [first, last] = [OF_ONE_CALL.start(), OF_ONE_CALL.end()];
        let e = engine();
        sys!(CLOSE_RANGE, e.high_fd(*first), e.high_fd(*last), 0);
    }
}
