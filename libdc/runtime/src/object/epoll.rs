//! epoll: the interest list is kept in the state and made again at recovery.
//!
//! state:    entries of (epoll file, fd, events, data)
//! restore:  warm and cold: a new instance with every entry of the commit; an
//!           edge that was reported may be reported once more, as epoll allows
//! survives: warm and cold

use super::descriptor::*;
use super::input;
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::signal::calls::{end_mask, with_mask};
use crate::state::{EpollEntry, Kind};
use crate::sys;
use crate::thread;

const EPOLLIN: u32 = 1;

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
    if l.frame.nr != nr::EPOLL_WAIT {
        if let Err(e) = with_mask(l, a[4], a[5]) {
            return e;
        }
    }
    let (n, args) = match l.frame.nr {
        nr::EPOLL_PWAIT2 => (nr::EPOLL_PWAIT2, [a[0], a[1], a[2], a[3], 0, 0]),
        _ => (nr::EPOLL_WAIT, [a[0], a[1], a[2], a[3], 0, 0]),
    };
    let r = thread::wait_or_signal(l, n, args);
    if l.frame.nr != nr::EPOLL_WAIT {
        end_mask(l);
    }
    r
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

/// A file ceases to exist: so do its entries.
pub fn forget(file: u32) {
    for e in state().epoll.iter_mut() {
        if e.epoll != 0 && (e.epoll == file || e.target == file) {
            e.epoll = 0;
        }
    }
}

/// At recovery: a new instance, to be put on the file's descriptors.
pub fn remake(_file: u32) -> isize {
    sys!(EPOLL_CREATE1, 0)
}

/// At recovery, when every descriptor is in place.
pub fn fill() {
    const ADD: usize = 1;
    for e in state().epoll.iter().filter(|e| e.epoll != 0) {
        let Some(epfd) = any_fd(e.epoll) else {
            continue;
        };
        let mut b = [0u8; 12];
        b[..4].copy_from_slice(&e.events.to_le_bytes());
        b[4..].copy_from_slice(&e.data.to_le_bytes());
        // The number under which it was added, or another one of the file.
        let fd = if file_of(e.fd) == Some(e.target) {
            e.fd
        } else {
            any_fd(e.target).unwrap_or(-1)
        };
        sys!(EPOLL_CTL, epfd, ADD, fd, b.as_ptr());
    }
}
