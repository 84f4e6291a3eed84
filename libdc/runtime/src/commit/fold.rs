//! Cold memory, folded: what has slept for long is mapped from the image.
//!
//! A page and its frame are two copies of the same bytes. Of memory that sleeps
//! ([`super::sleep`]) both stay the same, so one is enough: after some seconds the
//! frames are mapped in the place of the pages ([`crate::space::folded`]), and the
//! program's own copies are gone. The first write to such a page costs some us
//! instead of one; so a piece that was woken waits twice as long the next time.
//!
//! ```text
//! piece that sleeps    [ p0 ][ p1 ][ p2 ][ p3 ]
//!
//! frames in long runs  [ f7 ][ f8 ][ f9 ][ fa ]     mapped as they are
//! frames scattered     [ f7 ][ f2 ][ f3 ][ f9 ]     laid together first: staged
//!                                                   again, in order, and mapped
//!                                                   once that is published
//! ```
//!
//! All of it is done in a few dozen us at a time, by commits, while threads are
//! stopped; and for each us a hundred pass before there is more. What waking
//! folded memory or making it ordinary again has cost is paid for in the same way.
//!
//! Left alone is what would lose something: memory that the program has locked or
//! given advice for, huge pages, and all memory of a program that forks (a child
//! needs memory of its own: [`crate::space::gather`]).
#![allow(unsafe_code)]

use super::hot;
use crate::engine::{engine, store_and_supply};
use crate::machine::sys::failed;
use crate::machine::user;
use crate::space::{self, folded};
use crate::{sys, uffd};
use core::sync::atomic::Ordering::Relaxed;
use dc_image::boot::plant;
use dc_image::window::PAGE;
use vista_core::pages::{Copied, Stretch};

/// One part in so many of the time may go into this.
const TIME_SHARE: u64 = 100;
/// What it is taken to cost that a folded piece was woken.
const REGRET_NS: u64 = 500_000;
/// Bytes that one commit maps, and lays together.
const MAP_AT_ONCE: usize = 64 * PAGE;
const LAY_AT_ONCE: usize = 16 * PAGE;
/// Shorter runs are not mapped as they are.
const RUN: usize = 16 * PAGE;
/// A piece with fewer pages is not worth a mapping.
const FEW: usize = 32;
/// A piece in more parts than this would take too many.
const PARTS: usize = 16;
/// Ranges mapped from the image at the most: the kernel gives a process 65530
/// mappings, which the program wants to have.
const MOST: usize = 4096;
/// A program that has forked is left alone for so long; each time twice as long.
const FORK_NS: u64 = 600_000_000_000;
/// How long to wait when nothing was found.
const IDLE_NS: u64 = 200_000_000;

/// A piece under way.
struct Job {
    start: usize,
    end: usize,
    /// All below is done.
    at: usize,
    /// The part that the commit under way has laid together.
    laid: Option<(usize, usize)>,
    /// Where pages are laid; none if they are mapped as they are.
    stretch: Option<Stretch>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Can {
    NotAsked,
    Yes,
    No,
}

pub struct Fold {
    /// Nothing is done before.
    next_ns: u64,
    can: Can,
    forks: u32,
    job: Option<Job>,
    /// What the commit under way has spent on it.
    spent_ns: u64,
}

impl Fold {
    pub const fn new() -> Fold {
        Fold {
            next_ns: 0,
            can: Can::NotAsked,
            forks: 0,
            job: None,
            spent_ns: 0,
        }
    }

    /// Nothing is folded from here on.
    pub fn never(&mut self) {
        self.can = Can::No;
    }

    /// Something was done that took so long: it must be made up for.
    pub fn pay(&mut self, cost_ns: u64, now_ns: u64) {
        self.next_ns = self.next_ns.max(now_ns) + cost_ns * TIME_SHARE;
    }

    /// The program makes a child.
    pub fn forked(&mut self, now_ns: u64) {
        let hold = FORK_NS << self.forks.min(6);
        self.next_ns = self.next_ns.max(now_ns + hold);
        self.forks += 1;
    }

    /// In a commit that began at `begin_ns`, before it is published: stages the next
    /// pages of a piece that is laid together. Answers how many.
    #[inline]
    pub fn lay(&mut self, begin_ns: u64) -> u64 {
        match &mut self.job {
            Some(job) if begin_ns >= self.next_ns && job.stretch.is_some() => {
                let from = super::now_ns();
                let count = job.lay();
                self.spent_ns = super::now_ns() - from;
                count
            }
            _ => 0,
        }
    }

    /// After it was published, before replaced frames are free: what was laid is
    /// mapped, so that no page is a replaced frame.
    #[inline]
    pub fn map_laid(&mut self) {
        if let Some(job) = &mut self.job
            && let Some(part) = job.laid.take()
        {
            let from = super::now_ns();
            self.map(part, PAGE);
            self.spent_ns += super::now_ns() - from;
        }
    }

    /// At the end of a commit: the next piece of work, if it is time.
    #[inline]
    pub fn step(&mut self, begin_ns: u64) {
        if begin_ns >= self.next_ns {
            self.work();
        }
    }

    #[cold]
    fn work(&mut self) {
        let e = engine();
        let from = super::now_ns();
        if self.can != Can::Yes && !self.ask() {
            self.end_job();
            self.next_ns = u64::MAX;
            return;
        }
        let woken = e.pieces.take_regrets();
        if woken > 0 {
            crate::engine::add(&e.live().folds_undone, woken);
            return self.pay(woken * REGRET_NS, from);
        }
        match &self.job {
            None => {
                if !self.find() {
                    self.next_ns = from + IDLE_NS.min(e.boot.fold_ms * 500_000);
                    return;
                }
            }
            Some(job) if !e.pieces.is_pending(job.start, job.end) => self.end_job(),
            Some(job) if job.stretch.is_none() => {
                let part = (job.at, (job.at + MAP_AT_ONCE).min(job.end));
                self.map(part, RUN);
            }
            // Its commit has laid a part of it.
            Some(_) => {}
        }
        let now = super::now_ns();
        let spent = core::mem::take(&mut self.spent_ns) + now - from;
        self.pay(spent, now);
    }

    /// Whether memory may be folded here at all.
    fn ask(&mut self) -> bool {
        if self.can == Can::NotAsked {
            // Where all memory is accounted for, it could be missing at a wakening.
            let can = engine().boot.fold_ms != 0 && !accounts_strictly() && folded::works();
            self.can = if can { Can::Yes } else { Can::No };
        }
        self.can == Can::Yes
    }

    /// Looks for a cold piece, and begins with it; false if there is none.
    fn find(&mut self) -> bool {
        let pieces = &mut engine().pieces;
        let Some((start, end)) = pieces.next_cold(engine().boot.fold_ms) else {
            return false;
        };
        let stretch = match plan(start, end) {
            Plan::Leave => {
                pieces.settle(start, false);
                return true;
            }
            Plan::Map => None,
            Plan::Lay(pages) => match engine().store.reserve(pages) {
                Some(stretch) => Some(stretch),
                None => {
                    pieces.settle(start, false);
                    return true;
                }
            },
        };
        self.job = Some(Job {
            start,
            end,
            at: start,
            laid: None,
            stretch,
        });
        true
    }

    /// Maps the committed frames of a part of the piece, in runs of some length.
    fn map(&mut self, (from, to): (usize, usize), least: usize) {
        let e = engine();
        let stale = e.boot.plant == plant::STALE_FOLD && e.folded.touches(from, to);
        let mut good = space::find(from as u64).is_some() && e.folded.ranges().len() < MOST;
        if let Some(&mut v) = space::find(from as u64)
            && good
            && !stale
        {
            e.store.for_each_run(from, to, |page, bytes, len| {
                if good && len >= least {
                    good = folded::fold_asleep(&v, page, bytes, len);
                    crate::engine::add(&e.live().pages_folded, (len / PAGE) as u64);
                }
            });
        }
        if !good && least == PAGE {
            // What was mapped from the image before must not be these frames.
            (from..to).step_by(PAGE).for_each(folded::own);
        }
        if let Some(job) = &mut self.job {
            job.at = to;
            if !good || to == job.end {
                self.end_job();
            }
        }
        if !good {
            self.never();
        }
    }

    fn end_job(&mut self) {
        let Some(job) = self.job.take() else { return };
        engine().pieces.settle(job.start, true);
        if let Some(stretch) = job.stretch {
            engine().store.unreserve(stretch);
        }
    }
}

impl Job {
    #[cold]
    fn lay(&mut self) -> u64 {
        let e = engine();
        let Some(stretch) = &mut self.stretch else {
            return 0;
        };
        if !e.pieces.is_pending(self.start, self.end) {
            return 0;
        }
        let (from, to) = (self.at, (self.at + LAY_AT_ONCE).min(self.end));
        let (mut done, mut count) = (from, 0);
        while done < to {
            if e.store.committed(done).is_some() {
                let (store, mut supply) = store_and_supply();
                let sums = *store.sums();
                let copy = |dst| {
                    // SAFETY: dst is a whole frame; faults on the page are caught.
                    match unsafe { user::try_stream_page(dst, done as *const u8, &sums) } {
                        Copied::Not => super::copy_program_page(dst, done),
                        copied => copied,
                    }
                };
                if hot::is_hot(done) || !store.lay(done, stretch, &mut supply, copy) {
                    // The rest of the piece stays as it is.
                    self.end = done;
                    break;
                }
                count += 1;
            }
            done += PAGE;
        }
        self.laid = Some((from, done));
        count
    }
}

enum Plan {
    Leave,
    /// Its frames follow one another well enough.
    Map,
    /// So many pages are to be laid together.
    Lay(usize),
}

fn plan(start: usize, end: usize) -> Plan {
    let e = engine();
    let Some(&mut v) = space::find(start as u64) else {
        return Plan::Leave;
    };
    if !folded::may_fold(&v) || (end as u64) > v.end || has_huge_pages(start, end) {
        return Plan::Leave;
    }
    let (mut pages, mut in_runs, mut parts, mut last) = (0, 0, 0, 0);
    let mut hot = false;
    e.store.for_each_run(start, end, |page, _, len| {
        pages += len / PAGE;
        in_runs += if len >= RUN { len / PAGE } else { 0 };
        parts += usize::from(page != last);
        last = page + len;
        hot |= (page..last).step_by(PAGE).any(hot::is_hot);
    });
    if hot || pages < FEW {
        return Plan::Leave;
    }
    let folded = e.folded.touches(start, end);
    if folded && own_pages(start, end) * 8 < pages {
        return Plan::Leave;
    }
    match in_runs * 8 >= pages * 7 || parts > PARTS {
        true if folded || in_runs * 2 < pages => Plan::Leave,
        true => Plan::Map,
        false => Plan::Lay(pages),
    }
}

/// Committed pages of a range that are held twice.
fn own_pages(start: usize, end: usize) -> usize {
    let e = engine();
    let mut own = 0;
    let _ = folded::each_own::<()>(start, end, |page| {
        own += usize::from(e.store.committed(page).is_some());
        Ok(())
    });
    own
}

fn has_huge_pages(start: usize, end: usize) -> bool {
    let e = engine();
    let mut at = start;
    while at < end {
        let Ok((n, walked)) = uffd::present(at, end, e.regions) else {
            return true;
        };
        for i in 0..n {
            // SAFETY: the kernel filled the first n entries.
            let r = unsafe { e.regions.add(i).read() };
            if r.categories & uffd::PAGE_IS_HUGE != 0 {
                return true;
            }
        }
        if walked <= at {
            break;
        }
        at = walked;
    }
    false
}

/// vm.overcommit_memory = 2: a private mapping that becomes writable may be
/// refused for want of memory.
fn accounts_strictly() -> bool {
    let mut byte = 0u8;
    let fd = crate::proc::open(b"/proc/sys/vm/overcommit_memory\0", 0);
    if failed(fd) {
        return false;
    }
    if sys!(READ, fd, &raw mut byte, 1) == 1 {
        crate::run::me().rchar.fetch_add(1, Relaxed);
    }
    sys!(CLOSE, fd);
    byte == b'2'
}
