//! What may not be mapped, because nobody could find what is written there.
//!
//! Memory of a device, rings that the kernel fills, files of huge pages: a recovery would
//! bring them back with other contents, and not know it. They are refused when they are
//! mapped, with the error of a file that cannot be (ENODEV), and the user is told.

use super::*;
use crate::object::descriptor;
use crate::object::stat::Stat;
use crate::state::Kind;

/// /dev/zero: to map it is to ask for memory.
pub fn is_zeros(fd: i32) -> bool {
    descriptor::file_of(fd).is_some_and(|file| {
        let f = descriptor::open_file(file);
        f.kind == Kind::Device && f.path[..f.path_len as usize] == *b"/dev/zero"
    })
}

/// Whether a mapping of an open file is refused.
pub fn refuses(file: u32, fd: i32) -> bool {
    let f = descriptor::open_file(file);
    let what = match f.kind {
        Kind::MemFd => return false,
        Kind::Regular if !is_huge(file, fd) => return false,
        Kind::Regular => "a file of huge pages",
        // The kernel says what is wrong with these.
        Kind::Directory | Kind::Pipe | Kind::Tty => return false,
        Kind::Device => "the memory of a device",
        Kind::Socket => "the ring of a socket",
        _ => "memory that the kernel writes",
    };
    crate::say!("{what} cannot be mapped: a recovery could not bring back what is in it");
    true
}

/// Once for each open file: what a mapped one says of itself is remembered.
fn is_huge(file: u32, fd: i32) -> bool {
    let f = descriptor::open_file(file);
    f.words[3] == 0 && Stat::of_fd(fd).is_ok_and(|st| st.blksize >= huge::PAGE_LEN as u64)
}
