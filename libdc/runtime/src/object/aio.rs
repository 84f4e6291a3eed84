//! io_setup, io_submit, io_getevents and what belongs to them: asynchronous I/O that is made
//! at once.
//!
//! state:     the addresses of the rings in `Root::aio`, the rings themselves in memory of the
//!            program, and in its thread's record how far a submission is
//! intercept: an operation is the read, write or sync that it names, made when it is
//!            submitted; what it has come to lies in the ring
//! save:      nothing: all of it is state
//! restore:   nothing
//! survives:  warm and cold
//!
//! What the kernel would write later, into memory and into a ring, no commit could tell from
//! what is yet to come. Whoever asks for events finds them there sooner than he need have; the
//! kernel itself makes most of what is submitted before it returns. Only files and block devices
//! are read and written so: anything else may wait for what this thread is yet to do, and is
//! refused with the error of a file that does not have it (EINVAL). So is the waiting for a
//! descriptor (IOCB_CMD_POLL), as by kernels before 4.18.
//!
//! The ring is laid out as the kernel's, for programs that look into it themselves:
//!
//! ```text
//! id, slots | head, tail | magic, features | 0, length of this | events of 32 bytes ..
//! ```

use super::descriptor::{self, O_ACCMODE};
use super::stat::{S_IFBLK, S_IFMT};
use super::{eventfd, input, output, sync};
use crate::engine::{engine, state};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::signal::calls::{end_mask, with_mask};
use crate::space;
use crate::state::{Kind, OpenFile};
use crate::sys;
use crate::thread::{self, moment};
use dc_image::window::PAGE;

/// Rings that a process may have; further ones are refused as by a kernel that has as many as
/// it is told to have (fs.aio-max-nr of proc(5)).
pub const RINGS: usize = 256;
const MAGIC: u32 = 0xa10a_10a1;
const HEAD_LEN: usize = 32;
const EVENT_LEN: usize = 32;
const EVENTS_MOST: usize = 0x1000_0000;

/// How far a thread's submission is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Progress {
    /// Operations whose events lie in the ring.
    pub submitted: u32,
    pub step: u32,
    /// Of the operation that is made, and whose event is not there yet.
    result: i64,
}

/// Steps of one operation, each of which no commit cuts in two.
const TO_BE_MADE: u32 = 0;
const MADE: u32 = 1;
const TO_BE_TOLD: u32 = 2;

/// `struct iocb`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Operation {
    data: u64,
    key: u32,
    rw_flags: u32,
    code: u16,
    _priority: i16,
    fd: u32,
    at: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

impl Operation {
    const READ: u16 = 0;
    const WRITE: u16 = 1;
    const SYNC: u16 = 2;
    const SYNC_DATA: u16 = 3;
    const POLL: u16 = 5;
    const READ_SEVERAL: u16 = 7;
    const WRITE_SEVERAL: u16 = 8;

    fn tells(&self) -> bool {
        const IOCB_FLAG_RESFD: u32 = 1;
        self.flags & IOCB_FLAG_RESFD != 0
    }

    /// Whether it can be made at all: what the kernel looks at before it begins.
    fn check(&self) -> Result<(), isize> {
        let moves = !matches!(self.code, Operation::SYNC | Operation::SYNC_DATA);
        if self.reserved != 0 || (self.len as isize) < 0 || moves && self.offset < 0 {
            return Err(-EINVAL);
        }
        let file = descriptor::file_of(self.fd as i32).ok_or(-EBADF)?;
        if self.tells() {
            let told = descriptor::file_of(self.eventfd as i32).ok_or(-EBADF)?;
            if descriptor::open_file(told).kind != Kind::EventFd {
                return Err(-EINVAL);
            }
        }
        let f = descriptor::open_file(file);
        let mode = f.flags as usize & O_ACCMODE;
        match self.code {
            Operation::READ | Operation::READ_SEVERAL if mode == 1 => Err(-EBADF),
            Operation::WRITE | Operation::WRITE_SEVERAL if mode == 0 => Err(-EBADF),
            Operation::POLL => {
                crate::say!(
                    "asynchronous waiting for a descriptor (IOCB_CMD_POLL) is refused: use epoll"
                );
                Err(-EINVAL)
            }
            Operation::READ | Operation::READ_SEVERAL => is_file(f),
            Operation::WRITE | Operation::WRITE_SEVERAL => is_file(f),
            Operation::SYNC | Operation::SYNC_DATA => is_file(f),
            _ => Err(-EINVAL),
        }
    }

    /// Makes it, as the call that it is.
    fn make(&self, l: &mut Local) -> isize {
        let (at, len, offset) = (self.at as usize, self.len as usize, self.offset as usize);
        let args = [self.fd as usize, at, len, offset, 0, self.rw_flags as usize];
        let number = match (self.code, self.rw_flags) {
            (Operation::READ, 0) => nr::PREAD64,
            (Operation::WRITE, 0) => nr::PWRITE64,
            (Operation::READ_SEVERAL, 0) => nr::PREADV,
            (Operation::WRITE_SEVERAL, 0) => nr::PWRITEV,
            (Operation::READ_SEVERAL, _) => nr::PREADV2,
            (Operation::WRITE_SEVERAL, _) => nr::PWRITEV2,
            (Operation::SYNC, _) => nr::FSYNC,
            (Operation::SYNC_DATA, _) => nr::FDATASYNC,
            // A kernel that does not know the flag.
            _ => return -EOPNOTSUPP,
        };
        match number {
            nr::PREAD64 | nr::PREADV | nr::PREADV2 => input::pread_as(l, number, args),
            nr::PWRITE64 => output::pwrite(l, args),
            nr::PWRITEV | nr::PWRITEV2 => output::pwritev_as(l, number, args),
            _ => sync::call_as(l, number, args),
        }
    }
}

fn is_file(f: &OpenFile) -> Result<(), isize> {
    let reads_at_once = matches!(f.kind, Kind::Regular | Kind::MemFd) || f.mode & S_IFMT == S_IFBLK;
    if !reads_at_once {
        crate::say!(
            "asynchronous I/O with what is no file or block device is refused: read and write it"
        );
        return Err(-EINVAL);
    }
    Ok(())
}

/// What a ring begins with.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ring {
    id: u32,
    slots: u32,
    head: u32,
    tail: u32,
    magic: u32,
    features: [u32; 2],
    len: u32,
}

impl Ring {
    /// The ring at an address, if this process has one there; it may have unmapped it.
    fn at(address: usize) -> Result<Ring, isize> {
        if address == 0 || !state().root.aio.contains(&(address as u64)) {
            return Err(-EINVAL);
        }
        let ring = user::read::<Ring>(address).ok_or(-EINVAL)?;
        // The program can write it: no place in it is taken for one unless it is.
        let slots = ring.slots;
        match ring.magic == MAGIC && slots > 1 && ring.head < slots && ring.tail < slots {
            true => Ok(ring),
            false => Err(-EINVAL),
        }
    }

    fn waiting(&self) -> usize {
        ((self.tail + self.slots - self.head) % self.slots) as usize
    }

    fn has_room(&self) -> bool {
        self.waiting() + 1 < self.slots as usize
    }

    fn event_at(&self, address: usize, place: u32) -> usize {
        address + HEAD_LEN + place as usize * EVENT_LEN
    }
}

const HEAD_AT: usize = core::mem::offset_of!(Ring, head);
const TAIL_AT: usize = core::mem::offset_of!(Ring, tail);

/// The most events that the kernel has for all processes.
fn events_for_all() -> usize {
    let fd = crate::proc::open(b"/proc/sys/fs/aio-max-nr\0", descriptor::O_CLOEXEC);
    let mut text = [0u8; 24];
    let n = sys!(READ, fd, text.as_mut_ptr(), text.len());
    input::count_read(n);
    if !failed(fd) {
        sys!(CLOSE, fd);
    }
    let digits = text.iter().take_while(|b| b.is_ascii_digit());
    match digits.fold(0usize, |v, b| v.saturating_mul(10) + (b - b'0') as usize) {
        0 => 65536,
        most => most,
    }
}

pub fn setup(_l: &mut Local, a: [usize; 6]) -> isize {
    let (events, to) = (a[0] as u32 as usize, a[1]);
    let Some(there) = user::read::<u64>(to) else {
        return -EFAULT;
    };
    if there != 0 || events == 0 || events > EVENTS_MOST {
        return -EINVAL;
    }
    let Some(free) = state().root.aio.iter().position(|&ring| ring == 0) else {
        return -EAGAIN;
    };
    if events > events_for_all() {
        return -EAGAIN;
    }
    const PROT_RW: usize = 3;
    const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
    let len = (HEAD_LEN + (events + 1) * EVENT_LEN).next_multiple_of(PAGE);
    let none = usize::MAX;
    let at = space::calls::mmap([0, len, PROT_RW, MAP_PRIVATE_ANONYMOUS, none, 0]);
    if failed(at) {
        return at;
    }
    let at = at as usize;
    let ring = Ring {
        id: free as u32,
        slots: ((len - HEAD_LEN) / EVENT_LEN) as u32,
        head: 0,
        tail: 0,
        magic: MAGIC,
        features: [1, 0],
        len: HEAD_LEN as u32,
    };
    if !user::write(at, &ring) || !user::write(to, &at) {
        space::calls::munmap([at, len, 0, 0, 0, 0]);
        return -EFAULT;
    }
    state().root.aio[free] = at as u64;
    0
}

pub fn destroy(_l: &mut Local, a: [usize; 6]) -> isize {
    let ring = match Ring::at(a[0]) {
        Ok(ring) => ring,
        Err(e) => return e,
    };
    for known in &mut state().root.aio {
        if *known == a[0] as u64 {
            *known = 0;
        }
    }
    wake(a[0]);
    let len = HEAD_LEN + ring.slots as usize * EVENT_LEN;
    space::calls::munmap([a[0], len.next_multiple_of(PAGE), 0, 0, 0, 0]);
    0
}

/// Another program, or a child: the rings stayed behind.
pub fn leave() {
    if state().root.aio.iter().any(|&ring| ring != 0) {
        state().root.aio = [0; RINGS];
    }
}

fn progress(l: &Local) -> &'static mut Progress {
    &mut state().threads[l.slot as usize].aio
}

pub fn submit(l: &mut Local, a: [usize; 6]) -> isize {
    let [ring, count, list, ..] = a;
    let mut last = {
        let _guard = engine().lock.acquire(l);
        match Ring::at(ring) {
            Err(e) => e,
            Ok(_) if (count as isize) < 0 => -EINVAL,
            Ok(_) => 0,
        }
    };
    while !failed(last) && (progress(l).submitted as usize) < count {
        let nth = progress(l).submitted as usize;
        last = match user::read::<usize>(list.wrapping_add(nth * 8)) {
            Some(at) => submit_one(l, ring, at),
            None => -EFAULT,
        };
    }
    match core::mem::take(progress(l)).submitted {
        0 => last,
        n => n as isize,
    }
}

/// One operation: made, its event put into the ring, and told to an eventfd.
fn submit_one(l: &mut Local, ring: usize, at: usize) -> isize {
    let Some(operation) = user::read::<Operation>(at) else {
        return -EFAULT;
    };
    if progress(l).step == TO_BE_MADE {
        let checked = {
            let _guard = engine().lock.acquire(l);
            let ring = Ring::at(ring);
            ring.and_then(|ring| match ring.has_room() {
                true => operation.check(),
                false => Err(-EAGAIN),
            })
        };
        // So that it is known again (KIOCB_KEY).
        if checked.is_ok() && !user::write(at + 8, &0u32) {
            return -EFAULT;
        }
        if let Err(e) = checked {
            return e;
        }
        let r = operation.make(l);
        let to = progress(l);
        (to.result, to.step) = (r as i64, MADE);
    }
    if progress(l).step == MADE {
        let _guard = engine().lock.acquire(l);
        put(ring, at, &operation, progress(l).result);
        let to = progress(l);
        to.step = TO_BE_TOLD;
    }
    if operation.tells() {
        eventfd::add(l, operation.eventfd as i32, 1);
    }
    let to = progress(l);
    (to.submitted, to.step) = (to.submitted + 1, TO_BE_MADE);
    0
}

fn put(address: usize, operation_at: usize, operation: &Operation, result: i64) {
    let Ok(ring) = Ring::at(address) else { return };
    let event = [operation.data, operation_at as u64, result as u64, 0];
    user::write(ring.event_at(address, ring.tail), &event);
    user::write(address + TAIL_AT, &((ring.tail + 1) % ring.slots));
    wake(address);
}

const FUTEX_PRIVATE: usize = 128;

fn wake(address: usize) {
    const FUTEX_WAKE: usize = 1;
    let word = address + TAIL_AT;
    sys!(FUTEX, word, FUTEX_WAKE | FUTEX_PRIVATE, i32::MAX, 0, 0, 0);
}

/// At a recovery a handler comes to a thread in the middle of a submission, which this ends:
/// how much of it was made, if anything was.
pub fn cut_short(l: &mut Local) -> Option<usize> {
    let now = *progress(l);
    if now == Progress::default() {
        return None;
    }
    *progress(l) = Progress::default();
    let Progress {
        mut submitted,
        step,
        result,
    } = now;
    let [ring, _, list, ..] = l.frame.args();
    let nth = list.wrapping_add(submitted as usize * 8);
    if step != TO_BE_MADE
        && let Some(at) = user::read::<usize>(nth)
        && let Some(operation) = user::read::<Operation>(at)
    {
        if step == MADE {
            put(ring, at, &operation, result);
        }
        submitted += 1;
    }
    (submitted > 0).then_some(submitted as usize)
}

/// Nothing is on its way that could be taken back.
pub fn cancel(_l: &mut Local, a: [usize; 6]) -> isize {
    match user::read::<u32>(a[1].wrapping_add(8)) {
        None => -EFAULT,
        Some(_) => -EINVAL,
    }
}

pub fn events(l: &mut Local, a: [usize; 6]) -> isize {
    let [ring, least, most, to, time, _] = a;
    let end = match time {
        0 => None,
        _ => match user::read::<[i64; 2]>(time) {
            None => return -EFAULT,
            Some([s, ns]) if s < 0 || !(0..1_000_000_000).contains(&ns) => return -EINVAL,
            Some([0, 0]) => Some(0),
            Some([s, ns]) => {
                let ns = (s as u64).saturating_mul(1_000_000_000) + ns as u64;
                Some(moment::end_of_wait(l, nr::IO_GETEVENTS, &a, ns).0)
            }
        },
    };
    let (least, most) = (least as isize, most as isize);
    if least < 0 || least > most {
        let _guard = engine().lock.acquire(l);
        return Ring::at(ring).map_or_else(|e| e, |_| -EINVAL);
    }
    await_events(l, ring, least as usize, most as usize, to, end)
}

fn await_events(
    l: &mut Local,
    address: usize,
    least: usize,
    most: usize,
    to: usize,
    end: Option<u64>,
) -> isize {
    const FUTEX_WAIT_BITSET: usize = 9;
    let until = end.map(|ns| [ns / 1_000_000_000, ns % 1_000_000_000]);
    let time = until.as_ref().map_or(0, |t| t.as_ptr() as usize);
    let (mut waits, mut interrupted) = (end != Some(0), false);
    loop {
        let seen = {
            let _guard = engine().lock.acquire(l);
            let ring = match Ring::at(address) {
                Ok(ring) => ring,
                Err(e) => return e,
            };
            if ring.waiting() >= least || !waits {
                let n = take(address, ring, most, to);
                return if n == 0 && interrupted { -EINTR } else { n };
            }
            ring.tail
        };
        let word = address + TAIL_AT;
        let operation = FUTEX_WAIT_BITSET | FUTEX_PRIVATE;
        let args = [word, operation, seen as usize, time, 0, u32::MAX as usize];
        let r = thread::wait_or_signal(l, nr::FUTEX, args);
        let _guard = engine().lock.acquire(l);
        event::non_deterministic(l);
        (waits, interrupted) = (r != -EINTR && r != -ETIMEDOUT, r == -EINTR);
    }
}

/// Gives the program events, and takes from the ring what it was given.
fn take(address: usize, mut ring: Ring, most: usize, to: usize) -> isize {
    let mut n = 0;
    while n < most && ring.waiting() > 0 {
        let event = user::read::<[u64; 4]>(ring.event_at(address, ring.head));
        let given = event.is_some_and(|event| user::write(to + n * EVENT_LEN, &event));
        if !given {
            return if n > 0 { n as isize } else { -EFAULT };
        }
        ring.head = (ring.head + 1) % ring.slots;
        user::write(address + HEAD_AT, &ring.head);
        n += 1;
    }
    n as isize
}

/// io_pgetevents(2): with a mask of signals while it waits.
pub fn events_masked(l: &mut Local, a: [usize; 6]) -> isize {
    if a[5] != 0 {
        let Some([mask, size]) = user::read::<[usize; 2]>(a[5]) else {
            return -EFAULT;
        };
        if let Err(e) = with_mask(l, mask, size) {
            return e;
        }
    }
    let r = events(l, a);
    end_mask(l);
    r
}
