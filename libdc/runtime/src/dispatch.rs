//! The three ways in: a system call, an interruption, and the way out.
#![allow(unsafe_code)]

use crate::engine::engine;
use crate::machine::entry::local;
use crate::machine::frame::*;
use crate::machine::sys::errno::EFAULT;
use crate::object::seccomp;
use crate::run::{has_company, unit};
use crate::table::{self, How};
use crate::{event, signal, space, thread};
use core::sync::atomic::Ordering::*;

/// A system call of the program. Its registers are in the frame.
pub extern "C" fn on_call(l: &'static mut Local) {
    l.state.store(RUNTIME, Relaxed);
    l.again = true;
    l.interrupted = false;
    l.early = false;
    l.is_final = false;
    l.commit_after = false;
    l.chance = false;
    if l.trapped {
        l.trapped = false;
        let _guard = engine().lock.acquire(l);
        crate::patch::consider(l);
    }
    let calls = &crate::run::me().calls;
    calls.store(calls.load(Relaxed) + 1, Relaxed);
    signal::held::call_begins(l);
    let row = table::row(l.frame.nr);
    let args = l.frame.args();
    if l.is_filtered && seccomp::stops(l, &args) {
        signal::held::call_ends(l);
        return commit_if_wanted(l);
    }
    if engine().log.replay.is_active()
        && let Some(ret) = crate::log::replay::instead(l, row, &args)
    {
        l.frame.rax = ret as usize;
        l.again = false;
        return;
    }
    let ret = match row.how {
        How::Pass => {
            // SAFETY: the program's own call with its own arguments.
            let r = awake(false, &args, || unsafe {
                crate::machine::sys::raw6(l.frame.nr, args)
            });
            classify(l, row);
            r
        }
        How::Wait => {
            let nr = l.frame.nr;
            let r = awake(false, &args, || thread::wait_or_signal(l, nr, args));
            classify(l, row);
            r
        }
        How::Locked(f) => {
            let _guard = engine().lock.acquire(l);
            let r = awake(true, &args, || f(l, args));
            if row.class == table::Class::NonDeterministic {
                event::non_deterministic(l);
            }
            r
        }
        How::Free(f) => {
            let r = awake(false, &args, || f(l, args));
            classify(l, row);
            r
        }
        How::Refuse(errno, why) => refuse(l, row, errno, why),
        How::Around => table::around(l, args, None),
        How::Lost(why) => table::around(l, args, Some(why)),
        How::Unknown => table::unknown(l, args),
    };
    l.frame.rax = ret as usize;
    l.again = false;
    signal::held::call_ends(l);
    if (l.chance || l.interrupted) && !l.early {
        settle(l, &args, ret);
    }
    if l.outlives {
        let _guard = engine().lock.acquire(l);
        event::outlived(l);
    }
    commit_if_wanted(l);
}

#[inline(always)]
fn commit_if_wanted(l: &mut Local) {
    if l.commit_after {
        l.commit_after = false;
        let _guard = engine().lock.acquire(l);
        event::commit_and_move(l);
    }
}

/// Makes a call; where it met sleeping or guarded memory, changes that and makes
/// it again. (A call that takes something away has done so before.)
#[inline(always)]
fn awake(locked: bool, args: &[usize; 6], mut call: impl FnMut() -> isize) -> isize {
    let r = call();
    if r == -EFAULT && (engine().pieces.any() || engine().shared.any()) {
        awake_slowly(locked, args, call)
    } else {
        r
    }
}

#[cold]
fn awake_slowly(locked: bool, args: &[usize; 6], mut call: impl FnMut() -> isize) -> isize {
    let l = local();
    if core::mem::take(&mut l.is_final) || l.frame.nr == AFTER_SIGRETURN {
        // (That of rt_sigreturn is of the call that a handler came behind.)
        return -EFAULT;
    }
    let mut any = engine().pieces.wake_arguments(args);
    if engine().shared.any() {
        let _guard = (!locked).then(|| engine().lock.acquire(local()));
        for &a in args {
            any |= space::shared::open(a, a.saturating_add(GUARDED_AT_ONCE));
        }
    }
    if any {
        let r = call();
        if r != -EFAULT {
            return r;
        }
    }
    // Behind a pointer in memory, or farther than a page.
    if engine().pieces.wake(0, usize::MAX) {
        call()
    } else {
        -EFAULT
    }
}

/// The number in a frame that rt_sigreturn has replaced.
pub const AFTER_SIGRETURN: usize = usize::MAX;

/// What is opened of a file in memory that a call names: more than most calls write.
const GUARDED_AT_ONCE: usize = 64 << 10;

/// Tells the protocol of a call that needed no lock otherwise.
#[inline(always)]
fn classify(l: &mut Local, row: &table::Row) {
    if row.class != table::Class::NonDeterministic {
        return;
    }
    let e = engine();
    if event::is_nothing() {
        crate::engine::add(&e.live().nd_events, 1);
    } else if e.log.wanted {
        l.chance = true;
    } else {
        let _guard = e.lock.acquire(l);
        event::non_deterministic(l);
    }
}

/// The end of a call whose result is chance, where results may be logged. One
/// that a signal broke off is, whatever it says of itself.
#[cold]
fn settle(l: &mut Local, args: &[usize; 6], ret: isize) {
    if l.chance || engine().log.wanted {
        let _guard = engine().lock.acquire(l);
        l.frame.rax = event::settle(l, args, ret) as usize;
    }
}

#[cold]
fn refuse(_l: &mut Local, row: &table::Row, errno: isize, why: &str) -> isize {
    // Without a reason it is one that every program is ready for.
    if !why.is_empty() && table::first_time(row.nr) {
        crate::say!("{} is refused: {}", row.name, why);
    }
    -errno
}

/// The program was interrupted outside of a call.
pub extern "C" fn on_async(l: &'static mut Local) {
    l.state.store(RUNTIME, Relaxed);
    l.again = false;
    l.interrupted = false;
    l.commit_after = false;
}

/// Before every return to the program, and again as long as something wants
/// attention.
pub extern "C" fn on_leave(l: &'static mut Local) {
    loop {
        if l.state.load(Relaxed) != RUNTIME {
            l.state.store(RUNTIME, SeqCst);
        }
        if has_company() {
            unit::runs();
        }
        let attention = l.attention.load(SeqCst);
        if attention == 0 {
            return;
        }
        if attention & (ATTENTION_STOP | ATTENTION_STAGE) != 0 {
            thread::pause_for_stop(l);
            if event::takes_tick() {
                let _guard = engine().lock.acquire(l);
                event::commit_and_move(l);
            }
        }
        if l.attention.load(SeqCst) & ATTENTION_SIGNAL != 0 {
            let guard = engine().lock.acquire(l);
            signal::deliver::deliver_pending(l);
            if l.commit_after {
                l.commit_after = false;
                event::commit_and_move(l);
            }
            drop(guard);
            crate::run::job_control::stop_now(l);
        }
    }
}
