//! The tables in persistent memory: what a store has asked of others, and others of it.
//!
//! ```text
//!  root of the segment
//!   '-> Root: node, boots, window, where it listened
//!        |-> LinkRow -> LinkRow ..      servers that this store sends requests to
//!        |     '-> Slot[window]         the request table: slot seq % window
//!        |           '-> block          a request, until its response was received
//!        '-> ClientRow -> ClientRow ..  clients that it has received requests from
//!              '-> Slot[window]         the response table
//!                    '-> block          a response, until it was acknowledged
//! ```
//! In a block of a long message there is room before it, for a header; see `rows`.
//!
//! The thesis hashes both tables by request id. Here the unsettled requests of a link are always
//! within one window of sequence numbers, so the number is the place, and nothing ever collides.
//!
//! Every function is called inside the caller's transaction and changes a few words of it. So what
//! the thesis defers to commit in operation logs (sending, freeing, removing) is here either undone
//! with the transaction or follows from the tables: a request that is in its table is to be sent,
//! one that is not is settled. Playing that back is reading the tables, which may be done twice.
//!
//! - [`load`]: what a start reads;
//! - [`peers`]: rows of servers and clients;
//! - [`block`]: where a message lies;
//! - here: requests and responses in their slots.

mod block;
mod load;
mod peers;

use std::net::SocketAddr;

use vista::{Ptr, persistent};

use crate::memory::Memory;
pub use crate::rows::*;
use crate::{Error, NodeId};

pub use block::{Spare, Stored};
use block::{len_of_block, store};
pub use load::{Loaded, load};
pub use peers::{
    add_client, add_link, remove_client, remove_link, set_client, set_floor, set_server,
};

pub const MAGIC: u64 = u64::from_le_bytes(*b"GRAMS\0\r\n");
/// 2 has room before long messages.
pub const VERSION: u32 = 2;
/// What the segment with the tables is called in its store.
pub const SEGMENT: &str = "vistagrams";
pub const WINDOW_LIMIT: u32 = 1024;
/// No request has a number as high.
const SEQ_LIMIT: u64 = 1 << 62;
/// Rows of either kind; a list that is longer is a circle.
const ROWS_LIMIT: usize = 1 << 20;

/// Makes empty tables.
pub fn create(memory: &mut impl Memory, node: NodeId, window: u32) -> Result<(), Error> {
    let root = memory.alloc(&[Root {
        magic: MAGIC,
        version: VERSION,
        window: window.clamp(1, WINDOW_LIMIT),
        node: node.0,
        boots: 0,
        last_link: 0,
        links: Ptr::NULL,
        clients: Ptr::NULL,
        address: Address::unspecified(),
        resend_port: 0,
    }])?;
    memory.set_root(root)
}

/// Counts another start, and says where this one listens.
pub fn start(
    memory: &mut impl Memory,
    place: Ptr<Root>,
    address: SocketAddr,
    resend_port: u16,
) -> Result<u64, Error> {
    let mut root = memory.get(place)?;
    root.boots += 1;
    root.address = address.into();
    root.resend_port = resend_port.into();
    memory.set(place, root)?;
    Ok(root.boots)
}

/// Puts a request into the table: once the transaction commits it will be sent.
#[inline]
pub fn send_request(
    memory: &mut impl Memory,
    at: Ptr<LinkRow>,
    window: u32,
    message: &[u8],
) -> Result<(u64, Stored), Error> {
    let row = field::<LinkRow, LinkHead>(at, std::mem::offset_of!(LinkRow, next_seq));
    let LinkHead { next_seq: seq } = memory.get(row)?;
    let slots = memory.get(field::<LinkRow, Ptr<Slot>>(
        at,
        std::mem::offset_of!(LinkRow, slots),
    ))?;
    let slot = slots.element(slot_of(seq, window));
    let (bytes, stored) = store(memory, message, &mut None)?;
    memory.set(
        slot,
        Slot {
            seq,
            bytes,
            len: message.len() as u32,
            state: SENT,
        },
    )?;
    memory.set(row, LinkHead { next_seq: seq + 1 })?;
    Ok((seq, stored))
}

/// The place of a number. Most windows are powers of two, which need no division.
#[inline]
fn slot_of(seq: u64, window: u32) -> usize {
    let window = u64::from(window);
    match window.is_power_of_two() {
        true => (seq & (window - 1)) as usize,
        false => (seq % window) as usize,
    }
}

persistent! {
    /// One field of a row, which is all that a request changes there.
    struct LinkHead { next_seq: u64 }
}

/// Settles a request: its response was received, or nobody will wait for it.
#[inline]
pub fn settle_request(
    memory: &mut impl Memory,
    at: Ptr<LinkRow>,
    window: u32,
    seq: u64,
) -> Result<(), Error> {
    let slots = memory.get(field::<LinkRow, Ptr<Slot>>(
        at,
        std::mem::offset_of!(LinkRow, slots),
    ))?;
    let slot = slots.element(slot_of(seq, window));
    let found = memory.get(slot)?;
    if found.state != SENT || found.seq != seq {
        return Err(Error::Damaged(format!("request {seq}: not in its slot")));
    }
    memory.free(found.bytes)?;
    memory.set(slot, Slot::FREE)
}

/// Takes note that a request was received: it will not be received again.
#[inline]
pub fn receive_request(
    memory: &mut impl Memory,
    at: Ptr<ClientRow>,
    window: u32,
    seq: u64,
) -> Result<(), Error> {
    let slot = client_slot(memory, at, window, seq)?;
    memory.set(
        slot,
        Slot {
            seq,
            bytes: Ptr::NULL,
            len: 0,
            state: RECEIVED,
        },
    )
}

/// Puts a response into the table: once the transaction commits it will be sent.
#[inline]
pub fn send_response(
    memory: &mut impl Memory,
    at: Ptr<ClientRow>,
    window: u32,
    seq: u64,
    message: &[u8],
    spare: &mut Option<Spare>,
) -> Result<Stored, Error> {
    let slot = client_slot(memory, at, window, seq)?;
    let (bytes, stored) = store(memory, message, spare)?;
    memory.set(
        slot,
        Slot {
            seq,
            bytes,
            len: message.len() as u32,
            state: RESPONDED,
        },
    )?;
    Ok(stored)
}

/// Takes the response to a settled request out of the table. One above the floor stays known as
/// done. The block becomes the spare one, if there is none: its client has settled the request for
/// good, so whatever it holds after an abort is never looked at.
#[inline]
pub fn settle_response(
    memory: &mut impl Memory,
    at: Ptr<ClientRow>,
    window: u32,
    seq: u64,
    below_floor: bool,
    spare: &mut Option<Spare>,
) -> Result<(), Error> {
    let slot = client_slot(memory, at, window, seq)?;
    let found = memory.get(slot)?;
    if found.seq != seq || found.state == FREE {
        return Ok(());
    }
    let done = Slot {
        seq,
        state: DONE,
        ..Slot::FREE
    };
    memory.set(slot, if below_floor { Slot::FREE } else { done })?;
    if found.state == RESPONDED {
        match spare {
            Some(_) => memory.free(found.bytes)?,
            None => {
                let len = len_of_block(found.len as usize);
                let block = found.bytes;
                *spare = Some(Spare { block, len });
            }
        }
    }
    Ok(())
}

#[inline]
fn client_slot(
    memory: &impl Memory,
    at: Ptr<ClientRow>,
    window: u32,
    seq: u64,
) -> Result<Ptr<Slot>, Error> {
    let slots = field::<ClientRow, Ptr<Slot>>(at, std::mem::offset_of!(ClientRow, slots));
    Ok(memory.get(slots)?.element(slot_of(seq, window)))
}

#[inline]
fn field<T, F>(at: Ptr<T>, offset: usize) -> Ptr<F> {
    Ptr::from_at(at.at().plus(offset))
}
