//! Folded memory: pages that program and Rio share until the program writes.
//!
//! A recovery need not copy what it can map, and what is cold need not be held
//! twice ([`crate::commit::fold`]). Where committed pages that follow one another
//! have frames that do so too, the frames are mapped privately at the program's
//! address: a read costs a small fault, the first write makes the kernel copy the
//! page, and what is never touched costs nothing.
//!
//! ```text
//! program   [ p0 ][ p1 ][ p2 ][ p3 ]     p2 was written: anonymous, its own
//!              |     |           |
//! image     [ f7 ][ f8 ][ f9 ][ f10 ]    the frames that they had when folded
//! ```
//!
//! Two things make that sound. A page that still *is* its frame has that frame
//! as its committed copy, and a commit frees it only when the page has been
//! written (then it is the program's own), is unmapped, or was made the
//! program's own by [`own`]. And the kernel tells a page of a file that was
//! read from one that was written and copied.
//!
//! What treats a private mapping of a file otherwise than anonymous memory
//! finds anonymous memory: [`zero`] and [`super::gather`] see to it before.
#![allow(unsafe_code)]

use crate::engine::{engine, state};
use crate::machine::sys::failed;
use crate::space::{self, *};
use crate::state::Vma;
use crate::uffd::{self, PAGE_IS_FILE, PageRegion};
use crate::{fatal, sys};
use core::sync::atomic::Ordering::Relaxed;
use dc_image::FatalCode;
use dc_image::window::{PAGE, RIO_BASE, SCRATCH_BASE};

/// More than the kernel lets a process have mappings, unless it is told to.
const MAX: usize = 1 << 17;

#[derive(Clone, Copy)]
pub struct Range {
    pub from: usize,
    pub to: usize,
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

    pub fn ranges(&self) -> &[Range] {
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
    pub fn first_above(&self, addr: usize) -> usize {
        self.ranges().partition_point(|r| r.to <= addr)
    }

    /// The first folded part of `from..to`.
    pub fn first_in(&self, from: usize, to: usize) -> Option<Range> {
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

    /// Enters a range anywhere; it grows together with what it touches.
    fn insert(&mut self, from: usize, to: usize) {
        let first = self.first_above(from.saturating_sub(1));
        let mut new = Range { from, to };
        let mut end = first;
        while let Some(&r) = self.ranges().get(end)
            && r.from <= to
        {
            new.from = new.from.min(r.from);
            new.to = new.to.max(r.to);
            end += 1;
        }
        assert!(
            self.len + 1 - (end - first) <= MAX,
            "too many ranges mapped from the image"
        );
        // SAFETY: source and target lie within the MAX entries.
        unsafe {
            core::ptr::copy(self.list.add(end), self.list.add(first + 1), self.len - end);
        }
        self.put(first, new);
        self.len = self.len + 1 - (end - first);
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
    let fd = engine().image_fd;
    let flags = MAP_PRIVATE | MAP_FIXED;
    // Any page that is there would do.
    let offset = dc_image::header::TABLE_OFFSET;
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
    const SPECIAL: u32 = MAP_GROWSDOWN | MAP_HUGETLB;
    v.file == 0
        && v.tracked != 0
        && v.flags & 3 == MAP_PRIVATE
        && v.flags & SPECIAL == 0
        && !v.advice.is_apart()
        && v.prot & PROT_EXEC == 0
        && !has_arguments(v)
}

/// Whether the arguments of the program lie there, which the kernel shows to others
/// (/proc/PID/cmdline, environ) from anonymous memory only.
fn has_arguments(v: &Vma) -> bool {
    let [start, end] = crate::engine::state().root.ranges.arguments;
    start < v.end && v.start < end.max(start + 1)
}

/// At recovery, in ascending order: maps frames that follow one another at
/// `page`, within the area `v`. False if the kernel would not.
pub fn fold(v: &Vma, page: usize, frames: *const u8, len: usize) -> bool {
    let flags = (v.flags & !(MAP_POPULATE | MAP_ANONYMOUS)) | MAP_FIXED;
    let fd = engine().image_fd;
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

/// Maps frames that follow one another in the place of pages of a piece that
/// sleeps, whose committed copies they are. False if the kernel would not.
pub fn fold_asleep(v: &Vma, page: usize, frames: *const u8, len: usize) -> bool {
    let flags = (v.flags & !(MAP_POPULATE | MAP_ANONYMOUS)) | MAP_FIXED;
    let fd = engine().image_fd;
    let offset = frames as usize - RIO_BASE;
    let prot = v.prot & !PROT_WRITE;
    if failed(sys!(MMAP, page, len, prot, flags, fd, offset)) {
        return false;
    }
    // In tracked memory a read would be a fault for each page; before, it is one
    // for several. Nothing can be written, since the piece sleeps.
    const MADV_POPULATE_READ: usize = 22;
    sys!(MADVISE, page, len, MADV_POPULATE_READ);
    if !uffd::track(page, page + len) {
        fatal::stop(
            FatalCode::Internal,
            0,
            format_args!("cannot track memory that was mapped from the image"),
        );
    }
    engine().folded.insert(page, page + len);
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
        crate::run::me().rchar.fetch_add(1, Relaxed);
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
    fatal::count_written(bytes.len());
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

pub fn areas_in(from: usize, to: usize) -> impl Iterator<Item = Vma> {
    let first = space::first_above(from as u64);
    (first..state().root.vma_count as usize)
        .map(|i| areas()[i])
        .take_while(move |v| v.start < to as u64)
}
