//! Rio on memory that survives power: a DAX mapping, its lines written back and fenced.
//!
//! On a file system without DAX the file is mapped in its place and the same instructions run, so
//! that their cost and their order are real, though the memory below is not; `is_dax` tells which.

use std::fs::File;
use std::path::Path;

use rio_core::{At, Errno, Rio, Window};

use crate::machine::{self, WriteBack};
use crate::windows::{Sharing, Windows};
use crate::{Backend, Error, Image, Place};

pub struct Pmem {
    windows: Windows,
    how: WriteBack,
    dax: bool,
}

impl Pmem {
    /// Whether the mapping reaches the memory itself (MAP_SYNC was granted).
    pub fn is_dax(&self) -> bool {
        self.dax
    }

    pub fn write_back(&self) -> WriteBack {
        self.how
    }
}

// SAFETY: the windows are those of `Mapped`, which are areas of this value.
unsafe impl Rio for Pmem {
    #[inline(always)]
    fn window(&self, index: usize) -> Window {
        self.windows.mapped.window(index)
    }

    #[inline(always)]
    fn writes_back(&self) -> bool {
        true
    }

    #[inline]
    fn order(&self, at: At, len: usize) {
        self.keep(at, len);
        machine::fence();
    }

    #[inline]
    fn keep(&self, at: At, len: usize) {
        let base = self.window(at.window()).base;
        // SAFETY: the range was just stored into, so it is mapped.
        unsafe { machine::write_back(self.how, base.wrapping_add(at.offset()), len) }
    }

    #[inline]
    fn seal(&self) -> Result<(), Errno> {
        machine::fence();
        Ok(())
    }
}

impl Backend for Pmem {
    fn create(image: Image) -> Result<Pmem, Error> {
        Pmem::open(image)
    }

    fn open(image: Image) -> Result<Pmem, Error> {
        let windows = Windows::new(image, Sharing::SharedSync);
        Ok(Pmem {
            windows,
            how: WriteBack::detect(),
            dax: true,
        })
    }

    fn create_window(&mut self, index: usize, place: Place) -> Result<(), Error> {
        self.windows.create(index, place.len)?;
        self.map_window(index, place)
    }

    fn map_window(&mut self, index: usize, place: Place) -> Result<(), Error> {
        match self.windows.map(index, place).map(|_| ()) {
            Err(error) if self.dax && error.errno() == libc::EOPNOTSUPP => {
                self.dax = false;
                self.windows.share_without_sync();
                self.windows.map(index, place).map(|_| ())
            }
            other => other,
        }
    }

    fn grow_window(&mut self, index: usize, len: usize) -> Result<(), Error> {
        self.windows.grow(index, len)
    }

    fn protect(&self, at: At, len: usize, writable: bool) -> Result<(), Error> {
        self.windows.protect(at, len, writable)
    }

    fn shared_file(&self, index: usize) -> Option<&File> {
        self.windows.file(index)
    }

    fn image_mut(&mut self) -> &mut Image {
        &mut self.windows.image
    }

    fn path(&self) -> &Path {
        self.windows.image.path()
    }
}
