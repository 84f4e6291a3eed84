//! Rio in the page cache: survives the process, and on tmpfs nothing more.
//!
//! On a file system with a disk below it works as well, and survives the process as well; what the
//! kernel has written when the machine fails is then no consistent image. Use `Disk` for that.

use std::fs::File;
use std::path::Path;

use rio_core::{At, Errno, Rio, Window};

use crate::windows::{Sharing, Windows};
use crate::{Backend, Error, Image, Place};

pub struct Tmpfs {
    windows: Windows,
}

// SAFETY: the windows are those of `Mapped`, which are areas of this value.
unsafe impl Rio for Tmpfs {
    #[inline(always)]
    fn window(&self, index: usize) -> Window {
        self.windows.mapped.window(index)
    }

    #[inline(always)]
    fn writes_back(&self) -> bool {
        false
    }

    #[inline(always)]
    fn order(&self, at: At, len: usize) {
        self.windows.mapped.order(at, len);
    }

    #[inline(always)]
    fn keep(&self, _at: At, _len: usize) {}

    #[inline(always)]
    fn seal(&self) -> Result<(), Errno> {
        self.windows.mapped.seal()
    }
}

impl Backend for Tmpfs {
    fn create(image: Image) -> Result<Tmpfs, Error> {
        Tmpfs::open(image)
    }

    fn open(image: Image) -> Result<Tmpfs, Error> {
        Ok(Tmpfs {
            windows: Windows::new(image, Sharing::Shared),
        })
    }

    fn create_window(&mut self, index: usize, place: Place) -> Result<(), Error> {
        self.windows.create(index, place.len)?;
        self.map_window(index, place)
    }

    fn map_window(&mut self, index: usize, place: Place) -> Result<(), Error> {
        self.windows.map(index, place).map(|_| ())
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
