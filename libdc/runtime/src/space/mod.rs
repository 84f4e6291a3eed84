//! The program's address space: a table of its own, so that no commit and no
//! recovery has to parse /proc.
//!
//! The table is sorted by address and part of the state. [`calls`] has the
//! system calls that change it.
#![allow(unsafe_code)]

pub mod advice;
pub mod calls;
pub mod downward;
pub mod folded;
pub mod gather;
pub mod huge;
pub mod locked;
pub mod quota;
pub mod shared;
pub mod untrackable;

use crate::engine::{engine, state};
use crate::state::{MAX_VMAS, Vma};
use crate::sys;
use advice::Advice;
use dc_image::window;

pub const PROT_READ: u32 = 1;
pub const PROT_WRITE: u32 = 2;
pub const PROT_EXEC: u32 = 4;
pub const PROT_GROWSDOWN: u32 = 0x0100_0000;
pub const PROT_GROWSUP: u32 = 0x0200_0000;
pub const MAP_TYPE: u32 = 15;
pub const MAP_PRIVATE: u32 = 2;
pub const MAP_FIXED: u32 = 0x10;
pub const MAP_ANONYMOUS: u32 = 0x20;
pub const MAP_GROWSDOWN: u32 = 0x100;
pub const MAP_LOCKED: u32 = 0x2000;
pub const MAP_32BIT: u32 = 0x40;
pub const MAP_NORESERVE: u32 = 0x4000;
pub const MAP_POPULATE: u32 = 0x8000;
pub const MAP_STACK: u32 = 0x20000;
pub const MAP_HUGETLB: u32 = 0x40000;
pub const MAP_FIXED_NOREPLACE: u32 = 0x100000;

pub fn areas() -> &'static mut [Vma] {
    let s = state();
    let n = s.root.vma_count as usize;
    let first = s.root.vma_first as usize;
    &mut s.vmas[first..first + n]
}

/// Index of the first area that ends above `addr`.
pub fn first_above(addr: u64) -> usize {
    areas().partition_point(|v| v.end <= addr)
}

/// The area that contains `addr`.
pub fn find(addr: u64) -> Option<&'static mut Vma> {
    let i = first_above(addr);
    let v = areas().get_mut(i)?;
    (v.start <= addr).then_some(v)
}

/// Whether the table may have no room for what one call makes of it: two cuts and an
/// area. The kernel answers ENOMEM at its own limit (max_map_count, proc_sys_vm(5)).
fn is_full() -> bool {
    state().root.vma_count as usize + 4 > MAX_VMAS
}

fn insert_at(i: usize, v: Vma) {
    engine().pieces.stale = true;
    let s = state();
    let n = s.root.vma_count as usize;
    if n == MAX_VMAS {
        panic!("more than {MAX_VMAS} memory areas");
    }
    let first = &mut s.root.vma_first;
    if n == 0 {
        // They come from the top down.
        *first = (MAX_VMAS / 8 * 7) as u32;
    }
    let at = *first as usize;
    // Whichever side is shorter moves, if it has room.
    if at > 0 && (i < n / 2 || at + n == MAX_VMAS) {
        s.vmas.copy_within(at..at + i, at - 1);
        *first -= 1;
        s.vmas[at - 1 + i] = v;
    } else {
        s.vmas.copy_within(at + i..at + n, at + i + 1);
        s.vmas[at + i] = v;
    }
    s.root.vma_count += 1;
}

fn remove_at(i: usize, count: usize) {
    engine().pieces.stale = true;
    let s = state();
    let n = s.root.vma_count as usize;
    let at = s.root.vma_first as usize;
    if i < n / 2 {
        s.vmas.copy_within(at..at + i, at + count);
        s.root.vma_first += count as u32;
    } else {
        s.vmas.copy_within(at + i + count..at + n, at + i);
    }
    s.root.vma_count -= count as u32;
}

/// Cuts the area around `addr` in two, so that a boundary lies there.
fn split(addr: u64) {
    let i = first_above(addr);
    let Some(v) = areas().get_mut(i) else { return };
    if v.start < addr {
        let mut right = *v;
        v.end = addr;
        right.offset += addr - right.start;
        right.start = addr;
        if right.file != 0 {
            crate::object::descriptor::hold(right.file);
        }
        insert_at(i + 1, right);
    }
}

/// Whether two neighbours are one area.
fn joins(a: &Vma, b: &Vma) -> bool {
    a.end == b.start
        && a.file == 0
        && b.file == 0
        && a.prot == b.prot
        && a.flags == b.flags
        && a.tracked == b.tracked
        && a.advice == b.advice
}

fn merge_around(from: u64, to: u64) {
    let mut i = first_above(from.saturating_sub(1));
    while i + 1 < areas().len() && areas()[i].start <= to {
        let (a, b) = (areas()[i], areas()[i + 1]);
        if joins(&a, &b) {
            areas()[i].end = b.end;
            remove_at(i + 1, 1);
        } else {
            i += 1;
        }
    }
}

/// Enters an area; whatever was there is forgotten first.
pub fn insert(v: Vma) {
    remove(v.start, v.end);
    let i = first_above(v.start);
    insert_at(i, v);
    merge_around(v.start, v.end);
}

/// Forgets a range: its pages are no longer state.
pub fn remove(from: u64, to: u64) {
    engine().pieces.forget(from as usize, to as usize);
    engine().shared.forget(from as usize, to as usize);
    engine().folded.forget(from as usize, to as usize);
    split(from);
    split(to);
    let i = first_above(from);
    let mut n = 0;
    while let Some(v) = areas().get(i + n) {
        if v.start >= to {
            break;
        }
        if v.file != 0 {
            crate::object::descriptor::release(v.file);
        }
        n += 1;
    }
    if n > 0 {
        remove_at(i, n);
        discard(from as usize, to as usize);
    }
}

/// Applies `f` to every area of a range, cut at its ends.
pub fn update(from: u64, to: u64, mut f: impl FnMut(&mut Vma)) {
    engine().pieces.stale = true;
    split(from);
    split(to);
    let mut i = first_above(from);
    while let Some(v) = areas().get_mut(i) {
        if v.start >= to {
            break;
        }
        f(v);
        i += 1;
    }
    merge_around(from, to);
}

/// What is free in the table of discards when a commit is due: more than a call needs.
const DISCARDS_LEFT: usize = 16;

/// The pages of a range lose their contents: with the next commit, what was
/// committed of them is void.
pub fn discard(from: usize, to: usize) {
    let e = engine();
    // A hot page is no longer hot, but writable while its piece sleeps.
    e.pieces.wake(from, to);
    let mut any = false;
    e.store.for_each(from, to, |_, _| any = true);
    if !any {
        return;
    }
    e.store.drop_range(from, to);
    let root = &mut state().root;
    let seq = e.store.published() + 1;
    let n = root.head.discard_count as usize;
    if let Some(last) = root.head.discards[..n].last_mut()
        && last.to == from as u64
        && last.seq == seq
    {
        last.to = to as u64;
        return;
    }
    if n + DISCARDS_LEFT >= root.head.discards.len() {
        // A commit frees the table, before holes are too many to remember one by one.
        crate::machine::entry::local().commit_after |= !crate::event::is_behind();
    }
    if n == root.head.discards.len() {
        // Too many holes to remember one by one.
        widen(from, to, seq);
        return;
    }
    root.head.discards[n] = dc_image::state_head::Discard {
        from: from as u64,
        to: to as u64,
        seq,
    };
    root.head.discard_count += 1;
}

/// The table of discards is full: merge the new range with its nearest
/// neighbour and stage again, at the next commit, every page in between.
fn widen(from: usize, to: usize, seq: u64) {
    let root = &mut state().root;
    let nearest = (0..root.head.discards.len())
        .min_by_key(|&i| {
            let d = &root.head.discards[i];
            if d.to <= from as u64 {
                from as u64 - d.to
            } else {
                d.from.saturating_sub(to as u64)
            }
        })
        .unwrap_or(0);
    let d = &mut root.head.discards[nearest];
    let (lo, hi) = (d.from.min(from as u64), d.to.max(to as u64));
    d.from = lo;
    d.to = hi;
    d.seq = seq;
    let e = engine();
    let (extra, len) = (e.extra, &mut e.extra_len);
    e.store.for_each(lo as usize, hi as usize, |page, _| {
        if *len < crate::engine::EXTRA_MAX {
            // SAFETY: the list has room for EXTRA_MAX entries.
            unsafe { extra.add(*len).write(page) };
            *len += 1;
        } else {
            panic!("too many areas unmapped between two commits");
        }
    });
}

/// A text page was changed by the runtime: it belongs into the next commit.
pub fn note_extra(page: usize) {
    let e = engine();
    if e.extra_len < crate::engine::EXTRA_MAX {
        // SAFETY: the list has room for EXTRA_MAX entries.
        unsafe { e.extra.add(e.extra_len).write(page) };
        e.extra_len += 1;
    } else {
        panic!("too many patched pages between two commits");
    }
}

/// Whether a range lies where programs may map.
pub fn allowed(from: usize, len: usize) -> bool {
    let Some(end) = from.checked_add(len) else {
        return false;
    };
    from >= window::USER_MIN
        && end <= window::USER_END
        && (end <= window::LOWER_HALF.start || from >= window::LOWER_HALF.end)
}

/// A free range of `len` bytes below `top`, as high as possible.
pub fn find_free(len: u64, top: u64, bottom: u64) -> Option<u64> {
    let mut high = top;
    let mut i = first_above(top.saturating_sub(1));
    // An area across `top` lowers it.
    if let Some(v) = areas().get(i)
        && v.start < high
    {
        high = v.start;
    }
    loop {
        let low = if i > 0 { areas()[i - 1].end } else { bottom };
        let low = low.max(bottom);
        if high >= low && high - low >= len {
            let at = high - len;
            if allowed(at as usize, len as usize) {
                return Some(at);
            }
            // The runtime's half is in the way: go below it.
            high = window::LOWER_HALF.start as u64;
            if high >= low && high - low >= len && high > len {
                return Some(high - len);
            }
        }
        if i == 0 || low <= bottom {
            return None;
        }
        i -= 1;
        high = areas()[i].start;
    }
}

/// Maps an anonymous private area of the program's half at a fixed place.
pub fn map_anonymous(at: usize, len: usize, prot: u32, extra_flags: u32) -> isize {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | extra_flags;
    let r = sys!(MMAP, at, len, prot, flags | MAP_FIXED, -1isize, 0);
    if crate::machine::sys::failed(r) {
        return r;
    }
    let tracked = crate::uffd::track(at, at + len);
    if !tracked {
        sys!(MUNMAP, at, len);
        return -crate::machine::sys::errno::ENOMEM;
    }
    insert(Vma {
        start: at as u64,
        end: (at + len) as u64,
        prot,
        flags,
        file: 0,
        tracked: tracked as u16,
        advice: Advice::NONE,
        offset: 0,
    });
    r
}
