//! Folded memory made the program's own: one anonymous mapping, with the same
//! contents, in which the same pages count as written.
//!
//! It is copied elsewhere and then moved over the old mappings. That costs what
//! the range holds, so it is done only where the difference between a private
//! mapping of the image and anonymous memory would show: for calls that move or
//! extend a mapping, make it executable or want it anonymous, and for fork,
//! whose child would go on to read frames that the parent's commits use again.
#![allow(unsafe_code)]

use super::folded::areas_in;
use super::*;
use crate::machine::sys::{errno::ENOMEM, failed};
use crate::machine::{entry, user};
use crate::uffd::{self, PAGE_IS_FILE, PageRegion};
use crate::{commit, space, thread};
use dc_image::window::{PAGE, SCRATCH_BASE};

/// For a call of one thread, if any of the range is folded. Answers 0 or a
/// negative error number.
pub fn in_call(from: usize, to: usize) -> isize {
    if engine().folded.first_in(from, to).is_none() {
        return 0;
    }
    anyway(from, to)
}

/// The same where nothing need be folded: a range may be one area and yet no
/// longer one mapping for the kernel.
pub fn anyway(from: usize, to: usize) -> isize {
    thread::stop_others(entry::local());
    let mut r = 0;
    let mut at = from;
    // Area by area: what belongs to none has no contents.
    for v in areas_in(from, to) {
        let (a, b) = ((v.start as usize).max(at), (v.end as usize).min(to));
        r = gather(a, b);
        if failed(r) {
            break;
        }
        at = b;
    }
    thread::resume_others();
    r
}

/// Makes all folded memory the program's own. Other threads are stopped.
pub fn all() -> isize {
    let e = engine();
    while let Some(first) = e.folded.ranges().first().copied() {
        let end = space::find(first.from as u64).map_or(first.to, |v| v.end as usize);
        let below = e.folded.first_above(end - 1);
        let last = match e.folded.ranges().get(below) {
            Some(r) if r.from < end => r.to.min(end),
            _ => e.folded.ranges()[below - 1].to,
        };
        let r = gather(first.from, last);
        if failed(r) {
            return r;
        }
    }
    0
}

/// Replaces a range of one area by one anonymous mapping with the same
/// contents, in which the same pages count as written. Other threads are
/// stopped. Answers 0 or a negative error number.
fn gather(from: usize, to: usize) -> isize {
    let e = engine();
    let begin = commit::now_ns();
    // Not asleep: the new mapping knows nothing of that.
    e.pieces.wake(from, to);
    let Some(&mut v) = space::find(from as u64) else {
        e.folded.forget(from, to);
        return 0;
    };
    let (new, len) = (SCRATCH_BASE, to - from);
    let notes = new + len;
    let notes_len = (len / PAGE + uffd::REGIONS) * size_of::<PageRegion>();
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    let wanted = flags | (v.flags & MAP_NORESERVE);
    if failed(sys!(MMAP, new, len, 3, wanted, -1isize, 0)) {
        return -ENOMEM;
    }
    let lean = flags | MAP_NORESERVE;
    if failed(sys!(MMAP, notes, notes_len, 3, lean, -1isize, 0)) {
        sys!(MUNMAP, new, len);
        return -ENOMEM;
    }
    let notes = notes as *mut PageRegion;
    // SAFETY: so many will be noted, and the list stays until the end.
    let noted = |i: usize| unsafe { notes.add(i).read() };
    let written = note_written(from, to, notes);
    if v.prot & PROT_READ == 0 {
        sys!(MPROTECT, from, len, PROT_READ);
    }
    let moved = if copy_contents(from, to, new) && copy_late(from, to, new) {
        sys!(MREMAP, new, len, len, 3, from)
    } else {
        -ENOMEM
    };
    if failed(moved) {
        // As before, but the notes are all that knows what was written.
        for i in 0..written {
            (noted(i).start as usize..noted(i).end as usize)
                .step_by(PAGE)
                .for_each(note_extra);
        }
        sys!(MUNMAP, new, len);
        sys!(MPROTECT, from, len, v.prot);
    } else {
        if v.prot != 3 {
            sys!(MPROTECT, from, len, v.prot);
        }
        if v.tracked != 0 {
            uffd::track(from, to);
        }
        let mut at = from;
        for i in 0..written {
            protect(at, noted(i).start as usize);
            at = noted(i).end as usize;
        }
        protect(at, to);
        e.folded.forget(from, to);
    }
    sys!(MUNMAP, notes, notes_len);
    let now = commit::now_ns();
    e.fold.pay(now - begin, now);
    moved.min(0)
}

/// Notes the regions of a range that were written since the last commit, and
/// protects them; how many there are. There is room for one at each page and
/// one step more.
fn note_written(from: usize, to: usize, notes: *mut PageRegion) -> usize {
    let mut n = 0;
    let mut at = from;
    while at < to {
        // SAFETY: n is below the number of pages that lie behind.
        let Ok((found, walked)) = uffd::scan_told(at, to, unsafe { notes.add(n) }) else {
            break;
        };
        let (mut i, end) = (n, n + found);
        while i < end {
            // SAFETY: the kernel filled these.
            let r = unsafe { notes.add(i).read() };
            if r.categories & PAGE_IS_FILE == 0 {
                // SAFETY: n is not above i.
                unsafe { notes.add(n).write(r) };
                n += 1;
            }
            i += 1;
        }
        if walked <= at {
            break;
        }
        at = walked;
    }
    n
}

/// Copies what a range holds to its place in `new`.
fn copy_contents(from: usize, to: usize, new: usize) -> bool {
    let e = engine();
    let copy = |a: usize, b: usize| {
        const MADV_POPULATE_WRITE: usize = 23;
        let dst = new + (a - from);
        sys!(MADVISE, dst, b - a, MADV_POPULATE_WRITE);
        // SAFETY: dst is mapped writable; a fault on the source is caught.
        unsafe { user::try_copy(dst as *mut u8, a as *const u8, b - a) }
    };
    let mut at = from;
    let mut good = true;
    while at < to && good {
        if let Some(end) = e.folded.end_of(at) {
            good = copy(at, end.min(to));
            at = end;
            continue;
        }
        // Outside only what is there, so that what was never touched stays so.
        let end = e.folded.first_in(at, to).map_or(to, |r| r.from);
        while at < end && good {
            let Ok((n, walked)) = uffd::present(at, end, e.regions) else {
                return false;
            };
            for i in 0..n {
                // SAFETY: the kernel filled the first n entries.
                let r = unsafe { e.regions.add(i).read() };
                good &= copy(r.start as usize, r.end as usize);
            }
            at = if walked > at { walked } else { end };
        }
    }
    good
}

/// A thread that is stopped may wait in a call, and the kernel write for it at
/// any moment: what it wrote behind the copy is copied again.
fn copy_late(from: usize, to: usize, new: usize) -> bool {
    let e = engine();
    let mut at = from;
    while at < to {
        let Ok((n, walked)) = uffd::scan_told(at, to, e.regions) else {
            return false;
        };
        for i in 0..n {
            // SAFETY: the kernel filled the first n entries.
            let r = unsafe { e.regions.add(i).read() };
            if r.categories & PAGE_IS_FILE != 0 {
                continue;
            }
            for page in (r.start as usize..r.end as usize).step_by(PAGE) {
                let dst = (new + (page - from)) as *mut u8;
                // SAFETY: dst is mapped writable; a fault on the source is caught.
                if !unsafe { user::try_copy(dst, page as *const u8, PAGE) } {
                    return false;
                }
                note_extra(page);
            }
        }
        if walked <= at {
            break;
        }
        at = walked;
    }
    true
}

/// Everything in a range counts as unwritten.
fn protect(from: usize, to: usize) {
    let mut at = from;
    while at < to {
        match uffd::scan(at, to, engine().regions) {
            Ok((_, walked)) if walked > at => at = walked,
            _ => break,
        }
    }
}
