//! msgget, msgsnd, msgrcv, msgctl: queues of messages.
//!
//! A queue's messages lie in its units one behind the other; one that is taken out of the
//! middle leaves a gap of type 0. Where there is no room behind the last one they move to
//! the front, or into more units.
//!
//! ```text
//! head                                            tail
//!   | type, length | bytes, in eights | type 0, .. | ..
//! ```

use super::info::{self, Asks};
use super::room::*;
use super::*;

/// Bytes of a message, and of a queue, as the kernel has them unless it is told otherwise.
pub const MESSAGE_MOST: usize = 8192;
pub const QUEUE_MOST: u64 = 16384;
const UNITS_FIRST: usize = 2;
const UNITS_MOST: usize = 256;
const MSG_NOERROR: usize = 0o10000;
const MSG_EXCEPT: usize = 0o20000;
const MSG_COPY: usize = 0o40000;
const STIME: usize = 0;
const RTIME: usize = 1;
const CTIME: usize = 2;
const SENDER: usize = 0;
const RECEIVER: usize = 1;

#[derive(Clone, Copy)]
#[repr(C)]
struct Head {
    /// 0: it was taken.
    kind: i64,
    len: u32,
    _pad: u32,
}

const HEAD: usize = size_of::<Head>();

fn span(len: usize) -> usize {
    HEAD + len.next_multiple_of(8)
}

fn head_at(o: &Object, at: u32) -> &'static mut Head {
    &mut values::<Head>(o, at as usize, 1)[0]
}

/// Where its messages lie.
fn messages(o: &Object) -> impl Iterator<Item = (u32, Head)> {
    let o = *o;
    let mut at = o.head;
    core::iter::from_fn(move || {
        while at < o.tail {
            let (here, head) = (at, *head_at(&o, at));
            at += span(head.len as usize) as u32;
            if head.kind != 0 {
                return Some((here, head));
            }
        }
        None
    })
}

pub fn get(l: &mut Local, a: [usize; 6]) -> isize {
    let r = super::get(
        Family::Queues,
        a[0] as i32,
        a[1],
        |_| 0,
        |o| {
            o.size = QUEUE_MOST;
            o.unit = take_units(UNITS_FIRST).ok_or(-ENOSPC)?;
            o.units = UNITS_FIRST as u32;
            Ok(())
        },
    );
    event::non_deterministic(l);
    r
}

pub fn send(l: &mut Local, a: [usize; 6]) -> isize {
    let [id, at, len, flags, ..] = a;
    let Some(kind) = user::read::<i64>(at) else {
        return -EFAULT;
    };
    if kind < 1 || len > MESSAGE_MOST {
        return -EINVAL;
    }
    let mut bytes = [0u8; MESSAGE_MOST];
    if !user::read_bytes(at + 8, &mut bytes[..len]) {
        return -EFAULT;
    }
    let bytes = &bytes[..len];
    until_done(l, None, |waited| {
        let o = match find(Family::Queues, id) {
            Ok(o) => o,
            Err(_) if waited => return Attempt::Done(-EIDRM),
            Err(e) => return Attempt::Done(e),
        };
        if !permits(o, WRITE) {
            return Attempt::Done(-EACCES);
        }
        let fits = o.bytes as u64 + len as u64 <= o.size && u64::from(o.count) < o.size;
        if fits && make_room(o, span(len)) {
            put(o, kind, bytes);
            return Attempt::Done(0);
        }
        if flags & IPC_NOWAIT != 0 {
            return Attempt::Done(-EAGAIN);
        }
        Attempt::Blocked(Blocked::on(Family::Queues, o))
    })
}

fn put(o: &mut Object, kind: i64, bytes: &[u8]) {
    let at = o.tail;
    before_change(o.at() + at as usize, span(bytes.len()));
    *head_at(o, at) = Head {
        kind,
        len: bytes.len() as u32,
        _pad: 0,
    };
    values(o, at as usize + HEAD, bytes.len()).copy_from_slice(bytes);
    let mut new = *o;
    new.tail = at + span(bytes.len()) as u32;
    new.count += 1;
    new.bytes += bytes.len() as u32;
    new.times[STIME] = seconds();
    new.pids[SENDER] = pid();
    change(o, new);
    tell(o);
}

/// Sees to it that there is room behind the last message.
fn make_room(o: &mut Object, len: usize) -> bool {
    let room = o.units as usize * UNIT;
    if o.tail as usize + len <= room {
        return true;
    }
    let used: usize = messages(o).map(|(_, head)| span(head.len as usize)).sum();
    let mut new = *o;
    if used + len > room / 2 {
        let units = (o.units as usize * 2).min(UNITS_MOST);
        if used + len > units * UNIT {
            return false;
        }
        let Some(unit) = take_units(units) else {
            return false;
        };
        (new.unit, new.units) = (unit, units as u32);
    }
    before_change(new.at(), used);
    let mut to = 0;
    for (at, head) in messages(o) {
        let len = span(head.len as usize);
        // Each to the front, or to other units, which have room for all.
        move_bytes(o.at() + at as usize, new.at() + to, len);
        to += len;
    }
    if new.unit != o.unit {
        give_units(o.unit, o.units);
    }
    (new.head, new.tail) = (0, used as u32);
    change(o, new);
    true
}

/// The message that a call asks for.
fn wanted(o: &Object, kind: i64, flags: usize) -> Option<(u32, Head)> {
    let mut all = messages(o);
    match kind {
        0 => all.next(),
        kind if kind > 0 && flags & MSG_EXCEPT != 0 => all.find(|m| m.1.kind != kind),
        kind if kind > 0 => all.find(|m| m.1.kind == kind),
        kind => {
            let most = kind.saturating_neg();
            // The first of those with the lowest type.
            all.filter(|m| m.1.kind <= most).min_by_key(|m| m.1.kind)
        }
    }
}

pub fn receive(l: &mut Local, a: [usize; 6]) -> isize {
    let [id, at, room_for, kind, flags, _] = a;
    if room_for > isize::MAX as usize {
        return -EINVAL;
    }
    let copies = flags & MSG_COPY != 0;
    if copies && (flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0) {
        return -EINVAL;
    }
    until_done(l, None, |waited| {
        let o = match find(Family::Queues, id) {
            Ok(o) => o,
            Err(_) if waited => return Attempt::Done(-EIDRM),
            Err(e) => return Attempt::Done(e),
        };
        if !permits(o, READ) {
            return Attempt::Done(-EACCES);
        }
        // A copy is asked for by place, and takes nothing away.
        let found = match copies {
            true => messages(o).nth(kind),
            false => wanted(o, kind as i64, flags),
        };
        if let Some((place, head)) = found {
            if head.len as usize > room_for && flags & MSG_NOERROR == 0 {
                return Attempt::Done(-E2BIG);
            }
            let r = give(o, place, head, at, room_for);
            if !copies && !failed(r) {
                take(o, place, head);
            }
            return Attempt::Done(r);
        }
        if flags & IPC_NOWAIT != 0 {
            return Attempt::Done(-ENOMSG);
        }
        Attempt::Blocked(Blocked::on(Family::Queues, o))
    })
}

/// First the program has it: what cannot be given stays.
fn give(o: &Object, place: u32, head: Head, to: usize, room_for: usize) -> isize {
    let len = (head.len as usize).min(room_for);
    let bytes = values(o, place as usize + HEAD, len);
    match user::write(to, &head.kind) && user::write_bytes(to + 8, bytes) {
        true => len as isize,
        false => -EFAULT,
    }
}

fn take(o: &mut Object, place: u32, head: Head) {
    change(&mut head_at(o, place).kind, 0);
    let mut new = *o;
    new.count -= 1;
    new.bytes -= head.len;
    while new.head < new.tail && head_at(o, new.head).kind == 0 {
        new.head += span(head_at(o, new.head).len as usize) as u32;
    }
    if new.head == new.tail {
        (new.head, new.tail) = (0, 0);
    }
    new.times[RTIME] = seconds();
    new.pids[RECEIVER] = pid();
    change(o, new);
    tell(o);
}

/// `struct msqid64_ds` behind its first part.
fn status(o: &Object) -> [u64; 9] {
    let pids = o.pids[SENDER] as u32 as u64 | (o.pids[RECEIVER] as u32 as u64) << 32;
    let (bytes, count, t) = (u64::from(o.bytes), u64::from(o.count), o.times);
    [
        t[STIME], t[RTIME], t[CTIME], bytes, count, o.size, pids, 0, 0,
    ]
}

pub fn control(l: &mut Local, a: [usize; 6]) -> isize {
    let (command, at) = (a[1], a[2]);
    event::non_deterministic(l);
    match info::asks(Family::Queues, command) {
        Some(Asks::Place { checked }) => {
            return match info::at_place(Family::Queues, a[0], checked) {
                Ok((id, o)) => given(give_status(o, at, &status(o)), id),
                Err(e) => e,
            };
        }
        Some(asks) => return info::answer(Family::Queues, asks, at),
        None => {}
    }
    if !matches!(command, IPC_RMID | IPC_SET | IPC_STAT) {
        return -EINVAL;
    }
    let o = match find(Family::Queues, a[0]) {
        Ok(o) => o,
        Err(e) => return e,
    };
    match command {
        IPC_STAT if !permits(o, READ) => -EACCES,
        IPC_STAT => give_status(o, at, &status(o)),
        _ if !owns(o) => -EPERM,
        IPC_RMID => {
            remove(o);
            0
        }
        _ => {
            let Some(most) = user::read::<u64>(at + 48 + 5 * 8) else {
                return -EFAULT;
            };
            if most > QUEUE_MOST && sys!(GETEUID) != 0 {
                return -EPERM;
            }
            let r = set_permission(o, at);
            if r == 0 {
                change(&mut o.size, most);
                tell(o);
            }
            r
        }
    }
}
