//! UDP as the driver needs it: two parts in one datagram, and receiving with or without waiting.
//!
//! `std` sends one slice, so a long message would be copied beside its header first; `sendmsg(2)`
//! takes both from where they are, which costs the kernel as much as copying two kilobytes.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{ptr, slice};

use crate::Error;
use crate::machine::timer::Nanos;

/// Room for what arrives while nobody looks; the kernel grants what it allows.
static BUFFER: libc::c_int = 4 << 20;
/// Up to this long header and message are copied together.
const COPIED: usize = 2048;
/// In place of a timeout in milliseconds.
const ENDLESS: u64 = 0;
const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

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
            timeout_ms: AtomicU64::new(ENDLESS),
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

    pub fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sends both parts as one datagram. What the network does not take is sent again by whoever
    /// wanted it sent, as what it loses is.
    #[inline]
    pub fn send(&self, to: SocketAddr, header: &[u8], payload: &[u8]) -> io::Result<()> {
        let len = header.len() + payload.len();
        if len <= COPIED {
            let mut joined = [const { MaybeUninit::<u8>::uninit() }; COPIED];
            // SAFETY: both parts fit into `joined`, of which as much is read as was filled.
            let joined = unsafe {
                let start = joined.as_mut_ptr().cast::<u8>();
                ptr::copy_nonoverlapping(header.as_ptr(), start, header.len());
                let behind = start.add(header.len());
                ptr::copy_nonoverlapping(payload.as_ptr(), behind, payload.len());
                slice::from_raw_parts(start, len)
            };
            return self.send_whole(to, joined);
        }
        let (name, name_len) = self.name_of(to);
        let mut parts = [header, payload].map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        // SAFETY: zeros are a valid message header; all that it points to lives in this frame or is
        // borrowed by it, and sendmsg only reads it.
        let sent = unsafe {
            let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
            message.msg_name = (&raw const name).cast_mut().cast();
            message.msg_namelen = name_len;
            message.msg_iov = parts.as_mut_ptr();
            message.msg_iovlen = parts.len();
            libc::syscall(
                libc::SYS_sendmsg,
                self.socket.as_raw_fd(),
                &raw const message,
                FLAGS,
            )
        };
        done(sent)
    }

    /// Sends a datagram that lies in one piece.
    #[inline]
    pub fn send_whole(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let (name, name_len) = self.name_of(to);
        // The call itself: libc's function would be a cancellation point, which costs more in a
        // program with threads than the header's checksum does.
        // SAFETY: sendto reads the datagram and the name, which this call borrows or owns.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_sendto,
                self.socket.as_raw_fd(),
                datagram.as_ptr(),
                datagram.len(),
                FLAGS,
                &raw const name,
                name_len,
            )
        };
        done(sent)
    }

    /// Waits up to `wait`, which is rounded down to a power of two of milliseconds, so that the
    /// timeout seldom has to be set anew; or without an end, which saves the kernel a timer. None
    /// if nothing came.
    #[inline]
    pub fn receive(
        &self,
        buffer: &mut [u8],
        wait: Option<Nanos>,
    ) -> io::Result<Option<(usize, SocketAddr)>> {
        let ms = wait.map_or(ENDLESS, |wait| 1 << (wait / 1_000_000).clamp(1, 64).ilog2());
        if self.timeout_ms.load(Ordering::Relaxed) != ms {
            self.set_timeout(ms)?;
        }
        self.receive_flagged(buffer, 0)
    }

    #[cold]
    fn set_timeout(&self, ms: u64) -> io::Result<()> {
        let timeout = (ms != ENDLESS).then(|| Duration::from_millis(ms));
        self.socket.set_read_timeout(timeout)?;
        self.timeout_ms.store(ms, Ordering::Relaxed);
        Ok(())
    }

    /// Whoever receives stops waiting, now and for ever.
    pub fn shut(&self) {
        // SAFETY: a call on a descriptor that is ours. It says that nothing is connected, which is
        // true, and wakes all the same (`inet_shutdown` in Linux's net/ipv4/af_inet.c).
        unsafe { libc::shutdown(self.socket.as_raw_fd(), libc::SHUT_RD) };
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
        // The longer one of the two kinds.
        let mut name = MaybeUninit::<libc::sockaddr_in6>::zeroed();
        let mut name_len = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
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

    fn name_of(&self, to: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
        // A socket of IPv6 reaches IPv4 by mapped addresses only.
        let to = match to {
            SocketAddr::V4(v4) if self.is_v6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            other => other,
        };
        // SAFETY: zeros are a valid name of either kind, of which IPv6's is the longer one.
        unsafe {
            let mut name: libc::sockaddr_in6 = MaybeUninit::zeroed().assume_init();
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
                    name.sin6_family = libc::AF_INET6 as u16;
                    name.sin6_port = v6.port().to_be();
                    name.sin6_addr.s6_addr = v6.ip().octets();
                    name.sin6_scope_id = v6.scope_id();
                    size_of::<libc::sockaddr_in6>()
                }
            };
            (name, len as libc::socklen_t)
        }
    }
}

fn done(sent: libc::c_long) -> io::Result<()> {
    match sent {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// IPv4 as itself, however the socket writes it.
fn address_of(name: &libc::sockaddr_in6) -> Option<SocketAddr> {
    match i32::from(name.sin6_family) {
        libc::AF_INET => {
            // SAFETY: the family says so, and it is the shorter one.
            let in4 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = in4.sin_addr.s_addr.to_ne_bytes().into();
            Some(SocketAddrV4::new(ip, u16::from_be(in4.sin_port)).into())
        }
        libc::AF_INET6 => {
            let ip = std::net::Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(match ip.to_ipv4_mapped() {
                Some(ip) => SocketAddr::new(IpAddr::V4(ip), port),
                None => SocketAddrV6::new(ip, port, 0, name.sin6_scope_id).into(),
            })
        }
        _ => None,
    }
}
