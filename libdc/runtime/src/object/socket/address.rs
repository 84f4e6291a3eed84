//! Addresses of unix sockets that are paths: files, which outlive whoever has bound them.

use super::facts::{ADDRESS, AF_UNIX};
use crate::machine::sys::{errno::*, failed};
use crate::object::descriptor::O_NONBLOCK;
use crate::object::record::bytes_of;
use crate::object::stat::{S_IFSOCK, Stat};
use crate::sys;
use dc_image::seal::contents_sum;

/// The path in an address, ended by NUL; none if the address is no path.
pub fn path_of(address: &[u8]) -> Option<[u8; ADDRESS]> {
    let family = u16::from_le_bytes([*address.first()?, *address.get(1)?]);
    let path = address
        .get(2..)
        .filter(|path| path.first().is_some_and(|&b| b != 0))?;
    let mut copy = [0u8; ADDRESS];
    copy.get_mut(..path.len())?.copy_from_slice(path);
    (family as u64 == AF_UNIX).then_some(copy)
}

/// What is there: a file of that path.
pub fn file_at(address: &[u8]) -> Option<Stat> {
    let path = path_of(address)?;
    let mut st = Stat::ZERO;
    (!failed(sys!(LSTAT, path.as_ptr(), &raw mut st))).then_some(st)
}

/// What tells an address from others: of a path, the file. 0 if there is none.
pub fn key_of(address: &[u8]) -> u64 {
    if path_of(address).is_none() {
        return contents_sum(address) | 1;
    }
    file_at(address).map_or(0, |st| contents_sum(bytes_of(&[st.dev, st.ino])) | 1)
}

/// Binds a socket where the file of one that died may be in the way: that goes, and the new
/// one has its rights. What it may not take away is in use.
pub fn bind_anew(fd: isize, kind: u64, address: &[u8]) -> isize {
    let Some(path) = path_of(address) else {
        return -EINVAL;
    };
    let before = file_at(address);
    if let Some(st) = &before {
        if st.kind() != S_IFSOCK || is_in_use(kind, address) {
            return -EADDRINUSE;
        }
        let r = sys!(UNLINK, path.as_ptr());
        if failed(r) {
            return r;
        }
    }
    let r = sys!(BIND, fd, address.as_ptr(), address.len());
    if let Some(st) = before.filter(|_| !failed(r)) {
        let mode = sys!(CHMOD, path.as_ptr(), st.mode & 0o7777);
        let owner = sys!(LCHOWN, path.as_ptr(), st.uid, st.gid);
        return mode.min(owner);
    }
    r
}

/// Whether somebody has bound it.
fn is_in_use(kind: u64, address: &[u8]) -> bool {
    const SOCK_CLOEXEC: usize = 0o2000000;
    let fd = sys!(
        SOCKET,
        AF_UNIX,
        kind as usize | SOCK_CLOEXEC | O_NONBLOCK,
        0
    );
    let r = sys!(CONNECT, fd, address.as_ptr(), address.len());
    sys!(CLOSE, fd);
    r != -ECONNREFUSED
}
