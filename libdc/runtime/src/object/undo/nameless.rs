//! What is open or mapped, and the name that leads to it.
//!
//! A recovery finds a file by its path. A rename moves that along; when that name of a file
//! that is open or mapped goes, the second name that it got for the rollback
//! ([`super::kept`]) stays, and is its path (`OpenFile::unlinked` is set), until the last
//! descriptor and mapping of it are gone.
#![allow(unsafe_code)]

use super::kept::second_name;
use super::place::O_NOFOLLOW;
use super::vault::{PATH_ROOM, kept_name};
use super::*;
use crate::fatal::Text;
use crate::object::fifo;
use crate::state::{Kind, OpenFile};
use core::fmt::Write;

/// Open files that have descriptors or mappings and a name that must lead to them.
pub(super) fn in_use() -> impl Iterator<Item = &'static mut OpenFile> {
    (0..state().root.file_high as usize)
        .filter(|&i| state().file_refs[i] != 0)
        .map(|i| &mut state().files[i])
        .filter(|f| is_named(f))
}

/// Regular files and fifos: nobody but the file system has what another descriptor is to be
/// the same as.
pub fn is_named(f: &OpenFile) -> bool {
    f.kind == Kind::Regular || fifo::is_one(f)
}

/// A name of a file went, by unlink or by a rename over it.
pub fn name_went(st: &Stat) {
    let mut open = in_use()
        .filter(|f| (f.dev, f.ino) == (st.dev, st.ino) && f.unlinked == 0)
        .peekable();
    if open.peek().is_none() {
        return;
    }
    let mut path = [0u8; PATH_ROOM];
    let second = second_name(st.dev, st.ino, &mut path);
    for f in open {
        if leads_to(f) {
            continue;
        }
        // (Also if the file has other names: they are not known.)
        if let Some(n) = second {
            f.unlinked = 1;
            set_path(f, &path[..n]);
        } else if st.nlink == 1 && second_names(st.dev, st.ino) == 0 {
            // It could not be kept.
            f.unlinked = 1;
        }
    }
}

/// Whether the path of an open file is a name of it.
fn leads_to(f: &OpenFile) -> bool {
    place::stat_at(place::AT_FDCWD, f.path.as_ptr(), 0)
        .is_ok_and(|st| (st.dev, st.ino) == (f.dev, f.ino))
}

/// The path of a file that no name of the program's leads to, if it is a name of ours.
pub fn path_of_ours(f: &OpenFile) -> Option<&[u8]> {
    let path = &f.path[..f.path_len as usize];
    let ours = f.unlinked != 0
        && path
            .rsplit(|&b| b == b'/')
            .next()
            .is_some_and(|name| name.starts_with(b"kept-"));
    ours.then_some(path)
}

/// A file was made that never had a name (O_TMPFILE). Where the program does not allow
/// it one, a descriptor must last.
pub fn made_without(fd: i32, file: u32) {
    const AT_FDCWD: isize = -100;
    const AT_SYMLINK_FOLLOW: usize = 0x400;
    let f = open_file(file);
    f.unlinked = 1;
    // (O_TMPFILE itself, and O_DIRECTORY.)
    f.flags &= !0o20200000;
    engine().undo.open_names = true;
    let mut link = Text::<40>::new();
    let _ = write!(link, "/proc/self/fd/{fd}\0");
    let link = crate::proc::below(link.as_bytes());
    let dir = engine().high_fd(high_fd::RUN_DIR);
    let name = kept_name(f.ino);
    let r = sys!(
        LINKAT,
        crate::proc::folder(),
        link,
        dir,
        name.as_ptr(),
        AT_SYMLINK_FOLLOW
    );
    if !failed(r) {
        let mut path = [0u8; PATH_ROOM];
        let n = crate::object::process::fd_path(dir, &mut path);
        let name = &name[..25];
        if n > 0 && n + 26 < PATH_ROOM {
            path[n] = b'/';
            path[n + 1..n + 26].copy_from_slice(name);
            set_path(f, &path[..n + 26]);
        }
        return;
    }
    if r != -EXDEV {
        return;
    }
    for name in (0..PLACES).filter_map(|place| beside(f.ino, place)) {
        let r = sys!(
            LINKAT,
            crate::proc::folder(),
            link,
            AT_FDCWD,
            name.as_ptr(),
            AT_SYMLINK_FOLLOW
        );
        if !failed(r) {
            set_path(f, text(&name));
            return;
        }
    }
}

/// After a rename: what is only mapped is found under the new name. (What has descriptors
/// is seen to by them.)
pub fn moved(st: &Stat, from: &[u8], to: &[u8]) {
    let is_dir = st.kind() == S_IFDIR;
    for file in 1..=state().root.file_high {
        if state().file_refs[file as usize - 1] == 0 || any_fd(file).is_some() {
            continue;
        }
        let f = open_file(file);
        if !is_named(f) || f.unlinked != 0 {
            continue;
        }
        let len = f.path_len as usize;
        if (f.dev, f.ino) == (st.dev, st.ino) {
            set_path(f, to);
        } else if is_dir
            && f.path[..len].starts_with(from)
            && f.path.get(from.len()) == Some(&b'/')
            && to.len() + len - from.len() < f.path.len()
        {
            let mut path = [0u8; 4096];
            let rest = len - from.len();
            path[..to.len()].copy_from_slice(to);
            path[to.len()..to.len() + rest].copy_from_slice(&f.path[from.len()..len]);
            set_path(f, &path[..to.len() + rest]);
        }
    }
}

/// A directory of images, in which files of its file system may have names of ours: that of
/// the image, or that of images in memory.
pub fn directory(place: usize) -> Option<[u8; 256]> {
    let mut path = [0u8; 256];
    match place {
        0 => {
            let n = crate::object::process::fd_path(engine().high_fd(high_fd::RIO), &mut path);
            let end = path[..n].iter().rposition(|&b| b == b'/')?;
            path[end..].fill(0);
            (n < 200).then_some(path)
        }
        _ => {
            let user = sys!(GETEUID);
            let mut name = Text::<255>::new();
            let _ = write!(name, "/dev/shm/dcrun-{user}");
            path[..name.as_bytes().len()].copy_from_slice(name.as_bytes());
            is_private(name.as_bytes(), user as u32).then_some(path)
        }
    }
}

/// A name of ours there. It tells the image, for the keeper removes with the image what is
/// left.
pub fn name_beside(ino: u64) -> Text<63> {
    let mut image = [0u8; 256];
    let n = crate::object::process::fd_path(engine().high_fd(high_fd::RIO), &mut image);
    let tag = dc_image::header::checksum(&image[..n]);
    let mut name = Text::<63>::new();
    let _ = write!(name, "kept-{tag:016x}-{ino:020}");
    name
}

fn beside(ino: u64, place: usize) -> Option<[u8; 256]> {
    let mut path = directory(place)?;
    let n = text(&path).len();
    let name = name_beside(ino);
    let name = name.as_bytes();
    path[n] = b'/';
    path[n + 1..n + 1 + name.len()].copy_from_slice(name);
    Some(path)
}

pub const PLACES: usize = 2;

/// A directory of this user's, in which nobody else can exchange anything.
fn is_private(path: &[u8], user: u32) -> bool {
    let mut z = [0u8; 64];
    z[..path.len()].copy_from_slice(path);
    sys!(MKDIR, z.as_ptr(), 0o700);
    place::stat_at(place::AT_FDCWD, z.as_ptr(), 0)
        .is_ok_and(|st| st.kind() == S_IFDIR && st.uid == user && st.mode & 0o777 == 0o700)
}

/// Without what follows its end.
pub fn text(name: &[u8]) -> &[u8] {
    &name[..name.iter().position(|&b| b == 0).unwrap_or(name.len())]
}

/// Whether some descriptor or mapping is of a file that is found by this name of ours.
pub fn is_needed(name: &[u8]) -> bool {
    in_use().any(|f| f.unlinked != 0 && f.path[..f.path_len as usize] == *text(name))
}

/// Opens a file where its record says that it is found. If another process of the run has
/// taken its last name away, that is where the second name was left for those who have the
/// file open.
pub fn open_named(f: &mut OpenFile, flags: usize) -> isize {
    let flags = flags | O_NOCTTY;
    let is_it =
        |fd: isize| Stat::of_fd(fd as i32).is_ok_and(|st| (st.dev, st.ino) == (f.dev, f.ino));
    let r = sys!(OPEN, f.path.as_ptr(), flags, 0);
    // (A fifo that nobody reads is there.)
    if !is_named(f) || r == -ENXIO || !failed(r) && is_it(r) {
        return r;
    }
    let kept = open_kept(f.ino, &f.path[..f.path_len as usize], flags);
    if !failed(kept) && is_it(kept) {
        if !failed(r) {
            sys!(CLOSE, r);
        }
        return kept;
    }
    if !failed(kept) {
        sys!(CLOSE, kept);
    }
    if f.unlinked == 0
        && let Some(other) = open_renamed(f, flags)
    {
        if !failed(r) {
            sys!(CLOSE, r);
        }
        return other;
    }
    if f.unlinked != 0 && !failed(r) {
        // What stands under its old name is another file.
        sys!(CLOSE, r);
        return -ENOENT;
    }
    r
}

/// Opens a file that others have renamed since, as they do with a log that is full.
fn open_renamed(f: &mut OpenFile, flags: usize) -> Option<isize> {
    let mut path = [0u8; 4096];
    let n = beside::find(f.dev, f.ino, &f.path, &mut path)?;
    let fd = sys!(OPEN, path.as_ptr(), flags | O_NOFOLLOW, 0);
    if failed(fd) {
        return None;
    }
    let is_it = Stat::of_fd(fd as i32).is_ok_and(|st| (st.dev, st.ino) == (f.dev, f.ino));
    if !is_it {
        sys!(CLOSE, fd);
        return None;
    }
    crate::say!(
        "{} is called {} by now",
        core::str::from_utf8(text(&f.path)).unwrap_or("?"),
        core::str::from_utf8(&path[..n]).unwrap_or("?")
    );
    set_path(f, &path[..n]);
    Some(fd)
}

/// Opens the second name of a file, in whichever vault it is.
fn open_kept(ino: u64, path: &[u8], flags: usize) -> isize {
    let dir = engine().high_fd(high_fd::RUN_DIR);
    let mut fd = sys!(OPENAT, dir, kept_name(ino).as_ptr(), flags, 0);
    for name in (0..PLACES).filter_map(|place| beside(ino, place)) {
        if !failed(fd) {
            return fd;
        }
        fd = sys!(OPEN, name.as_ptr(), flags, 0);
    }
    if failed(fd) {
        fd = super::vault::open_above(path, ino, flags);
    }
    fd
}

/// Whether one of a file's names is ours, given by another process of the run to a file that
/// this one has open.
pub(super) fn has_kept_name(dev: u64, ino: u64) -> bool {
    in_use().any(|f| (f.dev, f.ino) == (dev, ino) && kept_path(f, &mut [0; PATH_ROOM]).is_some())
}

/// The last name of an open file went by another process of the run, which has left it a
/// second one: that is its path from now on.
pub(super) fn adopt(f: &mut OpenFile) -> bool {
    let mut path = [0u8; PATH_ROOM];
    let found = match f.unlinked {
        0 if crate::run::is_tree() => kept_path(f, &mut path),
        _ => None,
    };
    if let Some(n) = found {
        f.unlinked = 1;
        set_path(f, &path[..n]);
        engine().undo.open_names = true;
    }
    found.is_some()
}

fn kept_path(f: &OpenFile, path: &mut [u8; PATH_ROOM]) -> Option<usize> {
    use super::place::O_PATH;
    let flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
    let fd = open_kept(f.ino, &f.path[..f.path_len as usize], flags);
    if failed(fd) {
        return None;
    }
    let is_it = Stat::of_fd(fd as i32).is_ok_and(|st| (st.dev, st.ino) == (f.dev, f.ino));
    let n = crate::object::process::fd_path(fd as i32, path);
    sys!(CLOSE, fd);
    (is_it && n > 0).then_some(n)
}
