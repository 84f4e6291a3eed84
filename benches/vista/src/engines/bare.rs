//! Bare stores into mapped memory: neither atomic nor durable. What all others are measured from.
//!
//! When commits must be durable, each is one pwrite and fdatasync of what was changed, into a file
//! that was written before: what a disk asks at least.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::engine::{Engine, Setup, Table, layout};
use crate::engines::floor::map_file;

pub struct Bare {
    base: *mut u8,
    starts: Vec<usize>,
    tables: Vec<Table>,
    log: Option<File>,
    changed: Vec<u8>,
    tail: u64,
}

const LOG_LEN: u64 = 16 << 20;

impl Bare {
    pub fn new(setup: &Setup) -> Result<Bare, String> {
        let (starts, len) = layout(setup.tables);
        let base = map_file(&setup.dir.join("bare"), len)?;
        let log = setup.durable.then(|| {
            let path = setup.dir.join("bare-log");
            let file = File::options()
                .create(true)
                .truncate(true)
                .write(true)
                .open(path)?;
            for offset in (0..LOG_LEN).step_by(1 << 20) {
                file.write_all_at(&[0; 1 << 20], offset)?;
            }
            file.sync_all().map(|()| file)
        });
        let log = log.transpose().map_err(|error| error.to_string())?;
        let changed = Vec::new();
        Ok(Bare {
            base,
            starts,
            tables: setup.tables.to_vec(),
            log,
            changed,
            tail: 0,
        })
    }

    #[inline(always)]
    fn place(&self, table: usize, index: usize) -> *mut u8 {
        self.base
            .wrapping_add(self.starts[table] + index * self.tables[table].record_len)
    }
}

impl Engine for Bare {
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
        // SAFETY: as in `read`.
        unsafe {
            self.place(table, index)
                .add(offset)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        }
        if self.log.is_some() {
            self.changed.extend_from_slice(bytes);
        }
    }

    #[inline(always)]
    fn commit(&mut self) {
        let Some(log) = &self.log else { return };
        if self.tail + self.changed.len() as u64 > LOG_LEN {
            self.tail = 0;
        }
        log.write_all_at(&self.changed, self.tail).expect("write");
        log.sync_data().expect("sync");
        self.tail += self.changed.len() as u64;
        self.changed.clear();
    }
}
