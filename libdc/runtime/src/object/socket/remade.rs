//! Sockets at a cold recovery.
//!
//! | what it was | what the program finds |
//! |---|---|
//! | both ends in the run | as at the commit, with what lay in it |
//! | connected to the run, not accepted yet | connected again, with what it had sent |
//! | bound, listening | bound to the same address, listens; who was waiting has to come again |
//! | datagrams | bound and connected as before; what was on its way is lost, as a network may |
//! | connected to others | a connection that was reset, as a network ends it (ECONNRESET) |
//!
//! What cannot be had again, because somebody else has the address by now, stops the
//! recovery with a word.

use super::facts::{self, AF_INET, AF_INET6, AF_UNIX, SOCK_SEQPACKET, SOCK_STREAM};
use super::{address, pair};
use crate::engine::{engine, state};
use crate::fatal;
use crate::machine::sys::{errno::*, failed};
use crate::object::descriptor::*;
use crate::object::message::{MSG_DONTWAIT, MSG_NOSIGNAL};
use crate::object::stat::Stat;
use crate::recover::descriptors::install;
use crate::run::shared;
use crate::state::{Kind, OpenFile};
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;
use dc_image::run::{CONTENTS_LEN, Inside, Shared};

const SOCK_CLOEXEC: usize = 0o2000000;
const SHUT_RD: usize = 0;
const SHUT_RDWR: usize = 2;

/// Whether this process is the one that makes a socket, and the other end with it.
pub fn claim(file: u32, at: usize, s: &Shared) -> bool {
    let other = other_at_commit(open_file(file), s);
    let first = other.map_or(at, |(other, _)| other.min(at));
    if !shared::claim(shared::entry(first)) {
        return false;
    }
    let maker = engine().slot as u32 + 1;
    s.maker.store(maker, Release);
    if let Some((_, other)) = other {
        other.maker.store(maker, Release);
    }
    true
}

/// The entry of the other end, if the commit has it and both are the run's.
fn other_at_commit(f: &OpenFile, s: &Shared) -> Option<(usize, &'static Shared)> {
    let had = |other: &Shared| other.get(engine().store.published()).is_some();
    pair::other_end(s).filter(|(_, other)| had(other) && pair::is_own(f))
}

/// A socket that several may know, and its other end with the entry of that.
pub fn make(file: u32, at: usize, s: &'static Shared) -> (isize, Option<(&'static Shared, isize)>) {
    let f = open_file(file);
    let is_linked = s.pair.load(Relaxed) != 0 && pair::is_own(f);
    let Some(own) = inside(s).filter(|own| is_linked && !own.waits) else {
        return (again(file), None);
    };
    let other = other_at_commit(f, s).and_then(|(at, o)| Some((at, o, inside(o)?)));
    if own.is_lost || other.is_some_and(|(.., theirs)| theirs.is_lost) {
        say_not_kept();
        return (reset(f), other.map(|(_, o, _)| (o, reset(f))));
    }
    let [x, y] = both(f);
    if failed(x) {
        return (x, None);
    }
    is_anew(s, x);
    fill(f, at, s, own, y);
    let Some((other_at, o, theirs)) = other else {
        // The other end was closed: now it is again.
        end(x, own);
        sys!(CLOSE, y);
        return (x, None);
    };
    is_anew(o, y);
    fill(f, other_at, o, theirs, x);
    end(x, own);
    end(y, theirs);
    (x, Some((o, y)))
}

/// What the commit has of an end.
fn inside(s: &Shared) -> Option<Inside> {
    s.get(engine().store.published()).map(Inside::from_value)
}

fn both(f: &OpenFile) -> [isize; 2] {
    let mut fds = [0i32; 2];
    let kind = f.socket_type() as usize | SOCK_CLOEXEC;
    let r = sys!(SOCKETPAIR, f.family(), kind, 0, fds.as_mut_ptr());
    match failed(r) {
        true => [r, r],
        false => fds.map(|fd| fd as isize),
    }
}

fn is_anew(s: &Shared, fd: isize) {
    if let Ok(st) = Stat::of_fd(fd as i32) {
        s.ino.store(st.ino, Relaxed);
    }
}

/// What had come to an end comes again, sent from the other one.
fn fill(f: &OpenFile, at: usize, s: &Shared, inside: Inside, from: isize) {
    let Some(place) = s.place_at(engine().store.published()) else {
        return;
    };
    let bytes = shared::inside(at, place, inside.len);
    if bytes.is_empty() {
        return;
    }
    let usual = room(from);
    set_room(from, CONTENTS_LEN as u32);
    let all = match f.socket_type() {
        SOCK_STREAM => send_all(from, bytes),
        _ => messages_in(bytes).all(|message| send_all(from, message)),
    };
    // (The kernel doubles what it is told.)
    set_room(from, usual / 2);
    if !all {
        fatal::stop(
            FatalCode::CannotRestore,
            0,
            format_args!(
                "restore a socket between two processes: {} bytes lay in it, and the kernel has no \
                 room for so many (net.core.wmem_max); give it more, then resume",
                bytes.len()
            ),
        )
    }
}

fn send_all(fd: isize, bytes: &[u8]) -> bool {
    let mut done = 0;
    loop {
        let rest = &bytes[done..];
        let flags = MSG_DONTWAIT | MSG_NOSIGNAL;
        let r = sys!(SENDTO, fd, rest.as_ptr(), rest.len(), flags, 0, 0);
        if failed(r) {
            return false;
        }
        done += r as usize;
        if done >= bytes.len() {
            return true;
        }
    }
}

fn messages_in(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let head = bytes.get(..pair::HEAD)?;
        let len = u32::from_le_bytes(head.try_into().ok()?) as usize;
        let message = bytes.get(pair::HEAD..pair::HEAD + len)?;
        bytes = &bytes[pair::HEAD + len..];
        Some(message)
    })
}

const SO_SNDBUF: usize = 7;

fn room(fd: isize) -> u32 {
    let (mut value, mut len) = (0u32, 4u32);
    let (at, len_at) = (&raw mut value, &raw mut len);
    sys!(GETSOCKOPT, fd, facts::SOL_SOCKET, SO_SNDBUF, at, len_at);
    value
}

fn set_room(fd: isize, bytes: u32) {
    let at = &raw const bytes;
    sys!(SETSOCKOPT, fd, facts::SOL_SOCKET, SO_SNDBUF, at, 4);
}

/// What was shut down is so again.
fn end(fd: isize, inside: Inside) {
    if inside.is_hung_up {
        sys!(SHUTDOWN, fd, SHUT_RDWR);
    } else if inside.ends {
        sys!(SHUTDOWN, fd, SHUT_RD);
    }
}

/// A socket whose other end is not in the run.
pub fn again(file: u32) -> isize {
    let f = open_file(file);
    if f.is_connected() && matches!(f.socket_type(), SOCK_STREAM | SOCK_SEQPACKET) {
        if waits_for_accept(f) {
            return plain(file);
        }
        say_lost();
        return reset(f);
    }
    if f.family() == 0 {
        // Of before the program knew it: nobody has said what it is.
        return reset(f);
    }
    let fd = plain(file);
    if failed(fd) {
        return fd;
    }
    apply_options(fd as i32, f);
    if !f.name().is_empty() {
        bind(file, fd);
    }
    if f.listens() {
        let r = sys!(LISTEN, fd, f.backlog());
        check(file, r, "listen");
    }
    if f.is_connected() {
        let peer = f.peer_name();
        // A peer that is gone is one that datagrams do not reach.
        sys!(CONNECT, fd, peer.as_ptr(), peer.len());
    }
    if let Some((_, s)) = shared::of(f) {
        is_anew(s, fd);
        if f.family() == AF_UNIX && f.listens() {
            s.address.store(address::key_of(f.name()), Relaxed);
        }
    }
    fd
}

fn plain(file: u32) -> isize {
    let f = open_file(file);
    let kind = f.socket_type() as usize | SOCK_CLOEXEC;
    let fd = sys!(SOCKET, f.family(), kind, f.socket_protocol());
    check(file, fd, "make");
    fd
}

/// Connected to a process of the run that has yet to accept it.
fn waits_for_accept(f: &OpenFile) -> bool {
    shared::of(f).is_some_and(|(_, s)| {
        s.listener.load(Relaxed) != 0
            && other_at_commit(f, s).is_none()
            && pair::is_own(f)
            && inside(s).is_none_or(|it| it.waits)
    })
}

/// When all listen again: those that waited connect again.
pub fn reconnect() {
    for file in 1..=state().root.file_high {
        if state().file_refs[file as usize - 1] == 0 {
            continue;
        }
        let f = open_file(file);
        let Some((at, s)) = shared::of(f).filter(|_| f.kind == Kind::Socket) else {
            continue;
        };
        let Some(fd) = any_fd(file) else { continue };
        if f.is_connected() && waits_for_accept(f) && is_made_here(s) && !connect(f, at, s, fd) {
            say_not_kept();
            install(file, reset(f), fd);
        }
    }
}

/// Connects again, and sends what had been sent.
fn connect(f: &OpenFile, at: usize, s: &Shared, fd: i32) -> bool {
    const F_SETFL: usize = 4;
    s.pair.store(0, Relaxed);
    is_anew(s, fd as isize);
    if inside(s).is_some_and(|it| it.is_lost) {
        return false;
    }
    sys!(FCNTL, fd, F_SETFL, O_NONBLOCK);
    let peer = f.peer_name();
    let r = in_directory(f, || sys!(CONNECT, fd, peer.as_ptr(), peer.len()));
    sys!(FCNTL, fd, F_SETFL, f.flags);
    if let Some(sent) = inside(s).filter(|_| !failed(r)) {
        fill(f, at, s, sent, fd as isize);
    }
    !failed(r)
}

fn is_made_here(s: &Shared) -> bool {
    s.maker.load(Acquire) as usize == engine().slot + 1
}

/// Makes the call in the directory from which a relative path leads. (Where the program is,
/// it is put later.)
fn in_directory(f: &OpenFile, call: impl FnOnce() -> isize) -> isize {
    if f.family() == AF_UNIX && f.directory()[0] != 0 {
        let r = sys!(CHDIR, f.directory().as_ptr());
        if failed(r) {
            return r;
        }
    }
    call()
}

/// Gives a socket its address again.
fn bind(file: u32, fd: isize) {
    let f = open_file(file);
    let name = f.name();
    let is_path = address::path_of(name).is_some();
    let r = in_directory(f, || match is_path {
        true => bind_path(f, fd),
        false => {
            facts::reuse_address(fd as i32, 1);
            let r = sys!(BIND, fd, name.as_ptr(), name.len());
            if !f.listens() {
                // As the program had it.
                let own = facts::shown_option(f, [facts::SOL_SOCKET, facts::SO_REUSEADDR]);
                facts::reuse_address(fd as i32, own);
            }
            r
        }
    });
    check(file, r, "bind");
}

/// A path whose file the program has removed, or somebody has, has none afterwards either.
fn bind_path(f: &OpenFile, fd: isize) -> isize {
    let had_file = address::file_at(f.name()).is_some();
    let r = address::bind_anew(fd, f.socket_type(), f.name());
    match address::path_of(f.name()) {
        Some(path) if !had_file && !failed(r) => sys!(UNLINK, path.as_ptr()),
        _ => r,
    }
}

/// Sets the options that the program has set. (Those that a socket takes only before it is
/// bound or connected have been set then.)
pub fn apply_options(fd: i32, f: &OpenFile) {
    f.each_option(|level, name, value| {
        let is_hidden = f.listens() && [level, name] == [facts::SOL_SOCKET, facts::SO_REUSEADDR];
        if !is_hidden {
            sys!(SETSOCKOPT, fd, level, name, value.as_ptr(), value.len());
        }
    });
}

fn check(file: u32, r: isize, what: &str) {
    if !failed(r) {
        return;
    }
    let f = open_file(file);
    let why = match -r {
        EADDRINUSE => "somebody else has the address now; end that, then resume",
        EACCES | EPERM => "this user may not; resume as the one that may",
        EADDRNOTAVAIL => "this machine has the address no longer",
        _ => "the kernel refuses it",
    };
    let address = Address(f.family(), f.name());
    fatal::stop(
        FatalCode::CannotRestore,
        r,
        format_args!(
            "restore descriptor {}: {what} a socket{address}: {why} (error {})",
            any_fd(file).unwrap_or(-1),
            -r
        ),
    )
}

/// An address, as a person reads it.
struct Address<'a>(u64, &'a [u8]);

impl core::fmt::Display for Address<'_> {
    fn fmt(&self, to: &mut core::fmt::Formatter) -> core::fmt::Result {
        let Address(family, name) = self;
        match *family {
            AF_UNIX if name.len() > 3 => {
                let text = core::str::from_utf8(&name[2..]).unwrap_or("?");
                let text = text.trim_end_matches('\0');
                match text.strip_prefix('\0') {
                    Some(text) => write!(to, " at @{text}"),
                    None => write!(to, " at {text}"),
                }
            }
            AF_INET | AF_INET6 if name.len() >= 4 => {
                write!(to, " at port {}", u16::from_be_bytes([name[2], name[3]]))
            }
            _ => Ok(()),
        }
    }
}

/// At a cold recovery: what was connected to others has ended.
fn say_lost() {
    if crate::table::first_time(crate::machine::nr::SOCKET as u16) {
        crate::say!("its connections to others were lost with dcrun: the program finds them reset");
    }
}

fn say_not_kept() {
    if crate::table::first_time(crate::machine::nr::SOCKETPAIR as u16) {
        crate::say!(
            "a socket between two processes is reset: what lay in it could not be kept (descriptors, \
             or more than 256 KiB)"
        );
    }
}

/// A socket whose connection was reset: what a lost connection looks like. Where the address
/// of the machine itself cannot be used it is a unix socket.
fn reset(f: &OpenFile) -> isize {
    let fd = match f.family() {
        AF_INET | AF_INET6 => reset_network(f.family()),
        _ => -EINVAL,
    };
    match failed(fd) {
        true => reset_pair(),
        false => fd,
    }
}

/// What lies unread where one end is closed resets the other (unix(7)).
fn reset_pair() -> isize {
    let mut pair = [0i32; 2];
    let kind = SOCK_STREAM as usize | SOCK_CLOEXEC;
    let r = sys!(SOCKETPAIR, AF_UNIX, kind, 0, pair.as_mut_ptr());
    if failed(r) {
        return r;
    }
    sys!(SENDTO, pair[0], pair.as_ptr(), 1, MSG_NOSIGNAL, 0, 0);
    sys!(CLOSE, pair[1]);
    pair[0] as isize
}

/// A connection to ourselves, closed with SO_LINGER of 0 (socket(7)).
fn reset_network(family: u64) -> isize {
    const SO_LINGER: usize = 13;
    const LOOPBACK: u8 = 127;
    let make = || sys!(SOCKET, family, SOCK_STREAM as usize | SOCK_CLOEXEC, 0);
    let mut name = [0u8; 28];
    name[0] = family as u8;
    match family {
        AF_INET => (name[4], name[7]) = (LOOPBACK, 1),
        _ => name[23] = 1,
    }
    let len = if family == AF_INET { 16u32 } else { 28 };
    let (listening, own) = (make(), make());
    let mut room = len;
    let at = name.as_mut_ptr();
    let connected = !failed(sys!(BIND, listening, at, len))
        && !failed(sys!(LISTEN, listening, 1))
        && !failed(sys!(GETSOCKNAME, listening, at, &raw mut room))
        && !failed(sys!(CONNECT, own, at, len));
    let theirs = match connected {
        true => sys!(ACCEPT, listening, 0, 0),
        false => -EINVAL,
    };
    let linger = [1i32, 0];
    let at = linger.as_ptr();
    sys!(SETSOCKOPT, theirs, facts::SOL_SOCKET, SO_LINGER, at, 8);
    for fd in [theirs, listening] {
        if !failed(fd) {
            sys!(CLOSE, fd);
        }
    }
    if failed(theirs) {
        if !failed(own) {
            sys!(CLOSE, own);
        }
        return theirs;
    }
    own
}
