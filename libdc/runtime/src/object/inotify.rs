//! inotify: watches of files (inotify(7)).
//!
//! state:     every watch, by instance and number: which file, by its path, and for what
//! intercept: inotify_init, inotify_add_watch, inotify_rm_watch
//! restore:   warm: they live on, if none was made or removed since the commit; else, and
//!            cold, the watches are made again under their numbers. What has happened
//!            meanwhile nobody has seen, so the program is told that its queue ran over
//!            (IN_Q_OVERFLOW), upon which programs look again
//! survives:  warm and cold

use super::descriptor::*;
use super::record;
use super::undo::place::AT_FDCWD;
use super::{about, process, pushback};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::recover::descriptors::install;
use crate::state::Kind;
use crate::sys;
use core::sync::atomic::{AtomicU32, Ordering::*};
use vista_core::journal::Record;

/// So many watches of a process are kept.
pub const WATCHES: usize = 1024;
const PATH: usize = 1004;

const IN_DONT_FOLLOW: usize = 0x200_0000;
const IN_MASK_CREATE: u32 = 0x1000_0000;
const IN_MASK_ADD: u32 = 0x2000_0000;
const IN_Q_OVERFLOW: u32 = 0x4000;

/// A watch of an instance.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Watch {
    /// The instance's open file; 0 is a free entry.
    file: u32,
    number: i32,
    mask: u32,
    len: u32,
    /// Ends in NUL.
    path: [u8; PATH],
    _pad: u32,
}

pub fn init(l: &mut Local, a: [usize; 6]) -> isize {
    let flags = if l.frame.nr == nr::INOTIFY_INIT1 {
        a[0]
    } else {
        0
    };
    if !has_numbers(1) {
        return -EMFILE;
    }
    let r = sys!(INOTIFY_INIT1, flags);
    if failed(r) {
        return r;
    }
    let Some(file) = new_file(Kind::Inotify) else {
        return -EMFILE;
    };
    open_file(file).flags = (flags & O_NONBLOCK) as u32;
    // An earlier instance may have had this place.
    for watch in watches().iter_mut().filter(|w| w.file == file) {
        watch.file = 0;
    }
    enter(r as i32, file, flags & O_CLOEXEC != 0);
    r
}

fn watches() -> &'static mut [Watch] {
    let root = &mut state().root;
    let high = root.watch_high as usize;
    &mut root.watches[..high]
}

/// What was closed before is no event of the watch.
pub fn add_watch(l: &mut Local, a: [usize; 6]) -> isize {
    super::deferred_close::close_before_wait(l);
    let _guard = engine().lock.acquire(l);
    let file = instance(a[0] as i32);
    changes(file);
    let r = sys!(INOTIFY_ADD_WATCH, a[0], a[1], a[2]);
    if failed(r) {
        return r;
    }
    if let Some(file) = file
        && !note(file, r as i32, a[1], a[2])
    {
        crate::say!(
            "more or longer watches of files (inotify) than are kept: one will not come back"
        );
    }
    r
}

fn instance(fd: i32) -> Option<u32> {
    file_of(fd).filter(|&file| open_file(file).kind == Kind::Inotify)
}

/// A rollback of this has the instance made again: the numbers that the kernel gives go on
/// from the last one, whatever was removed.
fn changes(file: Option<u32>) {
    if let Some(file) = file {
        record::append(record::WATCHED, &[&file.to_le_bytes()]);
    }
}

/// At a warm recovery: instances that the lost interval has changed. (One that other processes
/// have as well stays as it is.)
pub fn rewind() {
    for file in 1..=state().root.file_high {
        let f = open_file(file);
        if state().file_refs[file as usize - 1] == 0 || f.kind != Kind::Inotify || f.shared != 0 {
            continue;
        }
        let is_of_it = |r: &Record| record::value_of::<u32>(r.payload) == Some(file);
        let mut changes = record::own(0).filter(|r| r.kind == record::WATCHED);
        if changes.any(|r| is_of_it(&r))
            && let Some(fd) = any_fd(file)
        {
            let made = remake(file);
            if !failed(made) {
                install(file, made, fd);
            }
        }
    }
}

/// Instances that this recovery has made again: what was read of them is not fed again, for
/// the program is to look itself.
static ANEW: [AtomicU32; 16] = [const { AtomicU32::new(0) }; 16];

pub fn is_anew(file: u32) -> bool {
    ANEW.iter().any(|anew| anew.load(Relaxed) == file)
}

fn note(file: u32, number: i32, path: usize, mask: usize) -> bool {
    const O_PATH: usize = 0o10000000;
    const O_NOFOLLOW: usize = 0o400000;
    let (named, follow) = match mask & IN_DONT_FOLLOW {
        0 => (about::Path::followed(AT_FDCWD, path), 0),
        _ => (about::Path::not_followed(AT_FDCWD, path), O_NOFOLLOW),
    };
    let flags = O_PATH | O_CLOEXEC | follow;
    let fd = sys!(OPENAT, AT_FDCWD, named.address(), flags, 0);
    if failed(fd) {
        return false;
    }
    let mut absolute = [0u8; PATH];
    let len = process::fd_path(fd as i32, &mut absolute[..PATH - 1]);
    sys!(CLOSE, fd);
    let known = |w: &Watch| (w.file, w.number) == (file, number);
    let at = watches().iter().position(known);
    let root = &mut state().root;
    let high = root.watch_high as usize;
    let free = at.or_else(|| root.watches[..high].iter().position(|w| w.file == 0));
    let i = free.unwrap_or(high);
    if i == WATCHES || len == 0 {
        return false;
    }
    let watch = &mut root.watches[i];
    let before = match at {
        Some(_) if mask as u32 & IN_MASK_ADD != 0 => watch.mask,
        _ => 0,
    };
    (watch.file, watch.number, watch.len) = (file, number, len as u32);
    watch.mask = before | mask as u32 & !(IN_MASK_ADD | IN_MASK_CREATE);
    watch.path = absolute;
    root.watch_high = root.watch_high.max(i as u32 + 1);
    true
}

pub fn remove_watch(l: &mut Local, a: [usize; 6]) -> isize {
    let _guard = engine().lock.acquire(l);
    let file = instance(a[0] as i32);
    changes(file);
    let r = sys!(INOTIFY_RM_WATCH, a[0], a[1]);
    if failed(r) {
        return r;
    }
    let Some(file) = file else {
        return r;
    };
    for watch in watches() {
        if (watch.file, watch.number) == (file, a[1] as i32) {
            watch.file = 0;
        }
    }
    r
}

/// At a recovery.
pub fn remake(file: u32) -> isize {
    let made = sys!(INOTIFY_INIT1, O_NONBLOCK);
    if failed(made) {
        return made;
    }
    if let Some(place) = ANEW.iter().find(|anew| anew.load(Relaxed) == 0) {
        place.store(file, Relaxed);
    }
    // The kernel gives rising numbers, so the lowest comes first.
    let mut last = 0;
    while let Some(watch) = next_above(file, last) {
        last = watch.number;
        if !watch_again(made, watch) {
            let path = core::str::from_utf8(&watch.path[..watch.len as usize]).unwrap_or("?");
            crate::say!("{path} cannot be watched again (inotify)");
            watch.file = 0;
        }
    }
    drop_events(made);
    const F_SETFL: usize = 4;
    sys!(
        FCNTL,
        made,
        F_SETFL,
        open_file(file).flags as usize & O_NONBLOCK
    );
    // `struct inotify_event`: number, what, cookie, length of a name.
    let mut event = [0u8; 16];
    event[..4].copy_from_slice(&(-1i32).to_le_bytes());
    event[4..8].copy_from_slice(&IN_Q_OVERFLOW.to_le_bytes());
    if last != 0 {
        pushback::push(file, &event);
    }
    made
}

fn next_above(file: u32, number: i32) -> Option<&'static mut Watch> {
    let above = watches()
        .iter_mut()
        .filter(|w| w.file == file && w.number > number);
    above.min_by_key(|w| w.number)
}

/// Makes watches of the file until one has the number that the program knows.
fn watch_again(fd: isize, watch: &Watch) -> bool {
    loop {
        let got = sys!(INOTIFY_ADD_WATCH, fd, watch.path.as_ptr(), watch.mask);
        if got == watch.number as isize {
            return true;
        }
        if failed(got) || got > watch.number as isize {
            return false;
        }
        sys!(INOTIFY_RM_WATCH, fd, got);
        drop_events(fd);
    }
}

/// What this recovery has brought about itself. (What others did at the same time is in what
/// the program will look for.)
fn drop_events(fd: isize) {
    let mut events = [0u8; 4096];
    loop {
        let n = sys!(READ, fd, events.as_mut_ptr(), events.len());
        super::input::count_read(n);
        if n <= 0 {
            return;
        }
    }
}
