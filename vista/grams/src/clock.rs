//! The monotonic clock as one number. `Instant` is two, and taking one from the other costs as much
//! again as reading the clock.

use std::mem::MaybeUninit;

use crate::machine::timer::Nanos;

#[inline]
pub fn now() -> Nanos {
    read(libc::CLOCK_MONOTONIC)
}

/// The time of the kernel's last tick, a few milliseconds ago at most. It costs a fraction.
#[inline]
pub fn last_tick() -> Nanos {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

#[inline]
fn read(clock: libc::clockid_t) -> Nanos {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: both clocks always exist, and the call fills the place that it is given.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec as Nanos * 1_000_000_000 + time.tv_nsec as Nanos
}
