//! epoll: the interest list is kept in the state and made again at recovery.
//!
//! state:    entries of (epoll file, fd, events, data)
//! restore:  warm: the instance lives; changes since the commit are taken back, and
//!           every edge and single shot is armed again, because a worker that
//!           died in the call has taken some that no record tells of. Cold: a
//!           new instance with every entry of the commit. So an edge may be
//!           reported twice, but never not at all
//! survives: warm and cold
#![allow(unsafe_code)]

use super::descriptor::*;
use super::{pushback, record};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::run::{ends, has_company};
use crate::signal::calls::{end_mask, with_mask};
use crate::state::{EpollEntry, Kind, MAX_EPOLL};
use crate::sys;
use crate::thread;

const EPOLLIN: u32 = 1;
const EPOLLONESHOT: u32 = 1 << 30;
const EPOLLET: u32 = 1 << 31;
/// Bits that stay when a one-shot entry has fired.
const PRIVATE: u32 = 0xf << 28;
const CTL_ADD: usize = 1;
const CTL_DEL: usize = 2;
const CTL_MOD: usize = 3;

pub fn create(l: &mut Local, a: [usize; 6]) -> isize {
    if (a[0] as i32) <= 0 {
        return -EINVAL;
    }
    create1(l, [0; 6])
}

pub fn create1(_l: &mut Local, a: [usize; 6]) -> isize {
    if a[0] as u32 as usize & !O_CLOEXEC == 0 && !has_numbers(1) {
        return -EMFILE;
    }
    let r = sys!(EPOLL_CREATE1, a[0]);
    if failed(r) {
        return r;
    }
    let Some(file) = new_file(Kind::Epoll) else {
        return -EMFILE;
    };
    open_file(file).flags = 2;
    enter(r as i32, file, a[0] & O_CLOEXEC != 0);
    r
}

pub fn ctl(_l: &mut Local, a: [usize; 6]) -> isize {
    let fd = a[2] as i32;
    if a[1] as u32 as usize != CTL_DEL && event_at(a[3]).is_none() {
        return -EFAULT;
    }
    let (epoll, target) = match (file_of(a[0] as i32), file_of(fd)) {
        (Some(epoll), Some(target)) => (epoll, target),
        _ => return -EBADF,
    };
    let list = &mut state().epoll;
    let high = state().root.epoll_high as usize;
    let known = list[..high]
        .iter()
        .position(|e| e.epoll == epoll && e.fd == fd && e.target == target);
    if known.is_none() && a[1] == CTL_ADD && !has_room() {
        return -ENOSPC;
    }
    if crate::run::shared::is_changed_by_several(open_file(epoll)) {
        crate::say!(
            "an epoll set that several processes change comes back warm only; after the death of all \
             each has one of its own, with what it has entered itself"
        );
    }
    note_change(epoll, fd, known.map(|i| list[i]));
    let r = sys!(EPOLL_CTL, a[0], a[1], a[2], a[3]);
    if failed(r) {
        return r;
    }
    if a[1] == CTL_DEL {
        if let Some(i) = known {
            take_out(i);
        }
        return r;
    }
    let Some((events, data)) = event_at(a[3]) else {
        return -EFAULT;
    };
    let i = match known {
        Some(i) => i,
        None => {
            open_file(target).watched += 1;
            free_entry()
        }
    };
    list[i] = EpollEntry {
        epoll,
        target,
        fd,
        events,
        data,
        fed: 0,
        inherited: 0,
    };
    r
}

/// Where the search for a free entry begins: below, none is free. Of no state: after a
/// rollback it is only a guess, which [`free_entry`] and [`take_out`] keep right.
static mut FREE_FROM: usize = 0;

fn free_from() -> &'static mut usize {
    // SAFETY: under the big lock.
    unsafe { &mut *(&raw mut FREE_FROM) }
}

/// At recovery: entries are free again that were not.
fn forget_free() {
    *free_from() = 0;
}

/// Whether the table has room for one more; the kernel's own limit (max_user_watches,
/// epoll(7)) answers the same.
fn has_room() -> bool {
    (state().root.epoll_high as usize) < MAX_EPOLL
        || state().epoll[*free_from()..].iter().any(|e| e.epoll == 0)
}

fn free_entry() -> usize {
    let high = &mut state().root.epoll_high;
    let from = free_from();
    let i = (*from..*high as usize)
        .find(|&i| state().epoll[i].epoll == 0)
        .unwrap_or(*high as usize);
    *from = i + 1;
    *high = (*high).max(i as u32 + 1);
    i
}

fn take_out(i: usize) {
    let e = &mut state().epoll[i];
    let target = open_file(e.target);
    target.watched = target.watched.saturating_sub(1);
    e.epoll = 0;
    *free_from() = (*free_from()).min(i);
}

/// An entry of a set changes: what it was goes into the journal.
fn note_change(epoll: u32, fd: i32, old: Option<EpollEntry>) {
    let had = old.is_some();
    let old = old.unwrap_or(EpollEntry {
        epoll,
        target: 0,
        fd,
        events: 0,
        data: 0,
        fed: 0,
        inherited: 0,
    });
    record::append(
        record::EPOLL_CHANGED,
        &[record::bytes_of(&old), &(had as u32).to_le_bytes(), &[0; 4]],
    );
}

/// `struct epoll_event` is packed: events u32, data u64.
fn event_at(at: usize) -> Option<(u32, u64)> {
    let b = user::read::<[u8; 12]>(at)?;
    Some((
        u32::from_le_bytes(b[..4].try_into().ok()?),
        u64::from_le_bytes(b[4..].try_into().ok()?),
    ))
}

pub fn wait(l: &mut Local, a: [usize; 6]) -> isize {
    if let Some(r) = fed(l, &a) {
        return r;
    }
    if l.frame.nr != nr::EPOLL_WAIT
        && let Err(e) = with_mask(l, a[4], a[5])
    {
        return e;
    }
    let (n, args) = match l.frame.nr {
        nr::EPOLL_PWAIT2 => (nr::EPOLL_PWAIT2, [a[0], a[1], a[2], a[3], 0, 0]),
        _ => (nr::EPOLL_WAIT, [a[0], a[1], a[2], a[3], 0, 0]),
    };
    let r = thread::wait_or_signal(l, n, args);
    if has_company() {
        let reported = (0..r.max(0) as usize).map_while(|i| event_at(a[1] + i * 12));
        reported.for_each(|(events, _)| ends::met_in_events(events));
    }
    if l.frame.nr != nr::EPOLL_WAIT {
        end_mask(l);
    }
    if r > 0 {
        note_reported(l, &a, r as usize);
    }
    r
}

/// A single shot that was reported is over, once that is committed.
fn note_reported(l: &mut Local, a: &[usize; 6], n: usize) {
    let _guard = engine().lock.acquire(l);
    let Some(epoll) = known_file(a[0] as i32) else {
        return;
    };
    for i in 0..n {
        let Some((_, data)) = event_at(a[1] + i * 12) else {
            return;
        };
        let found = entries()
            .iter_mut()
            .find(|e| e.epoll == epoll && e.data == data && e.events & EPOLLONESHOT != 0);
        if let Some(e) = found {
            e.events &= PRIVATE;
        }
    }
}

/// In a replay, where epoll_wait is not made: single shots among `n` events at
/// the program's buffer are over, as they were. (Edges may come once more.)
pub fn reported_again(a: &[usize; 6], n: usize) {
    let (Some(epoll), epfd) = (known_file(a[0] as i32), a[0] as i32) else {
        return;
    };
    for i in 0..n {
        let Some((_, data)) = event_at(a[1] + i * 12) else {
            return;
        };
        let found = entries()
            .iter_mut()
            .find(|e| e.epoll == epoll && e.data == data && e.events & EPOLLONESHOT != 0);
        if let Some(e) = found {
            e.events &= PRIVATE;
            let e = *e;
            control(epfd, CTL_MOD, &e);
        }
    }
}

/// An entry whose input is fed again is ready.
fn fed(l: &mut Local, a: &[usize; 6]) -> Option<isize> {
    if !pushback::any() {
        return None;
    }
    let _guard = engine().lock.acquire(l);
    let epoll = file_of(a[0] as i32)?;
    let mut n = 0;
    let high = state().root.epoll_high as usize;
    for i in 0..high {
        let e = state().epoll[i];
        if e.epoll != epoll || e.events & EPOLLIN == 0 || n >= a[2] || !pushback::has(e.fd) {
            continue;
        }
        if e.events & EPOLLET != 0 && e.fed != 0 {
            continue;
        }
        let e = &mut state().epoll[i];
        e.fed = 1;
        let mut b = [0u8; 12];
        b[..4].copy_from_slice(&EPOLLIN.to_le_bytes());
        b[4..].copy_from_slice(&e.data.to_le_bytes());
        if e.events & EPOLLONESHOT != 0 {
            e.events &= PRIVATE;
        }
        user::write_bytes(a[1] + n * 12, &b);
        n += 1;
    }
    (n > 0).then_some(n as isize)
}

/// The entries that may be in use.
fn entries() -> &'static mut [EpollEntry] {
    let s = state();
    let high = s.root.epoll_high as usize;
    &mut s.epoll[..high]
}

/// A file ceases to exist: so do its entries. (The kernel would know by the
/// last close, which a rollback's sake delays.)
pub fn forget(file: u32, was: Kind) {
    if was != Kind::Epoll && open_file(file).watched == 0 {
        return;
    }
    for i in 0..state().root.epoll_high as usize {
        let e = state().epoll[i];
        if e.epoll == 0 || (e.epoll != file && e.target != file) {
            continue;
        }
        take_out(i);
        if e.target == file
            && e.epoll != file
            && let Some(epfd) = any_fd(e.epoll)
        {
            record::append(record::EPOLL_CHANGED, &[&e.epoll.to_le_bytes(), &[0; 4]]);
            sys!(EPOLL_CTL, epfd, CTL_DEL, e.fd, 0);
        }
    }
}

/// At warm recovery: the changes since the commit are taken back, newest
/// first, so that entries that did not change keep their edges.
pub fn roll_back() {
    forget_free();
    let changes = || record::own(0).filter(|r| r.kind == record::EPOLL_CHANGED);
    // Walked backwards, so many at a time.
    const MANY: usize = 2048;
    let mut offsets = [0u32; MANY];
    let mut end = changes().count();
    while end > 0 {
        let from = end.saturating_sub(MANY);
        let mut n = 0;
        for r in changes().skip(from).take(end - from) {
            offsets[n] = r.offset as u32;
            n += 1;
        }
        for &offset in offsets[..n].iter().rev() {
            take_back(offset);
        }
        end = from;
    }
}

fn take_back(offset: u32) {
    let Some(r) = record::own(offset as usize).next() else {
        return;
    };
    let Some(old) = record::value_of::<EpollEntry>(r.payload) else {
        return;
    };
    let had = r
        .payload
        .get(size_of::<EpollEntry>())
        .is_some_and(|&b| b != 0);
    let Some(epfd) = any_fd(old.epoll) else {
        return;
    };
    if !had {
        sys!(EPOLL_CTL, epfd, CTL_DEL, old.fd, 0);
    } else if failed(control(epfd, CTL_MOD, &old)) {
        control(epfd, CTL_ADD, &old);
    }
}

/// At recovery: a new instance, to be put on the file's descriptors.
pub fn remake(_file: u32) -> isize {
    sys!(EPOLL_CREATE1, 0)
}

/// At recovery: input that is fed again is an edge again.
pub fn forget_fed() {
    for e in entries().iter_mut().filter(|e| e.fed != 0) {
        e.fed = 0;
    }
}

/// At recovery, for a new instance, when every descriptor is in place.
pub fn fill(file: u32) {
    let Some(epfd) = any_fd(file) else { return };
    for e in entries().iter().filter(|e| e.epoll == file) {
        control(epfd, CTL_ADD, e);
    }
}

/// The kernel's sets give up a file that is about to be replaced by one like it.
pub fn forget_kernels(target: u32) {
    for e in entries() {
        if e.epoll != 0
            && e.target == target
            && let Some(epfd) = any_fd(e.epoll)
        {
            control(epfd, CTL_DEL, e);
        }
    }
}

fn control(epfd: i32, op: usize, e: &EpollEntry) -> isize {
    let mut b = [0u8; 12];
    b[..4].copy_from_slice(&e.events.to_le_bytes());
    b[4..].copy_from_slice(&e.data.to_le_bytes());
    // The number under which it was added, or another one of the file.
    let fd = if known_file(e.fd) == Some(e.target) {
        e.fd
    } else {
        any_fd(e.target).unwrap_or(-1)
    };
    sys!(EPOLL_CTL, epfd, op, fd, b.as_ptr())
}

/// In a child: what is in the sets was put there by its parent.
pub fn leave() {
    for e in entries().iter_mut().filter(|e| e.epoll != 0) {
        e.inherited = 1;
    }
}

/// At warm recovery: what was reported since the commit is reported again. What that was
/// is known to nobody: a worker may have died in the call, when the kernel had given it
/// its edges. So all are armed.
///
/// A signalfd wakes the set of the process that has put it there, and that one is dead: it
/// would be found ready by whoever looks, but wake nobody who waits (signalfd(2), NOTES). So
/// whoever has put it there does so again, and not a child that has the set from there.
pub fn arm() {
    for e in entries().iter().filter(|e| e.epoll != 0) {
        let Some(epfd) = any_fd(e.epoll) else {
            continue;
        };
        match open_file(e.target).kind {
            Kind::PidFd => {
                control(epfd, CTL_ADD, e);
            }
            Kind::SignalFd if e.inherited == 0 => {
                control(epfd, CTL_DEL, e);
                control(epfd, CTL_ADD, e);
            }
            _ => {}
        }
    }
    for e in entries() {
        if e.epoll != 0
            && e.events & (EPOLLET | EPOLLONESHOT) != 0
            && let Some(epfd) = any_fd(e.epoll)
        {
            control(epfd, CTL_MOD, e);
        }
    }
}
