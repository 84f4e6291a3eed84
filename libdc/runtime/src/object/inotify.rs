//! inotify: watches live in the kernel only.
//!
//! survives: warm; cold an instance without watches, and the program is told
//! nothing: its watches are not kept yet.

use super::descriptor::*;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::state::Kind;
use crate::sys;

pub fn init(l: &mut Local, a: [usize; 6]) -> isize {
    let flags = if l.frame.nr == nr::INOTIFY_INIT1 {
        a[0]
    } else {
        0
    };
    if !has_numbers(1) {
        return -EMFILE;
    }
    let r = sys!(INOTIFY_INIT1, flags);
    if failed(r) {
        return r;
    }
    let Some(file) = new_file(Kind::Inotify) else {
        return -EMFILE;
    };
    open_file(file).flags = (flags & O_NONBLOCK) as u32;
    enter(r as i32, file, flags & O_CLOEXEC != 0);
    r
}

/// What was closed before is no event of the watch.
pub fn add_watch(l: &mut Local, a: [usize; 6]) -> isize {
    super::deferred_close::close_before_wait(l);
    sys!(INOTIFY_ADD_WATCH, a[0], a[1], a[2])
}

/// At cold recovery.
pub fn remake(file: u32) -> isize {
    crate::say!("file watches (inotify) are not made again");
    sys!(INOTIFY_INIT1, open_file(file).flags as usize & O_NONBLOCK)
}
