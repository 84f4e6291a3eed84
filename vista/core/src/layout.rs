//! The bytes of window 0, which holds all that is Vista's own; the user's data lies in windows
//! 1..=15.
//!
//! ```text
//!        0  +-----------------------------------------------------------------+
//!           | magic "VISTA\0\r\n" | version u32, owner u32 | log_len u64      |  never changed
//!       24  | checksum u64 of all this                                        |
//!     1024  | table A: checksum, segments, meta_len,                          |  one of them counts;
//!           |   15 x { len, max_len, address, heap_at, meta_at, name }        |  a change is written
//!     2048  | table B                                                         |  to the other
//!     4096  +-----------------------------------------------------------------+
//!           | tail u64: 0 = no transaction; else bytes of undo log in use     |  control page
//!     4104  | active u64: 0 = table A, 1 = table B                            |
//!     4160  | roots: 16 x u64                                                 |
//!     8192  +-----------------------------------------------------------------+
//!           | undo log, log_len bytes, a stack of:                            |
//!           |   old bytes, padded to 8 | at u64 | kind << 56 + arg, mixed     |
//!           +-----------------------------------------------------------------+
//!  meta_at  | heap of segment 1: class u64 per span of 64 KB,                 |
//!           |   then per span 64 words "allocated", 64 words "doomed"         |
//!           +-----------------------------------------------------------------+
//!           | heap of segment 2 ...                                           |
//! ```
//!
//! The trailer of an undo record stands behind its image, so that the log is read from its end. The
//! heap keeps no free lists: the bits are the only truth, so that undoing an operation is setting a
//! bit, which may be done twice.

use core::mem::{offset_of, size_of};

use rio_core::{At, WINDOWS};

pub const MAGIC: u64 = u64::from_le_bytes(*b"VISTA\0\r\n");
pub const VERSION: u32 = 1;
/// The user's windows: all but window 0.
pub const SEGMENTS: usize = WINDOWS - 1;

pub const PAGE: usize = 4096;
pub const TAIL: At = At::new(0, PAGE);
pub const ACTIVE: At = At::new(0, PAGE + 8);
const ROOTS: At = At::new(0, PAGE + 64);
pub const LOG_AT: usize = 2 * PAGE;
pub const RECORD_TRAILER: usize = 16;

pub const SPAN: usize = 64 << 10;
/// Words of one plane of bits: a span of 64 KB in blocks of 16 bytes.
pub const PLANE_WORDS: usize = 64;
/// Bytes of heap metadata for a span: the class word and two planes.
pub const SPAN_META: usize = 8 + 2 * 8 * PLANE_WORDS;

/// One row of the segment table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SegmentInfo {
    pub len: u64,
    /// How far the segment can grow; its heap metadata and its addresses are laid out for this.
    pub max_len: u64,
    /// Where it is mapped, always; 0 if it does not care.
    pub address: u64,
    /// Where in the segment the heap begins; `max_len` if it has none.
    pub heap_at: u64,
    /// Where in window 0 the heap's metadata lies.
    pub meta_at: u64,
    pub name: [u8; 24],
}

/// What the caller of `create` chooses.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub log_len: usize,
    pub owner: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Header {
    pub magic: u64,
    pub version: u32,
    pub owner: u32,
    pub log_len: u64,
    pub checksum: u64,
}

/// What changes when a segment is added or grows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Table {
    pub checksum: u64,
    pub segments: u64,
    /// The bytes of window 0 in use.
    pub meta_len: u64,
    pub rows: [SegmentInfo; SEGMENTS],
}

const _: () = {
    assert!(offset_of!(Header, version) == 8 && offset_of!(Header, checksum) == 24);
    assert!(size_of::<Header>() == 32 && size_of::<SegmentInfo>() == 64);
    assert!(offset_of!(Table, rows) == 24 && size_of::<Table>() <= TABLE_ROOM);
    assert!(SPAN / 16 == PLANE_WORDS * 64);
};

const TABLE_ROOM: usize = 1024;

/// Table A or B.
pub const fn table_at(active: u64) -> At {
    At::new(0, TABLE_ROOM * (1 + (active & 1) as usize))
}

impl SegmentInfo {
    pub const NONE: SegmentInfo = SegmentInfo {
        len: 0,
        max_len: 0,
        address: 0,
        heap_at: 0,
        meta_at: 0,
        name: [0; 24],
    };

    /// The spans that the heap may ever have; the metadata is laid out for as many.
    pub fn max_spans(&self) -> usize {
        self.max_len.saturating_sub(self.heap_at) as usize / SPAN
    }

    /// The spans that the heap has now.
    pub fn spans(&self) -> usize {
        self.len.saturating_sub(self.heap_at) as usize / SPAN
    }

    pub fn class_at(&self, span: usize) -> At {
        At::new(0, self.meta_at as usize + 8 * span)
    }

    /// A word of the plane "allocated"; its neighbour in "doomed" is `8 * PLANE_WORDS` further.
    pub fn plane_at(&self, span: usize, word: usize) -> At {
        let planes = self.meta_at as usize + 8 * self.max_spans();
        At::new(0, planes + span * 2 * 8 * PLANE_WORDS + 8 * word)
    }
}

pub const fn root_at(segment: usize) -> At {
    ROOTS.plus(8 * segment)
}
