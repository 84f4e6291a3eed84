//! signalfd: the kernel's, over signals that the program blocks.
//!
//! state:    words[0] the mask
//! survives: warm; cold made again

use super::descriptor::*;
use crate::engine::state;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::state::Kind;
use crate::sys;

pub fn signalfd(l: &mut Local, a: [usize; 6]) -> isize {
    let flags = if l.frame.nr == nr::SIGNALFD4 { a[3] } else { 0 };
    let Some(mask) = user::read::<u64>(a[1]) else {
        return -EFAULT;
    };
    if a[0] as i32 == -1 && !has_numbers(1) {
        return -EMFILE;
    }
    let r = sys!(SIGNALFD4, a[0], a[1], a[2], flags);
    if failed(r) {
        return r;
    }
    let file = if a[0] as i32 >= 0 {
        match file_of(a[0] as i32) {
            Some(file) => file,
            None => return -EBADF,
        }
    } else {
        let Some(file) = new_file(Kind::SignalFd) else {
            return -EMFILE;
        };
        open_file(file).flags = (flags & O_NONBLOCK) as u32 | 2;
        enter(r as i32, file, flags & O_CLOEXEC != 0);
        file
    };
    open_file(file).words[0] = mask;
    r
}

/// All signals that some signalfd reads.
pub fn masks() -> u64 {
    let mut all = 0;
    for fd in 0..state().root.fd_high as i32 {
        if let Some(file) = known_file(fd)
            && open_file(file).kind == Kind::SignalFd
        {
            all |= open_file(file).words[0];
        }
    }
    all
}

/// At cold recovery.
pub fn remake(file: u32) -> isize {
    let f = open_file(file);
    sys!(
        SIGNALFD4,
        -1isize,
        f.words.as_ptr(),
        8,
        f.flags as usize & O_NONBLOCK
    )
}
