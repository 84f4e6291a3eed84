//! One of the backends, chosen when the program runs: for the C interface and the command.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use rio_core::{At, Errno, Rio, Window};
use rio_sim::{Backend, Disk, Error, Image, Place, Pmem, Tmpfs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tmpfs,
    Disk,
    Pmem,
}

pub enum AnyRio {
    Tmpfs(Tmpfs),
    Disk(Disk),
    Pmem(Pmem),
}

impl AnyRio {
    pub fn create_as(kind: Kind, image: Image) -> Result<AnyRio, Error> {
        Ok(match kind {
            Kind::Tmpfs => AnyRio::Tmpfs(Tmpfs::create(image)?),
            Kind::Disk => AnyRio::Disk(Disk::create(image)?),
            Kind::Pmem => AnyRio::Pmem(Pmem::create(image)?),
        })
    }

    pub fn open_as(kind: Kind, image: Image) -> Result<AnyRio, Error> {
        Ok(match kind {
            // The redo log may hold what the files do not: an image on disk is never taken
            // otherwise.
            _ if Disk::is_disk(&image) => AnyRio::Disk(Disk::open(image)?),
            Kind::Pmem => AnyRio::Pmem(Pmem::open(image)?),
            Kind::Tmpfs | Kind::Disk => AnyRio::Tmpfs(Tmpfs::open(image)?),
        })
    }

    pub fn kind(&self) -> Kind {
        match self {
            AnyRio::Tmpfs(_) => Kind::Tmpfs,
            AnyRio::Disk(_) => Kind::Disk,
            AnyRio::Pmem(_) => Kind::Pmem,
        }
    }
}

/// Passes a call on to whichever it is.
macro_rules! each {
    ($self:ident, $rio:ident => $call:expr) => {
        match $self {
            AnyRio::Tmpfs($rio) => $call,
            AnyRio::Disk($rio) => $call,
            AnyRio::Pmem($rio) => $call,
        }
    };
}

// SAFETY: each of the three is a Rio, and the choice never changes.
unsafe impl Rio for AnyRio {
    #[inline]
    fn window(&self, index: usize) -> Window {
        each!(self, rio => rio.window(index))
    }

    #[inline]
    fn writes_back(&self) -> bool {
        each!(self, rio => rio.writes_back())
    }

    #[inline]
    fn order(&self, at: At, len: usize) {
        each!(self, rio => rio.order(at, len))
    }

    #[inline]
    fn keep(&self, at: At, len: usize) {
        each!(self, rio => rio.keep(at, len))
    }

    #[inline]
    fn seal(&self) -> Result<(), Errno> {
        each!(self, rio => rio.seal())
    }
}

impl Backend for AnyRio {
    fn create(image: Image) -> Result<AnyRio, Error> {
        AnyRio::create_as(Kind::Tmpfs, image)
    }

    fn open(image: Image) -> Result<AnyRio, Error> {
        AnyRio::open_as(Kind::Tmpfs, image)
    }

    fn create_window(&mut self, index: usize, place: Place) -> Result<(), Error> {
        each!(self, rio => rio.create_window(index, place))
    }

    fn map_window(&mut self, index: usize, place: Place) -> Result<(), Error> {
        each!(self, rio => rio.map_window(index, place))
    }

    fn grow_window(&mut self, index: usize, len: usize) -> Result<(), Error> {
        each!(self, rio => rio.grow_window(index, len))
    }

    fn protect(&self, at: At, len: usize, writable: bool) -> Result<(), Error> {
        each!(self, rio => rio.protect(at, len, writable))
    }

    fn shared_file(&self, index: usize) -> Option<&File> {
        each!(self, rio => rio.shared_file(index))
    }

    fn image_mut(&mut self) -> &mut Image {
        each!(self, rio => rio.image_mut())
    }

    fn path(&self) -> &Path {
        each!(self, rio => rio.path())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Tmpfs => "tmpfs",
            Kind::Disk => "disk",
            Kind::Pmem => "pmem",
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Kind, String> {
        match name {
            "tmpfs" => Ok(Kind::Tmpfs),
            "disk" => Ok(Kind::Disk),
            "pmem" => Ok(Kind::Pmem),
            _ => Err(format!("rio {name}: no such kind: say tmpfs, disk or pmem")),
        }
    }
}
