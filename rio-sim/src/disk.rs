//! Rio on a disk: memory is private, and a commit is a record in the redo log, synced.
//!
//! What the kernel writes back by itself could be half a transaction; so the windows are mapped
//! private, and the files change only by the redo log. `order` has nothing to do: undo images
//! matter to memory that survives, and this memory does not.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::path::Path;
use std::slice;
use std::sync::Arc;

use rio_core::{At, Errno, Rio, WINDOWS, Window};

use crate::medium::Medium;
use crate::redo::{Data, RedoLog};
use crate::windows::{Sharing, Windows};
use crate::{Backend, Error, Image, Place};

/// Room for commits between two truncations, and for the largest one.
const REDO_LEN: u64 = 16 << 20;
const REDO: &str = "redo";

pub struct Disk {
    windows: Windows,
    log: Option<Arc<RedoLog>>,
    kept: RefCell<Vec<(At, usize)>>,
    deferred: Cell<bool>,
    last: Cell<u64>,
    looked_at: Cell<u64>,
}

impl Disk {
    /// With this set, a seal only appends; `RedoLog::wait` for `last_commit` makes it durable. So a
    /// committer need not hold up the next one while the disk works.
    pub fn set_deferred(&self, deferred: bool) {
        self.deferred.set(deferred);
    }

    pub fn last_commit(&self) -> u64 {
        self.last.get()
    }

    /// Of an image opened to be looked at: the commits that its redo log holds.
    pub fn commits_in_log(&self) -> u64 {
        self.looked_at.get()
    }

    /// None for an image opened to be looked at.
    pub fn log(&self) -> Option<&Arc<RedoLog>> {
        self.log.as_ref()
    }

    /// Whether an image is one of this kind.
    pub fn is_disk(image: &Image) -> bool {
        image.has(REDO)
    }

    fn with_log(image: Image, log: Option<RedoLog>) -> Disk {
        Disk {
            windows: Windows::new(image, Sharing::Private),
            log: log.map(Arc::new),
            kept: RefCell::new(Vec::new()),
            deferred: Cell::new(false),
            last: Cell::new(0),
            looked_at: Cell::new(0),
        }
    }

    fn share_with_log(&self, index: usize) -> Result<(), Error> {
        let (Some(log), Some(file)) = (&self.log, self.windows.file(index)) else {
            return Ok(());
        };
        let path = self.path().join(index.to_string());
        let file = file
            .try_clone()
            .map_err(|cause| Error::of_path("open", &path, cause))?;
        log.add_data(index, Box::new(file));
        Ok(())
    }
}

// SAFETY: the windows are those of `Mapped`, which are areas of this value.
unsafe impl Rio for Disk {
    #[inline]
    fn window(&self, index: usize) -> Window {
        self.windows.mapped.window(index)
    }

    #[inline]
    fn writes_back(&self) -> bool {
        true
    }

    #[inline]
    fn order(&self, at: At, len: usize) {
        self.windows.mapped.order(at, len);
    }

    #[inline]
    fn keep(&self, at: At, len: usize) {
        self.kept.borrow_mut().push((at, len));
    }

    fn seal(&self) -> Result<(), Errno> {
        let mut kept = self.kept.borrow_mut();
        let Some(log) = &self.log else {
            return Err(Errno(libc::EROFS));
        };
        if kept.is_empty() {
            return Ok(());
        }
        let ranges = kept.iter().map(|&(at, len)| {
            let from = self.window(at.window()).base.wrapping_add(at.offset());
            // SAFETY: the caller kept a range of a window, and holds no reference that writes to
            // it.
            (at, unsafe { slice::from_raw_parts(from, len) })
        });
        let appended = log.append(ranges);
        kept.clear();
        let number = appended?;
        self.last.set(number);
        if self.deferred.get() {
            Ok(())
        } else {
            log.wait(number)
        }
    }
}

impl Backend for Disk {
    fn create(image: Image) -> Result<Disk, Error> {
        let path = image.path().join(REDO);
        let file = image.create_file(REDO)?;
        let formatted = file.set_len(REDO_LEN).and_then(|()| RedoLog::format(&file));
        let opened = formatted.and_then(|()| RedoLog::open(Box::new(file), no_data()));
        let log = opened.map_err(|cause| Error::of_path("create", &path, cause))?;
        Ok(Disk::with_log(image, Some(log)))
    }

    fn open(image: Image) -> Result<Disk, Error> {
        if !image.is_writable() {
            return Ok(Disk::with_log(image, None));
        }
        let mut data = no_data();
        for (index, slot) in data.iter_mut().enumerate() {
            let name = index.to_string();
            if image.has(&name) {
                *slot = Some(Box::new(image.file(&name)?));
            }
        }
        let path = image.path().join(REDO);
        let log = RedoLog::open(Box::new(image.file(REDO)?), data);
        let log = log.map_err(|cause| Error::of_path("open", &path, cause))?;
        Ok(Disk::with_log(image, Some(log)))
    }

    fn create_window(&mut self, index: usize, place: Place) -> Result<(), Error> {
        self.windows.create(index, place.len)?;
        self.map_window(index, place)
    }

    fn map_window(&mut self, index: usize, place: Place) -> Result<(), Error> {
        self.windows.map(index, place)?;
        if self.log.is_some() {
            return self.share_with_log(index);
        }
        // A look at an image: its committed bytes are put over the private mapping.
        let path = self.path().join(REDO);
        let fault = |cause: io::Error| Error::of_path("read", &path, cause);
        let file = self.windows.image.file(REDO)?;
        let window = self.window(index);
        let put = |at: At, bytes: &[u8]| {
            let end = at.offset().checked_add(bytes.len());
            if at.window() == index && end.is_some_and(|end| end <= window.len) {
                // SAFETY: inside the window, which is private memory.
                unsafe { self.store(at, bytes) }
            }
        };
        let commits = RedoLog::read(&file as &dyn Medium, put).map_err(fault)?;
        self.looked_at.set(commits);
        Ok(())
    }

    fn grow_window(&mut self, index: usize, len: usize) -> Result<(), Error> {
        self.windows.grow(index, len)
    }

    fn protect(&self, at: At, len: usize, writable: bool) -> Result<(), Error> {
        self.windows.protect(at, len, writable)
    }

    fn shared_file(&self, _index: usize) -> Option<&File> {
        None
    }

    fn image_mut(&mut self) -> &mut Image {
        &mut self.windows.image
    }

    fn path(&self) -> &Path {
        self.windows.image.path()
    }
}

fn no_data() -> Data {
    [const { None }; WINDOWS]
}
