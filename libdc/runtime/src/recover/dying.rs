//! The memory of dead workers, which goes beside a recovery.
//!
//! Whoever has died leaves its memory to its companion, which is killed and takes it apart
//! while the next worker is at work already. What of it is mapped from files keeps their
//! descriptions until then, and with them their locks (flock(2)): those, too, that a lost
//! interval has taken, and that the program is about to take again.

use crate::engine::engine;
use crate::machine::sys::failed;
use crate::object::record;
use crate::run::run;
use crate::{sys, uffd};
use core::sync::atomic::Ordering::*;
use dc_image::boot::high_fd;

/// Longer than the kernel takes for any memory.
const PATIENCE_MS: usize = 60_000;

/// Whether the interval that was lost has taken locks, in any process.
fn matters() -> bool {
    record::of_all(0).any(|r| r.kind == record::LOCKED)
}

/// A recovery does not go on before all that the keeper has killed is gone.
pub fn await_all() {
    if matters() {
        for place in &run().dying {
            await_end(place.load(SeqCst));
        }
    }
}

/// This process has killed the companion of the worker before it.
pub fn await_one(companion: i32) {
    if matters() {
        await_end(companion);
    }
}

/// Waits until a process has ended, reaped or not.
fn await_end(pid: i32) {
    const POLLIN: u64 = 1;
    if pid == 0 {
        return;
    }
    let pidfd = sys!(PIDFD_OPEN, pid, 0);
    if failed(pidfd) {
        return;
    }
    let fd = uffd::move_high(pidfd, high_fd::SCRATCH);
    // `struct pollfd`.
    let mut wanted = fd as u32 as u64 | POLLIN << 32;
    let timeout = [PATIENCE_MS / 1000, 0];
    sys!(PPOLL, &raw mut wanted, 1, timeout.as_ptr(), 0, 8);
    sys!(CLOSE, engine().high_fd(high_fd::SCRATCH));
}
