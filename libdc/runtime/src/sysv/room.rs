//! Where the System V objects of a run lie, and how they go back.
//!
//! A part of the run's image that all processes map. What is changed in it goes into the
//! journal first, as the bytes of a file do, and a rollback plays that back with the rest:
//! so what one process did to a semaphore is undone together with what another one has
//! read because of it.
//!
//! ```text
//! tables of objects | attachments | SEM_UNDO | who waits | units of 4 KiB: values, messages
//! ```
#![allow(unsafe_code)]

use crate::engine::engine;
use crate::machine::sys::{errno::*, failed};
use crate::object::record;
use crate::sys;
use core::sync::atomic::AtomicU32;
use dc_image::boot::high_fd;
use dc_image::run::{RUN_OFFSET, SYSV_LEN, SYSV_OFFSET};
use dc_image::window::RIO_BASE;

/// Objects of each family at a time.
pub const OBJECTS: usize = 1024;
pub const ATTACHMENTS: usize = 4096;
pub const UNDOS: usize = 8192;
pub const WAITERS: usize = 2048;
/// What is given out of the rest.
pub const UNIT: usize = 4096;
const FIRST_UNIT: usize = 2 << 20;
const UNITS: usize = (SYSV_LEN - FIRST_UNIT) / UNIT;
const BASE: usize = RIO_BASE + RUN_OFFSET + SYSV_OFFSET;
const _: () = assert!(size_of::<Room>() <= FIRST_UNIT);
const _: () = assert!(UNITS.is_multiple_of(64));

#[repr(C)]
pub struct Room {
    /// There are or were such objects. Never taken back.
    pub any: u32,
    _pad: u32,
    /// By [`super::Family`].
    pub objects: [[Object; OBJECTS]; 3],
    pub attachments: [Attachment; ATTACHMENTS],
    pub undos: [Undo; UNDOS],
    pub waiters: [Waiter; WAITERS],
    units: [u64; UNITS / 64],
}

/// A segment, a set of semaphores or a queue.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Object {
    /// 0 is none; [`MADE`]; [`GOES`] is a segment whose file goes with the next commit.
    pub used: u32,
    /// How often the entry was used before: a part of its id.
    pub seq: u32,
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    /// Bytes of a segment, semaphores of a set, most bytes of a queue.
    pub size: u64,
    /// As the `_ds` of the family has them, its ctime last.
    pub times: [u64; 3],
    /// Who made it, and who was there last; of a queue who sent and who received.
    pub pids: [i32; 2],
    /// Of a segment the number of its file, and what the file is.
    pub number: u32,
    /// Changes with every change of the object; those who wait sleep on it. No state.
    pub event: u32,
    pub dev: u64,
    pub ino: u64,
    /// The commit that lets the file go.
    pub free_from: u64,
    /// Units in use: the first of them, and how many.
    pub unit: u32,
    pub units: u32,
    /// Of a queue: where its messages begin and end, how many and how long they are.
    pub head: u32,
    pub tail: u32,
    pub count: u32,
    pub bytes: u32,
}

pub const MADE: u32 = 1;
pub const GOES: u32 = 2;

impl Object {
    pub const NONE: Object = Object {
        used: 0,
        seq: 0,
        key: 0,
        uid: 0,
        gid: 0,
        cuid: 0,
        cgid: 0,
        mode: 0,
        size: 0,
        times: [0; 3],
        pids: [0; 2],
        number: 0,
        event: 0,
        dev: 0,
        ino: 0,
        free_from: 0,
        unit: 0,
        units: 0,
        head: 0,
        tail: 0,
        count: 0,
        bytes: 0,
    };

    /// The futex of those who wait.
    pub fn event(&mut self) -> &'static AtomicU32 {
        // SAFETY: it lies in the room, which is mapped for the life of the worker.
        unsafe { AtomicU32::from_ptr(&raw mut self.event) }
    }

    /// The bytes of its units.
    pub fn at(&self) -> usize {
        BASE + FIRST_UNIT + self.unit as usize * UNIT
    }
}

/// A segment in the memory of a process.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Attachment {
    /// Entry of the process + 1; 0 is none.
    pub process: u32,
    pub segment: u32,
    pub at: u64,
    pub len: u64,
}

/// What is given back to a semaphore at the end of a process (SEM_UNDO).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Undo {
    /// Entry of the process + 1; 0 is none.
    pub process: u32,
    pub set: u16,
    pub number: u16,
    pub adjust: i32,
}

/// A thread that waits. It does so in the state as well: one that makes its call again
/// after a recovery has waited before, and is told if its object has gone since.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Waiter {
    /// Entry of the process + 1; 0 is none.
    pub process: u32,
    pub thread: u32,
    /// As [`super::Family`].
    pub family: u16,
    pub index: u16,
    /// Of a semaphore: which, and whether for zero, not for more.
    pub number: u16,
    pub for_zero: u16,
}

/// The room. Under the big lock.
pub fn room() -> &'static mut Room {
    // SAFETY: mapped for the life of the worker, and zeros are a room without objects; the
    // run's lock serialises all processes.
    unsafe { &mut *(BASE as *mut Room) }
}

/// Whether there is anything to look for.
pub fn any() -> bool {
    room().any != 0
}

/// The room is asked for its storage, so that no store can find it missing.
pub fn begin() -> Result<(), isize> {
    if room_is_backed(0, FIRST_UNIT) {
        room().any = 1;
        Ok(())
    } else {
        Err(-ENOSPC)
    }
}

fn room_is_backed(from: usize, len: usize) -> bool {
    let fd = engine().high_fd(high_fd::RIO);
    !failed(sys!(FALLOCATE, fd, 0, RUN_OFFSET + SYSV_OFFSET + from, len))
}

/// Changes something that lies in the room.
pub fn change<T: Copy>(place: &mut T, value: T) {
    let at = &raw mut *place as usize;
    before_change(at, size_of::<T>());
    *place = value;
}

/// Before bytes of the room are changed: what they were goes into the journal.
pub fn before_change(at: usize, len: usize) {
    let head = [(at - BASE) as u32, len as u32];
    // SAFETY: the caller names a part of the room.
    let bytes = unsafe { core::slice::from_raw_parts(at as *const u8, len) };
    record::append(record::SYSTEM_V, &[record::bytes_of(&head), bytes]);
}

/// At a rollback: bytes of the room are again what they were. False if the record names no
/// part of it.
pub fn put_back(payload: &[u8]) -> bool {
    let Some([from, len]) = record::value_of::<[u32; 2]>(payload) else {
        return false;
    };
    let (from, len) = (from as usize, len as usize);
    let Some(bytes) = payload.get(8..).and_then(|rest| rest.get(..len)) else {
        return false;
    };
    if from.checked_add(len).is_none_or(|end| end > SYSV_LEN) {
        return false;
    }
    // SAFETY: a part of the room, which nobody uses during a rollback.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), (BASE + from) as *mut u8, len) };
    true
}

/// Values of an object in its units, from an offset on; none outside of them.
pub fn values<T>(o: &Object, from: usize, count: usize) -> &'static mut [T] {
    let room = o.units as usize * UNIT;
    let fits = count
        .checked_mul(size_of::<T>())
        .and_then(|len| len.checked_add(from))
        .is_some_and(|end| end <= room);
    let count = if fits { count } else { 0 };
    // SAFETY: a part of the object's units, which are mapped and aligned to pages; what lies
    // there is plain, and the lock of the run is held.
    unsafe { core::slice::from_raw_parts_mut((o.at() + from) as *mut T, count) }
}

/// Moves bytes within the room; the places may overlap.
pub fn move_bytes(from: usize, to: usize, len: usize) {
    // SAFETY: the callers name parts of units that are theirs; under the lock of the run.
    unsafe { core::ptr::copy(from as *const u8, to as *mut u8, len) };
}

/// Takes so many units that follow one another.
pub fn take_units(count: usize) -> Option<u32> {
    let mut run = 0;
    for i in 0..UNITS {
        run = match is_taken(i) {
            true => 0,
            false => run + 1,
        };
        if run == count {
            let first = i + 1 - count;
            if !room_is_backed(FIRST_UNIT + first * UNIT, count * UNIT) {
                return None;
            }
            mark(first, count, true);
            return Some(first as u32);
        }
    }
    None
}

pub fn give_units(first: u32, count: u32) {
    mark(first as usize, count as usize, false);
}

fn is_taken(i: usize) -> bool {
    room().units[i / 64] & 1 << (i % 64) != 0
}

fn mark(first: usize, count: usize, taken: bool) {
    for i in first..first + count {
        let word = &mut room().units[i / 64];
        let bit = 1 << (i % 64);
        let new = if taken { *word | bit } else { *word & !bit };
        change(word, new);
    }
}
