//! Cutting memory into pieces anew, when its areas have changed.
#![allow(unsafe_code)]

use super::{Fold, MAX, PIECE, Piece, Pieces};
use crate::space::{self, PROT_WRITE};
use crate::state::{State, Vma};
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::window::{LOWER_HALF, STATE_BASE};

impl Pieces {
    /// Cuts the tracked areas into pieces; those that are as before stay
    /// asleep, all others are awake.
    pub(super) fn rebuild(&mut self) {
        self.stale = false;
        self.acquire();
        let mut out = Output {
            list: self.other,
            len: 0,
        };
        let mut old = 0;
        let state_area = (STATE_BASE, STATE_BASE + State::in_use(), 3u32);
        let program = written().map(|v| (v.start as usize, v.end as usize, v.prot));
        let below = program.clone().take_while(|a| a.0 < LOWER_HALF.start);
        let above = program.clone().skip_while(|a| a.0 < LOWER_HALF.start);
        for (start, end, prot) in below.chain(core::iter::once(state_area)).chain(above) {
            let mut at = start;
            while at < end {
                let to = ((at / PIECE + 1) * PIECE).min(end);
                self.carry(&mut old, at, to, prot, &mut out);
                at = to;
            }
        }
        while old < self.len {
            self.lose(old);
            old += 1;
        }
        core::mem::swap(&mut self.list, &mut self.other);
        self.len = out.len;
        self.added = 0;
        self.note_all();
        self.release();
    }

    /// Enters a new piece, with what is known of an old one just like it.
    fn carry(&mut self, old: &mut usize, start: usize, end: usize, prot: u32, out: &mut Output) {
        let mut piece = Piece {
            start,
            end,
            prot,
            quiet: 0,
            asleep: false,
            hit: false,
            since: 0,
            woken: 0,
            fold: Fold::Not,
        };
        while *old < self.len && self.pieces()[*old].start <= start {
            let p = self.pieces()[*old];
            if (p.start, p.end, p.prot) == (start, end, prot) {
                piece = p;
            } else {
                self.lose(*old);
            }
            *old += 1;
        }
        out.push(piece);
    }

    /// An old piece has no successor: if it slept, it does no longer.
    fn lose(&mut self, i: usize) {
        let p = self.pieces()[i];
        if !p.asleep {
            return;
        }
        self.asleep.fetch_sub(1, Relaxed);
        for v in space::areas() {
            let (a, b) = (p.start.max(v.start as usize), p.end.min(v.end as usize));
            if a < b && v.tracked != 0 {
                sys!(MPROTECT, a, b - a, v.prot);
            }
        }
    }
}

/// The areas that a program may write to and a commit must look at.
pub(super) fn written() -> impl Iterator<Item = &'static Vma> + Clone {
    let is_written = |v: &&Vma| v.tracked != 0 && v.prot & PROT_WRITE != 0;
    space::areas().iter().filter(is_written)
}

struct Output {
    list: *mut Piece,
    len: usize,
}

impl Output {
    fn push(&mut self, p: Piece) {
        if self.len == MAX {
            panic!("more than {MAX} pieces of memory");
        }
        // SAFETY: the list has room for MAX entries.
        unsafe { self.list.add(self.len).write(p) };
        self.len += 1;
    }
}
