//! Where a scan has to look: the tracked areas, as few ranges as possible.
//!
//! A scan walks page tables, so what it costs is what it is shown. One call
//! for the whole address space would walk every hole and every text segment;
//! one call for each area would pay the entry into the kernel too often.

use crate::space;
use crate::state::State;
use dc_image::window::STATE_BASE;

const MAX: usize = 96;
/// Areas closer than this share a call: a hole of 2 MiB costs some 20 ns.
const GAP: usize = 16 << 20;

pub struct Ranges {
    list: [(usize, usize); MAX],
    len: usize,
    /// The table of areas has changed since.
    pub stale: bool,
}

impl Ranges {
    pub const fn new() -> Ranges {
        Ranges {
            list: [(0, 0); MAX],
            len: 0,
            stale: true,
        }
    }

    pub fn get(&mut self) -> &[(usize, usize)] {
        if self.stale {
            self.stale = false;
            let mut gap = GAP;
            while !self.rebuild(gap) {
                gap *= 16;
            }
        }
        &self.list[..self.len]
    }

    fn rebuild(&mut self, gap: usize) -> bool {
        self.list[0] = (STATE_BASE, STATE_BASE + size_of::<State>());
        self.len = 1;
        for v in space::areas() {
            if v.tracked == 0 {
                continue;
            }
            let (from, to) = (v.start as usize, v.end as usize);
            let last = &mut self.list[self.len - 1];
            if self.len > 1 && from - last.1 <= gap {
                last.1 = to;
            } else if self.len == MAX {
                return false;
            } else {
                self.list[self.len] = (from, to);
                self.len += 1;
            }
        }
        true
    }
}
