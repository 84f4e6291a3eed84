//! Futexes that processes share (futex(2)): the words lie in the run's image.

use crate::sys;
use core::sync::atomic::AtomicU32;

const FUTEX_WAIT: usize = 0;
const FUTEX_WAKE: usize = 1;

/// Waits while the word has this value; may come back early.
pub fn wait(word: &AtomicU32, value: u32) {
    sys!(FUTEX, word.as_ptr(), FUTEX_WAIT, value, 0);
}

/// The same, and no longer than so many ns.
pub fn wait_at_most(word: &AtomicU32, value: u32, ns: usize) {
    let patience = [0usize, ns];
    sys!(FUTEX, word.as_ptr(), FUTEX_WAIT, value, patience.as_ptr());
}

pub fn wake_all(word: &AtomicU32) {
    sys!(FUTEX, word.as_ptr(), FUTEX_WAKE, i32::MAX);
}

pub fn wake_one(word: &AtomicU32) {
    sys!(FUTEX, word.as_ptr(), FUTEX_WAKE, 1);
}
