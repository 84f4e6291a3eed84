//! Sleeping memory: what a scan need not look at.
//!
//! A scan walks page tables, so it costs what is resident, not what is
//! written: 0.5 us for each 2 MiB of small pages. So tracked memory is cut
//! into pieces along 2 MiB boundaries, and a piece that nothing was written to
//! for a while is put to sleep: it becomes read-only, and is left out of every
//! scan. The first write to it is a fault that wakes it. What a commit costs
//! is then what was written lately, whatever the program's size.
//!
//! ```text
//! awake   writable, scanned by each commit
//! asleep  read-only, known to be as committed (or hot pages, which stay writable)
//! ```
//!
//! The kernel answers EFAULT where it would write for a call into a sleeping
//! piece; [`crate::dispatch`] wakes the piece and makes the call again, and
//! calls that take something away, or that would do less instead of failing
//! (read), wake their buffers before. Where such a call may wait, its buffers
//! stay awake for as long ([`crate::machine::frame::Local::awaited`]).
//!
//! The fault handler must be able to run whatever the thread was doing. So the
//! pieces have a spin lock of their own; under it nothing is touched that can
//! be asleep, and nothing waits.
#![allow(unsafe_code)]

mod cut;

use crate::engine::{engine, state};
use crate::space::PROT_WRITE;
use crate::state::{MAX_VMAS, Vma};
use crate::sys;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use dc_image::window::{LOWER_HALF, PAGE};

const PIECE: usize = 2 << 20;
const MAX: usize = 1 << 18;
/// What is spent on looking at a piece in vain before it falls asleep, in half
/// microseconds: about what waking it costs.
const QUIET: u8 = 24;
/// ... and for each run of hot pages in it, which make a change of protection
/// into several.
const QUIET_RUN: usize = 3;
/// The part of a scan that its pieces share.
const SCAN: usize = 4;
/// Nanoseconds of a tick, as a power of two: about a ms.
const TICK: u32 = 20;
/// Beyond this the time until a piece is folded again grows no more.
const WOKEN_MAX: u8 = 12;
/// Pieces that one look for cold ones passes.
const LOOK: usize = 1024;
/// Pieces closer than this share a scan.
const GAP: usize = 16 << 20;
const ONCE: usize = 64;

#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    end: usize,
    prot: u32,
    quiet: u8,
    asleep: bool,
    hit: bool,
    /// When it fell asleep, in ticks.
    since: u32,
    /// How often it was woken after it had been looked at for folding.
    woken: u8,
    fold: Fold,
}

/// What became of a piece that slept for long ([`super::fold`]).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fold {
    Not,
    /// Its turn has come.
    Pending,
    Folded,
    /// It is not to be folded as it is.
    Left,
}

#[repr(C)]
pub struct Pieces {
    list: *mut Piece,
    other: *mut Piece,
    len: usize,
    /// Pieces that memory which came since may be cut into, at most.
    added: usize,
    /// The table of areas has changed since.
    pub stale: bool,
    asleep: AtomicU32,
    lock: AtomicU32,
    /// Ranges that ceased to be writable since the last commit: what was
    /// written to them before is still to be found.
    once: [(usize, usize); ONCE],
    once_len: usize,
    /// Ticks at the commit under way.
    now: u32,
    /// Where the next look for cold pieces begins.
    cursor: usize,
    /// Folded pieces that were woken.
    regrets: AtomicU32,
    /// One bit for each piece that is awake: a commit looks at no others.
    awake: [AtomicU64; MAX / 64],
}

impl Pieces {
    pub const fn new() -> Pieces {
        Pieces {
            list: core::ptr::null_mut(),
            other: core::ptr::null_mut(),
            len: 0,
            added: 0,
            awake: [const { AtomicU64::new(0) }; MAX / 64],
            stale: true,
            asleep: AtomicU32::new(0),
            lock: AtomicU32::new(0),
            once: [(0, 0); ONCE],
            once_len: 0,
            now: 0,
            cursor: 0,
            regrets: AtomicU32::new(0),
        }
    }

    pub fn init(&mut self, arena: &mut crate::arena::Arena) {
        self.list = arena.alloc(MAX * size_of::<Piece>()).cast();
        self.other = arena.alloc(MAX * size_of::<Piece>()).cast();
    }

    /// Whether so many bytes more may be written to, however the areas that there are will
    /// be cut by changes of protection; else the call that wants them ends with ENOMEM.
    pub fn has_room(&mut self, len: usize) -> bool {
        const ROOM: usize = MAX - MAX_VMAS - 64;
        let wanted = len / PIECE + 2;
        if self.len + self.added + wanted > ROOM {
            let pieces = |v: &Vma| (v.end - v.start) as usize / PIECE + 1;
            let all: usize = cut::written().map(pieces).sum();
            if all.saturating_add(wanted) > ROOM {
                return false;
            }
            self.added = all.saturating_sub(self.len);
        }
        self.added += wanted;
        true
    }

    fn acquire(&self) {
        while self
            .lock
            .compare_exchange_weak(0, 1, Acquire, Relaxed)
            .is_err()
        {
            core::hint::spin_loop();
        }
    }

    fn release(&self) {
        self.lock.store(0, Release);
    }

    fn pieces(&mut self) -> &mut [Piece] {
        // SAFETY: the first len entries are set; the lock is held.
        unsafe { core::slice::from_raw_parts_mut(self.list, self.len) }
    }

    fn note(&self, i: usize, awake: bool) {
        let (word, bit) = (&self.awake[i / 64], 1 << (i % 64));
        match awake {
            true => word.fetch_or(bit, Relaxed),
            false => word.fetch_and(!bit, Relaxed),
        };
    }

    /// All bits anew: the pieces have other numbers.
    fn note_all(&mut self) {
        for word in &self.awake[..self.len.div_ceil(64)] {
            word.store(0, Relaxed);
        }
        for i in 0..self.len {
            if !self.pieces()[i].asleep {
                self.note(i, true);
            }
        }
    }

    /// The first awake piece from `i` on.
    fn next_awake(&self, i: usize) -> Option<usize> {
        let mut word = i / 64;
        let mut mask = !0 << (i % 64);
        while word * 64 < self.len {
            let bits = self.awake[word].load(Relaxed) & mask;
            if bits != 0 {
                let found = word * 64 + bits.trailing_zeros() as usize;
                return (found < self.len).then_some(found);
            }
            (word, mask) = (word + 1, !0);
        }
        None
    }

    /// Whether anything sleeps at all.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.asleep.load(Relaxed) != 0
    }

    /// Calls `f(from, to)` for each run of awake pieces.
    pub fn awake_runs(&mut self, mut f: impl FnMut(&mut Pieces, usize, usize)) {
        if self.stale {
            self.rebuild();
        }
        let mut next = self.next_awake(0);
        while let Some(mut i) = next {
            let p = self.pieces()[i];
            let mut end = p.end;
            loop {
                i += 1;
                next = self.next_awake(i);
                if next != Some(i) || self.pieces()[i].start - end > GAP {
                    break;
                }
                end = self.pieces()[i].end;
            }
            f(self, p.start, end);
        }
    }

    /// A range loses its write permission: the next commit looks there.
    pub fn look_once(&mut self, from: usize, to: usize) {
        if self.once_len == ONCE {
            // One range over all of them; what lies between is looked at too.
            let lo = self.once.iter().map(|r| r.0).min().unwrap_or(from);
            let hi = self.once.iter().map(|r| r.1).max().unwrap_or(to);
            self.once[0] = (lo, hi);
            self.once_len = 1;
        }
        self.once[self.once_len] = (from, to);
        self.once_len += 1;
    }

    /// The ranges of [`Pieces::look_once`], which are then forgotten.
    pub fn take_once(&mut self) -> ([(usize, usize); ONCE], usize) {
        let n = core::mem::take(&mut self.once_len);
        (self.once, n)
    }

    fn index_of(&mut self, addr: usize) -> Option<usize> {
        let i = self.pieces().partition_point(|p| p.end <= addr);
        (i < self.len && self.pieces()[i].start <= addr).then_some(i)
    }

    /// A page was found written.
    #[inline]
    pub fn hit(&mut self, page: usize) {
        if let Some(i) = self.index_of(page) {
            self.pieces()[i].hit = true;
        }
    }

    /// After a scan: what has been quiet for long falls asleep. Its pages are
    /// scanned once more behind the change, by `rescan(from, to)`, because a
    /// kernel call of a stopped thread may have written in between.
    pub fn age(&mut self, mut rescan: impl FnMut(usize, usize)) {
        let awake = (self.len - self.asleep.load(Relaxed) as usize).max(1);
        let spent = 1 + (SCAN / awake) as u8;
        let mut next = 0;
        while let Some(i) = self.next_awake(next) {
            next = i + 1;
            let p = &mut self.pieces()[i];
            p.quiet = if p.hit {
                0
            } else {
                p.quiet.saturating_add(spent)
            };
            p.hit = false;
            if p.quiet < QUIET || p.quiet < patience(p.start, p.end) {
                continue;
            }
            let p = *p;
            if pinned(p.start, p.end) {
                self.pieces()[i].quiet = 0;
                continue;
            }
            self.acquire();
            // Hot pages stay writable, without a moment between.
            super::hot::cold_runs(p.start, p.end, |from, to| {
                sys!(MPROTECT, from, to - from, p.prot & !PROT_WRITE);
            });
            let now = self.now;
            let piece = &mut self.pieces()[i];
            (piece.asleep, piece.since, piece.fold) = (true, now, Fold::Not);
            self.note(i, false);
            self.asleep.fetch_add(1, Relaxed);
            self.release();
            rescan(p.start, p.end);
        }
    }

    /// A write fault at `addr`: true if the piece was asleep (or has just been
    /// woken by another thread), and the write may be tried again.
    pub fn fault(&mut self, addr: usize) -> bool {
        if self.list.is_null() {
            return false;
        }
        self.acquire();
        let found = self.index_of(addr);
        if let Some(i) = found {
            self.wake_run(i, addr + 1);
        }
        self.release();
        found.is_some()
    }

    /// A commit begins.
    #[inline]
    pub fn tell_time(&mut self, now_ns: u64) {
        self.now = (now_ns >> TICK) as u32;
    }

    /// The next piece that has slept for long enough and whose turn has not come
    /// yet: now it has. `None` if there was none on the way.
    pub fn next_cold(&mut self, after_ms: u64) -> Option<(usize, usize)> {
        let now = self.now;
        let end = self.len.min(self.cursor + LOOK);
        let from = self.cursor.min(end);
        let cold = |p: &Piece| {
            let slept_ms = (u64::from(now.wrapping_sub(p.since)) << TICK) / 1_000_000;
            p.asleep && p.fold == Fold::Not && slept_ms >= after_ms << p.woken
        };
        let found = self.pieces()[from..end].iter().position(cold);
        let Some(i) = found.map(|i| from + i) else {
            self.cursor = if end == self.len { 0 } else { end };
            return None;
        };
        self.cursor = i + 1;
        let p = &mut self.pieces()[i];
        p.fold = Fold::Pending;
        Some((p.start, p.end))
    }

    /// Whether a piece has slept on since its turn came.
    pub fn is_pending(&mut self, start: usize, end: usize) -> bool {
        self.index_of(start).is_some_and(|i| {
            let p = self.pieces()[i];
            p.start == start && end <= p.end && p.asleep && p.fold == Fold::Pending
        })
    }

    /// The turn of a piece is over.
    pub fn settle(&mut self, start: usize, folded: bool) {
        if let Some(i) = self.index_of(start)
            && self.pieces()[i].fold == Fold::Pending
        {
            self.pieces()[i].fold = if folded { Fold::Folded } else { Fold::Left };
        }
    }

    /// How many folded pieces were woken since the last question.
    pub fn take_regrets(&mut self) -> u64 {
        u64::from(self.regrets.swap(0, Relaxed))
    }

    /// Wakes a piece that sleeps, and those below `to` that follow it without a gap, by one
    /// call. Answers which comes behind them.
    fn wake_run(&mut self, first: usize, to: usize) -> usize {
        let Piece { start, prot, .. } = self.pieces()[first];
        let (mut end, mut next) = (start, first);
        while let Some(p) = self.pieces().get(next).copied()
            && p.asleep
            && (p.start, p.prot) == (end, prot)
            && p.start < to
        {
            end = p.end;
            next += 1;
        }
        if next > first {
            sys!(MPROTECT, start, end - start, prot);
        }
        (first..next).for_each(|i| self.is_woken(i));
        next
    }

    fn is_woken(&mut self, i: usize) {
        let p = &mut self.pieces()[i];
        p.asleep = false;
        p.quiet = 0;
        let fold = core::mem::replace(&mut p.fold, Fold::Not);
        if fold != Fold::Not {
            p.woken = (p.woken + 1).min(WOKEN_MAX);
        }
        if matches!(fold, Fold::Pending | Fold::Folded) {
            self.regrets.fetch_add(1, Relaxed);
        }
        self.note(i, true);
        self.asleep.fetch_sub(1, Relaxed);
    }

    /// Wakes whatever of a range sleeps; true if anything did.
    pub fn wake(&mut self, from: usize, to: usize) -> bool {
        if !self.any() {
            return false;
        }
        self.acquire();
        let mut any = false;
        let mut i = self.pieces().partition_point(|p| p.end <= from);
        while i < self.len && self.pieces()[i].start < to {
            let next = self.wake_run(i, to);
            any |= next > i;
            i = next.max(i + 1);
        }
        self.release();
        any
    }

    /// The same before a call whose arguments these are: whatever they may point to.
    pub fn wake_arguments(&mut self, args: &[usize; 6]) -> bool {
        let mut any = false;
        for &a in args {
            any |= self.wake(a, a.saturating_add(PAGE));
        }
        any
    }

    /// A range is gone or replaced: its pieces are forgotten, what is left of
    /// them outside is awake.
    pub fn forget(&mut self, from: usize, to: usize) {
        self.stale = true;
        if self.len == 0 {
            return;
        }
        self.acquire();
        let first = self.pieces().partition_point(|p| p.end <= from);
        let mut i = first;
        while i < self.len && self.pieces()[i].start < to {
            let p = self.pieces()[i];
            if p.asleep {
                self.asleep.fetch_sub(1, Relaxed);
                for (a, b) in [(p.start, from), (to, p.end)] {
                    if a < b {
                        sys!(MPROTECT, a, b - a, p.prot);
                    }
                }
            }
            i += 1;
        }
        let len = self.len;
        self.pieces().copy_within(i..len, first);
        self.len -= i - first;
        self.note_all();
        self.release();
    }
}

/// How long a piece is looked at in vain.
fn patience(from: usize, to: usize) -> u8 {
    let mut runs = 0;
    super::hot::cold_runs(from, to, |_, _| runs += 1);
    (QUIET as usize + QUIET_RUN * runs).min(u8::MAX as usize) as u8
}

/// The kernel writes into a thread's rseq area whenever it moves the thread,
/// and takes a fault there for a crime; hot pages stay writable. And it writes
/// into the buffers of a call that waits.
fn pinned(from: usize, to: usize) -> bool {
    if LOWER_HALF.contains(&from) {
        return false;
    }
    let e = engine();
    (0..e.thread_high).any(|slot| {
        let p = e.threads[slot];
        // SAFETY: the thread is this one or stopped, as in the commit around us.
        !p.is_null()
            && unsafe { &*p }
                .awaited
                .iter()
                .any(|a| a.0 < to && a.1 > from)
            || {
                let at = state().threads[slot].rseq[0];
                !p.is_null()
                    && at != 0
                    && (from..to).contains(&at)
                    && !super::hot::is_hot(at & !(PAGE - 1))
            }
    })
}
