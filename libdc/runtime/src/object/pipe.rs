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
mod moving;

pub use contents::{before_close, fill_shared, put_back, save_contents, touch, touched};
use moving::count_written;
pub use moving::{read, read_alone, write, write_alone};

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
/// In `OpenFile::words` of a reading end: nonzero if nothing lay inside when a commit looked,
/// and nothing has gone through it since.
const IS_EMPTY: usize = 2;
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
            s.is_foreign.store(1, SeqCst);
        }
    }
    crate::run::moving::await_begun();
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
