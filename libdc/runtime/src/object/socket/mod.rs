//! Sockets: live through a warm recovery, because the keeper holds them.
//!
//! What goes through them by plain calls goes the way of all streams (input,
//! output): it is counted and recorded, and neither lost nor repeated. So is what
//! comes as a [`message`]. Other calls on a socket are logged or committed around;
//! when a crash comes in the middle of one, what it received is lost with it. Cold,
//! sockets are lost.
#![allow(unsafe_code)]

mod receive;
mod send;

pub use receive::{recvfrom, recvmsg, send_like, times_out};
pub use send::{
    MMSGHDR, message_of, nth_of_several, plain_send, send, send_several, without_signal,
};

use super::descriptor::*;
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
        crate::say!("sockets survive the death of the program, but not that of dcrun itself");
    }
}

/// At a cold recovery: what was connected is closed now.
pub fn say_lost() {
    if crate::table::first_time(nr::SOCKET as u16) {
        crate::say!(
            "its sockets and socket pairs were lost with dcrun: the program finds them closed"
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
            let r = receive::wait_awake(l, n, a);
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
    if matches!(n, nr::ACCEPT | nr::ACCEPT4) {
        once();
    }
    let flags = match n {
        nr::ACCEPT4 => a[3],
        nr::ACCEPT => 0,
        _ => a[1],
    };
    let new = |fd: i32| {
        let file = new_file(Kind::Socket)?;
        open_file(file).flags = (flags & SOCK_NONBLOCK) as u32 | 2;
        enter(fd, file, flags & SOCK_CLOEXEC != 0);
        Some(())
    };
    if n == nr::SOCKETPAIR {
        let Some(fds) = user::read::<[i32; 2]>(a[3]) else {
            return -EFAULT;
        };
        if fds.into_iter().all(|fd| new(fd).is_some()) {
            r
        } else {
            -EMFILE
        }
    } else if new(r as i32).is_some() {
        r
    } else {
        sys!(CLOSE, r);
        -EMFILE
    }
}

/// connect and bind. The keeper holds the socket, so one that was tied when the
/// program died is tied still; the mark, made before and committed, tells the
/// repeated call from a second one, which is a mistake.
pub fn tie(l: &mut Local, a: [usize; 6]) -> isize {
    const UNDER_WAY: usize = 15;
    let n = l.frame.nr;
    let mark = |value: u64| {
        file_of(a[0] as i32)
            .filter(|&file| open_file(file).kind == Kind::Socket)
            .map(|file| core::mem::replace(&mut open_file(file).words[UNDER_WAY], value))
    };
    let repeated = {
        let _guard = engine().lock.acquire(l);
        let repeated = mark(0) == Some(1);
        mark(u64::from(repeated || !is_tied(n, a[0])));
        event::irrevocable(l);
        repeated
    };
    let r = match repeated && is_tied(n, a[0]) {
        true => 0,
        false => thread::wait_or_signal(l, n, a),
    };
    if !failed(r) {
        fault_point(fault::AFTER_VISIBLE);
    }
    let _guard = engine().lock.acquire(l);
    mark(0);
    if !failed(r) {
        l.commit_after = true;
    }
    // One that could not be made at once may be under way.
    event::outlives(l);
    if n == nr::CONNECT && !failed(r) {
        once();
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
