//! Threads: the big lock, waiting in the kernel, stopping all for a commit,
//! birth and death.
//!
//! A thread is in the program, in the runtime, or stopped. "Stopped" means
//! that its context is complete and stays as it is: it waits in a kernel call
//! that has no effect until it returns, for the lock, or for the end of a
//! commit. A commit waits until every other thread is stopped; the ones in the
//! program are sent a signal, the ones in the runtime stop by themselves at
//! the latest when they leave it.

use crate::engine::{MAX_THREADS, engine, state};
use crate::machine::entry::{self, local};
use crate::machine::frame::*;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{user, vector};
use crate::{signal, sys};
use core::sync::atomic::{AtomicU32, Ordering::*};

const FUTEX_WAIT_PRIVATE: usize = 128;
const FUTEX_WAKE_PRIVATE: usize = 129;

/// The big lock of the runtime. A thread that is alone takes it by a plain store:
/// nobody can be there before it has given life to another one, which it does with
/// the lock in its hands.
pub struct Lock {
    word: AtomicU32,
}

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const WAITED_FOR: u32 = 2;
const TAKEN_ALONE: u32 = 3;

/// Held until dropped.
pub struct Guard;

impl Lock {
    pub const fn new() -> Lock {
        Lock {
            word: AtomicU32::new(FREE),
        }
    }

    /// Takes the lock; while it waits, the thread counts as stopped.
    #[inline(always)]
    pub fn acquire(&self, l: &mut Local) -> Guard {
        if engine().thread_count.load(Relaxed) == 1 && self.word.load(Relaxed) == FREE {
            self.word.store(TAKEN_ALONE, Relaxed);
        } else if !self.try_acquire() {
            self.acquire_slowly(l);
        }
        Guard
    }

    fn try_acquire(&self) -> bool {
        let w = &self.word;
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
        while self.word.swap(WAITED_FOR, Acquire) != FREE {
            sys!(
                FUTEX,
                &raw const self.word,
                FUTEX_WAIT_PRIVATE,
                WAITED_FOR,
                0
            );
        }
        // The holder of the lock is never in a commit when it gives it away.
        l.state.store(RUNTIME, SeqCst);
    }

    fn release(&self) {
        let alone = engine().thread_count.load(Relaxed) == 1;
        if alone && self.word.load(Relaxed) == TAKEN_ALONE {
            self.word.store(FREE, Release);
        } else if self.word.swap(FREE, Release) == WAITED_FOR {
            sys!(FUTEX, &raw const self.word, FUTEX_WAKE_PRIVATE, 1);
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
    if engine().thread_count.load(Relaxed) > 1 {
        // SAFETY: the thread's own area.
        unsafe { vector::save_compact(l.xsave.bytes.as_mut_ptr()) };
        l.frame.fs_base = vector::fs_base();
    }
    l.state.store(STOPPED, SeqCst);
}

/// Goes on, after the end of a commit if one is under way.
pub fn leave_stopped(l: &mut Local) {
    loop {
        l.state.store(RUNTIME, SeqCst);
        let stopping = engine().stopping.load(SeqCst);
        if stopping == 0 {
            return;
        }
        l.state.store(STOPPED, SeqCst);
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
    enter_stopped(l);
    // SAFETY: the arguments are the program's own or point to the runtime's
    // memory; the call is one of those that may be repeated.
    let r = unsafe { entry::interruptible(nr, &args) };
    leave_stopped(l);
    r
}

/// As [`wait`], but a break for the runtime's own sake is not seen outside.
pub fn wait_or_signal(l: &mut Local, nr: usize, args: [usize; 6]) -> isize {
    loop {
        let r = wait(l, nr, args);
        if r != -EINTR {
            return r;
        }
        if signal_waits(l) {
            l.interrupted = true;
            return r;
        }
        if l.attention.load(SeqCst) & ATTENTION_STOP != 0 {
            pause_for_stop(l);
        } else {
            l.attention.fetch_and(!ATTENTION_SIGNAL, SeqCst);
        }
    }
}

/// Whether a signal waits that this thread will take.
pub fn signal_waits(l: &Local) -> bool {
    // Signals wait until a replay is over.
    !engine().log.replay.is_active() && l.queue.pending() & !signal::mask_of(l) != 0
}

/// Stops every other thread; the caller holds the lock.
pub fn stop_others(me: &mut Local) {
    let e = engine();
    if e.thread_count.load(Relaxed) <= 1 {
        return;
    }
    e.stopping.store(1, SeqCst);
    let pid = sys!(GETPID);
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

/// Ends [`stop_others`].
pub fn resume_others() {
    let e = engine();
    if e.stopping.swap(0, SeqCst) != 0 {
        sys!(FUTEX, &raw const e.stopping, FUTEX_WAKE_PRIVATE, i32::MAX);
    }
}

/// A thread that is asked to stop does so here.
pub fn pause_for_stop(l: &mut Local) {
    l.attention.fetch_and(!ATTENTION_STOP, SeqCst);
    if engine().stopping.load(SeqCst) != 0 {
        enter_stopped(l);
        leave_stopped(l);
    }
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
pub extern "C" fn thread_main(l: &'static mut Local) -> ! {
    arm(l);
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

const CLONE_VM: usize = 0x100;
const CLONE_THREAD: usize = 0x10000;
const CLONE_SETTLS: usize = 0x80000;
const CLONE_PARENT_SETTID: usize = 0x100000;
const CLONE_CHILD_CLEARTID: usize = 0x200000;
const CLONE_CHILD_SETTID: usize = 0x1000000;
/// VM | FS | FILES | SIGHAND | THREAD | SYSVSEM
const THREAD_FLAGS: usize = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000;

/// What a program asks for when it makes a thread.
pub struct Birth {
    pub flags: usize,
    pub stack: usize,
    pub parent_tid: usize,
    pub child_tid: usize,
    pub tls: usize,
}

/// clone(2).
pub fn clone(l: &mut Local, a: [usize; 6]) -> isize {
    let [flags, stack, parent_tid, child_tid, tls, _] = a;
    if flags & CLONE_THREAD == 0 {
        return crate::object::children::fork(l, crate::machine::nr::CLONE, a);
    }
    birth(
        l,
        Birth {
            flags,
            stack,
            parent_tid,
            child_tid,
            tls,
        },
    )
}

/// clone3(2).
pub fn clone3(l: &mut Local, a: [usize; 6]) -> isize {
    let mut args = [0u64; 11];
    let len = a[1].min(88);
    // SAFETY: plain bytes of the array.
    let bytes = unsafe { core::slice::from_raw_parts_mut(args.as_mut_ptr().cast::<u8>(), len) };
    if a[1] < 64 {
        return -EINVAL;
    }
    if !user::read_bytes(a[0], bytes) {
        return -EFAULT;
    }
    let flags = args[0] as usize;
    if flags & CLONE_THREAD == 0 {
        return -ENOSYS; // libc then uses clone or fork
    }
    birth(
        l,
        Birth {
            flags,
            stack: (args[5] + args[6]) as usize,
            parent_tid: args[3] as usize,
            child_tid: args[2] as usize,
            tls: args[7] as usize,
        },
    )
}

fn birth(l: &mut Local, b: Birth) -> isize {
    if b.flags & CLONE_VM == 0 || b.stack == 0 {
        return -EINVAL;
    }
    let _guard = engine().lock.acquire(l);
    let Some(child) = new_local() else {
        return -EAGAIN;
    };
    child.frame = l.frame;
    child.frame.rax = 0;
    child.frame.rsp = b.stack;
    child.frame.fs_base = if b.flags & CLONE_SETTLS != 0 {
        b.tls
    } else {
        vector::fs_base()
    };
    child.again = false;
    child.has_vectors = true;
    // SAFETY: the child's own area.
    unsafe {
        vector::save_compact(child.xsave.bytes.as_mut_ptr());
        vector::set_xmm(child.xsave.bytes.as_mut_ptr(), &l.frame.xmm);
    }
    let parent_mask = state().threads[l.slot as usize].sigmask;
    let parent_name = state().threads[l.slot as usize].name;
    let record = &mut state().threads[child.slot as usize];
    record.sigmask = parent_mask;
    record.name = parent_name;
    record.altstack = [0, 2, 0];
    record.clear_tid = if b.flags & CLONE_CHILD_CLEARTID != 0 {
        b.child_tid
    } else {
        0
    };
    record.robust_list = [0; 2];
    record.rseq = [0; 3];
    record.has_saved_mask = 0;
    let tid = spawn(child, 0);
    if failed(tid) {
        forget(child);
        return tid;
    }
    state().threads[child.slot as usize].used = 1;
    state().threads[child.slot as usize].tid = tid as i32;
    if b.flags & CLONE_PARENT_SETTID != 0 {
        user::write(b.parent_tid, &(tid as i32));
    }
    if b.flags & CLONE_CHILD_SETTID != 0 {
        user::write(b.child_tid, &(tid as i32));
    }
    // Several threads: their interleaving is non-deterministic from now on.
    crate::event::threads(true);
    child.ready.store(1, SeqCst);
    sys!(FUTEX, &raw const child.ready, FUTEX_WAKE_PRIVATE, 1);
    tid
}

/// Makes the kernel's thread; with a wanted id if `tid` is not 0.
pub fn spawn(child: &mut Local, tid: i32) -> isize {
    let want = tid;
    let top = child.stack_top;
    child.gone.store(1, SeqCst);
    let args: [u64; 11] = [
        (THREAD_FLAGS | CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID) as u64,
        0,
        &raw const child.gone as u64,
        &raw mut child.tid as u64,
        0,
        (top - STACK_LEN) as u64,
        STACK_LEN as u64,
        0,
        if tid != 0 { &raw const want as u64 } else { 0 },
        (tid != 0) as u64,
        0,
    ];
    // All signals wait until the thread has its own block behind gs.
    let all = signal::ALL_BUT_FAULTS;
    let mut old = 0u64;
    sys!(RT_SIGPROCMASK, 2, &raw const all, &raw mut old, 8);
    // SAFETY: stack and block are the child's own.
    let r = unsafe { entry::clone_thread(args.as_ptr().cast(), 88, child) };
    sys!(RT_SIGPROCMASK, 2, &raw const old, 0, 8);
    if failed(r) {
        child.gone.store(0, SeqCst);
    }
    r
}

fn forget(child: &mut Local) {
    let e = engine();
    e.threads[child.slot as usize] = core::ptr::null_mut();
    e.thread_count.fetch_sub(1, SeqCst);
    state().threads[child.slot as usize].used = 0;
}

/// exit(2): the thread ends, the process goes on if others are left.
pub fn exit(l: &mut Local, a: [usize; 6]) -> isize {
    let e = engine();
    let guard = e.lock.acquire(l);
    if e.thread_count.load(SeqCst) == 1 {
        drop(guard);
        return crate::object::process::exit_group(l, a);
    }
    let record = &mut state().threads[l.slot as usize];
    record.used = 0;
    let clear = record.clear_tid;
    // Whoever joins this thread may free its memory as soon as it is told:
    // the kernel must not know of any of it by then.
    let rseq = record.rseq;
    if rseq[0] != 0 {
        sys!(RSEQ, rseq[0], rseq[1], 1, rseq[2]);
    }
    let (head, tid) = (record.robust_list[0], record.tid);
    if head != 0 {
        sys!(SET_ROBUST_LIST, 0, 24);
        release_robust(head, tid);
    }
    if clear != 0 {
        user::write(clear, &0i32);
        sys!(FUTEX, clear, 1, 1);
    }
    let all = signal::ALL_BUT_FAULTS;
    sys!(RT_SIGPROCMASK, 2, &raw const all, 0, 8);
    e.threads[l.slot as usize] = core::ptr::null_mut();
    let left = e.thread_count.fetch_sub(1, SeqCst) - 1;
    if left == 1 {
        crate::event::threads(false);
        // What the others did may matter to the last one.
        crate::event::mark(local());
    }
    drop(guard);
    entry::exit_thread(a[0])
}

/// Marks the robust mutexes that a dying thread still holds, as the kernel
/// does it: a commit must not fall between its death and their release.
/// (`struct robust_list_head`: next, offset of the futex word, pending.)
fn release_robust(head: usize, tid: i32) {
    const WAITERS: u32 = 0x8000_0000;
    const OWNER_DIED: u32 = 0x4000_0000;
    const TID_MASK: u32 = 0x3fff_ffff;
    let Some([first, offset, pending]) = user::read::<[usize; 3]>(head) else {
        return;
    };
    let mark = |entry: usize| {
        if entry & !1 == 0 {
            return;
        }
        let at = (entry & !1).wrapping_add(offset);
        let Some(word) = user::read::<u32>(at) else {
            return;
        };
        if word & TID_MASK == tid as u32 {
            // Only the owner changes the owner; waiters may set their bit.
            user::write(at, &(word & WAITERS | OWNER_DIED));
            const FUTEX_WAKE: usize = 1;
            sys!(FUTEX, at, FUTEX_WAKE, 1);
        }
    };
    let mut at = first;
    for _ in 0..2048 {
        if at & !1 == head || at == 0 {
            break;
        }
        let next = user::read::<usize>(at & !1).unwrap_or(head);
        if at != pending {
            mark(at);
        }
        at = next;
    }
    mark(pending);
}

pub fn set_tid_address(l: &mut Local, a: [usize; 6]) -> isize {
    state().threads[l.slot as usize].clear_tid = a[0];
    state().threads[l.slot as usize].tid as isize
}

/// The id that the program knows this thread by.
pub fn gettid(l: &mut Local, _a: [usize; 6]) -> isize {
    state().threads[l.slot as usize].tid as isize
}

/// The real id of a thread that the program names.
pub fn real_tid(tid: i32) -> i32 {
    for slot in 0..engine().thread_high {
        let p = engine().threads[slot];
        if !p.is_null() && state().threads[slot].tid == tid {
            // SAFETY: blocks are never unmapped.
            return unsafe { (*p).tid };
        }
    }
    tid
}

pub fn set_robust_list(l: &mut Local, a: [usize; 6]) -> isize {
    let r = sys!(SET_ROBUST_LIST, a[0], a[1]);
    if !failed(r) {
        state().threads[l.slot as usize].robust_list = [a[0], a[1]];
    }
    r
}

pub fn rseq(l: &mut Local, a: [usize; 6]) -> isize {
    let r = sys!(RSEQ, a[0], a[1], a[2], a[3]);
    if !failed(r) {
        state().threads[l.slot as usize].rseq = if a[2] == 0 {
            [a[0], a[1], a[3]]
        } else {
            [0; 3]
        };
    }
    r
}
