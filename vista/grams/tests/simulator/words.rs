//! What lies in a party's memory, tables and its own words, and what its messages say.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::Path;

use rio_core::{At, Rio};
use vista_core::Core;
use vistagrams::memory::InCore;
use vistagrams::tables::{self, Loaded};

use crate::mortal::Mortal;

pub const TABLES: usize = 1;
pub const DATA: usize = 2;

/// Words of the party's own memory: what it asked, per server, and what it was asked.
///
/// ```text
/// 0            of server s: asked, then two places of 5 words: the number, the id; the link
/// ASKED words  of client c (by its port): how often each of its requests was executed, a byte each
/// ```
pub const ASKED: usize = 8 * 16;
pub const LINK: usize = 8 + 2 * 40;
pub const CLIENT_ROOM: usize = 512;

pub fn place_at(server: usize, place: u64) -> usize {
    server * ASKED + 8 + 40 * place as usize
}

pub fn executed_at(client_port: u16, number: u64) -> usize {
    1024 + usize::from(client_port % 14) * CLIENT_ROOM + number as usize
}

/// A body of that length which says who asks and which request it is.
pub fn body(port: u16, number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = (index as u64)
            .wrapping_mul(number)
            .wrapping_add(u64::from(port)) as u8;
    }
    bytes[..2].copy_from_slice(&port.to_le_bytes());
    bytes[2..10].copy_from_slice(&number.to_le_bytes());
    bytes
}

pub fn parse(bytes: &[u8]) -> (u16, u64) {
    let port = u16::from_le_bytes(bytes[..2].try_into().unwrap());
    let number = u64::from_le_bytes(bytes[2..10].try_into().unwrap());
    assert_eq!(bytes, body(port, number, bytes.len()), "a body was damaged");
    (port, number)
}

pub fn memory(core: &mut Core<Mortal>) -> InCore<'_, Mortal> {
    InCore {
        core,
        segment: TABLES,
        path: Path::new("simulated"),
    }
}

pub fn load(core: &mut Core<Mortal>) -> Loaded {
    tables::load(&memory(core)).unwrap().unwrap()
}

pub fn read(core: &Core<Mortal>, at: At, len: usize) -> Vec<u8> {
    let place = core.resolve(at, len).unwrap();
    // SAFETY: resolved to lie inside a window; copied at once.
    unsafe { std::slice::from_raw_parts(place, len) }.to_vec()
}

pub fn get(core: &Core<Mortal>, at: At) -> Result<u64, vistagrams::Error> {
    Ok(u64::from_le_bytes(read(core, at, 8).try_into().unwrap()))
}

pub fn put(core: &mut Core<Mortal>, at: At, value: u64) -> Result<(), vistagrams::Error> {
    core.write(at, &value.to_le_bytes()).map_err(fault)
}

pub fn fault(fault: vista_core::Fault) -> vistagrams::Error {
    vistagrams::Error::Vista(vista::Error::of(Path::new("simulated"))(fault))
}

pub fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What the image means, whatever lies in its free blocks.
pub fn digest_of(core: &mut Core<Mortal>) -> u64 {
    let loaded = load(core);
    let mut hasher = DefaultHasher::new();
    let message = |slot: &tables::Slot, hasher: &mut DefaultHasher| {
        (slot.seq, slot.state, slot.len).hash(hasher);
        if slot.state == tables::SENT || slot.state == tables::RESPONDED {
            read(core, slot.message_at(), slot.len as usize).hash(hasher);
        }
    };
    (loaded.root.boots, loaded.root.last_link).hash(&mut hasher);
    for (_, row, slots) in &loaded.links {
        (row.number, row.next_seq, row.server, row.server_boots).hash(&mut hasher);
        SocketAddr::from(row.address).hash(&mut hasher);
        slots.iter().for_each(|slot| message(slot, &mut hasher));
    }
    for (_, row, slots) in &loaded.clients {
        (row.node, row.link, row.stream, row.floor).hash(&mut hasher);
        SocketAddr::from(row.address).hash(&mut hasher);
        slots.iter().for_each(|slot| message(slot, &mut hasher));
    }
    let window = core.rio().window(DATA);
    read(core, At::new(DATA, 0), window.len).hash(&mut hasher);
    hasher.finish()
}
