//! Process group and session, and who is in the foreground of the terminal.
//!
//! A shell with job control makes a group of its own and gives it the terminal. A
//! new worker is born into the keeper's group, and the terminal still names the
//! group that died with the last one: a read would be answered by EIO.
//!
//! state:     group and session, in the table of processes, where the keeper needs them; who
//!            got the terminal
//! intercept: setpgid, setsid, getpgrp and its like, TIOCSPGRP, TIOCGPGRP
//! restore:   warm and cold: by the keeper, at the birth of the next worker (`families.rs`
//!            there); the terminal, unless a group that lives (a job) has it
//! survives:  warm and cold
#![allow(unsafe_code)]

use super::descriptor::{each_file, open_file};
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

/// In the table of processes: the keeper's own group or session, whatever its number.
pub const KEEPERS: i32 = 0;

/// The kernel's number for one that the program knows, and the other way. A recovery that
/// could not keep the process ids has others; so have groups and sessions whose leader has
/// ended, of which their members tell.
pub fn real(id: i32) -> i32 {
    if id <= 0 {
        return id;
    }
    if id == state().root.pid {
        return engine().pid;
    }
    if let Some((_, p)) = run::known_as(id)
        && p.life() == Life::Lives
    {
        return run::real_id(id);
    }
    let of_member = |p: &Process| {
        let real = p.real.load(Relaxed);
        let number = match (p.group.get() == id, p.session.get() == id) {
            _ if real == 0 => return None,
            (true, _) => sys!(GETPGID, real),
            (_, true) => sys!(GETSID, real),
            _ => return None,
        };
        (!failed(number)).then_some(number as i32)
    };
    living().find_map(of_member).unwrap_or(id)
}

pub fn known(number: i32) -> i32 {
    if number == engine().pid {
        return state().root.pid;
    }
    let known = run::known_id(number);
    if known != number || !run::is_tree() || run::known_as(number).is_some() {
        return known;
    }
    let of_member = |p: &Process| {
        let real = p.real.load(Relaxed);
        let is = |r: isize| real != 0 && r == number as isize;
        match (p.group.get(), p.session.get()) {
            (group, _) if group != KEEPERS && is(sys!(GETPGID, real)) => Some(group),
            (_, session) if session != KEEPERS && is(sys!(GETSID, real)) => Some(session),
            _ => None,
        }
    };
    living().find_map(of_member).unwrap_or(number)
}

fn living() -> impl Iterator<Item = &'static Process> {
    run::all()
        .map(|(_, p)| p)
        .filter(|p| p.life() == Life::Lives)
}

/// This process's own, as the program knows it.
pub fn own() -> i32 {
    match run::me().group.get() {
        KEEPERS => of_keeper() as i32,
        group => group,
    }
}

/// A group as the table has it.
pub fn in_table(group: i32) -> i32 {
    match real(group) as isize == of_keeper() {
        true => KEEPERS,
        false => group,
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
        let group = if group == 0 { state().root.pid } else { group };
        run::me().group.set(in_table(group), published());
    }
    r
}

fn published() -> u64 {
    engine().store.published()
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
    let group = in_table(if group == 0 { id } else { group });
    if child.group.get() == group || child.life() == Life::Zombie {
        return 0;
    }
    const UNANSWERED: i32 = 1;
    child.group_answer.store(UNANSWERED, SeqCst);
    let number = match group {
        KEEPERS => of_keeper() as i32,
        _ => real(group),
    };
    child.group_wanted.store(number + 1, SeqCst);
    // It may wait long for a processor. (One that is stopped does not answer.)
    let patience = || match child.stopped.get() {
        0 => 200_000,
        _ => 1000,
    };
    let mut tries = 0;
    while tries < patience() && child.life() == Life::Lives {
        tries += 1;
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

/// setsid(2). Holds the big lock.
pub fn setsid(_l: &mut Local, _a: [usize; 6]) -> isize {
    let r = sys!(SETSID);
    if failed(r) {
        return r;
    }
    let (p, pid) = (run::me(), state().root.pid);
    p.group.set(pid, published());
    p.session.set(pid, published());
    p.terminal.set(0, published());
    p.foreground.set(0, published());
    if run::is_tree() {
        // Stops by a terminal are the runtime's from now on.
        run::signals::install_all();
    }
    pid as isize
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
    // Of what has ended the kernel knows nothing any more.
    if matches!(n, nr::GETPGID | nr::GETSID)
        && let Some((_, p)) = run::known_as(a[0] as i32)
        && p.life() == Life::Zombie
    {
        let id = if n == nr::GETSID {
            &p.session
        } else {
            &p.group
        };
        if id.get() != KEEPERS {
            return id.get() as isize;
        }
        a[0] = engine().live().keeper_pid.load(Relaxed) as usize;
    }
    if matches!(n, nr::GETPGID | nr::GETSID) {
        if run::is_leaving(a[0] as i32) {
            return -ESRCH;
        }
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

/// The program has given a terminal to a group.
pub fn note_foreground(group: i32) {
    if let Some(leader) = leader_of_session() {
        leader.foreground.set(group, published());
    }
    let root = &mut state().root;
    let own = run::me().group.get() == group && group == root.pid;
    root.has_terminal = own as u32;
    let number = if own { real(group) as u64 } else { 0 };
    engine().live().front_group.store(number, Relaxed);
}

/// This process leads a session, which has this terminal now; 0 is none.
pub fn note_terminal(number: i32) {
    let p = run::me();
    if p.session.get() == p.id.load(Relaxed) {
        p.terminal.set(number, published());
        let group = if number == 0 { 0 } else { own() };
        p.foreground.set(group, published());
    }
}

/// The leader of this process's session, if that is of the run and lives.
pub fn leader_of_session() -> Option<&'static Process> {
    let session = run::me().session.get();
    living().find(|p| session != KEEPERS && p.id.load(Relaxed) == session)
}

/// At recovery, when the descriptors are there. Session and group are as they were since its
/// birth; who was in the foreground is again.
pub fn restore(warm: bool) {
    let p = run::me();
    match p.session.get() {
        KEEPERS => take_back(warm),
        session if session == p.id.load(Relaxed) => give_to_foreground(p),
        _ => {}
    }
}

/// The terminal of a session that the program began.
fn give_to_foreground(leader: &Process) {
    let group = leader.foreground.get();
    if leader.terminal.get() == 0 || group == 0 {
        return;
    }
    const O_RDWR_CLOEXEC: usize = 2 | 0o2000000;
    let fd = sys!(OPEN, c"/dev/tty".as_ptr(), O_RDWR_CLOEXEC);
    if !failed(fd) {
        take_terminal(fd as i32, real(group));
        sys!(CLOSE, fd);
    }
}

/// The keeper's terminal names the group that died, or somebody else's.
fn take_back(warm: bool) {
    let root = &state().root;
    let own = sys!(GETPGID, 0);
    for (fd, file) in each_file() {
        if open_file(file).kind != Kind::Tty {
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
    sys!(GETPGID, engine().live().keeper_pid.load(Relaxed))
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
