//! What a process sees of another one's death before the keeper does.
//!
//! A process of the run that is killed goes back with all others; nothing of its death may be in
//! a commit. Its descriptors outlive it, by its companion. But the two may be killed at once,
//! and then the others see the end of its pipes and sockets at once, while the keeper is yet to
//! be told: such a one could commit that it has closed its end, and let the dead one go on with
//! a pipe that nobody reads. So if somebody has seen an end of something, a commit looks, before
//! it is published, whether all live. The kernel takes a process's memory before it closes its
//! files, so whoever has memory has not been seen to end.

use super::{has_company, others, run};
use crate::machine::sys::errno::*;
use crate::sys;
use core::sync::atomic::Ordering::*;

/// The result of a call on a pipe, socket or terminal.
#[inline]
pub fn met(result: isize) {
    let is_end = matches!(-result, 0 | EIO | EPIPE | ECONNRESET);
    if is_end && has_company() {
        run().ends_met.store(1, Relaxed);
    }
}

/// What poll(2) tells of a descriptor.
#[inline]
pub fn met_in_events(events: u32) {
    const POLLERR: u32 = 8;
    const POLLHUP: u32 = 0x10;
    const POLLRDHUP: u32 = 0x2000;
    if events & (POLLERR | POLLHUP | POLLRDHUP) != 0 {
        met(0);
    }
}

/// When all have staged that were asked: whether somebody is dead. (Who was not asked sleeps, or
/// has yet to go on after the commit before.)
pub fn is_anybody_dead() -> bool {
    if run().ends_met.load(Relaxed) == 0 {
        return false;
    }
    run().ends_met.store(0, Relaxed);
    others().any(|(_, p)| {
        let real = p.real.load(Relaxed);
        real > 0 && !has_memory(real)
    })
}

/// Whether a process has its memory still. (One that may not be looked at is taken to.)
fn has_memory(pid: i32) -> bool {
    let mut byte = 0u8;
    let here = [&raw mut byte as usize, 1];
    let there = [super::BASE, 1];
    let [here, there] = [here.as_ptr(), there.as_ptr()];
    sys!(PROCESS_VM_READV, pid, here, 1, there, 1, 0) != -ESRCH
}
