//! Receives, and other calls on a socket that a peer may notice.

use super::{MMSGHDR, SO_RCVTIMEO, is_socket};
use crate::engine::engine;
use crate::event;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::failed;
use crate::machine::user;
use crate::object::buffers::Buffers;
use crate::object::descriptor::file_of;
use crate::object::message::{self, MSG_PEEK};
use crate::object::want::Want;
use crate::object::{input, memfd, pipe, pushback, strays};
use crate::run::ends;
use crate::sys;
use crate::thread;

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
    // (msghdr: the length of the control part is its sixth word.)
    if user::read::<usize>(a[1] + 40) != Some(0) {
        strays::may_come();
    }
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

/// Whatever a peer may notice.
pub fn send_like(l: &mut Local, a: [usize; 6]) -> isize {
    let n = l.frame.nr;
    let receives = matches!(n, nr::RECVFROM | nr::RECVMSG | nr::RECVMMSG);
    if n == nr::RECVMMSG {
        strays::may_come();
    }
    let logged = {
        let _guard = engine().lock.acquire(l);
        if carries_descriptors(n, &a) {
            super::send::give_away(l, n, &a);
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
        touch(&a);
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

/// What lies in a socket is other than it was, by a call that is on no record. Behind the
/// call: a commit that came while it waited, or before this, has the call yet to be made.
fn touch(a: &[usize; 6]) {
    if let Some(file) = file_of(a[0] as i32) {
        pipe::touch(file);
    }
}

/// A receive from a socket within the run, in a replay that has made what it gave again.
pub fn made_again(l: &mut Local) -> isize {
    let (n, a) = (l.frame.nr, l.frame.args());
    let r = wait_awake(l, n, a);
    let _guard = engine().lock.acquire(l);
    touch(&a);
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
        memfd::sent(fd);
    });
    any
}

/// Whether a message may give descriptors away (msghdr: the length of the control
/// part is its sixth word).
pub fn carries_descriptors(n: usize, a: &[usize; 6]) -> bool {
    match n {
        nr::SENDMSG => user::read::<usize>(a[1] + 40) != Some(0),
        nr::SENDMMSG => true,
        _ => false,
    }
}

/// A call whose result is lost if the kernel finds no place for it: what it writes
/// to is awake, and stays so while it waits.
pub fn wait_awake(l: &mut Local, n: usize, a: [usize; 6]) -> isize {
    l.awaited = places(n, &a);
    if engine().pieces.any() {
        for (from, to) in l.awaited {
            engine().pieces.wake(from, to);
        }
    }
    let r = thread::wait_or_signal(l, n, a);
    ends::met(r);
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
