//! Where a name stands: a directory, told by its device and inode, and a name in it.
//!
//! A path can be led elsewhere by whoever may rename what it goes through. So a call
//! that changes names resolves its path once, to a descriptor of the directory, and is
//! then made relative to that; its record holds the directory's identity. On the way
//! back the path is only the way to look: what is found there must be that directory.
//!
//! The descriptors are O_PATH: to close one gives no lock away (fcntl(2), POSIX locks
//! go with the first close of any other descriptor of their file).

use super::*;

const AT_EMPTY_PATH: usize = 0x1000;
const AT_SYMLINK_NOFOLLOW: usize = 0x100;
pub const O_PATH: usize = 0o10000000;
pub const O_DIRECTORY: usize = 0o200000;
pub const O_NOFOLLOW: usize = 0o400000;
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;
/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;

/// Why a path has no place.
pub enum Unplaced {
    /// It ends in `.` or `..`: no call changes such a name, and the kernel says why.
    NoName,
    Error(isize),
}

pub struct Place {
    /// O_PATH descriptor of the directory.
    pub dir: i32,
    pub dev: u64,
    pub ino: u64,
    /// The mount that the directory was reached through.
    pub mount: u64,
    /// The directory's own path, a slash, the name, NUL.
    path: [u8; PATH_MAX],
    len: usize,
    /// The name as the call has it: with a slash behind it if there was one.
    given: [u8; NAME_MAX + 2],
}

impl Drop for Place {
    fn drop(&mut self) {
        sys!(CLOSE, self.dir);
    }
}

/// What the kernel says of an open file or directory.
pub struct Identity {
    pub dev: u64,
    pub ino: u64,
    pub mount: u64,
}

/// By statx(2), which alone tells the mount.
pub fn identity(fd: i32) -> Result<Identity, isize> {
    const BASIC_AND_MOUNT: usize = 0x7ff | 0x1000;
    let mut b = [0u64; 32];
    let r = sys!(
        STATX,
        fd,
        c"".as_ptr(),
        AT_EMPTY_PATH,
        BASIC_AND_MOUNT,
        b.as_mut_ptr()
    );
    if failed(r) {
        return Err(r);
    }
    Ok(Identity {
        ino: b[4],
        dev: device([b[17] as u32, (b[17] >> 32) as u32]),
        mount: b[18],
    })
}

impl Place {
    /// Of a path of the program, relative to one of its descriptors. `slot` is the
    /// place above `fd_base` that holds the directory.
    pub fn of(slot: i32, dir: usize, at: usize) -> Result<Place, Unplaced> {
        let mut text = [0u8; PATH_MAX];
        let n = user::read_cstr(at, &mut text).map_err(Unplaced::Error)?;
        Place::of_text(slot, dir as i32, &mut text, n)
    }

    /// The same of a path of `n` bytes, which ends in NUL.
    fn of_text(
        slot: i32,
        dir: i32,
        text: &mut [u8; PATH_MAX],
        n: usize,
    ) -> Result<Place, Unplaced> {
        if n == 0 {
            return Err(Unplaced::Error(-ENOENT));
        }
        let mut end = n;
        while end > 0 && text[end - 1] == b'/' {
            end -= 1;
        }
        let begin = text[..end]
            .iter()
            .rposition(|&b| b == b'/')
            .map_or(0, |i| i + 1);
        let name = &text[begin..end];
        if name.is_empty() || name == b"." || name == b".." {
            return Err(Unplaced::NoName);
        }
        if name.len() > NAME_MAX {
            return Err(Unplaced::Error(-ENAMETOOLONG));
        }
        let mut given = [0u8; NAME_MAX + 2];
        given[..name.len()].copy_from_slice(name);
        if end < n {
            given[name.len()] = b'/';
        }
        // The path up to the name, or the directory itself.
        if begin == 0 {
            text[..2].copy_from_slice(b".\0");
        } else if begin == 1 {
            text[..2].copy_from_slice(b"/\0");
        } else {
            text[begin - 1] = 0;
        }
        let opened = open_path(dir, text.as_ptr(), O_DIRECTORY, slot);
        Place::in_directory(opened.map_err(Unplaced::Error)?, given)
    }

    fn in_directory(fd: i32, given: [u8; NAME_MAX + 2]) -> Result<Place, Unplaced> {
        let mut place = Place {
            dir: fd,
            dev: 0,
            ino: 0,
            mount: 0,
            path: [0; PATH_MAX],
            len: 0,
            given,
        };
        let id = identity(fd).map_err(Unplaced::Error)?;
        (place.dev, place.ino, place.mount) = (id.dev, id.ino, id.mount);
        let mut n = super::super::process::fd_path(fd, &mut place.path);
        let given_len = given.iter().position(|&b| b == 0).unwrap_or(0);
        let name_len = given_len - given[..given_len].ends_with(b"/") as usize;
        if n == 0 || place.path[0] != b'/' || n + name_len + 2 > PATH_MAX {
            return Err(Unplaced::Error(-ENAMETOOLONG));
        }
        if n > 1 {
            place.path[n] = b'/';
            n += 1;
        }
        place.path[n..n + name_len].copy_from_slice(&given[..name_len]);
        place.len = n + name_len;
        place.path[place.len] = 0;
        Ok(place)
    }

    /// For a file that open(2) is to make: where the links lead that stand in its place.
    pub fn followed(mut self, slot: i32) -> Result<Place, Unplaced> {
        const S_IFLNK: u32 = 0o120000;
        for _ in 0..LINKS_MAX {
            if !self.stat().is_ok_and(|st| st.kind() == S_IFLNK) {
                return Ok(self);
            }
            let mut text = [0u8; PATH_MAX];
            let n = sys!(
                READLINKAT,
                self.dir,
                self.name(),
                text.as_mut_ptr(),
                PATH_MAX - 1
            );
            if failed(n) {
                return Err(Unplaced::Error(n));
            }
            // The old directory is what a relative link begins at.
            let from = sys!(FCNTL, self.dir, F_DUPFD_CLOEXEC, engine().high_fd(0));
            if failed(from) {
                return Err(Unplaced::Error(from));
            }
            drop(self);
            let next = Place::of_text(slot, from as i32, &mut text, n as usize);
            sys!(CLOSE, from);
            self = next?;
        }
        const ELOOP: isize = 40;
        Err(Unplaced::Error(-ELOOP))
    }

    /// At recovery: the directory of a record, if it still stands where it stood.
    pub fn found(slot: i32, dev: u64, ino: u64, path: &[u8]) -> Result<Place, isize> {
        let begin = path.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        let mut dir = [0u8; PATH_MAX];
        let n = begin.saturating_sub(1).clamp(1, PATH_MAX - 1);
        dir[..n].copy_from_slice(&path[..n]);
        let fd = open_path(AT_FDCWD, dir.as_ptr(), O_DIRECTORY, slot);
        let is_it = |&fd: &i32| identity(fd).is_ok_and(|id| (id.dev, id.ino) == (dev, ino));
        let fd = match fd.as_ref().ok().filter(|fd| is_it(fd)) {
            Some(&fd) => fd,
            None => match beside::open(dev, ino, &dir, slot) {
                Some(fd) => fd,
                None => fd?,
            },
        };
        let mut given = [0u8; NAME_MAX + 2];
        let name = &path[begin..path.len().min(begin + NAME_MAX)];
        given[..name.len()].copy_from_slice(name);
        let place = match Place::in_directory(fd, given) {
            Ok(place) => place,
            Err(Unplaced::Error(e)) => return Err(e),
            Err(Unplaced::NoName) => return Err(-ENOENT),
        };
        if (place.dev, place.ino) == (dev, ino) {
            Ok(place)
        } else {
            Err(-ENOENT)
        }
    }

    /// The whole path, without its NUL.
    pub fn path(&self) -> &[u8] {
        &self.path[..self.len]
    }

    /// The name, ended by NUL.
    pub fn name(&self) -> *const u8 {
        let begin = self.path[..self.len]
            .iter()
            .rposition(|&b| b == b'/')
            .map_or(0, |i| i + 1);
        self.path[begin..].as_ptr()
    }

    /// The name as the call has it, ended by NUL.
    pub fn given(&self) -> *const u8 {
        self.given.as_ptr()
    }

    /// What stands there, not followed.
    pub fn stat(&self) -> Result<Stat, isize> {
        stat_at(self.dir, self.name(), AT_SYMLINK_NOFOLLOW)
    }
}

pub const AT_FDCWD: i32 = -100;
pub const F_DUPFD_CLOEXEC: usize = 1030;

pub fn stat_at(dir: i32, name: *const u8, flags: usize) -> Result<Stat, isize> {
    let mut st = Stat::ZERO;
    let r = sys!(NEWFSTATAT, dir, name, &raw mut st, flags);
    if failed(r) { Err(r) } else { Ok(st) }
}

/// Opens a path without any right on what it names, into a slot of ours.
pub fn open_path(dir: i32, path: *const u8, flags: usize, slot: i32) -> Result<i32, isize> {
    let fd = sys!(OPENAT, dir, path, O_PATH | O_CLOEXEC | flags);
    if failed(fd) {
        return Err(fd);
    }
    Ok(crate::reserved::move_high(fd, slot))
}

/// `/proc/self/fd/N`, by which what is open can be named.
pub struct Named([u8; 32]);

impl Named {
    pub fn of(fd: i32) -> Named {
        let mut text = crate::fatal::Text::<32>::new();
        let _ = core::fmt::Write::write_fmt(&mut text, format_args!("/proc/self/fd/{fd}\0"));
        let mut name = [0u8; 32];
        name[..text.as_bytes().len()].copy_from_slice(text.as_bytes());
        Named(name)
    }
    pub fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }
    /// Makes a call that takes a path; where there is no /proc, by a descriptor of its own.
    pub fn call(
        &self,
        by_path: impl Fn(*const u8) -> isize,
        by_descriptor: impl Fn(isize) -> isize,
    ) -> isize {
        let r = by_path(self.as_ptr());
        if r != -ENOENT {
            return r;
        }
        let fd = self.open(O_CLOEXEC | O_NONBLOCK);
        if failed(fd) {
            return r;
        }
        let r = by_descriptor(fd);
        sys!(CLOSE, fd);
        r
    }
    /// Opens it anew.
    pub fn open(&self, flags: usize) -> isize {
        crate::proc::open(&self.0, flags)
    }
}
