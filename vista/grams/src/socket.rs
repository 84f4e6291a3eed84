//! UDP as the driver needs it: two parts in one datagram, and receiving with or without waiting.
//!
//! `std` sends one slice, so a message would be copied beside its header first; `sendmsg(2)` takes
//! both from where they are.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Error;

/// Room for what arrives while nobody looks; the kernel grants what it allows.
static BUFFER: libc::c_int = 4 << 20;

pub struct Socket {
    socket: UdpSocket,
    is_v6: bool,
    timeout_ms: AtomicU64,
}

impl Socket {
    pub fn bind(address: SocketAddr) -> Result<Socket, Error> {
        let socket = UdpSocket::bind(address).map_err(|cause| Error::Socket {
            action: "listen at",
            address: address.to_string(),
            cause,
        })?;
        let socket = Socket {
            socket,
            is_v6: address.is_ipv6(),
            timeout_ms: AtomicU64::new(0),
        };
        for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
            // SAFETY: an int of this frame; a refusal leaves the default, which works as well.
            unsafe {
                libc::setsockopt(
                    socket.socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const BUFFER).cast(),
                    size_of::<libc::c_int>() as u32,
                )
            };
        }
        Ok(socket)
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sends both parts as one datagram. What the network does not take is sent again by whoever
    /// wanted it sent, as what it loses is.
    pub fn send(&self, to: SocketAddr, header: &[u8], payload: &[u8]) -> io::Result<()> {
        let (mut name, name_len) = self.name_of(to);
        let mut parts = [header, payload].map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        // SAFETY: zeros are a valid message header; all that it points to lives in this frame or
        // is borrowed by it, and sendmsg only reads it.
        let sent = unsafe {
            let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
            message.msg_name = (&raw mut name).cast();
            message.msg_namelen = name_len;
            message.msg_iov = parts.as_mut_ptr();
            message.msg_iovlen = if payload.is_empty() { 1 } else { 2 };
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // The call itself: libc's function would be a cancellation point, which costs more in a
            // program with threads than the header's checksum does.
            libc::syscall(
                libc::SYS_sendmsg,
                self.socket.as_raw_fd(),
                &raw const message,
                flags,
            )
        };
        match sent {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits up to `wait`, which is rounded down to a power of two of milliseconds, so that the
    /// timeout seldom has to be set anew. None if nothing came.
    pub fn receive(
        &self,
        buffer: &mut [u8],
        wait: Duration,
    ) -> io::Result<Option<(usize, SocketAddr)>> {
        let ms = (wait.as_millis() as u64).clamp(1, 64);
        let ms = 1 << ms.ilog2();
        if self.timeout_ms.swap(ms, Ordering::Relaxed) != ms {
            self.socket
                .set_read_timeout(Some(Duration::from_millis(ms)))?;
        }
        self.receive_flagged(buffer, 0)
    }

    /// What is there already.
    pub fn poll(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        self.receive_flagged(buffer, libc::MSG_DONTWAIT)
    }

    fn receive_flagged(
        &self,
        buffer: &mut [u8],
        flags: libc::c_int,
    ) -> io::Result<Option<(usize, SocketAddr)>> {
        let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut name_len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: the buffer and the name are this call's own, with their lengths.
        let len = unsafe {
            libc::syscall(
                libc::SYS_recvfrom,
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
                flags,
                name.as_mut_ptr(),
                &raw mut name_len,
            )
        };
        if len < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                // A refusal is the answer to something that was sent before: the peer is away.
                io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: zeroed, and then filled by the kernel.
        let name = unsafe { name.assume_init() };
        Ok(address_of(&name).map(|from| (len as usize, from)))
    }

    fn name_of(&self, to: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
        // A socket of IPv6 reaches IPv4 by mapped addresses only.
        let to = match to {
            SocketAddr::V4(v4) if self.is_v6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            other => other,
        };
        // SAFETY: zeros are a valid sockaddr_storage; each of the two smaller ones fits into it.
        unsafe {
            let mut name: libc::sockaddr_storage = MaybeUninit::zeroed().assume_init();
            let len = match to {
                SocketAddr::V4(v4) => {
                    let mut in4: libc::sockaddr_in = MaybeUninit::zeroed().assume_init();
                    in4.sin_family = libc::AF_INET as u16;
                    in4.sin_port = v4.port().to_be();
                    in4.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                    ptr::write((&raw mut name).cast(), in4);
                    size_of::<libc::sockaddr_in>()
                }
                SocketAddr::V6(v6) => {
                    let mut in6: libc::sockaddr_in6 = MaybeUninit::zeroed().assume_init();
                    in6.sin6_family = libc::AF_INET6 as u16;
                    in6.sin6_port = v6.port().to_be();
                    in6.sin6_addr.s6_addr = v6.ip().octets();
                    in6.sin6_scope_id = v6.scope_id();
                    ptr::write((&raw mut name).cast(), in6);
                    size_of::<libc::sockaddr_in6>()
                }
            };
            (name, len as libc::socklen_t)
        }
    }
}

/// IPv4 as itself, however the socket writes it.
fn address_of(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: the family says which of the two it is, and both fit into the storage.
    unsafe {
        match i32::from(name.ss_family) {
            libc::AF_INET => {
                let in4 = &*(&raw const *name).cast::<libc::sockaddr_in>();
                let ip = in4.sin_addr.s_addr.to_ne_bytes().into();
                Some(SocketAddrV4::new(ip, u16::from_be(in4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let in6 = &*(&raw const *name).cast::<libc::sockaddr_in6>();
                let ip = std::net::Ipv6Addr::from(in6.sin6_addr.s6_addr);
                let port = u16::from_be(in6.sin6_port);
                Some(match ip.to_ipv4_mapped() {
                    Some(ip) => SocketAddr::new(IpAddr::V4(ip), port),
                    None => SocketAddrV6::new(ip, port, 0, in6.sin6_scope_id).into(),
                })
            }
            _ => None,
        }
    }
}
