//! Birth and death of threads: clone, clone3, exit, and what the kernel does for
//! a thread when it goes (robust mutexes, the word that it clears).
#![allow(unsafe_code)]

use super::*;
use crate::run::birth::{self, Wanted};

const CLONE_PIDFD: u64 = 0x1000;
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
    if is_contradictory(flags) {
        return -EINVAL;
    }
    if flags & CLONE_THREAD == 0 {
        let with_pidfd = flags as u64 & CLONE_PIDFD != 0;
        if with_pidfd && flags & CLONE_PARENT_SETTID != 0 {
            return -EINVAL;
        }
        return birth::fork(
            l,
            Wanted {
                pidfd_at: if with_pidfd { parent_tid } else { 0 },
                flags,
                stack,
                parent_tid,
                child_tid,
                tls,
                exit_signal: flags & 0xff,
            },
        );
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
    let args = match clone_args(a[0], a[1]) {
        Ok(args) => args,
        Err(e) => return -e,
    };
    let flags = args[0] as usize;
    if flags & CLONE_THREAD == 0 {
        return by_clone3(l, &args);
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

/// What clone3(2) is given, as far as the kernel takes it.
fn clone_args(at: usize, size: usize) -> Result<[u64; 11], isize> {
    const KNOWN: usize = 88;
    const CSIGNAL: u64 = 0xff;
    const CLONE_NEWTIME: u64 = 0x80;
    const CLONE_PARENT: u64 = 0x8000;
    const CLONE_DETACHED: u64 = 0x40_0000;
    const CLONE_ANY: u64 = 0x3_ffff_ffff;
    if size > dc_image::window::PAGE {
        return Err(E2BIG);
    }
    if size < 64 {
        return Err(EINVAL);
    }
    let mut args = [0u64; 11];
    for (i, arg) in args.iter_mut().enumerate().take(size.div_ceil(8)) {
        let mut bytes = [0u8; 8];
        let len = (size - i * 8).min(8);
        if !user::read_bytes(at + i * 8, &mut bytes[..len]) {
            return Err(EFAULT);
        }
        *arg = u64::from_le_bytes(bytes);
    }
    // Of a newer program than we know: what it does not use is zero.
    for i in KNOWN..size {
        match user::read::<u8>(at + i) {
            Some(0) => {}
            Some(_) => return Err(E2BIG),
            None => return Err(EFAULT),
        }
    }
    let [
        flags,
        _,
        _,
        _,
        exit_signal,
        stack,
        stack_size,
        _,
        set_tid,
        set_tid_size,
        _,
    ] = args;
    let refused = flags & !CLONE_ANY != 0
        || flags & (CLONE_DETACHED | CSIGNAL & !CLONE_NEWTIME) != 0
        || flags & (CLONE_THREAD as u64 | CLONE_PARENT) != 0 && exit_signal != 0
        || exit_signal > 64
        || (stack == 0) != (stack_size == 0)
        || set_tid_size > 32
        || (set_tid == 0) != (set_tid_size == 0);
    if refused || is_contradictory(flags as usize) {
        return Err(EINVAL);
    }
    Ok(args)
}

/// Flags of which the kernel takes none without, or none with, another.
pub fn is_contradictory(flags: usize) -> bool {
    const CLONE_FS: usize = 0x200;
    const CLONE_SIGHAND: usize = 0x800;
    const CLONE_NEWNS: usize = 0x2_0000;
    const CLONE_NEWUSER: usize = 0x1000_0000;
    flags & CLONE_FS != 0 && flags & (CLONE_NEWNS | CLONE_NEWUSER) != 0
        || flags & CLONE_THREAD != 0 && flags & CLONE_SIGHAND == 0
        || flags & CLONE_SIGHAND != 0 && flags & CLONE_VM == 0
}

/// clone3(2) of a process. What it offers beyond clone(2) and is not kept (a wanted id,
/// cgroups) is refused, whereupon a libc asks clone(2).
fn by_clone3(l: &mut Local, args: &[u64; 11]) -> isize {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_NEWTIME: u64 = 0x80;
    let flags = args[0];
    let beyond = CLONE_INTO_CGROUP | CLONE_CLEAR_SIGHAND | CLONE_NEWTIME;
    if flags & beyond != 0 || args[9] != 0 {
        return -ENOSYS;
    }
    birth::fork(
        l,
        Wanted {
            pidfd_at: if flags & CLONE_PIDFD != 0 {
                args[1] as usize
            } else {
                0
            },
            flags: flags as usize,
            stack: (args[5] + args[6]) as usize,
            parent_tid: args[3] as usize,
            child_tid: args[2] as usize,
            tls: args[7] as usize,
            exit_signal: args[4] as usize,
        },
    )
}

fn birth(l: &mut Local, b: Birth) -> isize {
    const CLONE_FS: usize = 0x200;
    const CLONE_FILES: usize = 0x400;
    const CLONE_SIGHAND: usize = 0x800;
    const SHARED: usize = CLONE_FS | CLONE_FILES | CLONE_SIGHAND;
    if b.flags & CLONE_VM == 0 || b.stack == 0 {
        return -EINVAL;
    }
    if b.flags & SHARED != SHARED {
        crate::say!(
            "a thread with descriptors or a working directory of its own is not supported: clone is refused"
        );
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
    signal::held::count_from(child, 0);
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
    record.has_no_call_under_way();
    crate::object::identity::inherit(l.slot, child.slot);
    object::seccomp::inherit(l, child);
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
    crate::event::company(true);
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
    let r = unsafe { entry::clone_to(args.as_ptr().cast(), 88, child, thread_main) };
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
    run::me().active.fetch_sub(1, SeqCst);
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
    end_one(l, guard, a[0])
}

/// A thread ends, and others are left.
pub fn end_one(l: &mut Local, guard: Guard, code: usize) -> ! {
    let e = engine();
    run::orphans::thread_ends(l, state().threads[l.slot as usize].tid);
    signal::for_process::leaves(l.slot, None);
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
    let is_first = l.tid == e.pid;
    if is_first {
        // Its block is not for others.
        l.gone.store(1, SeqCst);
    }
    e.threads[l.slot as usize] = core::ptr::null_mut();
    let left = e.thread_count.fetch_sub(1, SeqCst) - 1;
    run::me().active.fetch_sub(1, SeqCst);
    if left == 1 {
        crate::event::company(run::has_company());
        // What the others did may matter to the last one.
        crate::event::mark();
    }
    drop(guard);
    if is_first {
        last::wait_as_first(l);
    }
    entry::exit_thread(code)
}

/// Marks the robust mutexes that a dying thread still holds, as the kernel
/// does it: a commit must not fall between its death and their release.
/// (`struct robust_list_head`: next, offset of the futex word, pending.)
pub fn release_robust(head: usize, tid: i32) {
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
            crate::space::shared::open(at, at + 4);
            let free = word & WAITERS | OWNER_DIED;
            if !user::write(at, &free) {
                engine().pieces.wake(at, at + 4);
                user::write(at, &free);
            }
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

/// The same of all threads of a process that ends. The kernel would do it behind the end of the
/// last one, but it cannot store where stores are noted ([`crate::space::shared`]), and says
/// nothing. The caller holds the lock, and all other threads are stopped.
pub fn release_all_robust() {
    for slot in 0..engine().thread_high {
        let record = &mut state().threads[slot];
        let (head, tid) = (record.robust_list[0], record.tid);
        if record.used != 0 && head != 0 {
            record.robust_list = [0; 2];
            release_robust(head, tid);
        }
    }
    sys!(SET_ROBUST_LIST, 0, 24);
}

pub fn set_tid_address(l: &mut Local, a: [usize; 6]) -> isize {
    state().threads[l.slot as usize].clear_tid = a[0];
    state().threads[l.slot as usize].tid as isize
}

/// The id that the program knows this thread by.
pub fn gettid(l: &mut Local, _a: [usize; 6]) -> isize {
    state().threads[l.slot as usize].tid as isize
}

/// The slot of a thread that the program names.
pub fn slot_of(tid: i32) -> Option<usize> {
    (0..engine().thread_high)
        .find(|&slot| !engine().threads[slot].is_null() && state().threads[slot].tid == tid)
}

/// Its real id.
pub fn real_tid(tid: i32) -> i32 {
    match slot_of(tid) {
        // SAFETY: blocks are never unmapped.
        Some(slot) => unsafe { (*engine().threads[slot]).tid },
        None => tid,
    }
}

/// The id that the program knows for one of the kernel's.
pub fn known_tid(real: i32) -> i32 {
    (0..engine().thread_high)
        // SAFETY: blocks are never unmapped.
        .find(|&slot| match unsafe { engine().threads[slot].as_ref() } {
            Some(l) => l.tid == real && state().threads[slot].used != 0,
            None => false,
        })
        .map_or(real, |slot| state().threads[slot].tid)
}

pub fn set_robust_list(l: &mut Local, a: [usize; 6]) -> isize {
    let r = sys!(SET_ROBUST_LIST, a[0], a[1]);
    if !failed(r) {
        state().threads[l.slot as usize].robust_list = [a[0], a[1]];
    }
    r
}

/// The kernel writes into the area as the call returns, and where it cannot it
/// sends SIGSEGV instead of saying EFAULT: a new thread's stack may be an old one
/// that has fallen asleep.
pub fn rseq(l: &mut Local, a: [usize; 6]) -> isize {
    engine().pieces.wake(a[0], a[0].saturating_add(a[1]));
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
