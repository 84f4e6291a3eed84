//! What dead workers have left goes beside a recovery, and must be gone before the program
//! goes on.
//!
//! Whoever has died leaves memory and descriptors to its companion, which is killed once the
//! next worker has taken what it needs. Until it is gone it keeps open what nobody has open
//! any more: the last end of a pipe, a file with its lock (flock(2)). The first process's
//! companion has the keeper's descriptors, and so nothing of its own; but files that its
//! memory maps keep their locks, those too that a lost interval has taken, and that the program
//! is about to take again. (Its memory may be large, so it is waited for only then.)

use crate::engine::engine;
use crate::machine::sys::{errno::EINTR, failed};
use crate::object::record;
use crate::run::run;
use crate::{reserved, sys};
use core::sync::atomic::{AtomicI32, Ordering::*};
use dc_image::boot::high_fd;

/// Longer than the kernel takes for any memory.
const PATIENCE_S: usize = 60;

/// The companion of the worker before this one, which this one has killed.
static OWN: AtomicI32 = AtomicI32::new(0);

pub fn note_own(companion: i32) {
    OWN.store(companion, SeqCst);
}

pub fn await_own() {
    await_end(OWN.swap(0, SeqCst));
}

/// Waits for those that the keeper has killed.
pub fn await_all() {
    for companion in &run().dying {
        await_end(companion.load(SeqCst));
    }
    if record::of_all(0).any(|r| r.kind == record::LOCKED) {
        await_end(run().dying_first.load(SeqCst));
    }
}

/// At a cold recovery by a keeper that lives on: before anybody asks who else has the files of
/// the run.
pub fn await_companions() {
    for companion in run().dying.iter().chain([&run().dying_first]) {
        await_end(companion.load(SeqCst));
    }
}

/// Waits until a process has ended, reaped or not. 0 is none.
pub fn await_end(pid: i32) {
    const POLLIN: u64 = 1;
    if pid == 0 {
        return;
    }
    let pidfd = sys!(PIDFD_OPEN, pid, 0);
    if failed(pidfd) {
        return;
    }
    let fd = reserved::move_high(pidfd, high_fd::SCRATCH);
    // `struct pollfd`.
    let mut wanted = fd as u32 as u64 | POLLIN << 32;
    let patience = [PATIENCE_S, 0];
    while sys!(PPOLL, &raw mut wanted, 1, patience.as_ptr(), 0, 8) == -EINTR {}
    sys!(CLOSE, engine().high_fd(high_fd::SCRATCH));
}
