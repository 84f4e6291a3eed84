//! Page-grained ranges: a program stores wherever it likes, and a commit finds the pages.
//!
//! The program works on a private mapping of the segment. Its first store into a page makes the
//! kernel copy that page, so the segment itself stays as committed; a commit is then an ordinary
//! transaction whose ranges are the written pages, and an abort drops the private pages. The price
//! is that a page exists twice once written, and one more copy than a declared range.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::{ptr, slice};

use rio_core::At;
use rio_sim::Backend;
use vista_core::Core;

use crate::written::{Finder, Written};
use crate::{Error, Segment, Store};

pub struct WorkingCopy {
    segment: Segment,
    base: *mut u8,
    len: usize,
    /// Dropped before the mapping goes.
    written: Option<Written>,
    /// Pages found but not yet committed: a commit that failed can be tried again.
    runs: Vec<Range<usize>>,
}

// SAFETY: the mapping belongs to the value alone.
unsafe impl Send for WorkingCopy {}

impl WorkingCopy {
    /// Maps a working copy of a segment, at `address` unless that is 0.
    pub fn map<B: Backend>(
        store: &Store<B>,
        segment: Segment,
        address: usize,
        finder: Option<Finder>,
    ) -> Result<WorkingCopy, Error> {
        let object = format!("working copy of segment {}", segment.index());
        let fault = |cause| Error::Rio(rio_sim::Error::new("map", &object, cause));
        let len = store.info(segment)?.len as usize;
        let lags =
            "map working copy: the files of an image on disk lag behind memory: use tmpfs or pmem";
        let file = store.backend().shared_file(segment.index());
        let file = file.ok_or_else(|| Error::Aborted(lags.into()))?;
        let fixed = if address == 0 {
            0
        } else {
            libc::MAP_FIXED_NOREPLACE
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | fixed;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let at = ptr::without_provenance_mut(address);
        // SAFETY: a new mapping that replaces nothing.
        let base = unsafe { libc::mmap(at, len, protection, flags, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(fault(io::Error::last_os_error()));
        }
        let base = base.cast();
        let mut copy = WorkingCopy {
            segment,
            base,
            len,
            written: None,
            runs: Vec::new(),
        };
        // SAFETY: just mapped, private, and unmapped after `written` is dropped.
        let written = unsafe { Written::watch(base, len, finder) };
        copy.written = Some(written.map_err(fault)?);
        Ok(copy)
    }

    /// The program's memory.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn finder(&self) -> Option<Finder> {
        self.written.as_ref().map(Written::finder)
    }

    /// Makes all that was stored since the last commit durable, as one transaction.
    pub fn commit<B: Backend>(&mut self, store: &mut Store<B>) -> Result<usize, Error> {
        store.with_core(|core| self.write_into(core))?;
        let pages = self.runs.iter().map(|run| run.len() / 4096).sum();
        self.committed();
        Ok(pages)
    }

    /// Puts the written pages into an open transaction.
    pub fn write_into<B: Backend>(&mut self, core: &mut Core<B>) -> Result<(), Error> {
        self.find()?;
        for run in &self.runs {
            // SAFETY: inside the mapping; `&mut self` keeps this process's Rust code away from it.
            let bytes = unsafe { slice::from_raw_parts(self.base.add(run.start), run.len()) };
            let at = At::new(self.segment.index(), run.start);
            let written = core.write(at, bytes);
            written.map_err(|fault| Error::of(core.rio().path())(fault))?;
        }
        Ok(())
    }

    /// The transaction ended well.
    pub fn committed(&mut self) {
        self.runs.clear();
    }

    /// Forgets all that was stored since the last commit.
    pub fn abort(&mut self) -> Result<(), Error> {
        self.find()?;
        for run in self.runs.drain(..) {
            // SAFETY: inside the mapping; what it held is the file's again.
            unsafe {
                libc::madvise(
                    self.base.add(run.start).cast(),
                    run.len(),
                    libc::MADV_DONTNEED,
                )
            };
        }
        // Dropped pages count as written until they are protected anew.
        self.find()?;
        self.runs.clear();
        Ok(())
    }

    fn find(&mut self) -> Result<(), Error> {
        let Some(written) = &mut self.written else {
            return Ok(());
        };
        let object = format!("written pages of segment {}", self.segment.index());
        let found = written.take(&mut self.runs);
        found.map_err(|cause| Error::Rio(rio_sim::Error::new("find", object, cause)))
    }
}

impl Drop for WorkingCopy {
    fn drop(&mut self) {
        self.written = None;
        // SAFETY: the mapping is this value's, and nothing watches it any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}
