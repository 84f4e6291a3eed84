//! Hot pages: dirty in every interval, so not worth a fault each time.
//!
//! A page found dirty in three commits running leaves write tracking (one call)
//! and is from then on simply copied. The set is small, because each hot page
//! may cut a memory area in two, and it cools: a page that was found unchanged
//! goes back under tracking.

use crate::engine::{engine, store_and_supply};
use crate::uffd;
use dc_image::window::PAGE;
use vista_core::pages::{Full, Slot};

const CAP: usize = 128;
/// Commits in a row that must find a page dirty before it is hot.
const HEAT: u8 = 3;
/// Commits until a hot page is first compared with its last copy; twice as many
/// whenever it has come back.
const CHECK_AFTER: u32 = 16;

/// In `Slot::flags`; above it, how often the page has been hot before.
const IS_HOT: u8 = 1;

#[derive(Clone, Copy)]
struct Hot {
    page: usize,
    /// Commits until the next comparison.
    due: u32,
}

pub struct HotSet {
    pages: [Hot; CAP],
    len: usize,
    /// Candidates of this commit: tracked pages that have become hot.
    fresh: [usize; CAP],
    fresh_len: usize,
}

impl HotSet {
    pub const fn new() -> HotSet {
        HotSet {
            pages: [Hot { page: 0, due: 0 }; CAP],
            len: 0,
            fresh: [0; CAP],
            fresh_len: 0,
        }
    }

    /// A tracked page was staged: does it become hot?
    #[inline]
    pub fn consider(&mut self, page: usize, slot: &mut Slot, seq: u16) {
        if slot.last == seq {
            slot.heat = slot.heat.saturating_add(1);
            if slot.heat >= HEAT && slot.flags & IS_HOT == 0 && self.len + self.fresh_len < CAP {
                self.fresh[self.fresh_len] = page;
                self.fresh_len += 1;
            }
        } else {
            slot.heat = 0;
        }
        slot.last = seq.wrapping_add(1);
    }

    /// Takes this commit's candidates out of tracking.
    pub fn adopt(&mut self) {
        for i in 0..self.fresh_len {
            let page = self.fresh[i];
            if self.len < CAP && uffd::untrack(page, page + PAGE) {
                let mut due = CHECK_AFTER;
                if let Some(slot) = engine().store.slot(page) {
                    due = CHECK_AFTER << (slot.flags >> 1).min(8);
                    slot.flags |= IS_HOT;
                }
                self.pages[self.len] = Hot { page, due };
                self.len += 1;
            }
        }
        self.fresh_len = 0;
    }

    /// Stages every hot page.
    pub fn copy_all(&mut self) -> Result<u64, Full> {
        let n = self.len as u64;
        let mut i = 0;
        while i < self.len {
            let page = self.pages[i].page;
            self.pages[i].due -= 1;
            if self.pages[i].due == 0 {
                if self.unchanged(page) {
                    self.cool(i);
                    continue;
                }
                self.pages[i].due = CHECK_AFTER;
            }
            let (store, mut supply) = store_and_supply();
            store.stage(page, &mut supply, |dst| super::copy_program_page(dst, page))?;
            i += 1;
        }
        Ok(n)
    }

    fn unchanged(&self, page: usize) -> bool {
        let Some(committed) = engine().store.committed(page) else {
            return false;
        };
        let mut now = [0u8; PAGE];
        super::copy_program_page(now.as_mut_ptr(), page)
            // SAFETY: a committed frame is a page of mapped memory.
            && unsafe { core::slice::from_raw_parts(committed, PAGE) } == now
    }

    /// A piece of memory falls asleep: hot pages in it stay writable.
    pub fn keep_writable(&self, from: usize, to: usize, prot: u32) {
        for h in &self.pages[..self.len] {
            if (from..to).contains(&h.page) {
                crate::sys!(MPROTECT, h.page, PAGE, prot);
            }
        }
    }

    /// Back under tracking. The page counts as written until the next scan.
    fn cool(&mut self, i: usize) {
        let page = self.pages[i].page;
        if let Some(slot) = engine().store.slot(page) {
            // One more return, and no longer hot.
            slot.flags = (slot.flags >> 1).saturating_add(1).min(8) << 1;
            slot.heat = 0;
        }
        engine().pieces.wake(page, page + PAGE);
        // An area that cannot be tracked again stays hot.
        if uffd::track(page, page + PAGE) {
            self.len -= 1;
            self.pages[i] = self.pages[self.len];
        } else {
            self.pages[i].due = CHECK_AFTER;
            if let Some(slot) = engine().store.slot(page) {
                slot.flags |= IS_HOT;
            }
        }
    }

    /// The pages of a range cease to exist or are about to move.
    pub fn forget(&mut self, from: usize, to: usize) {
        let mut i = 0;
        while i < self.len {
            let page = self.pages[i].page;
            if (from..to).contains(&page) {
                // If the area lives on (madvise, mprotect), it must be tracked.
                engine().pieces.wake(page, page + PAGE);
                uffd::track(page, page + PAGE);
                if let Some(slot) = engine().store.slot(page) {
                    slot.flags &= !IS_HOT;
                    slot.heat = 0;
                }
                self.len -= 1;
                self.pages[i] = self.pages[self.len];
            } else {
                i += 1;
            }
        }
        let mut i = 0;
        while i < self.fresh_len {
            if (from..to).contains(&self.fresh[i]) {
                self.fresh_len -= 1;
                self.fresh[i] = self.fresh[self.fresh_len];
            } else {
                i += 1;
            }
        }
    }
}
