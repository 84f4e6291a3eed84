//! Memory that grows downward when the program touches what is below it: stacks
//! (MAP_GROWSDOWN of mmap(2), PROT_GROWSDOWN of mprotect(2)).
//!
//! The kernel would grow it without telling anybody, and what is written there would be
//! in no commit. So it is told nothing of this, and the fault is answered here.

use super::*;
use crate::machine::sys::failed;
use crate::object::limits;
use dc_image::window::{PAGE, STACK_TOP};

const RLIMIT_STACK: usize = 3;
/// The kernel keeps as much free below a stack (stack_guard_gap).
const GAP: u64 = 256 * PAGE as u64;

/// Where the stack begins that an address is in.
pub fn start_of(addr: u64) -> Option<u64> {
    let v = *find(addr)?;
    let is_stack = v.flags & MAP_GROWSDOWN != 0 || v.end == STACK_TOP as u64;
    if !is_stack {
        return None;
    }
    // Parts of it that differ in protection follow one another.
    let mut start = v.start;
    while let Some(below) = start.checked_sub(1).and_then(find)
        && below.flags == v.flags
        && below.file == 0
    {
        start = below.start;
    }
    Some(start)
}

/// A fault below an area that grows: true if there is memory now. Under the big lock.
pub fn grow(addr: usize) -> bool {
    let page = addr as u64 & !(PAGE as u64 - 1);
    let i = first_above(page);
    let Some(&v) = areas().get(i) else {
        return false;
    };
    if v.flags & MAP_GROWSDOWN == 0 || v.start <= page {
        return false;
    }
    let below = if i > 0 { areas()[i - 1].end } else { 0 };
    let most = limits::value(RLIMIT_STACK).map_or(0, |limit| limit[0]);
    if page < below.saturating_add(GAP) || v.end - page > most {
        return false;
    }
    let len = v.start - page;
    if is_full() || !quota::allows(len, false, 0, 0) {
        return false;
    }
    let flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
    let r = sys!(MMAP, page, len, v.prot, flags, -1isize, 0);
    if failed(r) {
        return false;
    }
    if !crate::uffd::track(page as usize, v.start as usize) {
        sys!(MUNMAP, page, len);
        return false;
    }
    insert(Vma {
        start: page,
        end: v.start,
        tracked: 1,
        ..v
    });
    true
}
