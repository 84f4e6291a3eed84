//! The rows of the tables, word for word as they lie in persistent memory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use rio_core::At;
use vista::{Ptr, persistent};

/// States of a slot; any other word is one that no writer wrote.
pub const FREE: u32 = 0;
/// A request that waits for its response; the bytes are the request's.
pub const SENT: u32 = 1;
/// A request that was received and is not answered. It has no bytes: they are the program's now.
pub const RECEIVED: u32 = 2;
/// A request that was answered; the bytes are the response's.
pub const RESPONDED: u32 = 3;
/// A response that was acknowledged while one before it was not.
pub const DONE: u32 = 4;

persistent! {
    pub struct Root {
        pub magic: u64,
        pub version: u32,
        /// Requests that may be unsettled on a link, either way.
        pub window: u32,
        pub node: [u8; 16],
        /// How often the store's messages were opened.
        pub boots: u64,
        /// The number of the last link; none is used twice.
        pub last_link: u64,
        pub links: Ptr<LinkRow>,
        pub clients: Ptr<ClientRow>,
        /// Where it listened last.
        pub address: Address,
        pub resend_port: u64,
    }

    pub struct LinkRow {
        pub next: Ptr<LinkRow>,
        pub previous: Ptr<LinkRow>,
        pub number: u64,
        pub next_seq: u64,
        /// Who answered there first; zeros before anybody did.
        pub server: [u8; 16],
        pub server_boots: u64,
        pub address: Address,
        pub slots: Ptr<Slot>,
    }

    pub struct ClientRow {
        pub next: Ptr<ClientRow>,
        pub previous: Ptr<ClientRow>,
        pub node: [u8; 16],
        pub link: u64,
        pub stream: u64,
        /// All requests below are settled and will never be received again.
        pub floor: u64,
        pub address: Address,
        pub slots: Ptr<Slot>,
    }

    #[derive(PartialEq, Eq)]
    pub struct Slot {
        pub seq: u64,
        pub bytes: Ptr<u8>,
        pub len: u32,
        pub state: u32,
    }

    /// An IP address and a port; IPv4 as IPv6 writes it.
    #[derive(PartialEq, Eq)]
    pub struct Address {
        pub ip: [u8; 16],
        pub scope: u32,
        pub port: u32,
    }
}

/// From this length on a message lies behind room for the header of its packet, so that both leave
/// as one piece without a copy. Its place matters as well: a packet that begins where a page does is
/// copied a good deal slower by the kernel.
const LONG: usize = 1024;
/// Some lines, of which a header is the end.
pub const ROOM: usize = 128;
const _: () = assert!(ROOM >= crate::packet::HEADER_LEN);

/// The bytes before a message in its block.
#[inline]
pub fn room_before(len: usize) -> usize {
    if len >= LONG { ROOM } else { 0 }
}

impl Slot {
    /// Where the message begins.
    pub fn message_at(&self) -> At {
        self.bytes.at().plus(room_before(self.len as usize))
    }

    pub const FREE: Slot = Slot {
        seq: 0,
        bytes: Ptr::NULL,
        len: 0,
        state: FREE,
    };
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        let (ip, scope) = match address {
            SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(address) => (*address.ip(), address.scope_id()),
        };
        Address {
            ip: ip.octets(),
            scope,
            port: address.port().into(),
        }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> SocketAddr {
        let ip = Ipv6Addr::from(address.ip);
        match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(IpAddr::V4(ip), address.port as u16),
            None => SocketAddrV6::new(ip, address.port as u16, 0, address.scope).into(),
        }
    }
}

impl Address {
    pub fn unspecified() -> Address {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0).into()
    }
}
