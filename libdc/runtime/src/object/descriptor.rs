//! Descriptors and open file descriptions.
//!
//! Keeper and worker share one descriptor table in the kernel, so descriptors
//! outlive the worker. The state has its own table: what each number meant at
//! the last commit. A number that is closed or replaced since is kept aside
//! ([`super::deferred_close`]) until the next commit.
//!
//! Warm: what was put aside moves back, newer numbers are closed, flags are set again.
//! Cold: every description is made again by the file of its kind.
#![allow(unsafe_code)]

pub use super::adopt::{adopt, adopt_inherited, adopt_made, adopt_unknown, look_again};
use super::deferred_close::put_aside;
use super::stat::{S_IFCHR, S_IFIFO, S_IFSOCK, Stat};
use crate::engine::{engine, state};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::state::*;
use crate::sys;
use core::sync::atomic::Ordering::Relaxed;

pub const O_ACCMODE: usize = 3;
pub const O_RDWR: usize = 2;
pub const O_CREAT: usize = 0o100;
pub const O_EXCL: usize = 0o200;
pub const O_NOCTTY: usize = 0o400;
pub const O_TRUNC: usize = 0o1000;
pub const O_APPEND: usize = 0o2000;
pub const O_NONBLOCK: usize = 0o4000;
pub const O_CLOEXEC: usize = 0o2000000;
pub const O_TMPFILE: usize = 0o20000000;

/// The open file behind a descriptor of a call (index + 1). One that the table does not
/// know is looked at, and entered.
#[inline]
pub fn file_of(fd: i32) -> Option<u32> {
    if fd < 0 || fd >= engine().boot.fd_base || fd as usize >= MAX_FDS {
        return None;
    }
    let f = state().fds[fd as usize].file as u32;
    if f != 0 { Some(f) } else { adopt_unknown(fd) }
}

/// The first number that no new descriptor may have: the program's own limit
/// (RLIMIT_NOFILE), of which the kernel does not know, because dcrun needs numbers too.
pub fn limit() -> usize {
    let limit = state().root.nofile[0].min(engine().boot.fd_base as u64);
    (limit as usize).min(MAX_FDS)
}

/// Whether some more descriptors can be made; else the call ends with EMFILE, before it
/// has done anything.
#[inline]
pub fn has_numbers(count: usize) -> bool {
    let limit = limit();
    state().root.fd_high as usize + count <= limit || has_gaps(count, limit)
}

#[cold]
fn has_gaps(count: usize, limit: usize) -> bool {
    let free = |&fd: &usize| state().fds[fd].file == 0;
    (0..limit).filter(free).take(count).count() == count
}

/// The same of what the table has: for walks through all of it.
#[inline]
pub fn known_file(fd: i32) -> Option<u32> {
    if fd < 0 || fd as usize >= MAX_FDS {
        return None;
    }
    let f = state().fds[fd as usize].file as u32;
    (f != 0).then_some(f)
}

/// The open file itself.
#[inline]
pub fn open_file(file: u32) -> &'static mut OpenFile {
    &mut state().files[file as usize - 1]
}

pub fn hold(file: u32) {
    state().file_refs[file as usize - 1] += 1;
}

pub fn release(file: u32) {
    let refs = &mut state().file_refs[file as usize - 1];
    *refs -= 1;
    if *refs == 0 {
        let f = open_file(file);
        // (A fifo is entered by all who have it, also if each has opened it itself.)
        let is_last = super::fifo::is_one(f) || !shared_with_others(f);
        if f.unlinked != 0 && super::undo::nameless::is_named(f) && is_last {
            super::undo::close_name(&f.path[..f.path_len as usize]);
        }
        super::pty::leaves(f);
        if let Some((_, shared)) = crate::run::shared::of(f) {
            crate::run::shared::leave(shared);
            f.shared = 0;
            state().root.socket_ends -= u32::from(f.kind == Kind::Socket);
        }
        if f.kind == Kind::Pipe && f.peer != 0 {
            super::pipe::end_closed(file);
        }
        super::memfd::closed(file);
        super::lock::gone(file);
        let was = f.kind;
        f.kind = Kind::None;
        super::pushback::forget(file);
        super::epoll::forget(file, was);
    }
}

/// Whether another process of the run has this description, too.
pub fn shared_with_others(f: &OpenFile) -> bool {
    crate::run::shared::of(f)
        .is_some_and(|(_, s)| s.users.load(core::sync::atomic::Ordering::Relaxed) > 1)
}

/// A free record, with one reference.
pub fn new_file(kind: Kind) -> Option<u32> {
    static mut HINT: usize = 0;
    let refs = &mut state().file_refs;
    // SAFETY: under the big lock.
    let hint = unsafe { &mut *(&raw mut HINT) };
    for k in 0..MAX_FILES {
        let i = (*hint + k) % MAX_FILES;
        if refs[i] == 0 {
            // The lowest free one next time: few pages in use.
            *hint = if k == 0 { 0 } else { i + 1 };
            refs[i] = 1;
            let high = &mut state().root.file_high;
            if i as u32 >= *high {
                let before = State::in_use();
                *high = i as u32 + 1;
                if State::in_use() != before {
                    engine().pieces.stale = true;
                }
            }
            let f = &mut state().files[i];
            f.kind = kind;
            (f.flags, f.mode, f.shared) = (0, 0, 0);
            (f.dev, f.ino, f.offset) = (0, 0, 0);
            (f.inherited, f.touched, f.unlinked, f.peer) = (OWN, 0, 0, 0);
            f.watched = 0;
            f.words = [0; 16];
            f.termios_set = 0;
            // No name of another file may be left in it.
            (f.path_len, f.path[0]) = (0, 0);
            return Some(i as u32 + 1);
        }
    }
    None
}

/// Enters a descriptor that the kernel just made.
pub fn enter(fd: i32, file: u32, cloexec: bool) {
    let d = &mut state().fds[fd as usize];
    if d.file != 0 {
        // Cannot be: the kernel gives free numbers only.
        release(d.file as u32);
    }
    *d = Descriptor {
        file: file as u16,
        cloexec: cloexec as u8,
        _pad: 0,
    };
    let high = &mut state().root.fd_high;
    *high = (*high).max(fd as u32 + 1);
    engine().deferred.set_fresh(fd);
}

pub fn set_path(f: &mut OpenFile, path: &[u8]) {
    let n = path.len().min(f.path.len() - 1);
    f.path[..n].copy_from_slice(&path[..n]);
    f.path[n] = 0;
    f.path_len = n as u32;
}

/// Whether a number still is what the table says, of the kinds that are closed at once: the lost
/// interval may have closed it. (What dcrun was given may be another object by now.)
pub fn is_there(file: u32, fd: i32) -> bool {
    let f = open_file(file);
    if !matches!(f.inherited, OWN | RECEIVED) {
        return true;
    }
    let kind = match f.kind {
        Kind::Pipe => S_IFIFO,
        Kind::Socket => S_IFSOCK,
        Kind::Tty if super::pty::is_own(f) => S_IFCHR,
        _ => return true,
    };
    let is_own_pipe = f.kind == Kind::Pipe && f.peer != 0;
    let inode = match crate::run::shared::of(f) {
        Some((_, s)) if is_own_pipe || f.kind == Kind::Socket => s.ino.load(Relaxed),
        // (A fifo or a terminal has another key there. Who has it alone, nobody else asks.)
        _ => 0,
    };
    Stat::of_fd(fd).is_ok_and(|st| st.kind() == kind && (inode == 0 || st.ino == inode))
}

/// What must come before the last number of a description is closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Before {
    Nothing,
    Commit,
    /// A commit, and what is told of a visible event: others see it.
    Visible,
}

/// Before a number is closed: a hang-up or an end of file is seen, a lock is given back.
fn announce(l: &mut Local, fd: i32) {
    let before = needed(fd, 1);
    give_back(l, fd);
    come_first(l, before);
}

fn come_first(l: &mut Local, before: Before) {
    match before {
        Before::Nothing => {}
        Before::Commit => crate::commit::commit(l),
        Before::Visible => event::irrevocable(l),
    }
}

/// What others may have of a file that is about to be closed.
fn give_back(l: &mut Local, fd: i32) {
    let Some(file) = file_of(fd) else { return };
    let f = open_file(file);
    if matches!(f.kind, Kind::Regular | Kind::Directory) {
        super::lock::before_close(l, fd, file);
        let shared = state().file_refs[file as usize - 1] > 1 || shared_with_others(f);
        if !shared && f.flags as usize & O_ACCMODE != 0 && !super::undo::is_private(f) {
            super::undo::publish(l, f.dev, f.ino);
        }
    }
}

/// What the close of a number needs, with which so many of the same description are closed.
fn needed(fd: i32, closed: u32) -> Before {
    let Some(file) = file_of(fd) else {
        return Before::Nothing;
    };
    let f = open_file(file);
    let shared = state().file_refs[file as usize - 1] > closed;
    let kind = f.kind;
    if shared || !matches!(kind, Kind::Pipe | Kind::Socket | Kind::Tty) {
        return Before::Nothing;
    }
    // A rollback takes away what was made since the commit, or who was. (A new number may be of
    // something old, whose other numbers were closed in this interval: they hold it open.)
    let e = engine();
    let is_held = e.deferred.holds(file);
    let is_new = e.deferred.is_fresh(fd) && !is_held;
    if crate::run::is_tree() && (is_new || !e.tracking) {
        return Before::Nothing;
    }
    // Behind what was seen it is the call that the commit was made for.
    let again = event::is_behind();
    if again || engine().log.wanted && super::pipe::is_private(file) {
        return Before::Nothing;
    }
    let kept = crate::log::is_kept();
    match kind {
        // No rollback opens this end again, so none may come to before it: the program uses it
        // there.
        Kind::Pipe if super::pipe::is_state(fd) && !kept => Before::Commit,
        Kind::Tty if !super::pty::is_own(f) && !kept => Before::Nothing,
        Kind::Tty if !kept => Before::Commit,
        // Only a commit closes what was put aside.
        _ if is_held => Before::Commit,
        _ => Before::Visible,
    }
}

/// An exec: what is to be closed by it. One commit, if any is needed, comes before the first.
pub fn close_on_exec(l: &mut Local) {
    let closing = |fd: i32| known_file(fd).filter(|_| state().fds[fd as usize].cloexec != 0);
    let high = state().root.fd_high as i32;
    let of = |file| (0..high).filter(|&fd| closing(fd) == Some(file)).count() as u32;
    let stream = |file| {
        let kind = open_file(file).kind;
        matches!(kind, Kind::Pipe | Kind::Socket | Kind::Tty)
    };
    let before = (0..high)
        .filter_map(|fd| {
            closing(fd)
                .filter(|&file| stream(file))
                .map(|file| (fd, file))
        })
        .map(|(fd, file)| needed(fd, of(file)))
        .max();
    come_first(l, before.unwrap_or(Before::Nothing));
    for fd in 0..high {
        if closing(fd).is_some() {
            give_back(l, fd);
            super::deferred_close::put_aside(l, fd);
        }
    }
}

pub fn close(l: &mut Local, a: [usize; 6]) -> isize {
    let _guard = engine().lock.acquire(l);
    let fd = a[0] as i32;
    if file_of(fd).is_none() {
        return -EBADF;
    }
    close_locked(l, fd);
    0
}

/// Closes a descriptor of the program; the caller holds the lock.
pub fn close_locked(l: &mut Local, fd: i32) {
    announce(l, fd);
    put_aside(l, fd);
}

pub fn close_range(l: &mut Local, a: [usize; 6]) -> isize {
    const UNSHARE: usize = 2;
    const CLOEXEC: usize = 4;
    let _guard = engine().lock.acquire(l);
    let [first, last, flags] = [a[0], a[1], a[2]].map(|arg| arg as u32 as usize);
    if first > last || flags & !(UNSHARE | CLOEXEC) != 0 {
        return -EINVAL;
    }
    if flags & UNSHARE != 0 && engine().thread_count.load(Relaxed) > 1 {
        crate::say!(
            "close_range of a thread that wants descriptors of its own is refused: threads share them"
        );
        return -EINVAL;
    }
    let end = (engine().boot.fd_base as usize).min(MAX_FDS);
    if first >= end {
        return 0;
    }
    let last = last.min(end - 1);
    for fd in first..(last + 1).min(state().root.fd_high as usize) {
        if known_file(fd as i32).is_some() {
            if flags & CLOEXEC != 0 {
                state().fds[fd].cloexec = 1;
                sys!(FCNTL, fd, 2, 1);
            } else {
                announce(l, fd as i32);
                put_aside(l, fd as i32);
            }
        }
    }
    // And what the table does not know.
    sys!(CLOSE_RANGE, first, last, flags & CLOEXEC)
}

pub fn dup(_l: &mut Local, a: [usize; 6]) -> isize {
    let Some(file) = file_of(a[0] as i32) else {
        return -EBADF;
    };
    if !has_numbers(1) {
        return -EMFILE;
    }
    let r = sys!(DUP, a[0]);
    entered_dup(r, file, false)
}

fn entered_dup(r: isize, file: u32, cloexec: bool) -> isize {
    if failed(r) {
        return r;
    }
    if r as usize >= limit() {
        sys!(CLOSE, r);
        return -EMFILE;
    }
    hold(file);
    enter(r as i32, file, cloexec);
    r
}

pub fn dup2(l: &mut Local, a: [usize; 6]) -> isize {
    if a[0] as i32 == a[1] as i32 {
        return if file_of(a[0] as i32).is_some() {
            a[0] as isize
        } else {
            -EBADF
        };
    }
    dup3(l, [a[0], a[1], 0, 0, 0, 0])
}

pub fn dup3(l: &mut Local, a: [usize; 6]) -> isize {
    let (old, new, flags) = (a[0] as i32, a[1] as i32, a[2]);
    let _guard = engine().lock.acquire(l);
    if flags as u32 as usize & !O_CLOEXEC != 0 || old == new {
        return -EINVAL;
    }
    let Some(file) = file_of(old).filter(|_| (new as u32 as usize) < limit()) else {
        return -EBADF;
    };
    if file_of(new).is_some() {
        announce(l, new);
        put_aside(l, new);
    }
    let r = sys!(DUP3, old, new, flags);
    entered_dup(r, file, flags & O_CLOEXEC != 0)
}

pub fn fcntl(l: &mut Local, a: [usize; 6]) -> isize {
    const F_DUPFD: usize = 0;
    const F_SETFD: usize = 2;
    const F_SETFL: usize = 4;
    const F_DUPFD_CLOEXEC: usize = 1030;
    const F_ADD_SEALS: usize = 1033;
    let (fd, cmd, arg) = (a[0] as i32, a[1], a[2]);
    if super::lock::is_command(cmd) {
        return super::lock::control(l, a);
    }
    let _guard = engine().lock.acquire(l);
    let Some(file) = file_of(fd) else {
        return -EBADF;
    };
    let duplicates = matches!(cmd, F_DUPFD | F_DUPFD_CLOEXEC);
    if duplicates && arg as u32 as usize >= limit() {
        return -EINVAL;
    }
    let r = sys!(FCNTL, fd, cmd, arg);
    match cmd {
        F_DUPFD | F_DUPFD_CLOEXEC => return entered_dup(r, file, cmd == F_DUPFD_CLOEXEC),
        F_ADD_SEALS if !failed(r) => super::memfd::sealed(fd),
        F_SETFD if !failed(r) => state().fds[fd as usize].cloexec = (arg & 1) as u8,
        F_SETFL if !failed(r) => {
            let f = open_file(file);
            let settable = O_APPEND | O_NONBLOCK | 0o40000;
            f.flags = (f.flags & !(settable as u32)) | (arg & settable) as u32;
        }
        _ => {}
    }
    r
}

/// Every open file that has a descriptor, with the lowest one. (To search for the number of
/// each takes its time where there are thousands.)
pub fn each_file() -> impl Iterator<Item = (i32, u32)> {
    let mut seen = [0u64; MAX_FILES / 64 + 1];
    (0..state().root.fd_high as i32).filter_map(move |fd| {
        let file = known_file(fd)?;
        let (word, bit) = (&mut seen[file as usize / 64], 1 << (file % 64));
        let is_first = *word & bit == 0;
        *word |= bit;
        is_first.then_some((fd, file))
    })
}

/// The lowest descriptor of an open file.
pub fn any_fd(file: u32) -> Option<i32> {
    let fds = &state().fds;
    (0..state().root.fd_high as usize)
        .find(|&fd| fds[fd].file as u32 == file)
        .map(|fd| fd as i32)
}
