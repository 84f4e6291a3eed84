//! Sockets: live through a warm recovery, because the keeper holds them.
//!
//! What goes through them by plain calls goes the way of all streams (input,
//! output): it is counted and recorded, and neither lost nor repeated. So is what
//! comes as a [`message`]. Other calls on a socket are logged or committed around;
//! when a crash comes in the middle of one, what it received is lost with it. Cold,
//! sockets are lost.
#![allow(unsafe_code)]

use super::buffers::Buffers;
use super::descriptor::*;
use super::input;
use super::message::{self, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK};
use super::output::{self, Call};
use super::pushback;
use super::want::Want;
use crate::commit::fault_point;
use crate::engine::{engine, state};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::signal;
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
            let r = wait_awake(l, n, a);
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

/// send(2) and sendmsg(2) without address and control data are write(2), which the
/// kernel counts; any other is a message, which it stores the length of when it has gone.
/// So nothing is sent twice after a worker that died over it.
pub fn send(l: &mut Local, a: [usize; 6]) -> isize {
    let Some(call) = any_send(l.frame.nr, &a) else {
        return -EFAULT;
    };
    shared_before(l, l.frame.nr, &a);
    output::send(l, call)
}

fn any_send(n: usize, a: &[usize; 6]) -> Option<Call> {
    plain_send(n, a).or_else(|| message_of(n, a))
}

/// A send as a message.
pub fn message_of(n: usize, a: &[usize; 6]) -> Option<Call> {
    let (len, flags) = match n {
        nr::SENDTO => (a[2], a[3]),
        _ => {
            let [_, _, parts, count, ..] = user::read::<[usize; 7]>(a[1])?;
            let len = match count {
                0 => 0,
                _ => output::vector_len([a[0], parts, count, 0, 0, 0]).ok()?,
            };
            (len, a[2])
        }
    };
    let mut call = Call::new(n, *a, len);
    call.at_once = flags & MSG_DONTWAIT != 0;
    call.quiet = flags & MSG_NOSIGNAL != 0;
    Some(call)
}

/// Descriptors go with it: what they mean is no longer the program's alone.
fn shared_before(l: &mut Local, n: usize, a: &[usize; 6]) {
    if !carries_descriptors(n, a) {
        return;
    }
    let _guard = engine().lock.acquire(l);
    if super::pipe::share_all() {
        crate::commit::commit(l);
    }
}

/// sendmmsg(2): one message after the other; how many are out is state.
pub fn send_several(l: &mut Local, a: [usize; 6]) -> isize {
    const UIO_MAXIOV: usize = 1024;
    let count = (a[2] & 0xffff_ffff).min(UIO_MAXIOV);
    let sent = |l: &Local| state().threads[l.slot as usize].messages_sent;
    let mut last = 0;
    while sent(l) < count {
        let nth = sent(l);
        let Some(call) = nth_of_several(&a, nth) else {
            last = -EFAULT;
            break;
        };
        shared_before(l, nr::SENDMSG, &call.args);
        last = output::send(l, call);
        if failed(last) {
            break;
        }
        if !user::write(a[1] + nth * MMSGHDR + 56, &(last as u32)) || thread::signal_waits(l) {
            break;
        }
    }
    match core::mem::take(&mut state().threads[l.slot as usize].messages_sent) {
        0 => last,
        n => {
            l.early = false;
            n as isize
        }
    }
}

/// Bytes of a `struct mmsghdr`.
pub const MMSGHDR: usize = 64;

/// One message of sendmmsg(2).
pub fn nth_of_several(a: &[usize; 6], nth: usize) -> Option<Call> {
    let args = [a[0], a[1] + nth * MMSGHDR, a[3], 0, 0, 0];
    let mut call = message_of(nr::SENDMSG, &args)?;
    call.counted = true;
    Some(call)
}

/// A send as output, if it can be.
pub fn plain_send(n: usize, a: &[usize; 6]) -> Option<Call> {
    let fd = a[0] as i32;
    let (flags, mut call) = match n {
        nr::SENDTO if a[4] == 0 => (
            a[3],
            Call::new(nr::WRITE, [a[0], a[1], a[2], 0, 0, 0], a[2]),
        ),
        nr::SENDMSG => {
            let [name, _, parts, count, _, control_len, _] = user::read::<[usize; 7]>(a[1])?;
            let args = [a[0], parts, count, 0, 0, 0];
            let len = output::vector_len(args).ok().filter(|&len| len > 0)?;
            if name != 0 || control_len != 0 {
                return None;
            }
            (a[2], Call::new(nr::WRITEV, args, len))
        }
        _ => return None,
    };
    call.at_once = flags & MSG_DONTWAIT != 0;
    call.quiet = flags & MSG_NOSIGNAL != 0;
    let plain = flags & !(MSG_DONTWAIT | MSG_NOSIGNAL) == 0;
    (plain && is_socket(fd) && !times_out(fd, SO_SNDTIMEO)).then_some(call)
}

/// A write whose error raises no SIGPIPE.
pub fn without_signal(write: impl FnOnce() -> isize) -> isize {
    const SIGPIPE: i32 = 13;
    if state().root.actions[SIGPIPE as usize].handler == signal::SIG_IGN {
        return write();
    }
    let pipe = signal::bit(SIGPIPE);
    let (mut mask, mut pending) = (0u64, 0u64);
    sys!(RT_SIGPROCMASK, 0, &raw const pipe, &raw mut mask, 8);
    sys!(RT_SIGPENDING, &raw mut pending, 8);
    let r = write();
    if r == -EPIPE && pending & pipe == 0 {
        let zero = [0usize; 2];
        sys!(RT_SIGTIMEDWAIT, &raw const pipe, 0, &raw const zero, 8);
    }
    sys!(RT_SIGPROCMASK, 2, &raw const mask, 0, 8);
    r
}

/// recv(2) in its plain form is read(2), which the kernel counts, so that no
/// message is lost with a worker that dies over it.
pub fn recvfrom(l: &mut Local, a: [usize; 6]) -> isize {
    let is_socket = is_socket(a[0] as i32);
    if is_socket && a[3] == 0 && a[4] == 0 && a[2] > 0 && !times_out(a[0] as i32, SO_RCVTIMEO) {
        return input::read(l, [a[0], a[1], a[2], 0, 0, 0]);
    }
    if !times_out(a[0] as i32, SO_RCVTIMEO)
        && let Some(want) = Want::recvfrom(a)
        && is_socket
    {
        if let Some(r) = message::receive(l, &want) {
            return r;
        }
        if a[4] == 0
            && let Some(r) = message::stream(l, &want)
        {
            return r;
        }
    }
    let to = Buffers::one(a[1], a[2]);
    if let Some(r) = pushback::fed(l, a[0] as i32, &to, a[3] & MSG_PEEK != 0) {
        return r;
    }
    if let Some(r) = answered(l) {
        return r;
    }
    let r = send_like(l, a);
    chance(l);
    r
}

pub fn recvmsg(l: &mut Local, a: [usize; 6]) -> isize {
    if !times_out(a[0] as i32, SO_RCVTIMEO)
        && let Some(want) = Want::recvmsg(a)
    {
        if let Some(r) = message::receive(l, &want) {
            return r;
        }
        if let Some(r) = message::stream(l, &want) {
            return r;
        }
    }
    // What was received before a crash, and had no address then either.
    if let Some([_, _, parts, count, ..]) = user::read::<[usize; 7]>(a[1])
        && let Some(to) = Buffers::several(parts, count)
        && let Some(r) = pushback::fed(l, a[0] as i32, &to, a[2] & MSG_PEEK != 0)
    {
        user::write(a[1] + 8, &0u32);
        user::write(a[1] + 40, &[0usize; 2]);
        return r;
    }
    if let Some(r) = answered(l) {
        return r;
    }
    let r = send_like(l, a);
    chance(l);
    r
}

/// Whether a call on a socket gives up after a time. Among several threads a
/// stream is waited for without end, and that would not do for it.
pub fn times_out(fd: i32, which: usize) -> bool {
    const SOL_SOCKET: usize = 1;
    let mut time = [0u64; 2];
    let mut len = 16u32;
    !crate::run::is_alone()
        && !failed(sys!(
            GETSOCKOPT,
            fd,
            SOL_SOCKET,
            which,
            time.as_mut_ptr(),
            &raw mut len
        ))
        && time != [0; 2]
}

/// The log's answer, while one is replayed.
fn answered(l: &mut Local) -> Option<isize> {
    let _guard = engine().lock.acquire(l);
    crate::log::replay::answer(l)
}

fn chance(l: &mut Local) {
    let _guard = engine().lock.acquire(l);
    event::non_deterministic(l);
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

/// Whatever a peer may notice.
pub fn send_like(l: &mut Local, a: [usize; 6]) -> isize {
    let n = l.frame.nr;
    let receives = matches!(n, nr::RECVFROM | nr::RECVMSG | nr::RECVMMSG);
    let logged = {
        let _guard = engine().lock.acquire(l);
        if carries_descriptors(n, &a) && super::pipe::share_all() {
            crate::commit::commit(l);
        }
        // What only takes shows nothing; without a log it is committed around.
        if !(receives && engine().log.wanted) {
            event::visible(l);
        }
        // The log holds what is received, and that something was sent.
        engine().log.wanted
            && engine().machine.protocol().logs()
            && !engine().machine.flag()
            && matches!(n, nr::RECVFROM | nr::RECVMSG | nr::SENDTO | nr::SENDMSG)
    };
    let r = wait_awake(l, n, a);
    event::count_message(n, r);
    if !failed(r) {
        let _guard = engine().lock.acquire(l);
        let brings = match n {
            nr::RECVMSG => brings_descriptors(a[1]),
            nr::RECVMMSG => {
                (0..r as usize).fold(false, |any, i| any | brings_descriptors(a[1] + i * MMSGHDR))
            }
            _ => false,
        };
        l.commit_after |= !logged || brings;
    }
    r
}

/// Enters the descriptors that a received `struct msghdr` brings; whether there are any.
fn brings_descriptors(at: usize) -> bool {
    let Some([_, _, _, _, control, len, _]) = user::read::<[usize; 7]>(at) else {
        return false;
    };
    let mut bytes = [0u8; 4096];
    let len = len.min(bytes.len());
    if control == 0 || !user::read_bytes(control, &mut bytes[..len]) {
        return false;
    }
    let mut any = false;
    message::each_descriptor(&bytes[..len], |fd| {
        any |= file_of(fd).is_some();
        super::memfd::sent(fd);
    });
    any
}

/// Whether a message may give descriptors away (msghdr: the length of the control
/// part is its sixth word).
fn carries_descriptors(n: usize, a: &[usize; 6]) -> bool {
    match n {
        nr::SENDMSG => user::read::<usize>(a[1] + 40) != Some(0),
        nr::SENDMMSG => true,
        _ => false,
    }
}

/// A call whose result is lost if the kernel finds no place for it: what it writes
/// to is awake, and stays so while it waits.
fn wait_awake(l: &mut Local, n: usize, a: [usize; 6]) -> isize {
    l.awaited = places(n, &a);
    if engine().pieces.any() {
        for (from, to) in l.awaited {
            engine().pieces.wake(from, to);
        }
    }
    let r = thread::wait_or_signal(l, n, a);
    l.awaited = [(0, 0); 4];
    r
}

/// Where a call puts what it takes from a socket.
fn places(n: usize, a: &[usize; 6]) -> [(usize, usize); 4] {
    const ADDRESS: usize = 256;
    let place = |at: usize, len: usize| (at, at.saturating_add(len));
    let none = (0, 0);
    match n {
        nr::ACCEPT | nr::ACCEPT4 => [place(a[1], ADDRESS), place(a[2], 4), none, none],
        nr::RECVFROM => [
            place(a[1], a[2]),
            place(a[4], ADDRESS),
            place(a[5], 4),
            none,
        ],
        nr::RECVMSG => {
            let Some([name, _, parts, count, control, len, _]) = user::read::<[usize; 7]>(a[1])
            else {
                return [none; 4];
            };
            let mut data = (usize::MAX, 0);
            for i in 0..count.min(1024) {
                let Some([part, len]) = user::read::<[usize; 2]>(parts + i * 16) else {
                    break;
                };
                if len > 0 {
                    data = (data.0.min(part), data.1.max(part.saturating_add(len)));
                }
            }
            [
                place(a[1], 56),
                place(name, ADDRESS),
                place(control, len),
                if data.1 == 0 { none } else { data },
            ]
        }
        // Wherever the parts of the messages lie.
        nr::RECVMMSG => [(0, usize::MAX), none, none, none],
        _ => [none; 4],
    }
}
