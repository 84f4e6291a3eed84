//! Pipes that the program makes for itself.
//!
//! intercept: pipe, pipe2; data goes the way of all streams (input, output)
//! save:      the bytes inside, copied by tee(2), which does not consume
//! restore:   warm: the pipe lives; cold: a new one, filled again
//! survives:  warm and cold; of a pipe shared with others only warm

use super::descriptor::*;
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::state::Kind;
use crate::sys;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub fn pipe(l: &mut Local, a: [usize; 6]) -> isize {
    pipe2(l, [a[0], 0, 0, 0, 0, 0])
}

pub fn pipe2(_l: &mut Local, a: [usize; 6]) -> isize {
    let flags = a[1];
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
        f.words[0] = this_interval();
        enter(fds[i], file, flags & O_CLOEXEC != 0);
    }
    if user::write(a[0], &fds) { 0 } else { -EFAULT }
}

/// Whether a pipe of our own was written to or read from since the commit.
static TOUCHED: AtomicBool = AtomicBool::new(false);

/// Whether a descriptor is an end of a pipe of our own.
pub fn is_own(fd: i32) -> bool {
    file_of(fd).is_some_and(|file| {
        let f = open_file(file);
        f.kind == Kind::Pipe && f.peer != 0
    })
}

fn this_interval() -> u64 {
    engine().store.published() + 1
}

/// Whether an end of a pipe is known to nobody but this one thread, and was
/// made since the commit: a rollback takes it away with what is in it, and what
/// goes through it is no event.
pub fn is_private(file: u32) -> bool {
    let f = open_file(file);
    f.kind == Kind::Pipe && f.peer != 0 && f.words[0] == this_interval() && engine().log.private()
}

/// Whether a read of a pipe would not wait.
pub fn holds_data(fd: i32) -> bool {
    const FIONREAD: usize = 0x541b;
    let mut inside = 0i32;
    !failed(sys!(IOCTL, fd, FIONREAD, &raw mut inside)) && inside > 0
}

/// Data went through a descriptor.
#[inline]
pub fn touch(file: u32) {
    let f = open_file(file);
    if f.kind == Kind::Pipe && f.peer != 0 {
        TOUCHED.store(true, Relaxed);
    }
}

/// Before a commit: what lies in our own pipes, for a cold recovery. Records
/// of (file of the reading end u32, len u32, bytes).
pub fn save_contents() {
    if !TOUCHED.swap(false, Relaxed) {
        return;
    }
    let root = &mut state().root;
    root.pipe_data_len = 0;
    for fd in 0..root.fd_high as i32 {
        let Some(file) = file_of(fd) else { continue };
        let f = open_file(file);
        let reading = f.kind == Kind::Pipe && f.peer != 0 && f.flags as usize & O_ACCMODE == 0;
        if reading && any_fd(file) == Some(fd) {
            save_one(file, fd);
        }
    }
}

fn save_one(file: u32, fd: i32) {
    const FIONREAD: usize = 0x541b;
    const F_SETPIPE_SZ: usize = 1031;
    const SPLICE_F_NONBLOCK: usize = 2;
    let root = &mut state().root;
    let at = root.pipe_data_len as usize;
    let mut inside = 0i32;
    sys!(IOCTL, fd, FIONREAD, &raw mut inside);
    if inside <= 0 {
        return;
    }
    let n = inside as usize;
    let mut copy = [0i32; 2];
    if at + 8 + n > root.pipe_data.len() || failed(sys!(PIPE2, copy.as_mut_ptr(), O_NONBLOCK)) {
        crate::say!("{n} bytes in a pipe will not survive the death of dcrun itself");
        return;
    }
    sys!(FCNTL, copy[1], F_SETPIPE_SZ, n.max(65536));
    let teed = sys!(TEE, fd, copy[1], n, SPLICE_F_NONBLOCK);
    let mut got = 0;
    while teed > 0 && got < teed as usize {
        let r = sys!(
            READ,
            copy[0],
            root.pipe_data[at + 8 + got..].as_mut_ptr(),
            n - got
        );
        super::input::count_read(r);
        if r <= 0 {
            break;
        }
        got += r as usize;
    }
    sys!(CLOSE, copy[0]);
    sys!(CLOSE, copy[1]);
    root.pipe_data[at..at + 4].copy_from_slice(&file.to_le_bytes());
    root.pipe_data[at + 4..at + 8].copy_from_slice(&(got as u32).to_le_bytes());
    root.pipe_data_len += 8 + got as u64;
}

/// At cold recovery: fills our own pipes again.
pub fn refill() {
    let root = &state().root;
    let mut at = 0;
    while at + 8 <= root.pipe_data_len as usize {
        let word =
            |i: usize| u32::from_le_bytes(root.pipe_data[i..i + 4].try_into().unwrap_or([0; 4]));
        let (file, n) = (word(at), word(at + 4) as usize);
        if let Some(fd) = any_fd(open_file(file).peer) {
            let r = sys!(WRITE, fd, root.pipe_data[at + 8..].as_ptr(), n);
            crate::fatal::count_written(crate::engine::engine().live(), r.max(0) as usize);
        }
        at += 8 + n;
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
    if let Some(fd) = any_fd(f.peer) {
        crate::recover::descriptors::install(f.peer, other as isize, fd);
    } else {
        sys!(CLOSE, other);
    }
    own as isize
}
