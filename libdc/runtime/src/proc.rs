//! Files of /proc, also for a process that sees it no more (chroot(2)): by a descriptor of it
//! that the keeper has opened.

use crate::engine::engine;
use crate::sys;
use dc_image::boot::high_fd;

const ROOT: &[u8] = b"/proc/";

/// The folder, for calls that take one.
pub fn folder() -> i32 {
    engine().high_fd(high_fd::PROC)
}

/// What is left of a path below it, which ends in NUL.
pub fn below(path: &[u8]) -> *const u8 {
    debug_assert!(path.starts_with(ROOT) && path.ends_with(b"\0"));
    path[ROOT.len().min(path.len())..].as_ptr()
}

/// Opens a file by its path, which ends in NUL.
pub fn open(path: &[u8], flags: usize) -> isize {
    sys!(OPENAT, folder(), below(path), flags)
}
