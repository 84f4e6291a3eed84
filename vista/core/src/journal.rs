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
//! durable:  the word, as it was when the storage last had all of it
//! records:  [ kind u32 | len u32 | sum u64 | payload, padded to 8 ] ...
//! ```
//!
//! A record counts from the store of the tail on, which comes after its bytes.
//!
//! That is all that memory needs to be found again. Each record carries a sum, and each sum
//! goes on from the one before, the first from the interval's number: a record is whole only
//! behind whole records of its own interval. So the records themselves say how far the
//! journal goes, and [`Journal::examine`] compares that with the words.
//!
//! A disk gets its pages in any order, so a power loss may leave a tail that is newer than
//! the records below it, and in their place what an earlier interval has written there. Then
//! the journal ends at the first record that is not whole, if that lies behind `durable`.
//! Before it, and wherever nothing can be lost, something has damaged the storage, and
//! nobody may go on as if it had not. Whole records behind the tail count: they were
//! appended, and the word was lost.
#![allow(unsafe_code)] // Raw mapped memory is this module's subject.

use core::sync::atomic::{AtomicU64, Ordering::*};
use rio_core::checksum;

pub const RECORD_HEAD: usize = 16;

/// Where a journal lies.
pub struct Journal {
    bytes: *mut u8,
    len: usize,
    words: Words,
    /// The storage may lose what was not made durable.
    may_lose: bool,
    /// The sum of the newest record.
    last: u64,
}

/// The words that go with it.
#[derive(Clone, Copy)]
pub struct Words {
    pub word: *const AtomicU64,
    pub durable: *const AtomicU64,
    pub published: *const AtomicU64,
}

/// What the storage has made of a journal. Offsets are bytes from its begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    Whole,
    /// It was cut off at `at`, before `tail`: the rest never was made durable.
    Torn {
        at: usize,
        tail: usize,
    },
    /// It is not what was made durable, up to `durable`. Nothing was changed.
    Damaged {
        at: usize,
        durable: usize,
    },
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
            words: Words {
                word: core::ptr::null(),
                durable: core::ptr::null(),
                published: core::ptr::null(),
            },
            may_lose: false,
            last: 0,
        }
    }

    /// `may_lose`: the storage may lose what was not made durable. A journal that
    /// has records already is to be [examined](Journal::examine) first.
    ///
    /// # Safety
    /// The pointers describe mapped memory that outlives the journal and that
    /// only this process appends to.
    pub const unsafe fn new(bytes: *mut u8, len: usize, words: Words, may_lose: bool) -> Journal {
        Journal {
            bytes,
            len,
            words,
            may_lose,
            last: 0,
        }
    }

    fn published(&self) -> u64 {
        // SAFETY: `new`'s promise.
        unsafe { (*self.words.published).load(Relaxed) }
    }

    fn tag(&self) -> u64 {
        tag(self.published())
    }

    /// Bytes in use in this interval.
    pub fn tail(&self) -> usize {
        // SAFETY: `new`'s promise.
        self.offset_in(unsafe { (*self.words.word).load(Acquire) })
    }

    /// The offset that a word holds, 0 if it is not of this interval.
    fn offset_in(&self, word: u64) -> usize {
        if word & !0xffff_ffff == self.tag() {
            (word as u32 as usize).min(self.len)
        } else {
            0
        }
    }

    /// The storage has all that was appended so far.
    pub fn made_durable(&self) {
        // SAFETY: `new`'s promise.
        unsafe { (*self.words.durable).store((*self.words.word).load(Relaxed), Relaxed) }
    }

    /// The sum of the newest record, for a journal that several append to in turn: each
    /// takes it from the one before and leaves it to the next.
    pub fn sum(&self) -> u64 {
        self.last
    }

    /// See [`Journal::sum`].
    pub fn set_sum(&mut self, sum: u64) {
        self.last = sum;
    }

    /// Before [`Journal::examine`]: though the storage may lose something, it has not.
    pub fn nothing_was_lost(&mut self) {
        self.may_lose = false;
    }

    /// Reads all of it, cuts off what a power loss has torn, and takes in what is whole.
    pub fn examine(&mut self) -> Found {
        let tail = self.tail();
        // SAFETY: `new`'s promise.
        let durable = self.offset_in(unsafe { (*self.words.durable).load(Relaxed) });
        let durable = if self.may_lose { durable } else { tail };
        // SAFETY: `new`'s promise.
        let bytes = unsafe { core::slice::from_raw_parts(self.bytes, self.len) };
        let (at, last) = whole(bytes, self.published());
        if at < durable {
            return Found::Damaged { at, durable };
        }
        self.last = last;
        if at == tail {
            return Found::Whole;
        }
        // SAFETY: `new`'s promise.
        unsafe { (*self.words.word).store(self.tag() | at as u64, Release) };
        match at < tail {
            true => Found::Torn { at, tail },
            false => Found::Whole,
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
    pub fn append_in_place(&mut self, kind: u32, len: usize) -> Result<(), JournalFull> {
        let tail = self.tail();
        let next = tail + RECORD_HEAD + len.next_multiple_of(8);
        if next > self.len || next > u32::MAX as usize {
            return Err(JournalFull);
        }
        let tag = self.tag();
        // SAFETY: `tail..next` lies within the journal.
        unsafe {
            let payload = core::slice::from_raw_parts(self.bytes.add(tail + RECORD_HEAD), len);
            let before = if tail == 0 { tag } else { self.last };
            self.last = chained(before, kind, payload);
            let head = self.bytes.add(tail).cast::<u32>();
            head.write(kind);
            head.add(1).write(len as u32);
            head.add(2).cast::<u64>().write(self.last);
            (*self.words.word).store(tag | next as u64, Release);
        }
        Ok(())
    }

    /// Appends a record made of several parts.
    pub fn append(&mut self, kind: u32, parts: &[&[u8]]) -> Result<(), JournalFull> {
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

/// What marks the interval behind a commit.
fn tag(published: u64) -> u64 {
    (published + 1) << 32
}

/// How far the records of the interval behind a commit go that are whole, and the sum of
/// the last one.
pub fn whole(bytes: &[u8], published: u64) -> (usize, u64) {
    let (mut at, mut last) = (0, tag(published));
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(bytes.get(at..at + 8)?);
        Some(u64::from_le_bytes(word))
    };
    while let (Some(head), Some(sum)) = (word(at), word(at + 8)) {
        let (kind, len) = (head as u32, (head >> 32) as usize);
        let from = at + RECORD_HEAD;
        let Some(payload) = bytes.get(from..from + len) else {
            break;
        };
        if sum != chained(last, kind, payload) {
            break;
        }
        last = sum;
        at = from + len.next_multiple_of(8);
    }
    (at, last)
}

/// The sum of a record that follows one with the sum `before`.
fn chained(before: u64, kind: u32, payload: &[u8]) -> u64 {
    checksum(before ^ u64::from(kind), payload)
}
