//! The first two pages of an image, mapped: what keeper, worker and `dcrun ps`
//! say to one another.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};

use dc_image::header::{LIVE_OFFSET, Live};

const LEN: usize = LIVE_OFFSET + 4096;

/// [`Live`] of a run, readable and, for its keeper, writable.
pub struct SharedLive {
    base: *mut u8,
}

impl SharedLive {
    /// Maps it. The descriptor must be writable, and the file [`LEN`] bytes long
    /// with those bytes allocated: else a store would be answered by SIGBUS.
    pub fn map(file: BorrowedFd<'_>) -> io::Result<SharedLive> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(SharedLive { base: base.cast() })
    }

    /// Address of [`Live`], for the forked child that reports through it.
    pub fn address(&self) -> *mut Live {
        // SAFETY: LIVE_OFFSET lies inside the mapping.
        unsafe { self.base.add(LIVE_OFFSET).cast() }
    }
}

impl Deref for SharedLive {
    type Target = Live;
    fn deref(&self) -> &Live {
        // SAFETY: the mapping lives as long as self, is aligned to pages, and
        // Live is plain data of which any bits are valid; all that changes
        // while both processes live is atomic, and `message` is read only
        // after the worker that wrote it is dead.
        unsafe { &*self.address() }
    }
}

impl Drop for SharedLive {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it any more.
        unsafe { libc::munmap(self.base.cast(), LEN) };
    }
}
