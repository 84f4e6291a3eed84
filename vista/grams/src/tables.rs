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

use std::net::SocketAddr;

use rio_core::{At, Rio};
use vista::{Persistent, Ptr, persistent};
use vista_core::{Fresh, len_given};

use crate::memory::Memory;
use crate::packet::MESSAGE_LIMIT;
pub use crate::rows::*;
use crate::sum::{Part, while_copied};
use crate::{Error, NodeId};

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

/// The tables as a start finds them.
pub struct Loaded {
    pub place: Ptr<Root>,
    pub root: Root,
    pub links: Vec<(Ptr<LinkRow>, LinkRow, Vec<Slot>)>,
    pub clients: Vec<(Ptr<ClientRow>, ClientRow, Vec<Slot>)>,
}

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

/// Reads everything and believes nothing that no writer would have written.
pub fn load(memory: &impl Memory) -> Result<Option<Loaded>, Error> {
    let Some(place) = memory.root::<Root>()? else {
        return Ok(None);
    };
    let root = inside(memory, "root", place)?;
    if root.magic != MAGIC {
        return Err(Error::Damaged(format!(
            "magic word is {:#018x}",
            root.magic
        )));
    }
    if root.version != VERSION {
        return Err(Error::OtherVersion(root.version));
    }
    if !(1..=WINDOW_LIMIT).contains(&root.window) {
        return Err(Error::Damaged(format!("window is {}", root.window)));
    }
    let mut loaded = Loaded {
        place,
        root,
        links: Vec::new(),
        clients: Vec::new(),
    };
    let mut next = root.links;
    while let Some(at) = next.non_null() {
        let row = inside(memory, "link", at)?;
        let what = format!("link {}", row.number);
        let states = [FREE, SENT];
        let slots = slots(memory, &what, row.slots, root.window, &states)?;
        if row.number == 0 || row.number > root.last_link || row.next_seq == 0 {
            return Err(Error::Damaged(format!(
                "{what}: its number is out of bounds"
            )));
        }
        loaded.links.push((at, row, slots));
        bounded(loaded.links.len(), "links")?;
        next = row.next;
    }
    let mut next = root.clients;
    while let Some(at) = next.non_null() {
        let row = inside(memory, "client", at)?;
        let what = format!("client {}/{}", NodeId(row.node), row.link);
        let states = [FREE, RECEIVED, RESPONDED, DONE];
        let slots = slots(memory, &what, row.slots, root.window, &states)?;
        let used = slots.iter().filter(|slot| slot.state != FREE);
        let counted = row.floor < SEQ_LIMIT
            && row.link <= u32::MAX.into()
            && used.clone().all(|slot| (1..SEQ_LIMIT).contains(&slot.seq));
        if !counted {
            return Err(Error::Damaged(format!(
                "{what}: its numbers are out of bounds"
            )));
        }
        loaded.clients.push((at, row, slots));
        bounded(loaded.clients.len(), "clients")?;
        next = row.next;
    }
    Ok(Some(loaded))
}

/// What a word of the tables points to.
fn inside<T: Persistent>(memory: &impl Memory, what: &str, at: Ptr<T>) -> Result<T, Error> {
    memory.get(at).map_err(|error| match error {
        Error::Vista(_) => Error::Damaged(format!("{what}: {at:?} points to nothing")),
        other => other,
    })
}

fn bounded(count: usize, what: &str) -> Result<(), Error> {
    match count <= ROWS_LIMIT {
        true => Ok(()),
        false => Err(Error::Damaged(format!("the list of {what} does not end"))),
    }
}

fn slots(
    memory: &impl Memory,
    what: &str,
    at: Ptr<Slot>,
    window: u32,
    states: &[u32],
) -> Result<Vec<Slot>, Error> {
    let mut found = Vec::new();
    for index in 0..window as usize {
        let slot = inside(memory, what, at.element(index))?;
        let known = states.contains(&slot.state);
        if !known || slot.state != FREE && slot.seq % u64::from(window) != index as u64 {
            let state = slot.state;
            return Err(Error::Damaged(format!(
                "{what}: slot {index}: state {state}"
            )));
        }
        if matches!(slot.state, SENT | RESPONDED) {
            if slot.len as usize > MESSAGE_LIMIT {
                let len = slot.len;
                return Err(Error::Damaged(format!("{what}: slot {index}: {len} bytes")));
            }
            // The last byte's place tells whether the bytes lie in the segment.
            let last = (slot.len as usize).max(1) - 1;
            inside::<u8>(memory, what, Ptr::from_at(slot.message_at().plus(last)))?;
        }
        found.push(slot);
    }
    Ok(found)
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

/// A message in its block.
pub struct Stored {
    pub at: At,
    /// Of its sum, if it is long.
    pub part: Option<Part>,
}

/// A block of which a transaction knows that nobody needs its content, even if it is undone.
#[derive(Clone, Copy, Debug)]
pub struct Spare {
    block: Ptr<u8>,
    /// What the heap has given it.
    len: usize,
}

impl Spare {
    pub fn free(self, memory: &mut impl Memory) -> Result<(), Error> {
        memory.free(self.block)
    }
}

/// Copies a message into a block of its own: the spare one, which is then taken, or a new one.
#[inline]
fn store(
    memory: &mut impl Memory,
    message: &[u8],
    spare: &mut Option<Spare>,
) -> Result<(Ptr<u8>, Stored), Error> {
    let room = room_before(message.len());
    if let Some(Spare { block, len }) = *spare
        && len == len_of_block(message.len())
        && let Some(fresh) = memory.overwrite(block, room + message.len())?
    {
        let part = fill(fresh, room, message);
        *spare = None;
        let at = block.at().plus(room);
        return Ok((block, Stored { at, part }));
    }
    let (block, fresh) = memory.block(room + message.len())?;
    let part = fill(fresh, room, message);
    let at = block.at().plus(room);
    Ok((block, Stored { at, part }))
}

/// What the heap gives for a message of this length.
#[inline]
fn len_of_block(len: usize) -> usize {
    len_given((room_before(len) + len).max(1))
}

#[inline]
fn fill(mut block: Fresh<'_, impl Rio>, room: usize, message: &[u8]) -> Option<Part> {
    if room == 0 {
        block.store(0, message);
        return None;
    }
    let copy = |at, piece: &[u8]| block.store(room + at, piece);
    Some(while_copied(message, copy))
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

const _: () = {
    use std::mem::offset_of;
    let begin = offset_of!(ClientRow, stream);
    assert!(offset_of!(ClientRow, floor) == begin + offset_of!(ClientHead, floor));
    assert!(offset_of!(ClientRow, address) == begin + offset_of!(ClientHead, address));
};
