//! Input: never lost as long as the keeper lives.
//!
//! What a terminal, pipe or socket gives is gone from the kernel, so it is
//! read straight into the journal, and only then handed to the program. After
//! a crash everything consumed since the last commit is fed again, before
//! anything new (`pushback.rs`).
//!
//! Reading a file of the program's own is deterministic: its offset is rolled
//! back, its contents too.
#![allow(unsafe_code)]

use super::buffers::{Buffers, is_user};
use super::message::{self, MSG_DONTWAIT, MSG_WAITALL};
use super::record::{self, IoHead};
use super::signalfd::SIGNALFD_SIGINFO;
use super::{descriptor, device, pipe, poll, pty, pushback, regular};
use crate::commit::{self, fault_point};
use crate::engine::{add, engine, state};
use crate::event;
use crate::fatal;
use crate::log::replay;
use crate::machine::frame::Local;
use crate::machine::sys::errno::*;
use crate::machine::{entry, nr};
use crate::run::ends;
use crate::run::job_control::{self, SIGTTIN};
use crate::signal::suspension::is_asked_by_read;
use crate::state::Kind;
use crate::thread;
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;
use dc_image::boot::fault;

/// The most that one call takes from a stream.
const STREAM_MAX: usize = 64 << 10;
/// From a device, which may give a packet whole or not at all (FUSE, tun).
const DEVICE_MAX: usize = 2 << 20;

pub fn read(l: &mut Local, a: [usize; 6]) -> isize {
    let [fd, addr, len, ..] = a;
    if crate::run::has_company()
        && let Some(r) = pipe::read_alone(l, a)
    {
        return r;
    }
    let fd = fd as i32;
    let to = Buffers::one(addr, len);
    let guard = engine().lock.acquire(l);
    let Some(file) = descriptor::file_of(fd) else {
        return -EBADF;
    };
    let f = descriptor::open_file(file);
    if is_for_writing_only(f) {
        return -EBADF;
    }
    if !is_user(addr, len) {
        return -EFAULT;
    }
    to.wake();
    match f.kind {
        Kind::Regular | Kind::MemFd | Kind::Directory if regular::rewinds(f) => {
            regular::about_to_read(fd, f, None);
            let foreign = regular::is_foreign(f);
            if foreign && let Some(r) = replay::answer(l) {
                regular::after_transfer(fd, file, None, r);
                return r;
            }
            // SAFETY: the program's own call with its own arguments.
            let r = unsafe { crate::machine::sys::raw6(nr::READ, a) };
            count_read(r);
            regular::after_transfer(fd, file, None, r);
            regular::was_read(f, None, r);
            if foreign {
                regular::foreign_was_read(l, r);
            }
            r
        }
        Kind::EventFd => {
            drop(guard);
            super::eventfd::read(l, fd, addr, len)
        }
        Kind::Device | Kind::Other if !device::is_consumed(f) => {
            if let Some(r) = replay::answer(l) {
                return r;
            }
            let waits = f.flags as usize & descriptor::O_NONBLOCK == 0;
            if waits && !crate::run::is_alone() && !poll::ready_now(fd, poll::POLLIN) {
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
        // Nothing is waited for where nothing is wanted.
        Kind::Pipe | Kind::Socket | Kind::Tty if len == 0 => 0,
        Kind::Pipe if f.peer != 0 => {
            drop(guard);
            match pipe::read(l, nr::READ, a) {
                Some(r) => r,
                None => stream(l, fd, &to, false),
            }
        }
        kind => {
            drop(guard);
            if kind == Kind::Inotify {
                super::deferred_close::close_before_wait(l);
            }
            stream(l, fd, &to, false)
        }
    }
}

/// Looked at first: nobody must wait for such a descriptor to become ready.
fn is_for_writing_only(f: &crate::state::OpenFile) -> bool {
    const O_ACCMODE: u32 = 3;
    const O_WRONLY: u32 = 1;
    f.kind == Kind::Pipe && f.flags & O_ACCMODE == O_WRONLY
}

/// Into several buffers; also preadv2 at the file's own position.
pub fn readv(l: &mut Local, a: [usize; 6]) -> isize {
    let fd = a[0] as i32;
    let (kind, foreign) = {
        let _guard = engine().lock.acquire(l);
        let Some(file) = descriptor::file_of(fd) else {
            return -EBADF;
        };
        let f = descriptor::open_file(file);
        if is_for_writing_only(f) {
            return -EBADF;
        }
        match device::is_consumed(f) {
            // As a stream.
            true => (Kind::Pipe, false),
            false => {
                regular::about_to_read(fd, f, None);
                (f.kind, regular::is_foreign(f))
            }
        }
    };
    if let Err(e) = super::output::vector_len(a) {
        return e;
    }
    let Some(to) = Buffers::several(a[1], a[2]) else {
        return -EFAULT;
    };
    let number = match l.frame.nr {
        nr::PREADV2 => nr::PREADV2,
        _ => nr::READV,
    };
    match kind {
        Kind::Regular | Kind::MemFd | Kind::Directory | Kind::Device | Kind::Other => {
            let _guard = engine().lock.acquire(l);
            to.wake();
            let chance = matches!(kind, Kind::Device | Kind::Other);
            if (chance || foreign)
                && let Some(r) = replay::answer(l)
            {
                return r;
            }
            // SAFETY: the program's own call with its own arguments.
            let r = unsafe { crate::machine::sys::raw6(number, a) };
            count_read(r);
            if let Some(file) = descriptor::known_file(fd) {
                regular::after_transfer(fd, file, None, r);
                regular::was_read(descriptor::open_file(file), None, r);
            }
            if chance {
                event::non_deterministic(l);
            } else if foreign {
                regular::foreign_was_read(l, r);
            }
            r
        }
        _ if to.len == 0 => 0,
        Kind::EventFd => {
            let [at, len] = to.first();
            super::eventfd::read(l, fd, at, len)
        }
        _ => {
            to.wake();
            let at_once = number == nr::PREADV2 && a[5] & RWF_NOWAIT != 0;
            if !at_once && let Some(r) = pipe::read(l, number, a) {
                return r;
            }
            stream(l, fd, &to, at_once)
        }
    }
}

pub fn pread(l: &mut Local, a: [usize; 6]) -> isize {
    pread_as(l, l.frame.nr, a)
}

/// As the call of a number, which need not be the one that the program makes.
pub fn pread_as(l: &mut Local, number: usize, a: [usize; 6]) -> isize {
    if number == nr::PREADV2 && a[3] as isize == -1 {
        return readv(l, a);
    }
    let _guard = engine().lock.acquire(l);
    let Some(file) = descriptor::file_of(a[0] as i32) else {
        return -EBADF;
    };
    let f = descriptor::open_file(file);
    let chance = !matches!(f.kind, Kind::Regular | Kind::MemFd);
    let at = Some(a[3] as u64);
    regular::about_to_read(a[0] as i32, f, at);
    let foreign = regular::is_foreign(f);
    if (chance || foreign)
        && let Some(r) = replay::answer(l)
    {
        return r;
    }
    // The kernel would stop a read at the first sleeping page of its buffers.
    if number == nr::PREAD64 {
        Buffers::one(a[1], a[2]).wake();
    } else if let Some(to) = Buffers::several(a[1], a[2]) {
        to.wake();
    }
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(number, a) };
    count_read(r);
    regular::was_read(f, at, r);
    if chance {
        event::non_deterministic(l);
    } else if foreign {
        regular::foreign_was_read(l, r);
    }
    r
}

/// Keeps `Live::rchar` equal to what the kernel counts for this process.
pub fn count_read(r: isize) {
    if r > 0 {
        add(&crate::run::me().rchar, r as u64);
    }
}

/// What a receive takes from a stream, whose bytes the kernel counts only if they
/// are read. Of the flags, those that say how long it waits.
pub fn receive(l: &mut Local, fd: i32, to: &Buffers, flags: usize) -> isize {
    to.wake();
    if flags & MSG_DONTWAIT != 0 || flags & MSG_WAITALL == 0 {
        return stream(l, fd, to, flags & MSG_DONTWAIT != 0);
    }
    // How much has come is state: a rollback into the middle goes on from there.
    let last = loop {
        let done = state().threads[l.slot as usize].moved_bytes;
        if done > 0 && engine().log.replay.is_active() && !replay::has_next(record::INPUT) {
            // No more came.
            let _guard = engine().lock.acquire(l);
            event::non_deterministic(l);
            break 0;
        }
        let r = stream(l, fd, &to.behind(done), false);
        if r <= 0 || done + r as usize >= to.len && done == 0 {
            break r;
        }
        // Before another thread can commit, which it can while this one waits for the lock.
        state().threads[l.slot as usize].moved_bytes = done + r as usize;
        if done + r as usize >= to.len || thread::signal_waits(l) {
            break r;
        }
        thread::wait_on(l);
        let _guard = engine().lock.acquire(l);
        if event::takes_tick_in_wait(l) {
            commit::commit(l);
        }
    };
    match core::mem::take(&mut state().threads[l.slot as usize].moved_bytes) {
        0 => last,
        done => {
            l.early = false;
            done as isize
        }
    }
}

/// A read that consumes; `at_once` answers EAGAIN where it would wait.
fn stream(l: &mut Local, fd: i32, to: &Buffers, at_once: bool) -> isize {
    loop {
        let guard = engine().lock.acquire(l);
        let Some(file) = descriptor::file_of(fd) else {
            return -EBADF;
        };
        if let Some(r) = pushback::feed(l, file, fd, to) {
            return r;
        }
        if pipe::is_own(fd) && engine().log.replay.makes_own_pipes_again() {
            let [at, len] = to.first();
            // SAFETY: into the program's own buffer; there is something to read.
            let r = unsafe { crate::machine::sys::raw6(nr::READ, [fd as usize, at, len, 0, 0, 0]) };
            count_read(r);
            return r;
        }
        if engine().log.replay.is_active() {
            let r = replay::input(l, fd, arguments_sum(fd, to.len), to);
            if r > 0 {
                super::timerfd::was_read(file, fd, true);
            }
            return r;
        }
        let f = descriptor::open_file(file);
        let blocking = !at_once && f.flags as usize & descriptor::O_NONBLOCK == 0;
        // In the background a read does not wait, but stops.
        let background = f.kind == Kind::Tty && job_control::is_background(fd);
        if blocking && !background && !crate::run::is_alone() {
            // Wait without the lock, consume with it: one consumer at a time
            // is under way when a crash comes.
            drop(guard);
            if let Err(e) = poll::wait_for(l, fd, poll::POLLIN) {
                return e;
            }
            let _guard = engine().lock.acquire(l);
            if poll::ready_now(fd, poll::POLLIN)
                && let Some(r) = consume(l, fd, to, at_once)
            {
                return r;
            }
            continue;
        }
        if let Some(r) = consume(l, fd, to, at_once) {
            return r;
        }
    }
}

const RWF_NOWAIT: usize = 8;

/// `None`: what came was not the program's, and is gone.
fn consume(l: &mut Local, fd: i32, to: &Buffers, at_once: bool) -> Option<isize> {
    commit::commit_first(l);
    let e = engine();
    let live = e.live();
    if let Some(file) = descriptor::known_file(fd) {
        pipe::touch(file);
        pty::typed::is_read_next(file, &live.input);
    }
    let before = crate::run::me().rchar.load(Relaxed);
    let (room, room_len) = e.journal.room();
    let head_len = size_of::<IoHead>();
    let sum = arguments_sum(fd, to.len);
    let whole = descriptor::known_file(fd)
        .is_some_and(|file| device::is_consumed(descriptor::open_file(file)));
    // One at a time, if it may be one that the program does not get.
    let suspends = super::signalfd::suspends(fd);
    let len = to
        .len
        .min(if whole { DEVICE_MAX } else { STREAM_MAX })
        .min(if suspends {
            SIGNALFD_SIGINFO
        } else {
            usize::MAX
        })
        .min(room_len.saturating_sub(head_len));
    // SAFETY: the journal has room for the head.
    let data = unsafe { room.add(head_len) };
    crate::run::flies();
    let flight = &live.input;
    flight.fd.store(fd as u32, Relaxed);
    flight.len.store(len as u64, Relaxed);
    flight.before.store(before, Relaxed);
    let thread = l.slot | record::own_pipe(fd);
    flight.thread.store(thread, Relaxed);
    flight.sum.store(sum, Relaxed);
    // SAFETY: the journal has room for so much.
    blank(unsafe { core::slice::from_raw_parts_mut(data, len.min(BLANK)) });
    flight.begin(engine().slot);
    let part = [data as usize, len];
    let part_at = part.as_ptr() as usize;
    let (number, args) = match at_once {
        false => (nr::READ, [fd as usize, part[0], len, 0, 0, 0]),
        true => (
            nr::PREADV2,
            [fd as usize, part_at, 1, usize::MAX, usize::MAX, RWF_NOWAIT],
        ),
    };
    let r = loop {
        // SAFETY: the buffer is the journal's free room.
        let r = unsafe { entry::interruptible(number, &args) };
        if r == -EINTR {
            if thread::signal_waits(l) {
                thread::broken_off(l, fd, poll::POLLIN);
                break r;
            }
            thread::wait_on(l);
            if event::takes_tick_in_wait(l) {
                // The journal's room moves with a commit: begin again.
                flight.end();
                commit::commit(l);
                return consume(l, fd, to, at_once);
            }
            continue;
        }
        break r;
    };
    ends::met(r);
    if l.early {
        flight.end();
        return Some(r);
    }
    if job_control::answers_by_stop(l, fd, r, SIGTTIN) {
        flight.end();
        return Some(-EINTR);
    }
    if r > 0 && suspends {
        // SAFETY: the kernel wrote r bytes there.
        let bytes = unsafe { core::slice::from_raw_parts(data, r as usize) };
        if is_asked_by_read(bytes) {
            count_read(r);
            flight.end();
            return None;
        }
    }
    fault_point(fault::AFTER_READ);
    pty::typed::was_read(flight, r);
    if r > 0 || r == 0 && is_end_taken(fd) {
        note(fd, thread, sum, before, r as u64);
        count_read(r);
    }
    flight.end();
    if super::socket::is_socket(fd) {
        event::count_message(nr::READ, r);
    }
    if r > 0 {
        if let Some(file) = descriptor::known_file(fd) {
            super::timerfd::was_read(file, fd, false);
        }
        event::input(l, head_len + r as usize);
    } else {
        event::non_deterministic(l);
    }
    if r > 0 {
        // SAFETY: the kernel wrote r bytes there.
        let bytes = unsafe { core::slice::from_raw_parts(data, r as usize) };
        if !to.give(bytes) {
            return Some(-EFAULT);
        }
    }
    Some(r)
}

/// Whether no bytes were the end of input that somebody typed, which is gone with them. (A log
/// has it among its results.)
fn is_end_taken(fd: i32) -> bool {
    let e = engine();
    let is_terminal = |file| descriptor::open_file(file).kind == Kind::Tty;
    descriptor::known_file(fd).is_some_and(is_terminal)
        && (!e.log.wanted || e.machine.flag())
        && super::tty::has_lines(fd)
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
    if record::append_in_place(record::INPUT, len).is_err() {
        unreachable!("the length was limited to the room");
    }
}

/// At recovery: a read under way at the crash consumed what the kernel says, or
/// what it left in the room.
pub fn settle(dead_rchar: Option<u64>, warm: bool) {
    let e = engine();
    let flight = &e.live().input;
    if !flight.is_under_way() || !crate::run::is_in_flight() {
        return;
    }
    if flight.thread.load(Relaxed) & record::MESSAGE_FLIGHT != 0 {
        message::settle();
        return;
    }
    if pty::printed::settle(flight, dead_rchar, true, warm) {
        return;
    }
    let before = flight.before.load(Relaxed);
    let len = flight.len.load(Relaxed);
    let n = match dead_rchar {
        Some(count) => count.saturating_sub(before).min(len),
        None => overwritten(len as usize) as u64,
    };
    if n > 0 && warm {
        pty::typed::was_read(flight, n as isize);
    }
    if super::output::last_mark(record::INPUT) != Some(record::mark(before)) && n > 0 {
        note(
            flight.fd.load(Relaxed) as i32,
            flight.thread.load(Relaxed),
            flight.sum.load(Relaxed),
            before,
            n,
        );
    }
    flight.end();
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
    let n = (0..len)
        .rev()
        .find(|&at| bytes[at] != blank_byte(at))
        .map_or(0, |at| at + 1);
    let still_blank = (0..n).take_while(|&at| bytes[at] == blank_byte(at)).count();
    if still_blank >= PLAUSIBLE
        || n >= len.min(ZEROS) && n > 0 && bytes[..n].iter().all(|&b| b == 0)
    {
        fatal::stop(
            FatalCode::Corrupt,
            0,
            format_args!(
                "settle the read that was under way when all died: the bytes that it was given are \
                 damaged; put a whole copy of the image back"
            ),
        )
    }
    n
}

/// No read gives so many bytes that happen to be the blank ones; and so many zeros, up to
/// the end of what is looked at, are more likely a page that was lost.
const PLAUSIBLE: usize = 4;
const ZEROS: usize = 512;

/// What a read asks for, to tell it from another.
fn arguments_sum(fd: i32, len: usize) -> u64 {
    (fd as u64) << 48 ^ len as u64
}
