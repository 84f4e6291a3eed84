//! mmap, munmap, mremap, mprotect, madvise, brk.
//!
//! Each does what the kernel would, at an address of our choosing, and keeps
//! the table; writable private memory is registered for tracking as it comes.

use super::*;
use crate::machine::sys::{errno::*, failed};
use crate::object::{descriptor, memfd};
use dc_image::window::PAGE;

fn up(len: usize) -> usize {
    len.next_multiple_of(PAGE)
}

pub fn mmap(a: [usize; 6]) -> isize {
    let [addr, len, prot, flags, mut fd, offset] = a;
    let (prot, mut flags) = (prot as u32, flags as u32);
    // In the kernel's order.
    if offset % PAGE != 0 {
        return -EINVAL;
    }
    if flags & MAP_ANONYMOUS == 0 && descriptor::file_of(fd as i32).is_none() {
        return -EBADF;
    }
    if len == 0 {
        return -EINVAL;
    }
    if len > window::USER_END || is_full() {
        return -ENOMEM;
    }
    // Shared, private, shared with all flags known; memory that may vanish is not kept.
    if !matches!(flags & MAP_TYPE, 1..=3) {
        return -EINVAL;
    }
    if flags & MAP_ANONYMOUS == 0 && untrackable::is_zeros(fd as i32) {
        (flags, fd) = (flags | MAP_ANONYMOUS, usize::MAX);
    }
    let anonymous = flags & MAP_ANONYMOUS != 0;
    if anonymous && flags & MAP_HUGETLB != 0 && !huge::is_kept(flags) {
        return -ENOMEM;
    }
    let len = match anonymous && flags & MAP_HUGETLB != 0 {
        true => len.next_multiple_of(huge::PAGE_LEN),
        false => up(len),
    };
    let at = match place(addr, len, flags) {
        Ok(at) => at,
        Err(e) => return -e,
    };
    let file = if !anonymous {
        match descriptor::file_of(fd as i32) {
            Some(file) if untrackable::refuses(file, fd as i32) => return -ENODEV,
            Some(file) => file,
            None => return -EBADF,
        }
    } else {
        0
    };
    let is_shared = flags & 3 != MAP_PRIVATE;
    if is_shared && prot & PROT_EXEC != 0 && file != 0 && memfd::is(file) {
        return -EPERM;
    }
    let data = quota::is_data(prot, flags);
    if !quota::allows(len as u64, data, at as u64, (at + len) as u64) {
        return -ENOMEM;
    }
    let real = (flags & !(MAP_FIXED_NOREPLACE | MAP_32BIT | MAP_GROWSDOWN)) | MAP_FIXED;
    let mut v = Vma {
        start: at as u64,
        end: (at + len) as u64,
        prot,
        // (That it is locked its advice says, for that may end.)
        flags: flags & !(MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_POPULATE | MAP_LOCKED),
        file,
        tracked: 0,
        advice: Advice::NONE,
        offset: offset as u64,
    };
    if prot & PROT_WRITE != 0 && !shared::may_write(&v) {
        return -EACCES;
    }
    if prot & PROT_WRITE != 0 && !engine().pieces.has_room(len) {
        return -ENOMEM;
    }
    memfd::before_unmap(at, at + len);
    if file != 0 && is_shared {
        let refused = memfd::before_growth(fd as i32, Some((offset + len) as u64), 0);
        if failed(refused) {
            return -ENOMEM;
        }
    }
    let r = sys!(MMAP, at, len, shared::real_prot(&v), real, fd, offset);
    if failed(r) {
        return r;
    }
    if file != 0 {
        descriptor::hold(file);
        crate::object::regular::note_mapped(file, fd as i32);
        if is_shared {
            crate::run::shared::mapped(file);
        }
        if is_shared && prot & PROT_EXEC == 0 {
            crate::object::regular::note_shared_reading(fd as i32, file);
        }
        if is_shared && prot & PROT_WRITE != 0 && !shared::is_guarded(&v) {
            crate::object::regular::warn_shared_mapping(file);
        }
    }
    // Anonymous memory in any case (a later mprotect needs no call then);
    // of files only private copies, once they can be written.
    let written = prot & PROT_WRITE != 0 && (!is_shared || memfd::is_mapped(&v));
    let is_huge = anonymous && flags & MAP_HUGETLB != 0;
    if anonymous || written {
        v.tracked = crate::uffd::track(at, at + len) as u16;
    }
    let lost = (anonymous || written) && v.tracked == 0;
    engine().huge |= is_huge;
    insert(v);
    locked::came(at, len, flags & MAP_LOCKED != 0);
    if lost {
        // Nothing would find what is written there.
        crate::say!("memory of {len} bytes is refused: the kernel cannot track writes to it");
        munmap([at, len, 0, 0, 0, 0]);
        return -ENOMEM;
    }
    at as isize
}

/// Where an area of this length goes.
pub fn place(addr: usize, len: usize, flags: u32) -> Result<usize, isize> {
    if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0 {
        if !addr.is_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        if !allowed(addr, len) {
            return Err(ENOMEM);
        }
        if flags & MAP_FIXED_NOREPLACE != 0 && !is_free(addr, len) {
            return Err(EEXIST);
        }
        return Ok(addr);
    }
    const LOW_END: usize = 0x8000_0000;
    let low = flags & MAP_32BIT != 0;
    let hint = addr & !(PAGE - 1);
    let fits = !low || hint.saturating_add(len) <= LOW_END;
    if hint != 0 && fits && allowed(hint, len) && is_free(hint, len) {
        return Ok(hint);
    }
    if low {
        return find_free(len as u64, LOW_END as u64, 0x4000_0000)
            .map(|a| a as usize)
            .ok_or(ENOMEM);
    }
    // Large areas on a huge-page boundary, so that the kernel can use them.
    let align = if len >= 2 << 20 { 2 << 20 } else { PAGE };
    let top = window::MMAP_TOP as u64;
    let found = find_free((len + align - PAGE) as u64, top, window::USER_MIN as u64);
    found
        .map(|a| {
            if align == PAGE {
                a as usize
            } else {
                (a as usize).next_multiple_of(align)
            }
        })
        .ok_or(ENOMEM)
}

fn is_free(addr: usize, len: usize) -> bool {
    areas()
        .get(first_above(addr as u64))
        .is_none_or(|v| v.start >= (addr + len) as u64)
}

pub fn munmap(a: [usize; 6]) -> isize {
    let (addr, len) = (a[0], a[1]);
    if addr % PAGE != 0 || len == 0 || !allowed(addr, up(len)) {
        return -EINVAL;
    }
    if is_full() {
        return -ENOMEM;
    }
    memfd::before_unmap(addr, addr + up(len));
    let r = sys!(MUNMAP, addr, up(len));
    if !failed(r) {
        remove(addr as u64, (addr + up(len)) as u64);
        crate::sysv::memory::unmapped(addr, addr + up(len));
    }
    r
}

pub fn mprotect(a: [usize; 6]) -> isize {
    let (mut addr, mut len, mut prot) = (a[0], up(a[1]), a[2] as u32);
    if prot & (PROT_GROWSDOWN | PROT_GROWSUP) != 0 {
        // From the beginning of a stack on; no memory here grows upward.
        let Some(start) = downward::start_of(addr as u64).filter(|_| prot & PROT_GROWSUP == 0)
        else {
            return -EINVAL;
        };
        (addr, len) = (start as usize, len + addr - start as usize);
        prot &= !PROT_GROWSDOWN;
    }
    if addr % PAGE != 0 || !allowed(addr, len) {
        return if addr % PAGE != 0 { -EINVAL } else { -ENOMEM };
    }
    if len == 0 {
        return 0;
    }
    if is_full() || prot & PROT_WRITE != 0 && !engine().pieces.has_room(len) {
        return -ENOMEM;
    }
    // The kernel changes what lies before the first place that it may not change.
    if let Some((end, why)) = first_refusal(addr, addr + len, prot) {
        let r = match end > addr {
            true => mprotect([addr, end - addr, prot as usize, 0, 0, 0]),
            false => 0,
        };
        return if failed(r) { r } else { -why };
    }
    // The image may lie where nothing may be executed.
    if prot & PROT_EXEC != 0 && failed(gather::in_call(addr, addr + len)) {
        return -ENOMEM;
    }
    engine().pieces.wake(addr, addr + len);
    engine().pieces.forget(addr, addr + len);
    let r = shared::protect(addr, len, prot);
    if failed(r) {
        return r;
    }
    let mut lost = false;
    update(addr as u64, (addr + len) as u64, |v| {
        if v.prot & PROT_WRITE != 0 && prot & PROT_WRITE == 0 && v.tracked != 0 {
            engine().pieces.look_once(v.start as usize, v.end as usize);
        }
        v.prot = prot;
        let kept = v.flags & 3 == MAP_PRIVATE || memfd::is_mapped(v);
        if prot & PROT_WRITE != 0 && v.tracked == 0 && kept {
            v.tracked = crate::uffd::track(v.start as usize, v.end as usize) as u16;
            if v.tracked == 0 {
                // Nothing would find what is written there.
                lost = true;
                v.prot &= !PROT_WRITE;
                sys!(MPROTECT, v.start, v.end - v.start, v.prot);
            }
        }
    });
    if lost { -ENOMEM } else { r }
}

/// Where a change of protection must end before the end of its range, and with which
/// error: at memory that is not there, or at a file that was not opened for writing.
fn first_refusal(from: usize, to: usize, prot: u32) -> Option<(usize, isize)> {
    let mut at = from;
    for v in folded::areas_in(from, to) {
        if v.start as usize > at {
            return Some((at, ENOMEM));
        }
        if prot & PROT_WRITE != 0 && !shared::may_write(&v) {
            return Some((at, EACCES));
        }
        at = v.end as usize;
    }
    (at < to).then_some((at, ENOMEM))
}

pub fn mremap(a: [usize; 6]) -> isize {
    let [old, old_len, new_len, flags, wish, _] = a;
    const MAYMOVE: usize = 1;
    const FIXED: usize = 2;
    const DONTUNMAP: usize = 4;
    // In the kernel's order.
    if flags & !(MAYMOVE | FIXED | DONTUNMAP) != 0
        || flags & (FIXED | DONTUNMAP) != 0 && flags & MAYMOVE == 0
        || flags & DONTUNMAP != 0 && old_len != new_len
    {
        return -EINVAL;
    }
    let (old_len, new_len) = (up(old_len), up(new_len));
    let overlaps = wish < old.saturating_add(old_len) && old < wish.saturating_add(new_len);
    if flags & FIXED != 0 && (wish % PAGE != 0 || !allowed(wish, new_len) || overlaps) {
        return -EINVAL;
    }
    if old % PAGE != 0 || new_len == 0 || !allowed(old, old_len.max(PAGE)) {
        return -EINVAL;
    }
    let Some(&mut v) = find(old as u64) else {
        return -EFAULT;
    };
    if is_full() {
        return -ENOMEM;
    }
    if flags & (FIXED | DONTUNMAP) == 0 && new_len <= old_len {
        if new_len < old_len {
            let r = munmap([old + new_len, old_len - new_len, 0, 0, 0, 0]);
            if failed(r) {
                return r;
            }
        }
        return old as isize;
    }
    // To grow or move a mapping of the image would bring more of the image.
    if failed(gather::in_call(old, old + old_len)) {
        return -ENOMEM;
    }
    shared::before_move(old, old + old_len);
    memfd::before_unmap(old, old + old_len);
    let grow = new_len.saturating_sub(old_len);
    if !quota::allows(grow as u64, quota::counts_as_data(&v), 0, 0)
        || !engine().pieces.has_room(grow)
    {
        return -ENOMEM;
    }
    // In place, if nothing follows.
    if flags & FIXED == 0 && flags & DONTUNMAP == 0 && v.end == (old + old_len) as u64 {
        let next_free = is_free(old + old_len, grow) && allowed(old, new_len);
        if next_free {
            let r = sys!(MREMAP, old, old_len, new_len, 0, 0);
            if !failed(r) {
                return grown(old, old_len, new_len, v, r);
            }
        }
    }
    if flags & MAYMOVE == 0 {
        return -ENOMEM;
    }
    let to = if flags & FIXED != 0 {
        if wish % PAGE != 0 || !allowed(wish, new_len) {
            return -EINVAL;
        }
        wish
    } else {
        match place(0, new_len, 0) {
            Ok(to) => to,
            Err(e) => return -e,
        }
    };
    memfd::before_unmap(to, to + new_len);
    // Write tracking does not move along: end it before, begin it after.
    if v.tracked != 0 {
        crate::uffd::untrack(old, old + old_len);
    }
    let how = (flags & DONTUNMAP) | MAYMOVE | FIXED;
    let mut r = sys!(MREMAP, old, old_len, new_len, how, to);
    if r == -EFAULT && v.file == 0 && v.flags & 3 == MAP_PRIVATE && v.end >= (old + old_len) as u64
    {
        // One area, but several mappings: a recovery has brought it in parts.
        r = gather::anyway(old, old + old_len);
        if !failed(r) {
            crate::uffd::untrack(old, old + old_len);
            r = sys!(MREMAP, old, old_len, new_len, how, to);
        }
    }
    if failed(r) {
        if v.tracked != 0 {
            crate::uffd::track(old, old + old_len);
        }
        return r;
    }
    if v.file != 0 {
        descriptor::hold(v.file);
    }
    if flags & DONTUNMAP == 0 {
        remove(old as u64, (old + old_len) as u64);
    } else {
        discard(old, old + old_len);
        if v.tracked != 0 {
            crate::uffd::track(old, old + old_len);
        }
    }
    let mut moved = v;
    moved.offset += old as u64 - v.start;
    moved.start = to as u64;
    moved.end = (to + new_len) as u64;
    if v.tracked != 0 {
        moved.tracked = crate::uffd::track(to, to + new_len) as u16;
        if v.prot & PROT_WRITE == 0 {
            engine().pieces.look_once(to, to + new_len);
        }
    }
    insert(moved);
    r
}

fn grown(old: usize, old_len: usize, new_len: usize, v: Vma, r: isize) -> isize {
    let mut tail = v;
    tail.offset += (old + old_len) as u64 - v.start;
    tail.start = (old + old_len) as u64;
    tail.end = (old + new_len) as u64;
    if v.tracked != 0 {
        tail.tracked = crate::uffd::track(tail.start as usize, tail.end as usize) as u16;
    }
    if tail.file != 0 {
        descriptor::hold(tail.file);
    }
    insert(tail);
    r
}

pub fn madvise(a: [usize; 6]) -> isize {
    let (addr, len, number) = (a[0], up(a[1]), a[2]);
    const DONTNEED: usize = 4;
    const FREE: usize = 8;
    const REMOVE: usize = 9;
    const DONTFORK: usize = 10;
    const DONTDUMP: usize = 16;
    const MERGEABLE: usize = 12;
    const HUGEPAGE: usize = 14;
    const WIPEONFORK: usize = 18;
    const POPULATE_WRITE: usize = 23;
    const DONTNEED_LOCKED: usize = 24;
    const COLLAPSE: usize = 25;
    const GUARD_INSTALL: usize = 102;
    if !allowed(addr, len.max(PAGE)) {
        return -EINVAL;
    }
    if is_full() {
        return -ENOMEM;
    }
    let drops = matches!(number, DONTNEED | FREE | DONTNEED_LOCKED);
    if drops && folded::areas_in(addr, addr + len).any(|v| is_shared(&v)) {
        return drop_private(addr, len, number);
    }
    // Freed pages would vanish at a moment of the kernel's choosing.
    let number = if number == FREE { DONTNEED } else { number };
    if number == GUARD_INSTALL {
        return -EINVAL;
    }
    match number {
        DONTNEED | DONTNEED_LOCKED if addr % PAGE == 0 => folded::zero(addr, addr + len),
        // Anonymous memory only, or best done by its own rules.
        DONTFORK | MERGEABLE | HUGEPAGE | DONTDUMP | WIPEONFORK | COLLAPSE
            if failed(gather::in_call(addr, addr + len)) =>
        {
            return -ENOMEM;
        }
        POPULATE_WRITE => {
            engine().pieces.wake(addr, addr + len);
        }
        // It punches a hole into the file behind a mapping.
        REMOVE => {
            shared::open(addr, addr + len);
        }
        _ => {}
    }
    let r = sys!(MADVISE, addr, len, number);
    // ENOMEM: part of the range is not mapped; the rest was dropped.
    if (!failed(r) || r == -ENOMEM) && matches!(number, DONTNEED | REMOVE | DONTNEED_LOCKED) {
        // Pages of a private file mapping become the file's again, which is
        // what an absent page means at recovery.
        discard(addr, addr + len);
    }
    if !failed(r) && number == REMOVE {
        memfd::removed(addr, addr + len);
    }
    if !failed(r) || r == -ENOMEM {
        advice::told(addr as u64, (addr + len) as u64, number);
    }
    r
}

fn is_shared(v: &Vma) -> bool {
    v.flags & 3 != MAP_PRIVATE
}

/// Advice that takes the contents of private memory away, for a range in which other
/// memory lies as well: that keeps its own, which the kernel would only unmap, and
/// with it forget that it was written.
fn drop_private(addr: usize, len: usize, advice: usize) -> isize {
    const FREE: usize = 8;
    if advice == FREE {
        return -EINVAL;
    }
    let mut result = 0;
    let mut at = addr;
    for v in folded::areas_in(addr, addr + len) {
        let (from, to) = (
            (v.start as usize).max(addr),
            (v.end as usize).min(addr + len),
        );
        if from > at {
            result = -ENOMEM;
        }
        at = to;
        if !is_shared(&v) {
            let r = madvise([from, to - from, advice, 0, 0, 0]);
            if failed(r) {
                return r;
            }
        }
    }
    if at < addr + len { -ENOMEM } else { result }
}

pub fn brk(a: [usize; 6]) -> isize {
    let root = &mut state().root;
    let (start, now, want) = (root.brk_start as usize, root.brk_now as usize, a[0]);
    if want < start {
        return now as isize;
    }
    let (have, need) = (up(now), up(want));
    if need > have {
        if !is_free(have, need - have) || !allowed(have, need - have) {
            return now as isize;
        }
        let room = !is_full() && engine().pieces.has_room(need - have);
        if !room || !quota::allows((need - have) as u64, true, 0, 0) {
            return now as isize;
        }
        if failed(map_anonymous(have, need - have, 3, 0)) {
            return now as isize;
        }
        locked::came(have, need - have, false);
    } else if need < have {
        munmap([need, have - need, 0, 0, 0, 0]);
    }
    root.brk_now = want as u64;
    want as isize
}
