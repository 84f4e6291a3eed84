//! The commit of all processes: stop, stage, publish.
//!
//! ```text
//! the one that commits            each other one that has run since the last commit
//!   holds the run's lock
//!   stopping = n; asks, signals -> its threads stop; it stages into its own image
//!   stages its own                says so, and waits
//!   waits for all
//!   publishes n; stopping = 0  -> drops what the commit has replaced; its threads go on
//! ```
//!
//! A process all of whose threads wait in the kernel, and have since it was staged last,
//! is as it was: it is not asked. If it wakes it finds `stopping` before it changes
//! anything. A process that waits and has run before is woken once, stages, and waits on.
//!
//! If one dies in the middle the keeper kills all of them, so nobody waits for ever.
#![allow(unsafe_code)]

use super::{has_company, me, moving, process, run};
use crate::commit;
use crate::engine::engine;
use crate::fatal::Text;
use crate::machine::frame::{ATTENTION_SIGNAL, ATTENTION_STAGE, Local, STOPPED};
use crate::machine::sys::errno::{EPERM, ETIMEDOUT};
use crate::machine::sys::failed;
use crate::machine::{entry, futex};
use crate::{signal, sys, thread};
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, Ordering::*};
use dc_image::boot::plant;
use dc_image::run::{Life, Process, request::*};

/// Looks at a word so often before waiting in the kernel.
const SPINS: u32 = 200;
/// A process that does not answer is signalled again after so long.
const PATIENCE_NS: usize = 500_000;

/// Asks all other processes that have run since the last commit to stage. The caller
/// holds the run's lock. False if nobody else lives.
pub fn stop_all() -> bool {
    if !has_company() {
        return false;
    }
    let number = (engine().store.published() as u32).wrapping_add(1) | 1 << 31;
    run().stopping.store(number, SeqCst);
    moving::await_all(stirred());
    for (slot, p) in stirred() {
        // One that has yet to go on after the commit before is as it was then, and finds
        // `stopping` before it does anything; but a signal may have come for it since.
        if p.request.load(SeqCst) == STAGED && p.ran.load(SeqCst) == 0 || lies_still(slot, p) {
            continue;
        }
        while p.request.load(SeqCst) == STAGED {
            sys!(SCHED_YIELD);
        }
        p.request.store(STAGE, SeqCst);
        poke(p);
    }
    true
}

/// The other processes that may have done something.
fn stirred() -> impl Iterator<Item = (usize, &'static Process)> {
    let own = engine().slot;
    let words = (run().high.load(Acquire) as usize).div_ceil(64);
    (0..words).flat_map(move |word| {
        let mut bits = run().stirred[word].load(SeqCst);
        core::iter::from_fn(move || {
            let bit = bits.trailing_zeros() as usize;
            bits &= bits.wrapping_sub(1);
            (bit < 64).then(|| (word * 64 + bit, process(word * 64 + bit)))
        })
        .filter(move |&(slot, _)| slot != own)
    })
}

/// Whether a process needs no look, at this commit and until it stirs again.
fn lies_still(slot: usize, p: &Process) -> bool {
    let is_quiet = || p.active.load(SeqCst) == 0 && p.ran.load(SeqCst) == 0;
    let ended = p.life() != Life::Lives;
    if !is_quiet() {
        // (What has ended answers no more.)
        return ended;
    }
    run().stirred[slot / 64].fetch_and(!(1 << (slot % 64)), SeqCst);
    // It may have stirred before it could see that its bit went.
    if is_quiet() {
        return true;
    }
    run().stir(slot);
    ended
}

/// Interrupts a process, so that it looks what is asked of it.
pub fn poke(p: &Process) {
    let r = sys!(KILL, p.real.load(Relaxed), signal::STOP);
    if r == -EPERM {
        // This process has given up the right to signal it. The keeper has not.
        let slot = super::all().position(|(_, other)| core::ptr::eq(other, p));
        run().want_interrupted(slot.unwrap_or(0));
        futex::wake_all(&run().rightless);
        // One that waits for its children, for the lock or for the end of a commit is woken
        // at once.
        p.child_event.fetch_add(1, SeqCst);
        futex::wake_all(&p.child_event);
        futex::wake_all(&run().stopping);
        futex::wake_all(&run().lock);
    }
}

/// Has the keeper's thread look what is wanted of it.
pub fn wake_keeper() {
    run().rightless.fetch_add(1, SeqCst);
    futex::wake_all(&run().rightless);
}

/// Waits until all that were asked have staged.
pub fn await_staged() {
    const LOOK_NS: u64 = 1_000_000_000;
    for (slot, p) in stirred() {
        let mut spins = 0;
        let mut looked_at = 0;
        loop {
            let now = p.request.load(SeqCst);
            if now == NONE || now == STAGED {
                break;
            }
            spins += 1;
            if spins < SPINS {
                core::hint::spin_loop();
                continue;
            }
            futex::wait_at_most(&p.request, now, PATIENCE_NS);
            if p.request.load(SeqCst) == STAGE {
                thaw(p);
                poke(p);
            }
            let now_ns = commit::now_ns();
            if looked_at == 0 {
                looked_at = now_ns;
            } else if now_ns - looked_at > LOOK_NS {
                looked_at = now_ns;
                super::served::look(slot);
            }
        }
    }
}

/// One that is stopped must not hold up the others.
pub fn thaw(p: &Process) {
    const SIGCONT: i32 = 18;
    if p.stopped.get() != 0 && is_stopped(p) && p.thawed.swap(1, SeqCst) == 0 {
        sys!(KILL, p.real.load(Relaxed), SIGCONT);
    }
}

/// Has a process that the commit under way ends give up the robust mutexes that it holds, as
/// the kernel would, which cannot store where stores are noted.
pub fn have_released(p: &Process) {
    const PATIENCE: usize = 4000;
    if p.request
        .compare_exchange(STAGED, RELEASE, SeqCst, SeqCst)
        .is_err()
    {
        return;
    }
    futex::wake_all(&p.request);
    for _ in 0..PATIENCE {
        if p.request.load(SeqCst) != RELEASE {
            return;
        }
        futex::wait_at_most(&p.request, RELEASE, PATIENCE_NS);
    }
}

/// Whether the kernel has stopped a process (proc(5): `12 (name) T ..`). That it was noted so
/// may be out of date.
fn is_stopped(p: &Process) -> bool {
    let mut path = Text::<40>::new();
    let _ = write!(path, "/proc/{}/stat\0", p.real.load(Relaxed));
    let fd = crate::proc::open(path.as_bytes(), 0o2000000);
    if failed(fd) {
        return false;
    }
    let mut text = [0u8; 64];
    let n = sys!(READ, fd, text.as_mut_ptr(), text.len());
    crate::object::input::count_read(n);
    sys!(CLOSE, fd);
    let text = &text[..n.max(0) as usize];
    let end = text.iter().rposition(|&b| b == b')');
    end.is_some_and(|end| text.get(end + 2) == Some(&b'T'))
}

/// A process is about to be continued. If it runs for a commit and will stop again, that
/// comes first. The caller has the lock, so no other commit is under way.
pub fn is_continued(p: &Process) {
    const BREATH_NS: usize = 100_000;
    // It may wait long for a processor.
    let mut patience = 200_000;
    while p.thawed.load(SeqCst) != 0 && p.life() == Life::Lives && patience > 0 {
        let breath = [0usize, BREATH_NS];
        sys!(NANOSLEEP, breath.as_ptr(), 0);
        patience -= 1;
    }
    if p.stopped.get() != 0 {
        p.stopped.set(0, engine().store.published());
    }
}

/// The commit is published: all go on.
pub fn go_on() {
    run().stopping.store(0, SeqCst);
    futex::wake_all(&run().stopping);
}

/// Whether a commit by another process is under way.
#[inline(always)]
pub fn is_stopping() -> bool {
    has_company() && run().stopping.load(SeqCst) != 0
}

/// Takes part in the commit that another process makes, if one is under way: stages if
/// this process is asked and no other thread of it does, and waits for its end. The
/// thread's context is complete, and it counts as stopped.
#[cold]
pub fn take_part(l: &mut Local) {
    debug_assert!(l.state.load(Relaxed) == STOPPED);
    l.attention.fetch_and(!ATTENTION_STAGE, SeqCst);
    let asked = &me().request;
    let number = run().stopping.load(SeqCst);
    if asked
        .compare_exchange(STAGE, STAGING, SeqCst, SeqCst)
        .is_ok()
    {
        let begin = commit::now_ns();
        let lags = engine().boot.plant == plant::LAG_BEHIND;
        if !lags || !(number as u64).is_multiple_of(5) {
            commit::stage(l, begin);
        }
        me().ran.store(0, SeqCst);
        asked.store(STAGED, SeqCst);
        futex::wake_all(asked);
        while run().stopping.load(SeqCst) == number {
            if me().doomed.load(SeqCst) == 0 {
                futex::wait(&run().stopping, number);
            } else if asked.load(SeqCst) == RELEASE {
                // The lock is that of the one who commits, and waits for this.
                thread::release_all_robust();
                asked.store(STAGED, SeqCst);
                futex::wake_all(asked);
            } else {
                futex::wait_at_most(asked, STAGED, PATIENCE_NS);
            }
        }
        commit::published(begin);
        me().commits.fetch_add(1, Relaxed);
        asked.store(NONE, SeqCst);
        if me().thawed.load(SeqCst) != 0 {
            const SIGSTOP: i32 = 19;
            sys!(KILL, engine().pid, SIGSTOP);
        }
        thread::resume_others();
    } else if number != 0 {
        // Until the commit is over; if this process is asked meanwhile it is interrupted.
        futex::wait(&run().stopping, number);
    }
}

/// Waits until this process has done with the last commit that it had a part in. The
/// caller has the lock, so no other one is under way.
pub fn await_own_end() {
    while me().request.load(SeqCst) == STAGED {
        core::hint::spin_loop();
    }
}

/// The runtime's own signal has come: if this process is asked to stage, the thread is to
/// look.
pub fn signalled(l: &mut Local) {
    if !engine().live.is_null() && me().request.load(SeqCst) == STAGE {
        l.attention.fetch_or(
            ATTENTION_STAGE | crate::machine::frame::ATTENTION_STOP,
            SeqCst,
        );
    }
}

/// This process does something: the next commit has to look.
#[inline(always)]
pub fn runs() {
    let ran = &me().ran;
    if ran.load(Relaxed) == 0 {
        ran.store(1, SeqCst);
    }
    run().stir(engine().slot);
}

/// A process has been given something that its next commit must have.
pub fn look_at(slot: usize) {
    process(slot).ran.store(1, SeqCst);
    run().stir(slot);
}

/// A process is about to get a signal from one of the run, which its next commit must have.
pub fn is_signalled(slot: usize) {
    super::birth::await_beginning(process(slot));
    let next = engine().store.published() + 1;
    process(slot).signalled.store(next, SeqCst);
    look_at(slot);
}

/// A thread of this process stops, or goes on.
#[inline(always)]
pub fn stops() {
    let active = &me().active;
    if engine().thread_count.load(Relaxed) <= 1 {
        active.store(active.load(Relaxed).wrapping_sub(1), SeqCst);
    } else {
        active.fetch_sub(1, SeqCst);
    }
}

#[inline(always)]
pub fn goes() {
    let active = &me().active;
    if engine().thread_count.load(Relaxed) <= 1 {
        active.store(active.load(Relaxed).wrapping_add(1), SeqCst);
    } else {
        active.fetch_add(1, SeqCst);
    }
    run().stir(engine().slot);
}

/// Waits for the run's lock, whose word is `lock`; takes part in commits meanwhile.
#[cold]
pub fn wait_for_lock(l: &mut Local, lock: &AtomicU32, waited_for: u32) {
    const FUTEX_WAIT: usize = 0;
    const SECOND: [u64; 2] = [1, 0];
    if is_stopping() && me().request.load(SeqCst) == STAGE {
        return take_part(l);
    }
    let args = [
        lock.as_ptr() as usize,
        FUTEX_WAIT,
        waited_for as usize,
        SECOND.as_ptr() as usize,
        0,
        0,
    ];
    crate::run::signals::look_later(l);
    if l.attention.load(SeqCst) & ATTENTION_SIGNAL != 0 {
        // It would break off the wait, again and again: hundreds that are to end of a signal
        // would leave the one that has the lock no time. (Who commits asks again and again.)
        const LONG_NS: usize = 20_000_000;
        futex::wait_at_most(lock, waited_for, LONG_NS);
        return;
    }
    // SAFETY: the word is mapped for the life of the worker.
    let r = unsafe { entry::interruptible(crate::machine::nr::FUTEX, &args) };
    if r == -ETIMEDOUT {
        super::served::look_for_holder();
    }
}
