//! Child processes: not recovered yet, and said so.
//!
//! A child is made with the kernel's fork, runs without commits, and is the
//! keeper's to reap when the worker dies. Reaping one consumes it, so it is
//! committed around.
//!
//! survives: warm, as a stranger; cold not at all

use crate::engine::{engine, state};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::failed;
use crate::space::gather;
use crate::sys;
use crate::thread;
use core::sync::atomic::Ordering::*;

pub fn fork_call(l: &mut Local, _a: [usize; 6]) -> isize {
    const SIGCHLD: usize = 17;
    fork(l, nr::CLONE, [SIGCHLD, 0, 0, 0, 0, 0])
}

/// fork(2) in any form. vfork becomes fork: the child must not run on the
/// parent's memory.
pub fn fork(l: &mut Local, _nr: usize, a: [usize; 6]) -> isize {
    const CLONE_VM: usize = 0x100;
    const CLONE_VFORK: usize = 0x4000;
    const CLONE_FILES: usize = 0x400;
    let _guard = engine().lock.acquire(l);
    if crate::table::first_time(nr::FORK as u16) {
        crate::say!("child processes are not recoverable yet; a child runs, but does not survive");
    }
    if super::pipe::share_all() {
        crate::commit::commit(l);
    }
    event::visible(l);
    let mut flags = a[0] & !(CLONE_VM | CLONE_VFORK | CLONE_FILES);
    thread::stop_others(l);
    if a[0] & CLONE_VFORK == 0 {
        engine().fold.forked(crate::commit::now_ns());
    }
    // A commit changes frames that a child's folded pages would go on to read.
    // After vfork there is none before the child has other memory.
    if engine().folded.any() {
        flags |= a[0] & CLONE_VFORK;
        if flags & CLONE_VFORK == 0 {
            let r = gather::all();
            if crate::machine::sys::failed(r) {
                thread::resume_others();
                return r;
            }
        }
    }
    let all = crate::signal::ALL_BUT_FAULTS;
    let mut old = 0u64;
    sys!(RT_SIGPROCMASK, 2, &raw const all, &raw mut old, 8);
    let r = sys!(CLONE, flags, 0, a[2], a[3], 0);
    engine().log.share();
    if r == 0 {
        in_child(l, a[1]);
        sys!(RT_SIGPROCMASK, 2, &raw const old, 0, 8);
        return 0;
    }
    sys!(RT_SIGPROCMASK, 2, &raw const old, 0, 8);
    thread::resume_others();
    event::non_deterministic(l);
    if engine().log.wanted {
        // A child cannot be logged, so it begins with a commit.
        l.commit_after = true;
    }
    r
}

/// In the child: no commits, no tracking, Rio out of reach; its calls go to
/// the kernel as they are.
fn in_child(l: &mut Local, stack: usize) {
    let e = engine();
    for slot in 0..crate::engine::MAX_THREADS {
        if slot != l.slot as usize {
            e.threads[slot] = core::ptr::null_mut();
        }
    }
    e.thread_count.store(1, SeqCst);
    e.stopping.store(0, SeqCst);
    let first = e.boot.fd_base;
    sys!(
        CLOSE_RANGE,
        first,
        first + dc_image::boot::high_fd::COUNT,
        0
    );
    crate::boot::make_private();
    e.pid = sys!(GETPID) as i32;
    state().root.pid = e.pid;
    l.tid = e.pid;
    crate::space::shared::leave();
    e.alone = true;
    crate::log::leave();
    // Dispatch is not inherited. Without it an unpatched call would go straight to
    // the kernel, past the tables that its patched neighbours are answered from.
    thread::arm(l);
    if stack != 0 {
        l.frame.rsp = stack;
    }
}

/// wait4, waitid.
pub fn wait_child(l: &mut Local, a: [usize; 6]) -> isize {
    let n = l.frame.nr;
    for at in a {
        engine().pieces.wake(at, at.saturating_add(256));
    }
    let r = thread::wait_or_signal(l, n, a);
    let _guard = engine().lock.acquire(l);
    event::non_deterministic(l);
    if !failed(r) && !engine().alone {
        super::counts::take();
    }
    if r > 0 {
        // The child is reaped: that cannot be taken back.
        l.commit_after = true;
    }
    r
}
