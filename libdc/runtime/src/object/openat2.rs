//! openat2(2): openat(2) with a say in how its path is resolved.
//!
//! A call that only opens is made with the program's restrictions. One that may make or
//! cut a file is undone by names, for which the kernel has no restrictions; so its path
//! is resolved first, and what is left of it then is one name in a directory that they
//! have led to.

use super::descriptor::*;
use super::regular;
use super::undo::place::O_NOFOLLOW;
use crate::engine::engine;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::sys;
use dc_image::boot::high_fd;
use dc_image::window::PAGE;

/// `struct open_how`.
#[derive(Clone, Copy)]
#[repr(C)]
struct How {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_BENEATH: u64 = 8;
const RESOLVE_IN_ROOT: u64 = 16;
const RESOLVE_CACHED: u64 = 32;
const RESOLVE_ANY: u64 = 63;
const O_PATH: usize = 0o10_000_000;
const O_DIRECTORY: usize = 0o200_000;

pub fn openat2(l: &mut Local, a: [usize; 6]) -> isize {
    let [dir, path_at, how_at, size, ..] = a;
    let how = match read_how(how_at, size) {
        Ok(how) => how,
        Err(e) => return -e,
    };
    let (flags, mode) = (how.flags as usize, how.mode as usize);
    let args = [dir, path_at, flags, mode, 0, 0];
    let guard = engine().lock.acquire(l);
    if how.resolve == 0 || flags & (O_CREAT | O_TRUNC) == 0 {
        return regular::open_with(l, guard, args, how.resolve);
    }
    let found = resolve(dir, path_at, O_PATH | flags & O_NOFOLLOW, how.resolve);
    match found {
        _ if !failed(found) => sys!(CLOSE, found),
        e if e == -ENOENT => 0,
        e => return e,
    };
    let mut path = [0u8; 4096];
    let len = match user::read_cstr(path_at, &mut path) {
        Ok(len) => len,
        Err(e) => return e,
    };
    let end = path[..len].iter().rposition(|&c| c != b'/').unwrap_or(0);
    let Some(slash) = path[..end].iter().rposition(|&c| c == b'/') else {
        return regular::open_with(l, guard, args, 0);
    };
    path[slash + 1] = 0;
    let parent = path.as_ptr() as usize;
    let parent = resolve(dir, parent, O_PATH | O_DIRECTORY, how.resolve);
    if failed(parent) {
        return parent;
    }
    // Away from the numbers of the program.
    let place = engine().boot.fd_base + high_fd::OBJECT;
    sys!(DUP3, parent, place, O_CLOEXEC);
    sys!(CLOSE, parent);
    let args = [place as usize, path_at + slash + 1, flags, mode, 0, 0];
    let r = regular::open_with(l, guard, args, 0);
    sys!(CLOSE, place);
    r
}

fn resolve(dir: usize, path_at: usize, flags: usize, resolve: u64) -> isize {
    let how = How {
        flags: (flags | O_CLOEXEC) as u64,
        mode: 0,
        resolve,
    };
    sys!(OPENAT2, dir, path_at, &raw const how, size_of::<How>())
}

/// What the kernel accepts, and in its order.
fn read_how(at: usize, size: usize) -> Result<How, isize> {
    const O_ANY: u64 = 0o37_777_703;
    const O_LARGEFILE: u64 = 0o100_000;
    if size < size_of::<How>() {
        return Err(EINVAL);
    }
    if size > PAGE {
        return Err(E2BIG);
    }
    let words = user::read::<[u64; 3]>(at).ok_or(EFAULT)?;
    // Of a newer program than we know: what it does not use is zero.
    for i in size_of::<How>()..size {
        match user::read::<u8>(at + i) {
            Some(0) => {}
            Some(_) => return Err(E2BIG),
            None => return Err(EFAULT),
        }
    }
    let [flags, mode, resolve] = words;
    let makes = flags & O_CREAT as u64 != 0 || flags as usize & O_TMPFILE == O_TMPFILE;
    let scoped = RESOLVE_BENEATH | RESOLVE_IN_ROOT;
    if flags & !(O_ANY | O_LARGEFILE) != 0
        || resolve & !RESOLVE_ANY != 0
        || resolve & scoped == scoped
        || mode != 0 && !makes
        || mode & !0o7777 != 0
    {
        return Err(EINVAL);
    }
    if resolve & RESOLVE_CACHED != 0 && (makes || flags & O_TRUNC as u64 != 0) {
        return Err(EAGAIN);
    }
    Ok(How {
        flags,
        mode,
        resolve,
    })
}

/// The open itself, of a call that makes and cuts nothing.
pub fn arguments(how: &[u64; 3], dir: usize, path_at: usize) -> [usize; 6] {
    [dir, path_at, how.as_ptr() as usize, size_of::<How>(), 0, 0]
}
