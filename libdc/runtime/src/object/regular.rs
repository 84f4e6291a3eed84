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
use super::undo::contents::Opening;
use super::undo::place::O_NOFOLLOW;
use super::{about, fifo, openat2, process, undo};
use crate::engine::{engine, state};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::state::{Kind, MAX_FILES, OWN, OpenFile};
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

/// Opens what may make it wait: a fifo, a terminal. No signal breaks off the opening of a
/// file or a directory, so a program need not be ready for its EINTR.
fn open_in_time(l: &mut Local, a: [usize; 6], resolve: u64) -> isize {
    let [dir, path_at, flags, mode, ..] = a;
    let how = [flags as u64, mode as u64, resolve];
    let (number, args) = match resolve {
        0 => (nr::OPENAT, a),
        _ => (nr::OPENAT2, openat2::arguments(&how, dir, path_at)),
    };
    let r = thread::wait_or_signal(l, number, args);
    if r != -EINTR || !is_file(dir, path_at) {
        return r;
    }
    l.interrupted = false;
    // SAFETY: the program's own call with its own arguments, made again.
    unsafe { crate::machine::sys::raw6(number, args) }
}

/// Whether a path leads to a file or a directory.
fn is_file(dir: usize, path_at: usize) -> bool {
    let mut st = Stat::ZERO;
    let r = sys!(NEWFSTATAT, dir, path_at, &raw mut st, 0);
    !failed(r) && matches!(st.kind(), S_IFDIR | S_IFREG)
}

/// (What only opens does so without the lock: a fifo waits for its other end, which
/// another thread may be about to open.)
pub fn openat(l: &mut Local, a: [usize; 6]) -> isize {
    let guard = engine().lock.acquire(l);
    open_with(l, guard, a, 0)
}

/// The same with restrictions (RESOLVE_*), where it makes and cuts nothing.
pub fn open_with(l: &mut Local, guard: thread::Guard, a: [usize; 6], resolve: u64) -> isize {
    let [dir, path_at, flags, mode, ..] = a;
    if let Some(fd) = fifo::opening::under_way(l) {
        drop(guard);
        fifo::opening::await_others(l);
        return fd as isize;
    }
    let only_opens = flags & (O_CREAT | O_TRUNC) == 0;
    let named = match only_opens {
        true => about::Path::opened(dir as i32, path_at, flags & O_NOFOLLOW == 0),
        false => about::Path::given(path_at),
    };
    let mut path = [0u8; 4096];
    let n = match named.own(path_at) {
        Some(own) => {
            path[..own.len()].copy_from_slice(own);
            own.len() - 1
        }
        None => match process::absolute(dir as i32, path_at, &mut path) {
            Ok(n) => n,
            Err(e) => return e,
        },
    };
    if !has_numbers(1) {
        return -EMFILE;
    }
    let path_at = named.address();
    let writes = flags & O_ACCMODE != 0;
    let tmpfile = flags & O_TMPFILE == O_TMPFILE;
    let may_change = flags & O_CREAT != 0 || (flags & O_TRUNC != 0 && writes);
    let opening = match may_change && !tmpfile {
        true => undo::before_open(dir, path_at, flags),
        false => Opening::Plain,
    };
    let mut cuts = false;
    let mut guard = Some(guard);
    let mut of_fifo = None;
    let r = match opening {
        Opening::Fails(e) => return e,
        Opening::Makes(place) => make(&place, flags, mode),
        Opening::Cuts => {
            cuts = true;
            sys!(OPENAT, dir, path_at, flags & !O_TRUNC, mode)
        }
        Opening::Plain if tmpfile => sys!(OPENAT, dir, path_at, flags, mode),
        Opening::Plain => {
            of_fifo = fifo::opening::begin(l, dir, path_at, flags);
            guard = None;
            open_in_time(l, [dir, path_at, flags, mode, 0, 0], resolve)
        }
    };
    if failed(r) {
        return r;
    }
    let guard = guard.unwrap_or_else(|| engine().lock.acquire(l));
    let fd = r as i32;
    let r = descriptor::adopt(fd, flags, &path[..n], false);
    let Some(file) = known_file(fd).filter(|_| !failed(r)) else {
        return r;
    };
    let f = open_file(file);
    if writes {
        super::attributes::file_opened(&path[..n]);
    }
    if f.kind == Kind::Pipe {
        // Others hold its other end.
        crate::event::outlives(l);
    }
    if cuts && let Err(e) = cut(l, fd, file) {
        return e;
    }
    if tmpfile {
        undo::nameless::made_without(fd, file);
        f.words[undo::contents::MADE_NAMELESS] = engine().store.published() + 1;
    }
    if of_fifo.take().is_some() {
        fifo::opening::is_noted(l, fd);
        drop(guard);
        fifo::opening::await_others(l);
    }
    r
}

/// What O_TRUNC does, behind an open without it.
pub fn cut(l: &mut Local, fd: i32, file: u32) -> Result<(), isize> {
    let r = match open_file(file).kind {
        Kind::Regular => {
            undo::before_truncate(fd, file, 0);
            let r = sys!(FTRUNCATE, fd, 0);
            crate::commit::fault_point(dc_image::boot::fault::AFTER_CHANGE);
            undo::written::over(fd, r);
            r
        }
        Kind::MemFd => {
            // It has no name, but a path of /proc.
            let r = sys!(FTRUNCATE, fd, 0);
            if !failed(r) {
                super::memfd::resized(fd);
            }
            r
        }
        _ => 0,
    };
    if failed(r) {
        descriptor::close_locked(l, fd);
        return Err(r);
    }
    Ok(())
}

/// Makes a file where there is none, and opens it.
fn make(place: &undo::place::Place, flags: usize, mode: usize) -> isize {
    let record = undo::names::before_create(place, false, None);
    // Nobody else's: what is there now is not ours to take away.
    let r = sys!(OPENAT, place.dir, place.given(), flags | O_EXCL, mode);
    if failed(r) {
        undo::names::not_done(record);
        if r == -EEXIST && flags & O_EXCL == 0 {
            // Somebody was faster.
            return sys!(OPENAT, place.dir, place.given(), flags & !O_TRUNC, mode);
        }
        return r;
    }
    crate::commit::fault_point(dc_image::boot::fault::AFTER_CHANGE);
    match Stat::of_fd(r as i32) {
        Ok(st) => {
            undo::names::made(record, &st);
            if flags & O_EXCL != 0 {
                super::lock::by_name::made(&st);
            }
        }
        Err(e) => return e,
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
        let f = open_file(file);
        if f.kind == Kind::Regular && f.words[MOVED] == 0 {
            f.words[MOVED] = 1;
        }
    }
    r
}

pub fn getdents(l: &mut Local, a: [usize; 6]) -> isize {
    let fd = a[0] as i32;
    let Some(file) = file_of(fd) else {
        return -EBADF;
    };
    // SAFETY: the program's own call with its own arguments.
    let mut r = unsafe { crate::machine::sys::raw6(l.frame.nr, a) };
    touch(file);
    if r > 0 {
        r = undo::kept::hide_vaults(l.frame.nr, a, r);
    }
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
        && (f.inherited == OWN || f.flags as usize & O_ACCMODE == 0)
}

/// The most that is logged of a file that others may write; what is more is
/// committed.
const FOREIGN_MAX: isize = 16 << 10;

/// In `OpenFile::words`, of a file that is only read: how far it was read; where the
/// next read begins, unless the position was set; that it was read to its end; that it
/// was read again where it was read before.
const READ_TO: usize = 12;
const READ_AGAIN: usize = 11;
const MOVED: usize = 10;
const ENDED: usize = 9;
const POSITION: usize = 8;

/// Whether re-execution must not rely on what this file holds: the program only reads
/// it, so somebody else may write it. Where results are logged that is any such file.
/// Else it is one that is read where it was read before: who looks once more expects to
/// see something else. (To open a file is chance, so what was seen first is as well.)
pub fn is_foreign(f: &OpenFile) -> bool {
    f.kind == Kind::Regular
        && f.flags as usize & O_ACCMODE == 0
        && (f.words[READ_AGAIN] != 0 || engine().machine.protocol().logs())
        && !undo::is_changed(f.dev, f.ino)
}

fn only_read(f: &OpenFile) -> bool {
    f.kind == Kind::Regular && f.flags as usize & O_ACCMODE == 0 && f.words[READ_AGAIN] == 0
}

/// A file is about to be read, at a position of the call or at that of the description.
pub fn about_to_read(fd: i32, f: &mut OpenFile, at: Option<u64>) {
    if !only_read(f) {
        return;
    }
    if at.is_none() && f.words[MOVED] != 0 {
        f.words[MOVED] = 0;
        f.words[POSITION] = sys!(LSEEK, fd, 0, 1).max(0) as u64;
    }
    let at = at.unwrap_or(f.words[POSITION]);
    if at < f.words[READ_TO] || (at == f.words[READ_TO] && f.words[ENDED] != 0) {
        f.words[READ_AGAIN] = 1;
    }
}

/// And so much came of it.
pub fn was_read(f: &mut OpenFile, at: Option<u64>, r: isize) {
    if !only_read(f) || r < 0 {
        return;
    }
    let from = at.unwrap_or(f.words[POSITION]);
    if r == 0 {
        f.words[ENDED] = 1;
        return;
    }
    if at.is_none() {
        f.words[POSITION] = from + r as u64;
    }
    f.words[READ_TO] = f.words[READ_TO].max(from + r as u64);
}

/// A mapping that others may store into, and that no call reads: from now on whatever
/// becomes visible may depend on it. Files of the system, which only an upgrade
/// replaces, are none.
pub fn note_shared_reading(fd: i32, file: u32) {
    let f = open_file(file);
    if f.kind != Kind::Regular || f.flags as usize & O_ACCMODE != 0 {
        return;
    }
    let of_system = Stat::of_fd(fd).is_ok_and(|st| st.uid == 0 && st.mode & 0o022 == 0)
        && [b"/usr/".as_slice(), b"/lib", b"/etc/", b"/var/cache/"]
            .iter()
            .any(|d| f.path[..f.path_len as usize].starts_with(d));
    if !of_system {
        state().root.reads_shared = 1;
    }
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
    if f.inherited == OWN || f.kind != Kind::Tty {
        sys!(FCNTL, fd, F_SETFL, f.flags);
    }
}

/// At recovery, cold: the file by its name. An error number if it is gone.
pub fn reopen(file: u32) -> isize {
    let f = open_file(file);
    let mut flags = f.flags as usize & !(O_CREAT | O_EXCL | O_TRUNC);
    if f.kind == Kind::Tty {
        // Whose terminal it is, is known.
        flags |= O_NOCTTY;
    }
    let r = match super::proc_file::is(f) {
        true => super::proc_file::reopen(f, flags),
        false => undo::nameless::open_named(f, flags),
    };
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
