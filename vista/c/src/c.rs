//! The names of the thesis over raw addresses.
//!
//! A call never unwinds and never trusts an address: each is looked up among the mapped segments.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use rio_core::{At, Rio};
use rio_sim::Image;
use vista_core::{Core, Fault, SEGMENTS};

use vista::{AnyRio, Error, Kind, Options, Segment, SegmentOptions, Store, WorkingCopy};

/// What is built on Vista and has a part in its transactions: messages.
pub trait Extension {
    /// The transaction is about to commit; this is the last that belongs to it.
    fn before_end(&mut self, core: &mut Core<AnyRio>) -> Result<(), Error>;
    /// It is durable.
    fn ended(&mut self);
    /// It was undone.
    fn aborted(&mut self);
    /// For whoever attached it.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// `struct vista`.
pub struct Vista {
    // Dropped first: it may read what the store has mapped.
    extension: Option<Box<dyn Extension>>,
    store: Store<AnyRio>,
    /// Segments of kind VISTA_PAGES: the program works on these, not on the segment.
    copies: Vec<WorkingCopy>,
    /// Where the last address was found: the next is likely there too.
    recent: usize,
    error: CString,
}

const PAGES: c_int = 2;
const HEAP: c_int = 1;

thread_local! {
    static INIT_ERROR: RefCell<CString> = RefCell::new(CString::default());
}

/// # Safety
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_init(path: *const c_char, rio: c_int, log_len: usize) -> *mut Vista {
    // SAFETY: the caller vouches for the string.
    let path = Path::new(OsStr::from_bytes(
        unsafe { CStr::from_ptr(path) }.to_bytes(),
    ));
    let kind = [Kind::Tmpfs, Kind::Disk, Kind::Pmem]
        .get(rio as usize)
        .copied();
    let kind = kind.unwrap_or(Kind::Tmpfs);
    let mut options = Options::default();
    if log_len > 0 {
        options.log_len = log_len;
    }
    let store = match path.symlink_metadata() {
        Ok(_) => Store::open_on(path, options, |image: Image| AnyRio::open_as(kind, image)),
        Err(_) => Store::create_on(path, options, |image: Image| AnyRio::create_as(kind, image)),
    };
    match store {
        Ok(store) => Box::into_raw(Box::new(Vista {
            extension: None,
            store,
            copies: Vec::new(),
            recent: 1,
            error: CString::default(),
        })),
        Err(error) => {
            INIT_ERROR.with_borrow_mut(|slot| *slot = message(&error));
            ptr::null_mut()
        }
    }
}

/// # Safety
/// `v` comes from `vista_init` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_close(v: *mut Vista) {
    if v.is_null() {
        return;
    }
    // SAFETY: the caller hands over what `vista_init` made.
    let mut vista = unsafe { Box::from_raw(v) };
    if vista.store.core().in_transaction() {
        let _ = vista.abort();
    }
}

/// # Safety
/// `v` comes from `vista_init`; `name` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_map(
    v: *mut Vista,
    name: *const c_char,
    size: usize,
    address: *mut c_void,
    kind: c_int,
) -> *mut c_void {
    // SAFETY: the caller vouches for both.
    let (vista, name) = unsafe { (&mut *v, CStr::from_ptr(name)) };
    let mapped = vista.map(&name.to_string_lossy(), size, address.addr(), kind);
    vista.place_or_null(mapped)
}

/// # Safety
/// `v` comes from `vista_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_grow(v: *mut Vista, segment: *mut c_void, size: usize) -> c_int {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    let grown = vista
        .segment_at(segment)
        .and_then(|segment| vista.store.grow(segment, size));
    vista.status(grown)
}

/// # Safety
/// `v` comes from `vista_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_begin_transaction(v: *mut Vista) -> c_int {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    match vista.store.core().begin() {
        Ok(()) => 0,
        Err(fault) => vista.failed(fault),
    }
}

/// # Safety
/// `v` comes from `vista_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_set_range(v: *mut Vista, start: *mut c_void, size: usize) -> c_int {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    let at = vista.at(start.addr());
    match vista.store.core().set_range(at, size) {
        Ok(_) => 0,
        Err(fault) => vista.failed(fault),
    }
}

/// # Safety
/// `v` comes from `vista_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_end_transaction(v: *mut Vista) -> c_int {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    if !vista.copies.is_empty() && vista.store.core().in_transaction() {
        for copy in &mut vista.copies {
            if let Err(error) = copy.write_into(vista.store.core()) {
                let status = vista.status(Err(error));
                return status;
            }
        }
    }
    if vista.store.core().in_transaction()
        && let Some(extension) = &mut vista.extension
        && let Err(error) = extension.before_end(vista.store.core())
    {
        return vista.status(Err(error));
    }
    match vista.store.core().end() {
        Ok(()) => {
            vista.copies.iter_mut().for_each(WorkingCopy::committed);
            if let Some(extension) = &mut vista.extension {
                extension.ended();
            }
            0
        }
        Err(fault) => vista.failed(fault),
    }
}

/// # Safety
/// `v` comes from `vista_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_abort_transaction(v: *mut Vista) -> c_int {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    let aborted = vista.abort();
    vista.status(aborted)
}

/// # Safety
/// `v` comes from `vista_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_malloc(
    v: *mut Vista,
    segment: *mut c_void,
    size: usize,
) -> *mut c_void {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    let place = vista.segment_at(segment).and_then(|segment| {
        let got = vista.store.core().malloc(segment.index(), size);
        got.map(|at| vista.address(at))
            .map_err(|fault| vista.error(fault))
    });
    vista.place_or_null(place)
}

/// # Safety
/// `v` comes from `vista_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_free(v: *mut Vista, block: *mut c_void) -> c_int {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    let at = vista.at(block.addr());
    match vista.store.core().free(at) {
        Ok(()) => 0,
        Err(fault) => vista.failed(fault),
    }
}

/// # Safety
/// `v` comes from `vista_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_root(v: *mut Vista, segment: *mut c_void) -> *mut c_void {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    let place = vista.segment_at(segment).and_then(|segment| {
        let root = vista.store.core().root(segment.index());
        root.map(|at| vista.address(at))
            .map_err(|fault| vista.error(fault))
    });
    vista.place_or_null(place)
}

/// # Safety
/// `v` comes from `vista_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_set_root(
    v: *mut Vista,
    segment: *mut c_void,
    root: *mut c_void,
) -> c_int {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    let at = if root.is_null() {
        At::NOWHERE
    } else {
        vista.at(root.addr())
    };
    let set = vista.segment_at(segment).and_then(|segment| {
        vista
            .store
            .core()
            .set_root(segment.index(), at)
            .map_err(|fault| vista.error(fault))
    });
    vista.status(set)
}

/// # Safety
/// `v` comes from `vista_init` or is NULL. The string is good until the next failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_error(v: *const Vista) -> *const c_char {
    if v.is_null() {
        return INIT_ERROR.with_borrow(|error| error.as_ptr());
    }
    // SAFETY: the caller vouches for it.
    unsafe { (*v).error.as_ptr() }
}

impl Vista {
    /// Gives an extension its part in every transaction from now on; one can be attached.
    pub fn attach(&mut self, extension: Box<dyn Extension>) -> Result<(), Error> {
        if self.extension.is_some() {
            return Err(Error::Aborted(
                "attach: this image has an extension already: use what was opened first".into(),
            ));
        }
        self.extension = Some(extension);
        Ok(())
    }

    /// The store, and the extension if there is one, beside each other.
    pub fn parts(&mut self) -> (&mut Store<AnyRio>, Option<&mut (dyn Extension + 'static)>) {
        (&mut self.store, self.extension.as_deref_mut())
    }

    /// Keeps what `vista_error` will say, and passes the status on.
    pub fn fail(&mut self, text: &str, status: c_int) -> c_int {
        self.error = CString::new(text.replace('\0', "?")).unwrap_or_default();
        status
    }

    fn map(
        &mut self,
        name: &str,
        size: usize,
        address: usize,
        kind: c_int,
    ) -> Result<*mut u8, Error> {
        let segment = match self.store.segment(name) {
            Some(segment) => segment,
            None => {
                let options = match kind {
                    HEAP => SegmentOptions::heap(size).at(address),
                    // The address is the working copy's.
                    PAGES => SegmentOptions::raw(size),
                    _ => SegmentOptions::raw(size).at(address),
                };
                self.store.add_segment(name, options)?
            }
        };
        if kind != PAGES {
            return Ok(self.store.base(segment));
        }
        let copy = WorkingCopy::map(&self.store, segment, address, None)?;
        let base = copy.base();
        self.copies.push(copy);
        Ok(base)
    }

    fn abort(&mut self) -> Result<(), Error> {
        let path = self.store.path().to_owned();
        self.store.core().abort().map_err(Error::of(&path))?;
        if let Some(extension) = &mut self.extension {
            extension.aborted();
        }
        self.copies.iter_mut().try_for_each(WorkingCopy::abort)
    }

    /// The place of an address, or one that no segment has.
    #[inline]
    fn at(&mut self, address: usize) -> At {
        let rio = self.store.backend();
        let holds = |index: usize| {
            let window = rio.window(index);
            let offset = address.wrapping_sub(window.base.addr());
            (offset < window.len).then(|| At::new(index, offset))
        };
        if let Some(at) = holds(self.recent) {
            return at;
        }
        let found = (1..=SEGMENTS).find_map(holds);
        self.recent = found.map_or(self.recent, At::window);
        found.unwrap_or(At::NOWHERE)
    }

    fn segment_at(&mut self, address: *mut c_void) -> Result<Segment, Error> {
        let at = self.at(address.addr());
        match self.store.segment_of(at) {
            Some(segment) => Ok(segment),
            None => Err(self.error(Fault::Range {
                at,
                len: 0,
                window_len: 0,
            })),
        }
    }

    fn address(&self, at: At) -> *mut u8 {
        let window = self.store.backend().window(at.window());
        match at.window() > 0 && at.offset() < window.len {
            true => window.base.wrapping_add(at.offset()),
            false => ptr::null_mut(),
        }
    }

    fn place_or_null(&mut self, place: Result<*mut u8, Error>) -> *mut c_void {
        match place {
            Ok(place) => place.cast(),
            Err(error) => {
                self.error = message(&error);
                ptr::null_mut()
            }
        }
    }

    fn error(&self, fault: Fault) -> Error {
        Error::of(self.store.path())(fault)
    }

    #[cold]
    fn failed(&mut self, fault: Fault) -> c_int {
        let error = self.error(fault);
        self.status(Err(error))
    }

    /// The status of a result, whose error `vista_error` will say.
    pub fn status(&mut self, result: Result<(), Error>) -> c_int {
        let Err(error) = result else { return 0 };
        self.error = message(&error);
        match error.fault() {
            None | Some(Fault::Seal { .. }) => 6,
            Some(Fault::InTransaction) => 1,
            Some(Fault::NoTransaction) => 2,
            Some(
                Fault::Range { .. } | Fault::NotAllocated { .. } | Fault::NoSuchSegment { .. },
            ) => 3,
            Some(
                Fault::LogFull { .. }
                | Fault::HeapFull { .. }
                | Fault::NoMoreSegments
                | Fault::PastMax { .. }
                | Fault::Shrink { .. },
            ) => 4,
            Some(_) => 5,
        }
    }
}

fn message(error: &Error) -> CString {
    let text = error.to_string().replace('\0', "?");
    CString::new(text).unwrap_or_default()
}
