//! The root directory (chroot(2)).
//!
//! state:     its path below the root of `dcrun`, and which directory it is
//! intercept: chroot
//! restore:   before anything is opened by a path: paths of the state lead from there
//! survives:  warm and cold, if the directory is where it was; else the recovery stops and says so

use super::attributes;
use super::descriptor::O_CLOEXEC;
use super::identity;
use super::process::fd_path;
use super::stat::Stat;
use super::undo::place::{AT_FDCWD, O_DIRECTORY, O_PATH, open_path};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::failed;
use crate::{fatal, proc, sys, table};
use dc_image::FatalCode;
use dc_image::boot::high_fd;

/// Longer ones a recovery cannot make again.
pub const ROOM: usize = 1024;

pub fn chroot(l: &mut Local, a: [usize; 6]) -> isize {
    let mut path = [0u8; ROOM];
    let found = {
        let _guard = engine().lock.acquire(l);
        find(a[0], &mut path)
    };
    let r = table::around(l, a, None);
    if failed(r) {
        return r;
    }
    let _guard = engine().lock.acquire(l);
    let is_it = found.as_ref().is_some_and(|(st, _)| {
        Stat::of_path(c"/").is_ok_and(|now| (now.dev, now.ino) == (st.dev, st.ino))
    });
    match found.filter(|_| is_it) {
        Some((st, len)) if append(&path[..len]) => state().root.root_is = [st.dev, st.ino],
        _ => attributes::leaves_root(),
    }
    note_directory();
    identity::commit_soon(l);
    r
}

/// The directory that a call names, and its path from the present root.
fn find(at: usize, path: &mut [u8; ROOM]) -> Option<(Stat, usize)> {
    let fd = sys!(OPEN, at, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if failed(fd) {
        return None;
    }
    let st = Stat::of_fd(fd as i32);
    let len = fd_path(fd as i32, path);
    sys!(CLOSE, fd);
    let is_whole = (1..ROOM).contains(&len) && path[0] == b'/';
    st.ok().filter(|_| is_whole).map(|st| (st, len))
}

/// Below the root that the process has already. False if that is too long.
fn append(path: &[u8]) -> bool {
    let root = &mut state().root.root_directory;
    let len = root.iter().position(|&b| b == 0).unwrap_or(0);
    let path = if path == b"/" { b"" } else { path };
    let Some(room) = root.get_mut(len..len + path.len() + 1) else {
        return false;
    };
    room[..path.len()].copy_from_slice(path);
    room[path.len()] = 0;
    true
}

/// The working directory has another path from here.
fn note_directory() {
    let cwd = &mut state().root.cwd;
    let mut path = [0u8; 4096];
    let link = proc::below(b"/proc/self/cwd\0");
    let n = sys!(
        READLINKAT,
        proc::folder(),
        link,
        path.as_mut_ptr(),
        path.len() - 1
    );
    if !failed(n) {
        *cwd = path;
    }
}

/// At recovery: goes there again.
pub fn restore() {
    let root = &state().root;
    if root.root_is == [0; 2] {
        return;
    }
    let path = root.root_directory.as_ptr();
    let fd = match root.root_directory[0] {
        0 => open_path(AT_FDCWD, c"/".as_ptr().cast(), O_DIRECTORY, high_fd::OBJECT),
        _ => open_path(AT_FDCWD, path, O_DIRECTORY, high_fd::OBJECT),
    };
    let is_it = |fd: i32| Stat::of_fd(fd).is_ok_and(|st| [st.dev, st.ino] == root.root_is);
    let r = match fd {
        Ok(fd) if is_it(fd) => match sys!(FCHDIR, fd) {
            r if failed(r) => r,
            _ => sys!(CHROOT, c".".as_ptr()),
        },
        Ok(_) => -crate::machine::sys::errno::ENOENT,
        Err(e) => e,
    };
    if failed(r) {
        let len = root.root_directory.iter().position(|&b| b == 0);
        let shown = core::str::from_utf8(&root.root_directory[..len.unwrap_or(0)]);
        fatal::stop(
            FatalCode::CannotRestore,
            r,
            format_args!(
                "go back to the root directory {} (chroot): error {}; put it back, or resume as \
                 who may do so",
                shown.unwrap_or("?"),
                -r
            ),
        );
    }
}
