//! Pages laid together: into frames that follow one another, in a chosen order.
//!
//! Frames are handed out one by one, the lowest first, so pages that are written
//! again and again end up scattered. Whoever wants to map many of them at once
//! reserves a stretch of frames and lays the pages into it: to lay a page is to
//! stage it, in the next frame of the stretch. What is reserved is no free frame
//! and holds nothing; a crash leaves nothing of it, as its entries stay empty.

use super::*;

/// Frames that follow one another, reserved for pages to come.
pub struct Stretch {
    next: usize,
    end: usize,
    /// Frames below this have storage.
    backed: usize,
}

/// Frames that get storage at once.
const AT_ONCE: usize = 64;

impl Stretch {
    pub fn is_used_up(&self) -> bool {
        self.next == self.end
    }
}

impl PageStore {
    /// Reserves `len` frames that follow one another: free ones if there are, else
    /// new ones. `None` if the image has no room for them.
    pub fn reserve(&mut self, len: usize) -> Option<Stretch> {
        if let Some(from) = self.free.take_run(len) {
            return Some(Stretch {
                next: from,
                end: from + len,
                backed: from + len,
            });
        }
        if let Some(from) = self.bare.take_run(len) {
            return Some(Stretch {
                next: from,
                end: from + len,
                backed: from,
            });
        }
        let from = self.limit().load(Relaxed) as usize;
        let end = from
            .checked_add(len)
            .filter(|&end| end <= self.at.frame_max)?;
        let backed = self.usable.min(end);
        self.usable = self.usable.max(end);
        self.limit().store(end as u64, Release);
        Some(Stretch {
            next: from,
            end,
            backed,
        })
    }

    /// Stages a page that has a committed frame in the next frame of a stretch, as
    /// [`PageStore::stage`] does; false if it cannot be had there.
    pub fn lay(
        &mut self,
        page: usize,
        stretch: &mut Stretch,
        supply: &mut impl Supply,
        copy: impl FnOnce(*mut u8) -> Copied,
    ) -> bool {
        let seq = self.published() + 1;
        let Some(slot) = self.find(page) else {
            return false;
        };
        // SAFETY: slots live as long as the store, and no other reference exists.
        let slot = unsafe { &mut *slot };
        // What is staged already has its frame.
        if slot.frame == 0 || self.entry(slot.frame as usize - 1).seq() == seq {
            return false;
        }
        if stretch.next == stretch.backed {
            let most = AT_ONCE.min(stretch.end - stretch.next);
            match supply.grow(stretch.next, most) {
                Ok(backed) if most > 0 => stretch.backed = backed.min(stretch.end),
                _ => return false,
            }
        }
        if stretch.next == stretch.backed {
            return false;
        }
        let copied = copy(self.frame_bytes(stretch.next));
        if copied == Copied::Not {
            return false;
        }
        self.enter(stretch.next, page, seq, copied);
        self.retire(slot.frame as usize - 1);
        stretch.next += 1;
        slot.frame = stretch.next as u32;
        true
    }

    /// What is left of a stretch is free.
    pub fn unreserve(&mut self, stretch: Stretch) {
        let Stretch { next, end, backed } = stretch;
        self.free.insert_run(next, backed - next);
        self.bare.insert_run(backed, end - backed);
    }
}
