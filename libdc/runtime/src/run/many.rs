//! Signals to several processes at once: to a group, and to all (kill(2)).
//!
//! Who is in a group the table knows: the kernel counts what has ended and is not reaped yet
//! as well, and companions, and the keeper. So each process of the run is sent its own. Only
//! the keeper's group may have members that are not of the run; it is left to the kernel.
//!
//! To all: whoever is not of the run is found in /proc. One that is made meanwhile is missed,
//! which the kernel would not do. This run's keeper and companions are left out, for natively
//! there would be none; those of other runs are not.

use super::end::{self, How};
use super::{all, me, orphans, signals, unit};
use crate::engine::engine;
use crate::event;
use crate::fatal::Text;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::object::group;
use crate::object::process::{KILL_ALL, send_to_others_by};
use crate::signal::SIGKILL;
use crate::sys;
use core::fmt::Write;
use core::sync::atomic::Ordering::*;
use dc_image::run::{Life, Process};

const EVERYBODY: i32 = -1;

/// kill(2) with a number that is no process. Under the big lock.
pub fn send(l: &mut Local, target: i32, signo: i32) -> isize {
    match target {
        EVERYBODY => to_all(l, signo),
        0 => to_group(l, group::own(), signo),
        // (There is no such group.)
        i32::MIN => -ESRCH,
        _ => to_group(l, -target, signo),
    }
}

fn to_group(l: &mut Local, id: i32, signo: i32) -> isize {
    let in_table = group::in_table(id);
    let is_in = |p: &Process| p.life() != Life::None && p.group.get() == in_table;
    let is_keepers = in_table == group::KEEPERS;
    if !is_keepers && !all().any(|(_, p)| is_in(p)) {
        return to_outside(l, id, signo);
    }
    let may = |p: &Process| !failed(signals::permission(p));
    if !is_keepers && !all().any(|(_, p)| is_in(p) && may(p)) {
        return -EPERM;
    }
    if signo == 0 {
        return 0;
    }
    if signo == SIGKILL {
        // (By one that ends with them it is made again.)
        match is_in(me()) {
            true => end::kill_others(l, |_, p| is_in(p) && may(p)),
            false => end::kill_and_answer(l, |_, p| is_in(p) && may(p)),
        }
        if is_in(me()) || orphans::is_killed_for_it() {
            end::end(l, How::Signal(SIGKILL));
        }
        return 0;
    }
    if is_keepers {
        for (slot, p) in all().filter(|(_, p)| is_in(p)) {
            unit::is_signalled(slot);
            signals::before_stop_or_go(p, signo);
        }
        event::visible(l);
        event::non_deterministic(l);
        return sys!(KILL, -group::of_keeper(), signo);
    }
    event::non_deterministic(l);
    let r = each(signo, is_in);
    if is_in(me()) {
        sys!(KILL, engine().pid, signo);
    }
    r
}

/// A group that no process of the run is in.
fn to_outside(l: &mut Local, id: i32, signo: i32) -> isize {
    let kernel_says = || sys!(KILL, -id, signo);
    // The kernel's own group may be of what has ended here, or a companion's.
    if id == 0 || all().any(|(_, p)| p.worker.load(Relaxed) == id) {
        return -ESRCH;
    }
    match signo {
        0 => kernel_says(),
        _ => send_to_others_by(l, [-id as usize, signo as usize], kernel_says),
    }
}

/// Every process that may be signalled, but init and this one.
fn to_all(l: &mut Local, signo: i32) -> isize {
    let own = engine().slot;
    let is_other = |p: &Process| p.life() != Life::None && !core::ptr::eq(p, me());
    let found = all().any(|(slot, _)| slot != own && is_other(super::process(slot)));
    let r = match signo {
        0 => outside(0),
        _ => send_to_others_by(l, [KILL_ALL, signo as usize], || outside(signo)),
    };
    if signo == SIGKILL {
        end::kill_and_answer(l, |_, p| is_other(p) && !failed(signals::permission(p)));
        if orphans::is_killed_for_it() {
            end::end(l, How::Signal(SIGKILL));
        }
    } else if signo != 0 {
        event::non_deterministic(l);
        each(signo, is_other);
    }
    if found { 0 } else { r }
}

/// To each of the others that are meant.
fn each(signo: i32, is_meant: impl Fn(&Process) -> bool) -> isize {
    let mut answer = 0;
    let mut reached = false;
    for (slot, p) in all().filter(|(slot, p)| *slot != engine().slot && is_meant(p)) {
        if p.life() == Life::Zombie {
            reached = true;
            continue;
        }
        unit::is_signalled(slot);
        signals::before_stop_or_go(p, signo);
        match sys!(KILL, p.real.load(Relaxed), signo) {
            r if failed(r) => answer = r,
            _ => reached = true,
        }
    }
    match reached || is_meant(me()) {
        true => 0,
        false => answer,
    }
}

/// To every process of the machine that is not of this run.
fn outside(signo: i32) -> isize {
    const O_DIRECTORY_CLOEXEC: usize = 0o200000 | 0o2000000;
    let dir = crate::proc::open(b"/proc/.\0", O_DIRECTORY_CLOEXEC);
    if failed(dir) {
        return -ESRCH;
    }
    let mut answer = -ESRCH;
    let mut entries = [0u8; 4096];
    loop {
        let n = sys!(GETDENTS64, dir, entries.as_mut_ptr(), entries.len());
        if n <= 0 {
            break;
        }
        let mut at = 0;
        while at < n as usize {
            // (`struct linux_dirent64`: inode, offset, length, type, name)
            let len = usize::from(entries[at + 16]) | usize::from(entries[at + 17]) << 8;
            let number = number_at(&entries[at + 19..at + len.max(20)]);
            at += len.max(20);
            if let Some(pid) = number.filter(|&pid| is_outside(pid)) {
                match sys!(KILL, pid, signo) {
                    r if failed(r) && failed(answer) => answer = r,
                    r if failed(r) => {}
                    _ => answer = 0,
                }
            }
        }
    }
    sys!(CLOSE, dir);
    answer
}

fn number_at(text: &[u8]) -> Option<i32> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let number = || {
        text[..digits]
            .iter()
            .fold(0i32, |n, &b| n.wrapping_mul(10) + i32::from(b - b'0'))
    };
    (digits > 0).then(number)
}

fn is_outside(pid: i32) -> bool {
    let keeper = engine().live().keeper_pid.load(Relaxed) as i32;
    pid > 1 && pid != keeper && pid != engine().pid && parent_of(pid) != Some(keeper)
}

/// The kernel's parent of a process (proc(5): `12 (name) S 1 ..`).
pub(super) fn parent_of(pid: i32) -> Option<i32> {
    let mut path = Text::<40>::new();
    let _ = write!(path, "/proc/{pid}/stat\0");
    let fd = crate::proc::open(path.as_bytes(), 0o2000000);
    if failed(fd) {
        return None;
    }
    let mut text = [0u8; 96];
    let n = sys!(READ, fd, text.as_mut_ptr(), text.len());
    crate::object::input::count_read(n);
    sys!(CLOSE, fd);
    let text = &text[..n.max(0) as usize];
    let end = text.iter().rposition(|&b| b == b')')?;
    number_at(text.get(end + 4..)?)
}
