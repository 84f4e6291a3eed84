//! Memory of huge pages that the program asked for (MAP_HUGETLB).
//!
//! Its writes are found a huge page at a time; of one that was written, the small pages
//! that differ from their last copy are committed. Such pages come from a pool. Where a
//! recovery finds that empty, the program gets common memory in their place, which differs
//! in nothing but speed, and the user is told.

use super::*;
use crate::commit::hot;
use crate::machine::sys::failed;

/// The size that nearly every machine has; the kernel's default is taken for it.
pub const PAGE_LEN: usize = 2 << 20;

/// Whether memory with these flags can be kept: of pages of 2 MB.
pub fn is_kept(flags: u32) -> bool {
    const SHIFT: u32 = 26;
    matches!(flags >> SHIFT & 63, 0 | 21)
}

/// Whether a page that was found written need not be committed.
#[inline(always)]
pub fn is_unchanged(page: usize) -> bool {
    engine().huge && is_huge(page) && hot::unchanged(page)
}

/// Whether a page is part of a huge one.
#[inline(always)]
pub fn contains(page: usize) -> bool {
    engine().huge && is_huge(page)
}

#[cold]
fn is_huge(page: usize) -> bool {
    find(page as u64).is_some_and(|v| v.file == 0 && v.flags & MAP_HUGETLB != 0)
}

/// At recovery: common memory in the place of huge pages that are not to be had.
pub fn replace(v: &mut Vma, flags: u32) -> isize {
    let r = sys!(
        MMAP,
        v.start,
        v.end - v.start,
        v.prot,
        flags & !MAP_HUGETLB,
        -1isize,
        0
    );
    if !failed(r) {
        v.flags &= !MAP_HUGETLB;
        crate::say!("huge pages are used up; the program has common memory in their place");
    }
    r
}
