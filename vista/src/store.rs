//! A store: an image that is open, its segments mapped, the last crash's transaction undone.

use std::path::Path;

use rio_core::At;
use rio_sim::{Backend, Image, Place};
use vista_core::{Core, Geometry, PAGE, SegmentInfo, meta_len, meta_len_of_heap, read_header};

use crate::{Error, Transaction};

/// Addresses kept free behind window 0, for the heaps of segments that are added later.
const META_ROOM: usize = 4 << 30;

/// What a new store is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The longest transaction, in bytes of undo; untouched room costs nothing.
    pub log_len: usize,
    /// Write-protect the mappings between transactions, so that a stray store faults.
    pub protect: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            log_len: 64 << 20,
            protect: false,
        }
    }
}

/// What a new segment is like.
#[derive(Clone, Copy, Debug)]
pub struct SegmentOptions {
    pub len: usize,
    /// How far it can grow without moving.
    pub max_len: usize,
    /// Where it is mapped, in every process; 0 leaves it to the kernel.
    pub address: usize,
    /// The heap takes what lies behind this offset.
    pub heap_at: usize,
}

impl SegmentOptions {
    /// A segment that is all heap.
    pub fn heap(len: usize) -> SegmentOptions {
        SegmentOptions {
            len,
            max_len: (4 * len).max(64 << 20),
            address: 0,
            heap_at: 0,
        }
    }

    /// A segment whose layout is the program's own.
    pub fn raw(len: usize) -> SegmentOptions {
        let max_len = (4 * len).max(64 << 20);
        SegmentOptions {
            len,
            max_len,
            address: 0,
            heap_at: max_len,
        }
    }

    pub fn at(self, address: usize) -> SegmentOptions {
        SegmentOptions { address, ..self }
    }
}

/// A segment of a store, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment(usize);

impl Segment {
    pub fn index(self) -> usize {
        self.0
    }

    /// The place of a byte of the segment.
    #[inline]
    pub fn at(self, offset: usize) -> At {
        At::new(self.0, offset.min((1 << 48) - 1))
    }
}

pub struct Store<B: Backend> {
    pub(crate) core: Core<B>,
    protect: bool,
    /// The user's ranges that the running transaction opened.
    opened: Vec<(At, usize)>,
}

impl<B: Backend> Store<B> {
    pub fn create(path: &Path, options: Options) -> Result<Store<B>, Error> {
        Store::create_on(path, options, B::create)
    }

    pub fn open(path: &Path, options: Options) -> Result<Store<B>, Error> {
        Store::open_on(path, options, B::open)
    }

    pub fn open_or_create(path: &Path, options: Options) -> Result<Store<B>, Error> {
        match path.symlink_metadata() {
            Ok(_) => Store::open(path, options),
            Err(_) => Store::create(path, options),
        }
    }

    /// As `create`, with the choice of a backend left to the caller.
    pub fn create_on(
        path: &Path,
        options: Options,
        backend: impl FnOnce(Image) -> Result<B, rio_sim::Error>,
    ) -> Result<Store<B>, Error> {
        let log_len = options.log_len.next_multiple_of(PAGE).max(PAGE);
        let geometry = Geometry {
            log_len,
            owner: rio_sim::effective_uid(),
        };
        let mut rio = backend(Image::create(path)?)?;
        let place = Place {
            len: meta_len(&geometry),
            room: META_ROOM,
            address: 0,
        };
        rio.create_window(0, place)?;
        vista_core::create(&rio, &geometry).map_err(Error::of(path))?;
        rio.image_mut().publish(path)?;
        Store::start(rio, options)
    }

    /// As `open`, with the choice of a backend left to the caller.
    pub fn open_on(
        path: &Path,
        options: Options,
        backend: impl FnOnce(Image) -> Result<B, rio_sim::Error>,
    ) -> Result<Store<B>, Error> {
        let mut rio = backend(Image::open(path, true)?)?;
        map_all(&mut rio).map_err(|error| error.unwrap_or_else(Error::of(path)))?;
        Store::start(rio, options)
    }

    fn start(rio: B, options: Options) -> Result<Store<B>, Error> {
        let path = rio.path().to_owned();
        let core = Core::open(rio, rio_sim::effective_uid()).map_err(Error::of(&path))?;
        let mut store = Store {
            core,
            protect: options.protect,
            opened: Vec::new(),
        };
        store.open_all()?;
        store.close()?;
        Ok(store)
    }

    /// Whether the mappings are protected between transactions.
    pub fn is_protected(&self) -> bool {
        self.protect
    }

    pub fn path(&self) -> &Path {
        self.core.rio().path()
    }

    pub fn backend(&self) -> &B {
        self.core.rio()
    }

    pub fn segment(&self, name: &str) -> Option<Segment> {
        let found = (1..=self.core.segments()).find(|&index| {
            let info = self.core.segment(index);
            info.is_ok_and(|info| Some(info.name) == name_bytes(name))
        });
        found.map(Segment)
    }

    /// The untyped operations, for whoever brings no types: another language, a checkpoint engine.
    #[inline]
    pub fn core(&mut self) -> &mut Core<B> {
        &mut self.core
    }

    /// The segment that a place is in.
    pub fn segment_of(&self, at: At) -> Option<Segment> {
        (1..=self.core.segments())
            .contains(&at.window())
            .then_some(Segment(at.window()))
    }

    pub fn info(&self, segment: Segment) -> Result<SegmentInfo, Error> {
        self.core
            .segment(segment.0)
            .copied()
            .map_err(Error::of(self.path()))
    }

    /// How many blocks of the segment's heap are allocated.
    pub fn blocks(&self, segment: Segment) -> Result<usize, Error> {
        let mut blocks = 0;
        let walked = self.core.each_block(segment.0, |_, _| blocks += 1);
        walked.map(|()| blocks).map_err(Error::of(self.path()))
    }

    /// Where the segment begins in this process.
    pub fn base(&self, segment: Segment) -> *mut u8 {
        self.core.rio().window(segment.0).base
    }

    pub fn segment_or_create(
        &mut self,
        name: &str,
        options: SegmentOptions,
    ) -> Result<Segment, Error> {
        match self.segment(name) {
            Some(segment) => Ok(segment),
            None => self.add_segment(name, options),
        }
    }

    pub fn add_segment(&mut self, name: &str, options: SegmentOptions) -> Result<Segment, Error> {
        let path = self.path().to_owned();
        let name = name_bytes(name)
            .filter(|_| self.segment(name).is_none())
            .ok_or_else(|| {
                Error::Aborted(format!(
                    "segment {name}: the name is taken, or not 1 to 24 bytes long: choose another"
                ))
            })?;
        let len = options.len.next_multiple_of(PAGE).max(PAGE);
        let max_len = options.max_len.next_multiple_of(PAGE).max(len);
        let row = SegmentInfo {
            len: len as u64,
            max_len: max_len as u64,
            address: options.address as u64,
            heap_at: options.heap_at.next_multiple_of(PAGE).min(max_len) as u64,
            meta_at: 0,
            name,
        };
        let index = self.core.segments() + 1;
        if index > vista_core::SEGMENTS {
            return Err(Error::of(&path)(vista_core::Fault::NoMoreSegments));
        }
        let table = self.core.table().map_err(Error::of(&path))?;
        let place = Place {
            len,
            room: max_len,
            address: options.address,
        };
        let rio = self.core.rio_mut();
        rio.create_window(index, place)?;
        rio.grow_window(0, table.meta_len as usize + meta_len_of_heap(&row))?;
        self.open_own()?;
        let added = self
            .core
            .add_segment(row)
            .map(Segment)
            .map_err(Error::of(&path));
        self.open_all()?;
        self.close()?;
        added
    }

    /// Lengthens a segment in place.
    pub fn grow(&mut self, segment: Segment, len: usize) -> Result<(), Error> {
        let info = self.info(segment)?;
        let len = len.next_multiple_of(PAGE);
        let path = self.path().to_owned();
        let fault = match len as u64 {
            to if to < info.len => Some(vista_core::Fault::Shrink { len: info.len, to }),
            to if to > info.max_len => Some(vista_core::Fault::PastMax {
                to,
                max: info.max_len,
            }),
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(Error::of(&path)(fault));
        }
        self.core.rio_mut().grow_window(segment.0, len)?;
        self.open_own()?;
        let grown = self.core.grow(segment.0, len).map_err(Error::of(&path));
        self.open_all()?;
        self.close()?;
        grown
    }

    /// Opens a transaction; dropping it aborts.
    pub fn begin(&mut self) -> Result<Transaction<'_, B>, Error> {
        Transaction::begin(self)
    }

    /// Runs a transaction: commits if the body says Ok, aborts if it says Err.
    pub fn transaction<T>(
        &mut self,
        body: impl FnOnce(&mut Transaction<'_, B>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut transaction = self.begin()?;
        let value = body(&mut transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// A transaction without the type's help: whoever begins it also ends or aborts it.
    pub(crate) fn with_core(
        &mut self,
        body: impl FnOnce(&mut Core<B>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = self.path().to_owned();
        self.core.begin().map_err(Error::of(&path))?;
        let done = self.open_all().and_then(|()| body(&mut self.core));
        let ended = done.and_then(|()| self.core.end().map_err(Error::of(&path)));
        if ended.is_err() {
            self.core.abort().map_err(Error::of(&path))?;
        }
        self.close()?;
        ended
    }

    /// Opens Vista's own window for stores, if the mappings are protected at all.
    #[inline]
    pub fn open_own(&mut self) -> Result<(), Error> {
        match self.protect {
            true => Ok(self.core.rio().protect(At::NOWHERE, usize::MAX, true)?),
            false => Ok(()),
        }
    }

    /// Opens the pages of a range, until `close`.
    #[inline]
    pub fn open_range(&mut self, at: At, len: usize) -> Result<(), Error> {
        if self.protect {
            self.core.rio().protect(at, len, true)?;
            self.opened.push((at, len));
        }
        Ok(())
    }

    fn open_all(&mut self) -> Result<(), Error> {
        self.open_own()?;
        for index in 1..=self.core.segments() {
            self.open_range(At::new(index, 0), usize::MAX)?;
        }
        Ok(())
    }

    /// Protects again what the transaction opened.
    #[inline]
    pub fn close(&mut self) -> Result<(), Error> {
        if self.protect {
            self.core.rio().protect(At::NOWHERE, usize::MAX, false)?;
            for (at, len) in self.opened.drain(..) {
                self.core.rio().protect(at, len, false)?;
            }
        }
        Ok(())
    }
}

/// Maps window 0, reads the table, maps the rest. The outer error is the storage's.
pub(crate) fn map_all<B: Backend>(rio: &mut B) -> Result<(), Result<Error, vista_core::Fault>> {
    let storage = |error: rio_sim::Error| Ok(Error::Rio(error));
    let place = Place {
        len: usize::MAX,
        room: META_ROOM,
        address: 0,
    };
    rio.map_window(0, place).map_err(storage)?;
    let (_, table) = read_header(rio, rio_sim::effective_uid()).map_err(Err)?;
    for (index, row) in table.rows.iter().take(table.segments as usize).enumerate() {
        let place = Place {
            len: row.len as usize,
            room: row.max_len as usize,
            address: row.address as usize,
        };
        rio.map_window(index + 1, place).map_err(storage)?;
    }
    Ok(())
}

fn name_bytes(name: &str) -> Option<[u8; 24]> {
    let mut bytes = [0; 24];
    let fits = !name.is_empty() && name.len() <= bytes.len() && !name.contains('\0');
    fits.then(|| {
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes
    })
}
