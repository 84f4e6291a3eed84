//! Changes of the file tree: names, modes, owners, sizes. Each is noted in the
//! journal before it is made, and then made by the kernel as asked.
#![allow(unsafe_code)]

use super::descriptor::*;
use super::stat::*;
use super::{memfd, process, undo};
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::failed;

const AT_FDCWD: usize = -100isize as usize;
const AT_REMOVEDIR: usize = 0x200;

pub fn change(l: &mut Local, a: [usize; 6]) -> isize {
    let n = l.frame.nr;
    let refused = match n {
        nr::FTRUNCATE => memfd::before_growth(a[0] as i32, Some(a[1] as u64), 0),
        nr::FALLOCATE => memfd::before_growth(a[0] as i32, Some(a[2] as u64), a[3] as u64),
        _ => 0,
    };
    if failed(refused) {
        return refused;
    }
    match n {
        nr::UNLINK => removed(AT_FDCWD, a[0], false),
        nr::RMDIR => removed(AT_FDCWD, a[0], true),
        nr::UNLINKAT => removed(a[0], a[1], a[2] & AT_REMOVEDIR != 0),
        nr::RENAME => renamed(AT_FDCWD, a[0], AT_FDCWD, a[1], 0),
        nr::RENAMEAT => renamed(a[0], a[1], a[2], a[3], 0),
        nr::RENAMEAT2 => renamed(a[0], a[1], a[2], a[3], a[4]),
        nr::MKDIR => created(AT_FDCWD, a[0], true),
        nr::MKDIRAT => created(a[0], a[1], true),
        nr::LINK => created(AT_FDCWD, a[1], false),
        nr::LINKAT => created(a[2], a[3], false),
        nr::SYMLINK => created(AT_FDCWD, a[1], false),
        nr::SYMLINKAT => created(a[1], a[2], false),
        nr::MKNOD => created(AT_FDCWD, a[0], false),
        nr::MKNODAT => created(a[0], a[1], false),
        nr::TRUNCATE => with_path(AT_FDCWD, a[0], |p, z| {
            undo::before_truncate_path(z, p, a[1] as u64)
        }),
        nr::FTRUNCATE => sized(a[0] as i32, a[1] as u64),
        nr::FALLOCATE => allocated(a[0] as i32, a[1], a[2] as u64),
        nr::CHMOD | nr::CHOWN | nr::LCHOWN | nr::UTIME | nr::UTIMES => meta(AT_FDCWD, a[0]),
        nr::FCHMODAT | nr::FCHMODAT2 | nr::FCHOWNAT | nr::UTIMENSAT | nr::FUTIMESAT
            if a[1] != 0 =>
        {
            meta(a[0], a[1])
        }
        nr::FCHMOD | nr::FCHOWN | nr::UTIMENSAT | nr::FUTIMESAT => meta_fd(a[0] as i32),
        nr::SETXATTR | nr::REMOVEXATTR => with_path(AT_FDCWD, a[0], |p, z| {
            undo::before_attribute(p, z, a[1], false)
        }),
        nr::LSETXATTR | nr::LREMOVEXATTR => with_path(AT_FDCWD, a[0], |p, z| {
            undo::before_attribute(p, z, a[1], true)
        }),
        nr::FSETXATTR | nr::FREMOVEXATTR => attribute_fd(a[0] as i32, a[1]),
        _ => unreachable!("the table sends nothing else here"),
    }
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(n, a) };
    match n {
        nr::FTRUNCATE if !failed(r) => memfd::resized(a[0] as i32),
        nr::FALLOCATE if !failed(r) => {
            memfd::allocated(a[0] as i32, a[1], a[2] as u64, a[3] as u64);
        }
        _ => {}
    }
    if !failed(r)
        && matches!(
            n,
            nr::UNLINK | nr::UNLINKAT | nr::RENAME | nr::RENAMEAT | nr::RENAMEAT2
        )
    {
        undo::nameless::name_went();
    }
    match n {
        nr::RENAME if !failed(r) => moved(AT_FDCWD, a[0], AT_FDCWD, a[1], 0),
        nr::RENAMEAT if !failed(r) => moved(a[0], a[1], a[2], a[3], 0),
        nr::RENAMEAT2 if !failed(r) => moved(a[0], a[1], a[2], a[3], a[4]),
        _ => {}
    }
    r
}

/// Calls `f(path, path with NUL)` with the absolute path.
fn with_path(dir: usize, at: usize, f: impl FnOnce(&[u8], &[u8])) {
    let mut path = [0u8; 4096];
    if let Ok(n) = process::absolute(dir as i32, at, &mut path) {
        f(&path[..n], &path);
    }
}

fn removed(dir: usize, at: usize, is_dir: bool) {
    with_path(dir, at, |p, z| match Stat::of_path(z.as_ptr()) {
        Ok(st) if is_dir && st.kind() == S_IFDIR => undo::before_rmdir(p, st.mode),
        Ok(st) if !is_dir && st.kind() != S_IFDIR => undo::keep(p, z),
        _ => {}
    });
}

fn renamed(from_dir: usize, from_at: usize, to_dir: usize, to_at: usize, flags: usize) {
    const EXCHANGE: usize = 2;
    with_path(from_dir, from_at, |from, from_z| {
        if Stat::of_path(from_z.as_ptr()).is_err() {
            return;
        }
        with_path(to_dir, to_at, |to, to_z| {
            if flags & EXCHANGE == 0 {
                match Stat::of_path(to_z.as_ptr()) {
                    Ok(st) if st.kind() == S_IFDIR => undo::before_rmdir(to, st.mode),
                    Ok(_) => undo::keep(to, to_z),
                    Err(_) => {}
                }
            }
            undo::before_rename(from, to);
        });
    });
}

/// What was renamed is found under its new name.
fn moved(from_dir: usize, from_at: usize, to_dir: usize, to_at: usize, flags: usize) {
    const EXCHANGE: usize = 2;
    with_path(from_dir, from_at, |from, from_z| {
        with_path(to_dir, to_at, |to, to_z| {
            undo::nameless::moved(from, to, to_z);
            if flags & EXCHANGE != 0 {
                undo::nameless::moved(to, from, from_z);
            }
        });
    });
}

fn created(dir: usize, at: usize, is_dir: bool) {
    with_path(dir, at, |p, z| {
        if Stat::of_path(z.as_ptr()).is_err() {
            undo::before_create(p, is_dir);
        }
    });
}

fn sized(fd: i32, size: u64) {
    if let Some(file) = file_of(fd)
        && open_file(file).kind == crate::state::Kind::Regular
    {
        undo::before_truncate(fd, file, size);
    }
}

fn allocated(fd: i32, mode: usize, at: u64) {
    if let Some(file) = file_of(fd) {
        if mode & !1 == 0 {
            undo::before_change(fd, file, u64::MAX, 0);
        } else {
            // Punching and collapsing change bytes up to the end of the file.
            undo::before_change(fd, file, at, u64::MAX - at);
        }
    }
}

fn meta(dir: usize, at: usize) {
    with_path(dir, at, |p, z| {
        if let Ok(st) = Stat::of_path(z.as_ptr()) {
            undo::before_meta(p, &st);
        }
    });
}

fn attribute_fd(fd: i32, name_at: usize) {
    if let Some(file) = file_of(fd) {
        let f = open_file(file);
        let mut path = [0u8; 4096];
        let n = f.path_len as usize;
        path[..n].copy_from_slice(&f.path[..n]);
        undo::before_attribute(&path[..n], &path, name_at, false);
    }
}

fn meta_fd(fd: i32) {
    if let Some(file) = file_of(fd) {
        let f = open_file(file);
        if let Ok(st) = Stat::of_fd(fd) {
            undo::before_meta(&f.path[..f.path_len as usize], &st);
        }
    }
}
