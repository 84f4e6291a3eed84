//! The files that the timeline is written to: appended to, synced in groups, read at any place.
//!
//! A segment is a file `timeline/NNNNNNNN.log` that begins with [`MAGIC`]. A new one is begun when
//! the last one has reached [`SEGMENT`] bytes. Only the last record of the last segment can be cut
//! short, by the death of the writer; it is then removed. Anything else that is not a record is
//! damage, and the timeline is not opened: silently leaving out verbs would lose mail.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use super::frame::{self, Body, Frame};
use crate::{Context, Error, Result};

/// The first bytes of each segment: a name and a version.
pub const MAGIC: &[u8; 16] = b"undo timeline 1\n";
/// A segment is ended at this length in bytes.
pub const SEGMENT: u64 = 256 << 20;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    pub segment: u32,
    pub offset: u64,
    pub length: u32,
}

pub struct Segments {
    folder: PathBuf,
    /// Readers take a handle from here; the writer adds to it.
    files: Mutex<Vec<Arc<File>>>,
    writer: Mutex<Writer>,
    synced: Mutex<Sync>,
    sync_done: Condvar,
}

struct Writer {
    file: Arc<File>,
    segment: u32,
    offset: u64,
    /// All bytes ever written, by which syncs are counted.
    total: u64,
    failed: Option<Error>,
}

#[derive(Default)]
struct Sync {
    /// Bytes that are on stable storage.
    until: u64,
    running: bool,
    failed: Option<Error>,
}

impl Segments {
    /// Opens the folder, and calls `found` for each record in it, in order.
    pub fn open(
        folder: &Path,
        mut found: impl FnMut(Location, &Frame<'_>) -> Result<()>,
    ) -> Result<Segments> {
        std::fs::create_dir_all(folder).context(folder.display(), "create")?;
        let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
            .context(folder.display(), "list")?
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "log"))
            .collect();
        names.sort();
        let mut files = Vec::new();
        let mut total = 0;
        let count = names.len();
        for (number, path) in names.iter().enumerate() {
            if *path != segment_path(folder, number as u32) {
                return Err(
                    Error::new(path.display(), "open", "a segment before it is missing")
                        .advise("put all segments back, in an unbroken row from 00000000.log"),
                );
            }
            let last = number + 1 == count;
            let (file, length) = read_segment(path, number as u32, last, &mut found)?;
            total += length;
            files.push(Arc::new(file));
        }
        if files.is_empty() {
            files.push(Arc::new(begin_segment(folder, 0)?));
            total = MAGIC.len() as u64;
        }
        let segment = files.len() as u32 - 1;
        let file = files[segment as usize].clone();
        let offset = file.metadata().context(folder.display(), "stat")?.len();
        Ok(Segments {
            folder: folder.to_owned(),
            files: Mutex::new(files),
            writer: Mutex::new(Writer {
                file,
                segment,
                offset,
                total,
                failed: None,
            }),
            synced: Mutex::new(Sync {
                until: 0,
                ..Sync::default()
            }),
            sync_done: Condvar::new(),
        })
    }

    /// Appends a record. Returns where it is and the count of bytes that a sync must reach.
    pub fn append(&self, bytes: &[u8]) -> Result<(Location, u64)> {
        let mut writer = lock(&self.writer);
        if let Some(error) = &writer.failed {
            return Err(error.clone());
        }
        if writer.offset >= SEGMENT {
            // The old segment must be whole before anything is written behind it.
            writer
                .file
                .sync_data()
                .context(self.folder.display(), "sync")?;
            let file = Arc::new(begin_segment(&self.folder, writer.segment + 1)?);
            lock(&self.files).push(file.clone());
            writer.file = file;
            writer.segment += 1;
            writer.offset = MAGIC.len() as u64;
        }
        let at = Location {
            segment: writer.segment,
            offset: writer.offset,
            length: bytes.len() as u32,
        };
        if let Err(cause) = writer.file.write_all_at(bytes, writer.offset) {
            // What was written of the record must not be taken for damage later.
            let restored = writer.file.set_len(writer.offset);
            let error = Error::new(self.folder.display(), "append to the timeline", cause)
                .advise("free some space and restart");
            if restored.is_err() {
                writer.failed = Some(error.clone());
            }
            return Err(error);
        }
        writer.offset += bytes.len() as u64;
        writer.total += bytes.len() as u64;
        Ok((at, writer.total))
    }

    /// Returns when the first `until` bytes are on stable storage. Callers at the same time share
    /// a sync: one of them does it, for all that was written when it began.
    pub fn sync(&self, until: u64) -> Result<()> {
        let mut synced = lock(&self.synced);
        loop {
            if let Some(error) = &synced.failed {
                return Err(error.clone());
            }
            if synced.until >= until {
                return Ok(());
            }
            if synced.running {
                synced = self
                    .sync_done
                    .wait(synced)
                    .unwrap_or_else(|p| p.into_inner());
                continue;
            }
            synced.running = true;
            drop(synced);
            let (file, total) = {
                let writer = lock(&self.writer);
                (writer.file.clone(), writer.total)
            };
            let result = file.sync_data();
            synced = lock(&self.synced);
            synced.running = false;
            match result {
                Ok(()) => synced.until = synced.until.max(total),
                // After a failed fsync the kernel may have dropped the pages: nothing written
                // since the last good one can be trusted, so this is final.
                Err(cause) => {
                    synced.failed = Some(
                        Error::new(self.folder.display(), "sync the timeline", cause)
                            .advise("look after the disk, then restart"),
                    )
                }
            }
            self.sync_done.notify_all();
        }
    }

    /// How many bytes were written so far.
    pub fn written(&self) -> u64 {
        lock(&self.writer).total
    }

    pub fn read(&self, at: Location) -> Result<Body> {
        let mut bytes = vec![0; at.length as usize];
        let file = lock(&self.files)[at.segment as usize].clone();
        let name = segment_path(&self.folder, at.segment);
        file.read_exact_at(&mut bytes, at.offset)
            .context(name.display(), "read a record")?;
        frame::decode(&bytes)
            .ok_or_else(|| damaged(&name, at.offset, "the sum of a record is wrong"))?
            .body()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn segment_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.log"))
}

fn begin_segment(folder: &Path, number: u32) -> Result<File> {
    let path = segment_path(folder, number);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .context(path.display(), "create")?;
    file.write_all(MAGIC).context(path.display(), "write")?;
    file.sync_all().context(path.display(), "sync")?;
    File::open(folder)
        .and_then(|f| f.sync_all())
        .context(folder.display(), "sync")?;
    Ok(file)
}

fn read_segment(
    path: &Path,
    segment: u32,
    last: bool,
    found: &mut impl FnMut(Location, &Frame<'_>) -> Result<()>,
) -> Result<(File, u64)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .context(path.display(), "open")?;
    let bytes = std::fs::read(path).context(path.display(), "read")?;
    if last && bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
        // Death came between the creation of the segment and its first bytes.
        file.write_all_at(MAGIC, 0)
            .context(path.display(), "write")?;
        return Ok((file, MAGIC.len() as u64));
    }
    if !bytes.starts_with(MAGIC) {
        return Err(damaged(
            path,
            0,
            "this is not a segment of a timeline of version 1",
        ));
    }
    let mut offset = MAGIC.len();
    while offset < bytes.len() {
        let Some(frame) = frame::decode(&bytes[offset..]) else {
            let behind = (offset + 1..bytes.len()).find(|&o| frame::decode(&bytes[o..]).is_some());
            if !last || behind.is_some() {
                return Err(damaged(
                    path,
                    offset as u64,
                    "a record is damaged, and others follow it",
                ));
            }
            file.set_len(offset as u64)
                .context(path.display(), "cut off an unfinished record")?;
            file.sync_all().context(path.display(), "sync")?;
            break;
        };
        let at = Location {
            segment,
            offset: offset as u64,
            length: frame.length as u32,
        };
        found(at, &frame)?;
        offset += frame.length;
    }
    Ok((file, offset as u64))
}

fn damaged(path: &Path, offset: u64, what: &str) -> Error {
    Error::new(
        format!("{} at byte {offset}", path.display()),
        "read the timeline",
        what,
    )
    .advise("restore this file from a backup; nothing was changed")
}
