//! Sets of frames: which are free, and which of those have storage behind them.
//!
//! A set is a bitmap with a summary above it (one bit for each word that is not
//! empty), so the lowest member, or the next one down, is found in a few steps. The
//! lowest free frame is always used first. So pages that are committed in order
//! get frames in order, a small working set stays in the same few frames, and
//! what is free collects at the end, where it can be given back in long runs.
#![allow(unsafe_code)] // Tables without an allocator.

use crate::pages::Supply;

const BITS: usize = 64;

/// A set of frame numbers below a fixed limit.
pub struct FrameSet {
    words: *mut u64,
    summary: *mut u64,
    summary_len: usize,
    len: usize,
    /// No member lies in a summary word below this.
    low: usize,
}

impl FrameSet {
    /// A set without room for anything.
    pub const fn closed() -> FrameSet {
        FrameSet {
            words: core::ptr::null_mut(),
            summary: core::ptr::null_mut(),
            summary_len: 0,
            len: 0,
            low: 0,
        }
    }

    /// An empty set of numbers below `limit`; `None` if there is no memory.
    pub fn new(limit: usize, supply: &mut impl Supply) -> Option<FrameSet> {
        let summary_len = limit.div_ceil(BITS * BITS);
        let words: *mut u64 = supply.alloc(summary_len * BITS * 8).cast();
        let summary: *mut u64 = supply.alloc(summary_len * 8).cast();
        (!words.is_null() && !summary.is_null()).then_some(FrameSet {
            words,
            summary,
            summary_len,
            ..FrameSet::closed()
        })
    }

    /// How many members there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn word(&self, i: usize) -> u64 {
        debug_assert!(i < self.summary_len * BITS);
        // SAFETY: callers pass indices of words that exist.
        unsafe { self.words.add(i).read() }
    }

    #[inline]
    fn summary_word(&self, i: usize) -> u64 {
        debug_assert!(i < self.summary_len);
        // SAFETY: as `word`.
        unsafe { self.summary.add(i).read() }
    }

    /// Changes a word, and its bit in the summary.
    #[inline]
    fn set_word(&mut self, i: usize, word: u64) {
        let bit = 1 << (i % BITS);
        let above = match word {
            0 => self.summary_word(i / BITS) & !bit,
            _ => self.summary_word(i / BITS) | bit,
        };
        // SAFETY: both words exist, as they were read before.
        unsafe {
            self.words.add(i).write(word);
            self.summary.add(i / BITS).write(above);
        }
    }

    pub fn contains(&self, frame: usize) -> bool {
        self.word(frame / BITS) >> (frame % BITS) & 1 != 0
    }

    #[inline]
    pub fn insert(&mut self, frame: usize) {
        let i = frame / BITS;
        debug_assert!(!self.contains(frame), "a frame is free once");
        self.set_word(i, self.word(i) | 1 << (frame % BITS));
        self.low = self.low.min(i / BITS);
        self.len += 1;
    }

    #[inline]
    pub fn remove(&mut self, frame: usize) {
        let i = frame / BITS;
        debug_assert!(self.contains(frame));
        self.set_word(i, self.word(i) & !(1 << (frame % BITS)));
        self.len -= 1;
    }

    /// The lowest member.
    #[inline]
    pub fn lowest(&mut self) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        while self.summary_word(self.low) == 0 {
            self.low += 1;
        }
        let i = self.low * BITS + self.summary_word(self.low).trailing_zeros() as usize;
        Some(i * BITS + self.word(i).trailing_zeros() as usize)
    }

    /// The highest member below `bound`.
    fn highest_below(&self, bound: usize) -> Option<usize> {
        let last = bound.checked_sub(1)?;
        let mut i = (last / BITS).min(self.summary_len * BITS - 1);
        let mut word = self.word(i);
        if i == last / BITS {
            word &= !0 >> (BITS - 1 - last % BITS);
        }
        while word == 0 {
            // The next word that is not empty, by the summary.
            let mut above = self.summary_word(i / BITS) & !(!0 << (i % BITS));
            let mut row = i / BITS;
            while above == 0 {
                row = row.checked_sub(1)?;
                above = self.summary_word(row);
            }
            i = row * BITS + BITS - 1 - above.leading_zeros() as usize;
            word = self.word(i);
        }
        Some(i * BITS + BITS - 1 - word.leading_zeros() as usize)
    }

    /// Takes out the highest run below `bound`, no more than `most` of it, if it has
    /// `least` members or more: where it begins, and its length (0: it was shorter).
    pub fn take_run_below(
        &mut self,
        bound: usize,
        least: usize,
        most: usize,
    ) -> Option<(usize, usize)> {
        let top = self.highest_below(bound)?;
        let mut n = 1;
        while n < most && n <= top && self.contains(top - n) {
            n += 1;
        }
        let from = top + 1 - n;
        if n < least {
            return Some((from, 0));
        }
        (from..=top).for_each(|frame| self.remove(frame));
        Some((from, n))
    }

    /// Takes out the lowest run of just so many, if there is one.
    pub fn take_run(&mut self, len: usize) -> Option<usize> {
        if self.len < len {
            return None;
        }
        let (mut from, mut n) = (0, 0);
        let mut i = self.low * BITS;
        while i < self.summary_len * BITS {
            if self.summary_word(i / BITS) == 0 {
                (i, n) = ((i / BITS + 1) * BITS, 0);
                continue;
            }
            let word = self.word(i);
            if word == 0 || word == !0 {
                if n == 0 {
                    from = i * BITS;
                }
                n = if word == 0 { 0 } else { n + BITS };
            } else {
                for frame in i * BITS..(i + 1) * BITS {
                    if word >> (frame % BITS) & 1 == 0 {
                        n = 0;
                    } else {
                        if n == 0 {
                            from = frame;
                        }
                        n += 1;
                        if n == len {
                            break;
                        }
                    }
                }
            }
            if n >= len {
                (from..from + len).for_each(|frame| self.remove(frame));
                return Some(from);
            }
            i += 1;
        }
        None
    }

    /// Enters all of a run.
    pub fn insert_run(&mut self, from: usize, len: usize) {
        (from..from + len).for_each(|frame| self.insert(frame));
    }
}

/// How many free frames keep their storage.
///
/// To give a frame's storage back and to get it again later costs far more than
/// to use it again. So what is given back is what was not needed lately, or
/// more than a share of the whole. The second saves memory at the price of
/// time when commits stay large; so it ends when too much was got again, and
/// pauses while large commits follow one another closely. What a large commit
/// needed is forgotten when so much time has passed that getting it again is
/// cheap beside it. A short run costs a call as a long one does, so short ones
/// go back only as fast as time pays for them.
pub struct Thrift {
    /// Frames that a commit needs, as the latest ones show.
    demand: usize,
    /// When one last needed more than half of them.
    needed_ns: u64,
    /// When a commit last needed more than may be kept, and how long that
    /// keeps all frames as they are.
    large_ns: u64,
    hold_ns: u64,
    /// Frames that were got again, less what time has paid for, as of when.
    wasted: usize,
    wasted_ns: u64,
    /// The most frames that were ever in use.
    peak: usize,
    /// As of when time has paid for short runs, and whether those alone are left.
    short_ns: u64,
    short_only: bool,
}

/// To give a frame back costs this, with what it costs to get it again.
const FRAME_NS: u64 = 3_000;
/// The share of time that may go into it in the long run: one part in so many.
const TIME_SHARE: u64 = 400;
/// ... beyond this many times for each frame ever in use.
const TIMES: usize = 16;
/// Large commits closer than this need their frames again at once.
const CLOSE_NS: u64 = 5_000_000;
/// ... and for so long.
const HOLD_NS: u64 = 100_000_000;
/// Free frames that are kept if needed lately, whatever is in use: 16 MiB.
const POOL: usize = 4096;
/// ... or this part of those in use.
const POOL_SHARE: usize = 32;
/// Fewer than this are not worth a call.
const LUMP: usize = 128;
/// Runs are short below this: a call for each costs more than their frames.
pub const RUN: usize = 8;
/// Not worth a look, if only short runs are left.
const SHORT: usize = 16;
/// Not more runs are looked at after one commit.
pub const RUNS: usize = 256;
/// After a small commit no more than this, so that none takes long.
const STEP: usize = 512;

/// What a commit leaves behind, in frames.
#[derive(Clone, Copy)]
pub struct Balance {
    /// Taken by the commit, and set free by it.
    pub taken: usize,
    pub freed: usize,
    /// Of those taken: given back before.
    pub again: usize,
    /// Free with storage, and in use.
    pub free: usize,
    pub used: usize,
}

/// What is to go back after a commit.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Surplus {
    /// Frames in all.
    pub frames: usize,
    /// Runs shorter than [`RUN`], at most.
    pub short_runs: usize,
}

impl Thrift {
    pub const fn new() -> Thrift {
        Thrift {
            demand: 0,
            needed_ns: 0,
            large_ns: 0,
            hold_ns: 0,
            wasted: 0,
            wasted_ns: 0,
            peak: POOL,
            short_ns: 0,
            short_only: false,
        }
    }

    /// Which free frames to give back now. The clock is not asked after a
    /// small commit unless there may be something to give back.
    #[inline]
    pub fn surplus(&mut self, b: Balance, now_ns: impl FnOnce() -> u64) -> Surplus {
        self.wasted += b.again;
        self.demand = self.demand.max(b.taken);
        let share = POOL.max(b.used / POOL_SHARE);
        if b.taken <= share && b.free < 2 * LUMP {
            return Surplus::default();
        }
        self.weigh(b, share, now_ns())
    }

    /// So many short runs went back, and perhaps no others were there.
    pub fn gave(&mut self, short_runs: usize, short_only: bool) {
        self.short_ns += short_runs as u64 * FRAME_NS * TIME_SHARE;
        self.short_only = short_only;
    }

    #[cold]
    fn weigh(&mut self, b: Balance, share: usize, now: u64) -> Surplus {
        let kept = self.demand.min(share);
        let paid_for = kept as u64 * FRAME_NS * TIME_SHARE;
        if 2 * b.taken > self.demand {
            self.needed_ns = now;
        } else if now.saturating_sub(self.needed_ns) > paid_for {
            self.demand = b.taken;
        }
        if b.taken > share {
            if self.large_ns != 0 && now.saturating_sub(self.large_ns) < CLOSE_NS {
                self.hold_ns = now + HOLD_NS;
            }
            self.large_ns = now;
        }
        let paid = now.saturating_sub(self.wasted_ns) / (FRAME_NS * TIME_SHARE);
        self.wasted = self.wasted.saturating_sub(paid as usize);
        self.wasted_ns += paid * FRAME_NS * TIME_SHARE;
        self.peak = self.peak.max(b.used);
        if now < self.hold_ns || self.wasted > TIMES * self.peak {
            // Small commits in between say nothing of the next large one.
            return Surplus::default();
        }
        let surplus = b.free.saturating_sub(self.demand.min(share) + LUMP);
        let short_runs = self.short_runs(now);
        self.short_only &= b.freed.max(b.taken) <= share;
        if surplus < LUMP || (self.short_only && short_runs < SHORT) {
            return Surplus::default();
        }
        Surplus {
            frames: surplus.min(b.taken.max(b.freed).max(STEP)),
            short_runs,
        }
    }

    /// The short runs that time has paid for. It pays for few at once, so that no
    /// commit takes long.
    fn short_runs(&mut self, now: u64) -> usize {
        const PRICE: u64 = FRAME_NS * TIME_SHARE;
        let most = RUNS as u64 * PRICE;
        self.short_ns = self.short_ns.max(now.saturating_sub(most));
        (now.saturating_sub(self.short_ns) / PRICE) as usize
    }
}

impl Default for Thrift {
    fn default() -> Thrift {
        Thrift::new()
    }
}
