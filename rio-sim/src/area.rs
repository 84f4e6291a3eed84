//! A stretch of addresses, reserved in whole, of which the front is mapped to a file.
//!
//! The reservation is what lets a segment grow in place: its addresses never change, so pointers
//! into it stay good.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use rio_core::Window;

const PAGE: usize = 4096;

#[derive(Debug)]
pub struct Area {
    base: *mut u8,
    room: usize,
    mapped: usize,
}

/// How stores in the area relate to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They are in the file at once.
    Shared,
    /// As `Shared`, and on a DAX file system the blocks are there too.
    SharedSync,
    /// They stay in this process.
    Private,
}

impl Area {
    /// Reserves `room` bytes, at `address` if it is given, else wherever the kernel likes.
    pub fn reserve(address: usize, room: usize) -> io::Result<Area> {
        let fixed = if address == 0 {
            0
        } else {
            libc::MAP_FIXED_NOREPLACE
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
        // SAFETY: a new mapping that replaces nothing.
        let base = unsafe {
            libc::mmap(
                ptr::without_provenance_mut(address),
                room,
                libc::PROT_NONE,
                flags,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let area = Area {
            base: base.cast(),
            room,
            mapped: 0,
        };
        // Kernels before 4.17 take the address as a hint; the area goes away again by being dropped.
        match address == 0 || address == area.base.addr() {
            true => Ok(area),
            false => Err(io::Error::from_raw_os_error(libc::EEXIST)),
        }
    }

    /// Maps the file's bytes from where the mapping ends now up to `len`.
    pub fn map(&mut self, file: &File, len: usize, kind: Kind) -> io::Result<()> {
        if len > self.room {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        if len <= self.mapped {
            return Ok(());
        }
        // A file that may only be read is mapped private: whoever looks cannot change it.
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_FIXED
            | match kind {
                Kind::Shared => libc::MAP_SHARED,
                Kind::SharedSync => libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC,
                Kind::Private => libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            };
        let (at, fd) = (self.base.wrapping_add(self.mapped), file.as_raw_fd());
        let offset = self.mapped as libc::off_t;
        // SAFETY: it replaces only reserved addresses of this area.
        let got =
            unsafe { libc::mmap(at.cast(), len - self.mapped, protection, flags, fd, offset) };
        if got == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.mapped = len;
        Ok(())
    }

    pub fn window(&self) -> Window {
        Window {
            base: self.base,
            len: self.mapped,
        }
    }

    /// Makes the pages of a range read-only, or writable again: a stray store then faults.
    pub fn protect(&self, offset: usize, len: usize, writable: bool) -> io::Result<()> {
        let from = offset & !(PAGE - 1);
        let to = offset
            .saturating_add(len)
            .min(self.mapped)
            .next_multiple_of(PAGE);
        if from >= to {
            return Ok(());
        }
        let write = if writable { libc::PROT_WRITE } else { 0 };
        let at = self.base.wrapping_add(from).cast();
        // SAFETY: the range is inside this area's own mapping.
        match unsafe { libc::mprotect(at, to - from, libc::PROT_READ | write) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the addresses were this area's alone, and whoever used them borrowed it.
        unsafe { libc::munmap(self.base.cast(), self.room) };
    }
}
