//! fsync(2) and its relatives: whoever makes a file durable shows it to those who look
//! after a crash. What of it was changed since the commit is committed before.

use super::descriptor::{file_of, open_file};
use super::undo;
use crate::engine::engine;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::errno::EBADF;
use crate::thread;

pub fn call(l: &mut Local, a: [usize; 6]) -> isize {
    call_as(l, l.frame.nr, a)
}

/// As the call of a number, which need not be the one that the program makes.
pub fn call_as(l: &mut Local, n: usize, a: [usize; 6]) -> isize {
    const MS_SYNC: usize = 4;
    {
        let _guard = engine().lock.acquire(l);
        match n {
            nr::FSYNC | nr::FDATASYNC | nr::SYNC_FILE_RANGE => {
                let Some(file) = file_of(a[0] as i32) else {
                    return -EBADF;
                };
                let f = open_file(file);
                if !undo::is_private(f) {
                    undo::publish(l, f.dev, f.ino);
                }
            }
            nr::MSYNC if a[2] & MS_SYNC == 0 => {}
            _ => undo::publish_all(l),
        }
    }
    thread::wait_or_signal(l, n, a)
}
