//! Output that the kernel itself puts on record, so that a death of everything
//! does not hide whether it was made.
//!
//! A warm recovery asks the zombie's count of bytes. When worker and keeper die
//! together nobody is left to ask, and a mark that the worker sets behind a
//! write comes too late: a write to a terminal wakes whoever reads it, and on a
//! busy machine the writer loses the processor with the bytes out and the mark
//! not made (one kill in six, for a program that does nothing but write).
//!
//! But SIGKILL ends no system call in the middle of the kernel. So the output is
//! made by the one call that also stores how much of it was done: `sendfile`,
//! from a copy in the journal's room, moves an offset that lies in Rio. Whatever
//! moment the kill chooses, effect and offset are both there or neither is.
//!
//! A message is sent by sendmmsg(2), which stores its length behind it, likewise in the
//! journal's room: whoever finds it there knows that the message has gone.
//!
//! ```text
//! room:  IoHead | mmsghdr (56 bytes of msghdr, length u32, pad) | iovec
//! ```
//!
//! Pipes are left out: there `sendfile` hands over the pages themselves, which
//! the next record overwrites, and a pipe holds 16 of them however small. A
//! socket dies with the keeper anyway. Their last output may come twice.
#![allow(unsafe_code)]

use super::descriptor;
use super::output::Call;
use super::record::IoHead;
use crate::engine::{add, engine};
use crate::machine::sys::errno::*;
use crate::machine::{entry, nr, user};
use crate::state::Kind;
use core::sync::atomic::Ordering::*;
use dc_image::boot::high_fd;
use dc_image::window::RIO_BASE;

/// The most that is copied; longer output is written without a witness.
const LONGEST: usize = 64 << 10;

/// Before the call is noted as under way: copies what it will write. False if
/// it is to be written the ordinary way.
pub fn prepare(fd: i32, c: &Call) -> bool {
    let e = engine();
    let flight = &e.live().output;
    flight.from.store(0, Relaxed);
    if c.is_message() {
        return prepare_message(c);
    }
    if !descriptor::known_file(fd).is_some_and(is_witnessed) {
        return false;
    }
    let (room, len) = e.journal.room();
    let Some(room_len) = len.checked_sub(size_of::<IoHead>()) else {
        return false;
    };
    if c.len == 0 || c.len > LONGEST.min(room_len) {
        return false;
    }
    // SAFETY: the room has space for the head, which will be written first, and
    // behind it for this. An image that cannot grow makes the copy fail.
    let copy = unsafe { core::slice::from_raw_parts_mut(room.add(size_of::<IoHead>()), c.len) };
    if !gather(copy, c) {
        return false;
    }
    let from = (room as usize + size_of::<IoHead>() - RIO_BASE) as u64;
    flight.done.store(from, Relaxed);
    flight.from.store(from, Relaxed);
    true
}

/// In `Inflight::from`: what lies there is a message's header.
const MESSAGE: u64 = 1 << 63;
/// A length that no message has.
const NOT_SENT: u32 = u32::MAX;
const LENGTH_AT: usize = 56;
const PART_AT: usize = 64;

fn prepare_message(c: &Call) -> bool {
    let e = engine();
    let (room, room_len) = e.journal.room();
    let at = room as usize + size_of::<IoHead>();
    if room_len < size_of::<IoHead>() + PART_AT + 16 {
        return false;
    }
    let header: [usize; 7] = match c.nr {
        nr::SENDTO => [c.args[4], c.args[5] & 0xffff_ffff, at + PART_AT, 1, 0, 0, 0],
        _ => match user::read(c.args[1]) {
            Some(header) => header,
            None => return false,
        },
    };
    // SAFETY: the journal has room for the head, the header and one part.
    unsafe {
        (at as *mut [usize; 7]).write_unaligned(header);
        ((at + LENGTH_AT) as *mut u32).write_unaligned(NOT_SENT);
        ((at + PART_AT) as *mut [usize; 2]).write_unaligned([c.args[1], c.args[2]]);
    }
    flight_of_message(at);
    true
}

fn flight_of_message(at: usize) {
    let flight = &engine().live().output;
    flight.from.store((at - RIO_BASE) as u64 | MESSAGE, Relaxed);
}

/// Where the header of the message under way lies, if it is one.
fn message_at() -> Option<usize> {
    let from = engine().live().output.from.load(Acquire);
    (from & MESSAGE != 0).then_some(RIO_BASE + (from & !MESSAGE) as usize)
}

/// So much of the message under way is stored as sent.
fn message_sent() -> Option<u64> {
    let at = message_at()?;
    // SAFETY: in the image, where the header was written.
    let len = unsafe { ((at + LENGTH_AT) as *const u32).read_volatile() };
    (len != NOT_SENT).then_some(len as u64)
}

/// Sends the message that was prepared.
fn send(fd: i32, c: &Call) -> isize {
    let Some(at) = message_at() else {
        return -EFAULT;
    };
    let args = [fd as usize, at, 1, c.args[c.flags_at()], 0, 0];
    // SAFETY: the header lies in the image; what it names is the program's.
    let r = unsafe { entry::interruptible(nr::SENDMMSG, &args) };
    match r {
        1 => message_sent().map_or(0, |n| n as isize),
        r => r,
    }
}

/// Makes the output that was prepared. None if the kernel does not want it made
/// this way.
pub fn write(fd: i32, c: &Call) -> Option<isize> {
    if c.is_message() {
        return Some(send(fd, c));
    }
    let len = c.len;
    let e = engine();
    let flight = &e.live().output;
    let done = flight.done.as_ptr() as usize;
    let args = [
        fd as usize,
        e.high_fd(high_fd::RIO) as usize,
        done,
        len,
        0,
        0,
    ];
    // SAFETY: the offset is a field of Live, which outlives the worker.
    let r = unsafe { entry::interruptible(nr::SENDFILE, &args) };
    if r == -EINVAL || r == -ENOSYS {
        // A terminal that hung up, a file open for appending: nothing was done.
        flight.end();
        flight.from.store(0, Release);
        flight.begin(e.slot);
        return None;
    }
    if r > 0 {
        add(&crate::run::me().rchar, r as u64);
    }
    Some(r)
}

/// How much of the call under way at the crash was done, if the kernel says so: None
/// inside is nothing at all.
pub fn told() -> Option<Option<u64>> {
    if message_at().is_some() {
        return Some(message_sent());
    }
    let flight = &engine().live().output;
    match flight.from.load(Acquire) {
        0 => None,
        from => {
            let done = flight.done.load(Relaxed).saturating_sub(from);
            Some((done > 0).then_some(done))
        }
    }
}

/// (What goes into a terminal of the run's own is made again after a death of all.)
fn is_witnessed(file: u32) -> bool {
    let f = descriptor::open_file(file);
    matches!(f.kind, Kind::Tty | Kind::Regular) && !super::pty::is_own(f)
}

/// One buffer or several, as the program gave them, into one.
fn gather(copy: &mut [u8], c: &Call) -> bool {
    match c.nr {
        nr::WRITE => user::read_bytes(c.args[1], copy),
        nr::WRITEV => {
            let mut rest = copy;
            for i in 0..c.args[2] {
                let Some([base, len]) = user::read::<[usize; 2]>(c.args[1] + i * 16) else {
                    return false;
                };
                let Some((piece, behind)) = rest.split_at_mut_checked(len) else {
                    return false;
                };
                if !user::read_bytes(base, piece) {
                    return false;
                }
                rest = behind;
            }
            rest.is_empty()
        }
        _ => false,
    }
}
