//! Questions to the kernel that only trying answers. Each probe leaves nothing
//! behind: no descriptor, no mapping, no process.

use std::io;
use std::ptr;

const PAGE: usize = 4096;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_REGISTER_MODE_WP: u64 = 2;
const UFFD_USER_MODE_ONLY: i32 = 1;
const PAGEMAP_SCAN: u64 = 0xc060_6610;
const PM_SCAN_WP_MATCHING: u64 = 1;
const PAGE_IS_WRITTEN: u64 = 2;
const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
const PR_SYS_DISPATCH_OFF: u64 = 0;
const PR_SYS_DISPATCH_ON: u64 = 1;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any: u64,
    return_mask: u64,
}

/// Registers two pages for asynchronous write-protection, protects them by a
/// scan, writes one, and asks which was written. `Err` is the step that failed.
pub fn written_pages() -> Result<(), (&'static str, io::Error)> {
    let failed = |step| (step, io::Error::last_os_error());
    // SAFETY: userfaultfd takes no pointer; the descriptors are closed below.
    let uffd =
        unsafe { libc::syscall(libc::SYS_userfaultfd, UFFD_USER_MODE_ONLY | libc::O_CLOEXEC) }
            as i32;
    if uffd < 0 {
        return Err(failed("userfaultfd"));
    }
    let outcome = with_userfaultfd(uffd);
    super::descriptors::close(uffd);
    outcome
}

fn with_userfaultfd(uffd: i32) -> Result<(), (&'static str, io::Error)> {
    let failed = |step| (step, io::Error::last_os_error());
    let mut api = [UFFD_API, UFFD_FEATURE_WP_ASYNC, 0];
    // SAFETY: the argument has the layout of struct uffdio_api.
    if unsafe { libc::ioctl(uffd, UFFDIO_API, api.as_mut_ptr()) } != 0 {
        return Err(failed("userfaultfd WP_ASYNC"));
    }
    // SAFETY: a new private mapping, unmapped below, of which only this
    // function knows; the pagemap descriptor is closed below.
    unsafe {
        let area = libc::mmap(
            ptr::null_mut(),
            2 * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if area == libc::MAP_FAILED {
            return Err(failed("mmap"));
        }
        let pagemap = libc::open(
            c"/proc/self/pagemap".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        );
        let outcome = if pagemap < 0 {
            Err(failed("/proc/self/pagemap"))
        } else {
            scan(uffd, pagemap, area.cast())
        };
        super::descriptors::close(pagemap);
        libc::munmap(area, 2 * PAGE);
        outcome
    }
}

/// # Safety
/// `area` must be two writable pages of the caller's.
unsafe fn scan(uffd: i32, pagemap: i32, area: *mut u8) -> Result<(), (&'static str, io::Error)> {
    let failed = |step| (step, io::Error::last_os_error());
    let start = area as u64;
    let mut register = [start, 2 * PAGE as u64, UFFDIO_REGISTER_MODE_WP, 0];
    let mut regions = [0u64; 6];
    // SAFETY: the arguments have the layouts that the kernel declares, and the
    // area is the caller's.
    unsafe {
        area.write_volatile(1);
        area.add(PAGE).write_volatile(1);
        if libc::ioctl(uffd, UFFDIO_REGISTER, register.as_mut_ptr()) != 0 {
            return Err(failed("userfaultfd registration"));
        }
        let mut ask = || {
            let mut arguments = ScanArguments {
                size: size_of::<ScanArguments>() as u64,
                flags: PM_SCAN_WP_MATCHING,
                start,
                end: start + 2 * PAGE as u64,
                regions: regions.as_mut_ptr() as u64,
                regions_len: 2,
                category_mask: PAGE_IS_WRITTEN,
                return_mask: PAGE_IS_WRITTEN,
                ..ScanArguments::default()
            };
            libc::ioctl(pagemap, PAGEMAP_SCAN, &raw mut arguments)
        };
        if ask() < 0 {
            return Err(failed("PAGEMAP_SCAN"));
        }
        area.add(PAGE).write_volatile(2);
        let found = ask();
        let second_page = [start + PAGE as u64, start + 2 * PAGE as u64];
        if found != 1 || regions[..2] != second_page {
            let message = "it did not report the one page that was written";
            return Err(("PAGEMAP_SCAN", io::Error::other(message)));
        }
    }
    Ok(())
}

/// Whether Syscall User Dispatch can be switched on; switches it off again.
pub fn syscall_user_dispatch() -> io::Result<()> {
    static ALLOW: u8 = 0;
    // SAFETY: the selector byte is static and says "allow", so that no call is
    // dispatched in between.
    unsafe {
        let on = libc::prctl(
            PR_SET_SYSCALL_USER_DISPATCH,
            PR_SYS_DISPATCH_ON,
            0u64,
            0u64,
            &raw const ALLOW,
        );
        if on != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::prctl(
            PR_SET_SYSCALL_USER_DISPATCH,
            PR_SYS_DISPATCH_OFF,
            0u64,
            0u64,
            0u64,
        );
    }
    Ok(())
}

/// Reads /proc/PID/io of a child that was killed and is not yet reaped, through
/// a descriptor from before its death, as the keeper does.
pub fn io_of_zombie() -> io::Result<String> {
    // SAFETY: the child of this single-threaded process only waits for its
    // death; it is killed and reaped here.
    unsafe {
        let pid = libc::fork();
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        if pid == 0 {
            loop {
                libc::pause();
            }
        }
        let counters = std::fs::File::open(format!("/proc/{pid}/io"));
        libc::kill(pid, libc::SIGKILL);
        let mut info = std::mem::zeroed();
        libc::waitid(
            libc::P_PID,
            pid as u32,
            &raw mut info,
            libc::WEXITED | libc::WNOWAIT,
        );
        let text = counters.and_then(std::io::read_to_string);
        super::process::reap(pid);
        text
    }
}

/// Whether user code may read fs and gs base by instruction (AT_HWCAP2 bit 1).
pub fn fsgsbase() -> bool {
    const HWCAP2_FSGSBASE: u64 = 1 << 1;
    // SAFETY: getauxval takes no pointer.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0 }
}

/// Bytes free for this user, and in all, of the file system at `path`.
pub fn space(path: &std::ffi::CStr) -> io::Result<(u64, u64)> {
    // SAFETY: path is a C string and the buffer a zeroed statvfs.
    unsafe {
        let mut about: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &raw mut about) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((
            about.f_bavail * about.f_frsize,
            about.f_blocks * about.f_frsize,
        ))
    }
}
