//! Streams: writes that move upward through memory from interval to interval.
//!
//! A sweep over an array or an allocator that never looks back writes other pages
//! in each interval, and pays a fault for each. When a run of written pages begins
//! where one of the interval before ended, the next pages are likely to follow: as
//! many as came last lose their protection ahead of time, by one call. They count
//! as written from then on, so a wrong guess costs a copy of each, less than half
//! of the fault that a right one saves, and never a change that is not found.
//!
//! How much of a guess was used is measured before the next commit: the pages are
//! compared with their last copies, by bisection, since a stream goes upward.

use crate::engine::engine;
use crate::space::{self, PROT_WRITE};
use crate::uffd;
use dc_image::window::PAGE;

const STREAMS: usize = 8;
/// Shorter runs are no streams, longer guesses are cut.
const SHORTEST: usize = 8;
const LONGEST: usize = 4096;

#[derive(Clone, Copy)]
struct Stream {
    /// Where the next pages are expected.
    next: usize,
    /// How many pages the last interval wrote.
    len: usize,
    /// Pages from `next` on that are open ahead of time.
    open: usize,
    /// It went on in the interval that is being committed.
    moved: bool,
    /// All that was open was used.
    used_up: bool,
}

const NONE: Stream = Stream {
    next: 0,
    len: 0,
    open: 0,
    moved: false,
    used_up: false,
};

pub struct Streams {
    list: [Stream; STREAMS],
    /// The entry that the next new stream takes.
    turn: usize,
    /// The run of written pages under way.
    run: (usize, usize),
}

impl Streams {
    pub const fn new() -> Streams {
        Streams {
            list: [NONE; STREAMS],
            turn: 0,
            run: (0, 0),
        }
    }

    /// Before the pages of a commit are copied: what became of the guesses.
    pub fn measure(&mut self) {
        for s in &mut self.list {
            s.moved = false;
            if s.open == 0 {
                continue;
            }
            let used = used_pages(s.next, s.open);
            if used == 0 {
                *s = NONE;
                continue;
            }
            s.moved = true;
            s.used_up = used == s.open;
            s.len = used;
            s.next += used * PAGE;
            s.open = 0;
        }
    }

    /// A page that is not hot was found written; pages come upward.
    #[inline]
    pub fn note(&mut self, page: usize) {
        if page == self.run.1 {
            self.run.1 += PAGE;
        } else {
            self.end_run();
            self.run = (page, page + PAGE);
        }
    }

    #[cold]
    fn end_run(&mut self) {
        let (from, to) = core::mem::take(&mut self.run);
        let len = (to - from) / PAGE;
        if len < SHORTEST {
            return;
        }
        for s in &mut self.list {
            if s.moved && s.next > from && s.next <= to {
                // Behind a guess that was used up come pages that had their fault;
                // else it is what was open and not used.
                if s.used_up {
                    s.len += (to - s.next) / PAGE;
                    s.next = to;
                }
                return;
            }
            if s.next == from {
                (s.next, s.len, s.moved, s.used_up) = (to, len, true, true);
                return;
            }
        }
        self.list[self.turn] = Stream {
            next: to,
            len,
            ..NONE
        };
        self.turn = (self.turn + 1) % STREAMS;
    }

    /// After the scan: opens what is likely to be written next.
    pub fn open_ahead(&mut self) {
        self.end_run();
        for s in &mut self.list {
            if !s.moved {
                continue;
            }
            let Some(v) = space::find(s.next as u64).filter(|v| v.prot & PROT_WRITE != 0) else {
                *s = NONE;
                continue;
            };
            let end = (s.next + s.len.min(LONGEST) * PAGE).min(v.end as usize);
            let store = &engine().store;
            // What was never committed is not protected either.
            let known = |page| store.committed(page).is_some();
            if v.tracked != 0 && known(s.next) && known(end - PAGE) {
                engine().pieces.wake(s.next, end);
                if uffd::open_pages(s.next, end) {
                    s.open = (end - s.next) / PAGE;
                }
            }
        }
    }
}

/// How many of `len` pages differ from their last copies, if those that do come
/// first.
fn used_pages(first: usize, len: usize) -> usize {
    let (mut used, mut unused) = (0, len + 1);
    // The last page first: most guesses are right.
    let mut probe = len;
    while unused - used > 1 {
        if super::hot::unchanged(first + (probe - 1) * PAGE) {
            unused = probe;
        } else {
            used = probe;
        }
        probe = (used + unused) / 2;
    }
    used
}
