//! What a Rio on files can do besides being one: open, add and lengthen windows.

use std::fs::File;
use std::path::Path;

use rio_core::{At, Rio};

use crate::{Error, Image};

/// Where a window goes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub len: usize,
    /// Addresses reserved for growth.
    pub room: usize,
    /// 0: wherever there is room.
    pub address: usize,
}

pub trait Backend: Rio + Send + Sized {
    /// Takes a new image; its windows are created one by one.
    fn create(image: Image) -> Result<Self, Error>;

    /// Takes an existing image and does what the storage itself needs after a crash.
    fn open(image: Image) -> Result<Self, Error>;

    fn create_window(&mut self, index: usize, place: Place) -> Result<(), Error>;

    fn map_window(&mut self, index: usize, place: Place) -> Result<(), Error>;

    fn grow_window(&mut self, index: usize, len: usize) -> Result<(), Error>;

    /// Write-protects the pages of a range against stray stores, or opens them.
    fn protect(&self, at: At, len: usize, writable: bool) -> Result<(), Error>;

    /// The file that stores in the window reach at once; none if files lag behind memory.
    fn shared_file(&self, index: usize) -> Option<&File>;

    fn image_mut(&mut self) -> &mut Image;

    fn path(&self) -> &Path;
}
