//! The files of an image, mapped: what tmpfs, pmem and disk have in common.

use std::fs::File;
use std::io;

use rio_core::{At, Mapped, WINDOWS, Window};

use crate::area::{Area, Kind};
use crate::backend::Place;
use crate::{Error, Image};

pub use crate::area::Kind as Sharing;

pub struct Windows {
    pub image: Image,
    pub mapped: Mapped,
    areas: [Option<(Area, File)>; WINDOWS],
    kind: Kind,
}

// SAFETY: the areas are addresses that no thread owns.
unsafe impl Send for Windows {}

impl Windows {
    pub fn new(image: Image, kind: Kind) -> Windows {
        // An image opened for reading is looked at through private memory.
        let kind = if image.is_writable() {
            kind
        } else {
            Kind::Private
        };
        // SAFETY: no windows yet.
        let mapped = unsafe { Mapped::new([Window::NONE; WINDOWS]) };
        Windows {
            image,
            mapped,
            areas: [const { None }; WINDOWS],
            kind,
        }
    }

    /// Makes the file of a new window, at the full length.
    pub fn create(&self, index: usize, len: usize) -> Result<(), Error> {
        let file = self.image.create_file(&index.to_string())?;
        let sized = file.set_len(len as u64).and_then(|()| file.sync_all());
        sized.map_err(|cause| Error::new("size", self.object(index), cause))?;
        self.image.sync_names()
    }

    /// Maps the file of a window, all of it or its first `place.len` bytes if it has as many.
    pub fn map(&mut self, index: usize, place: Place) -> Result<&File, Error> {
        let fault = |object, cause| Error::new("map", object, cause);
        let file = self.image.file(&index.to_string())?;
        let about = file
            .metadata()
            .map_err(|cause| fault(self.object(index), cause))?;
        // Never past the end of the file: touching that would be a SIGBUS.
        let len = place.len.min(about.len() as usize) & !0xfff;
        let area = Area::reserve(place.address, place.room.max(len).max(1))
            .and_then(|mut area| area.map(&file, len, self.kind).map(|()| area));
        let area = area.map_err(|cause| {
            let at = place.address;
            fault(
                format!("{} at {at:#x}, {:#x} bytes", self.object(index), place.room),
                cause,
            )
        })?;
        self.put(index, area, file)
    }

    /// Lengthens a window and its file; its addresses stay.
    pub fn grow(&mut self, index: usize, len: usize) -> Result<(), Error> {
        let object = self.object(index);
        let (area, file) = self.take(index)?;
        let had = area.window().len;
        let mut area = area;
        let grown = match len > had {
            true => file.set_len(len as u64).and_then(|()| file.sync_all()),
            false => Ok(()),
        };
        let grown = grown.and_then(|()| area.map(&file, len, self.kind));
        self.put(index, area, file)?;
        grown.map_err(|cause| Error::new("grow", format!("{object} to {len:#x} bytes"), cause))
    }

    /// For a file system that refuses MAP_SYNC.
    pub fn share_without_sync(&mut self) {
        if self.kind == Kind::SharedSync {
            self.kind = Kind::Shared;
        }
    }

    pub fn file(&self, index: usize) -> Option<&File> {
        self.areas.get(index)?.as_ref().map(|(_, file)| file)
    }

    pub fn protect(&self, at: At, len: usize, writable: bool) -> Result<(), Error> {
        let Some(Some((area, _))) = self.areas.get(at.window()) else {
            return Ok(());
        };
        let protected = area.protect(at.offset(), len, writable);
        protected.map_err(|cause| Error::new("protect", self.object(at.window()), cause))
    }

    fn put(&mut self, index: usize, area: Area, file: File) -> Result<&File, Error> {
        // SAFETY: the area lives as long as the window is in `mapped`: both go with this value.
        unsafe { self.mapped.set(index, area.window()) };
        Ok(&self.areas[index].insert((area, file)).1)
    }

    fn take(&mut self, index: usize) -> Result<(Area, File), Error> {
        let gone = io::Error::from_raw_os_error(libc::ENOENT);
        let slot = self.areas.get_mut(index).and_then(Option::take);
        slot.ok_or_else(|| Error::new("grow", self.object(index), gone))
    }

    fn object(&self, index: usize) -> String {
        self.image
            .path()
            .join(index.to_string())
            .display()
            .to_string()
    }
}
