//! Connections that were accepted in an interval that was lost.
//!
//! The kernel gives a connection once, to accept(2), so a warm recovery finds the descriptor
//! without a place in the table. It is put aside, and is the first that is accepted anew: the
//! peer, which has seen nothing of it, may have sent already.
//!
//! (Cold they have ended like all that were open; within the run they are made again.)

use super::facts::{ADDRESS, AF_INET, AF_INET6, SOL_SOCKET};
use super::{SOCK_CLOEXEC, SOCK_NONBLOCK};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::object::descriptor::*;
use crate::state::{Kind, OpenFile};
use crate::sys;
use core::sync::atomic::{AtomicI32, Ordering::*};
use dc_image::boot::high_fd;

/// How many are put aside.
static COUNT: AtomicI32 = AtomicI32::new(0);

fn place(i: i32) -> i32 {
    engine().high_fd(high_fd::ACCEPTED) + i
}

/// Whether any was put aside.
#[inline]
pub fn any() -> bool {
    COUNT.load(Relaxed) != 0
}

/// Whether a descriptor is a socket that would accept one of them.
pub fn waits_for(fd: i32) -> bool {
    any() && known_file(fd).is_some_and(|file| first_for(open_file(file)).is_some())
}

fn first_for(f: &OpenFile) -> Option<i32> {
    let is_listening = f.kind == Kind::Socket && f.listens();
    (0..COUNT.load(Relaxed)).find(|&i| is_listening && came_by(f, place(i)))
}

/// Whether a connection is one that came to a listening socket: it has the address of that.
fn came_by(f: &OpenFile, fd: i32) -> bool {
    const SO_ACCEPTCONN: usize = 30;
    let (mut listens, mut len) = (1u32, 4u32);
    let (at, len_at) = (&raw mut listens, &raw mut len);
    if failed(sys!(GETSOCKOPT, fd, SOL_SOCKET, SO_ACCEPTCONN, at, len_at)) || listens != 0 {
        return false;
    }
    let mut name = [0u8; ADDRESS];
    let mut len = ADDRESS as u32;
    let r = sys!(GETSOCKNAME, fd, name.as_mut_ptr(), &raw mut len);
    let own = &name[..(len as usize).min(ADDRESS)];
    match f.family() {
        _ if failed(r) => false,
        // The address may have been any; the port was one.
        AF_INET | AF_INET6 => own.get(2..4) == f.name().get(2..4),
        _ => own == f.name(),
    }
}

/// At a warm recovery: those that no table has are put aside. Of this process's own
/// descriptors, or of the one to which the descriptor `of` leads.
pub fn keep(of: Option<i32>) {
    const MORE: i32 = 256;
    if !listening().any(|_| true) {
        return;
    }
    let table = state().root.fd_high as i32;
    let numbers = (0..high_fd::ACCEPTED_COUNT)
        .map(place)
        .chain(0..table + MORE);
    let mut kept = 0;
    for fd in numbers {
        if kept == high_fd::ACCEPTED_COUNT {
            break;
        }
        if fd < table && state().fds[fd as usize].file != 0 {
            continue;
        }
        let it = match of {
            Some(pidfd) => sys!(PIDFD_GETFD, pidfd, fd, 0),
            None => fd as isize,
        };
        if failed(it) {
            continue;
        }
        if listening().any(|f| came_by(f, it as i32)) {
            if it as i32 != place(kept) {
                sys!(DUP3, it, place(kept), O_CLOEXEC);
            }
            kept += 1;
        }
        if it as i32 != place(kept - 1) && (of.is_some() || fd >= place(0)) {
            sys!(CLOSE, it);
        }
    }
    COUNT.store(kept, Relaxed);
}

fn listening() -> impl Iterator<Item = &'static OpenFile> {
    (1..=state().root.file_high)
        .filter(|&file| state().file_refs[file as usize - 1] != 0)
        .map(|file| &*open_file(file))
        .filter(|f| f.kind == Kind::Socket && f.listens())
}

/// The answer of accept(2), if one was put aside for this socket.
pub fn give(l: &mut Local, a: &[usize; 6], flags: usize) -> Option<isize> {
    const F_SETFL: usize = 4;
    const F_DUPFD: usize = 0;
    const F_DUPFD_CLOEXEC: usize = 1030;
    if !any() {
        return None;
    }
    let _guard = engine().lock.acquire(l);
    let f = open_file(file_of(a[0] as i32)?);
    let i = first_for(f)?;
    let how = match flags & SOCK_CLOEXEC {
        0 => F_DUPFD,
        _ => F_DUPFD_CLOEXEC,
    };
    let fd = sys!(FCNTL, place(i), how, 0);
    if failed(fd) {
        return Some(fd);
    }
    let last = COUNT.fetch_sub(1, Relaxed) - 1;
    if i != last {
        sys!(DUP3, place(last), place(i), O_CLOEXEC);
    }
    sys!(CLOSE, place(last));
    sys!(FCNTL, fd, F_SETFL, flags & SOCK_NONBLOCK);
    if a[1] != 0 && failed(sys!(GETPEERNAME, fd, a[1], a[2])) && !user::write(a[2], &0u32) {
        sys!(CLOSE, fd);
        return Some(-EFAULT);
    }
    Some(fd)
}

/// In a child: they are its parent's. (Their numbers are closed with others.)
pub fn leave() {
    COUNT.store(0, Relaxed);
}
