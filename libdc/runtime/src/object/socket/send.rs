//! Sends: output that is made once.

use super::receive::carries_descriptors;
use super::{SO_SNDTIMEO, is_socket, times_out};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::object::message::{MSG_DONTWAIT, MSG_NOSIGNAL};
use crate::object::output::{self, Call};
use crate::signal;
use crate::sys;
use crate::thread;

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
    give_away(l, n, a);
}

/// What a message carries belongs to others as well from now on. Under the lock.
pub fn give_away(l: &mut Local, n: usize, a: &[usize; 6]) {
    let mut control = [0u8; 4096];
    if n == nr::SENDMSG
        && let Some([at, len]) = user::read::<[usize; 2]>(a[1] + 32)
    {
        let control = &mut control[..len.min(4096)];
        if user::read_bytes(at, control) {
            super::pair::sent(control, a[0] as i32);
        }
    }
    if crate::object::pipe::share_all() {
        crate::commit::commit(l);
    }
    crate::object::pipe::are_streams();
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
