//! Signals for the process as a whole that no thread has taken, for whoever might blocks them.
//!
//! state:   the queue lies in it, and is committed as it stands
//! filled:  from the kernel, by a commit; by the table of processes, for the end of a child
//! emptied: by the thread that unblocks a signal or waits for it, whichever is first
//! restore: nothing; what has come from outside since is put in again ([`super::outside`])
//!
//! The kernel has such a queue beside those of the threads (signal(7)). In the queue of the
//! thread that happens to commit, a signal would be kept from the one that waits for it.
#![allow(unsafe_code)]

use super::queue::{Queue, SigInfo};
use super::{STOP, bit};
use crate::engine::{engine, state};
use crate::machine::frame::{ATTENTION_SIGNAL, Local};
use crate::sys;
use core::sync::atomic::{AtomicBool, Ordering::*};

/// Held while the queue is changed, by no handler.
static CHANGES: AtomicBool = AtomicBool::new(false);

fn changed<R>(change: impl FnOnce(&mut Queue) -> R) -> R {
    while CHANGES.swap(true, Acquire) {
        sys!(SCHED_YIELD);
    }
    let r = change(&mut state().root.signals);
    CHANGES.store(false, Release);
    r
}

/// Whether a signal was sent to the process, and not to one of its threads (tgkill(2), a timer
/// of SIGEV_THREAD_ID) or by what a thread did.
pub fn is(info: &SigInfo) -> bool {
    const SI_TIMER: i32 = -2;
    const SI_TKILL: i32 = -6;
    let synchronous = info.code > 0 && matches!(info.signo, 4 | 5 | 7 | 8 | 11);
    !synchronous && !matches!(info.code, SI_TIMER | SI_TKILL)
}

pub fn is_empty() -> bool {
    state().root.signals.is_empty()
}

pub fn has_room() -> bool {
    state().root.signals.has_room()
}

/// Signals that wait for a thread, as a mask.
pub fn pending(slot: u32) -> u64 {
    match is_empty() {
        true => 0,
        false => waiting()
            .filter(|info| is_for(info, slot))
            .fold(0, |mask, info| mask | bit(info.signo)),
    }
}

pub fn waiting() -> impl Iterator<Item = &'static SigInfo> {
    state().root.signals.waiting()
}

pub fn take(slot: u32, set: u64) -> Option<SigInfo> {
    match pending(slot) & set {
        0 => None,
        _ => changed(|queue| queue.take_if(set, |info| is_for(info, slot))),
    }
}

/// Adds a signal, and says whether it did.
pub fn push(info: &SigInfo) -> bool {
    let added = changed(|queue| queue.push(info));
    tell_threads(bit(info.signo));
    added
}

/// Adds one for a thread of this process, which blocks it: another one has sent it, and only
/// that thread could take it from the kernel before a commit. Of a standard signal that waits
/// already there is no second one.
pub fn push_for_thread(slot: u32, info: &SigInfo) {
    let mut info = *info;
    info.rest[FOR_THREAD..].copy_from_slice(&(slot + 1).to_le_bytes());
    let waits = waiting().any(|w| w.signo == info.signo && is_for(w, slot) && !is(w));
    if info.signo >= 32 || !waits {
        changed(|queue| queue.push_another(&info));
        tell_threads(bit(info.signo));
    }
}

/// A thread ends; or another slot is its own from now on.
pub fn leaves(slot: u32, to: Option<u32>) {
    while let Some(mut info) = changed(|queue| {
        let is_meant = |info: &SigInfo| is_for(info, slot) && !is_for(info, slot + 1);
        queue.take_if(u64::MAX, is_meant)
    }) {
        if let Some(to) = to {
            as_sent(&mut info);
            push_for_thread(to, &info);
        }
    }
}

/// Where an entry has the slot + 1 of the thread that alone may take it. (No siginfo of a
/// kernel is so long.)
const FOR_THREAD: usize = 112;

fn is_for(info: &SigInfo, slot: u32) -> bool {
    let mut thread = [0; 4];
    thread.copy_from_slice(&info.rest[FOR_THREAD..]);
    let thread = u32::from_le_bytes(thread);
    thread == 0 || thread == slot + 1
}

/// As its sender sent it.
pub fn as_sent(info: &mut SigInfo) {
    info.rest[FOR_THREAD..].fill(0);
}

/// Those that do not block it, or wait for it, look.
fn tell_threads(signal: u64) {
    let e = engine();
    for &t in e.threads[..e.thread_high].iter().filter(|t| !t.is_null()) {
        // SAFETY: blocks are never unmapped; only atomics are touched, and the number.
        let t: &Local = unsafe { &*t };
        let blocked = state().threads[t.slot as usize].sigmask & !t.awaited_signals.load(SeqCst);
        if signal & !blocked != 0 {
            t.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
            sys!(TGKILL, e.pid, t.tid, STOP);
        }
    }
}
