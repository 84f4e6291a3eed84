//! Messages: what a datagram socket gives, whole, and from whom.
//!
//! A message is gone from the socket when it is received, so the kernel puts it
//! straight into the journal, all of it: name, control data, flags and bytes.
//! There the program gets it from, and after a crash it gets it again, as with
//! every [input](super::input). No counter of the kernel tells whether a message
//! came in before a death; but recvmmsg(2) leaves the length of each in memory,
//! and what lies in the journal outlives the worker.
//!
//! ```text
//! IoHead | mmsghdr | iovec | name, 128 bytes | control data | bytes
//! ```
//!
//! Of streams only the plain reading goes to the journal: recvmmsg tells of a
//! pending error before it gives the bytes that came before it, and a stream has
//! both.
#![allow(unsafe_code)]

use super::buffers::Buffers;
use super::input;
use super::pushback::{self, Fed};
use super::record::{self, IoHead};
use super::want::Want;
use super::{descriptor, pipe, poll, socket};
use crate::commit::{self, fault_point};
use crate::engine::engine;
use crate::event;
use crate::log::replay;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{entry, nr};
use crate::run::ends;
use crate::sys;
use crate::thread;
use core::sync::atomic::Ordering::*;
use dc_image::boot::fault;

pub const MSG_PEEK: usize = 2;
pub const MSG_DONTWAIT: usize = 0x40;
pub const MSG_WAITALL: usize = 0x100;
pub const MSG_NOSIGNAL: usize = 0x4000;
const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
/// Flags of a receive that change nothing of what is told here: PEEK, TRUNC,
/// DONTWAIT, NOSIGNAL, CMSG_CLOEXEC.
const FLAGS: usize = MSG_PEEK | 0x20 | MSG_DONTWAIT | 0x4000 | 0x4000_0000;

pub const NAME: usize = 128;
/// Control data that somebody may ask for.
const CONTROL: usize = 4096;
/// No message is longer, whatever the buffer: it is fed again with others.
const DATA: usize = 512 << 10;
/// Nothing has come.
const NONE: u32 = u32::MAX;

/// As the kernel has it, and in the journal.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    name: usize,
    name_len: u32,
    _pad: u32,
    parts: usize,
    count: usize,
    control: usize,
    control_len: usize,
    flags: u32,
    _pad2: u32,
    len: u32,
    /// What control data might have taken; the kernel leaves it alone.
    control_room: u32,
}

/// `struct msghdr` for one buffer, with room for control data.
#[repr(C)]
pub struct OneBuffer {
    name: usize,
    name_len: usize,
    parts: usize,
    count: usize,
    control: usize,
    pub control_len: usize,
    pub flags: usize,
}

impl OneBuffer {
    pub fn new(part: &[usize; 2], control: &mut [u64]) -> OneBuffer {
        OneBuffer {
            name: 0,
            name_len: 0,
            parts: part.as_ptr() as usize,
            count: 1,
            control: control.as_mut_ptr() as usize,
            control_len: size_of_val(control),
            flags: 0,
        }
    }
}

const HEADER: usize = size_of::<IoHead>();
const PART: usize = HEADER + size_of::<Header>();
const BODY: usize = PART + 16;

/// Whether the journal can hold what may come.
fn fits(want: &Want) -> bool {
    want.flags & !FLAGS == 0
        && want.control_room <= CONTROL
        && want.count <= 1024
        && want.name_room <= i32::MAX as usize
        // Of a stream what is more than bytes.
        && (want.control_room > 0 || keeps_messages(want.fd))
}

/// Whether a socket gives messages and not a stream.
fn keeps_messages(fd: i32) -> bool {
    const SOL_SOCKET: usize = 1;
    const SO_TYPE: usize = 3;
    const SOCK_STREAM: u32 = 1;
    let (mut kind, mut len) = (0u32, 4u32);
    let r = sys!(
        GETSOCKOPT,
        fd,
        SOL_SOCKET,
        SO_TYPE,
        &raw mut kind,
        &raw mut len
    );
    !failed(r) && kind != SOCK_STREAM
}

/// One that was received.
pub struct Message<'a> {
    pub name: &'a [u8],
    pub control: &'a [u8],
    pub flags: u32,
    pub data: &'a [u8],
    /// What the call returned: with MSG_TRUNC more than there is room for.
    pub len: usize,
}

impl<'a> Message<'a> {
    fn of(payload: &'a [u8]) -> Option<Message<'a>> {
        let header: Header = record::value_of(payload.get(HEADER..)?)?;
        let room = (header.control_room as usize).next_multiple_of(8);
        let name_len = (header.name_len as usize).min(NAME);
        let control_at = BODY + NAME;
        let control_len = header.control_len.min(room);
        Some(Message {
            name: payload.get(BODY..BODY + name_len)?,
            control: payload.get(control_at..control_at + control_len)?,
            flags: header.flags,
            data: payload.get(control_at + room..)?,
            len: header.len as usize,
        })
    }
}

/// From a stream as by read(2), whose bytes the kernel counts, where a program
/// wants no control data.
pub fn stream(l: &mut Local, want: &Want) -> Option<isize> {
    const PLAIN: usize = MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC;
    if want.flags & !PLAIN != 0 || want.control_room != 0 {
        return None;
    }
    let name = stream_name(want.fd)?;
    let to = match want.parts {
        0 => Buffers::one(want.buffer[0], want.buffer[1]),
        parts => Buffers::several(parts, want.count)?,
    };
    if to.len == 0 {
        return None;
    }
    let r = input::receive(l, want.fd, &to, want.flags);
    if r >= 0 {
        let header = Message {
            name: &name.1[..name.0],
            control: &[],
            flags: 0,
            data: &[],
            len: 0,
        };
        if want.give(&header) < 0 {
            return Some(-EFAULT);
        }
    }
    Some(r)
}

/// Who sends on a stream, as recvmsg tells it: nobody but on a unix socket whose
/// peer has a name. None if it is no stream.
fn stream_name(fd: i32) -> Option<(usize, [u8; NAME])> {
    const SOL_SOCKET: usize = 1;
    const SO_DOMAIN: usize = 39;
    const AF_UNIX: u32 = 1;
    let (mut domain, mut len) = (0u32, 4u32);
    let r = sys!(
        GETSOCKOPT,
        fd,
        SOL_SOCKET,
        SO_DOMAIN,
        &raw mut domain,
        &raw mut len
    );
    if failed(r) || keeps_messages(fd) {
        return None;
    }
    let mut name = [0u8; NAME];
    let mut name_len = NAME as u32;
    let named = domain == AF_UNIX
        && !failed(sys!(GETPEERNAME, fd, name.as_mut_ptr(), &raw mut name_len))
        && name_len > 2;
    Some((
        if named {
            (name_len as usize).min(NAME)
        } else {
            0
        },
        name,
    ))
}

/// The control data of a message, of the payload of its record.
pub fn control_of(payload: &[u8]) -> &[u8] {
    Message::of(payload).map_or(&[], |m| m.control)
}

/// Gives the descriptors in the record of a message other numbers.
pub fn renumber(payload: &mut [u8], f: impl FnMut(i32) -> i32) {
    let at = BODY + NAME;
    let len = control_of(payload).len();
    if let Some(control) = payload.get_mut(at..at + len) {
        renumber_control(control, f);
    }
}

/// The same in control data by itself.
pub fn renumber_control(control: &mut [u8], mut f: impl FnMut(i32) -> i32) {
    let mut at = 0;
    while let Some(part) = control.get(at..).filter(|it| it.len() >= HEAD) {
        let len = record::value_of::<usize>(part).unwrap_or(HEAD);
        let is_rights = record::value_of(&part[8..]) == Some(SOL_SOCKET_RIGHTS);
        let end = len.clamp(HEAD, part.len());
        if is_rights {
            for number in control[at + HEAD..at + end].chunks_exact_mut(4) {
                let fd = record::value_of(number).unwrap_or(-1);
                number.copy_from_slice(&f(fd).to_le_bytes());
            }
        }
        at += len.clamp(HEAD, 1 << 20).next_multiple_of(8);
    }
}

/// Bytes of a `struct cmsghdr`, and its level and type for descriptors.
const HEAD: usize = 16;
const SOL_SOCKET_RIGHTS: [i32; 2] = [1, 1];

/// The bytes of a message, of the payload of its record.
pub fn data_of(payload: &[u8]) -> &[u8] {
    Message::of(payload).map_or(&[], |m| m.data)
}

/// Receives, if this is a receive for the journal.
pub fn receive(l: &mut Local, want: &Want) -> Option<isize> {
    loop {
        let guard = engine().lock.acquire(l);
        let file = descriptor::file_of(want.fd)?;
        let peek = want.flags & MSG_PEEK != 0;
        match pushback::next_fed(file) {
            Some(Fed::Message(payload)) => {
                let m = Message::of(payload)?;
                let r = match peek {
                    true => want.give(&m),
                    false => give_again(l, want, payload, &m),
                };
                if !peek {
                    pushback::drop_fed(file);
                }
                if !engine().log.wanted {
                    event::non_deterministic(l);
                }
                return Some(r);
            }
            Some(Fed::Bytes) => return None,
            None => {}
        }
        if peek || !fits(want) {
            return None;
        }
        if engine().log.replay.makes_own_pipes_again() && pipe::is_own(want.fd) {
            drop(guard);
            return Some(socket::made_again(l));
        }
        if engine().log.replay.is_active() {
            return Some(replay::message(l, want.sum(), |l, payload| {
                Message::of(payload).map(|m| give_again(l, want, payload, &m))
            }));
        }
        let waits = want.flags & MSG_DONTWAIT == 0
            && descriptor::open_file(file).flags as usize & descriptor::O_NONBLOCK == 0;
        if !waits || crate::run::is_alone() {
            return Some(consume(l, want));
        }
        // As with streams: it waits without the lock, and takes with it.
        drop(guard);
        if let Err(e) = poll::wait_for(l, want.fd, poll::POLLIN) {
            return Some(e);
        }
        let _guard = engine().lock.acquire(l);
        if poll::ready_now(want.fd, poll::POLLIN) {
            return Some(consume(l, want));
        }
    }
}

/// What was received before a recovery, with its descriptors.
fn give_again(l: &mut Local, want: &Want, payload: &[u8], m: &Message) -> isize {
    let mut copy = [0u8; CONTROL];
    let control = &mut copy[..m.control.len().min(CONTROL)];
    control.copy_from_slice(&m.control[..control.len()]);
    let cloexec = want.flags & MSG_CMSG_CLOEXEC != 0;
    if socket::handed::give(payload, control, cloexec) {
        l.commit_after = true;
    }
    want.give(&Message { control, ..*m })
}

fn consume(l: &mut Local, want: &Want) -> isize {
    crate::commit::commit_first(l);
    if let Some(file) = descriptor::known_file(want.fd) {
        pipe::touch(file);
    }
    let e = engine();
    let (room, room_len) = e.journal.room();
    let control_room = want.control_room.next_multiple_of(8);
    let lead = BODY + NAME + control_room;
    let len = want.len.min(DATA).min(room_len.saturating_sub(lead));
    let head = IoHead {
        fd: want.fd,
        thread: l.slot | record::MESSAGE_FLIGHT | record::own_pipe(want.fd),
        mark: record::mark(e.journal.tail() as u64),
        ret: 0,
        sum: want.sum(),
    };
    let at = room as usize;
    let header = Header {
        name: if want.name == 0 { 0 } else { at + BODY },
        name_len: NAME as u32,
        _pad: 0,
        parts: at + PART,
        count: 1,
        control: if want.control_room == 0 {
            0
        } else {
            at + BODY + NAME
        },
        control_len: want.control_room,
        flags: 0,
        _pad2: 0,
        len: NONE,
        control_room: want.control_room as u32,
    };
    // SAFETY: the journal has room for all of it, or `len` is 0 and the kernel
    // is not asked.
    unsafe {
        if lead > room_len {
            return -ENOMEM;
        }
        room.cast::<IoHead>().write_unaligned(head);
        room.add(HEADER).cast::<Header>().write_unaligned(header);
        room.add(PART)
            .cast::<[usize; 2]>()
            .write_unaligned([at + lead, len]);
    }
    crate::run::flies();
    let flight = &e.live().input;
    flight.before.store(e.journal.tail() as u64, Relaxed);
    flight.thread.store(head.thread, Relaxed);
    flight.begin(engine().slot);
    let args = [want.fd as usize, at + HEADER, 1, want.flags, 0, 0];
    let r = loop {
        // SAFETY: the kernel writes to the journal's free room only.
        let r = unsafe { entry::interruptible(nr::RECVMMSG, &args) };
        if r != -EINTR {
            break r;
        }
        if thread::signal_waits(l) {
            thread::broken_off(l, want.fd, poll::POLLIN);
            break r;
        }
        thread::wait_on(l);
        if event::takes_tick_in_wait(l) {
            // The journal's room moves with a commit: begin again.
            flight.end();
            commit::commit(l);
            return consume(l, want);
        }
    };
    ends::met(r);
    if l.early {
        flight.end();
        return r;
    }
    fault_point(fault::AFTER_READ);
    let noted = settle();
    let Some(size) = noted.filter(|_| r > 0) else {
        event::non_deterministic(l);
        return r;
    };
    // SAFETY: the record that was just made lies there.
    let payload = unsafe { core::slice::from_raw_parts(room, size) };
    let Some(m) = Message::of(payload) else {
        unreachable!("its lengths were limited to the room")
    };
    ends::met(m.len as isize);
    event::count_message(nr::RECVMSG, m.len as isize);
    event::input(l, size);
    if brings_descriptors(m.control) {
        // They are in the table before the commit that keeps them.
        each_descriptor(m.control, |fd| {
            descriptor::file_of(fd);
        });
        l.commit_after = true;
    }
    want.give(&m)
}

/// Makes a record of a message that lies in the room already, if one does; its
/// size. After a receive, and at recovery for one that was under way.
pub fn settle() -> Option<usize> {
    let e = engine();
    let flight = &e.live().input;
    let (room, room_len) = e.journal.room();
    let mut size = None;
    if flight.before.load(Relaxed) == e.journal.tail() as u64 && room_len > BODY {
        // SAFETY: the room was given these at the begin of the call.
        let (header, len) = unsafe {
            (
                room.add(HEADER).cast::<Header>().read_unaligned(),
                room.add(PART + 8).cast::<usize>().read_unaligned(),
            )
        };
        if header.len != NONE {
            let control_room = (header.control_room as usize).next_multiple_of(8);
            let n = BODY + NAME + control_room + len.min(header.len as usize);
            if n <= room_len {
                // SAFETY: the head lies at the begin of the room.
                unsafe {
                    let head = room.cast::<IoHead>();
                    (&raw mut (*head).ret).write_unaligned(header.len as u64);
                }
                e.live().journal_bytes.fetch_add(n as u64, Relaxed);
                if record::append_in_place(record::MESSAGE, n).is_err() {
                    unreachable!("the length was limited to the room");
                }
                size = Some(n);
            }
        }
    }
    flight.end();
    size
}

/// Calls `f` for each descriptor that control data brings.
pub fn each_descriptor(control: &[u8], mut f: impl FnMut(i32)) {
    let mut at = 0;
    while let Some(part) = control.get(at..).filter(|it| it.len() >= HEAD) {
        let len = record::value_of::<usize>(part).unwrap_or(HEAD);
        if record::value_of(&part[8..]) == Some(SOL_SOCKET_RIGHTS) {
            for number in part[HEAD..len.clamp(HEAD, part.len())].chunks_exact(4) {
                if let Some(fd) = record::value_of(number) {
                    f(fd);
                }
            }
        }
        at += len.clamp(HEAD, 1 << 20).next_multiple_of(8);
    }
}

/// Whether control data has descriptors (SCM_RIGHTS).
fn brings_descriptors(control: &[u8]) -> bool {
    let mut any = false;
    each_descriptor(control, |_| any = true);
    any
}
