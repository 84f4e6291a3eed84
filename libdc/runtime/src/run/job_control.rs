//! Stops that a terminal brings about: ^Z, and what a process in the background does.
//!
//! The kernel stops a group for these only if somebody is there to continue it: a parent in
//! another group of the same session. In the kernel every parent is the keeper, which is in
//! no session that the program has begun. So there these stops are made here, by the
//! parents that the table has: the signal comes to the runtime, which stops the process by
//! SIGSTOP, and what a process in the background was answered by EIO becomes the signal.
//!
//! Where the keeper's session is the program's, the kernel does all of it.

use super::{all, many, me, process};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::object::group::{self, KEEPERS, TIOCGPGRP};
use crate::object::pty;
use crate::signal::{self, SIG_IGN, SIGSTOP};
use crate::{sys, thread};
use core::sync::atomic::Ordering::*;
use dc_image::run::{Life, Process};

pub const SIGTTIN: i32 = 21;
pub const SIGTTOU: i32 = 22;

/// Whether a signal stops this process, and is to come to the runtime first.
pub fn stops_here(signo: i32) -> bool {
    matches!(signo, 20..=22) && me().session.get() != KEEPERS
}

/// Whether nobody would continue a group (setpgid(2): an orphaned one).
pub fn is_orphaned(session: i32, id: i32) -> bool {
    let lives = |p: &Process| p.life() == Life::Lives;
    let is_supervised = |p: &Process| {
        p.parent_at(u64::MAX).map(process).is_some_and(|parent| {
            lives(parent) && parent.session.get() == session && parent.group.get() != id
        })
    };
    let is_in = |p: &Process| lives(p) && p.session.get() == session && p.group.get() == id;
    !all().any(|(_, p)| is_in(p) && is_supervised(p))
}

/// A signal that stops has been delivered: the process stops when it has given up the lock.
pub fn is_to_stop(signo: i32) {
    let p = me();
    let (session, group) = (p.session.get(), p.group.get());
    if session == KEEPERS || !is_orphaned(session, group) {
        p.stops_by.store(signo as u32, SeqCst);
    }
}

/// Stops this process, if it is to. The thread's context is complete.
pub fn stop_now(l: &mut Local) {
    let stops_by = &me().stops_by;
    let signo = stops_by.load(SeqCst) as i32;
    if signo == 0 {
        return;
    }
    thread::enter_stopped(l);
    if me().session.get() == KEEPERS {
        stops_by.store(0, SeqCst);
        signal::stop_for(signo);
    } else {
        sys!(KILL, engine().pid, SIGSTOP);
        // It was continued, whether the keeper has seen that it stopped or not.
        stops_by.store(0, SeqCst);
    }
    thread::leave_stopped(l);
}

/// Whether this is the process's terminal, and has another group in the foreground. (Of a
/// master the kernel tells what it tells of the other end.)
pub fn is_background(fd: i32) -> bool {
    const TIOCGSID: usize = 0x5429;
    let (mut front, mut session) = (0i32, 0i32);
    !failed(sys!(IOCTL, fd, TIOCGSID, &raw mut session))
        && session as isize == sys!(GETSID, 0)
        && pty::is_slave(fd)
        && !failed(sys!(IOCTL, fd, TIOCGPGRP, &raw mut front))
        && front as isize != sys!(GETPGID, 0)
}

/// A process in the background was answered by EIO: whether it is to be stopped instead, and
/// to ask again when it is continued. Under the big lock.
pub fn answers_by_stop(l: &mut Local, fd: i32, r: isize, signo: i32) -> bool {
    let p = me();
    let (session, own) = (p.session.get(), p.group.get());
    if r != -EIO || session == KEEPERS || is_orphaned(session, own) {
        return false;
    }
    let bit = signal::bit(signo);
    let is_ignored = state().root.actions[signo as usize].handler == SIG_IGN;
    if !is_background(fd) || is_ignored || signal::mask_of(l) & bit != 0 {
        return false;
    }
    many::send(l, -group::own(), signo);
    l.interrupted = true;
    l.early = true;
    true
}
