//! Finding written pages: userfaultfd WP_ASYNC and PAGEMAP_SCAN.
//!
//! Constants from linux/userfaultfd.h and linux/fs.h; the crates that wrap
//! them either lack these two features or need std.

use crate::engine::engine;
use crate::machine::sys::failed;
use crate::reserved::move_high;
use crate::sys;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use dc_image::boot::high_fd;

const UFFDIO_API: usize = 0xc018_aa3f;
const UFFDIO_REGISTER: usize = 0xc020_aa00;
const UFFDIO_UNREGISTER: usize = 0x8010_aa01;
const UFFDIO_WRITEPROTECT: usize = 0xc018_aa06;
const UFFD_API: u64 = 0xaa;
const FEATURE_WP_ASYNC: u64 = 1 << 15;
const FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const REGISTER_MODE_WP: u64 = 2;
const PAGEMAP_SCAN: usize = 0xc060_6610;
const PM_SCAN_WP_MATCHING: u64 = 1;

/// The page lies in an area that is tracked.
const PAGE_IS_WPALLOWED: u64 = 1;
pub const PAGE_IS_WRITTEN: u64 = 1 << 1;
/// A page of a file that the process has no copy of its own of.
pub const PAGE_IS_FILE: u64 = 1 << 2;
pub const PAGE_IS_PRESENT: u64 = 1 << 3;
pub const PAGE_IS_SWAPPED: u64 = 1 << 4;
pub const PAGE_IS_PFNZERO: u64 = 1 << 5;
pub const PAGE_IS_HUGE: u64 = 1 << 6;

#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct PageRegion {
    pub start: u64,
    pub end: u64,
    pub categories: u64,
}

/// How many regions one scan call may return: a page of them, because the
/// kernel allocates as much for each call.
pub const REGIONS: usize = 170;

/// Opens the tracking descriptors of this process.
pub fn open() -> Result<(), isize> {
    open_tracker()?;
    open_maps()
}

/// The userfaultfd, which every process may make for itself.
pub fn open_tracker() -> Result<(), isize> {
    const O_CLOEXEC: usize = 0o2000000;
    const O_NONBLOCK: usize = 0o4000;
    const UFFD_USER_MODE_ONLY: usize = 1;
    let fd = sys!(USERFAULTFD, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if failed(fd) {
        return Err(fd);
    }
    let mut api = [UFFD_API, FEATURE_WP_ASYNC | FEATURE_WP_HUGETLBFS_SHMEM, 0];
    let r = sys!(IOCTL, fd, UFFDIO_API, &raw mut api);
    if failed(r) {
        return Err(r);
    }
    engine().uffd = move_high(fd, high_fd::UFFD);
    Ok(())
}

fn open_maps() -> Result<(), isize> {
    const O_CLOEXEC: usize = 0o2000000;
    let fd = crate::proc::open(b"/proc/self/pagemap\0", O_CLOEXEC);
    if failed(fd) {
        return Err(fd);
    }
    engine().pagemap = move_high(fd, high_fd::PAGEMAP);
    open_memory()
}

fn open_memory() -> Result<(), isize> {
    const O_CLOEXEC: usize = 0o2000000;
    let fd = crate::proc::open(b"/proc/self/mem\0", O_CLOEXEC | 2);
    if failed(fd) {
        return Err(fd);
    }
    engine().mem = move_high(fd, high_fd::MEM);
    Ok(())
}

/// Nonzero once a process could not write to its own memory by its file: it has given up its
/// rights, has no /proc, or the kernel forbids it (proc_mem.force_override).
static WRITES_REFUSED: AtomicBool = AtomicBool::new(false);

/// Writes to the program's memory whatever its protection; false if that cannot be.
pub fn write_own(at: usize, bytes: &[u8]) -> bool {
    if WRITES_REFUSED.load(Relaxed) {
        return false;
    }
    if engine().mem >= 0 || open_memory().is_ok() {
        let n = sys!(PWRITE64, engine().mem, bytes.as_ptr(), bytes.len(), at);
        if n > 0 {
            crate::fatal::count_written(n as usize);
        }
        if n == bytes.len() as isize {
            return true;
        }
    }
    WRITES_REFUSED.store(true, Relaxed);
    false
}

/// Tracks writes to a range of private or anonymous memory; in a child that has not been
/// committed yet, its first commit will ([`crate::run::image`]).
pub fn track(from: usize, to: usize) -> bool {
    if !engine().tracking {
        return true;
    }
    let mut arg = [from as u64, (to - from) as u64, REGISTER_MODE_WP, 0];
    !failed(sys!(IOCTL, engine().uffd, UFFDIO_REGISTER, &raw mut arg))
}

/// Takes the protection away from pages of tracked memory, as a write would.
pub fn open_pages(from: usize, to: usize) -> bool {
    let mut arg = [from as u64, (to - from) as u64, 0];
    !failed(sys!(
        IOCTL,
        engine().uffd,
        UFFDIO_WRITEPROTECT,
        &raw mut arg
    ))
}

/// Stops tracking: the pages become plain memory, never write-protected.
pub fn untrack(from: usize, to: usize) -> bool {
    if !engine().tracking {
        return true;
    }
    let mut arg = [from as u64, (to - from) as u64];
    !failed(sys!(IOCTL, engine().uffd, UFFDIO_UNREGISTER, &raw mut arg))
}

#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// What a scan looks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Written pages, which it protects again.
    Protect,
    /// The same, and says which are pages of a file.
    ProtectTold,
    /// Written pages, left as they are.
    Written,
    /// All pages that have contents.
    Present,
    /// Pages that are the process's own, not a file's.
    Own,
}

/// One step of a scan: written pages of `from..to`, write-protected again.
/// Returns how many regions were filled and where to go on.
pub fn scan(from: usize, to: usize, out: *mut PageRegion) -> Result<(usize, usize), isize> {
    step(from, to, out, Want::Protect)
}

/// As [`scan`], but says which are pages of a file: that costs a look at each
/// page in the range, not only at its entry in the page table.
pub fn scan_told(from: usize, to: usize, out: *mut PageRegion) -> Result<(usize, usize), isize> {
    step(from, to, out, Want::ProtectTold)
}

/// One step through the pages of `from..to` that are the process's own.
pub fn own(from: usize, to: usize, out: *mut PageRegion) -> Result<(usize, usize), isize> {
    step(from, to, out, Want::Own)
}

/// As [`scan`], but nothing is protected: the pages count as written still.
pub fn look(from: usize, to: usize, out: *mut PageRegion) -> Result<(usize, usize), isize> {
    step(from, to, out, Want::Written)
}

/// One step through the pages of `from..to` that have contents; says which are huge.
pub fn present(from: usize, to: usize, out: *mut PageRegion) -> Result<(usize, usize), isize> {
    step(from, to, out, Want::Present)
}

fn step(from: usize, to: usize, out: *mut PageRegion, want: Want) -> Result<(usize, usize), isize> {
    let told = match want {
        Want::ProtectTold => PAGE_IS_FILE,
        Want::Present => PAGE_IS_HUGE,
        _ => 0,
    };
    let own = match want {
        Want::Own => PAGE_IS_FILE,
        _ => 0,
    };
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        flags: match want {
            Want::Protect | Want::ProtectTold => PM_SCAN_WP_MATCHING,
            _ => 0,
        },
        start: from as u64,
        end: to as u64,
        walk_end: 0,
        vec: out as u64,
        vec_len: REGIONS as u64,
        max_pages: 0,
        category_inverted: own,
        category_mask: match want {
            Want::Present => 0,
            Want::Own => PAGE_IS_FILE,
            _ => PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN,
        },
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask: PAGE_IS_WRITTEN | PAGE_IS_PFNZERO | told,
    };
    let n = sys!(IOCTL, engine().pagemap, PAGEMAP_SCAN, &raw mut arg);
    if failed(n) {
        Err(n)
    } else {
        Ok((n as usize, arg.walk_end as usize))
    }
}
