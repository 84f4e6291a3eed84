//! Folded memory: pages that program and Rio share until the program writes.
//!
//! A recovery need not copy what it can map. Where committed pages that follow
//! one another have frames that do so too, the frames are mapped privately at
//! the program's address: a read costs a small fault, the first write makes the
//! kernel copy the page, and what is never touched costs nothing.
//!
//! ```text
//! program   [ p0 ][ p1 ][ p2 ][ p3 ]     p2 was written: anonymous, its own
//!              |     |           |
//! image     [ f7 ][ f8 ][ f9 ][ f10 ]    the frames that they had at recovery
//! ```
//!
//! Two things make that sound. A page that still *is* its frame has that frame
//! as its committed copy, and a commit frees it only when the page has been
//! written (then it is the program's own), is unmapped, or was made the
//! program's own by [`own`]. And the kernel tells a page of a file that was
//! read from one that was written and copied.
//!
//! What treats a private mapping of a file otherwise than anonymous memory
//! finds anonymous memory: [`zero`] and [`gather`] see to it before.

use crate::engine::{engine, state};
use crate::machine::sys::{errno::ENOMEM, failed};
use crate::machine::{entry, user};
use crate::space::{self, *};
use crate::state::Vma;
use crate::uffd::{self, PAGE_IS_FILE, PageRegion};
use crate::{fatal, sys, thread};
use core::sync::atomic::Ordering::Relaxed;
use dc_image::FatalCode;
use dc_image::boot::high_fd;
use dc_image::window::{PAGE, RIO_BASE, SCRATCH_BASE};

/// More than the kernel lets a process have mappings, unless it is told to.
const MAX: usize = 1 << 17;

#[derive(Clone, Copy)]
struct Range {
    from: usize,
    to: usize,
}

/// The ranges that are mapped from the image, by address. They describe this
/// process, so they are no part of the state.
pub struct Folded {
    list: *mut Range,
    len: usize,
}

impl Folded {
    pub const fn new() -> Folded {
        Folded {
            list: core::ptr::null_mut(),
            len: 0,
        }
    }

    pub fn init(&mut self, arena: &mut crate::arena::Arena) {
        self.list = arena.alloc(MAX * size_of::<Range>()).cast();
    }

    #[inline(always)]
    pub fn any(&self) -> bool {
        self.len != 0
    }

    fn ranges(&self) -> &[Range] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the first len entries are set; the big lock guards them.
        unsafe { core::slice::from_raw_parts(self.list, self.len) }
    }

    fn put(&mut self, i: usize, r: Range) {
        // SAFETY: callers stay below MAX.
        unsafe { self.list.add(i).write(r) };
    }

    /// Index of the first range that ends above an address.
    fn first_above(&self, addr: usize) -> usize {
        self.ranges().partition_point(|r| r.to <= addr)
    }

    /// The first folded part of `from..to`.
    fn first_in(&self, from: usize, to: usize) -> Option<Range> {
        let r = *self.ranges().get(self.first_above(from))?;
        (r.from < to).then_some(Range {
            from: r.from.max(from),
            to: r.to.min(to),
        })
    }

    /// Where the folded memory around a page ends, if the page lies in any.
    pub fn end_of(&self, page: usize) -> Option<usize> {
        let r = self.ranges().get(self.first_above(page))?;
        (r.from <= page).then_some(r.to)
    }

    /// Whether any of a range is folded.
    #[inline]
    pub fn touches(&self, from: usize, to: usize) -> bool {
        self.any() && self.first_in(from, to).is_some()
    }

    /// Enters a range above all others.
    fn push(&mut self, r: Range) {
        assert!(self.len < MAX, "too many ranges mapped from the image");
        self.put(self.len, r);
        self.len += 1;
    }

    /// A range is mapped from the image no longer.
    pub fn forget(&mut self, from: usize, to: usize) {
        let first = self.first_above(from);
        let mut end = first;
        let (mut left, mut right) = (None, None);
        while let Some(&r) = self.ranges().get(end)
            && r.from < to
        {
            if r.from < from {
                left = Some(Range {
                    from: r.from,
                    to: from,
                });
            }
            if r.to > to {
                right = Some(Range { from: to, to: r.to });
            }
            end += 1;
        }
        if first == end {
            return;
        }
        let kept = left.iter().count() + right.iter().count();
        assert!(
            self.len + kept - (end - first) <= MAX,
            "too many ranges mapped from the image"
        );
        // SAFETY: source and target lie within the MAX entries.
        unsafe {
            core::ptr::copy(
                self.list.add(end),
                self.list.add(first + kept),
                self.len - end,
            );
        }
        for (i, r) in left.into_iter().chain(right).enumerate() {
            self.put(first + i, r);
        }
        self.len = self.len + kept - (end - first);
    }
}

/// Whether pages may be mapped from an image like this one: the kernel must
/// tell a page that was only read from one that was written. (It cannot where
/// a file's storage is mapped itself and has no pages.)
pub fn works() -> bool {
    let fd = engine().high_fd(high_fd::RIO);
    let flags = MAP_PRIVATE | MAP_FIXED;
    // The page of the live counters: any page that is there would do.
    let offset = dc_image::header::LIVE_OFFSET;
    if failed(sys!(MMAP, SCRATCH_BASE, PAGE, 3, flags, fd, offset)) {
        return false;
    }
    let seen = || {
        let mut out = [PageRegion::default(); uffd::REGIONS];
        match uffd::scan_told(SCRATCH_BASE, SCRATCH_BASE + PAGE, out.as_mut_ptr()) {
            Ok((1, _)) => Some(out[0].categories & PAGE_IS_FILE != 0),
            _ => None,
        }
    };
    let mut works = uffd::track(SCRATCH_BASE, SCRATCH_BASE + PAGE);
    let byte = SCRATCH_BASE as *mut u8;
    // SAFETY: the page was just mapped, writable.
    unsafe {
        let old = byte.read_volatile();
        works = works && seen() == Some(true);
        byte.write_volatile(old);
        works = works && seen() == Some(false);
    }
    sys!(MUNMAP, SCRATCH_BASE, PAGE);
    works
}

/// Whether an area's pages may be mapped from the image: what differs from
/// anonymous memory must be what this module takes care of.
pub fn may_fold(v: &Vma) -> bool {
    const SPECIAL: u32 = MAP_GROWSDOWN | MAP_LOCKED | MAP_HUGETLB;
    v.file == 0
        && v.tracked != 0
        && v.flags & 3 == MAP_PRIVATE
        && v.flags & SPECIAL == 0
        && v.prot & PROT_EXEC == 0
}

/// At recovery, in ascending order: maps frames that follow one another at
/// `page`, within the area `v`. False if the kernel would not.
pub fn fold(v: &Vma, page: usize, frames: *const u8, len: usize) -> bool {
    let flags = (v.flags & !(MAP_POPULATE | MAP_ANONYMOUS)) | MAP_FIXED;
    let fd = engine().high_fd(high_fd::RIO);
    let offset = frames as usize - RIO_BASE;
    let r = sys!(MMAP, page, len, v.prot, flags, fd, offset);
    if failed(r) {
        return false;
    }
    engine().folded.push(Range {
        from: page,
        to: page + len,
    });
    true
}

/// Calls `f` for those pages of a range found written that are the program's
/// own; the others are frames that were read. To tell them apart is left to a
/// second look, because it would make every scan slower.
pub fn each_own<E>(
    from: usize,
    to: usize,
    mut f: impl FnMut(usize) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = from;
    while at < to {
        let (a, b) = match engine().folded.first_in(at, to) {
            Some(r) => (r.from, r.to),
            None => (to, to),
        };
        for page in (at..a).step_by(PAGE) {
            f(page)?;
        }
        let mut out = [PageRegion::default(); uffd::REGIONS];
        at = a;
        while at < b {
            let (n, walked) = match uffd::own(at, b, out.as_mut_ptr()) {
                Ok(found) => found,
                Err(r) => fatal::stop(
                    FatalCode::Internal,
                    r,
                    format_args!("tell pages apart (PAGEMAP_SCAN): error {}", -r),
                ),
            };
            for r in &out[..n] {
                for page in (r.start as usize..r.end as usize).step_by(PAGE) {
                    f(page)?;
                }
            }
            if walked <= at {
                break;
            }
            at = walked;
        }
        at = b;
    }
    Ok(())
}

/// A page that no scan has found is about to be committed anew, which frees its
/// frame: it must not be that frame any longer. Other threads are stopped.
pub fn own(page: usize) {
    let e = engine();
    if e.folded.end_of(page).is_none() {
        return;
    }
    let mut byte = 0u8;
    if sys!(PREAD64, e.mem, &raw mut byte, 1, page) == 1 {
        e.live().rchar.fetch_add(1, Relaxed);
    }
    rewrite(page, &[byte]);
}

/// Writes to the program's memory whatever its protection.
fn rewrite(at: usize, bytes: &[u8]) {
    let e = engine();
    let n = sys!(PWRITE64, e.mem, bytes.as_ptr(), bytes.len(), at);
    if n != bytes.len() as isize {
        fatal::stop(
            FatalCode::Internal,
            n,
            format_args!("write to the program's memory at {at:#x}: error {}", -n),
        );
    }
    fatal::count_written(e.live(), bytes.len());
}

/// The program drops the contents of a range: zeros, not what the image has.
pub fn zero(from: usize, to: usize) {
    let e = engine();
    let mut at = from;
    while let Some(r) = e.folded.first_in(at, to) {
        e.pieces.wake(r.from, r.to);
        let mut replaced = true;
        for v in areas_in(r.from, r.to) {
            let (a, b) = ((v.start as usize).max(r.from), (v.end as usize).min(r.to));
            let flags = (v.flags & !MAP_POPULATE) | MAP_FIXED | MAP_ANONYMOUS;
            if failed(sys!(MMAP, a, b - a, v.prot, flags, -1isize, 0)) {
                // Too many mappings: then the zeros are written.
                for page in (a..b).step_by(PAGE) {
                    rewrite(page, &[0; PAGE]);
                }
                replaced = false;
            } else if v.tracked != 0 {
                uffd::track(a, b);
            }
        }
        if replaced {
            e.folded.forget(r.from, r.to);
        }
        at = r.to;
    }
}

fn areas_in(from: usize, to: usize) -> impl Iterator<Item = Vma> {
    let first = space::first_above(from as u64);
    (first..state().root.vma_count as usize)
        .map(|i| state().vmas[i])
        .take_while(move |v| v.start < to as u64)
}

/// [`gather`] for a call of one thread, if any of the range is folded. Answers
/// 0 or a negative error number.
pub fn gather_in_call(from: usize, to: usize) -> isize {
    if engine().folded.first_in(from, to).is_none() {
        return 0;
    }
    gather_anyway(from, to)
}

/// The same for what is not folded, but no longer one mapping for the kernel.
pub fn gather_anyway(from: usize, to: usize) -> isize {
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
pub fn gather_all() -> isize {
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
