//! Pipes that the program makes for itself.
//!
//! As long as nobody outside of the run holds an end, such a pipe is state like memory:
//! what goes into it is no output, what comes out no input, and a rollback puts back what
//! was inside. A message that carries descriptors may give an end away; from then on data
//! goes the way of all streams ([`super::input`], [`super::output`]). What lies in a pipe
//! that a child has inherited is kept once for all ([`crate::run::shared`]).
//!
//! intercept: pipe, pipe2; read and write while the pipe is state
//! save:      the bytes inside, copied by tee(2), which does not consume
//! restore:   warm: emptied and filled again while it is state, else it lives;
//!            cold: a new one, filled again
//! survives:  warm and cold; of a pipe shared with others only warm
#![allow(unsafe_code)]

mod contents;

pub use contents::{before_close, fill_shared, put_back, save_contents, touch, touched};

use super::descriptor::*;
use super::input::count_read;
use super::poll::{self, POLLIN, POLLOUT};
use super::pty;
use super::socket::pair;
use super::stat::Stat;
use crate::commit::fault_point;
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{entry, nr, user};
use crate::run::{ends, shared};
use crate::state::Kind;
use crate::{sys, thread};
use core::sync::atomic::Ordering::*;
use dc_image::boot::fault;

pub fn pipe(l: &mut Local, a: [usize; 6]) -> isize {
    pipe2(l, [a[0], 0, 0, 0, 0, 0])
}

pub fn pipe2(_l: &mut Local, a: [usize; 6]) -> isize {
    let flags = a[1];
    if !has_numbers(2) {
        return -EMFILE;
    }
    let mut fds = [0i32; 2];
    let r = sys!(PIPE2, fds.as_mut_ptr(), flags);
    if failed(r) {
        return r;
    }
    let (Some(x), Some(y)) = (new_file(Kind::Pipe), new_file(Kind::Pipe)) else {
        return -EMFILE;
    };
    for (i, file) in [x, y].into_iter().enumerate() {
        let f = open_file(file);
        f.flags = (flags & !O_CLOEXEC) as u32 | i as u32;
        f.peer = if i == 0 { y } else { x };
        f.mode = 0o010600;
        // Packets have borders, which filling it again would lose.
        f.words[SHARED] = (flags & O_DIRECT != 0) as u64;
        f.words[MADE] = this_interval();
        enter(fds[i], file, flags & O_CLOEXEC != 0);
    }
    if user::write(a[0], &fds) { 0 } else { -EFAULT }
}

/// In `OpenFile::words`: nonzero if the pipe is not state (any more).
const SHARED: usize = 0;
/// In `OpenFile::words`: the interval in which the pipe was made.
const MADE: usize = 1;
/// In `OpenFile::peer`: the other end is closed.
const PEER_GONE: u32 = u32::MAX;
const O_DIRECT: usize = 0o40000;
/// Up to here a write is whole or not at all, and has room where a poll says so.
const PIPE_BUF: usize = 4096;

/// Whether a descriptor is an end of a pipe that is state.
pub fn is_state(fd: i32) -> bool {
    known_file(fd).is_some_and(is_state_file)
}

fn is_state_file(file: u32) -> bool {
    let f = open_file(file);
    let is_own = f.kind == Kind::Pipe && f.peer != 0 && f.words[SHARED] == 0;
    // What one process has given away in a message is a stream to all who know it.
    is_own && shared::of(f).is_none_or(|(_, s)| s.is_foreign.load(Relaxed) == 0)
}

fn share(file: u32) {
    let peer = open_file(file).peer;
    open_file(file).words[SHARED] = 1;
    if peer != PEER_GONE {
        open_file(peer).words[SHARED] = 1;
    }
}

/// The last descriptor of one end is closed: its record may become another file's,
/// which must not find there what was in this one.
pub fn end_closed(file: u32) {
    touched();
    let peer = open_file(file).peer;
    if peer != PEER_GONE {
        open_file(peer).peer = PEER_GONE;
    }
}

/// Others than the run may hold the pipes of this process from now on; true if any was
/// state. The caller commits before they do.
pub fn share_all() -> bool {
    let mut any = false;
    for fd in 0..state().root.fd_high as i32 {
        if let Some(file) = known_file(fd).filter(|&file| is_state_file(file)) {
            open_file(file).words[SHARED] = 1;
            any = true;
        }
    }
    any
}

/// The same for the other processes of the run that know them. Behind the commit, so that a
/// rollback to before it still finds state.
pub fn are_streams() {
    for fd in 0..state().root.fd_high as i32 {
        let Some(file) = known_file(fd) else { continue };
        let f = open_file(file);
        if f.kind == Kind::Pipe
            && f.words[SHARED] != 0
            && let Some((_, s)) = shared::of(f)
        {
            s.is_foreign.store(1, Relaxed);
        }
    }
}

/// An end goes to another process of the run in a message: that one is to know it as the
/// same pipe, also if it is closed here before the message is taken.
pub fn handed(fd: i32) {
    if let Some(file) = file_of(fd).filter(|_| is_own_pipe(fd))
        && let Some((_, s)) = shared::enter_pipe(file)
    {
        s.on_its_way.fetch_add(1, Relaxed);
    }
}

/// An end came in a message: if the pipe is one of the run's, its other end is in the run too,
/// and a cold recovery makes both again.
pub fn received(file: u32) {
    let f = open_file(file);
    if shared::join_pipe(f) {
        f.peer = PEER_GONE;
        f.words[SHARED] = 1;
        touched();
    }
}

/// read(2) and its like from a pipe that is state, or None if it is none.
pub fn read(l: &mut Local, nr: usize, a: [usize; 6]) -> Option<isize> {
    transfer(l, nr, a, |_, r| count_read(r))
}

/// write(2) and its like into a pipe that is state; None if it is none, or for a
/// long writev beside other threads, which is treated as output.
pub fn write(l: &mut Local, nr: usize, a: [usize; 6], len: usize) -> Option<isize> {
    let under_way = state().threads[l.slot as usize].moved_bytes != 0;
    if !under_way && (len <= PIPE_BUF || !may_block(l, a[0] as i32)) {
        transfer(l, nr, a, |l, r| {
            count_written(r);
            if r != len as isize {
                room_was_chance(l);
            }
        })
    } else if nr == nr::WRITE {
        write_in_parts(l, a)
    } else {
        None
    }
}

/// How much has room depends on how the bytes inside were written. The caller holds the
/// lock still under which the write was made: while it waited for it anew, another thread
/// could commit the bytes without what tells of them.
fn room_was_chance(l: &mut Local) {
    crate::event::non_deterministic(l);
}

/// Whether a call may wait for what another thread does.
fn may_block(l: &mut Local, fd: i32) -> bool {
    let _guard = engine().lock.acquire(l);
    let blocks = |file| open_file(file).flags as usize & O_NONBLOCK == 0;
    !crate::run::is_alone() && file_of(fd).is_some_and(blocks)
}

/// As much as has room at a time, so that the reader gets the lock meanwhile. How
/// much is done is state: a rollback into the middle goes on from there.
fn write_in_parts(l: &mut Local, a: [usize; 6]) -> Option<isize> {
    let [fd, addr, len, ..] = a;
    let done = |l: &Local| state().threads[l.slot as usize].moved_bytes;
    let r = loop {
        let part = (len - done(l)).min(PIPE_BUF);
        let args = [fd, addr + done(l), part, 0, 0, 0];
        let r = transfer(l, nr::WRITE, args, |l, r| {
            count_written(r);
            state().threads[l.slot as usize].moved_bytes += r.max(0) as usize;
        });
        if r != Some(part as isize) || done(l) >= len {
            break r;
        }
    };
    if done(l) < len {
        let _guard = engine().lock.acquire(l);
        room_was_chance(l);
    }
    let done = core::mem::take(&mut state().threads[l.slot as usize].moved_bytes);
    if done > 0 {
        (l.interrupted, l.early) = (false, false);
        return Some(done as isize);
    }
    r
}

fn count_written(r: isize) {
    if r > 0 {
        crate::fatal::count_written(r as usize);
    }
}

/// Makes the call with the lock held, so that no commit falls between its effect
/// and what `note` makes of its result; waits without it.
fn transfer(
    l: &mut Local,
    nr: usize,
    a: [usize; 6],
    note: impl Fn(&mut Local, isize),
) -> Option<isize> {
    let fd = a[0] as i32;
    let reads = matches!(nr, nr::READ | nr::READV | nr::PREADV2);
    let ready = if reads { POLLIN } else { POLLOUT };
    loop {
        let guard = engine().lock.acquire(l);
        if !is_state(fd) {
            return None;
        }
        let f = open_file(file_of(fd)?);
        let threads = !crate::run::is_alone();
        let blocks = f.flags as usize & O_NONBLOCK == 0;
        if threads && blocks && !poll::ready_now(fd, ready) {
            if let Some(r) = write_into_rest(nr, &a) {
                touched();
                note(l, r);
                return Some(r);
            }
            drop(guard);
            match poll::wait_for(l, fd, ready) {
                Ok(()) => continue,
                Err(e) => return Some(e),
            }
        }
        touched();
        loop {
            // SAFETY: the program's own call with its own arguments.
            let r = unsafe { entry::interruptible(nr, &a) };
            ends::met(r);
            if r != -EINTR {
                if reads {
                    fault_point(fault::AFTER_READ);
                }
                note(l, r);
                return Some(r);
            }
            if thread::signal_waits(l) {
                thread::broken_off(l, fd, ready);
                return Some(r);
            }
            thread::wait_on(l);
            if crate::event::takes_tick_in_wait(l) {
                crate::commit::commit(l);
            }
        }
    }
}

/// A pipe without a free page counts as full for poll(2), and may have room in its last one
/// all the same, in which a write need not wait. (Where a user has many pipes, a new one
/// has a single page: pipe(7).) None if it would wait.
fn write_into_rest(nr: usize, a: &[usize; 6]) -> Option<isize> {
    const RWF_NOWAIT: usize = 8;
    const AT_POSITION: isize = -1;
    let one = [a[1], a[2]];
    let r = match nr {
        nr::WRITE => sys!(PWRITEV2, a[0], one.as_ptr(), 1, AT_POSITION, 0, RWF_NOWAIT),
        nr::WRITEV => sys!(PWRITEV2, a[0], a[1], a[2], AT_POSITION, 0, RWF_NOWAIT),
        _ => return None,
    };
    (r != -EAGAIN && r != -EINTR).then_some(r)
}

/// Whether a descriptor is an end of a pipe of our own.
fn is_own_pipe(fd: i32) -> bool {
    known_file(fd).is_some_and(|file| {
        let f = open_file(file);
        f.kind == Kind::Pipe && f.peer != 0
    })
}

/// The same of a socket or terminal too: all that goes through it comes from the run and stays in it,
/// and a cold recovery makes it again as it was at the commit.
pub fn is_own(fd: i32) -> bool {
    let of = |file| pair::is_own(open_file(file)) || pty::is_own(open_file(file));
    is_own_pipe(fd) || known_file(fd).is_some_and(of)
}

fn this_interval() -> u64 {
    engine().store.published() + 1
}

/// Whether an end of a pipe is known to nobody but this one thread, and was
/// made since the commit: a rollback takes it away with what is in it, and what
/// goes through it is no event.
pub fn is_private(file: u32) -> bool {
    let made = open_file(file).words[MADE];
    is_state_file(file) && made == this_interval() && engine().log.private()
}

/// At cold recovery: both ends of a pipe that several processes know.
pub fn make_both(flags: usize) -> [isize; 2] {
    let mut fds = [0i32; 2];
    let r = sys!(PIPE2, fds.as_mut_ptr(), flags & O_NONBLOCK);
    match failed(r) {
        true => [r, r],
        false => fds.map(|fd| fd as isize),
    }
}

/// At cold recovery: a pipe has another inode.
pub fn is_anew(s: &dc_image::run::Shared, fd: i32) {
    if let Ok(st) = Stat::of_fd(fd) {
        s.ino.store(st.ino, Relaxed);
    }
}

/// At cold recovery: a pipe of our own is made anew; its ends land on the
/// descriptors of both files.
pub fn remake(file: u32) -> isize {
    let f = open_file(file);
    if f.peer == 0 {
        return -EIO;
    }
    let mut fds = [0i32; 2];
    let r = sys!(PIPE2, fds.as_mut_ptr(), f.flags as usize & O_NONBLOCK);
    if failed(r) {
        return r;
    }
    let write_end = f.flags as usize & O_ACCMODE == 1;
    let (own, other) = if write_end {
        (fds[1], fds[0])
    } else {
        (fds[0], fds[1])
    };
    // (PEER_GONE is no file's number.)
    if let Some(fd) = any_fd(f.peer) {
        crate::recover::descriptors::install(f.peer, other as isize, fd);
    } else {
        sys!(CLOSE, other);
    }
    own as isize
}
