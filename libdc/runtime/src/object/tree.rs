//! Changes of the file tree: names, modes, owners, sizes. Each is noted in the
//! journal before it is made, and then made by the kernel: on the very directory and
//! file that were noted, whatever becomes of the path meanwhile.
#![allow(unsafe_code)]

use super::descriptor::*;
use super::lock::by_name;
use super::memfd;
use super::stat::*;
use super::undo;
use super::undo::kept::{Kept, is_empty, keep, keep_directory};
use super::undo::names;
use super::undo::place::{O_NOFOLLOW, Place, Unplaced, open_path, stat_at};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::state::Kind;
use crate::sys;
use dc_image::boot::fault;
use dc_image::boot::high_fd::{DIRECTORY, OBJECT, OTHER_DIRECTORY};

const AT_FDCWD: usize = -100isize as usize;
const AT_REMOVEDIR: usize = 0x200;
const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const AT_SYMLINK_FOLLOW: usize = 0x400;
const AT_EMPTY_PATH: usize = 0x1000;

pub fn change(l: &mut Local, a: [usize; 6]) -> isize {
    let n = l.frame.nr;
    let r = make(l, n, a);
    if !failed(r) {
        crate::commit::fault_point(fault::AFTER_CHANGE);
    }
    if matches!(n, nr::MKNOD | nr::MKNODAT) {
        super::fifo::opening::is_known();
    }
    r
}

fn make(l: &mut Local, n: usize, a: [usize; 6]) -> isize {
    match n {
        nr::UNLINK => removed(l, AT_FDCWD, a[0], 0),
        nr::RMDIR => removed(l, AT_FDCWD, a[0], AT_REMOVEDIR),
        nr::UNLINKAT => removed(l, a[0], a[1], a[2]),
        nr::RENAME => renamed(l, AT_FDCWD, a[0], AT_FDCWD, a[1], 0),
        nr::RENAMEAT => renamed(l, a[0], a[1], a[2], a[3], 0),
        nr::RENAMEAT2 => renamed(l, a[0], a[1], a[2], a[3], a[4]),
        nr::MKDIR => made(AT_FDCWD, a[0], true, |p| {
            sys!(MKDIRAT, p.dir, p.given(), a[1])
        }),
        nr::MKDIRAT => made(a[0], a[1], true, |p| sys!(MKDIRAT, p.dir, p.given(), a[2])),
        nr::SYMLINK => made(AT_FDCWD, a[1], false, |p| {
            sys!(SYMLINKAT, a[0], p.dir, p.given())
        }),
        nr::SYMLINKAT => made(a[1], a[2], false, |p| {
            sys!(SYMLINKAT, a[0], p.dir, p.given())
        }),
        nr::MKNOD => made(AT_FDCWD, a[0], false, |p| {
            sys!(MKNODAT, p.dir, p.given(), a[1], a[2])
        }),
        nr::MKNODAT => made(a[0], a[1], false, |p| {
            sys!(MKNODAT, p.dir, p.given(), a[2], a[3])
        }),
        nr::LINK => linked(l, [AT_FDCWD, a[0], AT_FDCWD, a[1], 0]),
        nr::LINKAT => linked(l, [a[0], a[1], a[2], a[3], a[4]]),
        nr::TRUNCATE => truncated(a[0], a[1] as u64),
        nr::FTRUNCATE | nr::FALLOCATE => resized(n, a),
        _ => super::change::change(n, a),
    }
}

/// The program's own call with its own arguments.
pub fn raw(n: usize, a: [usize; 6]) -> isize {
    // SAFETY: as it says.
    unsafe { crate::machine::sys::raw6(n, a) }
}

fn removed(l: &mut Local, dir: usize, at: usize, flags: usize) -> isize {
    let is_dir = flags & AT_REMOVEDIR != 0;
    let place = match Place::of(DIRECTORY, dir, at) {
        Ok(place) => place,
        // It fails, and the kernel knows why.
        Err(Unplaced::NoName) => return sys!(UNLINKAT, dir, at, flags),
        Err(Unplaced::Error(e)) => return e,
    };
    let as_asked = |place: &Place| sys!(UNLINKAT, place.dir, place.given(), flags);
    let st = match place.stat() {
        Ok(st) => st,
        Err(e) => return e,
    };
    if is_dir != (st.kind() == S_IFDIR) || flags & !AT_REMOVEDIR != 0 {
        return as_asked(&place);
    }
    let is_lock = by_name::before_removal(l, &st);
    let r = if is_dir {
        match remove_directory(&place, &st) {
            Some(r) => r,
            None => as_asked(&place),
        }
    } else {
        match keep(&place, &st, true) {
            Kept::Moved => 0,
            Kept::Linked(record) => {
                let r = as_asked(&place);
                if failed(r) && record != u32::MAX {
                    names::not_done(record);
                }
                r
            }
            Kept::Not => {
                // A rollback could not bring it back.
                if !event::is_behind() {
                    event::irrevocable(l);
                    l.commit_after = true;
                }
                as_asked(&place)
            }
        }
    };
    if !failed(r) {
        undo::nameless::name_went(&st);
        if is_lock {
            by_name::gone(l, &st);
        }
    }
    r
}

/// Removes an empty directory so that a rollback has it back; None if the kernel is to
/// be asked instead.
fn remove_directory(place: &Place, st: &Stat) -> Option<isize> {
    if !is_empty(place.dir, place.name()) {
        return None;
    }
    if let Some(r) = keep_directory(place, st) {
        return Some(r);
    }
    let record = names::before_rmdir_anew(place, st);
    let r = sys!(UNLINKAT, place.dir, place.given(), AT_REMOVEDIR);
    if failed(r) {
        names::not_done(record);
    }
    Some(r)
}

fn renamed(
    l: &mut Local,
    from_dir: usize,
    from_at: usize,
    to_dir: usize,
    to_at: usize,
    flags: usize,
) -> isize {
    const NOREPLACE: usize = 1;
    const EXCHANGE: usize = 2;
    if flags & !(NOREPLACE | EXCHANGE) != 0 || flags == NOREPLACE | EXCHANGE {
        return -EINVAL;
    }
    let kernel_says = || sys!(RENAMEAT2, from_dir, from_at, to_dir, to_at, flags);
    let from = match Place::of(DIRECTORY, from_dir, from_at) {
        Ok(place) => place,
        Err(Unplaced::NoName) => return kernel_says(),
        Err(Unplaced::Error(e)) => return e,
    };
    let to = match Place::of(OTHER_DIRECTORY, to_dir, to_at) {
        Ok(place) => place,
        Err(Unplaced::NoName) => return kernel_says(),
        Err(Unplaced::Error(e)) => return e,
    };
    let deed = || sys!(RENAMEAT2, from.dir, from.given(), to.dir, to.given(), flags);
    if from.mount != to.mount {
        return deed();
    }
    let st = match from.stat() {
        Ok(st) => st,
        Err(e) => return e,
    };
    let other = to.stat().ok();
    if other.is_some_and(|o| (o.dev, o.ino) == (st.dev, st.ino))
        || (other.is_some() && flags & NOREPLACE != 0)
        || (other.is_none() && flags & EXCHANGE != 0)
    {
        // One file by two names, or an error: nothing happens.
        return deed();
    }
    // Who opens it by its new name must see what stays.
    undo::publish(l, st.dev, st.ino);
    let is_lock = by_name::before_removal(l, &st);
    if let Some(o) = &other {
        undo::publish(l, o.dev, o.ino);
    }
    let mut kept = None;
    let mut taken = false;
    if let Some(o) = other.filter(|_| flags & EXCHANGE == 0) {
        let dirs = (st.kind() == S_IFDIR, o.kind() == S_IFDIR);
        match dirs {
            (true, true) if is_empty(to.dir, to.name()) => {
                taken = remove_directory(&to, &o) == Some(0);
            }
            (false, false) => match keep(&to, &o, false) {
                Kept::Linked(record) => kept = Some(record),
                _ if !event::is_behind() => {
                    event::irrevocable(l);
                    l.commit_after = true;
                }
                _ => {}
            },
            _ => return deed(),
        }
    }
    let exchanged = other.filter(|_| flags & EXCHANGE != 0);
    let record = names::before_rename(&from, &to, &st, exchanged.as_ref());
    let r = deed();
    if failed(r) {
        names::not_done(record);
        if let Some(record) = kept.filter(|&record| record != u32::MAX) {
            names::not_done(record);
        }
        if taken {
            // Its place was not wanted: it stands there again.
            let _ = undo::put_directory_back(&to);
        }
        return r;
    }
    moved(&st, &from, &to);
    if is_lock {
        by_name::gone(l, &st);
    }
    if let Some(o) = exchanged {
        moved(&o, &to, &from);
    }
    if let Some(o) = other.filter(|_| flags & EXCHANGE == 0) {
        undo::nameless::name_went(&o);
        if o.kind() == S_IFREG && !event::is_behind() {
            // Others have the new contents now: they stay.
            l.commit_after = true;
        }
    }
    r
}

/// Something has another name: descriptions of it, and of what it holds, know that.
fn moved(st: &Stat, from: &Place, to: &Place) {
    undo::nameless::moved(st, from.path(), to.path());
    let is_dir = st.kind() == S_IFDIR;
    for (fd, file) in each_file() {
        let f = open_file(file);
        let is_found = f.kind == Kind::Directory || undo::nameless::is_named(f);
        if !is_found {
            continue;
        }
        if (f.dev, f.ino) == (st.dev, st.ino) {
            set_path(f, to.path());
        } else if is_dir && f.unlinked == 0 {
            let mut path = [0u8; 3072];
            let n = super::process::fd_path(fd, &mut path);
            if n > 0 && n < path.len() {
                set_path(f, &path[..n]);
            }
        }
    }
    if is_dir {
        super::process::note_cwd();
    }
}

/// A name that the call makes, if nothing stands there.
fn made(dir: usize, at: usize, is_dir: bool, deed: impl Fn(&Place) -> isize) -> isize {
    let place = match Place::of(DIRECTORY, dir, at) {
        Ok(place) => place,
        // (It exists.)
        Err(Unplaced::NoName) => return -EEXIST,
        Err(Unplaced::Error(e)) => return e,
    };
    if place.stat().is_ok() {
        return deed(&place);
    }
    let record = names::before_create(&place, is_dir, None);
    let r = deed(&place);
    note_made(&place, record, r);
    r
}

fn note_made(place: &Place, record: u32, r: isize) {
    match place.stat() {
        Ok(st) if !failed(r) => {
            names::made(record, &st);
            by_name::made(&st);
        }
        _ => names::not_done(record),
    }
}

/// link(2) and linkat(2): `a` as of the latter.
fn linked(l: &mut Local, a: [usize; 5]) -> isize {
    const UNDER_WAY: usize = 14;
    let [old_dir, old_at, dir, at, flags] = a;
    let kernel_says = || sys!(LINKAT, old_dir, old_at, dir, at, flags);
    let follow = match flags & AT_SYMLINK_FOLLOW {
        0 => AT_SYMLINK_NOFOLLOW,
        _ => 0,
    };
    let empty = flags & AT_EMPTY_PATH;
    let st = match stat_at(old_dir as i32, old_at as *const u8, follow | empty) {
        Ok(st) => st,
        Err(_) => return kernel_says(),
    };
    let place = match Place::of(DIRECTORY, dir, at) {
        Ok(place) => place,
        Err(Unplaced::NoName) => return kernel_says(),
        Err(Unplaced::Error(e)) => return e,
    };
    let deed = || sys!(LINKAT, old_dir, old_at, place.dir, place.given(), flags);
    let nameless = open_descriptions(&st).find(|&file| open_file(file).unlinked != 0);
    let repeated = nameless.is_some_and(|file| {
        open_file(file).words[UNDER_WAY] == 1
            && place
                .stat()
                .is_ok_and(|there| (there.dev, there.ino) == (st.dev, st.ino))
    });
    if (repeated || st.nlink <= undo::second_names(st.dev, st.ino))
        && let Some(file) = nameless
    {
        // A file that had no name yet (O_TMPFILE) gets one only once: a rollback could
        // not make it again. So that is committed before and after; the mark tells the
        // repeated call.
        let f = open_file(file);
        f.words[UNDER_WAY] = 1;
        if !event::is_behind() {
            event::irrevocable(l);
        }
        let r = if repeated { 0 } else { deed() };
        f.words[UNDER_WAY] = 0;
        if !failed(r) {
            for file in open_descriptions(&st) {
                let f = open_file(file);
                if let Some(path) = undo::nameless::path_of_ours(f) {
                    undo::close_name(path);
                }
                f.unlinked = 0;
                set_path(f, place.path());
            }
            l.commit_after = true;
        }
        return r;
    }
    if place.stat().is_ok() {
        return deed();
    }
    let record = names::before_create(&place, false, Some(&st));
    let r = deed();
    note_made(&place, record, r);
    r
}

fn open_descriptions(st: &Stat) -> impl Iterator<Item = u32> + use<> {
    let (dev, ino) = (st.dev, st.ino);
    (0..crate::engine::state().root.fd_high as i32)
        .filter_map(known_file)
        .filter(move |&file| (open_file(file).dev, open_file(file).ino) == (dev, ino))
}

/// truncate(2): what it needs of the file is what open(2) for writing needs.
fn truncated(at: usize, size: u64) -> isize {
    let kernel_says = || sys!(TRUNCATE, at, size);
    let st = match stat_at(AT_FDCWD as i32, at as *const u8, 0) {
        Ok(st) => st,
        Err(e) => return e,
    };
    if st.kind() != S_IFREG || size as i64 <= -1 {
        return kernel_says();
    }
    let mut r = 0;
    super::lock::beside(super::lock::holds_posix(st.dev, st.ino), || {
        let fd = sys!(OPEN, at, O_CLOEXEC | 1);
        r = fd;
        if failed(fd) {
            return;
        }
        if let (Some(file), Ok(st)) = (new_file(Kind::Regular), Stat::of_fd(fd as i32)) {
            let f = open_file(file);
            (f.dev, f.ino, f.flags) = (st.dev, st.ino, 1);
            undo::before_truncate(fd as i32, file, size);
            release(file);
        }
        r = sys!(FTRUNCATE, fd, size);
        undo::written::over(fd as i32, r);
        sys!(CLOSE, fd);
    });
    r
}

/// ftruncate(2) and fallocate(2).
fn resized(n: usize, a: [usize; 6]) -> isize {
    let fd = a[0] as i32;
    let Some(file) = file_of(fd) else {
        return -EBADF;
    };
    let f = open_file(file);
    let refused = match n {
        nr::FTRUNCATE => memfd::before_growth(fd, Some(a[1] as u64), 0),
        _ => memfd::before_growth(fd, Some(a[2] as u64), a[3] as u64),
    };
    if failed(refused) {
        return refused;
    }
    let ours = f.kind == Kind::Regular && super::regular::rewinds(f);
    if ours && f.flags as usize & O_ACCMODE != 0 {
        match n {
            nr::FTRUNCATE if a[1] as i64 >= 0 => undo::before_truncate(fd, file, a[1] as u64),
            nr::FALLOCATE if a[2] as i64 >= 0 && a[3] as i64 > 0 => {
                undo::contents::before_allocate(fd, file, a[1], a[2] as u64, a[3] as u64)
            }
            _ => {}
        }
    }
    let r = raw(n, a);
    undo::written::over(fd, r);
    match n {
        _ if failed(r) => {}
        nr::FTRUNCATE => memfd::resized(fd),
        _ => memfd::allocated(fd, a[1], a[2] as u64, a[3] as u64),
    }
    r
}

/// An O_PATH descriptor of what a path leads to.
pub fn object(dir: usize, at: usize, follow: bool) -> Result<i32, isize> {
    let mut text = [0u8; 4096];
    user::read_cstr(at, &mut text)?;
    let flags = if follow { 0 } else { O_NOFOLLOW };
    open_path(dir as i32, text.as_ptr(), flags, OBJECT)
}
