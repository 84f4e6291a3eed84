//! The end of all threads of a process but one, as an exec wants it.
//!
//! After an exec a process has one thread, and its number is that of the process. The
//! kernel gives that number to whoever calls its exec; nobody else gets it. So the program
//! goes on in the kernel's first thread, whichever thread has called exec: that one leaves
//! what is its own (mask, signals, rights) to the first, and ends with the others.
//!
//! ```text
//! the caller, with the lock       each other one, stopped       the kernel's first thread
//!   stops all; CALLER = itself
//!   signals, until all are gone -> gives up rseq, robust list
//!                                  ends                         waits, all signals blocked
//!   leaves its own to the first; OVER = itself; ends         -> waits for the caller's end;
//!                                                               goes on with the lock
//! ```
//!
//! A first thread that exits while others live ends for the program only: it waits in the
//! same way, so that it is there for an exec, and so that /proc/PID goes on telling of a
//! process that lives. Where the first thread may do other things than the caller (raw
//! calls that change the rights of one thread), the caller goes on itself, under the
//! number of the process, and the first thread waits for the end of the process.
#![allow(unsafe_code)]

use super::*;
use crate::object::exec;
use crate::object::undo::place::stat_at;
use crate::proc;
use core::sync::atomic::AtomicPtr;

/// Slot + 1 of the thread that the others end for; 0 is none.
static CALLER: AtomicU32 = AtomicU32::new(0);
/// Slot + 1 of the caller whose place the first thread takes; a futex.
static OVER: AtomicU32 = AtomicU32::new(0);
/// The kernel's first thread, once it waits outside of the program.
static FIRST: AtomicPtr<Local> = AtomicPtr::new(core::ptr::null_mut());

/// A thread that has its context complete looks whether it is to end.
#[inline(always)]
pub fn look(l: &mut Local) {
    if is_to_end(l) {
        end_here(l);
    }
}

#[inline(always)]
pub fn is_to_end(l: &Local) -> bool {
    let caller = CALLER.load(SeqCst);
    caller != 0 && caller != l.slot + 1
}

/// The process ends, and gives the lock away before it is gone: no other thread of it takes
/// that, for it would be gone in the middle of what it does.
pub fn nobody_goes_on(l: &Local) {
    CALLER.store(l.slot + 1, SeqCst);
}

/// A forked child has none of it, and none of its parent's other threads.
pub fn leave(own: &Local) {
    CALLER.store(0, SeqCst);
    FIRST.store(core::ptr::null_mut(), SeqCst);
    for slot in (0..MAX_THREADS).filter(|&slot| slot != own.slot as usize) {
        // SAFETY: under the big lock; blocks stay mapped, and `gone` is atomic.
        unsafe {
            if (*(&raw const BLOCKS))[slot] != 0 {
                (*local_of(slot)).gone.store(0, SeqCst);
            }
        }
    }
}

/// Ends all other threads of the process. The caller holds the lock; afterwards it is alone
/// in the tables.
pub fn end_others(l: &mut Local) {
    let e = engine();
    stop_others(l);
    CALLER.store(l.slot + 1, SeqCst);
    for slot in 0..e.thread_high {
        let p = e.threads[slot];
        if p.is_null() || core::ptr::eq(p, l) {
            continue;
        }
        // SAFETY: blocks are never unmapped; the thread is stopped, and ends.
        let t = unsafe { &mut *p };
        await_end(t);
        keep_signals(l, t);
        signal::for_process::leaves(slot as u32, None);
        let record = &mut state().threads[slot];
        record.used = 0;
        let (head, tid) = (record.robust_list[0], record.tid);
        record.robust_list = [0; 2];
        if head != 0 {
            release_robust(head, tid);
        }
        if t.held_until != 0 {
            sys!(TIMER_DELETE, t.held_by);
        }
        e.threads[slot] = core::ptr::null_mut();
        e.thread_count.fetch_sub(1, SeqCst);
    }
    CALLER.store(0, SeqCst);
    e.stopping.store(0, SeqCst);
    if !run::has_company() {
        crate::event::company(false);
    }
    // What the others did may matter to the last one.
    crate::event::mark();
    run::orphans::others_ended(l);
}

/// Whether the kernel's first thread waits to take the place of this one, the last.
pub fn first_takes_over(l: &Local) -> bool {
    first().is_some_and(|first| may_take_over(l, first))
}

fn first() -> Option<&'static mut Local> {
    // SAFETY: blocks are never unmapped; the first thread touches its own no more until it
    // is told to take over.
    unsafe { FIRST.load(SeqCst).as_mut() }
}

/// Whether the first thread has the rights of the caller, and is scheduled as it is.
fn may_take_over(l: &Local, first: &Local) -> bool {
    let threads = &state().threads;
    let (own, its) = (&threads[l.slot as usize], &threads[first.slot as usize]);
    own.credentials == its.credentials && own.schedule == its.schedule
}

/// Tells a stopped thread to end, until it has.
fn await_end(t: &Local) {
    let e = engine();
    let is_first = t.tid == e.pid;
    let ended = || match is_first {
        true => core::ptr::eq(FIRST.load(SeqCst), t),
        false => t.gone.load(SeqCst) == 0,
    };
    while !ended() {
        t.attention
            .fetch_or(ATTENTION_STOP | ATTENTION_STAGE, SeqCst);
        sys!(TGKILL, e.pid, t.tid, signal::STOP);
        // It may wait for the end of a stop: it looks again.
        sys!(FUTEX, &raw const e.stopping, FUTEX_WAKE_PRIVATE, i32::MAX);
        for _ in 0..200 {
            if ended() {
                return;
            }
            sys!(SCHED_YIELD);
        }
    }
}

/// A thread that has ended is in /proc for a moment longer, also one that had ended by itself.
/// Behind an exec none is: waits until the kernel has so many threads of this process.
pub fn await_only(threads: u64) {
    const PATIENCE: usize = 1_000_000;
    if engine().thread_high <= 1 {
        return;
    }
    for _ in 0..PATIENCE {
        // A link for each, besides those of the directory itself.
        match stat_at(proc::folder(), proc::below(b"/proc/self/task\0"), 0) {
            Ok(st) if st.nlink > 2 + threads => _ = sys!(SCHED_YIELD),
            _ => return,
        }
    }
}

/// Signals to the process that a thread has taken and not seen yet: another one sees them.
fn keep_signals(l: &mut Local, from: &Local) {
    const SI_TKILL: i32 = -6;
    for info in from.queue.waiting() {
        let synchronous = info.code > 0 && matches!(info.signo, 4 | 5 | 7 | 8 | 11);
        if info.code != SI_TKILL && !synchronous {
            l.queue.push(info);
            l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
        }
    }
}

/// What the kernel knows of this thread's memory, which is about to be another program's.
fn give_up_memory(l: &Local) {
    let rseq = state().threads[l.slot as usize].rseq;
    if rseq[0] != 0 {
        sys!(RSEQ, rseq[0], rseq[1], 1, rseq[2]);
    }
    sys!(SET_ROBUST_LIST, 0, 24);
}

#[cold]
fn end_here(l: &mut Local) -> ! {
    let all = signal::ALL_BUT_FAULTS;
    sys!(RT_SIGPROCMASK, 2, &raw const all, 0, 8);
    give_up_memory(l);
    if l.tid == engine().pid {
        wait_as_first(l);
    }
    entry::exit_thread(0)
}

/// The first thread has exited, others go on: it waits outside of the program. It has left
/// the tables, and all signals are blocked.
pub fn wait_as_first(l: &mut Local) -> ! {
    l.gone.store(1, SeqCst);
    FIRST.store(l, SeqCst);
    let caller = loop {
        match OVER.load(SeqCst) {
            0 => futex::wait(&OVER, 0),
            caller => break caller,
        }
    };
    // SAFETY: the caller's block stays mapped; `gone` is atomic.
    let gone = unsafe { &(*local_of(caller as usize - 1)).gone };
    loop {
        match gone.load(SeqCst) {
            0 => break,
            now => futex::wait(gone, now),
        }
    }
    await_only(1);
    OVER.store(0, SeqCst);
    FIRST.store(core::ptr::null_mut(), SeqCst);
    exec::go_on(l)
}

/// The block of a slot that was ever used.
fn local_of(slot: usize) -> *const Local {
    // SAFETY: under the big lock, which the caller has left to this thread.
    let base = unsafe { (*(&raw const BLOCKS))[slot] };
    (base + ALT_LEN + STACK_LEN) as *const Local
}

/// The caller leaves everything to the first thread, and ends. It holds the lock, which
/// the first thread has from now on.
pub fn hand_over(l: &mut Local) -> ! {
    let Some(first) = first() else {
        unreachable!("asked before")
    };
    let all = signal::ALL_BUT_FAULTS;
    sys!(RT_SIGPROCMASK, 2, &raw const all, 0, 8);
    signal::collect_blocked(l);
    give_up_memory(l);
    signal::for_process::leaves(l.slot, Some(first.slot));
    let (own, its) = (l.slot as usize, first.slot as usize);
    let threads = &mut state().threads;
    let record = &mut threads[own];
    let (head, tid) = (record.robust_list[0], record.tid);
    if head != 0 {
        release_robust(head, tid);
    }
    (record.robust_list, record.rseq) = ([0; 2], [0; 3]);
    record.used = 0;
    let (mask, cpu) = (record.sigmask, record.cpu);
    object::seccomp::take_over(l, first);
    let heir = &mut threads[its];
    heir.used = 1;
    heir.sigmask = mask;
    heir.cpu = cpu;
    heir.has_no_call_under_way();
    (heir.robust_list, heir.rseq) = ([0; 2], [0; 3]);
    first.queue = l.queue;
    first.state.store(RUNTIME, SeqCst);
    first.attention.store(ATTENTION_SIGNAL, SeqCst);
    first.gone.store(0, SeqCst);
    (first.again, first.interrupted, first.early) = (false, false, false);
    (first.commit_after, first.outlives, first.chance) = (false, false, false);
    (first.held_until, first.moved, first.flooded) = (0, true, false);
    first.awaited = [(0, 0); 4];
    let e = engine();
    e.threads[own] = core::ptr::null_mut();
    e.threads[its] = first;
    OVER.store(l.slot + 1, SeqCst);
    futex::wake_all(&OVER);
    entry::exit_thread(0)
}
