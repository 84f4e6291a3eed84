//! Advice that stays with memory, madvise(2): what a fork, a core dump and the kernel's
//! huge and merged pages are to do with an area; and whether it is locked, mlock(2).
//!
//! The table of areas remembers it, for three reasons. A recovery gives it again: a secret
//! that a fork wipes (MADV_WIPEONFORK) must not reach the children of a recovered program.
//! A fork obeys it: what a child does not inherit (MADV_DONTFORK) is no area of its table.
//! And vfork(2) shares all memory, where the child of this runtime has a copy: for the
//! moment of its birth nothing is left out or wiped.

use super::areas;
use crate::machine::sys::errno::ENOMEM;
use crate::machine::sys::failed;
use crate::state::Vma;
use crate::sys;

/// A set of kinds of advice.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Advice(u16);

/// The numbers of madvise(2) that set a kind of advice and that take it back.
struct Kind {
    set: usize,
    clear: usize,
}

const DONTFORK: usize = 0;
const WIPEONFORK: usize = 1;
const NOHUGEPAGE: usize = 5;
/// Locked, when it is there or not before it is touched: beside [`KINDS`].
const LOCKED: u16 = 1 << 6;
const LOCKED_ON_FAULT: u16 = 1 << 7;

const KINDS: [Kind; 6] = [
    Kind { set: 10, clear: 11 }, // DONTFORK, DOFORK
    Kind { set: 18, clear: 19 }, // WIPEONFORK, KEEPONFORK
    Kind { set: 16, clear: 17 }, // DONTDUMP, DODUMP
    Kind { set: 12, clear: 13 }, // MERGEABLE, UNMERGEABLE
    Kind { set: 14, clear: 15 }, // HUGEPAGE; NOHUGEPAGE is more than its end
    Kind { set: 15, clear: 14 }, // NOHUGEPAGE
];

impl Advice {
    pub const NONE: Advice = Advice(0);

    fn has(self, kind: usize) -> bool {
        self.0 & 1 << kind != 0
    }

    /// With one more call of madvise, by its number; `None` if nothing of it stays.
    fn after(self, number: usize) -> Option<Advice> {
        let mut now = self.0;
        let mut stays = false;
        for (nth, kind) in KINDS.iter().enumerate() {
            if number == kind.set {
                (now, stays) = (now | 1 << nth, true);
            } else if number == kind.clear {
                (now, stays) = (now & !(1 << nth), true);
            }
        }
        stays.then_some(Advice(now))
    }

    /// Whether memory with it must be a mapping of its own. (Small pages are what a
    /// mapping of the image has anyway.)
    pub fn is_apart(self) -> bool {
        self.0 & !(1 << NOHUGEPAGE) != 0
    }
}

/// Notes what the kernel has been told of a range.
pub fn told(from: u64, to: u64, number: usize) {
    if Advice::NONE.after(number).is_some() {
        super::update(from, to, |v| {
            v.advice = v.advice.after(number).unwrap_or(v.advice);
        });
    }
}

/// Notes that a range is locked, and how, or is not any more.
pub fn lock(from: u64, to: u64, how: Option<bool>) {
    let bit = how.map_or(
        0,
        |on_fault| if on_fault { LOCKED_ON_FAULT } else { LOCKED },
    );
    super::update(from, to, |v| {
        v.advice.0 = v.advice.0 & !(LOCKED | LOCKED_ON_FAULT) | bit;
    });
}

/// At a recovery, when all memory is there: gives all advice again. Says which area's the
/// kernel refused.
pub fn give() -> Result<(), (Vma, isize)> {
    for v in areas().iter() {
        give_to(v).map_err(|r| (*v, r))?;
    }
    Ok(())
}

/// Gives the advice of one area to a new mapping of it.
pub fn give_to(v: &Vma) -> Result<(), isize> {
    for (_, kind) in KINDS.iter().enumerate().filter(|k| v.advice.has(k.0)) {
        let r = sys!(MADVISE, v.start, v.end - v.start, kind.set);
        // A kernel without huge or merged pages refuses what only makes memory faster.
        let only_faster = matches!(kind.set, 12 | 14 | 15);
        if failed(r) && !only_faster {
            return Err(r);
        }
    }
    if v.advice.0 & (LOCKED | LOCKED_ON_FAULT) != 0 {
        let on_fault = v.advice.0 & LOCKED_ON_FAULT != 0;
        let r = super::locked::lock(v.start as usize, (v.end - v.start) as usize, on_fault);
        // (Where nothing may be read nothing is read in.)
        if failed(r) && (r != -ENOMEM || v.prot != 0) {
            return Err(r);
        }
    }
    Ok(())
}

/// Around a vfork(2), before it: nothing is left out, nothing wiped.
pub fn suspend() {
    each_of_fork(|kind| kind.clear);
}

/// Behind it, in the parent and in the child.
pub fn resume() {
    each_of_fork(|kind| kind.set);
}

fn each_of_fork(number: impl Fn(&Kind) -> usize) {
    for v in areas().iter() {
        for nth in [DONTFORK, WIPEONFORK] {
            if v.advice.has(nth) {
                sys!(MADVISE, v.start, v.end - v.start, number(&KINDS[nth]));
            }
        }
    }
}

/// In the child of a fork: what it has not inherited is none of its areas, and locks are
/// its parent's.
pub fn forget_what_is_not_inherited() {
    let is_locked = |v: &Vma| v.advice.0 & (LOCKED | LOCKED_ON_FAULT) != 0;
    if areas().iter().any(is_locked) {
        lock(0, u64::MAX, None);
    }
    while let Some(&mut v) = areas().iter_mut().find(|v| v.advice.has(DONTFORK)) {
        super::remove(v.start, v.end);
    }
}
