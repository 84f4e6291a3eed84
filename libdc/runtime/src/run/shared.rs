//! What several processes know of one open file description: the offset of a file, what
//! lies in a pipe, the count of an eventfd.
//!
//! A fork copies the table of open files, so from then on each process has a record of its
//! own for a description that is one. What changes in it without a call of theirs is kept
//! once, in the run's image: whoever has moved it puts it there in its part of a commit.
//! After a rollback all find the same.
//!
//! Memory that is shared without a file (MAP_SHARED | MAP_ANONYMOUS) becomes a file beside
//! the image when it is first inherited, and is then kept as mapped files are
//! ([`crate::space::shared`]).
#![allow(unsafe_code)]

use super::{BASE, image, process, run, together};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::object::descriptor::{self, any_fd, open_file};
use crate::object::stat::Stat;
use crate::object::{limits, pipe, pty, regular, socket};
use crate::space::{self, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE};
use crate::state::{Kind, OWN, OpenFile, RECEIVED};
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::boot::high_fd;
use dc_image::run::{
    CONTENTS_LEN, CONTENTS_OFFSET, SETTINGS_OFFSET, SHARED_MAX, SHARED_OFFSET, Settings, Shared,
};

/// An entry of the table.
pub fn entry(at: usize) -> &'static Shared {
    debug_assert!(at < SHARED_MAX);
    // SAFETY: mapped for the life of the worker; all of it is atomic.
    unsafe { &*((BASE + SHARED_OFFSET) as *const Shared).add(at) }
}

/// The entry of an open file, if it has one.
pub fn of(f: &OpenFile) -> Option<(usize, &'static Shared)> {
    let at = (f.shared as usize).checked_sub(1)?;
    (at < SHARED_MAX).then(|| (at, entry(at)))
}

/// The bytes of one of the two places of a pipe.
pub fn contents(at: usize, place: usize) -> *mut u8 {
    (BASE + CONTENTS_OFFSET + (at * 2 + place) * CONTENTS_LEN) as *mut u8
}

/// The first bytes of one of the two places.
pub fn inside(at: usize, place: usize, len: usize) -> &'static [u8] {
    // SAFETY: mapped for the life of the worker; only a commit writes there, and only into
    // the place that does not hold.
    unsafe { core::slice::from_raw_parts(contents(at, place), len.min(CONTENTS_LEN)) }
}

/// Puts bytes into the place that the commit to come may write.
pub fn put_inside(at: usize, place: usize, from: usize, bytes: &[u8]) {
    let n = bytes.len().min(CONTENTS_LEN.saturating_sub(from));
    // SAFETY: mapped for the life of the worker; `n` bytes from there on lie in the place.
    unsafe {
        let to = contents(at, place).wrapping_add(from);
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, n);
    }
}

/// What a terminal that the run has made is set to, in one of two places.
pub fn settings(at: usize, place: usize) -> &'static mut Settings {
    let at = BASE + SETTINGS_OFFSET + (at * 2 + place) * size_of::<Settings>();
    // SAFETY: mapped for the life of the worker; under the big lock.
    unsafe { &mut *(at as *mut Settings) }
}

/// A terminal that the run has made is state from its opening on, for its session may be
/// another process's.
pub fn enter_pty(f: &mut OpenFile, ino: u64) -> Result<usize, isize> {
    let at = free().ok_or(-ENFILE)?;
    let s = entry(at);
    s.begin(ino);
    s.holder.store(engine().slot as u32 + 1, Relaxed);
    f.shared = at as u32 + 1;
    Ok(at)
}

fn published() -> u64 {
    engine().store.published()
}

/// The entry of a socket, if it has one or can have one. Some are left for what a fork
/// cannot do without.
pub fn enter_socket(file: u32) -> Option<usize> {
    const MOST: usize = SHARED_MAX - 400;
    let f = open_file(file);
    if let Some((at, _)) = of(f) {
        return Some(at);
    }
    let ino = Stat::of_fd(any_fd(file)?).ok()?.ino;
    let at = free().filter(|&at| at < MOST)?;
    entry(at).begin(ino);
    belongs(file, at);
    Some(at)
}

/// A socket that came from another process of the run: the same entry.
pub fn join_socket(file: u32, at: usize) {
    let s = entry(at);
    s.users.fetch_add(1, Relaxed);
    s.free_from.store(0, Relaxed);
    let on_its_way = s.on_its_way.load(Relaxed);
    s.on_its_way.store(on_its_way.saturating_sub(1), Relaxed);
    belongs(file, at);
}

/// The entry of a pipe of the run, which both of its ends have in common.
pub fn enter_pipe(file: u32) -> Option<(usize, &'static Shared)> {
    let f = open_file(file);
    if f.shared == 0 {
        enter(file, f).ok()?;
        // The other end too: who has that one looks inside as well.
        let peer = f.peer;
        let is_here = any_fd(peer).is_some() && open_file(peer).shared == 0;
        if is_here && enter(peer, open_file(peer)).is_err() {
            crate::say!("there are more pipes than processes can share: one may not come back");
        }
    }
    of(f)
}

/// A pipe that came from another process of the run: the same entry. False if it is none.
pub fn join_pipe(f: &mut OpenFile) -> bool {
    let Some(at) = (0..run().shared_high.load(Relaxed) as usize).find(|&at| {
        let s = entry(at);
        let is_used = s.users.load(Relaxed) != 0 || s.on_its_way.load(Relaxed) != 0;
        is_used && s.ino.load(Relaxed) == f.ino && f.ino != 0
    }) else {
        return false;
    };
    let s = entry(at);
    s.users.fetch_add(1, Relaxed);
    s.free_from.store(0, Relaxed);
    let on_its_way = s.on_its_way.load(Relaxed);
    s.on_its_way.store(on_its_way.saturating_sub(1), Relaxed);
    f.shared = at as u32 + 1;
    true
}

fn belongs(file: u32, at: usize) {
    open_file(file).shared = at as u32 + 1;
    entry(at).holder.store(engine().slot as u32 + 1, Relaxed);
    state().root.socket_ends += 1;
}

/// Before a fork: every description whose state is more than its flags gets an entry.
pub fn before_fork(_l: &mut Local) -> Result<(), isize> {
    share_memory()?;
    crate::object::inherited_memory::become_files()?;
    for file in 1..=state().root.file_high {
        if state().file_refs[file as usize - 1] == 0 {
            continue;
        }
        let f = open_file(file);
        let wanted = match f.kind {
            Kind::Regular | Kind::Directory => regular::rewinds(f),
            Kind::Other => crate::object::proc_file::rewinds(f),
            Kind::Pipe => f.peer != 0,
            Kind::EventFd | Kind::Epoll => true,
            Kind::Socket if matches!(f.inherited, OWN | RECEIVED) => {
                // Without an entry each process makes its own again.
                let _ = any_fd(file).and_then(|_| enter_socket(file));
                false
            }
            _ => false,
        };
        // What is only mapped has no offset, but a name that may have to be kept.
        let is_used = any_fd(file).is_some() || is_mapped(file);
        if wanted && f.shared == 0 && is_used {
            enter(file, f)?;
        }
    }
    Ok(())
}

/// Whether stores into an open file's mapping are seen by others.
fn is_mapped(file: u32) -> bool {
    let shared = |v: &crate::state::Vma| v.file == file && v.flags & 3 != MAP_PRIVATE;
    open_file(file).kind == Kind::Regular && space::areas().iter().any(shared)
}

/// A process of several has mapped a file: whoever takes its last name away is to know that
/// somebody needs it. (Before a fork nobody else can.)
pub fn mapped(file: u32) {
    let f = open_file(file);
    if super::is_tree() && f.shared == 0 && f.kind == Kind::Regular && regular::rewinds(f) {
        // Without an entry it is as before: found as long as it has a name.
        let _ = enter(file, f);
    }
}

fn enter(file: u32, f: &mut OpenFile) -> Result<(), isize> {
    if f.kind == Kind::Pipe {
        if f.ino == 0
            && let Some(fd) = any_fd(file)
            && let Ok(st) = Stat::of_fd(fd)
        {
            (f.dev, f.ino) = (st.dev, st.ino);
        }
        if let Some(at) = with_ino(f.ino) {
            entry(at).users.fetch_add(1, Relaxed);
            f.shared = at as u32 + 1;
            return Ok(());
        }
    }
    let at = free().ok_or(-ENFILE)?;
    let s = entry(at);
    s.begin(f.ino);
    f.shared = at as u32 + 1;
    crate::object::lock::becomes_shared(file, s);
    match f.kind {
        Kind::Pipe => pipe::touched(),
        Kind::Epoll => s.made[1].store(0, Relaxed),
        // The state of the last commit, until the next one.
        _ => f.touched = 0,
    }
    if f.kind != Kind::Epoll {
        regular::touch(file);
    }
    Ok(())
}

/// A fifo is entered when it is opened, for others open it by themselves. False if there is no
/// room.
pub fn enter_fifo(f: &mut OpenFile, key: u64) -> bool {
    let at = match with_ino(key) {
        Some(at) => {
            entry(at).users.fetch_add(1, Relaxed);
            entry(at).free_from.store(0, Relaxed);
            at
        }
        None => {
            let Some(at) = free() else { return false };
            entry(at).begin(key);
            at
        }
    };
    f.shared = at as u32 + 1;
    true
}

/// The entry of the pipe with this inode, or of a terminal.
pub fn with_ino(ino: u64) -> Option<usize> {
    (0..run().shared_high.load(Relaxed) as usize).find(|&at| {
        let s = entry(at);
        s.users.load(Relaxed) != 0 && s.ino.load(Relaxed) == ino && ino != 0
    })
}

/// The entry of the socket with this inode, also if nobody has it: it may be on its way in a
/// message.
pub fn socket_with_ino(ino: u64) -> Option<usize> {
    let published = published();
    (0..run().shared_high.load(Relaxed) as usize).find(|&at| {
        let s = entry(at);
        let is_used = s.users.load(Relaxed) != 0 || s.on_its_way.load(Relaxed) != 0;
        is_used && s.ino.load(Relaxed) == ino && ino != 0 && !s.is_free_at(published)
    })
}

/// Whether some process of the run may have a file with this inode open by a description
/// that was inherited, now or in the state of the last commit.
pub fn has_file(ino: u64) -> bool {
    let published = published();
    (0..run().shared_high.load(Relaxed) as usize).any(|at| {
        let s = entry(at);
        let in_use = s.users.load(Acquire) != 0 || s.free_from.load(Relaxed) > published;
        in_use && s.ino.load(Relaxed) == ino
    })
}

fn free() -> Option<usize> {
    let published = published();
    let at = (0..SHARED_MAX).find(|&at| {
        let s = entry(at);
        s.users.load(Relaxed) == 0 && s.free_from.load(Relaxed) <= published
    })?;
    run().shared_high.fetch_max(at as u32 + 1, Relaxed);
    Some(at)
}

/// A child was made: it means all that this process means.
pub fn forked() {
    each_of_own(|_, s| {
        s.users.fetch_add(1, Relaxed);
    });
}

/// This process ends.
pub fn leave_all() {
    each_of_own(|_, s| leave(s));
}

fn each_of_own(mut f: impl FnMut(usize, &Shared)) {
    for file in 1..=state().root.file_high {
        if state().file_refs[file as usize - 1] != 0
            && let Some((at, s)) = of(open_file(file))
        {
            f(at, s);
        }
    }
}

/// An open file of this process is gone.
pub fn leave(s: &Shared) {
    socket::pair::left_by_holder(s);
    // Before the count, so that nobody takes it in between.
    s.free_from.store(s.when_left(published()), Relaxed);
    if s.users.fetch_sub(1, Release) > 1 {
        s.free_from.store(0, Relaxed);
    }
}

/// At a recovery: this process means them again.
pub fn join_all(warm: bool) {
    each_of_own(|at, s| {
        s.users.fetch_add(1, Relaxed);
        s.free_from.store(0, Relaxed);
        socket::pair::joined(at, s, warm);
        pty::joined(s);
    });
}

/// Memory that a child would share with its parent becomes a file beside the image.
fn share_memory() -> Result<(), isize> {
    for i in 0..space::areas().len() {
        let v = space::areas()[i];
        if v.file == 0 && v.flags & 3 != MAP_PRIVATE {
            share_area(&v)?;
        }
    }
    Ok(())
}

fn share_area(v: &crate::state::Vma) -> Result<(), isize> {
    const O_RDWR_CREAT_EXCL: usize = 2 | 0o100 | 0o200;
    const O_CLOEXEC: usize = 0o2000000;
    let (from, len) = (v.start as usize, (v.end - v.start) as usize);
    engine().pieces.wake(from, from + len);
    let number = run().shared_memory.fetch_add(1, Relaxed);
    let name = image::name(format_args!("shared-{number}"));
    let dir = engine().high_fd(high_fd::IMAGES);
    let fd = sys!(
        OPENAT,
        dir,
        name.as_bytes().as_ptr(),
        O_RDWR_CREAT_EXCL | O_CLOEXEC,
        0o600
    );
    if failed(fd) {
        return Err(fd);
    }
    let fd = crate::reserved::move_high(fd, high_fd::SCRATCH);
    let r = fill(fd, from, len);
    if failed(r) {
        sys!(CLOSE, fd);
        return Err(r);
    }
    let mut path = [0u8; 512];
    let n = crate::object::process::fd_path(fd, &mut path);
    let st = Stat::of_fd(fd);
    let (Some(file), Ok(st)) = (descriptor::new_file(Kind::Regular), st) else {
        sys!(CLOSE, fd);
        return Err(-ENFILE);
    };
    let f = open_file(file);
    f.flags = 2;
    f.mode = st.mode;
    (f.dev, f.ino) = (st.dev, st.ino);
    descriptor::set_path(f, &path[..n]);
    let mut area = *v;
    area.file = file;
    area.offset = 0;
    area.flags &= !MAP_ANONYMOUS;
    area.tracked = 0;
    let prot = space::shared::real_prot(&area);
    let flags = (area.flags | MAP_FIXED) as usize;
    let r = sys!(MMAP, from, len, prot, flags, fd, 0);
    sys!(CLOSE, fd);
    if failed(r) {
        descriptor::release(file);
        return Err(r);
    }
    let advised = space::advice::give_to(&area);
    space::insert(area);
    advised
}

/// Writes what memory holds into a file, but for pages of zeros.
fn fill(fd: i32, from: usize, len: usize) -> isize {
    let r = limits::lifted(limits::RLIMIT_FSIZE, || sys!(FTRUNCATE, fd, len));
    if failed(r) {
        return r;
    }
    let e = engine();
    let mut at = from;
    while at < from + len {
        let Ok((n, walked)) = crate::uffd::present(at, from + len, e.regions) else {
            // It cannot be told: all of it.
            let r = sys!(PWRITE64, fd, from, len, 0);
            crate::fatal::count_written(r.max(0) as usize);
            return r;
        };
        for i in 0..n {
            // SAFETY: the kernel filled the first n entries.
            let region = unsafe { *e.regions.add(i) };
            let (start, end) = (region.start as usize, region.end as usize);
            let r = sys!(PWRITE64, fd, start, end - start, start - from);
            crate::fatal::count_written(r.max(0) as usize);
            if failed(r) {
                return r;
            }
        }
        if walked <= at {
            break;
        }
        at = walked;
    }
    0
}

/// The descriptor that another process has made again for an entry: a copy of it here.
pub fn fetch_made(s: &Shared, which: usize) -> isize {
    let maker = s.maker.load(Acquire) as usize;
    if maker == 0 {
        return -EBADF;
    }
    let real = process(maker - 1).real.load(Relaxed);
    let r = fetch(real, s.made[which].load(Acquire));
    if r == -ESRCH {
        together::await_failure();
    }
    r
}

/// A copy of another process's descriptor.
pub fn fetch(pid: i32, fd: i32) -> isize {
    let pidfd = sys!(PIDFD_OPEN, pid, 0);
    if failed(pidfd) {
        return pidfd;
    }
    let pidfd = crate::reserved::move_high(pidfd, high_fd::SCRATCH);
    let r = sys!(PIDFD_GETFD, pidfd, fd, 0);
    sys!(CLOSE, pidfd);
    r
}

/// This process changes something of which each has a table of its own (an epoll set). True
/// if another one has done so as well.
pub fn is_changed_by_several(f: &OpenFile) -> bool {
    let own = engine().slot as i32 + 1;
    of(f).is_some_and(|(_, s)| {
        let last = s.made[1].swap(own, Relaxed);
        s.users.load(Relaxed) > 1 && last != 0 && last != own
    })
}

/// Whether this process is the one that makes an entry again.
pub fn claim(s: &Shared) -> bool {
    let own = engine().slot as u32 + 1;
    s.maker.compare_exchange(0, own, SeqCst, SeqCst).is_ok()
}
