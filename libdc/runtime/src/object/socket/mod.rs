//! Sockets: live through a warm recovery, because the keeper holds them, and are made again
//! at a cold one ([`remade`]): as they were if both ends are in the run ([`pair`]), bound and
//! listening if they were; connections to others end.
//!
//! What goes through them by plain calls goes the way of all streams (input,
//! output): it is counted and recorded, and neither lost nor repeated. So is what
//! comes as a [`message`]. Other calls on a socket are logged or committed around;
//! when a crash comes in the middle of one, what it received is lost with it.
#![allow(unsafe_code)]

pub mod accepted;
mod address;
mod diag;
mod facts;
pub mod handed;
pub mod pair;
mod receive;
pub mod remade;
mod send;
pub mod waiting;

pub use receive::{made_again, recvfrom, recvmsg, send_like, times_out};
pub use send::{
    MMSGHDR, message_of, nth_of_several, plain_send, send, send_several, without_signal,
};

use super::descriptor::*;
use super::strays;
use crate::commit::fault_point;
use crate::engine::engine;
use crate::event;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::state::Kind;
use crate::sys;
use crate::thread;
use dc_image::boot::fault;

const SOCK_NONBLOCK: usize = 0o4000;
const SOCK_CLOEXEC: usize = 0o2000000;
const SO_RCVTIMEO: usize = 20;
pub const SO_SNDTIMEO: usize = 21;

fn once() {
    if crate::table::first_time(nr::SOCKET as u16) {
        crate::say!(
            "connections to others survive the death of the program, but not that of dcrun itself"
        );
    }
}

/// socket, socketpair, accept.
pub fn make(l: &mut Local, a: [usize; 6]) -> isize {
    let n = l.frame.nr;
    if !has_numbers(if n == nr::SOCKETPAIR { 2 } else { 1 }) {
        return -EMFILE;
    }
    let r = match n {
        nr::ACCEPT | nr::ACCEPT4 => {
            let flags = if n == nr::ACCEPT4 { a[3] } else { 0 };
            let r = match accepted::give(l, &a, flags) {
                Some(r) => r,
                None => receive::wait_awake(l, n, a),
            };
            fault_point(fault::AFTER_READ);
            if !failed(r) {
                l.commit_after = true;
            }
            r
        }
        // SAFETY: the program's own call with its own arguments.
        _ => unsafe { crate::machine::sys::raw6(n, a) },
    };
    if failed(r) {
        return r;
    }
    let _guard = engine().lock.acquire(l);
    // With all that its peer knows of it.
    event::outlives(l);
    let flags = match n {
        nr::ACCEPT4 => a[3],
        nr::ACCEPT => 0,
        _ => a[1],
    };
    let new = |fd: i32| {
        let file = new_file(Kind::Socket)?;
        let f = open_file(file);
        f.flags = (flags & SOCK_NONBLOCK) as u32 | 2;
        match n {
            nr::ACCEPT | nr::ACCEPT4 => facts::accepted(file_of(a[0] as i32), fd, f),
            _ => facts::made(f, a[0], a[1], a[2], n == nr::SOCKETPAIR),
        }
        enter(fd, file, flags & SOCK_CLOEXEC != 0);
        Some(())
    };
    if n == nr::SOCKETPAIR {
        let Some(fds) = user::read::<[i32; 2]>(a[3]) else {
            return -EFAULT;
        };
        if fds.into_iter().all(|fd| new(fd).is_some()) {
            pair::made(fds[0], fds[1]);
            r
        } else {
            -EMFILE
        }
    } else if new(r as i32).is_some() {
        if matches!(n, nr::ACCEPT | nr::ACCEPT4) && !pair::accepted(r as i32) {
            once();
        }
        r
    } else {
        sys!(CLOSE, r);
        -EMFILE
    }
}

/// connect and bind. The keeper holds the socket, so one that was tied when the
/// program died is tied still; the mark, made before and committed, tells the
/// repeated call from a second one, which is a mistake. After the death of dcrun itself only the
/// file of a path that was bound is left.
pub fn tie(l: &mut Local, a: [usize; 6]) -> isize {
    let n = l.frame.nr;
    let mut address = [0u8; facts::ADDRESS];
    let address = &mut address[..a[2].min(facts::ADDRESS)];
    let is_read = user::read_bytes(a[1], address);
    let mark = |value: u64| {
        facts::socket_of(a[0] as i32).map_or(NEW, |file| {
            core::mem::replace(&mut open_file(file).words[facts::UNDER_WAY], value)
        })
    };
    let before = {
        let _guard = engine().lock.acquire(l);
        let before = mark(NEW);
        let had_file = || is_read && address::file_at(address).is_some();
        mark(match before {
            NEW if is_tied(n, a[0]) => NEW,
            NEW if n == nr::BIND && !had_file() => WITHOUT_FILE,
            NEW => UNDER_WAY,
            before => before,
        });
        if n == nr::CONNECT
            && let Some(file) = facts::socket_of(a[0] as i32)
        {
            pair::connects(file);
        }
        event::irrevocable(l);
        before
    };
    let r = match before != NEW && is_tied(n, a[0]) {
        true => 0,
        false => match thread::wait_or_signal(l, n, a) {
            r if r == -EADDRINUSE && before == WITHOUT_FILE && is_read => {
                bind_anew(a[0] as i32, address)
            }
            r => r,
        },
    };
    if !failed(r) {
        fault_point(fault::AFTER_VISIBLE);
    }
    let _guard = engine().lock.acquire(l);
    mark(NEW);
    if !failed(r) {
        l.commit_after = true;
    }
    note_tied(n, &a, r);
    // One that could not be made at once may be under way.
    event::outlives(l);
    r
}

/// What the mark of [`tie`] says of an earlier call: there was none, there was one, there was
/// one that was to make a file.
const NEW: u64 = 0;
const UNDER_WAY: u64 = 1;
const WITHOUT_FILE: u64 = 2;

/// The file is that of the socket that died over this call.
fn bind_anew(fd: i32, address: &[u8]) -> isize {
    let Some(file) = facts::socket_of(fd) else {
        return -EBADF;
    };
    let kind = open_file(file).socket_type();
    match address::path_of(address) {
        Some(_) => address::bind_anew(fd as isize, kind, address),
        None => -EADDRINUSE,
    }
}

/// What a socket is tied to now.
fn note_tied(n: usize, a: &[usize; 6], r: isize) {
    const EINPROGRESS: isize = 115;
    let Some(file) = facts::socket_of(a[0] as i32).filter(|_| !failed(r) || r == -EINPROGRESS)
    else {
        return;
    };
    let f = open_file(file);
    if n == nr::BIND {
        return facts::note_name(a[0] as i32, f);
    }
    let mut address = [0u8; facts::ADDRESS];
    let len = a[2].min(address.len());
    if !user::read_bytes(a[1], &mut address[..len]) {
        return;
    }
    facts::connected(f, &address[..len]);
    if !pair::connected(file, &address[..len]) {
        once();
    }
}

pub fn listen(l: &mut Local, a: [usize; 6]) -> isize {
    let r = send_like(l, a);
    let _guard = engine().lock.acquire(l);
    if let Some(file) = facts::socket_of(a[0] as i32).filter(|_| !failed(r)) {
        facts::listens(a[0] as i32, open_file(file), a[1]);
        pair::listens(a[0] as i32);
    }
    r
}

pub fn set_option(l: &mut Local, a: [usize; 6]) -> isize {
    let r = send_like(l, a);
    let _guard = engine().lock.acquire(l);
    if let Some(file) = facts::socket_of(a[0] as i32).filter(|_| !failed(r)) {
        facts::option_set(open_file(file), a[1], a[2], a[3], a[4] as u32 as usize);
    }
    r
}

/// What a program has not set is not shown either.
pub fn option(l: &mut Local, a: [usize; 6]) -> isize {
    let wanted = [a[1], a[2]].map(|word| word as u32 as usize);
    strays::option_asked(wanted[0], wanted[1]);
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(nr::GETSOCKOPT, a) };
    if failed(r) || wanted != [facts::SOL_SOCKET, facts::SO_REUSEADDR] {
        return r;
    }
    let _guard = engine().lock.acquire(l);
    let Some(file) = facts::socket_of(a[0] as i32).filter(|_| user::read(a[4]) == Some(4u32))
    else {
        return r;
    };
    let f = open_file(file);
    if matches!(f.family(), facts::AF_INET | facts::AF_INET6) {
        user::write(a[3], &facts::shown_option(f, wanted));
    }
    r
}

/// Whether a socket has the address that a call would give it.
fn is_tied(n: usize, fd: usize) -> bool {
    const AF_UNIX: u16 = 1;
    let mut name = [0u16; 64];
    let mut len = size_of_val(&name) as u32;
    let (at, len_at) = (name.as_mut_ptr(), &raw mut len);
    let r = match n {
        nr::CONNECT => sys!(GETPEERNAME, fd, at, len_at),
        _ => sys!(GETSOCKNAME, fd, at, len_at),
    };
    // Without an address there is the family alone, or the port is 0.
    let bound = match name[0] {
        AF_UNIX => len > 2,
        _ => name[1] != 0,
    };
    !failed(r) && (n == nr::CONNECT || bound)
}

/// Whether a descriptor is a socket.
pub fn is_socket(fd: i32) -> bool {
    file_of(fd).is_some_and(|file| open_file(file).kind == Kind::Socket)
}
