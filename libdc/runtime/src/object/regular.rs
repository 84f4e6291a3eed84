//! Regular files and directories: opening, offsets, and writes that can be
//! undone.
//!
//! state:     path, flags, offset, device and inode of each description
//! intercept: open*, lseek, reads and writes (from input and output)
//! save:      the offset of each description touched since the last commit
//! restore:   warm: lseek; cold: open by name, lseek
//! survives:  warm and cold; one without a name by a name of ours
#![allow(unsafe_code)]

use super::descriptor::{self, *};
use super::stat::*;
use super::{process, undo};
use crate::engine::{engine, state};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::state::{Kind, MAX_FILES, OpenFile};
use crate::sys;
use crate::thread;

const AT_FDCWD: isize = -100;

pub fn open(l: &mut Local, a: [usize; 6]) -> isize {
    openat(l, [AT_FDCWD as usize, a[0], a[1], a[2], 0, 0])
}

pub fn creat(l: &mut Local, a: [usize; 6]) -> isize {
    openat(
        l,
        [AT_FDCWD as usize, a[0], O_CREAT | O_TRUNC | 1, a[1], 0, 0],
    )
}

/// (What only opens does so without the lock: a fifo waits for its other end, which
/// another thread may be about to open.)
pub fn openat(l: &mut Local, a: [usize; 6]) -> isize {
    let [dir, path_at, flags, mode, ..] = a;
    let guard = engine().lock.acquire(l);
    let mut path = [0u8; 4096];
    let n = match process::absolute(dir as i32, path_at, &mut path) {
        Ok(n) => n,
        Err(e) => return e,
    };
    let writes = flags & O_ACCMODE != 0;
    if let Some(r) = process::open_special(&path[..n], flags) {
        return r;
    }
    let tmpfile = flags & O_TMPFILE == O_TMPFILE;
    let changes = (flags & O_CREAT != 0 || (flags & O_TRUNC != 0 && writes))
        && !tmpfile
        && undo::before_open(&path[..n], flags);
    let guard = (changes || tmpfile).then_some(guard);
    let r = match guard {
        Some(_) => sys!(OPENAT, dir, path_at, flags, mode),
        None => thread::wait_or_signal(l, nr::OPENAT, [dir, path_at, flags, mode, 0, 0]),
    };
    if failed(r) {
        return r;
    }
    let _guard = guard.unwrap_or_else(|| engine().lock.acquire(l));
    let fd = r as i32;
    let r = descriptor::adopt(fd, flags, &path[..n], false);
    if writes {
        super::attributes::file_opened(&path[..n]);
    }
    if let Some(file) = file_of(fd) {
        let f = open_file(file);
        if f.kind == Kind::Pipe {
            // Others hold its other end.
            crate::event::outlives(l);
        }
        if (changes || tmpfile) && f.kind == Kind::Regular {
            undo::note_changed(f.dev, f.ino);
        }
    }
    if tmpfile
        && !failed(r)
        && let Some(file) = file_of(fd)
    {
        undo::nameless::made_without(fd, file);
    }
    r
}

pub fn lseek(_l: &mut Local, a: [usize; 6]) -> isize {
    let fd = a[0] as i32;
    let Some(file) = file_of(fd) else {
        return -EBADF;
    };
    let r = sys!(LSEEK, fd, a[1], a[2]);
    if !failed(r) {
        touch(file);
    }
    r
}

pub fn getdents(l: &mut Local, a: [usize; 6]) -> isize {
    let fd = a[0] as i32;
    let Some(file) = file_of(fd) else {
        return -EBADF;
    };
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(l.frame.nr, a) };
    touch(file);
    r
}

/// Files whose offset may have moved since the last commit.
struct Touched {
    files: [u16; 64],
    len: usize,
    many: bool,
}

static mut TOUCHED: Touched = Touched {
    files: [0; 64],
    len: 0,
    many: false,
};

fn touched() -> &'static mut Touched {
    // SAFETY: under the big lock.
    unsafe { &mut *(&raw mut TOUCHED) }
}

pub fn touch(file: u32) {
    let f = open_file(file);
    if f.touched != 0 {
        return;
    }
    f.touched = 1;
    let t = touched();
    if t.len < t.files.len() {
        t.files[t.len] = file as u16;
        t.len += 1;
    } else {
        t.many = true;
    }
}

/// A read or write at the file's own offset has moved it.
pub fn after_transfer(_fd: i32, file: u32, at: Option<u64>, ret: isize) {
    if at.is_none() && ret > 0 {
        touch(file);
    }
}

/// A write has changed a file.
pub fn after_write(fd: i32, file: u32, at: Option<u64>, ret: isize) {
    after_transfer(fd, file, at, ret);
    if ret > 0 && super::memfd::is(file) {
        super::memfd::written(fd, at, ret as u64);
    }
}

/// Puts the offsets that only the kernel knows into the state.
pub fn save_offsets() {
    let t = touched();
    if t.many {
        for file in 1..=MAX_FILES as u32 {
            if state().file_refs[file as usize - 1] != 0 {
                save_offset(file);
            }
        }
    } else {
        for i in 0..t.len {
            save_offset(t.files[i] as u32);
        }
    }
    t.len = 0;
    t.many = false;
}

/// Puts the offset of one into the state, if it may have moved.
pub fn save_offset(file: u32) {
    if state().file_refs[file as usize - 1] == 0 {
        return;
    }
    let f = open_file(file);
    if f.touched == 0 {
        return;
    }
    f.touched = 0;
    let Some(fd) = any_fd(file) else { return };
    let value = match f.kind {
        Kind::EventFd => super::eventfd::count_of(fd),
        _ => sys!(LSEEK, fd, 0, 1),
    };
    if failed(value) {
        return;
    }
    f.offset = value as u64;
    if let Some((_, shared)) = crate::run::shared::of(f) {
        shared.set(value as u64, engine().store.published());
    }
}

/// Before bytes of a file of the program's own change.
pub fn before_write(_l: &mut Local, fd: i32, file: u32, at: Option<u64>, len: usize) {
    let f = open_file(file);
    if f.kind == Kind::MemFd {
        return;
    }
    let at = match at {
        Some(at) => at,
        None if f.flags as usize & O_APPEND != 0 => u64::MAX,
        None => {
            let r = sys!(LSEEK, fd, 0, 1);
            if failed(r) { 0 } else { r as u64 }
        }
    };
    undo::before_change(fd, file, at, len as u64);
}

/// A shared writable mapping of a file changes it behind our back.
pub fn warn_shared_mapping(file: u32) {
    let f = open_file(file);
    if f.kind != Kind::MemFd {
        let path = core::str::from_utf8(&f.path[..f.path_len as usize]).unwrap_or("?");
        crate::say!("stores into the shared mapping of {path} are not undone by a recovery");
    }
}

/// Whether offset and contents of this description are the program's state. A
/// file that it was given to write into belongs to others too: what went there
/// is output, and stays.
pub fn rewinds(f: &OpenFile) -> bool {
    matches!(f.kind, Kind::Regular | Kind::Directory | Kind::MemFd)
        && (f.inherited == 0 || f.flags as usize & O_ACCMODE == 0)
}

/// The most that is logged of a file that others may write; what is more is
/// committed.
const FOREIGN_MAX: isize = 16 << 10;

/// Whether a replay must not rely on what this file holds: the program only
/// reads it, so somebody else may write it.
pub fn is_foreign(f: &OpenFile) -> bool {
    f.kind == Kind::Regular
        && f.flags as usize & O_ACCMODE == 0
        && engine().machine.protocol().logs()
        && !undo::is_changed(f.dev, f.ino)
}

/// A file that others may write was read.
pub fn foreign_was_read(l: &mut Local, r: isize) {
    if r > FOREIGN_MAX {
        event::unloggable(l);
    } else {
        event::non_deterministic(l);
    }
}

/// A file that is mapped must be the same at recovery: size and time of it.
pub fn note_mapped(file: u32, fd: i32) {
    let f = open_file(file);
    if f.words[3] == 0
        && let Ok(st) = Stat::of_fd(fd)
    {
        f.words[..4].copy_from_slice(&[st.size, st.mtime[0], st.mtime[1], 1]);
    }
}

/// Whether a mapped file is still what it was.
pub fn unchanged(file: u32, fd: i32) -> bool {
    let f = open_file(file);
    f.words[3] == 0
        || Stat::of_fd(fd).is_ok_and(|st| {
            (st.dev, st.ino, st.size, st.mtime)
                == (f.dev, f.ino, f.words[0], [f.words[1], f.words[2]])
        })
}

/// The offset of the last commit: another process may have moved it.
pub fn committed_offset(f: &OpenFile) -> u64 {
    crate::run::shared::of(f)
        .and_then(|(_, shared)| shared.get(engine().store.published()))
        .unwrap_or(f.offset)
}

/// At recovery, warm: offset and flags as they were committed.
pub fn restore_warm(file: u32, fd: i32) {
    let f = open_file(file);
    f.touched = 0;
    if rewinds(f) {
        sys!(LSEEK, fd, committed_offset(f), 0);
    }
    const F_SETFL: usize = 4;
    if f.inherited == 0 || f.kind != Kind::Tty {
        sys!(FCNTL, fd, F_SETFL, f.flags);
    }
}

/// At recovery, cold: the file by its name. An error number if it is gone.
pub fn reopen(file: u32) -> isize {
    let f = open_file(file);
    let flags = f.flags as usize & !(O_CREAT | O_EXCL | O_TRUNC);
    let r = undo::nameless::open_named(f, flags);
    if failed(r) {
        return r;
    }
    let strict = super::identity::is_changed();
    if let Ok(st) = Stat::of_fd(r as i32)
        && (f.kind == Kind::Regular || strict && !matches!(f.kind, Kind::Other | Kind::Tty))
        && (st.dev, st.ino) != (f.dev, f.ino)
    {
        let path = core::str::from_utf8(&f.path[..f.path_len as usize]).unwrap_or("?");
        if strict {
            crate::say!(
                "{path} is another file than at the last commit; the program has given up rights \
                 since it opened it, so it is not given the new one"
            );
            sys!(CLOSE, r);
            return -EACCES;
        }
        crate::say!("{path} is another file than at the last commit; going on with the new one");
    }
    if rewinds(f) {
        sys!(LSEEK, r, committed_offset(f), 0);
    }
    r
}
