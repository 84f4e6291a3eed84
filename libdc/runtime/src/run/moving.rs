//! Bytes that a process moves through a pipe of the run without the run's lock.
//!
//! A process says in a word of its own that it moves some, and then looks whether a commit is
//! under way; who commits says so, and then looks at those words. So one of the two sees the
//! other: the move is left to the way with the lock, or the commit waits for its end, which is
//! soon, for such a move does not wait in the kernel.

use super::{has_company, me, others, run, unit};
use crate::machine::futex;
use core::sync::atomic::Ordering::*;
use dc_image::run::Process;

const SPINS: u32 = 2000;
const BREATH_NS: usize = 100_000;

/// A move under way, until dropped.
pub struct Moving;

impl Moving {
    /// None if a commit is under way.
    #[inline]
    pub fn begin() -> Option<Moving> {
        me().moving.store(1, SeqCst);
        let moving = Moving;
        (run().stopping.load(SeqCst) == 0).then_some(moving)
    }
}

impl Drop for Moving {
    #[inline]
    fn drop(&mut self) {
        me().moving.store(0, Release);
    }
}

/// Waits until none of them moves anything.
pub fn await_all(processes: impl Iterator<Item = (usize, &'static Process)>) {
    for (_, p) in processes {
        let mut spins = 0;
        while p.moving.load(SeqCst) != 0 {
            spins += 1;
            if spins < SPINS {
                core::hint::spin_loop();
                continue;
            }
            // (It does not wake anybody: that would cost each move a look.)
            futex::wait_at_most(&p.moving, 1, BREATH_NS);
            unit::thaw(p);
        }
    }
}

/// Something was changed that a move looks at when it begins: waits for those that have begun
/// before. One that is stopped in the middle of its move goes on by what it has seen.
pub fn await_begun() {
    const PATIENCE: u32 = 1000;
    if !has_company() {
        return;
    }
    for (_, p) in others() {
        let mut patience = PATIENCE;
        while p.moving.load(SeqCst) != 0 && patience > 0 {
            futex::wait_at_most(&p.moving, 1, BREATH_NS);
            patience -= 1;
        }
    }
}
