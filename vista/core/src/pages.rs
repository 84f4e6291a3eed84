//! Page slots: recoverable memory with pages as its ranges.
//!
//! A range that grows to a whole page needs no before-image of its own: the
//! newest committed copy *is* one. So a page that changed is copied into a free
//! frame, tagged with the number of the commit to come, and one store of that
//! number publishes all of them together. Until then the frame that the page
//! had stays what recovery finds; after it that frame is free again.
//!
//! ```text
//! table:   [ page, seq, sum ] [ page, seq, sum ] ...     16 bytes a frame
//! frames:  [ 4096 bytes ] [ 4096 bytes ] ...
//!
//! a frame is   current   its seq is the newest not above `published` for its page
//!              staged    its seq is published + 1
//!              free      its seq is 0, or a newer frame of its page is current
//! ```
//!
//! One copy a page, no redo log, no second step after the publishing store.
//! The order of the stores is what makes it safe: a frame's seq is cleared
//! before its page is changed, and set after (x86-64 keeps stores in order for
//! every observer; storage that needs more flushes before publishing).
//!
//! The index from pages to frames is volatile and made again from the table.
//!
//! An entry carries a sum of its frame, its page and its number ([`sum`]); and the store
//! keeps a sum of all current entries ([`PageStore::set`]), which its user leaves beside
//! `published`. So a frame that is damaged, and an entry that is missing, are found.
#![allow(unsafe_code)] // Raw mapped memory is this module's subject.

use crate::frames::{self, Balance, FrameSet, Surplus, Thrift};
use core::sync::atomic::{AtomicU64, Ordering::*};

mod lay;
pub mod sum;

pub use lay::Stretch;
pub use sum::{Entry, Sums};

pub const PAGE: usize = 4096;

/// What the table says of one frame.
#[repr(C)]
pub struct FrameEntry {
    /// The page, and the upper part of the sum: see [`Entry`].
    pub page: AtomicU64,
    /// Commit that wrote it, and the lower part; 0 is none.
    pub seq: AtomicU64,
}

impl FrameEntry {
    #[inline(always)]
    fn words(&self) -> [u64; 2] {
        [self.page.load(Relaxed), self.seq.load(Relaxed)]
    }

    #[inline(always)]
    fn seq(&self) -> u64 {
        Entry::seq_of(self.seq.load(Relaxed))
    }
}

/// What became of a page that was to be copied into a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copied {
    /// It cannot be read.
    Not,
    Whole,
    /// And its [sum](Sums::content) was taken by the way.
    Summed(u64),
}

/// Memory for the volatile index, and more frames: what the surroundings give.
pub trait Supply {
    /// Zeroed memory that is never given back; null if there is none left.
    fn alloc(&mut self, bytes: usize) -> *mut u8;
    /// Puts storage behind frames `from..`, at most `most` of them; the first
    /// that has none, or an error number.
    fn grow(&mut self, from: usize, most: usize) -> Result<usize, isize>;
    /// Gives the storage of `len` frames back, and with it what they hold; false
    /// if that cannot be done.
    fn give_back(&mut self, from: usize, len: usize) -> bool;
}

/// What the index knows of a page: its current frame and how often it changes.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Slot {
    /// Frame number + 1; 0 is none.
    frame: u32,
    /// Commits in a row that found the page dirty (saturating), for the caller.
    pub heat: u8,
    pub flags: u8,
    /// Low bits of the commit that last staged it.
    pub last: u16,
}

const LEAF: usize = 1 << 12;
const MID: usize = 1 << 12;
const ROOT: usize = 1 << 12;

/// Where the parts of the store lie in mapped memory.
#[derive(Clone, Copy)]
pub struct Place {
    pub table: *mut FrameEntry,
    pub frames: *mut u8,
    pub frame_max: usize,
    pub published: *const AtomicU64,
    /// Frames ever handed out; recovery looks at no others.
    pub limit: *const AtomicU64,
    /// What tells the frames of this image from those of others: part of every sum.
    pub seed: u64,
}

/// The page slots of one image.
pub struct PageStore {
    at: Place,
    sums: Sums,
    /// The sum of all entries that are current with the commit to come.
    set: u64,
    /// One above the highest frame that was current at the recovery.
    needed: usize,
    root: *mut *mut *mut Slot,
    /// Free frames with storage behind them.
    free: FrameSet,
    /// Free frames that may have none.
    bare: FrameSet,
    retired: *mut u32,
    retired_len: usize,
    /// Frames from the limit to here have storage.
    usable: usize,
    /// Frames taken for the commit to come.
    taken: usize,
    /// Frames that the last commit set free.
    freed: usize,
    /// Frames that were given back, and since the last commit got again.
    again: usize,
    thrift: Thrift,
    /// The storage takes nothing back.
    keeps_all: bool,
}

/// There is no room for another frame (error number of the storage).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full(pub isize);

impl PageStore {
    /// An unopened store; every use before [`PageStore::open`] is a bug.
    pub const fn closed() -> PageStore {
        use core::ptr::null_mut;
        PageStore {
            at: Place {
                table: null_mut(),
                frames: null_mut(),
                frame_max: 0,
                published: core::ptr::null(),
                limit: core::ptr::null(),
                seed: 0,
            },
            sums: Sums::closed(),
            set: 0,
            needed: 0,
            root: null_mut(),
            free: FrameSet::closed(),
            bare: FrameSet::closed(),
            retired: null_mut(),
            retired_len: 0,
            usable: 0,
            taken: 0,
            freed: 0,
            again: 0,
            thrift: Thrift::new(),
            keeps_all: false,
        }
    }

    /// A store without pages, in which nothing may be staged: it answers questions.
    ///
    /// # Safety
    /// As [`PageStore::open`], but that no entry is looked at.
    pub unsafe fn blank(at: Place, supply: &mut impl Supply) -> Result<PageStore, Full> {
        let mut s = PageStore::closed();
        s.at = at;
        s.root = supply.alloc(ROOT * 8).cast();
        match s.root.is_null() {
            true => Err(Full(-12)),
            false => Ok(s),
        }
    }

    /// Opens the store and does its recovery: finds the newest committed frame
    /// of every page and clears all others. Idempotent.
    ///
    /// # Safety
    /// `at` describes mapped memory of `frame_max` entries, of which those
    /// below the limit are backed, and which nobody else changes.
    pub unsafe fn open(at: Place, supply: &mut impl Supply) -> Result<PageStore, Full> {
        let mut s = PageStore::closed();
        s.at = at;
        s.sums = Sums::new(at.seed);
        s.root = supply.alloc(ROOT * 8).cast();
        s.retired = supply.alloc(at.frame_max * 4).cast();
        let (free, bare) = (
            FrameSet::new(at.frame_max, supply),
            FrameSet::new(at.frame_max, supply),
        );
        let (Some(free), Some(bare)) = (free, bare) else {
            return Err(Full(-12));
        };
        (s.free, s.bare) = (free, bare);
        if s.root.is_null() || s.retired.is_null() {
            return Err(Full(-12));
        }
        let limit = s.limit().load(Relaxed) as usize;
        s.usable = limit;
        let published = s.published();
        // Neighbours in the table are mostly neighbours in memory: one leaf of
        // the index serves many.
        let (mut covered, mut leaf) = (usize::MAX, core::ptr::null_mut::<Slot>());
        for n in 0..limit {
            let words = s.entry(n).words();
            let Entry { page, seq, .. } = Entry::of(words);
            if seq == 0 || seq > published {
                s.clear(n);
                continue;
            }
            let number = page / PAGE;
            if number / LEAF != covered {
                leaf = s.slot_or_new(number / LEAF * LEAF * PAGE, supply)?;
                covered = number / LEAF;
            }
            // SAFETY: `leaf` is a whole leaf; slots live as long as the store, and
            // no other reference exists.
            let slot = unsafe { &mut *leaf.add(number % LEAF) };
            let old = slot.frame;
            if old == 0 || s.entry(old as usize - 1).seq() < seq {
                slot.frame = n as u32 + 1;
                s.needed = n + 1;
                s.set = s.set.wrapping_add(sum::of_words(words));
                if old != 0 {
                    let words = s.entry(old as usize - 1).words();
                    s.set = s.set.wrapping_sub(sum::of_words(words));
                    s.clear(old as usize - 1);
                }
            } else {
                s.clear(n);
            }
        }
        Ok(s)
    }

    /// The sum of all entries that are current with the commit to come; after `open`, with
    /// the last one. To be left beside `published` before that is stored.
    pub fn set(&self) -> u64 {
        self.set
    }

    /// Frames that the storage must have, after `open`: one more than the last that is used.
    pub fn frames_needed(&self) -> usize {
        self.needed
    }

    /// The first page of a range whose frame is not what was committed, if any.
    pub fn damaged(&self, from: usize, to: usize) -> Option<usize> {
        let mut found = None;
        self.for_each_frame(from, to, |page, frame| {
            if found.is_none()
                && self.words_of(frame, page, Copied::Whole, None) != self.entry(frame).words()
            {
                found = Some(page);
            }
        });
        found
    }

    /// The entry of a frame that holds a page: as of the commit to come, or as it says.
    #[inline(always)]
    fn words_of(&self, frame: usize, page: usize, copied: Copied, seq: Option<u64>) -> [u64; 2] {
        let content = match copied {
            Copied::Summed(content) => content,
            _ => {
                // SAFETY: a whole frame of mapped memory, aligned, which only this process
                // changes.
                let bytes = unsafe { &*self.frame_bytes(frame).cast() };
                self.sums.content(bytes)
            }
        };
        let seq = seq.unwrap_or_else(|| self.entry(frame).seq());
        self.sums.entry(content, page, seq)
    }

    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    pub fn published(&self) -> u64 {
        // SAFETY: `open`'s promise.
        unsafe { (*self.at.published).load(Acquire) }
    }

    fn limit(&self) -> &AtomicU64 {
        // SAFETY: `open`'s promise.
        unsafe { &*self.at.limit }
    }

    fn entry(&self, frame: usize) -> &FrameEntry {
        debug_assert!(frame < self.at.frame_max);
        // SAFETY: callers pass numbers below the limit.
        unsafe { &*self.at.table.add(frame) }
    }

    /// Address of a frame's bytes.
    pub fn frame_bytes(&self, frame: usize) -> *mut u8 {
        // SAFETY: within the mapping by `open`'s promise.
        unsafe { self.at.frames.add(frame * PAGE) }
    }

    fn release(&mut self, frame: usize) {
        self.entry(frame).seq.store(0, Release);
        self.free.insert(frame);
    }

    /// At recovery: a frame is free. Whether it has storage nobody remembers.
    fn clear(&mut self, frame: usize) {
        if self.entry(frame).seq.load(Relaxed) != 0 {
            self.entry(frame).seq.store(0, Release);
        }
        self.bare.insert(frame);
    }

    #[inline]
    fn take(&mut self, supply: &mut impl Supply) -> Result<usize, Full> {
        self.taken += 1;
        loop {
            if let Some(frame) = self.free.lowest() {
                self.free.remove(frame);
                return Ok(frame);
            }
            if self.bare.is_empty() {
                return self.take_new(supply);
            }
            self.back(supply)?;
        }
    }

    /// Puts storage behind some of the bare frames. What lies between them has
    /// its own already, which one call more or less does not change.
    #[cold]
    fn back(&mut self, supply: &mut impl Supply) -> Result<(), Full> {
        const SPAN: usize = 256;
        let Some(from) = self.bare.lowest() else {
            return Ok(());
        };
        let span = SPAN.min(self.limit().load(Relaxed) as usize - from);
        let grown = supply.grow(from, span);
        let have = grown.unwrap_or(from).clamp(from, from + span);
        for frame in from..have {
            if self.bare.contains(frame) {
                self.bare.remove(frame);
                self.free.insert(frame);
                self.again += 1;
            }
        }
        match grown {
            Ok(_) if have > from => Ok(()),
            Ok(_) => Err(Full(-28)),
            Err(error) => Err(Full(error)),
        }
    }

    /// A frame that never was one.
    #[cold]
    fn take_new(&mut self, supply: &mut impl Supply) -> Result<usize, Full> {
        let next = self.limit().load(Relaxed) as usize;
        if next >= self.usable {
            if next >= self.at.frame_max {
                return Err(Full(-28));
            }
            let most = (next / 64).clamp(128, 1024).min(self.at.frame_max - next);
            self.usable = supply.grow(next, most).map_err(Full)?;
        }
        self.limit().store(next as u64 + 1, Release);
        Ok(next)
    }

    /// After [`PageStore::reclaim`]: gives the storage of free frames back that
    /// will not be needed soon. `now_ns` is a clock; it is seldom asked.
    #[inline]
    pub fn give_back(&mut self, supply: &mut impl Supply, now_ns: impl FnOnce() -> u64) {
        let balance = Balance {
            taken: core::mem::take(&mut self.taken),
            freed: self.freed,
            again: core::mem::take(&mut self.again),
            free: self.free.len(),
            used: self.used(),
        };
        let surplus = self.thrift.surplus(balance, now_ns);
        if surplus.frames > 0 && !self.keeps_all {
            self.give_back_frames(surplus, supply);
        }
    }

    #[cold]
    fn give_back_frames(&mut self, surplus: Surplus, supply: &mut impl Supply) {
        // With frames to spare, none that never was one is needed soon.
        let limit = self.limit().load(Relaxed) as usize;
        if self.usable > limit && supply.give_back(limit, self.usable - limit) {
            self.usable = limit;
        }
        let (mut frames, mut short) = (surplus.frames, 0);
        let mut bound = limit;
        let mut any_long = false;
        for _ in 0..frames::RUNS {
            let least = if short < surplus.short_runs {
                1
            } else {
                frames::RUN
            };
            let Some((from, len)) = self.free.take_run_below(bound, least, frames) else {
                break;
            };
            bound = from;
            if len == 0 {
                continue;
            }
            if !supply.give_back(from, len) {
                self.free.insert_run(from, len);
                self.keeps_all = true;
                return;
            }
            self.bare.insert_run(from, len);
            frames -= len;
            any_long |= len >= frames::RUN;
            short += usize::from(len < frames::RUN);
            if frames < frames::RUN {
                break;
            }
        }
        self.thrift.gave(short, !any_long && frames >= frames::RUN);
    }

    /// The index entry of a page, if anything was ever staged near it.
    #[inline]
    pub fn slot(&mut self, page: usize) -> Option<&mut Slot> {
        // SAFETY: tables are complete when linked, never freed, and `self` is
        // the only way to them.
        self.find(page).map(|slot| unsafe { &mut *slot })
    }

    #[inline]
    fn find(&self, page: usize) -> Option<*mut Slot> {
        let n = page / PAGE;
        // SAFETY: tables are complete when linked, and never freed.
        unsafe {
            let mid = *self.root.add((n >> 24) & (ROOT - 1));
            if mid.is_null() {
                return None;
            }
            let leaf = *mid.add((n >> 12) & (MID - 1));
            if leaf.is_null() {
                None
            } else {
                Some(leaf.add(n & (LEAF - 1)))
            }
        }
    }

    #[inline]
    fn slot_or_new(&mut self, page: usize, supply: &mut impl Supply) -> Result<*mut Slot, Full> {
        let n = page / PAGE;
        // SAFETY: as `slot`; new tables are zeroed, which is their empty state.
        unsafe {
            let mid = self.root.add((n >> 24) & (ROOT - 1));
            if (*mid).is_null() {
                *mid = supply.alloc(MID * 8).cast();
                if (*mid).is_null() {
                    return Err(Full(-12));
                }
            }
            let leaf = (*mid).add((n >> 12) & (MID - 1));
            if (*leaf).is_null() {
                *leaf = supply.alloc(LEAF * size_of::<Slot>()).cast();
                if (*leaf).is_null() {
                    return Err(Full(-12));
                }
            }
            Ok((*leaf).add(n & (LEAF - 1)))
        }
    }

    /// Stages the contents of a page for the next commit. `copy(dst)` fills the
    /// frame and says whether it could.
    #[inline]
    pub fn stage(
        &mut self,
        page: usize,
        supply: &mut impl Supply,
        copy: impl FnOnce(*mut u8) -> Copied,
    ) -> Result<&mut Slot, Full> {
        let seq = self.published() + 1;
        let slot = self.slot_or_new(page, supply)?;
        // SAFETY: slots live as long as the store.
        let slot = unsafe { &mut *slot };
        if slot.frame != 0 && self.entry(slot.frame as usize - 1).seq() == seq {
            // Staged twice in one commit: the frame is still ours to change.
            let frame = slot.frame as usize - 1;
            let copied = copy(self.frame_bytes(frame));
            self.set = self
                .set
                .wrapping_sub(sum::of_words(self.entry(frame).words()));
            self.enter(frame, page, seq, copied);
            return Ok(slot);
        }
        let frame = self.take(supply)?;
        let copied = copy(self.frame_bytes(frame));
        if copied == Copied::Not {
            self.release(frame);
            return Ok(slot);
        }
        self.enter(frame, page, seq, copied);
        if slot.frame != 0 {
            self.retire(slot.frame as usize - 1);
        }
        slot.frame = frame as u32 + 1;
        Ok(slot)
    }

    /// A frame holds a page of the commit to come.
    #[inline(always)]
    fn enter(&mut self, frame: usize, page: usize, seq: u64, copied: Copied) {
        let words = self.words_of(frame, page, copied, Some(seq));
        self.set = self.set.wrapping_add(sum::of_words(words));
        let entry = self.entry(frame);
        entry.page.store(words[0], Release);
        entry.seq.store(words[1], Release);
    }

    fn retire(&mut self, frame: usize) {
        self.set = self
            .set
            .wrapping_sub(sum::of_words(self.entry(frame).words()));
        // SAFETY: there is room for every frame once.
        unsafe { self.retired.add(self.retired_len).write(frame as u32) };
        self.retired_len += 1;
    }

    /// The page is gone as of the next commit. (That it is gone must itself be
    /// part of the committed state: see [`PageStore::forget_older`].)
    pub fn drop_range(&mut self, from: usize, to: usize) {
        let mut page = from;
        while page < to {
            let Some(slot) = self.slot(page) else {
                // Skip what one leaf would cover.
                page = (page / (LEAF * PAGE) + 1) * (LEAF * PAGE);
                continue;
            };
            let frame = slot.frame;
            *slot = Slot::default();
            if frame != 0 {
                self.retire(frame as usize - 1);
            }
            page += PAGE;
        }
    }

    /// At recovery: pages of `from..to` that were written before commit `seq`
    /// are not part of the state.
    pub fn forget_older(&mut self, from: usize, to: usize, seq: u64) {
        let mut page = from;
        while page < to {
            let Some(slot) = self.find(page) else {
                page = (page / (LEAF * PAGE) + 1) * (LEAF * PAGE);
                continue;
            };
            // SAFETY: as `slot`; no other reference exists.
            let slot = unsafe { &mut *slot };
            if slot.frame != 0 {
                let frame = slot.frame as usize - 1;
                if self.entry(frame).seq() < seq {
                    slot.frame = 0;
                    let words = self.entry(frame).words();
                    self.set = self.set.wrapping_sub(sum::of_words(words));
                    self.clear(frame);
                }
            }
            page += PAGE;
        }
    }

    /// Commits: everything staged becomes the state, by one store.
    #[inline]
    pub fn publish(&mut self) -> u64 {
        let seq = self.published() + 1;
        // SAFETY: `open`'s promise.
        unsafe { (*self.at.published).store(seq, SeqCst) };
        seq
    }

    /// After [`PageStore::publish`]: what the commit replaced is free again.
    #[inline]
    pub fn reclaim(&mut self) {
        for i in 0..self.retired_len {
            // SAFETY: below retired_len entries are initialised.
            let frame = unsafe { self.retired.add(i).read() } as usize;
            self.release(frame);
        }
        self.freed = core::mem::take(&mut self.retired_len);
    }

    /// The committed bytes of a page.
    pub fn committed(&self, page: usize) -> Option<*const u8> {
        // SAFETY: as `slot`, for reading.
        let slot = unsafe { *self.find(page)? };
        (slot.frame != 0).then(|| self.frame_bytes(slot.frame as usize - 1).cast_const())
    }

    /// Calls `f(page, bytes)` for every committed page of `from..to`, upward.
    pub fn for_each(&self, from: usize, to: usize, mut f: impl FnMut(usize, *const u8)) {
        self.for_each_frame(from, to, |page, frame| f(page, self.frame_bytes(frame)));
    }

    fn for_each_frame(&self, from: usize, to: usize, mut f: impl FnMut(usize, usize)) {
        let mut page = from;
        while page < to {
            let Some(slot) = self.find(page) else {
                page = (page / (LEAF * PAGE) + 1) * (LEAF * PAGE);
                continue;
            };
            // SAFETY: as `slot`, for reading.
            let frame = unsafe { (*slot).frame };
            if frame != 0 {
                f(page, frame as usize - 1);
            }
            page += PAGE;
        }
    }

    /// As [`PageStore::for_each`], but a call covers all pages that follow one
    /// another in frames that do so too: `f(page, bytes, length)`.
    pub fn for_each_run(&self, from: usize, to: usize, mut f: impl FnMut(usize, *const u8, usize)) {
        let (mut start, mut first, mut len) = (0, core::ptr::null::<u8>(), 0);
        self.for_each(from, to, |page, bytes| {
            if len > 0 && page == start + len && bytes == first.wrapping_add(len) {
                len += PAGE;
                return;
            }
            if len > 0 {
                f(start, first, len);
            }
            (start, first, len) = (page, bytes, PAGE);
        });
        if len > 0 {
            f(start, first, len);
        }
    }

    /// Frames that hold something.
    pub fn used(&self) -> usize {
        self.limit().load(Relaxed) as usize - self.free.len() - self.bare.len()
    }
}
