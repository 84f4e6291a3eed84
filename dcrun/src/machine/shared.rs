//! The first two pages of an image and the run's tables, mapped: what keeper, workers and
//! `dcrun ps` say to one another.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering::Acquire;

use dc_image::header::{LIVE_OFFSET, Live};
use dc_image::run::{
    CONTENTS_OFFSET, PROCESS_MAX, PROCESSES_OFFSET, Process, RUN_OFFSET, Run, SHARED_MAX,
    SHARED_OFFSET, Shared,
};

const LEN: usize = RUN_OFFSET + CONTENTS_OFFSET;

/// [`Live`] of a run, readable and, for its keeper, writable.
pub struct SharedLive {
    base: *mut u8,
}

// SAFETY: the mapping is no thread's own, and what lies in it is written by other processes
// at any time anyway: it is atomic, or read only when nobody writes it.
unsafe impl Send for SharedLive {}

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

impl SharedLive {
    /// What all processes of the run share.
    pub fn run(&self) -> &Run {
        // SAFETY: inside the mapping, which lives as long as self; all of it is atomic but
        // what is written once.
        unsafe { &*self.base.add(RUN_OFFSET).cast() }
    }

    /// The table of processes.
    pub fn processes(&self) -> &[Process] {
        let high = (self.run().high.load(Acquire) as usize).clamp(1, PROCESS_MAX);
        // SAFETY: as `run`; the table has room for PROCESS_MAX entries.
        unsafe {
            let first = self.base.add(RUN_OFFSET + PROCESSES_OFFSET).cast();
            std::slice::from_raw_parts(first, high)
        }
    }

    /// The first process.
    pub fn first(&self) -> &Process {
        &self.processes()[0]
    }

    /// The table of what processes share.
    pub fn shared(&self) -> &[Shared] {
        let high = (self.run().shared_high.load(Acquire) as usize).min(SHARED_MAX);
        // SAFETY: as `run`; the table has room for SHARED_MAX entries.
        unsafe {
            let first = self.base.add(RUN_OFFSET + SHARED_OFFSET).cast();
            std::slice::from_raw_parts(first, high)
        }
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
