//! The contents of memory at recovery: long runs are mapped from the image and
//! come when they are touched, the rest is copied at once.
//!
//! A run is committed pages that follow one another, in frames that do so too.
//! To map it costs about as much as to copy a page and a half, whatever its
//! length; but each run is a mapping of its own, and of those the kernel gives
//! a process a limited number, which the program wants to have.
#![allow(unsafe_code)]

use crate::engine::engine;
use crate::machine::user;
use crate::space::{PROT_WRITE, folded};
use crate::state::Vma;
use crate::sys;
use dc_image::window::PAGE;

/// Shorter runs are copied: to map them would not be faster.
const LEAST: usize = 4 * PAGE;
/// Runs that are mapped at the most (the kernel's limit is 65530 mappings).
const MOST: usize = 4096;

pub struct Fill {
    /// Length from which a run is mapped.
    least: usize,
    /// Parts of one stretch of the program's pages, to be copied.
    parts: [Part; 256],
    len: usize,
}

#[derive(Clone, Copy)]
struct Part {
    page: usize,
    bytes: usize,
    len: usize,
}

impl Fill {
    pub fn new() -> Fill {
        let least = match folded::works() {
            true => least(),
            false => usize::MAX,
        };
        Fill {
            least,
            parts: [Part {
                page: 0,
                bytes: 0,
                len: 0,
            }; 256],
            len: 0,
        }
    }

    /// Brings the pages of an area, which is mapped and empty.
    pub fn area(&mut self, v: &Vma) {
        let may_fold = folded::may_fold(v);
        let locked = v.prot & PROT_WRITE == 0;
        let mut opened = false;
        let (from, to) = (v.start as usize, v.end as usize);
        engine().store.for_each_run(from, to, |page, bytes, len| {
            if may_fold && len >= self.least && folded::fold(v, page, bytes, len) {
                return;
            }
            if locked && !opened {
                opened = true;
                // What is mapped later in this area has its own protection.
                sys!(MPROTECT, v.start, to - from, (v.prot | PROT_WRITE) & 3);
            }
            self.add(page, bytes as usize, len);
        });
        self.flush();
        if opened {
            sys!(MPROTECT, v.start, to - from, v.prot);
        }
    }

    fn add(&mut self, page: usize, bytes: usize, len: usize) {
        let follows = self.parts[..self.len]
            .last()
            .is_none_or(|p| p.page + p.len == page);
        if !follows || self.len == self.parts.len() {
            self.flush();
        }
        self.parts[self.len] = Part { page, bytes, len };
        self.len += 1;
    }

    /// One call faults in the pages of a stretch, then they are copied.
    fn flush(&mut self) {
        const MADV_POPULATE_READ: usize = 22;
        const MADV_POPULATE_WRITE: usize = 23;
        let parts = &self.parts[..self.len];
        self.len = 0;
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
            return;
        };
        let len = last.page + last.len - first.page;
        if len > PAGE {
            sys!(MADVISE, first.page, len, MADV_POPULATE_WRITE);
        }
        for p in parts {
            if p.len > PAGE {
                sys!(MADVISE, p.bytes, p.len, MADV_POPULATE_READ);
            }
            // SAFETY: the area is mapped writable, the frames are whole pages. A
            // page behind the end of a file that was cut short cannot be
            // written; the program could not use it either.
            unsafe { user::try_copy(p.page as *mut u8, p.bytes as *const u8, p.len) };
        }
    }
}

/// The least power of two of pages that leaves no more runs than may be mapped.
fn least() -> usize {
    let e = engine();
    if e.store.used() * PAGE / LEAST <= MOST {
        return LEAST;
    }
    let mut of_length = [0usize; 64];
    for v in crate::space::areas().iter().filter(|v| folded::may_fold(v)) {
        e.store
            .for_each_run(v.start as usize, v.end as usize, |_, _, len| {
                of_length[len.ilog2() as usize] += 1;
            });
    }
    let mut runs = 0;
    for exponent in (LEAST.ilog2()..64).rev() {
        runs += of_length[exponent as usize];
        if runs > MOST {
            return 1 << (exponent + 1);
        }
    }
    LEAST
}
