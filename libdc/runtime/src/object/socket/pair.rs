//! Unix sockets both of whose ends are in the run: those of socketpair(2), and those of a
//! connection between two processes of it.
//!
//! Warm they live, and what goes through them goes the way of all streams and messages. Cold
//! they are as pipes are: all processes go back to the commit and send again what they sent
//! since, so both ends are made again ([`super::remade`]) with what lay in them at the commit.
//!
//! state:     an entry of what processes share for each end: which the other one is, what has
//!            come and is not read yet, what is shut down
//! save:      by whoever has the end, looking without taking (MSG_PEEK); it is asked to if
//!            something has moved there since the last commit
//! survives:  warm and cold; but not, cold, what has descriptors in it, or is too much

use super::diag::{self, Peer};
use super::facts::{AF_UNIX, SOCK_SEQPACKET, SOCK_STREAM, socket_of};
use super::{address, facts, waiting};
use crate::engine::{engine, state};
use crate::machine::sys::failed;
use crate::object::descriptor::*;
use crate::object::message::{self, MSG_DONTWAIT, MSG_PEEK, OneBuffer};
use crate::object::pipe;
use crate::object::record::bytes_of;
use crate::object::stat::Stat;
use crate::run::{self, shared, unit};
use crate::state::{Kind, OpenFile};
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::run::{CONTENTS_LEN, Inside, Shared, pty_number};
use dc_image::seal::contents_sum;

/// socketpair(2) has made two ends.
pub fn made(x: i32, y: i32) {
    let (Some(x), Some(y)) = (socket_of(x), socket_of(y)) else {
        return;
    };
    if open_file(x).family() != AF_UNIX {
        return;
    }
    if let (Some(x), Some(y)) = (shared::enter_socket(x), shared::enter_socket(y)) {
        link(x, y);
    }
}

fn link(x: usize, y: usize) {
    let (a, b) = (shared::entry(x), shared::entry(y));
    let names = [&a.ino, &b.ino, &run::run().sockets_moved].map(|word| word.load(Relaxed));
    let pair = contents_sum(bytes_of(&names)) | 1;
    for (s, other) in [(a, y), (b, x)] {
        s.pair.store(pair, Relaxed);
        // (0: the other end was closed before anybody could know it.)
        s.peer
            .store(if x == y { 0 } else { other as u32 + 1 }, Relaxed);
        moves(s);
    }
}

/// A unix socket listens.
pub fn listens(fd: i32) {
    let Some(file) = socket_of(fd) else { return };
    let f = open_file(file);
    if f.family() == AF_UNIX
        && f.socket_type() != facts::SOCK_DGRAM
        && let Some(at) = shared::enter_socket(file)
    {
        shared::entry(at)
            .address
            .store(address::key_of(f.name()), Relaxed);
    }
}

/// Before connect(2): whoever accepts is to find this end among those of the run.
pub fn connects(file: u32) {
    let f = open_file(file);
    if f.family() == AF_UNIX && matches!(f.socket_type(), SOCK_STREAM | SOCK_SEQPACKET) {
        shared::enter_socket(file);
    }
}

/// It is connected, if to a process of the run then to that one. Whether it is.
pub fn connected(file: u32, to: &[u8]) -> bool {
    let Some((at, s)) = shared::of(open_file(file)) else {
        return false;
    };
    if s.pair.load(Relaxed) != 0 {
        // It is accepted already.
        return true;
    }
    let key = address::key_of(to);
    let listener = (0..run::run().shared_high.load(Relaxed) as usize).find(|&other| {
        let o = shared::entry(other);
        other != at && key != 0 && o.users.load(Relaxed) != 0 && o.address.load(Relaxed) == key
    });
    s.listener
        .store(listener.map_or(0, |at| at as u32 + 1), Relaxed);
    listener.is_some()
}

/// A connection was accepted. Whether it is one of the run; one whose other end is closed
/// already is as good, for all that it brings is here.
pub fn accepted(fd: i32) -> bool {
    let Some(file) = socket_of(fd).filter(|&file| open_file(file).family() == AF_UNIX) else {
        return false;
    };
    let Ok(st) = Stat::of_fd(fd) else {
        return false;
    };
    let other = match diag::peer_of(st.ino) {
        Peer::Has(ino) => match shared::with_ino(ino) {
            None => return false,
            ours => ours,
        },
        Peer::Closed => None,
        Peer::Unknown => return false,
    };
    let Some(at) = shared::enter_socket(file) else {
        return false;
    };
    link(at, other.unwrap_or(at));
    true
}

/// A socket came with a message. If it is one of the run's, it has an entry.
pub fn received(fd: i32, file: u32) {
    facts::adopted(fd, open_file(file));
    if let Some(at) = Stat::of_fd(fd)
        .ok()
        .and_then(|st| shared::socket_with_ino(st.ino))
    {
        shared::join_socket(file, at);
    }
}

/// Descriptors go to another process; through a socket of the run, or out of it.
pub fn sent(control: &[u8], through: i32) {
    let stays = socket_of(through).is_some_and(|file| is_own(open_file(file)));
    message::each_descriptor(control, |fd| {
        if stays {
            pipe::handed(fd);
        }
        if let Some(at) = socket_of(fd).and_then(shared::enter_socket) {
            let s = shared::entry(at);
            match stays {
                true => s.on_its_way.fetch_add(1, Relaxed),
                false => s.is_foreign.swap(1, Relaxed),
            };
        }
    });
    if let Some(file) = socket_of(through) {
        waiting::cannot_be_kept(open_file(file));
    }
}

/// A program outside of the run gets all that an exec leaves open.
pub fn all_leave() {
    for fd in 0..state().root.fd_high as i32 {
        if let Some(at) = socket_of(fd).and_then(shared::enter_socket) {
            shared::entry(at).is_foreign.store(1, Relaxed);
        }
    }
}

/// Whether both ends are in the run, and nobody else has one.
pub fn is_own(f: &OpenFile) -> bool {
    let Some((_, s)) = shared::of(f).filter(|_| f.kind == Kind::Socket) else {
        return false;
    };
    let is_linked = s.pair.load(Relaxed) != 0 || f.is_connected() && s.listener.load(Relaxed) != 0;
    is_linked && !is_foreign(s) && !other_end(s).is_some_and(|(_, other)| is_foreign(other))
}

fn is_foreign(s: &Shared) -> bool {
    s.is_foreign.load(Relaxed) != 0
}

/// The other end, unless it is gone for long: then its entry is another object's.
pub fn other_end(s: &Shared) -> Option<(usize, &'static Shared)> {
    let pair = s.pair.load(Relaxed);
    let at = (s.peer.load(Relaxed) as usize).checked_sub(1)?;
    let other = shared::entry(at);
    (pair != 0 && other.pair.load(Relaxed) == pair).then_some((at, other))
}

pub fn this_interval() -> u64 {
    engine().store.published() + 1
}

/// Something goes through a socket, or changes what can.
pub fn touch(f: &OpenFile) {
    let Some((_, s)) = shared::of(f) else { return };
    if s.pair.load(Relaxed) != 0 {
        moves(s);
        if let Some((_, other)) = other_end(s) {
            moves(other);
        }
    }
}

/// What lies in an end changes: the next commit looks there.
fn moves(s: &Shared) {
    let interval = this_interval();
    if s.moved.swap(interval, Relaxed) != interval {
        run::run().sockets_moved.store(interval, Relaxed);
        look_at_holder(s);
    }
}

/// The process that has an end takes part in the next commit, even if it sleeps.
pub fn look_at_holder(s: &Shared) {
    match s.holder.load(Relaxed) as usize {
        0 => run::others().for_each(|(slot, _)| unit::look_at(slot)),
        holder if holder - 1 == engine().slot => {}
        holder => unit::look_at(holder - 1),
    }
}

/// This process has an end no longer; another one may.
pub fn left_by_holder(s: &Shared) {
    if s.holder.load(Relaxed) as usize == engine().slot + 1 {
        s.holder.store(0, Relaxed);
        let may_move = s.pair.load(Relaxed) != 0 || pty_number(s.ino.load(Relaxed)).is_some();
        if s.moved.load(Relaxed) == this_interval() && may_move {
            look_at_holder(s);
        }
    }
}

/// At a recovery this process has it again. (Warm, what lies there is not what it was.)
pub fn joined(at: usize, s: &Shared, warm: bool) {
    s.holder.store(engine().slot as u32 + 1, Relaxed);
    if warm {
        waiting::joined(at, s);
    }
    if s.pair.load(Relaxed) != 0 {
        s.moved.store(this_interval(), Relaxed);
        run::run().sockets_moved.store(this_interval(), Relaxed);
    }
}

/// At a commit: what lies in the ends that this process has, if it may have changed.
pub fn save() {
    let root = &state().root;
    let interval = this_interval();
    if root.socket_ends == 0 || run::run().sockets_moved.load(Relaxed) != interval {
        return;
    }
    for file in 1..=root.file_high {
        if state().file_refs[file as usize - 1] == 0 || open_file(file).kind != Kind::Socket {
            continue;
        }
        let f = open_file(file);
        if let Some((at, s)) = shared::of(f)
            && s.pair.load(Relaxed) != 0
            && s.moved.load(Relaxed) == interval
            && let Some(fd) = any_fd(file)
            && is_there(file, fd)
        {
            save_one(at, s, fd, f.socket_type() == SOCK_STREAM);
            s.holder.store(engine().slot as u32 + 1, Relaxed);
        }
    }
}

fn save_one(at: usize, s: &Shared, fd: i32, is_stream: bool) {
    let published = engine().store.published();
    let place = s.place_for(published);
    let len = match is_stream {
        true => peek_stream(fd, at, place),
        false => peek_messages(fd, at, place),
    };
    let [ends, is_hung_up] = ended(fd);
    let inside = Inside {
        len: len.unwrap_or(0),
        ends,
        is_hung_up,
        is_lost: len.is_none(),
        waits: false,
    };
    let sum = contents_sum(shared::inside(at, place, inside.len));
    s.set_with(inside.value(), sum, published);
}

/// Whether nothing more will come, and whether nothing can be sent either.
fn ended(fd: i32) -> [bool; 2] {
    const POLLHUP: u64 = 0x10;
    const POLLRDHUP: u64 = 0x2000;
    // struct pollfd: fd i32, events i16, revents i16.
    let mut p = fd as u32 as u64 | POLLRDHUP << 32;
    sys!(POLL, &raw mut p, 1, 0);
    [POLLRDHUP, POLLHUP].map(|bit| p >> 48 & bit != 0)
}

/// Looks at what a receive would give, without taking it: how many bytes of it lie in the
/// place of the entry now, from `from` on. None if that is not all that there is to it.
fn peek(fd: i32, at: usize, place: usize, from: usize) -> Option<usize> {
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    const MSG_TRUNCATED: usize = 0x28;
    let to = shared::contents(at, place).wrapping_add(from);
    let part = [to as usize, CONTENTS_LEN - from];
    let mut control = [0u64; 128];
    let mut header = OneBuffer::new(&part, &mut control);
    let flags = MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    let n = sys!(RECVMSG, fd, &raw mut header, flags);
    let came = &bytes_of(&control)[..header.control_len.min(size_of_val(&control))];
    let mut descriptors = false;
    message::each_descriptor(if failed(n) { &[] } else { came }, |fd| {
        descriptors = true;
        sys!(CLOSE, fd);
    });
    let whole = !failed(n) && !descriptors && header.flags & MSG_TRUNCATED == 0;
    whole.then_some(n as usize)
}

fn peek_stream(fd: i32, at: usize, place: usize) -> Option<usize> {
    const FIONREAD: usize = 0x541b;
    let mut inside = 0i32;
    let r = sys!(IOCTL, fd, FIONREAD, &raw mut inside);
    let n = inside.max(0) as usize;
    if failed(r) || n == 0 {
        return Some(0);
    }
    peek(fd, at, place, 0).filter(|&seen| seen == n)
}

/// Messages, each behind its length (u32).
fn peek_messages(fd: i32, at: usize, place: usize) -> Option<usize> {
    const SO_PEEK_OFF: usize = 42;
    const MSG_TRUNC: usize = 0x20;
    let look_from = |offset: i32| {
        let offset = &raw const offset;
        sys!(SETSOCKOPT, fd, facts::SOL_SOCKET, SO_PEEK_OFF, offset, 4)
    };
    let (mut end, mut seen) = (0, 0);
    let all = loop {
        look_from(seen);
        let mut byte = 0u8;
        let flags = MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC;
        let len = sys!(RECVFROM, fd, &raw mut byte, 0, flags, 0, 0);
        if failed(len) || len == 0 {
            break true;
        }
        if end + HEAD + len as usize > CONTENTS_LEN {
            break false;
        }
        look_from(seen);
        if peek(fd, at, place, end + HEAD) != Some(len as usize) {
            break false;
        }
        shared::put_inside(at, place, end, &(len as u32).to_le_bytes());
        end += HEAD + len as usize;
        seen += len as i32;
    };
    look_from(-1);
    all.then_some(end)
}

/// Before each message that is kept: its length, u32.
pub const HEAD: usize = 4;
