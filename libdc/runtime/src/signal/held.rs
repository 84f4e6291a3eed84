//! Signals that a recovery brings back are held until the program is where they
//! met it.
//!
//! To a program a signal may come at any time; many are right only because it
//! does not. One that waits for input looks at what its handlers have noted, and
//! then waits: a signal between the two is not seen before the next key, but
//! would have to come within a microsecond. A rollback takes the program back to
//! that place, as a rule, and one that came while it waited would find it there.
//!
//! So it is held until its thread has begun as many calls as when it was delivered
//! or, if it was not, when the worker died; but not for long, for the program may
//! go another way this time.
//!
//! A *place* is twice the number of calls that the thread has begun since the
//! commit, and one more behind the last of them.
#![allow(unsafe_code)]

use super::queue::SigInfo;
use super::{bit, outside};
use crate::engine::engine;
use crate::machine::frame::{ATTENTION_SIGNAL, Local};
use crate::machine::sys::failed;
use crate::object::record;
use crate::sys;
use crate::thread::{self, moment::begun};
use core::sync::atomic::Ordering::*;

/// Longer than it takes to come to a place again.
const LONGEST_NS: usize = 50_000_000;
/// What the timer that ends it gives as its value, other than the clock of
/// `--interval`.
pub const TIMER: i32 = 1;

/// Where a thread is that a signal is delivered to.
pub fn place(l: &Local) -> u32 {
    let begun = begun(l).load(Relaxed);
    begun.wrapping_mul(2) + u32::from(!l.interrupted)
}

/// A call begins, or need not because its result is on record.
#[inline(always)]
pub fn call_begins(l: &mut Local) {
    let begun = begun(l);
    let now = begun.load(Relaxed).wrapping_add(1);
    begun.store(now, Relaxed);
    if l.held_until != 0 && now.wrapping_mul(2) >= l.held_until {
        release(l);
    }
}

/// It ends.
#[inline(always)]
pub fn call_ends(l: &mut Local) {
    if l.held_until != 0 && place(l) >= l.held_until {
        release(l);
    }
}

/// Where the thread stands is committed, or its life begins: so many calls of
/// those that it has begun would be begun again after a rollback.
pub fn count_from(l: &Local, calls: u32) {
    let begun = begun(l);
    thread::moment::before_commit(l, calls, begun.load(Relaxed));
    begun.store(calls, Relaxed);
}

/// At recovery, before the threads go on. What nobody has got goes to the first.
pub fn begin(main: u32) {
    let e = engine();
    let threads = e.threads[..e.thread_high].iter();
    for &l in threads.filter(|l| !l.is_null()) {
        // SAFETY: the block of a thread that does not run yet.
        let l = unsafe { &mut *l };
        let death = begun(l).swap(0, Relaxed).wrapping_mul(2);
        let last = if l.slot == main { death } else { 0 };
        let until = first_delivered(l.slot).unwrap_or(last);
        if until != 0 && set_timer(l) {
            l.held_until = until;
        }
    }
}

/// Where the first one was delivered to this thread since the commit.
fn first_delivered(slot: u32) -> Option<u32> {
    crate::object::record::own(0).find_map(|r| {
        let [thread, place] = record::value_of::<[u32; 2]>(r.payload)?;
        (r.kind == record::SIGNAL && thread == slot).then_some(place)
    })
}

/// Without a timer nothing is held: it might be for ever.
fn set_timer(l: &mut Local) -> bool {
    const SIGEV_THREAD_ID: i32 = 4;
    const CLOCK_MONOTONIC: usize = 1;
    // `struct sigevent`: value, signal, how, thread.
    let mut event = [0i32; 16];
    event[..5].copy_from_slice(&[TIMER, 0, super::STOP, SIGEV_THREAD_ID, l.tid]);
    let event = event.as_ptr().cast();
    let which = 1 + l.slot as i32;
    let Some(id) = crate::object::timers::create_own(CLOCK_MONOTONIC, event, which) else {
        return false;
    };
    l.held_by = id;
    let once = [0, 0, 0, LONGEST_NS];
    !failed(sys!(TIMER_SETTIME, id, 0, once.as_ptr(), 0))
}

/// The signals that wait and are held: those from outside, and a SIGWINCH that the
/// recovery itself has sent. What the program sends itself comes at once, and its
/// timers ring when they ring.
pub fn mask(l: &Local) -> u64 {
    const SIGWINCH: i32 = 28;
    if l.held_until == 0 {
        return 0;
    }
    let held = |info: &&SigInfo| outside::is(info) || info.signo == SIGWINCH;
    let waiting = l.queue.waiting().filter(held);
    waiting.fold(0, |mask, info| mask | bit(info.signo))
}

/// The place is reached, or it takes too long.
#[cold]
pub fn release(l: &mut Local) {
    if l.held_until != 0 {
        l.held_until = 0;
        sys!(TIMER_DELETE, l.held_by);
        if thread::signal_waits(l) {
            l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
        }
    }
}
