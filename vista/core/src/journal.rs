//! The journal of an interval: what must not wait for the commit.
//!
//! Between two commits some things have to be in Rio at once: before-images of
//! file contents, input that was consumed, output that was made. They are
//! appended here, in order, and are all void as soon as the next commit is
//! published. No store clears them: the tail carries the number of the commit
//! that would void it, so publishing does.
//!
//! ```text
//! word:     [ published + 1, low 32 bits | tail, 32 bits ]
//! records:  [ kind u32 | len u32 | payload, padded to 8 ] ...
//! ```
//!
//! A record counts from the store of the tail on, which comes after its bytes.
#![allow(unsafe_code)] // Raw mapped memory is this module's subject.

use core::sync::atomic::{AtomicU64, Ordering::*};

pub const RECORD_HEAD: usize = 8;

/// Where a journal lies.
#[derive(Clone, Copy)]
pub struct Journal {
    bytes: *mut u8,
    len: usize,
    word: *const AtomicU64,
    published: *const AtomicU64,
}

/// The record would not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalFull;

/// One record: its kind and payload, and its offset (for [`Journal::records`]).
#[derive(Clone, Copy)]
pub struct Record<'a> {
    pub kind: u32,
    pub payload: &'a [u8],
    pub offset: usize,
}

impl Journal {
    pub const fn closed() -> Journal {
        Journal {
            bytes: core::ptr::null_mut(),
            len: 0,
            word: core::ptr::null(),
            published: core::ptr::null(),
        }
    }

    /// # Safety
    /// The pointers describe mapped memory that outlives the journal and that
    /// only this process appends to.
    pub const unsafe fn new(
        bytes: *mut u8,
        len: usize,
        word: *const AtomicU64,
        published: *const AtomicU64,
    ) -> Journal {
        Journal {
            bytes,
            len,
            word,
            published,
        }
    }

    fn tag(&self) -> u64 {
        // SAFETY: `new`'s promise.
        (unsafe { (*self.published).load(Relaxed) } + 1) << 32
    }

    /// Bytes in use in this interval.
    pub fn tail(&self) -> usize {
        // SAFETY: `new`'s promise.
        let word = unsafe { (*self.word).load(Acquire) };
        if word & !0xffff_ffff == self.tag() {
            (word as u32 as usize).min(self.len)
        } else {
            0
        }
    }

    /// Room for a payload, at the place where the next record's will lie; it
    /// counts when [`Journal::append_in_place`] is called.
    pub fn room(&self) -> (*mut u8, usize) {
        let at = self.tail() + RECORD_HEAD;
        let len = self.len.saturating_sub(at);
        // SAFETY: within the journal, or len is 0 and it is never read.
        (unsafe { self.bytes.add(at) }, len)
    }

    /// Makes a record of the payload already at [`Journal::room`].
    pub fn append_in_place(&self, kind: u32, len: usize) -> Result<(), JournalFull> {
        let tail = self.tail();
        let next = tail + RECORD_HEAD + len.next_multiple_of(8);
        if next > self.len || next > u32::MAX as usize {
            return Err(JournalFull);
        }
        // SAFETY: `tail..next` lies within the journal.
        unsafe {
            let head = self.bytes.add(tail).cast::<u32>();
            head.write(kind);
            head.add(1).write(len as u32);
            (*self.word).store(self.tag() | next as u64, Release);
        }
        Ok(())
    }

    /// Appends a record made of several parts.
    pub fn append(&self, kind: u32, parts: &[&[u8]]) -> Result<(), JournalFull> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let (mut at, room) = self.room();
        if len > room {
            return Err(JournalFull);
        }
        for part in parts {
            // SAFETY: the sum of the parts fits, as just checked.
            unsafe {
                core::ptr::copy_nonoverlapping(part.as_ptr(), at, part.len());
                at = at.add(part.len());
            }
        }
        self.append_in_place(kind, len)
    }

    /// The records of this interval from `offset` on, oldest first. A record
    /// that cannot be right ends the walk.
    pub fn records(&self, offset: usize) -> impl Iterator<Item = Record<'_>> {
        let tail = self.tail();
        let mut at = offset;
        core::iter::from_fn(move || {
            if at + RECORD_HEAD > tail {
                return None;
            }
            // SAFETY: below the tail; lengths are checked against it.
            unsafe {
                let head = self.bytes.add(at).cast::<u32>();
                let (kind, len) = (head.read(), head.add(1).read() as usize);
                if at + RECORD_HEAD + len > tail {
                    return None;
                }
                let payload = core::slice::from_raw_parts(self.bytes.add(at + RECORD_HEAD), len);
                let record = Record {
                    kind,
                    payload,
                    offset: at,
                };
                at += RECORD_HEAD + len.next_multiple_of(8);
                Some(record)
            }
        })
    }
}
