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
    tail: usize,
    /// How high the log may grow now: its length in a transaction, 0 outside, so that one comparison
    /// on the path answers both whether there is room and whether a transaction is open.
    limit: usize,
    len: usize,
}

const KIND_SHIFT: u32 = 56;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// No range is longer, and no description of a block larger.
const ARG_LIMIT: u64 = 1 << 40;

impl Log {
    pub fn new(len: usize, tail: usize) -> Log {
        Log {
            tail,
            limit: 0,
            len,
        }
    }

    #[inline(always)]
    pub fn tail(&self) -> usize {
        self.tail
    }

    #[inline(always)]
    pub fn is_open(&self) -> bool {
        self.limit != 0
    }

    #[inline(always)]
    pub fn open(&mut self) {
        self.limit = self.len;
    }

    /// Forgets all records: the one store that commits, or that ends an undo.
    #[inline(always)]
    pub fn close<R: Rio>(&mut self, rio: &R) {
        // An empty log needs no store: a transaction that changed nothing costs nothing.
        if self.tail > 0 {
            self.set_tail(rio, 0);
        }
        self.limit = 0;
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
        let tail = self.tail;
        let trailer = tail + ((image.len() + 7) & !7);
        let end = trailer + RECORD_TRAILER;
        if end > self.limit {
            return Err(self.no_room(end));
        }
        let words = trailer_words(trailer, kind as u64, at.word(), arg);
        let base = rio.window(0).base.wrapping_add(LOG_AT);
        let begins = At::new(0, LOG_AT + tail);
        // SAFETY: the room was checked above, and the log lies in window 0, where no image is taken
        // from (the roots excepted, which are disjoint from the log).
        unsafe {
            rio.store_mapped(begins, base.wrapping_add(tail), image);
            let at = At::new(0, LOG_AT + trailer);
            rio.store_mapped(at, base.wrapping_add(trailer), as_bytes(&words));
        }
        rio.order(begins, end - tail);
        self.set_tail(rio, end);
        Ok(())
    }

    /// Publishes a height: the store that makes a record count.
    #[inline(always)]
    fn set_tail<R: Rio>(&mut self, rio: &R, tail: usize) {
        self.tail = tail;
        // SAFETY: TAIL is an aligned word of the control page.
        unsafe { rio.store_word(TAIL, tail as u64) };
        rio.order(TAIL, 8);
    }

    #[cold]
    fn no_room(&self, end: usize) -> Fault {
        match self.is_open() {
            true => Fault::LogFull {
                needs: end - self.tail,
                left: self.len - self.tail,
            },
            false => Fault::NoTransaction,
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
    let [at, mixed] = unsafe { log_base(rio).add(trailer).cast::<[u64; 2]>().read() };
    let kind_arg = unmixed(trailer, at, mixed);
    let arg = kind_arg & ((1 << KIND_SHIFT) - 1);
    if arg >= ARG_LIMIT {
        return bad("its two words do not fit each other");
    }
    let (kind, image_len) = match kind_arg >> KIND_SHIFT {
        1 => (Kind::Range, arg as usize),
        2 => (Kind::Malloc, 0),
        3 => (Kind::Free, 0),
        _ => return bad("its two words do not fit each other, or its kind is unknown"),
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

/// The second word is mixed with the first and with the place, and unmixes to a small kind and a
/// small argument only if all three belong together. That is no defence against malice: it tells a
/// record from bytes that happen to lie there, without a word more.
#[inline(always)]
fn trailer_words(position: usize, kind: u64, at: u64, arg: u64) -> [u64; 2] {
    let kind_arg = kind << KIND_SHIFT | arg;
    [
        at,
        kind_arg.wrapping_add(at.wrapping_mul(FACTOR)) ^ position as u64,
    ]
}

fn unmixed(position: usize, at: u64, mixed: u64) -> u64 {
    (mixed ^ position as u64).wrapping_sub(at.wrapping_mul(FACTOR))
}

#[inline(always)]
fn as_bytes(words: &[u64; 2]) -> &[u8] {
    // SAFETY: two words are 16 bytes, any of which may be read.
    unsafe { slice::from_raw_parts(words.as_ptr().cast(), RECORD_TRAILER) }
}
