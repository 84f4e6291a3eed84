//! The rows of servers and clients: made, changed, removed.

use std::net::SocketAddr;

use vista::{Ptr, persistent};

use super::{Address, ClientRow, LinkRow, Root, Slot, field};
use crate::memory::Memory;
use crate::{Error, NodeId};

/// A new link to a server, with an empty request table.
pub fn add_link(
    memory: &mut impl Memory,
    place: Ptr<Root>,
    address: SocketAddr,
) -> Result<(Ptr<LinkRow>, u64), Error> {
    let mut root = memory.get(place)?;
    let number = root.last_link + 1;
    let slots = memory.alloc(&vec![Slot::FREE; root.window as usize])?;
    let row = memory.alloc(&[LinkRow {
        next: root.links,
        previous: Ptr::NULL,
        number,
        next_seq: 1,
        server: [0; 16],
        server_boots: 0,
        address: address.into(),
        slots,
    }])?;
    if let Some(next) = root.links.non_null() {
        let old = memory.get(next)?;
        memory.set(
            next,
            LinkRow {
                previous: row,
                ..old
            },
        )?;
    }
    root.links = row;
    root.last_link = number;
    memory.set(place, root)?;
    Ok((row, number))
}

/// Removes a link whose requests are all settled.
pub fn remove_link(
    memory: &mut impl Memory,
    place: Ptr<Root>,
    at: Ptr<LinkRow>,
) -> Result<(), Error> {
    let row = memory.get(at)?;
    match row.previous.non_null() {
        Some(previous) => {
            let old = memory.get(previous)?;
            memory.set(
                previous,
                LinkRow {
                    next: row.next,
                    ..old
                },
            )?;
        }
        None => {
            let root = memory.get(place)?;
            memory.set(
                place,
                Root {
                    links: row.next,
                    ..root
                },
            )?;
        }
    }
    if let Some(next) = row.next.non_null() {
        let old = memory.get(next)?;
        let previous = row.previous;
        memory.set(next, LinkRow { previous, ..old })?;
    }
    memory.free(row.slots)?;
    memory.free(at)
}

/// Who answers on a link, and where.
pub fn set_server(
    memory: &mut impl Memory,
    at: Ptr<LinkRow>,
    server: NodeId,
    boots: u64,
    address: SocketAddr,
) -> Result<(), Error> {
    let row = memory.get(at)?;
    memory.set(
        at,
        LinkRow {
            server: server.0,
            server_boots: boots,
            address: address.into(),
            ..row
        },
    )
}

/// A client that is heard of for the first time, with an empty response table.
pub fn add_client(
    memory: &mut impl Memory,
    place: Ptr<Root>,
    (node, link): (NodeId, u32),
    (stream, floor): (u64, u64),
    address: SocketAddr,
) -> Result<Ptr<ClientRow>, Error> {
    let root = memory.get(place)?;
    let slots = memory.alloc(&vec![Slot::FREE; root.window as usize])?;
    let row = memory.alloc(&[ClientRow {
        next: root.clients,
        previous: Ptr::NULL,
        node: node.0,
        link: link.into(),
        stream,
        floor,
        address: address.into(),
        slots,
    }])?;
    if let Some(next) = root.clients.non_null() {
        let old = memory.get(next)?;
        memory.set(
            next,
            ClientRow {
                previous: row,
                ..old
            },
        )?;
    }
    memory.set(
        place,
        Root {
            clients: row,
            ..root
        },
    )?;
    Ok(row)
}

/// Removes a client whose requests are all settled.
pub fn remove_client(
    memory: &mut impl Memory,
    place: Ptr<Root>,
    at: Ptr<ClientRow>,
) -> Result<(), Error> {
    let row = memory.get(at)?;
    match row.previous.non_null() {
        Some(previous) => {
            let old = memory.get(previous)?;
            memory.set(
                previous,
                ClientRow {
                    next: row.next,
                    ..old
                },
            )?;
        }
        None => {
            let root = memory.get(place)?;
            memory.set(
                place,
                Root {
                    clients: row.next,
                    ..root
                },
            )?;
        }
    }
    if let Some(next) = row.next.non_null() {
        let old = memory.get(next)?;
        let previous = row.previous;
        memory.set(next, ClientRow { previous, ..old })?;
    }
    memory.free(row.slots)?;
    memory.free(at)
}

persistent! {
    /// What changes of a client's row, side by side.
    struct ClientHead { stream: u64, floor: u64, address: Address }
}

/// The usual case: nothing else has changed.
#[inline]
pub fn set_floor(memory: &mut impl Memory, at: Ptr<ClientRow>, floor: u64) -> Result<(), Error> {
    let place = field::<ClientRow, u64>(at, std::mem::offset_of!(ClientRow, floor));
    memory.set(place, floor)
}

#[inline]
pub fn set_client(
    memory: &mut impl Memory,
    at: Ptr<ClientRow>,
    (stream, floor): (u64, u64),
    address: SocketAddr,
) -> Result<(), Error> {
    let head = field::<ClientRow, ClientHead>(at, std::mem::offset_of!(ClientRow, stream));
    let address = address.into();
    memory.set(
        head,
        ClientHead {
            stream,
            floor,
            address,
        },
    )
}

const _: () = {
    use std::mem::offset_of;
    let begin = offset_of!(ClientRow, stream);
    assert!(offset_of!(ClientRow, floor) == begin + offset_of!(ClientHead, floor));
    assert!(offset_of!(ClientRow, address) == begin + offset_of!(ClientHead, address));
};
