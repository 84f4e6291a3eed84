//! Hot pages: written in every interval, so not worth a fault each time.
//!
//! A page found written in several commits running is from then on looked at in
//! every commit, and not write-protected any more: a fault costs about ten copies.
//! It stays in a tracked area, and a scan always finds it written; that scan does
//! not protect what it finds, and what is not hot is protected by a second one.
//! (The first form took hot pages out of their area. That cut areas in three, and
//! a scan pays as much for a cut as for copying two pages.)
//!
//! Half of the hot pages of a program are written with what was there before:
//! memory that is freed and given out again. Those are compared with their last
//! copy, which is all that they cost; what changes is copied, and compared only
//! now and then.
//!
//! A page that is found equal more often than changed is protected again, to see
//! whether it is written at all. If it is, it soon comes back, and the next trial is
//! put off for twice as long; but each time it must have been written in one more
//! commit running, so that chance (a heap written at random places) does not bring
//! it back: what is written in every third interval costs less cold than hot.
//!
//! Being hot is no promise: a hot page that happens to be protected costs a fault,
//! a cold one that is not protected is found by the next scan (in a piece that
//! sleeps there is none, so the piece is woken).
#![allow(unsafe_code)]

use crate::engine::{engine, store_and_supply};
use crate::machine::user;
use dc_image::window::PAGE;
use vista_core::pages::{Full, Slot};

const CAP: usize = 1 << 14;
/// Commits in a row that must find a page written, after a first one.
const HEAT: u8 = 2;
/// So many more comparisons that find a page equal than changed, and it is tried
/// without heat: at first, and twice as many for each return, up to so many returns.
const TRIAL: u16 = 8;
const RETURNS_MAX: u8 = 10;
/// The longest time, in commits, until a page that changes is compared again.
const SELDOM: u8 = 32;

/// In `Slot::flags`; above it, how often the page has been hot before.
const IS_HOT: u8 = 1;

#[derive(Clone, Copy)]
struct Hot {
    page: usize,
    /// Commits until the next comparison, and from it to the one after.
    due: u8,
    period: u8,
    /// Comparisons that found it equal, less those that found it changed.
    idle: u16,
}

#[repr(C)]
pub struct HotSet {
    len: usize,
    pages: [Hot; CAP],
}

/// Whether a page is hot.
#[inline]
pub fn is_hot(page: usize) -> bool {
    let slot = engine().store.slot(page);
    slot.is_some_and(|s| s.flags & IS_HOT != 0)
}

/// Calls `f(from, to)` for each run of pages of a range that are not hot.
pub fn cold_runs(from: usize, to: usize, mut f: impl FnMut(usize, usize)) {
    let mut start = from;
    for page in (from..to).step_by(PAGE) {
        if is_hot(page) {
            if start < page {
                f(start, page);
            }
            start = page + PAGE;
        }
    }
    if start < to {
        f(start, to);
    }
}

impl HotSet {
    pub const fn new() -> HotSet {
        HotSet {
            pages: [Hot {
                page: 0,
                due: 0,
                period: 0,
                idle: 0,
            }; CAP],
            len: 0,
        }
    }

    /// In a child, whose pages are all new.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// A page was found written and staged: does it become hot? (Behind
    /// [`HotSet::copy_all`], which would look at it a second time.)
    #[inline]
    pub fn consider(&mut self, page: usize, slot: &mut Slot, seq: u16) {
        if slot.last == seq {
            slot.heat = slot.heat.saturating_add(1);
            let returns = slot.flags >> 1;
            if slot.heat >= HEAT + returns && slot.flags & IS_HOT == 0 && self.len < CAP {
                slot.flags |= IS_HOT;
                slot.heat = 0;
                self.pages[self.len] = Hot {
                    page,
                    due: 1,
                    period: 1,
                    idle: 0,
                };
                self.len += 1;
            }
        } else {
            slot.heat = 0;
        }
        slot.last = seq.wrapping_add(1);
    }

    /// Stages the hot pages, but for those that are found equal.
    pub fn copy_all(&mut self) -> Result<u64, Full> {
        let mut copied = 0;
        let mut i = 0;
        while i < self.len {
            let h = &mut self.pages[i];
            let page = h.page;
            // A page that ceased to exist has an empty slot.
            let slot = engine().store.slot(page);
            let Some(slot) = slot.filter(|s| s.flags & IS_HOT != 0) else {
                self.remove(i);
                continue;
            };
            h.due -= 1;
            if h.due == 0 {
                if unchanged(page) {
                    (h.due, h.period) = (1, 1);
                    h.idle += 1;
                    let returns = slot.flags >> 1;
                    if h.idle < TRIAL << returns {
                        i += 1;
                    } else {
                        slot.flags = (returns + 1).min(RETURNS_MAX) << 1;
                        // In a piece that sleeps only hot pages are writable.
                        engine().pieces.wake(page, page + PAGE);
                        self.remove(i);
                    }
                    continue;
                }
                h.idle = h.idle.saturating_sub(1);
                h.period = (h.period * 2).min(SELDOM);
                h.due = h.period;
            }
            let (store, mut supply) = store_and_supply();
            store.stage(page, &mut supply, |dst| super::copy_program_page(dst, page))?;
            copied += 1;
            i += 1;
        }
        Ok(copied)
    }

    fn remove(&mut self, i: usize) {
        self.len -= 1;
        self.pages[i] = self.pages[self.len];
    }
}

/// Whether a page equals its last copy.
pub fn unchanged(page: usize) -> bool {
    engine().store.committed(page).is_some_and(|frame| {
        // SAFETY: a committed frame; a fault on the page counts as a change.
        unsafe { user::same_page(frame, page as *const u8) }
    })
}
