//! The recovery of all processes of a run at once.
//!
//! Each is started by the keeper and recovers by itself; where one must not be ahead of
//! the others it waits for them. What is done once for all is done by the elder, which is
//! the one with the lowest entry.
//!
//! ```text
//! EXAMINED   the elder has read the journal, and records may be appended
//! LOADED     each has its tables, and its old descriptors where they lived on
//! UNDONE     the elder has undone what was done to files
//! MADE       descriptions that several know are made again, each by one of them
//! TAKEN      the others have them
//! READY      all of memory, signals and threads is there; from here on all run
//! ```

use super::{has_company, run};
use crate::engine::engine;
use crate::machine::futex;
use core::sync::atomic::Ordering::*;

#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Step {
    Examined,
    Loaded,
    Undone,
    Made,
    Taken,
    Ready,
}

/// Whether this process does what is done once for all.
pub fn is_elder() -> bool {
    run().elder.load(Relaxed) as usize == engine().slot
}

/// Another process of this recovery is dead, as it seems. The keeper is about to kill this one
/// too; it waits for that, but not for ever.
pub fn await_failure() {
    const PATIENCE_S: usize = 20;
    let patience = [PATIENCE_S, 0];
    crate::sys!(NANOSLEEP, patience.as_ptr(), 0);
}

/// Waits until all have come to a step.
pub fn come_to(step: Step) {
    if !has_company() {
        return;
    }
    let arrived = &run().arrived[step as usize];
    let all = run().recovering.load(Relaxed);
    let mut now = arrived.fetch_add(1, SeqCst) + 1;
    if now >= all {
        futex::wake_all(arrived);
    }
    while now < all {
        futex::wait(arrived, now);
        now = arrived.load(SeqCst);
    }
}
