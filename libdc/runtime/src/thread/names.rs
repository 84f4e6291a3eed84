//! Names of threads (PR_SET_NAME, /proc/PID/task/TID/comm), which any process may write.
#![allow(unsafe_code)]

use crate::engine::{engine, state};
use crate::fatal::Text;
use crate::machine::sys::failed;
use crate::object::input::count_read;
use crate::sys;
use core::fmt::Write;

/// Names of threads that were written by /proc. Before a commit, when all have stopped.
pub fn read() {
    for slot in 0..engine().thread_high {
        let thread = engine().threads[slot];
        if thread.is_null() {
            continue;
        }
        let mut path = Text::<48>::new();
        // SAFETY: blocks are never unmapped.
        let tid = unsafe { (*thread).tid };
        let _ = write!(path, "/proc/self/task/{tid}/comm\0");
        let fd = crate::proc::open(path.as_bytes(), 0o2000000);
        if failed(fd) {
            continue;
        }
        let mut name = [0u8; 16];
        let n = sys!(READ, fd, name.as_mut_ptr(), name.len());
        count_read(n);
        sys!(CLOSE, fd);
        if let Some(end) = name.iter().position(|&b| b == b'\n') {
            name[end..].fill(0);
            state().threads[slot].name = name;
        }
    }
}
