//! epoll: the interest list is kept in the state and made again at recovery.
//!
//! state:    entries of (epoll file, fd, events, data)
//! restore:  warm: the instance lives; edges reported since the commit are armed
//!           again. Cold, or if entries changed since: a new instance with
//!           every entry of the commit, in which an edge may be reported twice
//! survives: warm and cold

use super::descriptor::*;
use super::{input, record};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::signal::calls::{end_mask, with_mask};
use crate::state::{EpollEntry, Kind};
use crate::sys;
use crate::thread;

const EPOLLIN: u32 = 1;
const EPOLLONESHOT: u32 = 1 << 30;
const EPOLLET: u32 = 1 << 31;
/// Bits that stay when a one-shot entry has fired.
const PRIVATE: u32 = 0xf << 28;
const CTL_DEL: usize = 2;
const CTL_MOD: usize = 3;

pub fn create(l: &mut Local, a: [usize; 6]) -> isize {
    if (a[0] as isize) <= 0 {
        return -EINVAL;
    }
    create1(l, [0; 6])
}

pub fn create1(_l: &mut Local, a: [usize; 6]) -> isize {
    let r = sys!(EPOLL_CREATE1, a[0]);
    if failed(r) {
        return r;
    }
    let Some(file) = new_file(Kind::Epoll) else {
        return -EMFILE;
    };
    open_file(file).flags = 2;
    enter(r as i32, file, a[0] & O_CLOEXEC != 0);
    r
}

pub fn ctl(_l: &mut Local, a: [usize; 6]) -> isize {
    const ADD: usize = 1;
    const DEL: usize = 2;
    let r = sys!(EPOLL_CTL, a[0], a[1], a[2], a[3]);
    if failed(r) {
        return r;
    }
    let Some(epoll) = file_of(a[0] as i32) else {
        return r;
    };
    let Some(target) = file_of(a[2] as i32) else {
        return r;
    };
    let list = &mut state().epoll;
    let fd = a[2] as i32;
    record::append(record::EPOLL_CHANGED, &[&epoll.to_le_bytes(), &[0; 4]]);
    let known = list
        .iter()
        .position(|e| e.epoll == epoll && e.fd == fd && e.target == target);
    if a[1] == DEL {
        if let Some(i) = known {
            list[i].epoll = 0;
        }
        return r;
    }
    let Some((events, data)) = event_at(a[3]) else {
        return -EFAULT;
    };
    let slot = if a[1] == ADD {
        list.iter().position(|e| e.epoll == 0)
    } else {
        known
    };
    let Some(i) = slot else {
        panic!("more than {} epoll entries", state().epoll.len())
    };
    list[i] = EpollEntry {
        epoll,
        target,
        fd,
        events,
        data,
    };
    r
}

/// `struct epoll_event` is packed: events u32, data u64.
fn event_at(at: usize) -> Option<(u32, u64)> {
    let b = user::read::<[u8; 12]>(at)?;
    Some((
        u32::from_le_bytes(b[..4].try_into().ok()?),
        u64::from_le_bytes(b[4..].try_into().ok()?),
    ))
}

pub fn wait(l: &mut Local, a: [usize; 6]) -> isize {
    if let Some(r) = fed(l, &a) {
        return r;
    }
    if l.frame.nr != nr::EPOLL_WAIT
        && let Err(e) = with_mask(l, a[4], a[5])
    {
        return e;
    }
    let (n, args) = match l.frame.nr {
        nr::EPOLL_PWAIT2 => (nr::EPOLL_PWAIT2, [a[0], a[1], a[2], a[3], 0, 0]),
        _ => (nr::EPOLL_WAIT, [a[0], a[1], a[2], a[3], 0, 0]),
    };
    let r = thread::wait_or_signal(l, n, args);
    if l.frame.nr != nr::EPOLL_WAIT {
        end_mask(l);
    }
    if r > 0 {
        note_reported(l, &a, r as usize);
    }
    r
}

/// An edge or a single shot is reported once. Should the program be rolled
/// back to before it, the entry must be armed again; once committed, a single
/// shot is over.
fn note_reported(l: &mut Local, a: &[usize; 6], n: usize) {
    let _guard = engine().lock.acquire(l);
    let Some(epoll) = file_of(a[0] as i32) else {
        return;
    };
    for i in 0..n {
        let Some((_, data)) = event_at(a[1] + i * 12) else {
            return;
        };
        let found = state().epoll.iter_mut().find(|e| {
            e.epoll == epoll && e.data == data && e.events & (EPOLLET | EPOLLONESHOT) != 0
        });
        if let Some(e) = found {
            record::append(
                record::EPOLL_REPORTED,
                &[&epoll.to_le_bytes(), &e.fd.to_le_bytes()],
            );
            if e.events & EPOLLONESHOT != 0 {
                e.events &= PRIVATE;
            }
        }
    }
}

/// An entry whose input is fed again is ready.
fn fed(l: &mut Local, a: &[usize; 6]) -> Option<isize> {
    if !input::any_pushback() {
        return None;
    }
    let _guard = engine().lock.acquire(l);
    let epoll = file_of(a[0] as i32)?;
    let mut n = 0;
    for e in state().epoll.iter().filter(|e| e.epoll == epoll) {
        if e.events & EPOLLIN != 0 && input::has_pushback(e.fd) && n < a[2] {
            let mut b = [0u8; 12];
            b[..4].copy_from_slice(&EPOLLIN.to_le_bytes());
            b[4..].copy_from_slice(&e.data.to_le_bytes());
            user::write_bytes(a[1] + n * 12, &b);
            n += 1;
        }
    }
    (n > 0).then_some(n as isize)
}

/// A file ceases to exist: so do its entries. (The kernel would know by the
/// last close, which a rollback's sake delays.)
pub fn forget(file: u32) {
    for i in 0..state().epoll.len() {
        let e = state().epoll[i];
        if e.epoll == 0 || (e.epoll != file && e.target != file) {
            continue;
        }
        state().epoll[i].epoll = 0;
        if e.target == file
            && e.epoll != file
            && let Some(epfd) = any_fd(e.epoll)
        {
            record::append(record::EPOLL_CHANGED, &[&e.epoll.to_le_bytes(), &[0; 4]]);
            sys!(EPOLL_CTL, epfd, CTL_DEL, e.fd, 0);
        }
    }
}

/// At recovery: whether the kernel's set is not that of the last commit.
pub fn changed(file: u32) -> bool {
    engine().journal.records(0).any(|r| {
        r.kind == record::EPOLL_CHANGED && record::value_of::<u32>(r.payload) == Some(file)
    })
}

/// At recovery: a new instance, to be put on the file's descriptors.
pub fn remake(_file: u32) -> isize {
    sys!(EPOLL_CREATE1, 0)
}

/// At recovery, for a new instance, when every descriptor is in place.
pub fn fill(file: u32) {
    const ADD: usize = 1;
    let Some(epfd) = any_fd(file) else { return };
    for e in state().epoll.iter().filter(|e| e.epoll == file) {
        control(epfd, ADD, e);
    }
}

fn control(epfd: i32, op: usize, e: &EpollEntry) {
    let mut b = [0u8; 12];
    b[..4].copy_from_slice(&e.events.to_le_bytes());
    b[4..].copy_from_slice(&e.data.to_le_bytes());
    // The number under which it was added, or another one of the file.
    let fd = if file_of(e.fd) == Some(e.target) {
        e.fd
    } else {
        any_fd(e.target).unwrap_or(-1)
    };
    sys!(EPOLL_CTL, epfd, op, fd, b.as_ptr());
}

/// At warm recovery: what was reported since the commit may be reported again.
pub fn arm_reported() {
    for r in engine().journal.records(0) {
        if r.kind != record::EPOLL_REPORTED {
            continue;
        }
        let (Some(epoll), Some(fd)) = (
            record::value_of::<u32>(r.payload),
            record::value_of::<i32>(&r.payload[4..]),
        ) else {
            continue;
        };
        let Some(epfd) = any_fd(epoll) else { continue };
        if let Some(e) = state()
            .epoll
            .iter()
            .find(|e| e.epoll == epoll && e.fd == fd)
        {
            control(epfd, CTL_MOD, e);
        }
    }
}
