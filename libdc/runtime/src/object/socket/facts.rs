//! What a socket is: family, type, addresses, options. Noted when the program makes it so,
//! for a recovery that must make it again.
//!
//! In the record of an open file: numbers in `words`, addresses and options in `path`, which
//! a socket has no other use for.

use super::{SOCK_CLOEXEC, SOCK_NONBLOCK};
use crate::engine::state;
use crate::machine::sys::failed;
use crate::machine::user;
use crate::object::descriptor::*;
use crate::state::{Kind, OpenFile};
use crate::sys;

/// In `OpenFile::words`.
const FAMILY: usize = 0;
const TYPE: usize = 1;
const PROTOCOL: usize = 2;
const ROLE: usize = 3;
const BACKLOG: usize = 4;
const NAME_LEN: usize = 5;
const PEER_LEN: usize = 6;
const OPTIONS_LEN: usize = 7;

/// For [`super::tie`]: what is under way.
pub const UNDER_WAY: usize = 15;

/// Bits of ROLE.
const BOUND: u64 = 1;
const LISTENS: u64 = 2;
const CONNECTED: u64 = 4;

/// In `OpenFile::path`: own address, that of the peer, the working directory in which a
/// relative one was meant, options.
const NAME_AT: usize = 0;
const PEER_AT: usize = ADDRESS;
const DIRECTORY_AT: usize = 2 * ADDRESS;
const OPTIONS_AT: usize = DIRECTORY_AT + DIRECTORY;
pub const ADDRESS: usize = 128;
const DIRECTORY: usize = 1024;

pub const AF_UNIX: u64 = 1;
pub const AF_INET: u64 = 2;
pub const AF_INET6: u64 = 10;
pub const SOCK_STREAM: u64 = 1;
pub const SOCK_DGRAM: u64 = 2;
pub const SOCK_SEQPACKET: u64 = 5;
pub const SOL_SOCKET: usize = 1;

impl OpenFile {
    pub fn family(&self) -> u64 {
        self.words[FAMILY]
    }

    pub fn socket_type(&self) -> u64 {
        self.words[TYPE]
    }

    pub fn socket_protocol(&self) -> u64 {
        self.words[PROTOCOL]
    }

    pub fn listens(&self) -> bool {
        self.words[ROLE] & LISTENS != 0
    }

    pub fn backlog(&self) -> u64 {
        self.words[BACKLOG]
    }

    pub fn is_connected(&self) -> bool {
        self.words[ROLE] & CONNECTED != 0
    }

    /// Its own address, as bind(2) takes it; empty if it was not bound.
    pub fn name(&self) -> &[u8] {
        let len = match self.words[ROLE] & BOUND {
            0 => 0,
            _ => self.words[NAME_LEN] as usize,
        };
        &self.path[NAME_AT..NAME_AT + len.min(ADDRESS)]
    }

    /// The address of its peer, as connect(2) takes it.
    pub fn peer_name(&self) -> &[u8] {
        let len = self.words[PEER_LEN] as usize;
        &self.path[PEER_AT..PEER_AT + len.min(ADDRESS)]
    }

    /// The directory from which a relative path in its address leads, ended by NUL.
    pub fn directory(&self) -> &[u8] {
        &self.path[DIRECTORY_AT..OPTIONS_AT]
    }

    /// Calls `f` with level, name and value of each option that was set.
    pub fn each_option(&self, mut f: impl FnMut(usize, usize, &[u8])) {
        let end = (OPTIONS_AT + self.words[OPTIONS_LEN] as usize).min(self.path.len());
        let mut at = OPTIONS_AT;
        while at + HEAD <= end {
            let [level, name, len] = self.option_head(at);
            let value = at + HEAD;
            if value + len > end {
                return;
            }
            f(level, name, &self.path[value..value + len]);
            at = value + len;
        }
    }

    fn option_head(&self, at: usize) -> [usize; 3] {
        let word = |i: usize| {
            let bytes = &self.path[at + 4 * i..at + 4 * i + 4];
            u32::from_le_bytes(bytes.try_into().unwrap_or([0; 4])) as usize
        };
        [word(0), word(1), word(2)]
    }
}

/// Before the value of an option: level, name and length, u32 each.
const HEAD: usize = 12;

/// A socket that socket(2) has made, or socketpair(2), which has connected it.
pub fn made(f: &mut OpenFile, family: usize, kind: usize, protocol: usize, in_pair: bool) {
    f.words[ROLE] = if in_pair { CONNECTED } else { 0 };
    f.words[FAMILY] = family as u32 as u64;
    f.words[TYPE] = (kind & !(SOCK_NONBLOCK | SOCK_CLOEXEC)) as u32 as u64;
    f.words[PROTOCOL] = protocol as u32 as u64;
}

/// A socket that came to the program in another way: the kernel tells.
pub fn adopted(fd: i32, f: &mut OpenFile) {
    const SO_TYPE: usize = 3;
    const SO_ACCEPTCONN: usize = 30;
    const SO_PROTOCOL: usize = 38;
    const SO_DOMAIN: usize = 39;
    const SOMAXCONN: u64 = 4096;
    let number = |option| number_of(fd, option).unwrap_or(0) as u64;
    f.words[FAMILY] = number(SO_DOMAIN);
    f.words[TYPE] = number(SO_TYPE);
    f.words[PROTOCOL] = number(SO_PROTOCOL);
    if number(SO_ACCEPTCONN) != 0 {
        f.words[ROLE] |= LISTENS;
        f.words[BACKLOG] = SOMAXCONN;
    }
    note_name(fd, f);
    let mut peer = [0u8; ADDRESS];
    let mut len = ADDRESS as u32;
    if !failed(sys!(GETPEERNAME, fd, peer.as_mut_ptr(), &raw mut len)) {
        connected(f, &peer[..(len as usize).min(ADDRESS)]);
    }
}

fn number_of(fd: i32, option: usize) -> Option<u32> {
    let (mut value, mut len) = (0u32, 4u32);
    let r = sys!(
        GETSOCKOPT,
        fd,
        SOL_SOCKET,
        option,
        &raw mut value,
        &raw mut len
    );
    (!failed(r)).then_some(value)
}

/// It was accepted: it is as the one that listens.
pub fn accepted(listening: Option<u32>, fd: i32, f: &mut OpenFile) {
    match listening.map(open_file).filter(|of| of.family() != 0) {
        Some(of) => {
            let [family, kind, protocol] = [FAMILY, TYPE, PROTOCOL].map(|i| of.words[i] as usize);
            made(f, family, kind, protocol, true);
        }
        None => adopted(fd, f),
    }
}

/// It has an address of its own: the one that the kernel tells, for of a port 0 the program
/// has been given another one.
pub fn note_name(fd: i32, f: &mut OpenFile) {
    let mut name = [0u8; ADDRESS];
    let mut len = ADDRESS as u32;
    let r = sys!(GETSOCKNAME, fd, name.as_mut_ptr(), &raw mut len);
    let len = (len as usize).min(ADDRESS);
    let any_port = matches!(f.family(), AF_INET | AF_INET6) && name[2..4] == [0; 2];
    if failed(r) || len <= 2 || any_port {
        return;
    }
    f.path[NAME_AT..NAME_AT + len].copy_from_slice(&name[..len]);
    f.words[NAME_LEN] = len as u64;
    f.words[ROLE] |= BOUND;
    note_directory(f, &name[..len]);
}

pub fn listens(fd: i32, f: &mut OpenFile, backlog: usize) {
    // One that was not bound has an address now.
    note_name(fd, f);
    if matches!(f.family(), AF_INET | AF_INET6) {
        reuse_address(fd, 1);
    }
    f.words[ROLE] |= LISTENS;
    f.words[BACKLOG] = backlog as u32 as u64;
}

/// Without it the connections that a death has left to the kernel would keep the next worker
/// from the address for a minute. While a socket listens nobody else can bind there all the
/// same (socket(7)). Programs are told what they have set themselves: [`shown_option`].
pub fn reuse_address(fd: i32, on: i32) -> isize {
    let at = &raw const on;
    sys!(SETSOCKOPT, fd, SOL_SOCKET, SO_REUSEADDR, at, 4)
}

pub const SO_REUSEADDR: usize = 2;

/// The value of an option that the program has set, 0 if it has not.
pub fn shown_option(f: &OpenFile, wanted: [usize; 2]) -> i32 {
    let mut shown = 0;
    f.each_option(|level, name, value| {
        if [level, name] == wanted {
            let value = value.get(..4).and_then(|v| v.try_into().ok());
            shown = i32::from(i32::from_le_bytes(value.unwrap_or([0; 4])) != 0);
        }
    });
    shown
}

/// It has a peer, or has asked for one. (A datagram socket loses it by an address without a
/// family: connect(2).)
pub fn connected(f: &mut OpenFile, peer: &[u8]) {
    let len = peer.len().min(ADDRESS);
    if len >= 2 && peer[..2] == [0; 2] {
        f.words[ROLE] &= !CONNECTED;
        f.words[PEER_LEN] = 0;
        return;
    }
    f.path[PEER_AT..PEER_AT + len].copy_from_slice(&peer[..len]);
    f.words[PEER_LEN] = len as u64;
    f.words[ROLE] |= CONNECTED;
    if f.words[ROLE] & BOUND == 0 {
        let mut copy = [0u8; ADDRESS];
        copy[..len].copy_from_slice(&peer[..len]);
        note_directory(f, &copy[..len]);
    }
}

fn note_directory(f: &mut OpenFile, address: &[u8]) {
    f.path[DIRECTORY_AT] = 0;
    if f.family() != AF_UNIX || matches!(address.get(2), None | Some(0 | b'/')) {
        return;
    }
    let cwd = &state().root.cwd;
    let len = cwd.iter().position(|&b| b == 0).unwrap_or(cwd.len());
    if len < DIRECTORY {
        f.path[DIRECTORY_AT..DIRECTORY_AT + len].copy_from_slice(&cwd[..len]);
        f.path[DIRECTORY_AT + len] = 0;
    }
}

/// An option was set to `len` bytes at `at`.
pub fn option_set(f: &mut OpenFile, level: usize, name: usize, at: usize, len: usize) {
    let mut value = [0u8; 64];
    if !comes_back(level, name) || len > value.len() || !user::read_bytes(at, &mut value[..len]) {
        return;
    }
    let same = [level as u32 as usize, name as u32 as usize, len];
    let end = OPTIONS_AT + f.words[OPTIONS_LEN] as usize;
    let mut at = OPTIONS_AT;
    while at + HEAD <= end {
        let head = f.option_head(at);
        if head == same {
            f.path[at + HEAD..at + HEAD + len].copy_from_slice(&value[..len]);
            return;
        }
        at += HEAD + head[2];
    }
    if end + HEAD + len > f.path.len() {
        return;
    }
    for (i, word) in same.into_iter().enumerate() {
        f.path[end + 4 * i..end + 4 * i + 4].copy_from_slice(&(word as u32).to_le_bytes());
    }
    f.path[end + HEAD..end + HEAD + len].copy_from_slice(&value[..len]);
    f.words[OPTIONS_LEN] += (HEAD + len) as u64;
}

/// Whether an option's value means the same later: no pointer, no descriptor, no order.
fn comes_back(level: usize, name: usize) -> bool {
    const IPPROTO_IP: usize = 0;
    const IPPROTO_TCP: usize = 6;
    const IPPROTO_IPV6: usize = 41;
    const SO_ATTACH_FILTER: usize = 26;
    const SO_DETACH_FILTER: usize = 27;
    const SO_ATTACH_BPF: usize = 50;
    const SO_ATTACH_REUSEPORT: [usize; 2] = [51, 52];
    const TCP_PLAIN: usize = 28;
    match level as u32 as usize {
        SOL_SOCKET => {
            !matches!(name, SO_ATTACH_FILTER | SO_DETACH_FILTER | SO_ATTACH_BPF)
                && !SO_ATTACH_REUSEPORT.contains(&name)
        }
        // (Above them are those of packet filters.)
        IPPROTO_IP | IPPROTO_IPV6 => name < 64,
        // Up to TCP_SAVED_SYN; behind it are ULP, repair and the like.
        IPPROTO_TCP => name <= TCP_PLAIN,
        _ => false,
    }
}

/// The file of a descriptor that is a socket.
pub fn socket_of(fd: i32) -> Option<u32> {
    file_of(fd).filter(|&file| open_file(file).kind == Kind::Socket)
}
