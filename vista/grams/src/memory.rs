//! The few things that the tables ask of an open transaction, whoever opened it.
//!
//! A Rust program holds a [`vista::Transaction`]; a C program and the simulator hold a bare
//! [`Core`]. Both are ways to the same undo log, so what is done to the tables through either is
//! part of the caller's own transaction.

use std::path::Path;
use std::slice;

use rio_core::{At, Rio};
use vista::{Backend, Persistent, Ptr, Segment, Transaction};
use vista_core::{Core, Fault, Fresh};

use crate::Error;

pub trait Memory {
    type Rio: Rio;

    fn get<T: Persistent>(&self, ptr: Ptr<T>) -> Result<T, Error>;
    fn set<T: Persistent>(&mut self, ptr: Ptr<T>, value: T) -> Result<(), Error>;
    /// A block of the tables' segment with these values.
    fn alloc<T: Persistent>(&mut self, values: &[T]) -> Result<Ptr<T>, Error>;
    /// A block of so many bytes, to be stored into.
    fn block(&mut self, len: usize) -> Result<(Ptr<u8>, Fresh<'_, Self::Rio>), Error>;
    /// The same, of a block whose content nobody needs, even if the transaction is undone. None
    /// where that would not become durable.
    fn overwrite(
        &mut self,
        block: Ptr<u8>,
        len: usize,
    ) -> Result<Option<Fresh<'_, Self::Rio>>, Error>;
    /// Gives a block back once the transaction commits.
    fn free<T: Persistent>(&mut self, ptr: Ptr<T>) -> Result<(), Error>;
    fn root<T: Persistent>(&self) -> Result<Option<Ptr<T>>, Error>;
    fn set_root<T: Persistent>(&mut self, ptr: Ptr<T>) -> Result<(), Error>;
}

/// A transaction of the Rust interface.
pub struct InTransaction<'t, 's, B: Backend> {
    pub tx: &'t mut Transaction<'s, B>,
    pub segment: Segment,
}

impl<B: Backend> Memory for InTransaction<'_, '_, B> {
    type Rio = B;

    #[inline]
    fn get<T: Persistent>(&self, ptr: Ptr<T>) -> Result<T, Error> {
        Ok(*self.tx.get(ptr)?)
    }

    #[inline]
    fn set<T: Persistent>(&mut self, ptr: Ptr<T>, value: T) -> Result<(), Error> {
        Ok(self.tx.set(ptr, value)?)
    }

    fn alloc<T: Persistent>(&mut self, values: &[T]) -> Result<Ptr<T>, Error> {
        Ok(self.tx.alloc_slice(self.segment, values)?)
    }

    #[inline]
    fn block(&mut self, len: usize) -> Result<(Ptr<u8>, Fresh<'_, B>), Error> {
        Ok(self.tx.alloc_fresh(self.segment, len)?)
    }

    #[inline]
    fn overwrite(&mut self, block: Ptr<u8>, len: usize) -> Result<Option<Fresh<'_, B>>, Error> {
        Ok(self.tx.overwrite(block, len)?)
    }

    fn free<T: Persistent>(&mut self, ptr: Ptr<T>) -> Result<(), Error> {
        Ok(self.tx.free(ptr)?)
    }

    fn root<T: Persistent>(&self) -> Result<Option<Ptr<T>>, Error> {
        Ok(self.tx.root(self.segment)?)
    }

    fn set_root<T: Persistent>(&mut self, ptr: Ptr<T>) -> Result<(), Error> {
        Ok(self.tx.set_root(self.segment, ptr)?)
    }
}

/// A core with a transaction open, and the number of the tables' segment.
pub struct InCore<'c, R: Rio> {
    pub core: &'c mut Core<R>,
    pub segment: usize,
    /// What messages call the image.
    pub path: &'c Path,
}

impl<R: Rio> InCore<'_, R> {
    fn error(&self, fault: Fault) -> Error {
        Error::Vista(vista::Error::of(self.path)(fault))
    }
}

impl<R: Rio> Memory for InCore<'_, R> {
    type Rio = R;

    fn get<T: Persistent>(&self, ptr: Ptr<T>) -> Result<T, Error> {
        let place = self.core.resolve(ptr.at(), size_of::<T>());
        let place = place.map_err(|fault| self.error(fault))?;
        // SAFETY: resolved to lie inside a segment; any bits are a T, aligned or not.
        Ok(unsafe { place.cast::<T>().read_unaligned() })
    }

    fn set<T: Persistent>(&mut self, ptr: Ptr<T>, value: T) -> Result<(), Error> {
        let written = self.core.write(ptr.at(), bytes_of(&[value]));
        written.map_err(|fault| self.error(fault))
    }

    fn alloc<T: Persistent>(&mut self, values: &[T]) -> Result<Ptr<T>, Error> {
        let at = self.core.malloc(self.segment, size_of_val(values).max(1));
        let at = at.map_err(|fault| self.error(fault))?;
        let written = self.core.write_fresh(at, bytes_of(values));
        written.map_err(|fault| self.error(fault))?;
        Ok(Ptr::from_at(at))
    }

    fn block(&mut self, len: usize) -> Result<(Ptr<u8>, Fresh<'_, R>), Error> {
        let at = self.core.malloc(self.segment, len.max(1));
        let at = at.map_err(|fault| self.error(fault))?;
        let path = self.path;
        let fresh = self.core.fresh(at, len);
        let fresh = fresh.map_err(|fault| Error::Vista(vista::Error::of(path)(fault)))?;
        Ok((Ptr::from_at(at), fresh))
    }

    fn overwrite(&mut self, block: Ptr<u8>, len: usize) -> Result<Option<Fresh<'_, R>>, Error> {
        if self.core.rio().writes_back() {
            return Ok(None);
        }
        let path = self.path;
        let fresh = self.core.fresh(block.at(), len);
        let fresh = fresh.map_err(|fault| Error::Vista(vista::Error::of(path)(fault)))?;
        Ok(Some(fresh))
    }

    fn free<T: Persistent>(&mut self, ptr: Ptr<T>) -> Result<(), Error> {
        self.core.free(ptr.at()).map_err(|fault| self.error(fault))
    }

    fn root<T: Persistent>(&self) -> Result<Option<Ptr<T>>, Error> {
        let root = self.core.root(self.segment);
        Ok(Ptr::from_at(root.map_err(|fault| self.error(fault))?).non_null())
    }

    fn set_root<T: Persistent>(&mut self, ptr: Ptr<T>) -> Result<(), Error> {
        let set = self.core.set_root(self.segment, ptr.at());
        set.map_err(|fault| self.error(fault))
    }
}

/// An image that is only looked at: `vista inspect`.
pub struct Looked<'r, R: Rio> {
    pub rio: &'r R,
    pub root: At,
}

impl<R: Rio> Memory for Looked<'_, R> {
    type Rio = R;

    fn get<T: Persistent>(&self, ptr: Ptr<T>) -> Result<T, Error> {
        let (at, len) = (ptr.at(), size_of::<T>());
        let window = self.rio.window(at.window());
        let inside = at.window() > 0 && at.offset() + len <= window.len;
        if !inside {
            return Err(Error::Damaged(format!(
                "place {at}+{len}: outside its segment"
            )));
        }
        // SAFETY: inside the window; any bits are a T, aligned or not.
        Ok(unsafe { window.base.add(at.offset()).cast::<T>().read_unaligned() })
    }

    fn root<T: Persistent>(&self) -> Result<Option<Ptr<T>>, Error> {
        Ok(Ptr::from_at(self.root).non_null())
    }

    fn set<T: Persistent>(&mut self, _: Ptr<T>, _: T) -> Result<(), Error> {
        Err(Error::ReadOnly)
    }

    fn alloc<T: Persistent>(&mut self, _: &[T]) -> Result<Ptr<T>, Error> {
        Err(Error::ReadOnly)
    }

    fn block(&mut self, _: usize) -> Result<(Ptr<u8>, Fresh<'_, R>), Error> {
        Err(Error::ReadOnly)
    }

    fn overwrite(&mut self, _: Ptr<u8>, _: usize) -> Result<Option<Fresh<'_, R>>, Error> {
        Err(Error::ReadOnly)
    }

    fn free<T: Persistent>(&mut self, _: Ptr<T>) -> Result<(), Error> {
        Err(Error::ReadOnly)
    }

    fn set_root<T: Persistent>(&mut self, _: Ptr<T>) -> Result<(), Error> {
        Err(Error::ReadOnly)
    }
}

fn bytes_of<T: Persistent>(values: &[T]) -> &[u8] {
    // SAFETY: persistent types have no padding, so each byte is there to be read.
    unsafe { slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
