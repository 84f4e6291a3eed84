//! Who has the other end of a unix socket: sock_diag(7).

use crate::machine::sys::failed;
use crate::reserved::move_high;
use crate::sys;
use dc_image::boot::high_fd;

/// `struct nlmsghdr` and `struct unix_diag_req`.
#[repr(C)]
struct Request {
    len: u32,
    kind: u16,
    flags: u16,
    number: u32,
    port: u32,
    family: u8,
    protocol: u8,
    _pad: u16,
    states: u32,
    ino: u32,
    show: u32,
    cookie: [u32; 2],
}

/// The other end of a unix socket.
pub enum Peer {
    /// Its inode.
    Has(u64),
    /// It is closed.
    Closed,
    /// The kernel does not tell.
    Unknown,
}

/// The other end of a connected unix socket with this inode.
pub fn peer_of(ino: u64) -> Peer {
    const AF_NETLINK: usize = 16;
    const SOCK_RAW_CLOEXEC: usize = 3 | 0o2000000;
    const NETLINK_SOCK_DIAG: usize = 4;
    let fd = sys!(SOCKET, AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_SOCK_DIAG);
    if failed(fd) {
        return Peer::Unknown;
    }
    let fd = move_high(fd, high_fd::SCRATCH);
    let answer = ask(fd, ino as u32);
    sys!(CLOSE, fd);
    match answer {
        Some(0) => Peer::Closed,
        Some(ino) => Peer::Has(ino),
        None => Peer::Unknown,
    }
}

/// The inode of its other end, 0 if it has none.
fn ask(fd: i32, ino: u32) -> Option<u64> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const AF_UNIX: u8 = 1;
    const UDIAG_SHOW_PEER: u32 = 4;
    const MSG_DONTWAIT: usize = 0x40;
    let request = Request {
        len: size_of::<Request>() as u32,
        kind: SOCK_DIAG_BY_FAMILY,
        flags: NLM_F_REQUEST,
        number: 1,
        port: 0,
        family: AF_UNIX,
        protocol: 0,
        _pad: 0,
        states: u32::MAX,
        ino,
        show: UDIAG_SHOW_PEER,
        cookie: [u32::MAX; 2],
    };
    let r = sys!(
        SENDTO,
        fd,
        &raw const request,
        size_of::<Request>(),
        MSG_DONTWAIT,
        0,
        0
    );
    let mut answer = [0u8; 512];
    if failed(r) {
        return None;
    }
    // The kernel answers before the send returns.
    let room = answer.len();
    let n = sys!(RECVFROM, fd, answer.as_mut_ptr(), room, MSG_DONTWAIT, 0, 0);
    peer_in(answer.get(..n.max(0) as usize)?)
}

/// The attribute UNIX_DIAG_PEER of an answer; 0 if that has none.
fn peer_in(answer: &[u8]) -> Option<u64> {
    const HEAD: usize = 16;
    const MESSAGE: usize = 16;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const UNIX_DIAG_PEER: u16 = 2;
    let half = |at: usize| {
        let bytes = answer.get(at..at + 2)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    };
    if half(4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let mut at = HEAD + MESSAGE;
    while let (Some(len), Some(kind)) = (half(at), half(at + 2)) {
        if kind == UNIX_DIAG_PEER {
            let ino = answer.get(at + 4..at + 8)?;
            return Some(u32::from_le_bytes(ino.try_into().ok()?) as u64);
        }
        at += (len as usize).max(4).next_multiple_of(4);
    }
    Some(0)
}
