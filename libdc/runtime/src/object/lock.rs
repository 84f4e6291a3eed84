//! Locks of files: flock(2), those of fcntl(2) by process and by open file description,
//! and leases.
//!
//! state:     every lock that the program holds, by description or by file
//! intercept: flock, fcntl with F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW, F_SETLEASE;
//!            closes, which release
//! restore:   warm: they live on with the table, those taken since the commit are given
//!            back, those given back since are taken again; cold: all are taken again.
//!            Where somebody else holds one by then, the recovery stops
//! survives:  warm and cold
//!
//! To release a lock is to let others see and change what it guards. So whatever the
//! program has changed is committed before; and if the lock was held at the commit, it
//! is committed after, too: a rollback would want it back from whoever took it.
//!
//! Names that serve as locks: [`by_name`].
//!
//! A POSIX lock goes with the first close of any descriptor of its file. The runtime's
//! own opening and closing of such a file is done in another table ([`beside`]).

pub mod by_name;
mod flock;
mod restore;

pub use flock::{becomes_shared, flock};
pub use restore::{any_posix, restore, restore_mapped};

use super::descriptor::*;
use super::record;
use super::stat::Stat;
use super::undo;
use crate::engine::{engine, state};
use crate::event;
use crate::fatal;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, own_table, user};
use crate::state::{Kind, OWN};
use crate::sys;
use crate::thread;
use dc_image::FatalCode;

pub const MAX_LOCKS: usize = 4096;
const ENOLCK: isize = 37;

/// One lock that the program holds.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Held {
    /// [`NONE`], [`FLOCK`], [`POSIX`], [`DESCRIPTION`] or [`LEASE`].
    pub kind: u32,
    /// F_RDLCK or F_WRLCK; of flock LOCK_SH or LOCK_EX.
    pub mode: u32,
    /// The description that it belongs to; of POSIX locks 0.
    pub file: u32,
    pub _pad: u32,
    pub dev: u64,
    pub ino: u64,
    pub start: u64,
    /// Exclusive; `i64::MAX` as unsigned is the end of every file.
    pub end: u64,
    /// The interval in which it was taken.
    pub since: u64,
}

impl Held {
    /// A lock of a whole file, by one description.
    fn of_all(kind: u32, mode: u32, file: u32) -> Held {
        let f = open_file(file);
        Held {
            kind,
            mode,
            file,
            _pad: 0,
            dev: f.dev,
            ino: f.ino,
            start: 0,
            end: TO_THE_END,
            since: interval(),
        }
    }
}

const NONE: u32 = 0;
const FLOCK: u32 = 1;
const POSIX: u32 = 2;
const DESCRIPTION: u32 = 3;
const LEASE: u32 = 4;

const F_GETLK: usize = 5;
const F_SETLK: usize = 6;
const F_SETLKW: usize = 7;
const F_OFD_GETLK: usize = 36;
const F_OFD_SETLK: usize = 37;
const F_OFD_SETLKW: usize = 38;
const F_SETLEASE: usize = 1024;
const F_RDLCK: u32 = 0;
const F_UNLCK: u32 = 2;
const LOCK_SH: u32 = 1;
const LOCK_EX: u32 = 2;
const LOCK_NB: u32 = 4;
const LOCK_UN: u32 = 8;
const TO_THE_END: u64 = i64::MAX as u64;

/// `struct flock`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Flock {
    mode: i16,
    whence: i16,
    _pad: i32,
    start: i64,
    len: i64,
    pid: i32,
    _pad2: i32,
}

fn held() -> &'static mut [Held] {
    let s = state();
    let n = s.root.lock_high as usize;
    &mut s.locks[..n]
}

fn interval() -> u64 {
    engine().store.published() + 1
}

/// Whether the program holds a lock of a file that goes with any close of it.
pub fn holds_posix(dev: u64, ino: u64) -> bool {
    held()
        .iter()
        .any(|h| h.kind == POSIX && (h.dev, h.ino) == (dev, ino))
}

/// The open file of a lock that keeps all others out, if the program holds one.
pub fn exclusive() -> Option<u32> {
    held_since(u64::MAX).or_else(flock::exclusive_of_several)
}

/// Whether it held one at the last commit.
pub fn was_held() -> bool {
    state().root.lock_high != 0 && held_since(engine().store.published()).is_some()
}

fn held_since(commit: u64) -> Option<u32> {
    const F_WRLCK: u32 = 1;
    let h = held().iter().find(|h| {
        let keeps_out = match h.kind {
            FLOCK => h.mode == LOCK_EX,
            POSIX | DESCRIPTION => h.mode == F_WRLCK,
            _ => false,
        };
        keeps_out && h.since <= commit
    })?;
    if h.kind != POSIX {
        return Some(h.file);
    }
    (0..state().root.fd_high as i32)
        .filter_map(known_file)
        .find(|&file| (open_file(file).dev, open_file(file).ino) == (h.dev, h.ino))
}

/// Runs `f`, which opens and closes files; where that would give locks away, in another
/// table.
pub fn beside(needed: bool, mut f: impl FnMut()) {
    if !needed {
        return f();
    }
    if !own_table::run(f) {
        let live = engine().live();
        if live.fatal.load(core::sync::atomic::Ordering::Acquire) != 0 {
            fatal::die();
        }
        fatal::stop(
            FatalCode::Internal,
            0,
            format_args!("open a file that the program has locked: the helper died"),
        );
    }
}

/// In a child: locks by process are its parent's.
pub fn leave() {
    for h in held().iter_mut().filter(|h| h.kind == POSIX) {
        h.kind = NONE;
    }
}

/// The last number of a file is closed here: what was noted of its locks is not this
/// process's any more, even if others go on with the description.
pub fn gone(file: u32) {
    for h in held().iter_mut() {
        if h.kind != NONE && h.kind != POSIX && h.file == file {
            h.kind = NONE;
        }
    }
}

fn entered(l: &mut Local, fd: i32) -> Option<u32> {
    let _guard = engine().lock.acquire(l);
    file_of(fd)
}

fn find(kind: u32, file: u32) -> Option<usize> {
    held().iter().position(|h| h.kind == kind && h.file == file)
}

fn enter_lock(lock: Held) -> bool {
    let s = state();
    let n = s.root.lock_high as usize;
    let i = match s.locks[..n].iter().position(|h| h.kind == NONE) {
        Some(i) => i,
        None if n < MAX_LOCKS => {
            s.root.lock_high += 1;
            n
        }
        None => return false,
    };
    s.locks[i] = lock;
    true
}

/// One is given back: others may take it now.
fn released(l: &mut Local, i: usize) {
    if held()[i].since < interval() && !event::is_behind() {
        l.commit_after = true;
    }
    held()[i].kind = NONE;
}

/// Whether a command of fcntl(2) is about locks.
pub fn is_command(command: usize) -> bool {
    matches!(
        command,
        F_GETLK..=F_SETLKW | F_OFD_GETLK..=F_OFD_SETLKW | F_SETLEASE
    )
}

/// fcntl(2) with such a command.
pub fn control(l: &mut Local, a: [usize; 6]) -> isize {
    let (fd, command) = (a[0] as i32, a[1]);
    let Some(file) = entered(l, fd) else {
        return -EBADF;
    };
    let r = match command {
        F_GETLK | F_OFD_GETLK => super::tree::raw(nr::FCNTL, a),
        F_SETLEASE => return lease(l, fd, file, a),
        _ => return set(l, fd, file, a),
    };
    let _guard = engine().lock.acquire(l);
    event::non_deterministic(l);
    r
}

fn lease(l: &mut Local, fd: i32, file: u32, a: [usize; 6]) -> isize {
    let _guard = engine().lock.acquire(l);
    if a[2] as u32 == F_UNLCK {
        undo::publish_all(l);
    }
    let r = super::tree::raw(nr::FCNTL, a);
    event::non_deterministic(l);
    if failed(r) {
        return r;
    }
    let known = find(LEASE, file);
    match (a[2] as u32, known) {
        (F_UNLCK, Some(i)) => released(l, i),
        (F_UNLCK, None) => {}
        (mode, Some(i)) => held()[i].mode = mode,
        (mode, None) => {
            enter_lock(Held::of_all(LEASE, mode, file));
            record::append(record::LOCKED, &[&fd.to_le_bytes(), &[0; 4]]);
        }
    }
    r
}

/// A lock of a part of a file is set or given back.
fn set(l: &mut Local, fd: i32, file: u32, a: [usize; 6]) -> isize {
    let command = a[1];
    let Some(want) = user::read::<Flock>(a[2]) else {
        return -EFAULT;
    };
    let kind = match command {
        F_SETLK | F_SETLKW => POSIX,
        _ => DESCRIPTION,
    };
    let releases = want.mode as u32 != 1;
    if releases {
        let _guard = engine().lock.acquire(l);
        let f = open_file(file);
        if held().iter().any(|h| is_of(h, kind, file, f.dev, f.ino)) {
            undo::publish_all(l);
        }
    }
    let r = match command {
        F_SETLKW | F_OFD_SETLKW => thread::wait_or_signal(l, nr::FCNTL, a),
        _ => super::tree::raw(nr::FCNTL, a),
    };
    let _guard = engine().lock.acquire(l);
    event::non_deterministic(l);
    if failed(r) || file_of(fd) != Some(file) {
        return r;
    }
    let Some((start, end)) = range(fd, &want) else {
        return r;
    };
    let f = open_file(file);
    let (dev, ino) = (f.dev, f.ino);
    let of = if kind == POSIX { 0 } else { file };
    let mut since = interval();
    let mut i = 0;
    while i < held().len() {
        let h = held()[i];
        if !is_of(&h, kind, file, dev, ino) || h.end <= start || h.start >= end {
            i += 1;
            continue;
        }
        if want.mode as u32 == F_UNLCK || (want.mode as u32 == F_RDLCK && h.mode != F_RDLCK) {
            released(l, i);
        } else {
            since = since.min(h.since);
        }
        held()[i].kind = NONE;
        // What of it lies outside stays.
        for (a, b) in [(h.start, start), (end, h.end)] {
            if a < b
                && !enter_lock(Held {
                    start: a,
                    end: b,
                    ..h
                })
            {
                return no_room(fd, start, end, kind);
            }
        }
        i += 1;
    }
    if want.mode as u32 != F_UNLCK {
        let lock = Held {
            kind,
            mode: want.mode as u32,
            file: of,
            _pad: 0,
            dev,
            ino,
            start,
            end,
            since,
        };
        if !enter_lock(lock) {
            return no_room(fd, start, end, kind);
        }
        record::append(record::LOCKED, &[&fd.to_le_bytes(), &[0; 4]]);
    }
    r
}

/// The table is full, as the kernel's may be.
fn no_room(fd: i32, start: u64, end: u64, kind: u32) -> isize {
    let command = if kind == POSIX { F_SETLK } else { F_OFD_SETLK };
    apply(fd, command, F_UNLCK, start, end);
    -ENOLCK
}

fn is_of(h: &Held, kind: u32, file: u32, dev: u64, ino: u64) -> bool {
    h.kind == kind
        && match kind {
            POSIX => (h.dev, h.ino) == (dev, ino),
            _ => h.file == file,
        }
}

/// What of a file is meant: from, to.
fn range(fd: i32, want: &Flock) -> Option<(u64, u64)> {
    let base = match want.whence {
        0 => 0,
        1 => sys!(LSEEK, fd, 0, 1) as i64,
        _ => Stat::of_fd(fd).ok()?.size as i64,
    };
    let at = base.checked_add(want.start)?;
    let (from, to) = match want.len {
        0 => (at, i64::MAX),
        n if n > 0 => (at, at.saturating_add(n)),
        n => (at + n, at),
    };
    (from >= 0).then_some((from as u64, to as u64))
}

fn apply(fd: i32, command: usize, mode: u32, start: u64, end: u64) -> isize {
    let lock = Flock {
        mode: mode as i16,
        whence: 0,
        _pad: 0,
        start: start as i64,
        len: if end >= TO_THE_END {
            0
        } else {
            (end - start) as i64
        },
        pid: 0,
        _pad2: 0,
    };
    sys!(FCNTL, fd, command, &raw const lock)
}

/// Before a descriptor is closed: whether that releases a lock. What is guarded is
/// committed before.
pub fn before_close(l: &mut Local, fd: i32, file: u32) {
    let f = open_file(file);
    let last = state().file_refs[file as usize - 1] == 1 && !shared_with_others(f);
    if last {
        flock::last_closes(l, fd, file);
    }
    if state().root.lock_high == 0 {
        return;
    }
    let goes = |h: &Held| {
        (h.kind == POSIX && (h.dev, h.ino) == (f.dev, f.ino))
            || (last && h.kind != NONE && h.file == file)
    };
    if !held().iter().any(goes) {
        return;
    }
    undo::publish_all(l);
    for i in 0..held().len() {
        let h = held()[i];
        if !goes(&h) {
            continue;
        }
        // The description may live on until the commit; its locks may not.
        match h.kind {
            FLOCK => sys!(FLOCK, fd, LOCK_UN),
            DESCRIPTION => apply(fd, F_OFD_SETLK, F_UNLCK, 0, TO_THE_END),
            LEASE => sys!(FCNTL, fd, F_SETLEASE, F_UNLCK),
            _ => 0,
        };
        released(l, i);
    }
}

/// The process ends: memory that keeps a file with its lock goes before anybody is told, as it
/// does natively.
pub fn leave_mapped() {
    let is_locked = |file: u32| {
        let of_file = |h: &Held| !matches!(h.kind, NONE | POSIX) && h.file == file;
        held().iter().any(of_file) || flock::of_several(file).is_some_and(|mode| mode != 0)
    };
    for v in crate::space::areas() {
        if v.file != 0 && is_locked(v.file) {
            sys!(MUNMAP, v.start, v.end - v.start);
        }
    }
}
