//! Process group and session, and who is in the foreground of the terminal.
//!
//! A shell with job control makes a group of its own and gives it the terminal. A
//! new worker is born into the keeper's group, and the terminal still names the
//! group that died with the last one: a read would be answered by EIO.
//!
//! state:     whose group, whether a session of its own, who got the terminal
//! intercept: setpgid, setsid, getpgrp and its like, TIOCSPGRP, TIOCGPGRP
//! restore:   warm and cold: setsid or setpgid; the terminal, unless a group that
//!            lives (a job) has it
//! survives:  warm and cold; the group of a child only while that lives
#![allow(unsafe_code)]

use super::descriptor::{any_fd, known_file, open_file};
use crate::engine::{engine, state};
use crate::event;
use crate::log::replay;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::run::{self, unit};
use crate::state::Kind;
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::run::{Life, Process};

pub const TIOCGPGRP: usize = 0x540f;
pub const TIOCSPGRP: usize = 0x5410;
const SIGTTOU: i32 = 22;

/// [`crate::state::Root::group`]: that of the keeper, one of its own, or the
/// number of another's.
const OF_KEEPER: i32 = 0;
const OWN: i32 = -1;

/// The kernel's number for one that the program knows, and the other way. A
/// recovery that could not keep the process id has another.
pub fn real(id: i32) -> i32 {
    if id == state().root.pid {
        engine().pid
    } else {
        run::real_id(id)
    }
}

pub fn known(id: i32) -> i32 {
    if id == engine().pid {
        state().root.pid
    } else {
        run::known_id(id)
    }
}

/// setpgid(2). Holds the big lock.
pub fn setpgid(_l: &mut Local, a: [usize; 6]) -> isize {
    let (who, group) = (a[0] as i32, a[1] as i32);
    let own = who == 0 || who == state().root.pid;
    if !own && let Some((_, child)) = run::known_as(who) {
        return of_child(child, group);
    }
    let r = sys!(SETPGID, real(who), real(group));
    if !failed(r) && own {
        note_own(group);
    }
    r
}

/// This process is in another group.
fn note_own(group: i32) {
    let root = &mut state().root;
    root.group = if group == 0 || group == root.pid {
        OWN
    } else if of_keeper() == group as isize {
        OF_KEEPER
    } else {
        group
    };
    let known = if group == 0 { root.pid } else { group };
    run::me().group.set(known, engine().store.published());
}

/// A parent puts its child into a group. In the kernel it is not the parent, so the child
/// does it, by the runtime's signal.
fn of_child(child: &Process, group: i32) -> isize {
    if group < 0 {
        return -EINVAL;
    }
    if child.parent_at(u64::MAX) != Some(engine().slot) {
        return -ESRCH;
    }
    let id = child.id.load(Relaxed);
    let session = child.session.get();
    if session != run::me().session.get() {
        return -EPERM;
    }
    if child.executed.load(Relaxed) != 0 {
        return -EACCES;
    }
    if session == id {
        return -EPERM;
    }
    let group = if group == 0 { id } else { group };
    if child.group.get() == group || child.life() == Life::Zombie {
        return 0;
    }
    const UNANSWERED: i32 = 1;
    child.group_answer.store(UNANSWERED, SeqCst);
    child.group_wanted.store(real(group) + 1, SeqCst);
    for _ in 0..1000 {
        unit::poke(child);
        for _ in 0..100 {
            match child.group_answer.load(SeqCst) {
                UNANSWERED => core::hint::spin_loop(),
                -1 => {
                    child.group.set(group, engine().store.published());
                    return 0;
                }
                error => return error as isize + 1,
            }
        }
        const BREATH_NS: usize = 50_000;
        let breath = [0usize, BREATH_NS];
        sys!(NANOSLEEP, breath.as_ptr(), 0);
    }
    child.group_wanted.store(0, SeqCst);
    -ESRCH
}

/// After another process has put this one into a group: the state is to know.
pub fn notice() {
    let group = run::me().group.get();
    let root = &mut state().root;
    let noted = match root.group {
        OF_KEEPER => of_keeper() as i32,
        OWN => root.pid,
        other => other,
    };
    if group != 0 && noted != group {
        note_own(group);
    }
}

/// setsid(2). Holds the big lock.
pub fn setsid(_l: &mut Local, _a: [usize; 6]) -> isize {
    let r = sys!(SETSID);
    if failed(r) {
        return r;
    }
    let root = &mut state().root;
    (root.own_session, root.group) = (1, OWN);
    let published = engine().store.published();
    run::me().group.set(root.pid, published);
    run::me().session.set(root.pid, published);
    known(r as i32) as isize
}

/// Ids of parent, group and session: the same until a cold recovery, whose
/// keeper has others. A replay that comes with it must not show them yet.
pub fn relatives(l: &mut Local, mut a: [usize; 6]) -> isize {
    let n = l.frame.nr;
    if n == nr::GETPPID && engine().slot != 0 {
        return match run::me().parent_at(u64::MAX) {
            Some(parent) => run::process(parent).id.load(Relaxed) as isize,
            None => run::orphans::NOBODYS,
        };
    }
    let logs = engine().log.wanted && engine().machine.protocol().logs();
    let guard = logs.then(|| engine().lock.acquire(l));
    if logs && let Some(r) = replay::answer(l) {
        return r;
    }
    if matches!(n, nr::GETPGID | nr::GETSID) {
        a[0] = real(a[0] as i32) as usize;
    }
    // SAFETY: a question that touches no memory.
    let r = unsafe { crate::machine::sys::raw6(n, a) };
    if logs {
        event::non_deterministic(l);
    }
    drop(guard);
    if failed(r) {
        r
    } else {
        known(r as i32) as isize
    }
}

/// The program has given the terminal to a group.
pub fn note_foreground(group: i32) {
    let root = &mut state().root;
    let own = root.group == OWN && group == root.pid;
    root.has_terminal = own as u32;
    let number = if own { real(group) as u64 } else { 0 };
    engine().live().front_group.store(number, Relaxed);
}

/// At recovery, when the descriptors are there.
pub fn restore(warm: bool) {
    let root = &state().root;
    if root.own_session != 0 {
        sys!(SETSID);
    }
    match root.group {
        OF_KEEPER => {}
        OWN => {
            sys!(SETPGID, 0, 0);
        }
        other => {
            sys!(SETPGID, 0, other);
        }
    }
    let own = sys!(GETPGID, 0);
    for fd in 0..root.fd_high as i32 {
        let Some(file) = known_file(fd) else { continue };
        if open_file(file).kind != Kind::Tty || any_fd(file) != Some(fd) {
            continue;
        }
        let mut front = 0i32;
        if failed(sys!(IOCTL, fd, TIOCGPGRP, &raw mut front)) {
            continue;
        }
        // The number may be that of the dead group, whose last zombie nobody has
        // reaped yet.
        let last = engine().live().front_group.load(Relaxed);
        let gone = front as isize == own
            || front as u64 == last
            || failed(sys!(KILL, -(front as isize), 0));
        let due = !warm && root.has_terminal != 0 && front as isize == of_keeper();
        if gone || due {
            take_terminal(fd, own as i32);
        }
    }
}

/// The keeper's group, by the kernel's number.
pub fn of_keeper() -> isize {
    sys!(GETPGID, sys!(GETPPID))
}

fn take_terminal(fd: i32, group: i32) {
    // One in the background would be stopped for this.
    let block = crate::signal::bit(SIGTTOU);
    let mut old = 0u64;
    sys!(RT_SIGPROCMASK, 0, &raw const block, &raw mut old, 8);
    sys!(IOCTL, fd, TIOCSPGRP, &raw const group);
    engine().live().front_group.store(group as u64, Relaxed);
    sys!(RT_SIGPROCMASK, 2, &raw const old, 0, 8);
}
