//! open_by_handle_at(2): a file by what name_to_handle_at(2) has said of it, and not by its name.

use super::descriptor::*;
use super::{attributes, process, regular};
use crate::engine::engine;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::sys;

pub fn open(l: &mut Local, a: [usize; 6]) -> isize {
    let [mount, handle, flags, ..] = a;
    let _guard = engine().lock.acquire(l);
    if !has_numbers(1) {
        return -EMFILE;
    }
    let r = sys!(OPEN_BY_HANDLE_AT, mount, handle, flags & !O_TRUNC);
    if failed(r) {
        return r;
    }
    let fd = r as i32;
    let mut path = [0u8; 4096];
    let n = process::fd_path(fd, &mut path);
    let r = adopt(fd, flags, &path[..n], false);
    let Some(file) = known_file(fd).filter(|_| !failed(r)) else {
        return r;
    };
    if flags & O_ACCMODE != 0 {
        attributes::file_opened(&path[..n]);
        if flags & O_TRUNC != 0
            && let Err(e) = regular::cut(l, fd, file)
        {
            return e;
        }
    }
    r
}
