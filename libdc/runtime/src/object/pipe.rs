//! Pipes that the program makes for itself.
//!
//! intercept: pipe, pipe2; data goes the way of all streams (input, output)
//! restore:   warm: the pipe lives; cold: a new, empty one
//! survives:  warm with its contents; cold without

use super::descriptor::*;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::state::Kind;
use crate::sys;

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
        enter(fds[i], file, flags & O_CLOEXEC != 0);
    }
    if user::write(a[0], &fds) { 0 } else { -EFAULT }
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
