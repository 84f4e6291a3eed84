//! A determinant: what one call answered, as a record of the log.
//!
//! ```text
//! Head | (length u32, bytes) for each place that the call wrote to
//! ```
//!
//! The places follow from the call's arguments, which the record does not hold:
//! re-execution has the same ones, and their sum says so.
#![allow(unsafe_code)]

use super::shapes::Shape;
use crate::engine::engine;
use crate::machine::user;
use crate::object::record;
use crate::{fatal, sys};
use core::sync::atomic::Ordering::Relaxed;
use dc_image::FatalCode;
use dc_image::boot::plant;
use vista_core::journal::RECORD_HEAD;

/// The file has no position worth keeping.
pub const NOWHERE: u64 = u64::MAX;

/// Bytes that the time takes, as clock_gettime answers it.
pub const OF_A_TIME: u64 = size_of::<Head>() as u64 + 4 + 16;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Head {
    pub nr: u32,
    /// How many places follow.
    pub places: u32,
    /// [`Shape::sum`] of the arguments.
    pub sum: u64,
    pub ret: i64,
    /// Where the file stood after the call, when a timer was set (CLOCK_MONOTONIC
    /// ns), or [`NOWHERE`].
    pub position: u64,
}

/// Bytes that a determinant of this call takes.
pub fn size(shape: &Shape, args: &[usize; 6], ret: isize) -> usize {
    let mut len = size_of::<Head>();
    shape.places(args, ret, |_, n| {
        len += 4 + n;
        true
    });
    len
}

/// Appends the determinant of a call that has just been made; its length.
pub fn append(nr: usize, shape: &Shape, args: &[usize; 6], ret: isize, position: u64) -> usize {
    let e = engine();
    let (room, room_len) = e.journal.room();
    let mut len = size_of::<Head>();
    let mut places = 0;
    let mut fits = len <= room_len;
    shape.places(args, ret, |at, n| {
        fits &= len + 4 + n <= room_len;
        if !fits {
            return false;
        }
        // SAFETY: the room has these bytes, as just checked.
        let ok = unsafe {
            room.add(len).cast::<u32>().write_unaligned(n as u32);
            user::try_copy(room.add(len + 4), at as *const u8, n)
        };
        if !ok {
            // The kernel would have said EFAULT: nothing was written there.
            // SAFETY: as above.
            unsafe { room.add(len).cast::<u32>().write_unaligned(0) };
        }
        len += 4 + if ok { n } else { 0 };
        places += 1;
        true
    });
    if !fits {
        fatal::stop(
            FatalCode::RioFull,
            0,
            format_args!("the log of this interval is full; use --interval to commit more often"),
        );
    }
    let head = Head {
        nr: nr as u32,
        places,
        sum: shape.sum(args),
        ret: ret as i64,
        position,
    };
    // SAFETY: the room has space for the head.
    unsafe { room.cast::<Head>().write_unaligned(head) };
    // The planted bug: every fifth is forgotten.
    let forget =
        e.boot.plant == plant::SKIP_RECORD && e.live().logged_events.load(Relaxed) % 5 == 4;
    if !forget && record::append_in_place(record::DETERMINANT, len).is_err() {
        unreachable!("the length was limited to the room");
    }
    e.live()
        .journal_bytes
        .fetch_add((len + RECORD_HEAD) as u64, Relaxed);
    len
}

/// Where a file stands, for a call that a replay does not make.
pub fn position(fd: i32) -> u64 {
    let r = sys!(LSEEK, fd, 0, 1);
    if r < 0 { NOWHERE } else { r as u64 }
}

/// Writes what a determinant holds to where the call would have written it;
/// false if it does not fit the call.
pub fn give_back(payload: &[u8], head: &Head, shape: &Shape, args: &[usize; 6]) -> bool {
    let mut at = size_of::<Head>();
    let mut given = 0;
    let mut fits = true;
    shape.places(args, head.ret as isize, |to, _| {
        let Some(n) = payload.get(at..).and_then(record::value_of::<u32>) else {
            fits = false;
            return false;
        };
        let Some(bytes) = payload.get(at + 4..at + 4 + n as usize) else {
            fits = false;
            return false;
        };
        fits &= n == 0 || user::write_bytes(to, bytes);
        at += 4 + n as usize;
        given += 1;
        fits
    });
    fits && given == head.places
}
