//! Finding the pages that were written, for programs that do not say.
//!
//! The kernel's own way: the range is write-protected through userfaultfd in its asynchronous mode,
//! where a first write costs a minor fault and nobody is woken, and one PAGEMAP_SCAN lists what was
//! written and protects it again. Kernels without it (before 6.7), or that refuse it, get mprotect
//! and a SIGSEGV handler that notes the page and lets the write go on.
//!
//! The constants stand here because libc has none of them.

use std::fs::File;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

const PAGE: usize = 4096;

/// Which way pages are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finder {
    Userfaultfd,
    Signal,
}

/// A range under watch.
pub struct Written {
    base: *mut u8,
    len: usize,
    by: By,
}

enum By {
    Scan { pagemap: File, _faults: OwnedFd },
    Signal { slot: usize },
}

impl Written {
    /// Starts watching; `finder` none takes the best that works here.
    ///
    /// # Safety
    /// The range is a private mapping of whole pages that lives as long as the value, and is
    /// written by this process only.
    pub unsafe fn watch(base: *mut u8, len: usize, finder: Option<Finder>) -> io::Result<Written> {
        let scan = || Written::scanning(base, len);
        let signal = || Written::signalled(base, len);
        match finder {
            Some(Finder::Userfaultfd) => scan(),
            Some(Finder::Signal) => signal(),
            None => scan().or_else(|_| signal()),
        }
    }

    pub fn finder(&self) -> Finder {
        match self.by {
            By::Scan { .. } => Finder::Userfaultfd,
            By::Signal { .. } => Finder::Signal,
        }
    }

    /// Hands over the runs of bytes written since the last call, and watches them again.
    pub fn take(&mut self, runs: &mut Vec<Range<usize>>) -> io::Result<()> {
        match &self.by {
            By::Scan { pagemap, .. } => scan(pagemap, self.base, self.len, Some(runs)),
            By::Signal { slot } => take_noted(*slot, self.base, self.len, runs),
        }
    }

    fn scanning(base: *mut u8, len: usize) -> io::Result<Written> {
        let faults = userfaultfd()?;
        let mut api = [0xAA, FEATURES, 0_u64];
        ioctl(&faults, UFFDIO_API, api.as_mut_ptr())?;
        let mut range = [base.addr() as u64, len as u64, REGISTER_MODE_WP, 0];
        ioctl(&faults, UFFDIO_REGISTER, range.as_mut_ptr())?;
        let pagemap = File::open("/proc/self/pagemap")?;
        // What was never touched counts as written at first; protect it all and forget that.
        scan(&pagemap, base, len, None)?;
        Ok(Written {
            base,
            len,
            by: By::Scan {
                pagemap,
                _faults: faults,
            },
        })
    }

    fn signalled(base: *mut u8, len: usize) -> io::Result<Written> {
        install_handler()?;
        let words = (len / PAGE).div_ceil(64);
        let bits: &'static [AtomicU64] = (0..words)
            .map(|_| AtomicU64::new(0))
            .collect::<Vec<_>>()
            .leak();
        let free = |slot: &Watched| {
            slot.len
                .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        };
        let slot = WATCHED
            .iter()
            .position(free)
            .ok_or(io::ErrorKind::ResourceBusy)?;
        WATCHED[slot]
            .bits
            .store(bits.as_ptr().cast_mut(), Ordering::Release);
        WATCHED[slot].base.store(base.addr(), Ordering::Release);
        WATCHED[slot].len.store(len, Ordering::Release);
        protect(base, len, libc::PROT_READ)?;
        Ok(Written {
            base,
            len,
            by: By::Signal { slot },
        })
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let By::Signal { slot } = self.by {
            let slot = &WATCHED[slot];
            slot.base.store(0, Ordering::Release);
            let bits = slot.bits.load(Ordering::Acquire);
            let words = (self.len / PAGE).div_ceil(64);
            slot.len.store(0, Ordering::Release);
            // SAFETY: leaked in `signalled` with this length; the slot no longer names it.
            drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(bits, words)) });
        }
    }
}

const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFDIO_API: libc::c_ulong = 0xC018_AA3F;
const UFFDIO_REGISTER: libc::c_ulong = 0xC020_AA00;
const REGISTER_MODE_WP: u64 = 2;
/// PAGEFAULT_FLAG_WP, WP_UNPOPULATED, WP_ASYNC.
const FEATURES: u64 = 1 | 1 << 13 | 1 << 15;
const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;
const PM_SCAN_WP_MATCHING: u64 = 1;
const PM_SCAN_CHECK_WPASYNC: u64 = 2;
const PAGE_IS_WRITTEN: u64 = 2;

/// `struct pm_scan_arg`.
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

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const _: () = assert!(size_of::<ScanArg>() == 96 && size_of::<PageRegion>() == 24);

fn userfaultfd() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | UFFD_USER_MODE_ONLY;
    // SAFETY: a call without pointers; a descriptor it returns is nobody else's.
    unsafe {
        match libc::syscall(libc::SYS_userfaultfd, flags) {
            fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd as i32)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn scan(
    pagemap: &File,
    base: *mut u8,
    len: usize,
    mut runs: Option<&mut Vec<Range<usize>>>,
) -> io::Result<()> {
    let mut found = [PageRegion {
        start: 0,
        end: 0,
        categories: 0,
    }; 256];
    let end = base.addr() + len;
    let mut start = base.addr();
    while start < end {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags: PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
            start: start as u64,
            end: end as u64,
            walk_end: 0,
            vec: found.as_mut_ptr().expose_provenance() as u64,
            vec_len: found.len() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: PAGE_IS_WRITTEN,
            category_anyof_mask: 0,
            return_mask: PAGE_IS_WRITTEN,
        };
        let count = ioctl(pagemap, PAGEMAP_SCAN, &raw mut arg)?;
        if let Some(runs) = &mut runs {
            let offset = |address: u64| address as usize - base.addr();
            runs.extend(
                found[..count]
                    .iter()
                    .map(|run| offset(run.start)..offset(run.end)),
            );
        }
        start = arg.walk_end as usize;
    }
    Ok(())
}

fn ioctl<T>(fd: &impl AsRawFd, request: libc::c_ulong, arg: *mut T) -> io::Result<usize> {
    // SAFETY: the requests of this module, each with the structure it is defined for.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request, arg) } {
        count if count >= 0 => Ok(count as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the handler needs to know, readable at any moment.
struct Watched {
    base: AtomicUsize,
    len: AtomicUsize,
    bits: AtomicPtr<AtomicU64>,
}

static WATCHED: [Watched; 16] = [const {
    Watched {
        base: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        bits: AtomicPtr::new(ptr::null_mut()),
    }
}; 16];
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

fn install_handler() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    // SAFETY: a handler that touches atomics and calls mprotect only; the old one is kept.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        let mut old: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        if libc::sigaction(libc::SIGSEGV, &action, &mut old) != 0 {
            return Err(io::Error::last_os_error());
        }
        let _ = PREVIOUS.set(old);
    }
    Ok(())
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo that lives during the handler.
    let address = unsafe { (*info).si_addr() }.addr();
    for slot in &WATCHED {
        let (base, len) = (
            slot.base.load(Ordering::Acquire),
            slot.len.load(Ordering::Acquire),
        );
        if base == 0 || !(base..base + len).contains(&address) {
            continue;
        }
        let page = (address - base) / PAGE;
        // SAFETY: the bits of a slot that has a base cover its length.
        let word = unsafe { &*slot.bits.load(Ordering::Acquire).add(page / 64) };
        word.fetch_or(1 << (page % 64), Ordering::AcqRel);
        let place = ptr::without_provenance_mut(base + page * PAGE);
        if protect(place, PAGE, libc::PROT_READ | libc::PROT_WRITE).is_ok() {
            return;
        }
    }
    pass_on(signal, info, context);
}

/// A fault that is not ours: the program's own handler, or the death it would have died.
fn pass_on(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the previous action is called as it was registered to be.
    unsafe {
        match PREVIOUS.get() {
            Some(old) if old.sa_sigaction > 1 && old.sa_flags & libc::SA_SIGINFO != 0 => {
                type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
                let handler: Handler = std::mem::transmute(old.sa_sigaction);
                handler(signal, info, context);
            }
            Some(old) if old.sa_sigaction > 1 => {
                let handler: extern "C" fn(i32) = std::mem::transmute(old.sa_sigaction);
                handler(signal);
            }
            _ => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

fn take_noted(
    slot: usize,
    base: *mut u8,
    len: usize,
    runs: &mut Vec<Range<usize>>,
) -> io::Result<()> {
    let bits = WATCHED[slot].bits.load(Ordering::Acquire);
    let first = runs.len();
    for page in 0..len / PAGE {
        // SAFETY: the bits cover the range.
        let word = unsafe { &*bits.add(page / 64) };
        if word.load(Ordering::Acquire) >> (page % 64) & 1 == 0 {
            continue;
        }
        let (from, to) = (page * PAGE, (page + 1) * PAGE);
        match runs[first..].last_mut() {
            Some(run) if run.end == from => run.end = to,
            _ => runs.push(from..to),
        }
        word.fetch_and(!(1 << (page % 64)), Ordering::AcqRel);
    }
    for run in &runs[first..] {
        protect(base.wrapping_add(run.start), run.len(), libc::PROT_READ)?;
    }
    Ok(())
}

fn protect(place: *mut u8, len: usize, protection: i32) -> io::Result<()> {
    // SAFETY: the range belongs to a mapping that its owner put under watch.
    match unsafe { libc::mprotect(place.cast(), len, protection) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
