//! What the kernel makes up as it is read: files and directories of /proc and /sys; block devices
//! as well, for their contents are not the program's.
//!
//! state:     the path, with the numbers of processes and threads that the program knows; how
//!            far it was read
//! intercept: open (through `adopt`), read and write as input and output
//! restore:   what is in the folder of a process is opened again, warm too: the kernel binds it
//!            to the process, which died. Positions are set as the last thing of a recovery: the
//!            kernel makes what is left to be read when the position is set
//! survives:  warm and cold. The rest of a file that was read in part is what the kernel says
//!            now. A file about a process outside that has ended stops a cold recovery: it cannot
//!            be opened

use super::about;
use super::descriptor::{any_fd, each_file, open_file, set_path};
use super::regular::committed_offset;
use super::stat::*;
use super::undo::nameless::open_named;
use crate::machine::sys::failed;
use crate::recover::descriptors::install;
use crate::state::{Kind, OWN, OpenFile};
use crate::sys;

/// Whether an open file is of this kind.
pub fn is(f: &OpenFile) -> bool {
    f.kind == Kind::Other && matches!(f.mode & S_IFMT, S_IFREG | S_IFDIR | S_IFBLK)
}

/// Whether its position is the program's: not, where it was given the file to write into.
pub fn rewinds(f: &OpenFile) -> bool {
    const O_ACCMODE: u32 = 3;
    is(f) && (f.inherited == OWN || f.flags & O_ACCMODE == 0)
}

/// Whether it is in the folder of a process of the run.
pub fn is_of_run(f: &OpenFile) -> bool {
    is(f) && super::set_by_others::is_of_run(path(f))
}

fn path(f: &OpenFile) -> &[u8] {
    &f.path[..f.path_len as usize]
}

/// Enters the path that the kernel shows for what was opened, with the numbers of the program;
/// or that by which it was opened, if it shows none.
pub fn enter_path(f: &mut OpenFile, fd: i32, given: &[u8]) {
    let mut shown = [0u8; 512];
    let n = super::process::fd_path(fd, &mut shown);
    let shown = match shown[0] {
        b'/' => &shown[..n],
        _ => given,
    };
    match about::as_known(shown) {
        Some(path) => set_path(f, path.as_bytes()),
        None => set_path(f, shown),
    }
}

/// At recovery: by its path. (The threads are not there yet.)
pub fn reopen(f: &mut OpenFile, flags: usize) -> isize {
    if is_of_run(f) && about::names_thread(path(f)) {
        return sys!(OPEN, c"/dev/null".as_ptr(), flags, 0);
    }
    open(f, flags)
}

fn open(f: &mut OpenFile, flags: usize) -> isize {
    match about::kernels(path(f)) {
        Some(path) => sys!(OPEN, path.as_bytes().as_ptr(), flags, 0),
        None => open_named(f, flags),
    }
}

/// Warm: has what is about the process that it is now, made here or by one of those who share
/// it. Whose process is not there any more stays as it is, and says so when it is read.
pub fn renew(file: u32, shared: Option<isize>) {
    let f = open_file(file);
    let made = shared.unwrap_or_else(|| reopen(f, f.flags as usize));
    put(file, made);
}

/// When the threads are there: what is about one of them.
pub fn renew_of_threads() {
    for (_, file) in each_file() {
        let f = open_file(file);
        if is_of_run(f) && about::names_thread(path(f)) {
            put(file, open(f, f.flags as usize));
        }
    }
}

fn put(file: u32, made: isize) {
    if !failed(made)
        && let Some(fd) = any_fd(file)
    {
        install(file, made, fd);
    }
}

/// As the last thing of a recovery.
pub fn rewind_all() {
    for (fd, file) in each_file() {
        let f = open_file(file);
        if rewinds(f) {
            f.touched = 0;
            sys!(LSEEK, fd, committed_offset(f), 0);
        }
    }
}
