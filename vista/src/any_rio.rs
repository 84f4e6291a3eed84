//! One of the backends, chosen when the program runs: for the C interface and the command.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use rio_core::{At, Errno, Mapped, Rio, WINDOWS, Window};
use rio_sim::{Backend, Disk, Error, Image, Place, Pmem, Tmpfs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tmpfs,
    Disk,
    Pmem,
}

/// The windows stand beside the backend: where one is, is asked several times for each store, and
/// should not need to know whose it is.
pub struct AnyRio {
    windows: Mapped,
    rio: Chosen,
}

enum Chosen {
    Tmpfs(Tmpfs),
    Disk(Disk),
    Pmem(Pmem),
}

/// Passes a call on to whichever it is.
macro_rules! each {
    ($self:ident, $rio:ident => $call:expr) => {
        match &$self.rio {
            Chosen::Tmpfs($rio) => $call,
            Chosen::Disk($rio) => $call,
            Chosen::Pmem($rio) => $call,
        }
    };
    (mut $self:ident, $rio:ident => $call:expr) => {
        match &mut $self.rio {
            Chosen::Tmpfs($rio) => $call,
            Chosen::Disk($rio) => $call,
            Chosen::Pmem($rio) => $call,
        }
    };
}

impl AnyRio {
    pub fn create_as(kind: Kind, image: Image) -> Result<AnyRio, Error> {
        Ok(AnyRio::of(match kind {
            Kind::Tmpfs => Chosen::Tmpfs(Tmpfs::create(image)?),
            Kind::Disk => Chosen::Disk(Disk::create(image)?),
            Kind::Pmem => Chosen::Pmem(Pmem::create(image)?),
        }))
    }

    pub fn open_as(kind: Kind, image: Image) -> Result<AnyRio, Error> {
        Ok(AnyRio::of(match kind {
            // The redo log may hold what the files do not: an image on disk is never taken
            // otherwise.
            _ if Disk::is_disk(&image) => Chosen::Disk(Disk::open(image)?),
            Kind::Pmem => Chosen::Pmem(Pmem::open(image)?),
            Kind::Tmpfs | Kind::Disk => Chosen::Tmpfs(Tmpfs::open(image)?),
        }))
    }

    fn of(rio: Chosen) -> AnyRio {
        // SAFETY: no windows yet.
        let windows = unsafe { Mapped::new([Window::NONE; WINDOWS]) };
        let mut any = AnyRio { windows, rio };
        (0..WINDOWS).for_each(|index| any.look_at_window(index));
        any
    }

    /// Whatever was done to a window of the backend is seen from here on.
    fn look_at_window(&mut self, index: usize) {
        let window = each!(self, rio => rio.window(index));
        // SAFETY: it is the backend's, whose windows are as a Rio's, and which lives as long.
        unsafe { self.windows.set(index, window) }
    }

    /// Of an image on a disk that is only looked at: the commits that its redo log holds.
    pub fn commits_in_log(&self) -> u64 {
        match &self.rio {
            Chosen::Disk(disk) => disk.commits_in_log(),
            _ => 0,
        }
    }

    pub fn kind(&self) -> Kind {
        match self.rio {
            Chosen::Tmpfs(_) => Kind::Tmpfs,
            Chosen::Disk(_) => Kind::Disk,
            Chosen::Pmem(_) => Kind::Pmem,
        }
    }
}

// SAFETY: each of the three is a Rio, the choice never changes, and the windows are its own.
unsafe impl Rio for AnyRio {
    #[inline(always)]
    fn window(&self, index: usize) -> Window {
        self.windows.window(index)
    }

    #[inline(always)]
    fn writes_back(&self) -> bool {
        !matches!(self.rio, Chosen::Tmpfs(_))
    }

    #[inline(always)]
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
        let done = each!(mut self, rio => rio.create_window(index, place));
        self.look_at_window(index);
        done
    }

    fn map_window(&mut self, index: usize, place: Place) -> Result<(), Error> {
        let done = each!(mut self, rio => rio.map_window(index, place));
        self.look_at_window(index);
        done
    }

    fn grow_window(&mut self, index: usize, len: usize) -> Result<(), Error> {
        let done = each!(mut self, rio => rio.grow_window(index, len));
        self.look_at_window(index);
        done
    }

    fn protect(&self, at: At, len: usize, writable: bool) -> Result<(), Error> {
        each!(self, rio => rio.protect(at, len, writable))
    }

    fn shared_file(&self, index: usize) -> Option<&File> {
        each!(self, rio => rio.shared_file(index))
    }

    fn image_mut(&mut self) -> &mut Image {
        each!(mut self, rio => rio.image_mut())
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
