//! The undo log: a stack of records in window 0, whose height is one word.
//!
//! The height is the whole state of a transaction. A record counts from the moment the height
//! covers it, so its bytes are ordered before the height is; height 0 is a commit.

use core::slice;

use rio_core::{At, Rio};

use crate::Fault;
use crate::layout::{LOG_AT, RECORD_TRAILER, TAIL};

/// What a record undoes. Operations of the heap are logged by what they did, not by the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Range = 1,
    Malloc = 2,
    Free = 3,
}

/// A record as the walk finds it. `arg` is the length of a range, or describes a block of the heap.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub kind: Kind,
    pub at: At,
    pub arg: u64,
    /// Where in the log the record begins, which is where the walk goes on.
    pub begins: usize,
}

/// The writer's view: the height is kept beside, so that the path reads no persistent memory.
pub struct Log {
    len: usize,
    tail: usize,
}

const KIND_SHIFT: u32 = 56;
const ARG_MASK: u64 = (1 << KIND_SHIFT) - 1;

impl Log {
    pub fn new(len: usize, tail: usize) -> Log {
        Log { len, tail }
    }

    pub fn tail(&self) -> usize {
        self.tail
    }

    /// Appends a record; when this returns, a crash undoes it.
    #[inline(always)]
    pub fn push<R: Rio>(
        &mut self,
        rio: &R,
        kind: Kind,
        at: At,
        arg: u64,
        image: &[u8],
    ) -> Result<(), Fault> {
        let padded = image.len().wrapping_add(7) & !7;
        let len = padded.wrapping_add(RECORD_TRAILER);
        // An image lies in a window, so its length is far from wrapping.
        if len > self.len - self.tail {
            return Err(self.full(len));
        }
        let begins = At::new(0, LOG_AT + self.tail);
        let trailer = At::new(0, LOG_AT + self.tail + padded);
        let words = trailer_words(self.tail + padded, kind as u64, at.word(), arg);
        // SAFETY: the room was checked above, and the log lies in window 0, where no image is taken
        // from (the roots excepted, which are disjoint from the log).
        unsafe {
            rio.store(begins, image);
            rio.store(trailer, as_bytes(&words));
        }
        rio.order(begins, len);
        self.set_tail(rio, self.tail + len);
        Ok(())
    }

    /// Publishes a height: the one store that makes records count, or forgets them all.
    #[inline(always)]
    pub fn set_tail<R: Rio>(&mut self, rio: &R, tail: usize) {
        self.tail = tail;
        // SAFETY: TAIL is an aligned word of the control page.
        unsafe { rio.store_word(TAIL, tail as u64) };
        rio.order(TAIL, 8);
    }

    #[cold]
    fn full(&self, needs: usize) -> Fault {
        Fault::LogFull {
            needs,
            left: self.len - self.tail,
        }
    }
}

/// The record that ends at `tail`, believed only as far as it was checked.
pub fn record_before<R: Rio>(rio: &R, tail: usize) -> Result<Record, Fault> {
    let bad = |why| Err(Fault::LogRecord { at: tail, why });
    if tail < RECORD_TRAILER || !tail.is_multiple_of(8) {
        return bad("it begins before the log");
    }
    let trailer = tail - RECORD_TRAILER;
    // SAFETY: `tail` is within the log: the caller starts at a checked height and only goes down.
    let [at, kind_arg, check] = unsafe { log_base(rio).add(trailer).cast::<[u64; 3]>().read() };
    let arg = kind_arg & ARG_MASK;
    if trailer_words(trailer, kind_arg >> KIND_SHIFT, at, arg)[2] != check {
        return bad("its check word does not fit");
    }
    let (kind, image_len) = match kind_arg >> KIND_SHIFT {
        1 => (Kind::Range, arg as usize),
        2 => (Kind::Malloc, 0),
        3 => (Kind::Free, 0),
        _ => return bad("its kind is unknown"),
    };
    match trailer.checked_sub(image_len.saturating_add(7) & !7) {
        Some(begins) => Ok(Record {
            kind,
            at: At::from_word(at),
            arg,
            begins,
        }),
        None => bad("its image is longer than the log"),
    }
}

/// The old bytes that a range record holds.
pub fn image<'a, R: Rio>(rio: &'a R, record: &Record) -> &'a [u8] {
    // SAFETY: `record_before` checked that the image lies in the log, where nothing is stored while
    // a record is read.
    unsafe { slice::from_raw_parts(log_base(rio).add(record.begins), record.arg as usize) }
}

fn log_base<R: Rio>(rio: &R) -> *const u8 {
    rio.window(0).base.wrapping_add(LOG_AT)
}

/// The check word is no defence against malice: it tells a record from bytes that happen to lie
/// there.
#[inline]
fn trailer_words(position: usize, kind: u64, at: u64, arg: u64) -> [u64; 3] {
    let kind_arg = kind << KIND_SHIFT | arg;
    let mixed = (at.rotate_left(23) ^ kind_arg).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [at, kind_arg, mixed ^ position as u64]
}

#[inline]
fn as_bytes(words: &[u64; 3]) -> &[u8] {
    // SAFETY: three words are 24 bytes, any of which may be read.
    unsafe { slice::from_raw_parts(words.as_ptr().cast(), RECORD_TRAILER) }
}
