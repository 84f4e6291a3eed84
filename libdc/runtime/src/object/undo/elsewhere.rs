//! Files whose last name one process of the run has taken while another has them open.
//!
//! They keep their second name ([`super::kept`]) for a cold recovery of that other process.
//! It goes when nobody has the file open any more, and a commit has been published since:
//! before, the state of the last commit may have it open.

use super::kept::{path_in, remove_name};
use super::place::{AT_FDCWD, O_NOFOLLOW};
use super::vault::{PATH_ROOM, Vault, name_in};
use super::*;
use core::sync::atomic::Ordering::Relaxed;
use dc_image::run::fifo_of;

const O_NONBLOCK: usize = 0o4000;

/// Second names that stay for others. What finds no room here stays until the image goes.
#[repr(C)]
pub struct Elsewhere {
    len: usize,
    /// The one that is looked at next; and if nobody had it open in this interval, when its
    /// file was last changed.
    next: usize,
    free: Option<Changed>,
    paths: [[u8; kept::CLOSED_ROOM]; 32],
}

/// The time of the last change of a file or its names. Several processes may have the same name
/// in their lists. Once one of them has removed it, the file's number is soon that of another
/// file, whose second name is the same: it is not what was looked at.
type Changed = [u64; 2];

impl Elsewhere {
    pub const NONE: Elsewhere = Elsewhere {
        paths: [[0; kept::CLOSED_ROOM]; 32],
        len: 0,
        next: 0,
        free: None,
    };

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// In a child: they are its parent's.
    pub fn leave(&mut self) {
        (self.len, self.next, self.free) = (0, 0, None);
    }

    /// The file with this name in a vault stays.
    pub fn add(&mut self, vault: i32, name: &[u8; 64]) {
        let mut path = [0u8; PATH_ROOM];
        if let Some(n) = path_in(vault, name, &mut path) {
            self.add_path(&path[..n]);
        }
    }

    /// The same by its path.
    pub fn add_path(&mut self, path: &[u8]) {
        if path.len() < kept::CLOSED_ROOM && self.len < self.paths.len() {
            let room = &mut self.paths[self.len];
            room[..path.len()].copy_from_slice(path);
            room[path.len()] = 0;
            self.len += 1;
        }
    }

    /// After a commit: looks at one of them, so that a commit stays short. What nobody had
    /// open before the commit, and nobody has now, goes.
    pub fn remove_one(&mut self) {
        if self.len == 0 {
            return;
        }
        let path = &self.paths[self.next];
        let was_free = self.free.take();
        match look(path.as_ptr()) {
            Look::Gone => self.drop_next(),
            Look::Free(changed) if was_free == Some(changed) => {
                remove_name(path);
                self.drop_next();
            }
            Look::Free(changed) => self.free = Some(changed),
            Look::Open => self.next = (self.next + 1) % self.len,
        }
    }

    fn drop_next(&mut self) {
        self.len -= 1;
        self.paths[self.next] = self.paths[self.len];
        self.next = 0;
    }
}

enum Look {
    /// Somebody else has removed the name.
    Gone,
    Open,
    Free(Changed),
}

fn look(path: *const u8) -> Look {
    const AT_SYMLINK_NOFOLLOW: usize = 0x100;
    let before = place::stat_at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW);
    match before {
        Err(e) if e == -ENOENT => Look::Gone,
        Ok(st) if !is_open(AT_FDCWD as isize, path) => Look::Free(st.ctime),
        _ => Look::Open,
    }
}

/// Whether another process of the run may have given second names to files.
pub fn others_keep() -> bool {
    crate::run::is_tree() && engine().live().second_names.load(Relaxed) != 0
}

/// Whether a file whose name goes may be open in another process of the run.
pub fn is_needed(st: &Stat, vault: &Vault) -> bool {
    let own = || nameless::in_use().any(|f| (f.dev, f.ino) == (st.dev, st.ino));
    if !crate::run::has_company() || st.kind() != S_IFREG || st.nlink != 1 || own() {
        return false;
    }
    match vault.open() {
        Ok(dir) => is_open(dir as isize, name_in(vault.path(), st.ino).as_ptr()),
        Err(_) => true,
    }
}

/// Whether somebody has a file open that this process has not. The kernel grants a lease for
/// writing only if nobody else has (fcntl(2), F_SETLEASE); where it grants none for another
/// reason, descriptions that were inherited are known all the same ([`crate::run::shared`]).
fn is_open(dir: isize, name: *const u8) -> bool {
    const AT_SYMLINK_NOFOLLOW: usize = 0x100;
    if let Ok(st) = place::stat_at(dir as i32, name, AT_SYMLINK_NOFOLLOW)
        && st.kind() == S_IFIFO
    {
        // (To open it would be seen.)
        return crate::run::shared::has_file(fifo_of(st.dev, st.ino));
    }
    let flags = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    let fd = sys!(OPENAT, dir, name, flags, 0);
    if failed(fd) {
        return fd != -ENOENT;
    }
    lease(fd) == -EAGAIN
}

/// To ask for a lease.
pub const O_ASKS: usize = O_NONBLOCK | O_CLOEXEC;

/// Whether somebody has a file open that this process has not, or may have: by what its open
/// (with [`O_ASKS`]) has answered.
pub fn others_have(fd: isize) -> bool {
    failed(fd) || failed(lease(fd))
}

/// Asks for a lease, and closes the descriptor.
fn lease(fd: isize) -> isize {
    const F_SETLEASE: usize = 1024;
    const F_WRLCK: usize = 1;
    let r = sys!(FCNTL, fd, F_SETLEASE, F_WRLCK);
    sys!(CLOSE, fd);
    r
}

const EAGAIN: isize = 11;
