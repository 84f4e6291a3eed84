//! memfd: memory with a descriptor.
//!
//! survives: warm with its contents of the crash (changes since the commit
//! are not undone); cold empty, and said so.
//!
//! It is not to be executed through a shared mapping, as with the kernel's own
//! vm.memfd_noexec: a compiler that writes code through one mapping and runs it
//! through another (asmjit's, in Erlang) would have it in memory that is no
//! state. Told so, it compiles into private memory.

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

/// Whether a description is one.
pub fn is(file: u32) -> bool {
    open_file(file).kind == Kind::MemFd
}

/// At cold recovery.
pub fn remake(_file: u32) -> isize {
    crate::say!("memory behind a memfd is empty after a cold recovery");
    sys!(MEMFD_CREATE, c"dcrun".as_ptr(), 0)
}
