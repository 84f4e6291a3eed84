//! Input: never lost as long as the keeper lives.
//!
//! What a terminal, pipe or socket gives is gone from the kernel, so it is
//! read straight into the journal, and only then handed to the program. After
//! a crash everything consumed since the last commit is fed again, before
//! anything new: the *pushback*, a part of the state.
//!
//! Reading a file of the program's own is deterministic: its offset is rolled
//! back, its contents too.
#![allow(unsafe_code)]

use super::record::{self, IoHead};
use super::{descriptor, message, pipe, poll, regular};
use crate::commit::fault_point;
use crate::engine::{add, engine, state};
use crate::event;
use crate::log::replay;
use crate::machine::frame::Local;
use crate::machine::sys::errno::*;
use crate::machine::{entry, nr, user};
use crate::space::shared;
use crate::state::Kind;
use crate::thread;
use core::sync::atomic::Ordering::*;
use dc_image::boot::{fault, plant};

/// The most that one call takes from a stream.
const STREAM_MAX: usize = 64 << 10;

pub fn read(l: &mut Local, a: [usize; 6]) -> isize {
    let [fd, addr, len, ..] = a;
    let fd = fd as i32;
    let guard = engine().lock.acquire(l);
    let Some(file) = descriptor::file_of(fd) else {
        return -EBADF;
    };
    let f = descriptor::open_file(file);
    let end = addr.saturating_add(len);
    engine().pieces.wake(addr, end);
    shared::open(addr, end);
    match f.kind {
        Kind::Regular | Kind::MemFd | Kind::Directory if regular::rewinds(f) => {
            let foreign = regular::is_foreign(f);
            if foreign && let Some(r) = replay::answer(l) {
                regular::after_transfer(fd, file, None, r);
                return r;
            }
            // SAFETY: the program's own call with its own arguments.
            let r = unsafe { crate::machine::sys::raw6(nr::READ, a) };
            count_read(r);
            regular::after_transfer(fd, file, None, r);
            if foreign {
                regular::foreign_was_read(l, r);
            }
            r
        }
        Kind::EventFd => {
            drop(guard);
            super::eventfd::read(l, fd, addr, len)
        }
        Kind::Device | Kind::Other => {
            if let Some(r) = replay::answer(l) {
                return r;
            }
            let waits = f.flags as usize & descriptor::O_NONBLOCK == 0;
            if waits
                && engine().thread_count.load(Relaxed) > 1
                && !poll::ready_now(fd, poll::POLLIN)
            {
                drop(guard);
                return match poll::wait_for(l, fd, poll::POLLIN) {
                    Ok(()) => read(l, a),
                    Err(e) => e,
                };
            }
            // SAFETY: as above.
            let r = unsafe { crate::machine::sys::raw6(nr::READ, a) };
            count_read(r);
            regular::after_transfer(fd, file, None, r);
            event::non_deterministic(l);
            r
        }
        Kind::Pipe if f.peer != 0 => {
            drop(guard);
            match super::pipe::read(l, a) {
                Some(r) => r,
                None => stream(l, fd, addr, len),
            }
        }
        _ => {
            drop(guard);
            stream(l, fd, addr, len)
        }
    }
}

/// Into several buffers: streams fill the first one that has room, files all.
pub fn readv(l: &mut Local, a: [usize; 6]) -> isize {
    let fd = a[0] as i32;
    let (kind, foreign) = {
        let _guard = engine().lock.acquire(l);
        let Some(file) = descriptor::file_of(fd) else {
            return -EBADF;
        };
        let f = descriptor::open_file(file);
        (f.kind, regular::is_foreign(f))
    };
    if matches!(
        kind,
        Kind::Regular | Kind::MemFd | Kind::Directory | Kind::Device | Kind::Other
    ) {
        let _guard = engine().lock.acquire(l);
        wake_vectors(a);
        let chance = matches!(kind, Kind::Device | Kind::Other);
        if (chance || foreign)
            && let Some(r) = replay::answer(l)
        {
            return r;
        }
        // SAFETY: the program's own call with its own arguments.
        let r = unsafe { crate::machine::sys::raw6(nr::READV, a) };
        count_read(r);
        if let Some(file) = descriptor::file_of(fd) {
            regular::after_transfer(fd, file, None, r);
        }
        if chance {
            event::non_deterministic(l);
        } else if foreign {
            regular::foreign_was_read(l, r);
        }
        return r;
    }
    for i in 0..a[2].min(1024) {
        let Some(v) = user::read::<[usize; 2]>(a[1] + i * 16) else {
            return -EFAULT;
        };
        if v[1] > 0 {
            return read(l, [a[0], v[0], v[1], 0, 0, 0]);
        }
    }
    0
}

pub fn pread(l: &mut Local, a: [usize; 6]) -> isize {
    let _guard = engine().lock.acquire(l);
    let Some(file) = descriptor::file_of(a[0] as i32) else {
        return -EBADF;
    };
    let f = descriptor::open_file(file);
    let chance = !matches!(f.kind, Kind::Regular | Kind::MemFd);
    let foreign = regular::is_foreign(f);
    if (chance || foreign)
        && let Some(r) = replay::answer(l)
    {
        return r;
    }
    if l.frame.nr == nr::PREAD64 {
        let end = a[1].saturating_add(a[2]);
        engine().pieces.wake(a[1], end);
        shared::open(a[1], end);
    } else {
        wake_vectors(a);
    }
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(l.frame.nr, a) };
    count_read(r);
    if chance {
        event::non_deterministic(l);
    } else if foreign {
        regular::foreign_was_read(l, r);
    }
    r
}

/// The kernel would stop a read at the first sleeping page of its buffers.
fn wake_vectors(a: [usize; 6]) {
    if engine().pieces.any() || engine().shared.any() {
        for i in 0..a[2].min(1024) {
            let Some(v) = user::read::<[usize; 2]>(a[1] + i * 16) else {
                return;
            };
            let end = v[0].saturating_add(v[1]);
            engine().pieces.wake(v[0], end);
            shared::open(v[0], end);
        }
    }
}

/// Keeps `Live::rchar` equal to what the kernel counts for this process.
pub fn count_read(r: isize) {
    if r > 0 {
        add(&engine().live().rchar, r as u64);
    }
}

/// A read that consumes.
fn stream(l: &mut Local, fd: i32, addr: usize, len: usize) -> isize {
    loop {
        let guard = engine().lock.acquire(l);
        let Some(file) = descriptor::file_of(fd) else {
            return -EBADF;
        };
        if let Some(r) = feed(l, file, fd, addr, len) {
            return r;
        }
        if pipe::is_own(fd) && engine().log.replay.makes_own_pipes_again() {
            // SAFETY: the program's own call; there is something to read.
            let r =
                unsafe { crate::machine::sys::raw6(nr::READ, [fd as usize, addr, len, 0, 0, 0]) };
            count_read(r);
            return r;
        }
        if engine().log.replay.is_active() {
            let r = replay::input(l, fd, arguments_sum(fd, len), addr, len);
            if r > 0 {
                super::timerfd::was_read(file, fd, true);
            }
            return r;
        }
        let f = descriptor::open_file(file);
        let blocking = f.flags as usize & descriptor::O_NONBLOCK == 0;
        if blocking && engine().thread_count.load(Relaxed) > 1 {
            // Wait without the lock, consume with it: one consumer at a time
            // is under way when a crash comes.
            drop(guard);
            if let Err(e) = poll::wait_for(l, fd, poll::POLLIN) {
                return e;
            }
            let _guard = engine().lock.acquire(l);
            if poll::ready_now(fd, poll::POLLIN) {
                return consume(l, fd, addr, len);
            }
            continue;
        }
        return consume(l, fd, addr, len);
    }
}

fn consume(l: &mut Local, fd: i32, addr: usize, len: usize) -> isize {
    if let Some(file) = descriptor::file_of(fd) {
        pipe::touch(file);
    }
    let e = engine();
    if e.alone {
        // Nothing of a child is ever fed again.
        return thread::wait_or_signal(l, nr::READ, [fd as usize, addr, len, 0, 0, 0]);
    }
    let live = e.live();
    let before = live.rchar.load(Relaxed);
    let (room, room_len) = e.journal.room();
    let head_len = size_of::<IoHead>();
    let sum = arguments_sum(fd, len);
    let asked = len;
    let len = len.min(STREAM_MAX).min(room_len.saturating_sub(head_len));
    // SAFETY: the journal has room for the head.
    let data = unsafe { room.add(head_len) };
    let flight = &live.input;
    flight.fd.store(fd as u32, Relaxed);
    flight.len.store(len as u64, Relaxed);
    flight.before.store(before, Relaxed);
    let thread = l.slot | record::own_pipe(fd);
    flight.thread.store(thread, Relaxed);
    flight.sum.store(sum, Relaxed);
    // SAFETY: the journal has room for so much.
    blank(unsafe { core::slice::from_raw_parts_mut(data, len.min(BLANK)) });
    flight.active.store(1, Release);
    let args = [fd as usize, data as usize, len, 0, 0, 0];
    let r = loop {
        // SAFETY: the buffer is the journal's free room.
        let r = unsafe { entry::interruptible(nr::READ, &args) };
        if r == -EINTR {
            if thread::signal_waits(l) {
                l.interrupted = true;
                break r;
            }
            thread::wait_on(l);
            if event::takes_tick_in_wait(l) {
                // The journal's room moves with a commit: begin again.
                flight.active.store(0, Release);
                crate::commit::commit(l);
                return consume(l, fd, addr, asked);
            }
            continue;
        }
        break r;
    };
    fault_point(fault::AFTER_READ);
    if r > 0 {
        note(fd, thread, sum, before, r as u64);
        count_read(r);
    }
    flight.active.store(0, Release);
    if super::socket::is_socket(fd) {
        event::count_message(nr::READ, r);
    }
    if r > 0 {
        if let Some(file) = descriptor::file_of(fd) {
            super::timerfd::was_read(file, fd, false);
        }
        event::input(l, head_len + r as usize);
    } else {
        event::non_deterministic(l);
    }
    if r > 0 {
        // SAFETY: the kernel wrote r bytes there.
        let bytes = unsafe { core::slice::from_raw_parts(data, r as usize) };
        if !give(addr, bytes) {
            return -EFAULT;
        }
    }
    r
}

/// Hands bytes to the program.
fn give(addr: usize, bytes: &[u8]) -> bool {
    shared::open(addr, addr.saturating_add(bytes.len()));
    user::write_bytes(addr, bytes)
}

/// Makes a record of the bytes that lie in the journal's room already.
fn note(fd: i32, thread: u32, sum: u64, before: u64, n: u64) {
    let e = engine();
    let (room, _) = e.journal.room();
    let head = IoHead {
        fd,
        thread,
        mark: record::mark(before),
        ret: n,
        sum,
    };
    // SAFETY: the room begins with space for the head.
    unsafe { room.cast::<IoHead>().write_unaligned(head) };
    let len = size_of::<IoHead>() + n as usize;
    e.live().journal_bytes.fetch_add(len as u64, Relaxed);
    if e.journal.append_in_place(record::INPUT, len).is_err() {
        unreachable!("the length was limited to the room");
    }
}

/// For calls that receive in another way: what waits to be fed from this
/// descriptor, taken away or only looked at.
pub fn fed(l: &mut Local, fd: i32, addr: usize, len: usize, peek: bool) -> Option<isize> {
    if !any_pushback() {
        return None;
    }
    let _guard = engine().lock.acquire(l);
    let file = descriptor::file_of(fd)?;
    if !peek {
        return feed(l, file, fd, addr, len);
    }
    let root = &state().root;
    let mut at = 0;
    while at < root.pushback_len as usize {
        let n = len_at(&root.pushback, at);
        if u32_at(&root.pushback, at) == file {
            let bytes = plain(&root.pushback, at);
            let take = bytes.len().min(len);
            let given = give(addr, &bytes[..take]);
            return Some(if given { take as isize } else { -EFAULT });
        }
        at += 8 + n;
    }
    None
}

// The pushback: records of (file u32, len u32, bytes) in the state.

/// Gives the program what was consumed from this file before the crash.
fn feed(l: &mut Local, file: u32, fd: i32, addr: usize, len: usize) -> Option<isize> {
    let root = &mut state().root;
    let total = root.pushback_len as usize;
    let mut at = 0;
    while at < total {
        let owner = u32_at(&root.pushback, at);
        let n = len_at(&root.pushback, at);
        if owner != file {
            at += 8 + n;
            continue;
        }
        let bytes = plain(&root.pushback, at);
        let take = bytes.len().min(len);
        if !give(addr, &bytes[..take]) {
            return Some(-EFAULT);
        }
        // What of a message finds no room is gone.
        if take == n || is_whole(&root.pushback, at) {
            root.pushback.copy_within(at + 8 + n..total, at);
            root.pushback_len -= 8 + n as u64;
        } else {
            root.pushback.copy_within(at + 8 + take..total, at + 8);
            root.pushback_len -= take as u64;
            root.pushback[at + 4..at + 8].copy_from_slice(&((n - take) as u32).to_le_bytes());
        }
        super::timerfd::was_read(file, fd, true);
        // What waits here is part of the state: fed again, it is fed alike.
        if !engine().log.wanted {
            event::non_deterministic(l);
        }
        return Some(take as isize);
    }
    None
}

/// Bit of a length: a [`message`], with all that belongs to it.
const WHOLE: u32 = 1 << 31;

fn is_whole(b: &[u8], at: usize) -> bool {
    u32_at(b, at + 4) & WHOLE != 0
}

/// Bytes of the entry at `at`, its head not counted.
fn len_at(b: &[u8], at: usize) -> usize {
    (u32_at(b, at + 4) & !WHOLE) as usize
}

/// What a plain read gets of it.
fn plain(b: &[u8], at: usize) -> &[u8] {
    let entry = &b[at + 8..at + 8 + len_at(b, at)];
    if is_whole(b, at) {
        message::data_of(entry)
    } else {
        entry
    }
}

/// What waits first for a file.
pub enum Fed {
    Bytes,
    Message(&'static [u8]),
}

pub fn next_fed(file: u32) -> Option<Fed> {
    let at = first_of(file)?;
    let b = &state().root.pushback;
    Some(match is_whole(b, at) {
        true => Fed::Message(&b[at + 8..at + 8 + len_at(b, at)]),
        false => Fed::Bytes,
    })
}

/// It was given to the program.
pub fn drop_fed(file: u32) {
    if let Some(at) = first_of(file) {
        let root = &mut state().root;
        let n = 8 + len_at(&root.pushback, at);
        root.pushback
            .copy_within(at + n..root.pushback_len as usize, at);
        root.pushback_len -= n as u64;
    }
}

fn first_of(file: u32) -> Option<usize> {
    let root = &state().root;
    let mut at = 0;
    while at < root.pushback_len as usize {
        if u32_at(&root.pushback, at) == file {
            return Some(at);
        }
        at += 8 + len_at(&root.pushback, at);
    }
    None
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// Whether a read of this descriptor would be fed.
pub fn has_pushback(fd: i32) -> bool {
    let root = &state().root;
    if root.pushback_len == 0 {
        return false;
    }
    let Some(file) = descriptor::file_of(fd) else {
        return false;
    };
    first_of(file).is_some()
}

/// Whether anything at all waits to be fed.
pub fn any_pushback() -> bool {
    state().root.pushback_len != 0
}

/// The file is gone: so is what was to be fed from it.
pub fn forget(file: u32) {
    let root = &mut state().root;
    let mut at = 0;
    while at < root.pushback_len as usize {
        let n = 8 + len_at(&root.pushback, at);
        if u32_at(&root.pushback, at) == file {
            let total = root.pushback_len as usize;
            root.pushback.copy_within(at + n..total, at);
            root.pushback_len -= n as u64;
        } else {
            at += n;
        }
    }
}

/// At recovery: a read under way at the crash consumed what the kernel says, or
/// what it left in the room.
pub fn settle(dead_rchar: Option<u64>) {
    let e = engine();
    let flight = &e.live().input;
    if flight.active.load(Acquire) == 0 {
        return;
    }
    if flight.thread.load(Relaxed) & record::MESSAGE_FLIGHT != 0 {
        message::settle();
        return;
    }
    let before = flight.before.load(Relaxed);
    let len = flight.len.load(Relaxed);
    let n = match dead_rchar {
        Some(count) => count.saturating_sub(before).min(len),
        None => overwritten(len as usize) as u64,
    };
    if super::output::last_mark(record::INPUT) != Some(record::mark(before)) && n > 0 {
        note(
            flight.fd.load(Relaxed) as i32,
            flight.thread.load(Relaxed),
            flight.sum.load(Relaxed),
            before,
            n,
        );
    }
    flight.active.store(0, Release);
}

/// So much of the room is made blank before a read: more than a terminal gives.
const BLANK: usize = 4096;

/// What no text has in that place (0xff is no byte of UTF-8), and no other data
/// is likely to.
fn blank_byte(at: usize) -> u8 {
    0xff ^ (at as u8).wrapping_mul(0x9d)
}

fn blank(room: &mut [u8]) {
    for (at, byte) in room.iter_mut().enumerate() {
        *byte = blank_byte(at);
    }
}

/// Where nobody has counted what a dead worker read, its last read is told by
/// what is not blank any more.
fn overwritten(len: usize) -> usize {
    let (room, room_len) = engine().journal.room();
    let head_len = size_of::<IoHead>();
    let len = len.min(BLANK).min(room_len.saturating_sub(head_len));
    // SAFETY: the journal has room for the head and so much.
    let bytes = unsafe { core::slice::from_raw_parts(room.add(head_len), len) };
    (0..len)
        .rev()
        .find(|&at| bytes[at] != blank_byte(at))
        .map_or(0, |at| at + 1)
}

/// What a read asks for, to tell it from another.
fn arguments_sum(fd: i32, len: usize) -> u64 {
    (fd as u64) << 48 ^ len as u64
}

/// At recovery: what was consumed since the last commit, or since the end of
/// the log at that offset of the journal, is fed again.
pub fn restore(warm: bool, from: usize) {
    let e = engine();
    if e.boot.plant == plant::LOSE_READ {
        return;
    }
    let root = &mut state().root;
    for r in e.journal.records(from) {
        if !matches!(r.kind, record::INPUT | record::MESSAGE) {
            continue;
        }
        let Some(head) = record::value_of::<IoHead>(r.payload) else {
            continue;
        };
        // A descriptor that came into being since the commit is not there any
        // more; what it gave cannot be fed.
        let Some(file) = descriptor::file_of(head.fd) else {
            continue;
        };
        if super::pipe::is_state(head.fd) || !warm && super::pipe::is_own(head.fd) {
            continue;
        }
        let (bytes, whole) = match r.kind {
            record::MESSAGE => (r.payload, WHOLE),
            _ => (&r.payload[size_of::<IoHead>()..], 0),
        };
        let at = root.pushback_len as usize;
        if at + 8 + bytes.len() > root.pushback.len() {
            crate::say!("more input since the last commit than can be fed again; the rest is lost");
            return;
        }
        root.pushback[at..at + 4].copy_from_slice(&file.to_le_bytes());
        root.pushback[at + 4..at + 8].copy_from_slice(&(bytes.len() as u32 | whole).to_le_bytes());
        root.pushback[at + 8..at + 8 + bytes.len()].copy_from_slice(bytes);
        root.pushback_len += 8 + bytes.len() as u64;
    }
}
