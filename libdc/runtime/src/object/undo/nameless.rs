//! What is open or mapped, and the name that leads to it.
//!
//! A recovery finds a file by its path. A rename moves that along; when the last name
//! of a file that is open or mapped goes, the second name that it got for the rollback
//! ([`super::kept`]) stays, and is where a recovery looks, until the last descriptor
//! and mapping of it are gone.
//!
//! | `OpenFile::unlinked` | where the file is found |
//! |---|---|
//! | 0 | at its path |
//! | 1 ([`IN_RUN`]) | in the run's directory, by its inode |
//! | 2 ([`BY_IMAGE`]) | at its path, which is a name of ours beside an image ([`beside`]) |
#![allow(unsafe_code)]

use super::*;
use crate::state::{Kind, MAX_FILES, OpenFile};

pub const IN_RUN: u32 = 1;
pub const BY_IMAGE: u32 = 2;

/// Open files that have descriptors or mappings and are regular ones.
fn in_use() -> impl Iterator<Item = &'static mut OpenFile> {
    (0..MAX_FILES)
        .filter(|&i| state().file_refs[i] != 0)
        .map(|i| &mut state().files[i])
        .filter(|f| f.kind == Kind::Regular)
}

/// A name of a file went, by unlink or by a rename over it.
pub fn name_went() {
    let (dev, ino) = core::mem::take(&mut engine().undo.victim);
    if ino == 0 {
        return;
    }
    for f in in_use().filter(|f| (f.dev, f.ino) == (dev, ino) && f.unlinked == 0) {
        if leads_to(f) {
            continue;
        }
        let p = &engine().undo;
        f.unlinked = IN_RUN;
        for name in (0..PLACES).filter_map(|place| beside(ino, place)) {
            if p.beside[..p.beside_len].contains(&name) {
                f.unlinked = BY_IMAGE;
                set_path(f, text(&name));
            }
        }
    }
}

/// A file was made that never had a name (O_TMPFILE). Where the program does not allow
/// it one, a descriptor must last.
pub fn made_without(fd: i32, file: u32) {
    const AT_FDCWD: isize = -100;
    const AT_SYMLINK_FOLLOW: usize = 0x400;
    let f = open_file(file);
    f.unlinked = IN_RUN;
    // (O_TMPFILE itself, and O_DIRECTORY.)
    f.flags &= !0o20200000;
    engine().undo.open_names = true;
    let mut link = crate::fatal::Text::<40>::new();
    let _ = core::fmt::Write::write_fmt(&mut link, format_args!("/proc/self/fd/{fd}\0"));
    let link = link.as_bytes().as_ptr();
    let dir = engine().high_fd(high_fd::RUN_DIR);
    let name = kept_name(f.ino);
    if sys!(
        LINKAT,
        AT_FDCWD,
        link,
        dir,
        name.as_ptr(),
        AT_SYMLINK_FOLLOW
    ) != -EXDEV
    {
        return;
    }
    for name in (0..PLACES).filter_map(|place| beside(f.ino, place)) {
        let r = sys!(
            LINKAT,
            AT_FDCWD,
            link,
            AT_FDCWD,
            name.as_ptr(),
            AT_SYMLINK_FOLLOW
        );
        if !failed(r) {
            f.unlinked = BY_IMAGE;
            set_path(f, text(&name));
            return;
        }
    }
}

/// After a rename: what is open or mapped is found under the new name.
pub fn moved(from: &[u8], to: &[u8], to_z: &[u8]) {
    let Ok(st) = Stat::of_path(to_z.as_ptr()) else {
        return;
    };
    if st.kind() == S_IFDIR {
        // Whatever lies below it.
        for i in (0..MAX_FILES).filter(|&i| state().file_refs[i] != 0) {
            let f = &mut state().files[i];
            let path = &f.path[..f.path_len as usize];
            let below = path.starts_with(from) && matches!(path.get(from.len()), None | Some(b'/'));
            let rest = f.path_len as usize - from.len().min(f.path_len as usize);
            if below && f.unlinked == 0 && to.len() + rest < f.path.len() {
                let mut path = [0u8; 4096];
                path[..to.len()].copy_from_slice(to);
                path[to.len()..to.len() + rest]
                    .copy_from_slice(&f.path[from.len()..from.len() + rest]);
                set_path(f, &path[..to.len() + rest]);
            }
        }
        return;
    }
    for f in in_use().filter(|f| (f.dev, f.ino) == (st.dev, st.ino) && f.unlinked == 0) {
        if !leads_to(f) {
            set_path(f, to);
        }
    }
}

/// Whether a file is what its path says.
fn leads_to(f: &OpenFile) -> bool {
    let mut st = Stat::ZERO;
    !failed(sys!(STAT, f.path.as_ptr(), &raw mut st)) && (st.dev, st.ino) == (f.dev, f.ino)
}

/// A name of ours for a file that is on another file system than the run's directory:
/// in the directory of the image, or in that of images in memory (POSIX semaphores and
/// shared memory are files of /dev/shm). It tells the image, for the keeper removes with
/// the image what is left.
pub fn beside(ino: u64, place: usize) -> Option<[u8; 256]> {
    use crate::object::process::fd_path;
    let mut image = [0u8; 256];
    let n = fd_path(engine().high_fd(high_fd::RIO), &mut image);
    let image = &image[..n];
    let mut name = crate::fatal::Text::<255>::new();
    match place {
        0 => name.append(&image[..image.iter().rposition(|&b| b == b'/')?]),
        _ => {
            let user = sys!(GETEUID);
            let _ = core::fmt::Write::write_fmt(&mut name, format_args!("/dev/shm/dcrun-{user}"));
            if !is_private(name.as_bytes(), user as u32) {
                return None;
            }
        }
    }
    let tag = dc_image::header::checksum(image);
    let _ = core::fmt::Write::write_fmt(&mut name, format_args!("/kept-{tag:016x}-{ino:020}"));
    let mut text = [0u8; 256];
    text[..name.as_bytes().len()].copy_from_slice(name.as_bytes());
    (n < 200).then_some(text)
}

pub const PLACES: usize = 2;

/// A directory of this user's, in which nobody else can exchange anything.
fn is_private(path: &[u8], user: u32) -> bool {
    let mut z = [0u8; 64];
    z[..path.len()].copy_from_slice(path);
    sys!(MKDIR, z.as_ptr(), 0o700);
    Stat::of_path(z.as_ptr())
        .is_ok_and(|st| st.kind() == S_IFDIR && st.uid == user && st.mode & 0o777 == 0o700)
}

pub fn text(name: &[u8; 256]) -> &[u8] {
    &name[..name.iter().position(|&b| b == 0).unwrap_or(0)]
}

/// Whether some descriptor or mapping is of a file that is found by this name of ours.
pub fn is_needed(name: &[u8; 256]) -> bool {
    in_use().any(|f| f.unlinked == BY_IMAGE && f.path[..f.path_len as usize] == *text(name))
}

/// What an open file is now: by a descriptor of it, else by its name.
pub fn stat_of(file: u32) -> Option<Stat> {
    let f = open_file(file);
    if let Some(fd) = any_fd(file) {
        return Stat::of_fd(fd).ok();
    }
    let fd = open_named(f, O_CLOEXEC);
    if failed(fd) {
        return None;
    }
    let st = Stat::of_fd(fd as i32).ok();
    sys!(CLOSE, fd);
    st.filter(|st| (st.dev, st.ino) == (f.dev, f.ino))
}

/// Opens a file where its record says that it is found.
pub fn open_named(f: &OpenFile, flags: usize) -> isize {
    match f.unlinked {
        IN_RUN => {
            let dir = engine().high_fd(high_fd::RUN_DIR);
            sys!(OPENAT, dir, kept_name(f.ino).as_ptr(), flags | O_NOCTTY, 0)
        }
        _ => sys!(OPEN, f.path.as_ptr(), flags | O_NOCTTY, 0),
    }
}
