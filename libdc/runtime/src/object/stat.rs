//! The few fields of `struct stat` that the runtime looks at.
#![allow(unsafe_code)]

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
pub const S_IFBLK: u32 = 0o060000;
pub const S_IFIFO: u32 = 0o010000;
pub const S_IFSOCK: u32 = 0o140000;

impl Stat {
    pub const ZERO: Stat = Stat {
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

    pub fn of_path(path: &core::ffi::CStr) -> Result<Stat, isize> {
        let mut s = Stat::ZERO;
        let r = sys!(STAT, path.as_ptr(), &raw mut s);
        if failed(r) { Err(r) } else { Ok(s) }
    }

    pub fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }
}

/// stat and its relatives: the names that we keep do not count.
pub fn call(l: &mut crate::machine::frame::Local, mut a: [usize; 6]) -> isize {
    use super::about::Path;
    use super::undo::place::AT_FDCWD;
    use crate::machine::{nr, user};
    const AT_SYMLINK_NOFOLLOW: usize = 0x100;
    let path;
    let (i, flags) = match l.frame.nr {
        nr::STAT => (0, 0),
        nr::LSTAT => (0, AT_SYMLINK_NOFOLLOW),
        nr::NEWFSTATAT => (1, a[3]),
        nr::STATX => (1, a[2]),
        _ => (usize::MAX, 0),
    };
    if i < 2 {
        let dir = if i == 0 { AT_FDCWD } else { a[0] as i32 };
        path = match flags & AT_SYMLINK_NOFOLLOW {
            0 => Path::followed(dir, a[i]),
            _ => Path::not_followed(dir, a[i]),
        };
        a[i] = path.address();
    }
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(l.frame.nr, a) };
    if failed(r) || !super::undo::any_second_names() {
        return r;
    }
    let at = match l.frame.nr {
        nr::STAT | nr::LSTAT | nr::FSTAT => a[1],
        nr::NEWFSTATAT => a[2],
        _ => return statx(a[4], r),
    };
    if let Some(mut st) = user::read::<Stat>(at) {
        let ours = super::undo::second_names(st.dev, st.ino);
        if ours > 0 {
            st.nlink = st.nlink.saturating_sub(ours);
            user::write(at, &st);
        }
    }
    r
}

/// Mode, device and inode in a `struct statx` of the program.
pub fn of_statx(at: usize) -> Option<(u32, u64, u64)> {
    use crate::machine::user;
    let mode = user::read::<u16>(at + 28)?;
    let ino = user::read::<u64>(at + 32)?;
    let dev = user::read::<[u32; 2]>(at + 136)?;
    Some((mode.into(), device(dev), ino))
}

/// The kernel's encoding of a device number for user space.
pub fn device([major, minor]: [u32; 2]) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (major & 0xfff) << 8 | (minor & 0xff) | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// `struct statx`: nlink at 16, ino at 32, device major and minor at 136.
fn statx(at: usize, r: isize) -> isize {
    use crate::machine::user;
    let (Some(ino), Some(dev)) = (user::read::<u64>(at + 32), user::read::<[u32; 2]>(at + 136))
    else {
        return r;
    };
    let ours = super::undo::second_names(device(dev), ino) as u32;
    if ours > 0
        && let Some(n) = user::read::<u32>(at + 16)
    {
        user::write(at + 16, &n.saturating_sub(ours));
    }
    r
}
