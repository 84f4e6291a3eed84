//! Where a message lies: in a block of its own, which it may have from one that was settled.

use rio_core::{At, Rio};
use vista::Ptr;
use vista_core::{Fresh, len_given};

use super::room_before;
use crate::Error;
use crate::memory::Memory;
use crate::sum::{Part, while_copied};

/// A message in its block.
pub struct Stored {
    pub at: At,
    /// Of its sum, if it is long.
    pub part: Option<Part>,
}

/// A block of which a transaction knows that nobody needs its content, even if it is undone.
#[derive(Clone, Copy, Debug)]
pub struct Spare {
    pub(super) block: Ptr<u8>,
    /// What the heap has given it.
    pub(super) len: usize,
}

impl Spare {
    pub fn free(self, memory: &mut impl Memory) -> Result<(), Error> {
        memory.free(self.block)
    }
}

/// Copies a message into a block of its own: the spare one, which is then taken, or a new one.
#[inline]
pub(super) fn store(
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
pub(super) fn len_of_block(len: usize) -> usize {
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
