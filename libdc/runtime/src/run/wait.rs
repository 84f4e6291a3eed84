//! wait4, waitid: children as the table of processes has them.
//!
//! A zombie is state: to wait for one changes the table from the next commit on, and a
//! rollback brings it back.

use super::{all, end, me};
use crate::engine::engine;
use crate::event;
use crate::machine::frame::{ATTENTION_STOP, Local};
use crate::machine::nr;
use crate::machine::sys::errno::*;
use crate::machine::user;
use crate::object::{cpu_time, deferred_close, group, pidfd};
use crate::signal::queue::SigInfo;
use crate::thread;
use core::sync::atomic::Ordering::*;
use dc_image::run::{Life, Process};

const WNOHANG: usize = 1;
const WSTOPPED: usize = 2;
const WEXITED: usize = 4;
const WCONTINUED: usize = 8;
const WNOWAIT: usize = 0x100_0000;
const WNOTHREAD: usize = 0x2000_0000;
const WALL: usize = 0x4000_0000;
const WCLONE: usize = 0x8000_0000;
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;
/// The status of a process that was continued.
pub const CONTINUED: u32 = 0xffff;
const CLD_STOPPED: i32 = 5;
const CLD_CONTINUED: i32 = 6;
/// Bit of a status: a core was dumped.
const DUMPED: u32 = 0x80;

/// Which children a call waits for.
#[derive(Clone, Copy)]
enum Whom {
    Any,
    Process(i32),
    Group(i32),
}

impl Whom {
    fn is(self, child: &Process) -> bool {
        match self {
            Whom::Any => true,
            Whom::Process(id) => child.id.load(Relaxed) == id,
            Whom::Group(group) => child.group.get() == group,
        }
    }
}

enum Found {
    Zombie(&'static Process),
    /// Stopped or continued; how.
    Changed(&'static Process, u32),
    Living,
    None,
}

/// A child that a call waits for, which asks for ends, stops or continues.
fn look(whom: Whom, options: usize) -> Found {
    let own = Some(engine().slot);
    let mut living = false;
    for (_, child) in all() {
        if child.parent_at(u64::MAX) != own || !whom.is(child) {
            continue;
        }
        match child.life() {
            Life::Zombie if options & WEXITED != 0 => return Found::Zombie(child),
            Life::Lives | Life::Zombie => {
                let changed = child.changed.get() as u32;
                let asked = match changed {
                    0 => false,
                    CONTINUED => options & WCONTINUED != 0,
                    _ => options & WSTOPPED != 0,
                };
                if asked && child.life() == Life::Lives {
                    return Found::Changed(child, changed);
                }
                living = true;
            }
            Life::None => {}
        }
    }
    if living { Found::Living } else { Found::None }
}

pub fn wait4(l: &mut Local, a: [usize; 6]) -> isize {
    let [pid, status_at, options, usage_at, ..] = a;
    if options & !(WNOHANG | WSTOPPED | WCONTINUED | WNOTHREAD | WALL | WCLONE) != 0 {
        return -EINVAL;
    }
    let whom = match pid as i32 {
        -1 => Whom::Any,
        0 => Whom::Group(me().group.get()),
        i32::MIN => return -ESRCH,
        id if id < 0 => Whom::Group(group::in_table(-id)),
        id => Whom::Process(id),
    };
    for at in [status_at, usage_at] {
        engine().pieces.wake(at, at.saturating_add(256));
    }
    let (child, changed) = match wait_for(l, whom, options | WEXITED) {
        Ok(Some(found)) => found,
        Ok(None) => return 0,
        Err(e) => return e,
    };
    let _guard = engine().lock.acquire(l);
    let status = changed.unwrap_or(child.status.load(Relaxed));
    let written = (status_at == 0 || user::write(status_at, &status))
        && (usage_at == 0 || user::write(usage_at, &usage_of(child)));
    if !written {
        return -EFAULT;
    }
    match changed {
        Some(how) => was_told(child, how),
        None => reap(child),
    }
    event::non_deterministic(l);
    child.id.load(Relaxed) as isize
}

pub fn waitid(l: &mut Local, a: [usize; 6]) -> isize {
    let info_at = a[2];
    let r = waited(l, a);
    if r < 0 && info_at != 0 && !tell(info_at, None) {
        return -EFAULT;
    }
    r
}

/// What the kernel writes of a siginfo, and no more: of no child zeros, as after an error.
fn tell(info_at: usize, info: Option<&SigInfo>) -> bool {
    let (head, who) = match info {
        Some(info) => ([info.signo, info.errno, info.code], &info.rest[4..16]),
        None => ([0; 3], &[0u8; 12][..]),
    };
    user::write(info_at, &head) && user::write_bytes(info_at + 16, who)
}

fn waited(l: &mut Local, a: [usize; 6]) -> isize {
    let [kind, id, info_at, mut options, usage_at, _] = a;
    const P_ALL: usize = 0;
    const P_PID: usize = 1;
    const P_PGID: usize = 2;
    const P_PIDFD: usize = 3;
    let known = WNOHANG | WSTOPPED | WEXITED | WCONTINUED | WNOWAIT | WNOTHREAD | WALL | WCLONE;
    if options & !known != 0 || options & (WEXITED | WSTOPPED | WCONTINUED) == 0 {
        return -EINVAL;
    }
    let mut would_wait = 0;
    let asks_only = options & WNOHANG != 0;
    let whom = match kind {
        P_ALL => Whom::Any,
        P_PID if id as i32 > 0 => Whom::Process(id as i32),
        P_PGID if id == 0 => Whom::Group(me().group.get()),
        P_PGID => Whom::Group(group::in_table(id as i32)),
        P_PIDFD => match of_descriptor(l, id as i32) {
            Ok((id, at_once)) => {
                if at_once {
                    would_wait = -EAGAIN;
                    options |= WNOHANG;
                }
                Whom::Process(id)
            }
            Err(e) => return e,
        },
        _ => return -EINVAL,
    };
    for at in [info_at, usage_at] {
        engine().pieces.wake(at, at.saturating_add(256));
    }
    let (child, changed) = match wait_for(l, whom, options) {
        Ok(Some(found)) => found,
        Ok(None) if would_wait != 0 && !asks_only => return would_wait,
        Ok(None) => {
            return match info_at == 0 || tell(info_at, None) {
                true => 0,
                false => -EFAULT,
            };
        }
        Err(e) => return e,
    };
    let _guard = engine().lock.acquire(l);
    let status = changed.unwrap_or(child.status.load(Relaxed));
    let info = info_of_status(child, 17, status);
    let written = (info_at == 0 || tell(info_at, Some(&info)))
        && (usage_at == 0 || user::write(usage_at, &usage_of(child)));
    if !written {
        return -EFAULT;
    }
    if options & WNOWAIT == 0 {
        match changed {
            Some(how) => was_told(child, how),
            None => reap(child),
        }
    }
    event::non_deterministic(l);
    0
}

/// Whom a descriptor means, and whether it is one that does not wait.
fn of_descriptor(l: &mut Local, fd: i32) -> Result<(i32, bool), isize> {
    let _guard = engine().lock.acquire(l);
    match (pidfd::is_ours(fd), pidfd::meant(fd)) {
        (Some(at_once), Some((_, p))) => Ok((p.id.load(Relaxed), at_once)),
        (Some(_), None) => Err(-ECHILD),
        // One of another process, or none at all.
        (None, _) => match super::signals::process_of_pidfd(fd) {
            Some(_) => Err(-ECHILD),
            None => Err(-EBADF),
        },
    }
}

/// A child that has ended, or how it was stopped or continued.
type Child = (&'static Process, Option<u32>);

/// Waits for a child; none if there is none yet and nobody is to wait for it.
fn wait_for(l: &mut Local, whom: Whom, options: usize) -> Result<Option<Child>, isize> {
    let at_once = options & WNOHANG != 0;
    let event_of = &me().child_event;
    let mut broken_off = false;
    loop {
        let before = event_of.load(SeqCst);
        let found = {
            let _guard = engine().lock.acquire(l);
            // The signal of an end or stop comes before anybody can wait for it, also if this
            // thread has found it by itself, or is yet to be called.
            end::take_signals(l);
            end::take_changes(l);
            match look(whom, options) {
                Found::Zombie(child) => Ok((child, None)),
                Found::Changed(child, how) => Ok((child, Some(how))),
                Found::None => return Err(-ECHILD),
                Found::Living if at_once => {
                    event::non_deterministic(l);
                    return Ok(None);
                }
                Found::Living if broken_off => {
                    l.interrupted = true;
                    return Err(-EINTR);
                }
                Found::Living => Err(()),
            }
        };
        if let Ok((child, how)) = found {
            await_terminal(child, how);
            return Ok(Some((child, how)));
        }
        // The child may wait for what a close brings about.
        deferred_close::close_before_wait(l);
        const FUTEX_WAIT: usize = 0;
        let args = [
            event_of.as_ptr() as usize,
            FUTEX_WAIT,
            before as usize,
            0,
            0,
            0,
        ];
        let r = thread::wait(l, nr::FUTEX, args);
        if r == -EINTR {
            if thread::signal_waits(l) {
                // It may be that of the end which is waited for: the kernel looks for children
                // once more, and only then for signals.
                broken_off = true;
                continue;
            }
            thread::wait_on(l);
            if l.attention.load(SeqCst) & ATTENTION_STOP != 0 {
                thread::pause_for_stop(l);
            }
        }
    }
}

/// A parent is told of an end before the kernel has seen to all of it. Who has waited for the
/// leader of a session finds its terminal free and hung up, and a descriptor of the child
/// readable.
fn await_terminal(child: &Process, how: Option<u32>) {
    const BREATH_NS: usize = 50_000;
    let mut patience = 20_000;
    let is_looked_at = child.terminal.get() != 0 || child.watched.load(Relaxed) != 0;
    let is_there = || is_looked_at && child.real.load(SeqCst) != 0;
    while how.is_none() && is_there() && patience > 0 {
        let breath = [0usize, BREATH_NS];
        crate::sys!(NANOSLEEP, breath.as_ptr(), 0);
        patience -= 1;
    }
}

/// A stop or continue was told, unless the keeper has noted the next one meanwhile.
fn was_told(child: &Process, how: u32) {
    child
        .changed
        .clear_if(how as i32, engine().store.published());
}

fn reap(child: &Process) {
    let [user, system] = [&child.user_us, &child.system_us].map(|time| time.load(Relaxed));
    cpu_time::child_ended(user, system);
    let number = engine().store.published() + 1;
    // (That it was told before is part of the last commit.)
    let _ = child.told.compare_exchange(0, number, Relaxed, Relaxed);
    child.reaped.store(number, SeqCst);
}

/// `struct rusage`: times; the rest is not kept.
fn usage_of(child: &Process) -> [u64; 18] {
    let mut usage = [0u64; 18];
    let (user, system) = (child.user_us.load(Relaxed), child.system_us.load(Relaxed));
    usage[0] = user / 1_000_000;
    usage[1] = user % 1_000_000;
    usage[2] = system / 1_000_000;
    usage[3] = system % 1_000_000;
    usage
}

/// The siginfo of a child's end: signal, code, then pid, uid, status.
pub fn info_of(child: &Process, signo: i32) -> SigInfo {
    info_of_status(child, signo, child.status.load(Relaxed))
}

/// The siginfo of what has become of a child.
pub fn info_of_status(child: &Process, signo: i32, status: u32) -> SigInfo {
    const SIGCONT: i32 = 18;
    let (code, value) = match status & 0x7f {
        0x7f if status == CONTINUED => (CLD_CONTINUED, SIGCONT),
        0x7f => (CLD_STOPPED, (status >> 8) as i32),
        0 => (CLD_EXITED, (status >> 8) as i32),
        signal if status & DUMPED != 0 => (CLD_DUMPED, signal as i32),
        signal => (CLD_KILLED, signal as i32),
    };
    let mut info = SigInfo {
        signo,
        errno: 0,
        code,
        rest: [0; 116],
    };
    let id = child.id.load(Relaxed);
    let uid = crate::sys!(GETUID) as u32;
    info.rest[4..8].copy_from_slice(&id.to_le_bytes());
    info.rest[8..12].copy_from_slice(&uid.to_le_bytes());
    info.rest[12..16].copy_from_slice(&value.to_le_bytes());
    let ticks = |us: u64| us / 10_000;
    info.rest[20..28].copy_from_slice(&ticks(child.user_us.load(Relaxed)).to_le_bytes());
    info.rest[28..36].copy_from_slice(&ticks(child.system_us.load(Relaxed)).to_le_bytes());
    info
}
