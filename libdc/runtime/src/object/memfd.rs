//! memfd: memory with a descriptor.
//!
//! survives: warm with its contents of the crash (changes since the commit
//! are not undone); cold empty, and said so.

use super::descriptor::*;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::state::Kind;
use crate::sys;

const MFD_CLOEXEC: usize = 1;

pub fn create(_l: &mut Local, a: [usize; 6]) -> isize {
    let r = sys!(MEMFD_CREATE, a[0], a[1]);
    if failed(r) {
        return r;
    }
    let Some(file) = new_file(Kind::MemFd) else {
        return -EMFILE;
    };
    open_file(file).flags = 2;
    enter(r as i32, file, a[1] & MFD_CLOEXEC != 0);
    r
}

/// At cold recovery.
pub fn remake(_file: u32) -> isize {
    crate::say!("memory behind a memfd is empty after a cold recovery");
    sys!(MEMFD_CREATE, c"dcrun".as_ptr(), 0)
}
