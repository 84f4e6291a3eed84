//! Deferred closes: a number that the program closes or replaces is put aside until the
//! next commit, so that a rollback can give it back, unless it came into being since.
//!
//! What others notice at once (the end of a pipe) is closed at once; what they notice later
//! (an event of inotify) before a thread waits.

use super::descriptor::{O_CLOEXEC, open_file, release};
use super::record;
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::object::stat::*;
use crate::state::*;
use crate::{reserved, sys};
use dc_image::boot::high_fd;

/// Descriptors put aside in this interval, and those made in it.
#[repr(C)]
pub struct Deferred {
    len: i32,
    any_parked: bool,
    /// Others may notice that one of them is not closed yet.
    is_noticed: bool,
    any_fresh: bool,
    /// Whose they are. What they hold open others see as open.
    files: [u32; high_fd::DEFERRED_COUNT as usize],
    fresh: [u64; MAX_FDS / 64],
    /// Numbers whose files the program has locked by now: closing one would give the
    /// lock away, so it stays where it is. (Even a dup2 over it counts as a close.)
    parked: [(u64, u64); high_fd::DEFERRED_COUNT as usize],
}

impl Deferred {
    pub const fn new() -> Deferred {
        Deferred {
            len: 0,
            parked: [(0, 0); high_fd::DEFERRED_COUNT as usize],
            any_parked: false,
            files: [0; high_fd::DEFERRED_COUNT as usize],
            is_noticed: false,
            fresh: [0; MAX_FDS / 64],
            any_fresh: false,
        }
    }
    pub fn is_fresh(&self, fd: i32) -> bool {
        self.fresh[fd as usize / 64] & (1 << (fd % 64)) != 0
    }
    pub fn set_fresh(&mut self, fd: i32) {
        self.fresh[fd as usize / 64] |= 1 << (fd % 64);
        self.any_fresh = true;
    }
    /// Whether a descriptor of this file was put aside, which holds it open until the commit.
    pub fn holds(&self, file: u32) -> bool {
        self.files[..self.len as usize].contains(&file)
    }
    /// In a child: nothing of its parent's was put aside by it.
    pub fn leave(&mut self) {
        self.len = 0;
        self.is_noticed = false;
        if self.any_parked {
            self.parked = [(0, 0); high_fd::DEFERRED_COUNT as usize];
            self.any_parked = false;
        }
    }
    /// How many of the reserved numbers may be in use.
    pub fn used(&self) -> i32 {
        match self.any_parked {
            true => high_fd::DEFERRED_COUNT,
            false => self.len,
        }
    }
    fn clear_fresh(&mut self, fd: i32) {
        self.fresh[fd as usize / 64] &= !(1 << (fd % 64));
    }
}

/// Takes a number out of the table, so that a rollback can give it back.
pub fn put_aside(l: &mut Local, fd: i32) {
    let e = engine();
    let file = state().fds[fd as usize].file as u32;
    let last = state().file_refs[file as usize - 1] == 1;
    if last && open_file(file).shared != 0 {
        match open_file(file).kind {
            Kind::Pipe => super::pipe::before_close(file, fd),
            _ => super::regular::save_offset(file),
        }
    }
    let peers_notice =
        last && matches!(open_file(file).kind, Kind::Pipe | Kind::Socket | Kind::Tty);
    if e.deferred.is_fresh(fd) || peers_notice || !e.tracking {
        // A rollback has no use for it, or the close is itself an output.
        e.deferred.clear_fresh(fd);
        sys!(CLOSE, fd);
    } else {
        skip_parked();
        if e.deferred.len == high_fd::DEFERRED_COUNT {
            crate::commit::commit(l);
            skip_parked();
        }
        if e.deferred.len == high_fd::DEFERRED_COUNT {
            // All of them are parked. The close is final: it is committed before.
            sys!(CLOSE, fd);
            state().fds[fd as usize] = Descriptor::default();
            return release(file);
        }
        let to = e.high_fd(high_fd::DEFERRED) + e.deferred.len;
        record::append(record::DEFERRED, &[&fd.to_le_bytes(), &to.to_le_bytes()]);
        e.deferred.files[e.deferred.len as usize] = file;
        e.deferred.len += 1;
        e.deferred.is_noticed |= may_be_noticed(open_file(file));
        sys!(DUP3, fd, to, O_CLOEXEC);
        sys!(CLOSE, fd);
    }
    state().fds[fd as usize] = Descriptor::default();
    release(file);
}

/// Whether anybody can tell a late close from one in time: who watches a file that was open
/// for writing (inotify(7)), or has the other end of something.
fn may_be_noticed(f: &OpenFile) -> bool {
    match f.kind {
        Kind::Regular | Kind::Directory | Kind::Device => f.flags & 3 != 0,
        _ => true,
    }
}

/// Before a thread waits, perhaps for what a close brings about: closes become final. (Where
/// a log is kept they wait for the commit that the log waits for: it would end with each.)
#[inline]
pub fn close_before_wait(l: &mut Local) {
    if reserved::has_left_open() {
        let _guard = engine().lock.acquire(l);
        reserved::close_left_open();
    }
    if engine().deferred.is_noticed && !crate::event::is_behind() && !crate::log::is_kept() {
        let _guard = engine().lock.acquire(l);
        crate::event::commit_and_move(l);
    }
}

/// umount2(2): nothing of the runtime's own is to keep the file system busy.
pub fn unmount(l: &mut Local, a: [usize; 6]) -> isize {
    let guard = engine().lock.acquire(l);
    if engine().deferred.used() > 0 {
        crate::commit::commit(l);
    }
    reserved::close_left_open();
    drop(guard);
    crate::table::around(l, a, None)
}

/// After a commit: closes are final.
pub fn make_final() {
    super::socket::handed::forget();
    let e = engine();
    let deferred = &mut e.deferred;
    let first = e.boot.fd_base + high_fd::DEFERRED;
    if state().root.lock_high != 0 || deferred.any_parked {
        close_unlocked(first);
    } else if deferred.len > 0 {
        sys!(CLOSE_RANGE, first, first + deferred.len - 1, 0);
    }
    deferred.len = 0;
    deferred.is_noticed = false;
    if deferred.any_fresh {
        // (Above the highest descriptor there was none. In a child each page is a copy.)
        let words = (state().root.fd_high as usize).div_ceil(64);
        deferred.fresh[..words].fill(0);
        deferred.any_fresh = false;
    }
}

fn close_unlocked(first: i32) {
    let deferred = &mut engine().deferred;
    let used = deferred.used();
    deferred.any_parked = false;
    for i in 0..used {
        let parked = deferred.parked[i as usize];
        let (dev, ino) = match parked {
            (0, 0) if i >= deferred.len => continue,
            (0, 0) => Stat::of_fd(first + i).map_or((0, 0), |st| (st.dev, st.ino)),
            parked => parked,
        };
        if super::lock::holds_posix(dev, ino) {
            deferred.parked[i as usize] = (dev, ino);
            deferred.any_parked = true;
        } else {
            deferred.parked[i as usize] = (0, 0);
            sys!(CLOSE, first + i);
        }
    }
}

fn skip_parked() {
    let deferred = &mut engine().deferred;
    while deferred.len < high_fd::DEFERRED_COUNT && deferred.parked[deferred.len as usize] != (0, 0)
    {
        deferred.files[deferred.len as usize] = 0;
        deferred.len += 1;
    }
}

/// At recovery: whatever was put aside goes, but for files that the program has
/// locked.
pub fn close_all() {
    let e = engine();
    let first = e.high_fd(high_fd::DEFERRED);
    if !super::lock::any_posix() {
        sys!(CLOSE_RANGE, first, first + high_fd::DEFERRED_COUNT - 1, 0);
        return;
    }
    for i in 0..high_fd::DEFERRED_COUNT {
        let Ok(st) = Stat::of_fd(first + i) else {
            continue;
        };
        if super::lock::holds_posix(st.dev, st.ino) {
            e.deferred.parked[i as usize] = (st.dev, st.ino);
            e.deferred.any_parked = true;
        } else {
            sys!(CLOSE, first + i);
        }
    }
}
