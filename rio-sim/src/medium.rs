//! What a disk can do for us: four operations on a file of fixed length, and one that forgets.
//!
//! [`SimFile`] is the same with a crash in it: after a number of operations the machine is gone,
//! and of what was written since the last sync any subset of bytes is found.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub trait Medium: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// All that was written is durable when this returns.
    fn sync(&self) -> io::Result<()>;

    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
}

impl Medium for File {
    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|about| about.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A machine with disks that will fail after so many writes and syncs.
pub struct SimDisk {
    left: Mutex<u64>,
}

/// A file on it: what a crash surely keeps, and what was written since.
pub struct SimFile {
    disk: Arc<SimDisk>,
    content: Mutex<Content>,
}

struct Content {
    durable: Vec<u8>,
    live: Vec<u8>,
    /// Bytes written since the last sync, in order: a byte written twice may survive in either
    /// form.
    unsynced: Vec<(usize, u8)>,
}

impl SimDisk {
    pub fn new(operations: u64) -> Arc<SimDisk> {
        Arc::new(SimDisk {
            left: Mutex::new(operations),
        })
    }

    /// The operations that the machine would still do.
    pub fn left(&self) -> u64 {
        *locked(&self.left)
    }

    pub fn file(self: &Arc<SimDisk>, content: Vec<u8>) -> Arc<SimFile> {
        let content = Content {
            durable: content.clone(),
            live: content,
            unsynced: Vec::new(),
        };
        Arc::new(SimFile {
            disk: self.clone(),
            content: Mutex::new(content),
        })
    }

    fn spend(&self) -> io::Result<()> {
        let mut left = locked(&self.left);
        *left = left
            .checked_sub(1)
            .ok_or(io::Error::from_raw_os_error(libc::EIO))?;
        Ok(())
    }
}

impl SimFile {
    /// What is found after a crash; `survives` is asked about each unsynced byte.
    pub fn after_crash(&self, mut survives: impl FnMut() -> bool) -> Vec<u8> {
        let content = locked(&self.content);
        let mut found = content.durable.clone();
        for &(offset, byte) in &content.unsynced {
            if survives() {
                found[offset] = byte;
            }
        }
        found
    }

    /// What a reader sees as long as nothing crashes.
    pub fn live(&self) -> Vec<u8> {
        locked(&self.content).live.clone()
    }
}

impl Medium for Arc<SimFile> {
    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.content).live.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let content = locked(&self.content);
        let from = content
            .live
            .get(offset as usize..offset as usize + bytes.len());
        bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // The write that meets the crash may still leave some of its bytes.
        let alive = self.disk.spend();
        let mut content = locked(&self.content);
        for (index, &byte) in bytes.iter().enumerate() {
            content.live[offset as usize + index] = byte;
            content.unsynced.push((offset as usize + index, byte));
        }
        alive
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.spend()?;
        let mut content = locked(&self.content);
        content.durable = content.live.clone();
        content.unsynced.clear();
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
