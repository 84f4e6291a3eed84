//! What a start reads, and does not believe.

use vista::{Persistent, Ptr};

use super::{
    ClientRow, DONE, FREE, LinkRow, MAGIC, RECEIVED, RESPONDED, ROWS_LIMIT, Root, SENT, SEQ_LIMIT,
    Slot, VERSION, WINDOW_LIMIT,
};
use crate::memory::Memory;
use crate::packet::MESSAGE_LIMIT;
use crate::{Error, NodeId};

/// The tables as a start finds them.
pub struct Loaded {
    pub place: Ptr<Root>,
    pub root: Root,
    pub links: Vec<(Ptr<LinkRow>, LinkRow, Vec<Slot>)>,
    pub clients: Vec<(Ptr<ClientRow>, ClientRow, Vec<Slot>)>,
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
