//! The few fields of `struct stat` that the runtime looks at.

use crate::machine::sys::failed;
use crate::sys;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    _pad: u32,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u64,
    pub blocks: u64,
    pub atime: [u64; 2],
    pub mtime: [u64; 2],
    pub ctime: [u64; 2],
    _unused: [u64; 3],
}

pub const S_IFMT: u32 = 0o170000;
pub const S_IFREG: u32 = 0o100000;
pub const S_IFDIR: u32 = 0o040000;
pub const S_IFCHR: u32 = 0o020000;
pub const S_IFIFO: u32 = 0o010000;
pub const S_IFSOCK: u32 = 0o140000;
pub const S_IFLNK: u32 = 0o120000;

impl Stat {
    const ZERO: Stat = Stat {
        dev: 0,
        ino: 0,
        nlink: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        _pad: 0,
        rdev: 0,
        size: 0,
        blksize: 0,
        blocks: 0,
        atime: [0; 2],
        mtime: [0; 2],
        ctime: [0; 2],
        _unused: [0; 3],
    };

    pub fn of_fd(fd: i32) -> Result<Stat, isize> {
        let mut s = Stat::ZERO;
        let r = sys!(FSTAT, fd, &raw mut s);
        if failed(r) { Err(r) } else { Ok(s) }
    }

    /// Of a path that ends in NUL, not following a final link.
    pub fn of_path(path: *const u8) -> Result<Stat, isize> {
        let mut s = Stat::ZERO;
        let r = sys!(LSTAT, path, &raw mut s);
        if failed(r) { Err(r) } else { Ok(s) }
    }

    pub fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }
}
