//! Files in memory: stores through a writable shared mapping.
//!
//! A store into such a mapping is a write to the file that no call announces. So
//! the kernel is told that these mappings are read-only; the first store into a
//! page in an interval is a fault, upon which the page's bytes go into the
//! journal as the before-image of a write would, and the page becomes writable
//! until the next commit.
//!
//! ```text
//! guarded   read-only for the kernel, as at the last commit
//! open      writable; its before-image is in the journal
//! ```
//!
//! What is guarded follows from the table of areas ([`is_guarded`]); only what is
//! open is remembered here. To guard a page too often costs a fault and a second
//! image of it (the older one is played back later), never a change that is not
//! found. Tracking by userfaultfd, as for private memory, is not to be had for
//! files of a disk.
//!
//! The kernel answers EFAULT where it would write for a call into a guarded page;
//! `dispatch` opens it then, and calls that take something away open it before.
#![allow(unsafe_code)]

use super::*;
use crate::fatal;
use crate::machine::sys::failed;
use crate::object::{descriptor, regular, undo};
use crate::state::Kind;
use dc_image::FatalCode;
use dc_image::window::PAGE;

const MAX: usize = 256;
/// Pages that are opened at once where stores move upward.
const AHEAD: usize = 16;

#[repr(C)]
pub struct Shared {
    /// Some mapping is or was guarded.
    any: bool,
    len: usize,
    /// Pages that the last fault opened.
    step: usize,
    open: [(usize, usize); MAX],
}

impl Shared {
    pub const fn new() -> Shared {
        Shared {
            any: false,
            open: [(0, 0); MAX],
            len: 0,
            step: 1,
        }
    }

    #[inline(always)]
    pub fn any(&self) -> bool {
        self.any
    }

    fn ranges(&self) -> &[(usize, usize)] {
        &self.open[..self.len]
    }

    /// Where the open part that contains `at` ends, or the part that is not open,
    /// and which of the two it is.
    fn part(&self, at: usize, end: usize) -> (bool, usize) {
        if let Some(r) = self.ranges().iter().find(|r| (r.0..r.1).contains(&at)) {
            return (true, r.1.min(end));
        }
        let next = self.ranges().iter().map(|r| r.0).filter(|&from| from > at);
        (false, next.min().unwrap_or(end).min(end))
    }

    fn push(&mut self, from: usize, to: usize) {
        if let Some(r) = self.open[..self.len].iter_mut().find(|r| r.1 == from) {
            r.1 = to;
            return;
        }
        if self.len == MAX {
            self.guard_all();
        }
        self.open[self.len] = (from, to);
        self.len += 1;
    }

    /// Guards whatever is open.
    fn guard_all(&mut self) {
        if self.len == 0 {
            return;
        }
        let n = core::mem::take(&mut self.len);
        for (from, to) in self.open.into_iter().take(n) {
            guard(from, to);
        }
    }

    /// A range is gone, replaced, or guarded again.
    pub fn forget(&mut self, from: usize, to: usize) {
        let mut i = 0;
        while i < self.len {
            let r = self.open[i];
            if r.1 <= from || r.0 >= to {
                i += 1;
                continue;
            }
            self.len -= 1;
            self.open[i] = self.open[self.len];
            if r.0 < from {
                self.push(r.0, from);
            }
            if to < r.1 {
                self.push(to, r.1);
            }
        }
    }
}

/// Whether stores into an area are noted: a file that the program itself opened.
pub fn is_guarded(v: &Vma) -> bool {
    v.file != 0 && v.flags & 3 != MAP_PRIVATE && v.prot & PROT_WRITE != 0 && is_kept(v.file)
}

fn is_kept(file: u32) -> bool {
    let f = descriptor::open_file(file);
    f.kind == Kind::Regular && regular::rewinds(f)
}

/// Whether an area may be writable. The kernel is not asked where stores are noted.
pub fn may_write(v: &Vma) -> bool {
    const O_ACCMODE: u32 = 3;
    const O_RDWR: u32 = 2;
    let is_noted = v.file != 0 && v.flags & 3 != MAP_PRIVATE && is_kept(v.file);
    !is_noted || descriptor::open_file(v.file).flags & O_ACCMODE == O_RDWR
}

/// The protection that the kernel is told at first.
pub fn real_prot(v: &Vma) -> u32 {
    if is_guarded(v) {
        engine().shared.any = true;
        v.prot & !PROT_WRITE | PROT_READ
    } else {
        v.prot
    }
}

/// The program's store at `addr` met a guarded page: true if it may be made now.
/// Under the big lock.
pub fn store(addr: usize) -> bool {
    let e = engine();
    if !e.shared.any {
        return false;
    }
    let page = addr & !(PAGE - 1);
    let Some(&mut v) = find(page as u64) else {
        return false;
    };
    if !is_guarded(&v) {
        return false;
    }
    if e.shared.part(page, page + PAGE).0 {
        // Another thread's store has opened it meanwhile.
        return true;
    }
    // Behind the pages that the last fault has opened.
    let follows = e.shared.ranges().iter().any(|r| r.1 == page);
    e.shared.step = if follows {
        (e.shared.step * 2).min(AHEAD)
    } else {
        1
    };
    let end = (page + e.shared.step * PAGE).min(v.end as usize);
    let (_, end) = e.shared.part(page, end);
    open_part(&v, page, end);
    true
}

/// Opens what is guarded in a range that the kernel or the runtime will write to.
/// True if anything was. Under the big lock.
pub fn open(from: usize, to: usize) -> bool {
    if !engine().shared.any {
        return false;
    }
    let mut any = false;
    let mut i = first_above(from as u64);
    while let Some(&v) = areas().get(i) {
        if v.start >= to as u64 {
            break;
        }
        i += 1;
        if !is_guarded(&v) {
            continue;
        }
        let mut at = from.max(v.start as usize) & !(PAGE - 1);
        let end = to.min(v.end as usize).next_multiple_of(PAGE);
        while at < end {
            let (is_open, next) = engine().shared.part(at, end);
            if !is_open {
                open_part(&v, at, next);
                any = true;
            }
            at = next;
        }
    }
    any
}

fn open_part(v: &Vma, from: usize, to: usize) {
    undo::before_store(v.file, v.offset + (from as u64 - v.start), from, to - from);
    let r = sys!(MPROTECT, from, to - from, v.prot);
    if failed(r) {
        // The store would meet the same fault for ever.
        fatal::stop(
            FatalCode::CannotRestore,
            r,
            format_args!(
                "a mapping of a file at {from:#x} cannot be made writable: error {}",
                -r
            ),
        );
    }
    engine().shared.push(from, to);
    // The kernel notices the store now, not when the program makes it: what the file's time is
    // then tells the program's stores from those of others.
    const MADV_POPULATE_WRITE: usize = 23;
    if let Some(fd) = descriptor::any_fd(v.file)
        && !failed(sys!(MADVISE, from, to - from, MADV_POPULATE_WRITE))
    {
        undo::stamp::after_store(fd);
    }
}

/// Guards whatever is open: for a commit, while the other threads are stopped.
pub fn guard_again() {
    engine().shared.guard_all();
}

fn guard(from: usize, to: usize) {
    let mut i = first_above(from as u64);
    while let Some(v) = areas().get(i) {
        let (a, b) = (from.max(v.start as usize), to.min(v.end as usize));
        if a >= b {
            break;
        }
        if is_guarded(v) {
            sys!(MPROTECT, a, b - a, real_prot(v));
        }
        i += 1;
    }
}

/// Before the kernel moves a range, which it only does with one mapping.
pub fn before_move(from: usize, to: usize) {
    if engine().shared.any {
        guard(from, to);
        engine().shared.forget(from, to);
    }
}

/// mprotect(2) of a range with such areas: none of them becomes writable, not
/// even for a moment. The kernel's answer; the table is the caller's.
pub fn protect(addr: usize, len: usize, prot: u32) -> isize {
    let mapped = |v: &Vma| v.file != 0 && v.flags & 3 != MAP_PRIVATE && is_kept(v.file);
    let covered = |v: &&mut Vma| v.start < (addr + len) as u64;
    let i = first_above(addr as u64);
    let guards = prot & PROT_WRITE != 0
        && areas()[i..]
            .iter_mut()
            .take_while(covered)
            .any(|v| mapped(v));
    engine().shared.forget(addr, addr + len);
    if !guards {
        return sys!(MPROTECT, addr, len, prot);
    }
    engine().shared.any = true;
    let r = sys!(MPROTECT, addr, len, prot & !PROT_WRITE | PROT_READ);
    if failed(r) {
        return r;
    }
    for v in areas()[i..].iter_mut().take_while(covered) {
        let (a, b) = (addr.max(v.start as usize), (addr + len).min(v.end as usize));
        if !mapped(v) {
            let r = sys!(MPROTECT, a, b - a, prot);
            if failed(r) {
                return r;
            }
        }
    }
    r
}
