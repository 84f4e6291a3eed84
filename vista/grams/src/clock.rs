//! The monotonic clock as one number. `Instant` is two, and taking one from the other costs as much
//! again as reading the clock.

use std::mem::MaybeUninit;

use crate::machine::timer::Nanos;

pub fn now() -> Nanos {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: this clock always exists, and the call fills the place that it is given.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec as Nanos * 1_000_000_000 + time.tv_nsec as Nanos
}
