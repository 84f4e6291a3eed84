//! System V shared memory, semaphores and message queues: the runtime's own, for all
//! processes of a run.
//!
//! state:     the [`room`] in the run's image, and a file beside the image for each segment
//! intercept: shmget, semget, msgget and what belongs to them; fork, exec and ends
//! save:      nothing: what the room holds at a commit is the state
//! restore:   before-images in the journal, as of files; segments are mapped as other
//!            shared mappings of files are ([`crate::space::shared`])
//! survives:  warm and cold
//!
//! The kernel's own objects could be neither rolled back (a semaphore that another process
//! has taken, a message that is gone from its queue) nor made again under their numbers. So
//! the kernel has none of them. What has a key is known by it to the processes of this run
//! only, and ends with the run, which is said; a key that somebody outside of the run uses
//! already is refused, because those two would not meet.

mod info;
pub mod memory;
pub mod queue;
pub mod room;
pub mod semaphore;

use self::room::{MADE, OBJECTS, Object, Waiter, change, room};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed, own};
use crate::machine::{futex, user};
use crate::thread;
use crate::{event, sys};
use core::sync::atomic::Ordering::*;

pub const IPC_RMID: usize = 0;
pub const IPC_SET: usize = 1;
pub const IPC_STAT: usize = 2;
const IPC_PRIVATE: i32 = 0;
const IPC_CREAT: usize = 0o1000;
const IPC_EXCL: usize = 0o2000;
pub const IPC_NOWAIT: usize = 0o4000;
const INDEX_BITS: u32 = 15;
pub const READ: u32 = 4;
pub const WRITE: u32 = 2;
pub const EFBIG: isize = 27;
pub const ENOMSG: isize = 42;
pub const EIDRM: isize = 43;
pub const E2BIG: isize = 7;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Memory,
    Semaphores,
    Queues,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::Memory => "shared memory",
            Family::Semaphores => "semaphores",
            Family::Queues => "messages",
        }
    }
}

/// The number of the present process in the room.
pub fn process() -> u32 {
    engine().slot as u32 + 1
}

/// Its id, as the objects tell it.
pub fn pid() -> i32 {
    state().root.pid
}

pub fn seconds() -> u64 {
    let mut now = [0u64; 2];
    sys!(CLOCK_GETTIME, 0, now.as_mut_ptr());
    now[0]
}

fn id_of(family: Family, o: &Object) -> isize {
    let index = index_of(family, o);
    ((o.seq as usize) << INDEX_BITS | index) as isize
}

pub fn index_of(family: Family, o: &Object) -> usize {
    let table = &room().objects[family as usize];
    (&raw const *o as usize - table.as_ptr() as usize) / size_of::<Object>()
}

/// The object with an id.
pub fn find(family: Family, id: usize) -> Result<&'static mut Object, isize> {
    let id = id as i32;
    let (seq, index) = (id >> INDEX_BITS, id as usize & ((1 << INDEX_BITS) - 1));
    if id < 0 || index >= OBJECTS {
        return Err(-EINVAL);
    }
    let o = &mut room().objects[family as usize][index];
    match o.used == MADE && o.seq == seq as u32 {
        true => Ok(o),
        false => Err(-EINVAL),
    }
}

/// shmget, semget, msgget: the id of the object with a key, or of a new one. `fits` looks
/// at one that is there, `make` gives a new one what its family has.
fn get(
    family: Family,
    key: i32,
    flags: usize,
    fits: impl Fn(&Object) -> isize,
    make: impl FnOnce(&mut Object) -> Result<(), isize>,
) -> isize {
    if key != IPC_PRIVATE {
        let table = &mut room().objects[family as usize];
        if let Some(o) = table.iter_mut().find(|o| o.used == MADE && o.key == key) {
            if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
                return -EEXIST;
            }
            let r = fits(o);
            if failed(r) {
                return r;
            }
            let wanted = (flags >> 6 | flags >> 3 | flags) as u32;
            return match permits(o, wanted) {
                true => id_of(family, o),
                false => -EACCES,
            };
        }
        if is_known_outside(family, key) {
            crate::say!(
                "System V {} with key {key:#x} is refused: a process outside of this run has it, and \
                 would not share it; use another key, or run both under one dcrun",
                family.name()
            );
            return -EACCES;
        }
        if flags & IPC_CREAT == 0 {
            return -ENOENT;
        }
        crate::say!("System V objects with a key are known within this run only, and end with it");
    }
    if let Err(e) = room::begin() {
        return e;
    }
    memory::let_files_go();
    let table = &mut room().objects[family as usize];
    let Some(o) = table.iter_mut().find(|o| o.used == 0) else {
        return -ENOSPC;
    };
    let (uid, gid) = (sys!(GETEUID) as u32, sys!(GETEGID) as u32);
    let mut new = Object {
        used: MADE,
        seq: o.seq,
        event: o.event,
        key,
        uid,
        gid,
        cuid: uid,
        cgid: gid,
        mode: flags as u32 & 0o777,
        times: [0, 0, seconds()],
        ..Object::NONE
    };
    if let Err(e) = make(&mut new) {
        return e;
    }
    change(o, new);
    id_of(family, o)
}

/// Whether the kernel has an object with this key: then it is somebody else's.
fn is_known_outside(family: Family, key: i32) -> bool {
    let number = match family {
        Family::Memory => nr::SHMGET,
        Family::Semaphores => nr::SEMGET,
        Family::Queues => nr::MSGGET,
    };
    // Of none of the three a size or flags of 0 make one.
    own(number, [key as usize, 0, 0]) != -ENOENT
}

/// An object is gone; whoever waits for it learns that.
fn remove(o: &mut Object) {
    if o.units != 0 {
        room::give_units(o.unit, o.units);
    }
    let gone = Object {
        seq: (o.seq + 1) & 0xffff,
        event: o.event,
        ..Object::NONE
    };
    change(o, gone);
    tell(o);
}

/// Something of an object has changed: those who wait look again.
pub fn tell(o: &mut Object) {
    let word = o.event();
    word.fetch_add(1, SeqCst);
    futex::wake_all(word);
}

/// Whether this process may do what the bits say, as the last three of a mode have them.
pub fn permits(o: &Object, wanted: u32) -> bool {
    let (uid, gid) = (sys!(GETEUID) as u32, sys!(GETEGID) as u32);
    let granted = if uid == o.uid || uid == o.cuid {
        o.mode >> 6
    } else if gid == o.gid || gid == o.cgid || is_in_group(o.gid) || is_in_group(o.cgid) {
        o.mode >> 3
    } else {
        o.mode
    };
    uid == 0 || wanted & !granted & 7 == 0
}

fn is_in_group(gid: u32) -> bool {
    let mut groups = [0u32; 256];
    let n = sys!(GETGROUPS, groups.len(), groups.as_mut_ptr()).max(0) as usize;
    groups[..n].contains(&gid)
}

/// Whether this process may change or remove an object.
fn owns(o: &Object) -> bool {
    let uid = sys!(GETEUID) as u32;
    uid == 0 || uid == o.uid || uid == o.cuid
}

/// `struct ipc64_perm`.
fn permission(o: &Object) -> [u32; 12] {
    let seq = o.seq & 0xffff;
    let mode = o.mode;
    [
        o.key as u32,
        o.uid,
        o.gid,
        o.cuid,
        o.cgid,
        mode,
        seq,
        0,
        0,
        0,
        0,
        0,
    ]
}

/// IPC_STAT: who may use an object, and behind that what its kind tells of it.
fn give_status<T: Copy>(o: &Object, at: usize, status: &T) -> isize {
    match user::write(at, &permission(o)) && user::write(at + 48, status) {
        true => 0,
        false => -EFAULT,
    }
}

/// The answer of a call that has given a status: `r`, or what it is to tell.
fn given(r: isize, id: isize) -> isize {
    if failed(r) { r } else { id }
}

/// IPC_SET: owner and mode, of a structure of the program that begins with them.
fn set_permission(o: &mut Object, at: usize) -> isize {
    let Some(given) = user::read::<[u32; 6]>(at) else {
        return -EFAULT;
    };
    let mut new = *o;
    (new.uid, new.gid) = (given[1], given[2]);
    new.mode = o.mode & !0o777 | given[5] & 0o777;
    new.times[2] = seconds();
    change(o, new);
    0
}

/// What an attempt under the lock has come to.
pub enum Attempt {
    Done(isize),
    /// It has had no effect: wait until the object changes.
    Blocked(Blocked),
}

pub struct Blocked {
    pub family: Family,
    pub number: u16,
    pub for_zero: bool,
    index: u16,
    /// The object's futex, and its value.
    word: *const u32,
    seen: u32,
}

impl Blocked {
    pub fn on(family: Family, o: &mut Object) -> Blocked {
        let word = o.event();
        Blocked {
            family,
            number: 0,
            for_zero: false,
            index: index_of(family, o) as u16,
            word: word.as_ptr(),
            seen: word.load(SeqCst),
        }
    }
}

/// Makes attempts until one is done, and waits in between without the lock; no longer than
/// until a point of the monotonic clock. An attempt is told whether it has waited before.
pub fn until_done(
    l: &mut Local,
    end: Option<u64>,
    mut attempt: impl FnMut(bool) -> Attempt,
) -> isize {
    const FUTEX_WAIT_BITSET: usize = 9;
    let until = end.map(|ns| [ns / 1_000_000_000, ns % 1_000_000_000]);
    let time = until.as_ref().map_or(0, |t| t.as_ptr() as usize);
    loop {
        let guard = engine().lock.acquire(l);
        let blocked = match attempt(waits(l.slot).is_some()) {
            Attempt::Done(r) => {
                waits_no_more(l.slot);
                event::non_deterministic(l);
                return r;
            }
            Attempt::Blocked(blocked) => blocked,
        };
        begin_wait(l.slot, &blocked);
        drop(guard);
        let args = [
            blocked.word as usize,
            FUTEX_WAIT_BITSET,
            blocked.seen as usize,
            time,
            0,
            u32::MAX as usize,
        ];
        let r = thread::wait_or_signal(l, nr::FUTEX, args);
        if r == -EINTR || r == -ETIMEDOUT {
            let _guard = engine().lock.acquire(l);
            waits_no_more(l.slot);
            event::non_deterministic(l);
            return if r == -EINTR { r } else { -EAGAIN };
        }
    }
}

fn waits(thread: u32) -> Option<&'static mut Waiter> {
    let own = process();
    let mut all = room().waiters.iter_mut();
    all.find(|w| w.process == own && w.thread == thread)
}

fn begin_wait(thread: u32, blocked: &Blocked) {
    let new = Waiter {
        process: process(),
        thread,
        family: blocked.family as u16,
        index: blocked.index,
        number: blocked.number,
        for_zero: blocked.for_zero.into(),
    };
    let place = waits(thread).or_else(|| room().waiters.iter_mut().find(|w| w.process == 0));
    if let Some(place) = place
        && *place != new
    {
        change(place, new);
    }
}

fn waits_no_more(thread: u32) {
    if let Some(w) = waits(thread) {
        change(&mut w.process, 0);
    }
}

/// None of a process's threads waits any more.
fn forget_waits(of: u32) {
    for w in room().waiters.iter_mut().filter(|w| w.process == of) {
        change(&mut w.process, 0);
    }
}

/// A child was made: it has the segments of its parent.
pub fn forked(child: usize) {
    if room::any() {
        memory::forked(child as u32 + 1);
    }
}

/// This process leaves its memory for another program.
pub fn leave_memory() {
    if room::any() {
        memory::leave(process());
        forget_waits(process());
    }
}

/// A process ends, with the commit to come: what it has is given back.
pub fn ends(slot: usize) {
    if room::any() {
        memory::leave(slot as u32 + 1);
        forget_waits(slot as u32 + 1);
        semaphore::ends(slot as u32 + 1);
    }
}
