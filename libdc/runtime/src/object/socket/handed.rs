//! Descriptors that came in messages (SCM_RIGHTS) of an interval that was lost.
//!
//! The message is in the journal and is fed again, but its descriptors have no place in the
//! table that is restored. They are put aside under numbers of the runtime's, which stand in
//! the message instead of the old ones until it is fed. So each comes once.
//!
//! (Cold they are lost, and the socket that brought them is reset.)

use crate::engine::{engine, state};
use crate::machine::sys::failed;
use crate::object::message;
use crate::object::{descriptor, pushback, record};
use crate::run::me;
use crate::sys;
use core::sync::atomic::{AtomicBool, Ordering::*};
use dc_image::boot::high_fd;
use vista_core::journal::Record;

const COUNT: i32 = high_fd::HANDED_COUNT;

/// Whether any is put aside.
static ANY: AtomicBool = AtomicBool::new(false);

fn place(i: i32) -> i32 {
    engine().high_fd(high_fd::HANDED) + i
}

/// The place of a number, if it is one.
fn place_of(fd: i32) -> Option<i32> {
    let i = fd - place(0);
    (0..COUNT).contains(&i).then_some(i)
}

/// The first place that no message of the state means.
fn first_free() -> i32 {
    let mut free = 0;
    pushback::each_control(|control| {
        message::each_descriptor(control, |fd| {
            free = free.max(place_of(fd).map_or(0, |i| i + 1));
        });
    });
    free
}

/// The messages of this process in the journal, with the first place of their descriptors.
fn received(first_free: i32) -> impl Iterator<Item = (Record<'static>, i32)> {
    let mut next = first_free;
    record::own(0)
        .filter(|r| r.kind == record::MESSAGE)
        .map(move |r| {
            let first = next;
            message::each_descriptor(message::control_of(r.payload), |_| next += 1);
            (r, first)
        })
}

/// At a warm recovery, while descriptors are still as the dead worker had them.
pub fn keep(since: usize) {
    let own = engine().slot == 0;
    let companion = me().companion.load(Relaxed);
    let pidfd = match own {
        true => -1,
        false => sys!(PIDFD_OPEN, companion, 0),
    };
    if !own && failed(pidfd) {
        return;
    }
    let pidfd = match own {
        true => -1,
        false => crate::reserved::move_high(pidfd, high_fd::SCRATCH),
    };
    let get = |fd: i32, i: i32| {
        ANY.store(true, Relaxed);
        let it = match own {
            true => fd as isize,
            false => sys!(PIDFD_GETFD, pidfd, fd, 0),
        };
        if failed(it) || it as i32 == place(i) || i >= COUNT {
            return;
        }
        sys!(DUP3, it, place(i), descriptor::O_CLOEXEC);
        if !own {
            sys!(CLOSE, it);
        }
    };
    let free = first_free();
    (0..free).for_each(|i| get(place(i), i));
    for (r, first) in received(free) {
        let mut i = first;
        message::each_descriptor(message::control_of(r.payload), |fd| {
            // What an earlier recovery has put aside is there.
            get(if r.offset < since { place(i) } else { fd }, i);
            i += 1;
        });
    }
    if !own {
        sys!(CLOSE, pidfd);
    }
}

/// The numbers that descriptors have until they are fed.
pub struct Numbers {
    first_free: i32,
}

impl Numbers {
    /// Before any message of the journal waits to be fed.
    pub fn new() -> Numbers {
        Numbers {
            first_free: first_free(),
        }
    }

    /// Puts them into the message whose record lies at `offset` of the journal.
    pub fn put_into(&self, payload: &mut [u8], offset: usize) {
        let record = received(self.first_free).find(|(r, _)| r.offset == offset);
        let mut i = record.map_or(COUNT, |(_, first)| first);
        message::renumber(payload, |_| {
            i += 1;
            if i <= COUNT { place(i - 1) } else { -1 }
        });
    }
}

/// A message is fed: its descriptors get numbers of the program's. Whether it has any.
/// `payload` is its record, in the journal or behind it.
pub fn give(payload: &[u8], control: &mut [u8], cloexec: bool) -> bool {
    const F_DUPFD: usize = 0;
    const F_DUPFD_CLOEXEC: usize = 1030;
    let how = if cloexec { F_DUPFD_CLOEXEC } else { F_DUPFD };
    let in_journal = received(first_free()).find(|(r, _)| r.payload.as_ptr() == payload.as_ptr());
    let mut at = in_journal.map(|(_, first)| place(first));
    let mut any = false;
    message::renumber_control(control, |fd| {
        any = true;
        let from = at.unwrap_or(fd);
        at = at.map(|at| at + 1);
        let new = sys!(FCNTL, from, how, 0);
        if place_of(from).is_none() || failed(new) {
            crate::say!("a descriptor that came in a message is lost");
            return -1;
        }
        descriptor::file_of(new as i32);
        new as i32
    });
    any
}

/// Behind a commit: what no message means any more is closed.
pub fn forget() {
    if !ANY.load(Relaxed) || state().root.pushback_len != 0 {
        return;
    }
    ANY.store(false, Relaxed);
    sys!(CLOSE_RANGE, place(0), place(COUNT - 1), 0);
}
