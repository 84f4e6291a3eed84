//! Moments that outlive a rollback: until when a call waits, and since when a timer runs.
//!
//! A rollback takes a thread back to before its sleep, which it then begins anew; killed
//! often enough, it would never end. So the image remembers, outside of commits, when
//! such a call was made for the first time. Made again, it is known by its place: the
//! number of the commit, the number of the call since then, and its arguments.
//!
//! Behind something non-deterministic that is not committed, the moment is not used: the
//! program may have asked for the time, and asks anew; it must not find that it has slept
//! for less than it wanted. Such a wait, and such a timer, is committed if it lasts
//! ([`super::deadline`], [`commit_within`]).
//!
//! ```text
//! image at MOMENTS_OFFSET, for each thread:
//!   begun | entries of 40 bytes: seq, alternative seq, time, begun, sum, open
//! ```
//!
//! The first entry is of calls that wait, the others are of calls that set timers. A
//! commit that finds a thread in such a call gives its entry a second place: there it is
//! the first call since.
#![allow(unsafe_code)]

use crate::commit::now_ns;
use crate::engine::engine;
use crate::machine::frame::Local;
use crate::sys;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use dc_image::header::{MOMENTS_LEN, MOMENTS_OFFSET, checksum};
use dc_image::run::BEGUN;
use dc_image::window::RIO_BASE;

/// Calls that set timers, and are told apart.
const SETTERS: usize = 8;

#[repr(C)]
struct Entry {
    /// Commit behind which the call was made; 0 is none.
    seq: AtomicU64,
    /// Commit that found the call under way.
    alternative: AtomicU64,
    time_ns: AtomicU64,
    begun: AtomicU32,
    sum: AtomicU32,
    /// Something non-deterministic was before it.
    open: AtomicU32,
    /// A sum of the call and its time: a time that was damaged must not be waited for.
    check: AtomicU32,
}

#[repr(C)]
struct Moments {
    /// As `Process::begun`, of a thread that has none there.
    begun: AtomicU32,
    _pad: [u32; 7],
    entries: [Entry; 1 + SETTERS],
}

const _: () = assert!(size_of::<Moments>() * crate::engine::MAX_THREADS <= MOMENTS_LEN);

fn moments(slot: u32) -> &'static Moments {
    // SAFETY: mapped for the life of the worker; slots are below MAX_THREADS, and all
    // fields are atomics.
    unsafe { &*((RIO_BASE + MOMENTS_OFFSET) as *const Moments).add(slot as usize) }
}

/// Calls that a thread has begun since the commit.
#[inline(always)]
pub fn begun(l: &Local) -> &'static AtomicU32 {
    match (l.slot as usize) < BEGUN {
        true => &crate::run::me().begun[l.slot as usize],
        false => &moments(l.slot).begun,
    }
}

impl Entry {
    fn check_of(&self) -> u32 {
        let [time, begun, sum] = [
            self.time_ns.load(Relaxed),
            self.begun.load(Relaxed).into(),
            self.sum.load(Relaxed).into(),
        ];
        let words = [time, begun << 32 | sum];
        // SAFETY: plain words, seen as bytes.
        checksum(unsafe { core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), 16) }) as u32
    }

    /// Whether it is of the call that a thread is in.
    fn is_at(&self, published: u64, begun: u32) -> bool {
        let here = self.seq.load(Relaxed) == published && self.begun.load(Relaxed) == begun;
        here && self.open.load(Relaxed) == 0 && !engine().machine.flag()
            || self.alternative.load(Relaxed) == published && begun == 1
    }
}

/// When the call under way was made for the first time; now, if it was not before.
/// `sum` tells it from others at the same place.
fn first_made(l: &Local, which: usize, sum: u32, value: u64) -> Option<u64> {
    // (Of the first process only: the threads of others would have the same places.)
    if engine().slot != 0 {
        return None;
    }
    let e = &moments(l.slot).entries[which];
    let published = engine().store.published();
    let begun = begun(l).load(Relaxed);
    let is_whole = || e.check.load(Relaxed) == e.check_of();
    if e.sum.load(Relaxed) == sum && e.is_at(published, begun) && is_whole() {
        return Some(e.time_ns.load(Relaxed));
    }
    // Void while it is changed.
    e.seq.store(0, Relaxed);
    e.alternative.store(0, Relaxed);
    e.begun.store(begun, Relaxed);
    e.sum.store(sum, Relaxed);
    e.open.store(engine().machine.flag() as u32, Relaxed);
    e.time_ns.store(value, Relaxed);
    e.check.store(e.check_of(), Relaxed);
    e.seq.store(published, Release);
    None
}

fn sum_of(nr: usize, args: &[usize; 6], amount: u64) -> u32 {
    let words = [nr as u64, args[0] as u64, args[1] as u64, amount];
    // SAFETY: plain words, seen as bytes.
    let bytes = unsafe { core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), 32) };
    checksum(bytes) as u32
}

/// A call waits for `ns`: until when. (Some if that was fixed before a death.)
pub fn end_of_wait(l: &Local, nr: usize, args: &[usize; 6], ns: u64) -> (u64, bool) {
    let end = now_ns().saturating_add(ns);
    match first_made(l, 0, sum_of(nr, args, ns), end) {
        Some(before) => (before.min(end), true),
        None => (end, false),
    }
}

/// A call has set a timer: when it was set, if that was before a death.
pub fn set_before(l: &Local, nr: usize, args: &[usize; 6]) -> Option<u64> {
    let which = 1 + (nr ^ args[0]) % SETTERS;
    first_made(l, which, sum_of(nr, args, 0), now_ns())
}

/// A commit finds the thread in a call that is made again after a rollback to it. Before
/// it is published.
#[cold]
fn is_under_way(l: &Local, begun: u32) {
    let published = engine().store.published();
    for e in &moments(l.slot).entries {
        let first = e.seq.load(Relaxed) == published && e.begun.load(Relaxed) == begun;
        let second = e.alternative.load(Relaxed) == published && begun == 1;
        if second {
            e.open.store(0, Relaxed);
            e.begun.store(1, Relaxed);
            e.check.store(e.check_of(), Relaxed);
            e.seq.store(published, Relaxed);
        }
        if first || second {
            e.alternative.store(published + 1, Release);
        }
    }
}

/// Where the thread stands is about to be committed: in so many calls of those that it
/// has begun (none or one).
#[inline(always)]
pub fn before_commit(l: &Local, calls: u32, begun: u32) {
    if calls == 1 {
        is_under_way(l, begun);
    }
}

/// A timer was set for `ns` from now: if that could be lost, it is committed soon.
pub fn commit_within(ns: u64) {
    const SOON: u64 = 50_000_000;
    let e = engine();
    if ns <= 2 * SOON || !super::deadline::is_to_be_committed() {
        return;
    }
    e.timer_set = e.store.published();
    if e.timer_set_clock == 0 {
        // As the clock of --interval: it breaks off whatever waits.
        let mut event = [0u8; 64];
        event[8..12].copy_from_slice(&crate::signal::STOP.to_le_bytes());
        let own = crate::object::timers::create_own(MONOTONIC, event.as_ptr(), OWN_TIMER);
        e.timer_set_clock = own.unwrap_or(-1);
    }
    let once = [0, 0, 0, SOON];
    sys!(TIMER_SETTIME, e.timer_set_clock, 0, once.as_ptr(), 0);
}

const MONOTONIC: usize = 1;
/// Behind the clock of `--interval` and those of all threads.
const OWN_TIMER: i32 = 2 + crate::engine::MAX_THREADS as i32;
