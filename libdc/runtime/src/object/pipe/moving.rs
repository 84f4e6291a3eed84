//! Bytes go through a pipe that is state: no event, but a change that must not fall into a
//! commit.
//!
//! What lies in a pipe is saved by whoever has moved some, when all have stopped. So either the
//! call is made with the run's lock held, or, by the only thread of a process, with a word that
//! says so: a commit waits until nobody is moving anything before it asks the first one to stage
//! ([`crate::run::moving`]). Neither waits in the kernel.
#![allow(unsafe_code)]

use super::*;
use crate::machine::sys::raw6;
use crate::object::buffers::is_user;
use crate::run::moving::Moving;

/// read(2) and its like from a pipe that is state, or None if it is none.
pub fn read(l: &mut Local, nr: usize, a: [usize; 6]) -> Option<isize> {
    transfer(l, nr, a, |_, r| count_read(r))
}

/// write(2) and its like into a pipe that is state; None if it is none, or for a
/// long writev beside other threads, which is treated as output.
pub fn write(l: &mut Local, nr: usize, a: [usize; 6], len: usize) -> Option<isize> {
    let under_way = state().threads[l.slot as usize].moved_bytes != 0;
    if !under_way && (len <= PIPE_BUF || !may_block(l, a[0] as i32)) {
        transfer(l, nr, a, |l, r| {
            count_written(r);
            if r != len as isize {
                room_was_chance(l);
            }
        })
    } else if nr == nr::WRITE {
        write_in_parts(l, a)
    } else {
        None
    }
}

/// How much has room depends on how the bytes inside were written. The caller holds the
/// lock still under which the write was made: while it waited for it anew, another thread
/// could commit the bytes without what tells of them.
fn room_was_chance(l: &mut Local) {
    crate::event::non_deterministic(l);
}

/// Whether a call may wait for what another thread does.
fn may_block(l: &mut Local, fd: i32) -> bool {
    let _guard = engine().lock.acquire(l);
    let blocks = |file| open_file(file).flags as usize & O_NONBLOCK == 0;
    !crate::run::is_alone() && file_of(fd).is_some_and(blocks)
}

/// As much as has room at a time, so that the reader gets the lock meanwhile. How
/// much is done is state: a rollback into the middle goes on from there.
fn write_in_parts(l: &mut Local, a: [usize; 6]) -> Option<isize> {
    let [fd, addr, len, ..] = a;
    let done = |l: &Local| state().threads[l.slot as usize].moved_bytes;
    let r = loop {
        let args = [fd, addr + done(l), len - done(l), 0, 0, 0];
        let r = transfer(l, nr::WRITE, args, |l, r| {
            count_written(r);
            state().threads[l.slot as usize].moved_bytes += r.max(0) as usize;
        });
        if r.is_none_or(|r| r <= 0) || done(l) >= len {
            break r;
        }
    };
    if done(l) < len {
        let _guard = engine().lock.acquire(l);
        room_was_chance(l);
    }
    let done = core::mem::take(&mut state().threads[l.slot as usize].moved_bytes);
    if done > 0 {
        (l.interrupted, l.early) = (false, false);
        return Some(done as isize);
    }
    r
}

/// The same without the run's lock, or None where that is needed.
pub fn read_alone(l: &mut Local, a: [usize; 6]) -> Option<isize> {
    let file = alone_at(a, 0)?;
    engine().pieces.wake(a[1], a[1].saturating_add(a[2]));
    loop {
        let r = move_at_once(file, nr::READ, &a)?;
        if let Some(r) = r {
            fault_point(fault::AFTER_READ);
            count_read(r);
            return Some(r);
        }
        poll::wait_for(l, a[0] as i32, POLLIN).ok()?;
    }
}

/// The same without the run's lock. None where that is needed, or a part is written (which the
/// state tells) and the rest needs it.
pub fn write_alone(l: &mut Local, a: [usize; 6]) -> Option<isize> {
    let file = alone_at(a, 1)?;
    let [fd, addr, len, ..] = a;
    let slot = l.slot as usize;
    if state().threads[slot].moved_bytes != 0 {
        return None;
    }
    let mut done = 0;
    loop {
        let args = [fd, addr + done, len - done, 0, 0, 0];
        match move_at_once(file, nr::WRITE, &args)? {
            Some(r) => {
                count_written(r);
                done += r as usize;
                if done >= len {
                    break;
                }
                state().threads[slot].moved_bytes = done;
            }
            None => poll::wait_for(l, fd as i32, POLLOUT).ok()?,
        }
    }
    if state().threads[slot].moved_bytes != 0 {
        state().threads[slot].moved_bytes = 0;
    }
    Some(len as isize)
}

/// The file, if this is the only thread of its process, one of several, and calls for a pipe that
/// is state.
fn alone_at(a: [usize; 6], end: u32) -> Option<u32> {
    let [fd, addr, len, ..] = a;
    let e = engine();
    if e.thread_count.load(Relaxed) != 1 || e.shared.any() {
        return None;
    }
    let is_programs = (fd as i32) < e.boot.fd_base;
    let file = known_file(fd as i32).filter(|_| is_programs)?;
    let f = open_file(file);
    let is_plain = f.flags & (O_ACCMODE | O_NONBLOCK) as u32 == end && len > 0;
    (f.kind == Kind::Pipe && is_plain && is_user(addr, len)).then_some(file)
}

/// One part, or Some(None) if it would have to wait. None if this needs the lock.
fn move_at_once(file: u32, nr: usize, a: &[usize; 6]) -> Option<Option<isize>> {
    let _moving = Moving::begin()?;
    if !is_state_file(file) {
        return None;
    }
    touch(file);
    let r = at_once(nr, a);
    if !failed(r) {
        ends::met(r);
        return Some(Some(r));
    }
    (r == -EAGAIN || r == -EINTR).then_some(None)
}

pub(super) fn count_written(r: isize) {
    if r > 0 {
        crate::fatal::count_written(r as usize);
    }
}

/// Makes the call with the lock held, so that no commit falls between its effect
/// and what `note` makes of its result; waits without it.
fn transfer(
    l: &mut Local,
    nr: usize,
    a: [usize; 6],
    note: impl Fn(&mut Local, isize),
) -> Option<isize> {
    let fd = a[0] as i32;
    let reads = matches!(nr, nr::READ | nr::READV | nr::PREADV2);
    let ready = if reads { POLLIN } else { POLLOUT };
    loop {
        let guard = engine().lock.acquire(l);
        if !is_state(fd) {
            return None;
        }
        let file = file_of(fd)?;
        let f = open_file(file);
        let threads = !crate::run::is_alone();
        let blocks = f.flags as usize & O_NONBLOCK == 0;
        if threads && blocks {
            touch(file);
            let mut r = at_once(nr, &a);
            if r == -EOPNOTSUPP {
                // The kernel knows no such call for a pipe that was opened by its link in
                // /proc, or this one has flags of its own.
                // SAFETY: the program's own call with its own arguments.
                r = pty::without_waiting(fd, || unsafe { raw6(nr, a) });
            }
            if r != -EAGAIN && r != -EINTR {
                ends::met(r);
                if reads {
                    fault_point(fault::AFTER_READ);
                }
                note(l, r);
                return Some(r);
            }
            drop(guard);
            match poll::wait_for(l, fd, ready) {
                Ok(()) => continue,
                Err(e) => return Some(e),
            }
        }
        touch(file);
        loop {
            // SAFETY: the program's own call with its own arguments.
            let r = unsafe { entry::interruptible(nr, &a) };
            ends::met(r);
            if r != -EINTR {
                if reads {
                    fault_point(fault::AFTER_READ);
                }
                note(l, r);
                return Some(r);
            }
            if thread::signal_waits(l) {
                thread::broken_off(l, fd, ready);
                return Some(r);
            }
            thread::wait_on(l);
            if crate::event::takes_tick_in_wait(l) {
                crate::commit::commit(l);
            }
        }
    }
}

/// The call as one that does not wait, which reads what is there and writes what has room, or
/// says EAGAIN. (A poll would not tell: a pipe without a free page counts as full
/// for it, and may have room in its last one all the same. Where a user has many pipes, a new
/// one has a single page: pipe(7).)
fn at_once(nr: usize, a: &[usize; 6]) -> isize {
    const RWF_NOWAIT: usize = 8;
    const AT_POSITION: isize = -1;
    let one = [a[1], a[2]];
    match nr {
        nr::READ => sys!(PREADV2, a[0], one.as_ptr(), 1, AT_POSITION, 0, RWF_NOWAIT),
        nr::READV => sys!(PREADV2, a[0], a[1], a[2], AT_POSITION, 0, RWF_NOWAIT),
        nr::WRITE => sys!(PWRITEV2, a[0], one.as_ptr(), 1, AT_POSITION, 0, RWF_NOWAIT),
        nr::WRITEV => sys!(PWRITEV2, a[0], a[1], a[2], AT_POSITION, 0, RWF_NOWAIT),
        _ => -EOPNOTSUPP,
    }
}
