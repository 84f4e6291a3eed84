//! Descriptors of processes: pidfd_open(2), CLONE_PIDFD, pidfd_send_signal(2),
//! pidfd_getfd(2).
//!
//! state:     which process of the run it means: number and entry, and the commit of its birth
//! intercept: the calls that make one, and those that use it. Of a process that is not of
//!            the run it is the kernel's own, and committed around
//! restore:   warm and cold: of the process's present worker. Of one that has ended, that of
//!            a process that ends at once
//! survives:  warm and cold

use super::descriptor::{self, O_NONBLOCK, file_of, new_file, open_file};
use super::epoll;
use crate::engine::{engine, state};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::run::{self, signals};
use crate::signal::queue::SigInfo;
use crate::state::{Kind, OpenFile};
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::run::{Life, Process};

/// Where an open file says which process it means.
const ID: usize = 0;
const SLOT: usize = 1;
const BORN: usize = 2;

/// pidfd_open(2).
pub fn open(l: &mut Local, a: [usize; 6]) -> isize {
    let (pid, flags) = (a[0] as i32, a[1]);
    if pid <= 0 {
        return -EINVAL;
    }
    let guard = engine().lock.acquire(l);
    if run::is_leaving(pid) {
        return -ESRCH;
    }
    let own = pid == state().root.pid;
    let Some((slot, p)) = run::known_as(pid).or(own.then(|| (engine().slot, run::me()))) else {
        drop(guard);
        return crate::table::around(l, a, None);
    };
    if flags & !O_NONBLOCK != 0 {
        return -EINVAL;
    }
    let r = of_process(slot, p, flags);
    event::non_deterministic(l);
    r
}

/// A new descriptor of a process of the run. Under the big lock.
pub fn of_process(slot: usize, p: &Process, flags: usize) -> isize {
    let fd = made(p, flags);
    if failed(fd) {
        return fd;
    }
    if fd as i32 >= engine().boot.fd_base {
        sys!(CLOSE, fd);
        return -EMFILE;
    }
    let Some(file) = new_file(Kind::PidFd) else {
        sys!(CLOSE, fd);
        return -EMFILE;
    };
    let f = open_file(file);
    f.flags = (2 | flags) as u32;
    f.words[ID] = p.id.load(Relaxed) as u64;
    f.words[SLOT] = slot as u64;
    f.words[BORN] = p.born.load(Relaxed);
    p.watched.store(1, Relaxed);
    descriptor::enter(fd as i32, file, true);
    fd
}

/// The kernel's descriptor of a process's worker.
fn made(p: &Process, flags: usize) -> isize {
    let real = p.real.load(SeqCst);
    if p.life() == Life::Lives && real != 0 {
        return sys!(PIDFD_OPEN, real, flags);
    }
    let r = match real {
        0 => -ESRCH,
        _ => sys!(PIDFD_OPEN, real, flags),
    };
    if failed(r) { of_nobody(flags) } else { r }
}

/// A descriptor of a process that ends at once; the keeper reaps it.
fn of_nobody(flags: usize) -> isize {
    const CLONE_PIDFD: usize = 0x1000;
    const CLONE_PARENT: usize = 0x8000;
    let mut fd = -1i32;
    let r = sys!(CLONE, CLONE_PIDFD | CLONE_PARENT, 0, &raw mut fd, 0, 0);
    if r == 0 {
        loop {
            sys!(EXIT_GROUP, 0);
        }
    }
    if failed(r) {
        return r;
    }
    const F_SETFL: usize = 4;
    if flags & O_NONBLOCK != 0 {
        sys!(FCNTL, fd, F_SETFL, flags);
    }
    fd as isize
}

/// The process of the run that a descriptor means, unless it is gone and reaped.
pub fn meant(fd: i32) -> Option<(usize, &'static Process)> {
    let f = open_file(file_of(fd)?);
    if f.kind != Kind::PidFd {
        return None;
    }
    let p = process_of(f);
    let is_it = p.id.load(Relaxed) as u64 == f.words[ID] && p.born.load(Relaxed) == f.words[BORN];
    (is_it && p.life() != Life::None).then_some((f.words[SLOT] as usize, p))
}

fn process_of(f: &OpenFile) -> &'static Process {
    run::process(f.words[SLOT] as usize)
}

/// Whether a descriptor is one of a process of the run, and does not want to wait.
pub fn is_ours(fd: i32) -> Option<bool> {
    let f = open_file(file_of(fd)?);
    (f.kind == Kind::PidFd).then_some(f.flags as usize & O_NONBLOCK != 0)
}

/// pidfd_send_signal(2): as kill(2) or rt_sigqueueinfo(2) of the process that is meant.
pub fn send_signal(l: &mut Local, a: [usize; 6]) -> isize {
    let (fd, signo, info_at, flags) = (a[0] as i32, a[1], a[2], a[3]);
    let id = {
        let guard = engine().lock.acquire(l);
        let of_another = match is_ours(fd) {
            None => signals::process_of_pidfd(fd),
            Some(_) => None,
        };
        match (meant(fd), of_another) {
            // (A descriptor that another process has sent, or a folder of /proc.)
            (None, Some(id)) if run::known_as(id).is_none() => return as_unknown(l, guard, a),
            (None, None) if is_ours(fd).is_none() => return -EBADF,
            _ if flags != 0 => return -EINVAL,
            (Some((_, p)), _) => p.id.load(Relaxed) as usize,
            (None, Some(id)) => id as usize,
            (None, None) => return -ESRCH,
        }
    };
    // (A commit in the middle finds the call as the program made it.)
    match info_at {
        0 => signals::send_as(l, nr::KILL, [id, signo, 0, 0, 0, 0]),
        _ => match user::read::<SigInfo>(info_at) {
            None => -EFAULT,
            Some(info) if info.signo as usize != signo => -EINVAL,
            Some(info) if info.code >= 0 && id != state().root.pid as usize => -EPERM,
            Some(_) => signals::send_as(l, nr::RT_SIGQUEUEINFO, [id, signo, info_at, 0, 0, 0]),
        },
    }
}

/// pidfd_getfd(2). Another process's descriptors are state of that one; what ptrace(2) may
/// not do it may not either.
pub fn get_descriptor(l: &mut Local, a: [usize; 6]) -> isize {
    let guard = engine().lock.acquire(l);
    if is_ours(a[0] as i32).is_none() {
        return as_unknown(l, guard, a);
    }
    crate::say!(
        "a process of the run cannot take descriptors of another one: pidfd_getfd is refused"
    );
    -EPERM
}

fn as_unknown(l: &mut Local, guard: crate::thread::Guard, a: [usize; 6]) -> isize {
    drop(guard);
    if signals::process_of_pidfd(a[0] as i32).is_none() {
        return -EBADF;
    }
    crate::table::around(l, a, None)
}

/// At recovery: the worker that it meant is gone. Sets in which it is watched get the new one.
pub fn remake(file: u32) -> isize {
    let f = open_file(file);
    let p = process_of(f);
    let is_it = p.id.load(Relaxed) as u64 == f.words[ID] && p.born.load(Relaxed) == f.words[BORN];
    let flags = f.flags as usize & O_NONBLOCK;
    let fd = match is_it {
        true => {
            p.watched.store(1, Relaxed);
            made(p, flags)
        }
        false => of_nobody(flags),
    };
    if !failed(fd) {
        epoll::forget_kernels(file);
        const F_SETFD: usize = 2;
        sys!(FCNTL, fd, F_SETFD, 1);
    }
    fd
}
