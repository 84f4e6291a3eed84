//! Threads: the big lock, waiting in the kernel, stopping all for a commit.
//! Birth and death have a file of their own.
//!
//! A thread is in the program, in the runtime, or stopped. "Stopped" means
//! that its context is complete and stays as it is: it waits in a kernel call
//! that has no effect until it returns, for the lock, or for the end of a
//! commit. A commit waits until every other thread is stopped; the ones in the
//! program are sent a signal, the ones in the runtime stop by themselves at
//! the latest when they leave it.
#![allow(unsafe_code)]

mod birth;
pub mod deadline;
pub mod last;
pub mod moment;
pub mod names;

pub use birth::*;

use self::deadline::Deadline;
use crate::engine::{MAX_THREADS, engine, state};
use crate::machine::entry::{self};
use crate::machine::frame::*;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{futex, nr, user, vector};
use crate::run::{self, unit};
use crate::{object, signal, sys};
use core::sync::atomic::{AtomicU32, Ordering::*};

const FUTEX_WAIT_PRIVATE: usize = 128;
const FUTEX_WAKE_PRIVATE: usize = 129;

/// The big lock of the runtime, one for all processes of the run: its word lies in the
/// run's image. A thread that is alone in the run takes it by a plain store: nobody can be
/// there before it has given life to another one, which it does with the lock in its hands.
pub struct Lock;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const WAITED_FOR: u32 = 2;
const TAKEN_ALONE: u32 = 3;

/// Held until dropped.
pub struct Guard;

impl Lock {
    #[inline(always)]
    fn word(&self) -> &'static AtomicU32 {
        &run::run().lock
    }

    /// Takes the lock; while it waits, the thread counts as stopped.
    #[inline(always)]
    pub fn acquire(&self, l: &mut Local) -> Guard {
        let word = self.word();
        if run::is_alone() && word.load(Relaxed) == FREE {
            word.store(TAKEN_ALONE, Relaxed);
        } else {
            if !self.try_acquire() {
                self.acquire_slowly(l);
            }
            run::holds_lock();
            unit::runs();
        }
        Guard
    }

    fn try_acquire(&self) -> bool {
        let w = self.word();
        w.compare_exchange(FREE, TAKEN, Acquire, Relaxed).is_ok()
    }

    #[cold]
    fn acquire_slowly(&self, l: &mut Local) {
        for _ in 0..100 {
            if self.try_acquire() {
                return;
            }
            core::hint::spin_loop();
        }
        enter_stopped(l);
        while self.word().swap(WAITED_FOR, Acquire) != FREE {
            last::look(l);
            unit::wait_for_lock(l, self.word(), WAITED_FOR);
        }
        if last::is_to_end(l) {
            self.release();
            last::look(l);
        }
        // Another thread of this process may have yet to end its part in a commit.
        unit::await_own_end();
        // The holder of the lock is never in a commit when it gives it away.
        unit::goes();
        l.state.store(RUNTIME, SeqCst);
        run::signals::look_soon(l);
    }

    fn release(&self) {
        if self.is_waited_for() {
            futex::wake_one(self.word());
        }
    }

    /// Frees it; whether somebody is to be woken.
    fn is_waited_for(&self) -> bool {
        let word = self.word();
        if run::is_alone() && word.load(Relaxed) == TAKEN_ALONE {
            word.store(FREE, Release);
            return false;
        }
        word.swap(FREE, Release) == WAITED_FOR
    }

    /// Gives it away, by a process that ends with it in its hands. All are woken: one might be
    /// another thread of this process, which is gone before it can wake the next.
    pub fn give_up(&self) {
        if self.is_waited_for() {
            futex::wake_all(self.word());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        engine().lock.release();
    }
}

/// From here on a commit need not wait for this thread.
pub fn enter_stopped(l: &mut Local) {
    l.moved = true;
    // A thread that a recovery makes has not loaded its registers before it goes on: until
    // then the processor holds those of the keeper, and the block those of the program.
    if !run::is_alone() && !l.has_vectors {
        // SAFETY: the thread's own area.
        unsafe { vector::save_compact(l.xsave.bytes.as_mut_ptr()) };
        l.frame.fs_base = vector::fs_base();
    }
    l.state.store(STOPPED, SeqCst);
    unit::stops();
}

/// Goes on, after the end of a commit if one is under way, in which the process takes its
/// part.
pub fn leave_stopped(l: &mut Local) {
    loop {
        last::look(l);
        unit::goes();
        l.state.store(RUNTIME, SeqCst);
        let stopping = engine().stopping.load(SeqCst);
        let unit = unit::is_stopping();
        if stopping == 0 && !unit {
            crate::run::signals::look_again(l);
            return;
        }
        l.state.store(STOPPED, SeqCst);
        unit::stops();
        if unit {
            unit::take_part(l);
            continue;
        }
        sys!(
            FUTEX,
            &raw const engine().stopping,
            FUTEX_WAIT_PRIVATE,
            stopping,
            0
        );
    }
}

/// A kernel call that may last. The lock must not be held.
pub fn wait(l: &mut Local, nr: usize, args: [usize; 6]) -> isize {
    run::signals::look_again(l);
    enter_stopped(l);
    // SAFETY: the arguments are the program's own or point to the runtime's
    // memory; the call is one of those that may be repeated.
    let r = unsafe {
        match is_never_broken_off(nr, &args) {
            true => crate::machine::sys::raw6(nr, args),
            false => entry::interruptible(nr, &args),
        }
    };
    leave_stopped(l);
    r
}

/// Whether the kernel ends a call before it looks for signals: a program is not ready for
/// its EINTR. PostgreSQL gives up on one of fdatasync(2), glibc on one of a wake.
fn is_never_broken_off(nr: usize, args: &[usize; 6]) -> bool {
    const LOCK_NB: usize = 4;
    const LOCK_UN: usize = 8;
    const FUTEX_COMMAND: usize = !(128 | 256);
    // WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2.
    const FUTEX_WAITS: [usize; 5] = [0, 6, 9, 11, 13];
    match nr {
        nr::FSYNC | nr::FDATASYNC | nr::SYNC_FILE_RANGE | nr::MSYNC | nr::SYNC | nr::SYNCFS => true,
        nr::FLOCK => args[1] & (LOCK_NB | LOCK_UN) != 0,
        nr::FUTEX => !FUTEX_WAITS.contains(&(args[1] & FUTEX_COMMAND)),
        _ => false,
    }
}

/// As [`wait`], but a break for the runtime's own sake is not seen outside.
pub fn wait_or_signal(l: &mut Local, nr: usize, mut args: [usize; 6]) -> isize {
    object::deferred_close::close_before_wait(l);
    let mut deadline = Deadline::of(l, nr, &args);
    deadline.begin(nr, &mut args);
    loop {
        let r = wait(l, nr, args);
        if deadline.goes_on(l, nr, &mut args, r) {
            continue;
        }
        if r != -EINTR {
            return deadline.give_back(r);
        }
        if signal_waits(l) {
            l.interrupted = true;
            return deadline.give_back(r);
        }
        wait_on(l);
        if l.attention.load(SeqCst) & ATTENTION_STOP != 0 {
            pause_for_stop(l);
            commit_for_tick(l);
        }
        deadline.shorten(&mut args);
    }
}

/// A tick of the clock has broken off a wait, which has had no effect: it is committed as
/// it stands.
pub fn commit_for_tick(l: &mut Local) {
    if crate::event::takes_tick() {
        let _guard = engine().lock.acquire(l);
        crate::event::commit_and_move(l);
    }
}

/// A wait was broken off, but not by a signal that the thread will take now. One
/// that came since breaks off the next one.
pub fn wait_on(l: &mut Local) {
    run::signals::look_again(l);
    l.attention.fetch_and(!ATTENTION_SIGNAL, SeqCst);
    if signal_waits(l) {
        l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
    }
}

/// futex(2). A futex that is shared is known by the memory behind its page, so
/// the page must be what it will be when the others come: the program's own, as
/// it is when it is written, not a frame of the image.
pub fn futex(l: &mut Local, a: [usize; 6]) -> isize {
    const PRIVATE: usize = 128;
    if a[1] & PRIVATE == 0 && engine().pieces.any() {
        engine().pieces.wake(a[0], a[0].saturating_add(4));
        engine().pieces.wake(a[4], a[4].saturating_add(4));
    }
    let nr = l.frame.nr;
    wait_or_signal(l, nr, a)
}

/// futex_waitv(2): entries of value, address and flags.
pub fn futex_waitv(l: &mut Local, a: [usize; 6]) -> isize {
    if engine().pieces.any() {
        for i in 0..a[1].min(128) {
            let Some(entry) = user::read::<[usize; 3]>(a[0].wrapping_add(i * 24)) else {
                break;
            };
            engine().pieces.wake(entry[1], entry[1].saturating_add(4));
        }
    }
    let nr = l.frame.nr;
    wait_or_signal(l, nr, a)
}

/// Whether a signal waits that this thread will take.
pub fn signal_waits(l: &Local) -> bool {
    // Signals wait until what was seen of the program is caught up with.
    !crate::event::is_behind()
        && signal::waiting_for(l) & !signal::mask_of(l) & !signal::held::mask(l) != 0
}

/// A signal broke off a transfer of which nothing was made. If it would not have
/// waited, then the signal came before it: a kernel looks for signals only when it
/// is about to wait, and a program need not expect EINTR where it never does.
pub fn broken_off(l: &mut Local, fd: i32, events: i16) {
    l.interrupted = true;
    l.early = object::poll::ready_now(fd, events);
}

/// Stops every other thread; the caller holds the lock.
pub fn stop_others(me: &mut Local) {
    let e = engine();
    if e.thread_count.load(Relaxed) <= 1 {
        return;
    }
    e.stopping.store(1, SeqCst);
    let pid = e.pid;
    for slot in 0..e.thread_high {
        let p = e.threads[slot];
        if p.is_null() || core::ptr::eq(p, me) {
            continue;
        }
        // SAFETY: blocks are never unmapped; only atomics are touched.
        let t = unsafe { &*p };
        t.attention.fetch_or(ATTENTION_STOP, SeqCst);
        if t.state.load(SeqCst) == PROGRAM {
            sys!(TGKILL, pid, t.tid, signal::STOP);
        }
    }
    for slot in 0..e.thread_high {
        let p = e.threads[slot];
        if p.is_null() || core::ptr::eq(p, me) {
            continue;
        }
        // SAFETY: as above.
        let t = unsafe { &*p };
        let mut spins = 0u32;
        while t.state.load(SeqCst) != STOPPED {
            spins += 1;
            if spins > 200 {
                sys!(SCHED_YIELD);
            } else {
                core::hint::spin_loop();
            }
            if spins.is_multiple_of(20_000) && t.state.load(SeqCst) == PROGRAM {
                sys!(TGKILL, pid, t.tid, signal::STOP);
            }
        }
    }
}

/// The blocks of all other threads, which the caller has stopped.
pub fn others(me: &Local) -> impl Iterator<Item = &'static mut Local> {
    let e = engine();
    let threads = e.threads[..e.thread_high].iter();
    threads
        .filter(move |p| !p.is_null() && !core::ptr::eq(**p, me))
        // SAFETY: blocks are never unmapped, and their owners stand still.
        .map(|&p| unsafe { &mut *p })
}

/// Ends [`stop_others`].
pub fn resume_others() {
    let e = engine();
    if e.stopping.swap(0, SeqCst) != 0 {
        sys!(FUTEX, &raw const e.stopping, FUTEX_WAKE_PRIVATE, i32::MAX);
    }
}

/// A thread that is asked to stop does so here.
pub fn pause_for_stop(l: &mut Local) {
    l.attention
        .fetch_and(!(ATTENTION_STOP | ATTENTION_STAGE), SeqCst);
    if engine().stopping.load(SeqCst) != 0 || unit::is_stopping() {
        enter_stopped(l);
        leave_stopped(l);
    }
    crate::run::signals::look_again(l);
}

/// Bytes of a thread's block: alternate stack, runtime stack, Local.
const ALT_LEN: usize = 64 << 10;
const STACK_LEN: usize = 128 << 10;

/// A block for a new thread, or one whose owner is gone.
pub fn new_local() -> Option<&'static mut Local> {
    let e = engine();
    let slot = (0..MAX_THREADS).find(|&i| e.threads[i].is_null() && block_is_free(i))?;
    new_local_at(slot)
}

/// A block in a certain slot.
pub fn new_local_at(slot: usize) -> Option<&'static mut Local> {
    let e = engine();
    let base = block(slot)?;
    let local_at = base + ALT_LEN + STACK_LEN;
    let l = local_at as *mut Local;
    // SAFETY: a whole zeroed block, or one that no thread uses any more.
    let l = unsafe {
        core::ptr::write_bytes(l.cast::<u8>(), 0, size_of::<Local>());
        &mut *l
    };
    l.this = local_at as *mut Local;
    l.stack_top = local_at;
    l.entry = entry::syscall_entry as *const () as usize;
    l.time = crate::machine::clock::enter as *const () as usize;
    l.slot = slot as u32;
    l.state = AtomicU32::new(RUNTIME);
    l.frame = Frame::ZERO;
    l.moved = true;
    e.threads[slot] = l;
    e.thread_high = e.thread_high.max(slot + 1);
    e.thread_count.fetch_add(1, SeqCst);
    run::me().active.fetch_add(1, SeqCst);
    Some(l)
}

static mut BLOCKS: [usize; MAX_THREADS] = [0; MAX_THREADS];

fn block(slot: usize) -> Option<usize> {
    // SAFETY: under the big lock.
    let known = unsafe { &mut (*(&raw mut BLOCKS))[slot] };
    if *known == 0 {
        let p = engine()
            .arena
            .alloc(ALT_LEN + STACK_LEN + size_of::<Local>().next_multiple_of(4096));
        if p.is_null() {
            return None;
        }
        *known = p as usize;
    }
    Some(*known)
}

/// The kernel clears `gone` when a thread has really left its stack.
fn block_is_free(slot: usize) -> bool {
    // SAFETY: under the big lock.
    let base = unsafe { (*(&raw const BLOCKS))[slot] };
    if base == 0 {
        return true;
    }
    // SAFETY: the block stays mapped; `gone` is atomic.
    unsafe {
        (*((base + ALT_LEN + STACK_LEN) as *const Local))
            .gone
            .load(SeqCst)
            == 0
    }
}

/// What each thread needs in the kernel before it can run the program: gs,
/// the alternate stack of our handlers, Syscall User Dispatch.
pub fn arm(l: &mut Local) {
    const ARCH_SET_GS: usize = 0x1001;
    sys!(ARCH_PRCTL, ARCH_SET_GS, l.this);
    let ss = [l.this as usize - STACK_LEN - ALT_LEN, 0, ALT_LEN];
    sys!(SIGALTSTACK, &raw const ss, 0);
    const PR_SET_SYSCALL_USER_DISPATCH: usize = 59;
    let len = dc_image::window::RUNTIME_END - dc_image::window::RUNTIME_BASE;
    let r = sys!(
        PRCTL,
        PR_SET_SYSCALL_USER_DISPATCH,
        1,
        dc_image::window::RUNTIME_BASE,
        len,
        0
    );
    if failed(r) {
        panic!("this kernel has no Syscall User Dispatch (error {})", -r);
    }
}

/// First code of a new thread, on its own runtime stack.
pub extern "C" fn thread_main(l: *mut Local) -> ! {
    // SAFETY: it is this thread's own block, and is never unmapped.
    let l = unsafe { &mut *l };
    arm(l);
    object::identity::of_other_thread(l);
    let mask = state().threads[l.slot as usize].sigmask & !signal::RESERVED;
    sys!(RT_SIGPROCMASK, 2, &raw const mask, 0, 8);
    restore_kernel_pointers(l);
    restore_registers(l);
    // SAFETY: the frame is complete; gs is set.
    unsafe { entry::leave() }
}

/// What the kernel knew of a thread by address (nothing for a newborn).
pub fn restore_kernel_pointers(l: &mut Local) {
    let r = &state().threads[l.slot as usize];
    if r.robust_list[0] != 0 {
        sys!(SET_ROBUST_LIST, r.robust_list[0], r.robust_list[1]);
    }
    if r.rseq[0] != 0 {
        // It must look unregistered (cpu_id = -1 would do, 0 is what libc had).
        sys!(RSEQ, r.rseq[0], r.rseq[1], 0, r.rseq[2]);
    }
    if r.name[0] != 0 {
        sys!(PRCTL, 15, r.name.as_ptr());
    } else if state().root.comm[0] != 0 {
        sys!(PRCTL, 15, state().root.comm.as_ptr());
    }
}

/// Loads what is not in the frame.
pub fn restore_registers(l: &mut Local) {
    const ARCH_SET_FS: usize = 0x1002;
    sys!(ARCH_PRCTL, ARCH_SET_FS, l.frame.fs_base);
    if l.has_vectors {
        l.has_vectors = false;
        // SAFETY: filled by the creator of the thread or by recovery.
        unsafe { vector::load(l.xsave.bytes.as_ptr()) };
    }
}
