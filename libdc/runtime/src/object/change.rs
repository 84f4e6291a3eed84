//! The calls that change mode, owner, times and extended attributes: made on an O_PATH
//! descriptor of what the path led to when it was noted.
#![allow(unsafe_code)]

use super::descriptor::file_of;
use super::tree::{object, raw};
use super::undo;
use super::undo::place::{Named, open_path};
use crate::machine::sys::errno::*;
use crate::machine::{nr, user};
use crate::sys;
use dc_image::boot::high_fd::OBJECT;

const AT_FDCWD: usize = -100isize as usize;
const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const AT_EMPTY_PATH: usize = 0x1000;

pub fn change(n: usize, a: [usize; 6]) -> isize {
    let empty = c"".as_ptr();
    let owner =
        |fd: i32, uid: usize, gid: usize| sys!(FCHOWNAT, fd, empty, uid, gid, AT_EMPTY_PATH);
    let mode = |fd: i32, mode: usize| sys!(FCHMODAT2, fd, empty, mode, AT_EMPTY_PATH);
    match n {
        nr::CHMOD => of_path(AT_FDCWD, a[0], 0, |fd| mode(fd, a[1])),
        nr::FCHMODAT => of_path(a[0], a[1], 0, |fd| mode(fd, a[2])),
        nr::FCHMODAT2 if !plain(a[3]) => raw(n, a),
        nr::FCHMODAT2 => of_path(a[0], a[1], a[3], |fd| mode(fd, a[2])),
        nr::CHOWN => of_path(AT_FDCWD, a[0], 0, |fd| owner(fd, a[1], a[2])),
        nr::LCHOWN => of_path(AT_FDCWD, a[0], AT_SYMLINK_NOFOLLOW, |fd| {
            owner(fd, a[1], a[2])
        }),
        nr::FCHOWNAT if !plain(a[4]) => raw(n, a),
        nr::FCHOWNAT => of_path(a[0], a[1], a[4], |fd| owner(fd, a[2], a[3])),
        nr::UTIMENSAT if a[1] == 0 => of_descriptor(n, a),
        nr::UTIMENSAT if !plain(a[3]) => raw(n, a),
        nr::UTIMENSAT => of_path(a[0], a[1], a[3], |fd| {
            sys!(UTIMENSAT, fd, empty, a[2], AT_EMPTY_PATH)
        }),
        nr::FUTIMESAT if a[1] == 0 => of_descriptor(n, a),
        nr::UTIME | nr::UTIMES | nr::FUTIMESAT => older(n, a),
        nr::FCHMOD | nr::FCHOWN => of_descriptor(n, a),
        nr::SETXATTR | nr::LSETXATTR | nr::REMOVEXATTR | nr::LREMOVEXATTR => {
            let follow = matches!(n, nr::SETXATTR | nr::REMOVEXATTR);
            let fd = match object(AT_FDCWD, a[0], follow) {
                Ok(fd) => fd,
                Err(e) => return e,
            };
            attribute(fd, a[1], || {
                let sets = matches!(n, nr::SETXATTR | nr::LSETXATTR);
                Named::of(fd).call(
                    |path| match sets {
                        true => sys!(SETXATTR, path, a[1], a[2], a[3], a[4]),
                        false => sys!(REMOVEXATTR, path, a[1]),
                    },
                    |fd| match sets {
                        true => sys!(FSETXATTR, fd, a[1], a[2], a[3], a[4]),
                        false => sys!(FREMOVEXATTR, fd, a[1]),
                    },
                )
            })
        }
        nr::FSETXATTR | nr::FREMOVEXATTR => {
            let fd = a[0] as i32;
            if file_of(fd).is_none() {
                return -EBADF;
            }
            attribute(fd, a[1], || raw(n, a))
        }
        _ => unreachable!("the table sends nothing else here"),
    }
}

/// Whether flags are such that the call can be made here; what else there is fails.
fn plain(flags: usize) -> bool {
    flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) == 0
}

fn of_path(dir: usize, at: usize, flags: usize, deed: impl Fn(i32) -> isize) -> isize {
    if flags & AT_EMPTY_PATH != 0 && user::read::<u8>(at) == Some(0) {
        if dir != AT_FDCWD {
            return noted(dir as i32, deed);
        }
        return match open_path(dir as i32, c".".as_ptr().cast(), 0, OBJECT) {
            Ok(fd) => noted(fd, deed),
            Err(e) => e,
        };
    }
    match object(dir, at, flags & AT_SYMLINK_NOFOLLOW == 0) {
        Ok(fd) => noted(fd, deed),
        Err(e) => e,
    }
}

fn of_descriptor(n: usize, a: [usize; 6]) -> isize {
    let fd = a[0] as i32;
    if file_of(fd).is_none() {
        return raw(n, a);
    }
    noted(fd, |_| raw(n, a))
}

fn noted(fd: i32, deed: impl Fn(i32) -> isize) -> isize {
    let record = undo::before_meta(fd);
    let r = deed(fd);
    undo::left_meta(record, fd, r);
    r
}

fn attribute(fd: i32, name: usize, deed: impl Fn() -> isize) -> isize {
    // An access control list shows in the mode, too.
    noted(fd, |fd| {
        let record = undo::before_attribute(fd, name);
        let r = deed();
        undo::left_attribute(record, fd, r);
        r
    })
}

/// utime(2), utimes(2), futimesat(2), which have their times in seconds or us.
fn older(n: usize, a: [usize; 6]) -> isize {
    let (dir, at, times) = match n {
        nr::FUTIMESAT => (a[0], a[1], a[2]),
        _ => (AT_FDCWD, a[0], a[1]),
    };
    let fd = match object(dir, at, true) {
        Ok(fd) => fd,
        Err(e) => return e,
    };
    let mut ns = [0u64; 4];
    if times != 0 && n == nr::UTIME {
        let Some([access, change]) = user::read::<[u64; 2]>(times) else {
            return -EFAULT;
        };
        ns = [access, 0, change, 0];
    } else if times != 0 {
        let Some(us) = user::read::<[u64; 4]>(times) else {
            return -EFAULT;
        };
        if us[1] >= 1_000_000 || us[3] >= 1_000_000 {
            return -EINVAL;
        }
        ns = [us[0], us[1] * 1000, us[2], us[3] * 1000];
    }
    let given = if times == 0 {
        core::ptr::null()
    } else {
        &raw const ns
    };
    noted(fd, |fd| {
        sys!(UTIMENSAT, fd, c"".as_ptr(), given, AT_EMPTY_PATH)
    })
}
