//! The floor: an undo log by hand, for one mapped array, with nothing that this benchmark does not
//! need: no checks, no heap, no recovery of a damaged image. How fast can it be at all?
//!
//! ```text
//!   0  | tail u64 |        64  | old bytes, padded to 8 | offset u64 | len u64 | ...
//! ```

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::engine::{Engine, Setup, Table, layout};

const LOG_LEN: usize = 16 << 20;

pub struct Floor {
    log: *mut u8,
    tail: usize,
    base: *mut u8,
    starts: Vec<usize>,
    tables: Vec<Table>,
}

impl Floor {
    pub fn new(setup: &Setup) -> Result<Floor, String> {
        let (starts, len) = layout(setup.tables);
        let log = map_file(&setup.dir.join("floor-log"), LOG_LEN)?;
        let base = map_file(&setup.dir.join("floor"), len)?;
        let mut floor = Floor {
            log,
            tail: 64,
            base,
            starts,
            tables: setup.tables.to_vec(),
        };
        floor.recover();
        Ok(floor)
    }

    #[inline(always)]
    fn place(&self, table: usize, index: usize) -> *mut u8 {
        self.base
            .wrapping_add(self.starts[table] + index * self.tables[table].record_len)
    }

    #[inline(always)]
    fn set_range(&mut self, from: *mut u8, len: usize) {
        let padded = (len + 7) & !7;
        if self.tail + padded + 16 > LOG_LEN {
            panic!("the log is full");
        }
        // SAFETY: the log has room, and the range lies in the mapping.
        unsafe {
            let record = self.log.add(self.tail);
            ptr::copy_nonoverlapping(from, record, len);
            record
                .add(padded)
                .cast::<[u64; 2]>()
                .write([from.offset_from(self.base) as u64, len as u64]);
        }
        self.set_tail(self.tail + padded + 16);
    }

    #[inline(always)]
    fn set_tail(&mut self, tail: usize) {
        self.tail = tail;
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the first word of the log.
        unsafe { self.log.cast::<u64>().write_volatile(tail as u64) };
        compiler_fence(Ordering::SeqCst);
    }

    fn recover(&mut self) {
        // SAFETY: the log was written by `set_range`.
        unsafe {
            let mut tail = self.log.cast::<u64>().read() as usize;
            while tail > 64 {
                let [offset, len] = self.log.add(tail - 16).cast::<[u64; 2]>().read();
                tail -= 16 + ((len as usize + 7) & !7);
                ptr::copy_nonoverlapping(
                    self.log.add(tail),
                    self.base.add(offset as usize),
                    len as usize,
                );
            }
        }
        self.set_tail(64);
    }
}

impl Engine for Floor {
    fn begin(&mut self) {}

    #[inline(always)]
    fn read(&mut self, table: usize, index: usize) -> &[u8] {
        // SAFETY: workloads stay inside their tables, which lie inside the mapping.
        unsafe {
            std::slice::from_raw_parts(self.place(table, index), self.tables[table].record_len)
        }
    }

    #[inline(always)]
    fn update(&mut self, table: usize, index: usize, offset: usize, bytes: &[u8]) {
        let place = self.place(table, index).wrapping_add(offset);
        self.set_range(place, bytes.len());
        // SAFETY: as in `read`.
        unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    #[inline(always)]
    fn commit(&mut self) {
        self.set_tail(64);
    }
}

/// Maps a new file, shared, every page of it present.
pub fn map_file(path: &Path, len: usize) -> Result<*mut u8, String> {
    let fault = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path);
    let file = file
        .and_then(|file| file.set_len(len as u64).map(|()| file))
        .map_err(fault)?;
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_POPULATE,
    );
    // SAFETY: a new mapping; it stays until the process ends.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut::<c_void>(),
            len,
            protection,
            flags,
            file.as_raw_fd(),
            0,
        )
    };
    match base == libc::MAP_FAILED {
        true => Err(fault(std::io::Error::last_os_error())),
        false => Ok(base.cast()),
    }
}
