//! A transaction as the type system sees it: it borrows the store, and references borrow it.
//!
//! So none outlives it, none is shared while it may change, and a second one cannot begin. Every
//! use of a `Ptr` is checked against its segment, because the word may come from a damaged image.

use std::slice;

use rio_core::At;
use rio_sim::Backend;
use vista_core::{Fault, Fresh};

use crate::{Error, Persistent, Ptr, Segment, Store};

/// Dropped without `commit`, it aborts.
pub struct Transaction<'s, B: Backend> {
    store: &'s mut Store<B>,
    open: bool,
}

impl<'s, B: Backend> Transaction<'s, B> {
    #[inline]
    pub(crate) fn begin(store: &'s mut Store<B>) -> Result<Transaction<'s, B>, Error> {
        store
            .core
            .begin()
            .map_err(|fault| Error::of(store.path())(fault))?;
        let transaction = Transaction { store, open: true };
        transaction.store.open_own()?;
        Ok(transaction)
    }

    /// Makes everything durable, or on an error nothing.
    #[inline]
    pub fn commit(mut self) -> Result<(), Error> {
        self.store.core.end().map_err(|fault| self.error(fault))?;
        self.open = false;
        self.store.close()
    }

    /// Puts everything back. Dropping does the same and keeps quiet about errors.
    pub fn abort(mut self) -> Result<(), Error> {
        self.open = false;
        self.store.core.abort().map_err(|fault| self.error(fault))?;
        self.store.close()
    }

    #[inline]
    pub fn get<T: Persistent>(&self, ptr: Ptr<T>) -> Result<&T, Error> {
        let place = self.place::<T>(ptr.at(), 1)?;
        // SAFETY: in a segment, aligned, any bits are a T, and `&self` keeps every writer away.
        Ok(unsafe { &*place.cast() })
    }

    /// Saves the old value; what is stored through the reference is the transaction's.
    #[inline]
    pub fn get_mut<T: Persistent>(&mut self, ptr: Ptr<T>) -> Result<&mut T, Error> {
        let place = self.save::<T>(ptr.at(), 1)?;
        // SAFETY: as in `get`, and `&mut self` makes it the only reference.
        Ok(unsafe { &mut *place.cast() })
    }

    #[inline]
    pub fn set<T: Persistent>(&mut self, ptr: Ptr<T>, value: T) -> Result<(), Error> {
        *self.get_mut(ptr)? = value;
        Ok(())
    }

    #[inline]
    pub fn slice<T: Persistent>(&self, ptr: Ptr<T>, count: usize) -> Result<&[T], Error> {
        let place = self.place::<T>(ptr.at(), count)?;
        // SAFETY: as in `get`, for each of the elements.
        Ok(unsafe { slice::from_raw_parts(place.cast(), count) })
    }

    #[inline]
    pub fn slice_mut<T: Persistent>(
        &mut self,
        ptr: Ptr<T>,
        count: usize,
    ) -> Result<&mut [T], Error> {
        let place = self.save::<T>(ptr.at(), count)?;
        // SAFETY: as in `get_mut`, for each of the elements.
        Ok(unsafe { slice::from_raw_parts_mut(place.cast(), count) })
    }

    /// A block of the segment's heap, holding `value`.
    pub fn alloc<T: Persistent>(&mut self, segment: Segment, value: T) -> Result<Ptr<T>, Error> {
        self.alloc_slice(segment, &[value])
    }

    /// A block of the segment's heap, holding a copy of `values`.
    pub fn alloc_slice<T: Persistent>(
        &mut self,
        segment: Segment,
        values: &[T],
    ) -> Result<Ptr<T>, Error> {
        let store = &mut *self.store;
        let len = size_of_val(values);
        let at = store.core.malloc(segment.index(), len.max(1));
        let at = at.map_err(|fault| Error::of(store.path())(fault))?;
        store.open_range(at, len)?;
        let written = store.core.write_fresh(at, bytes_of(values));
        written.map_err(|fault| self.error(fault))?;
        Ok(Ptr::from_at(at))
    }

    /// A block of the segment's heap for so many bytes, to be stored into piece by piece; what is
    /// not stored into is whatever lay there.
    pub fn alloc_fresh(
        &mut self,
        segment: Segment,
        len: usize,
    ) -> Result<(Ptr<u8>, Fresh<'_, B>), Error> {
        let store = &mut *self.store;
        let at = store.core.malloc(segment.index(), len.max(1));
        let at = at.map_err(|fault| Error::of(store.path())(fault))?;
        store.open_range(at, len)?;
        if let Err(fault) = store.core.resolve(at, len) {
            return Err(self.error(fault));
        }
        let fresh = self.store.core.fresh(at, len);
        Ok((Ptr::from_at(at), fresh.expect("open, and just resolved")))
    }

    /// A block whose content nobody needs any more, even if this transaction is undone, to be stored
    /// into without saving what is there. None where only what was saved is written back.
    #[inline]
    pub fn overwrite(&mut self, block: Ptr<u8>, len: usize) -> Result<Option<Fresh<'_, B>>, Error> {
        if self.store.core.rio().writes_back() {
            return Ok(None);
        }
        self.place::<u8>(block.at(), len)?;
        self.store.open_range(block.at(), len)?;
        let fresh = self.store.core.fresh(block.at(), len);
        Ok(Some(fresh.expect("open, and just resolved")))
    }

    /// Gives a block back, once the transaction commits.
    pub fn free<T: Persistent>(&mut self, ptr: Ptr<T>) -> Result<(), Error> {
        self.store
            .core
            .free(ptr.at())
            .map_err(|fault| self.error(fault))
    }

    /// From where the program finds its data again.
    pub fn root<T: Persistent>(&self, segment: Segment) -> Result<Option<Ptr<T>>, Error> {
        let root = self
            .store
            .core
            .root(segment.index())
            .map_err(|fault| self.error(fault))?;
        Ok(Ptr::from_at(root).non_null())
    }

    pub fn set_root<T: Persistent>(&mut self, segment: Segment, ptr: Ptr<T>) -> Result<(), Error> {
        let set = self.store.core.set_root(segment.index(), ptr.at());
        set.map_err(|fault| self.error(fault))
    }

    /// Saves what lies there; a place that is not aligned is refused, and no harm was done.
    #[inline]
    fn save<T>(&mut self, at: At, count: usize) -> Result<*mut u8, Error> {
        let len = size_of::<T>().saturating_mul(count);
        // Opened first: an abort stores into whatever was logged.
        self.store.open_range(at, len)?;
        match self.store.core.set_range(at, len) {
            Ok(place) if place.addr().is_multiple_of(align_of::<T>()) => Ok(place),
            saved => Err(self.misplaced(at, len, saved.err())),
        }
    }

    #[inline]
    fn place<T>(&self, at: At, count: usize) -> Result<*mut u8, Error> {
        let len = size_of::<T>().saturating_mul(count);
        match self.store.core.resolve(at, len) {
            Ok(place) if place.addr().is_multiple_of(align_of::<T>()) => Ok(place),
            resolved => Err(self.misplaced(at, len, resolved.err())),
        }
    }

    #[cold]
    fn misplaced(&self, at: At, len: usize, fault: Option<Fault>) -> Error {
        let unaligned = Fault::Range {
            at,
            len,
            window_len: 0,
        };
        self.error(fault.unwrap_or(unaligned))
    }

    #[cold]
    fn error(&self, fault: Fault) -> Error {
        Error::of(self.store.path())(fault)
    }
}

impl<B: Backend> Drop for Transaction<'_, B> {
    fn drop(&mut self) {
        if self.open {
            // There is nobody to tell; the image still holds the undo, so opening it again
            // recovers.
            let _ = self.store.core.abort();
            let _ = self.store.close();
        }
    }
}

fn bytes_of<T: Persistent>(values: &[T]) -> &[u8] {
    // SAFETY: persistent types have no padding, so each byte is there to be read.
    unsafe { slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
