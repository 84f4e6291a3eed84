//! RLIMIT_AS and RLIMIT_DATA: how much memory the program may have.
//!
//! The kernel would count the runtime's windows as well, which are larger than what any
//! program has; so it is never told of these limits, and the table of areas is counted
//! here, as the kernel counts its own. Without a limit nothing is counted.

use super::*;
use crate::object::limits::{self, RLIMIT_AS, RLIMIT_DATA};

/// Whether a new or larger area of so many bytes may come, in the place of whatever lies
/// in `from..to`.
pub fn allows(len: u64, is_data: bool, from: u64, to: u64) -> bool {
    let limits = &state().root.limits;
    if limits.set & (1 << RLIMIT_AS | 1 << RLIMIT_DATA) == 0 {
        return true;
    }
    fits(RLIMIT_AS, len, from, to, |_| true)
        && (!is_data || fits(RLIMIT_DATA, len, from, to, counts_as_data))
}

/// Private memory that can be written, but for stacks.
pub fn counts_as_data(v: &Vma) -> bool {
    is_data(v.prot, v.flags)
}

pub fn is_data(prot: u32, flags: u32) -> bool {
    prot & PROT_WRITE != 0 && flags & 3 == MAP_PRIVATE && flags & MAP_GROWSDOWN == 0
}

fn fits(resource: usize, len: u64, from: u64, to: u64, counts: impl Fn(&Vma) -> bool) -> bool {
    let Ok([soft, _]) = limits::value(resource) else {
        return true;
    };
    let outside = |v: &Vma| {
        let inside = v.end.min(to).saturating_sub(v.start.max(from));
        v.end - v.start - inside
    };
    let have: u64 = areas().iter().filter(|v| counts(v)).map(outside).sum();
    have.saturating_add(len) <= soft
}
