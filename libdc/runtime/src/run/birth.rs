//! fork, vfork, clone: a process of the run makes another one.
//!
//! The child is a full worker: dispatch is armed, it has the same tables, and its calls
//! go the way of all calls. It is a child of the keeper in the kernel, which reaps and
//! restarts all of them; who is whose child to the program stands in the table of
//! processes. Nothing is committed for its birth: like everything else that happened
//! since the last commit, it is gone after a rollback, and made again.
//!
//! The child of vfork(2) gets memory of its own all the same: see [`vfork`].
#![allow(unsafe_code)]

use super::{image, me, process, run, shared, signals, unit, vfork};
use crate::engine::{add, engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::object::cpu_time::CpuTime;
use crate::space::{self, gather};
use crate::{event, fatal, object, signal, sys, sysv, thread};
use core::sync::atomic::Ordering::*;
use dc_image::boot::high_fd;
use dc_image::run::{Life, PROCESS_MAX, Process};
use dc_image::{FatalCode, window};

const CLONE_VM: usize = 0x100;
const CLONE_VFORK: usize = 0x4000;
const CLONE_PARENT: usize = 0x8000;
const CLONE_SETTLS: usize = 0x80000;
const CLONE_PARENT_SETTID: usize = 0x10_0000;
const CLONE_CHILD_CLEARTID: usize = 0x20_0000;
const CLONE_CHILD_SETTID: usize = 0x100_0000;
const SIGCHLD: usize = 17;

/// How a child is asked for.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub flags: usize,
    pub stack: usize,
    pub parent_tid: usize,
    pub child_tid: usize,
    pub tls: usize,
    pub exit_signal: usize,
    /// Where its parent gets a descriptor of it; 0 is nowhere.
    pub pidfd_at: usize,
}

pub fn fork_call(l: &mut Local, _a: [usize; 6]) -> isize {
    fork(l, Wanted::plain(0))
}

pub fn vfork_call(l: &mut Local, _a: [usize; 6]) -> isize {
    fork(l, Wanted::plain(CLONE_VM | CLONE_VFORK))
}

impl Wanted {
    fn plain(flags: usize) -> Wanted {
        Wanted {
            flags,
            stack: 0,
            parent_tid: 0,
            child_tid: 0,
            tls: 0,
            exit_signal: SIGCHLD,
            pidfd_at: 0,
        }
    }
}

/// What of clone's flags is not kept. None is passed over: a child that thinks itself in a
/// sandbox, or sees what its parent closes, must not be wrong about it.
fn unsupported(flags: usize) -> Option<(&'static str, isize)> {
    const CLONE_FS: usize = 0x200;
    const CLONE_FILES: usize = 0x400;
    const CLONE_SIGHAND: usize = 0x800;
    // Of mounts, control groups, host names, System V objects, users, processes, networks.
    const CLONE_NEW: usize = 0x7e02_0000;
    if flags & CLONE_NEW != 0 {
        Some(("lives in namespaces of its own", EPERM))
    } else if flags & CLONE_VM != 0 && flags & CLONE_VFORK == 0 {
        Some((
            "shares memory with its parent, without being its thread,",
            ENOSYS,
        ))
    } else if flags & (CLONE_FS | CLONE_FILES) != 0 {
        Some((
            "shares descriptors or the working directory with its parent",
            EINVAL,
        ))
    } else if flags & CLONE_SIGHAND != 0 {
        Some((
            "shares its parent's handlers of signals, but no memory,",
            EINVAL,
        ))
    } else {
        None
    }
}

pub fn fork(l: &mut Local, w: Wanted) -> isize {
    let guard = engine().lock.acquire(l);
    if let Some(child) = vfork::under_way(l) {
        // The child was made before a recovery.
        drop(guard);
        vfork::wait(l);
        return child as isize;
    }
    if let Some((what, errno)) = unsupported(w.flags) {
        crate::say!("a child that {what} is not supported: clone is refused");
        return -errno;
    }
    if let Err(e) = has_room(&w) {
        return e;
    }
    let Some(slot) = free_entry() else {
        return -EAGAIN;
    };
    thread::stop_others(l);
    engine().fold.forked(crate::commit::now_ns());
    // A commit changes frames that a child's folded pages would go on to read.
    if engine().folded.any() {
        let r = gather::all();
        if failed(r) {
            thread::resume_others();
            return r;
        }
    }
    if let Err(r) = shared::before_fork(l) {
        thread::resume_others();
        return r;
    }
    join_tree();
    let waits = w.flags & CLONE_VFORK != 0;
    prepare(l, slot, &w, waits);
    let all = signal::ALL_BUT_FAULTS;
    let mut old = 0u64;
    sys!(RT_SIGPROCMASK, 2, &raw const all, &raw mut old, 8);
    let flags = CLONE_PARENT | w.flags & CLONE_CHILD_CLEARTID;
    // Memory in common is a copy here, but of all of it.
    let in_common = w.flags & CLONE_VM != 0;
    if in_common {
        space::advice::suspend();
    }
    let r = sys!(CLONE, flags, 0, 0, w.child_tid, 0);
    if in_common {
        space::advice::resume();
    }
    if r == 0 {
        // The lock is the parent's.
        core::mem::forget(guard);
        in_child(l, slot, &w);
        sys!(RT_SIGPROCMASK, 2, &raw const old, 0, 8);
        return 0;
    }
    sys!(RT_SIGPROCMASK, 2, &raw const old, 0, 8);
    if failed(r) {
        process(slot).clear();
        run().living.fetch_sub(1, SeqCst);
        thread::resume_others();
        return r;
    }
    let child = process(slot);
    // The child does the same; whoever comes first.
    child.real.store(r as i32, Relaxed);
    child.id.store(r as i32, SeqCst);
    shared::forked();
    sysv::forked(slot);
    // (It was alone when it took the lock.)
    unit::runs();
    if w.flags & CLONE_PARENT_SETTID != 0 {
        user::write(w.parent_tid, &(r as i32));
    }
    if w.pidfd_at != 0 {
        let fd = object::pidfd::of_process(slot, child, 0) as i32;
        user::write(w.pidfd_at, &fd);
    }
    thread::resume_others();
    engine().log.share();
    event::company(true);
    event::non_deterministic(l);
    // From here on the child is there, also for a commit while this waits.
    if waits {
        vfork::begin(l, r as i32);
        drop(guard);
        vfork::wait(l);
    } else {
        l.frame.rax = r as usize;
        l.again = false;
        l.commit_after |= object::limits::may_end_it();
    }
    r
}

/// Whether there is a number for the descriptor that is asked for, and a place to tell it.
fn has_room(w: &Wanted) -> Result<(), isize> {
    if w.pidfd_at == 0 {
        return Ok(());
    }
    if !user::write(w.pidfd_at, &-1i32) {
        return Err(-EFAULT);
    }
    let number = sys!(DUP, engine().high_fd(high_fd::RIO));
    if failed(number) {
        return Err(number);
    }
    sys!(CLOSE, number);
    match number as i32 >= engine().boot.fd_base {
        true => Err(-EMFILE),
        false => Ok(()),
    }
}

/// A free entry of the table, with room behind it.
fn free_entry() -> Option<usize> {
    let published = engine().store.published();
    let free = |slot: &usize| {
        let p = process(*slot);
        p.life() == Life::None && p.id.load(Relaxed) == 0 || {
            let reaped = p.reaped.load(Relaxed);
            reaped != 0 && reaped <= published
        }
    };
    let slot = (1..PROCESS_MAX).find(free)?;
    // What it has counted stays counted.
    add(&engine().live().calls, process(slot).calls.load(Relaxed));
    process(slot).clear();
    run().high.fetch_max(slot as u32 + 1, SeqCst);
    Some(slot)
}

/// From now on this process is one of several: signals that would end it come to the
/// runtime first, so that its end is known before it happens.
pub fn join_tree() {
    let root = &mut state().root;
    if root.tree == 0 {
        root.tree = 1;
        signals::install_all();
    }
}

/// The child's entry, as it is when it begins.
fn prepare(l: &Local, slot: usize, w: &Wanted, waits: bool) {
    let (p, own) = (process(slot), me());
    let parent = if w.flags & CLONE_PARENT != 0 {
        own.parent.load(Relaxed)
    } else {
        engine().slot as u32 + 1
    };
    p.parent.store(parent, Relaxed);
    p.exit_signal.store(w.exit_signal as u32, Relaxed);
    let published = engine().store.published();
    p.group.set(own.group.get(), published);
    p.session.set(own.session.get(), published);
    let maker = state().threads[l.slot as usize].tid;
    p.parent_thread.store(maker, Relaxed);
    p.active.store(1, Relaxed);
    p.ran.store(1, Relaxed);
    run().stir(slot);
    p.hold_parent(waits, published);
    p.born.store(engine().store.published() + 1, Relaxed);
    run().living.fetch_add(1, SeqCst);
    if waits {
        vfork::prepare(l, slot);
    }
}

/// The child: alone in its process, with the descriptors of its parent but those of the
/// runtime.
fn in_child(l: &mut Local, slot: usize, w: &Wanted) {
    let e = engine();
    // All of the state at once, before it writes into this one and that. The program's memory
    // wakes where it is written to: most children leave it soon.
    e.pieces
        .wake(window::STATE_BASE, window::STATE_BASE + window::STATE_LEN);
    for other in 0..e.thread_high {
        if other != l.slot as usize {
            e.threads[other] = core::ptr::null_mut();
            // A record that was never used is in no page yet.
            if state().threads[other].used != 0 {
                state().threads[other].used = 0;
            }
        }
    }
    e.thread_count.store(1, SeqCst);
    e.stopping.store(0, SeqCst);
    thread::last::leave(l);
    e.slot = slot;
    e.pid = sys!(GETPID) as i32;
    let p = me();
    p.real.store(e.pid, Relaxed);
    p.id.store(e.pid, SeqCst);
    // The kernel counts anew for it, and nothing was read or written yet.
    p.rchar.store(0, Relaxed);
    p.wchar.store(0, Relaxed);
    dies_with_keeper();
    let root = &mut state().root;
    let record = &mut state().threads[l.slot as usize];
    // Before anybody sends it a signal: those for faults are never blocked.
    root.signals.clear();
    l.queue.clear();
    record.queue.clear();
    p.worker.store(e.pid, SeqCst);
    root.pid = e.pid;
    put(&mut root.head.discard_count, 0);
    put(&mut root.itimers, [crate::state::ITimer::NONE; 3]);
    put(&mut root.pushback_len, 0);
    put(&mut root.cpu, CpuTime::ZERO);
    put(&mut root.cpu_of_children, CpuTime::ZERO);
    put(&mut root.signals_delivered, [0; 32]);
    object::timers::forked();
    object::attributes::forked();
    object::aio::leave();
    l.tid = e.pid;
    record.tid = e.pid;
    put(&mut record.cpu, CpuTime::ZERO);
    record.clear_tid = if w.flags & CLONE_CHILD_CLEARTID != 0 {
        w.child_tid
    } else {
        0
    };
    put(&mut record.robust_list, [0; 2]);
    (l.held_until, l.commit_after, l.outlives) = (0, false, false);
    close_runtimes_own();
    if image::blank_store().is_err() {
        fatal::stop(
            FatalCode::Internal,
            0,
            format_args!("fork: no memory for the tables of the child"),
        );
    }
    if w.flags & CLONE_VM == 0 {
        space::advice::forget_what_is_not_inherited();
    }
    e.tracking = false;
    e.hot.clear();
    e.extra_len = 0;
    e.fold.never();
    e.undo.leave();
    // The kernel has not copied the entries of files' pages: what the parent may store into
    // without a word is a fault for the child, and sets the file's time once more.
    space::shared::guard_again();
    e.deferred.leave();
    object::lock::leave();
    object::epoll::leave();
    object::socket::accepted::leave();
    crate::log::leave();
    event::company(true);
    thread::arm(l);
    if w.flags & CLONE_CHILD_SETTID != 0 {
        user::write(w.child_tid, &e.pid);
    }
    if w.stack != 0 {
        l.frame.rsp = w.stack;
    }
    if w.flags & CLONE_SETTLS != 0 {
        const ARCH_SET_FS: usize = 0x1002;
        l.frame.fs_base = w.tls;
        sys!(ARCH_PRCTL, ARCH_SET_FS, w.tls);
    }
}

/// Stores what differs: a page that is not written stays its parent's.
fn put<T: PartialEq>(place: &mut T, value: T) {
    if *place != value {
        *place = value;
    }
}

/// Before a process is sent a signal by another one: it has begun so far that it ends with the
/// keeper. Stopped earlier it would be left behind by a death of all, with the run's image.
pub fn await_beginning(p: &Process) {
    const PATIENCE: usize = 200_000;
    for _ in 0..PATIENCE {
        if p.worker.load(SeqCst) != 0 || p.life() != Life::Lives {
            return;
        }
        sys!(SCHED_YIELD);
    }
}

fn dies_with_keeper() {
    const PR_SET_PDEATHSIG: usize = 1;
    const SIGKILL: usize = 9;
    sys!(PRCTL, PR_SET_PDEATHSIG, SIGKILL);
    if sys!(GETPPID) as u32 != engine().live().keeper_pid.load(Relaxed) {
        // The keeper died in between: its death signal will not come.
        fatal::die();
    }
}

/// Descriptors of the runtime that belong to the parent: what watches its memory, its
/// image, and what it has put aside.
fn close_runtimes_own() {
    let e = engine();
    for place in [
        high_fd::UFFD,
        high_fd::PAGEMAP,
        high_fd::MEM,
        high_fd::OWN_IMAGE,
        high_fd::COUNTERS,
        high_fd::SCRATCH,
    ] {
        sys!(CLOSE, e.high_fd(place));
    }
    // (The kernel looks at each number. What a recovery has put aside lies anywhere.)
    let aside = match object::strays::may_be() {
        true => high_fd::DEFERRED_COUNT,
        false => e.deferred.used(),
    };
    for (first, end) in [
        (high_fd::KEEPER, high_fd::DEFERRED + aside),
        (high_fd::DEFERRED + high_fd::DEFERRED_COUNT, high_fd::COUNT),
    ] {
        sys!(CLOSE_RANGE, e.high_fd(first), e.high_fd(end) - 1, 0);
    }
    (e.uffd, e.pagemap, e.mem, e.image_fd) = (-1, -1, -1, -1);
}
