//! What can go wrong, said so that the reader knows which object, what with it, and what to do.

use core::fmt;

use rio_core::{At, Errno};

use crate::layout::VERSION;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Window 0 does not begin with the magic word.
    NotVista {
        found: u64,
    },
    OtherVersion {
        found: u32,
    },
    Checksum {
        object: &'static str,
        stored: u64,
        computed: u64,
    },
    OtherOwner {
        owner: u32,
        you: u32,
    },
    /// A field of the header that no writer would have written.
    Header {
        field: &'static str,
        value: u64,
        limit: u64,
    },
    /// The file of a window is shorter than the header says.
    Truncated {
        window: usize,
        needs: u64,
        has: u64,
    },
    LogTail {
        tail: u64,
        limit: u64,
    },
    LogRecord {
        at: usize,
        why: &'static str,
    },
    HeapWord {
        segment: usize,
        span: usize,
        word: u64,
    },
    LogFull {
        needs: usize,
        left: usize,
    },
    HeapFull {
        segment: usize,
        size: usize,
    },
    Range {
        at: At,
        len: usize,
        window_len: usize,
    },
    NotAllocated {
        at: At,
    },
    InTransaction,
    NoTransaction,
    NoSuchSegment {
        segment: usize,
    },
    NoMoreSegments,
    Shrink {
        len: u64,
        to: u64,
    },
    PastMax {
        to: u64,
        max: u64,
    },
    Seal {
        cause: Errno,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Fault::*;
        match *self {
            NotVista { found } => write!(
                f,
                "header: magic word is {found:#018x}: this is no Vista image; name the right one"
            ),
            OtherVersion { found } => write!(
                f,
                "header: version {found}, this program reads {VERSION}: use the program that wrote it"
            ),
            Checksum {
                object,
                stored,
                computed,
            } => write!(
                f,
                "{object}: checksum {stored:#018x} stored, {computed:#018x} computed: it is damaged; \
                 restore the image from a copy"
            ),
            OtherOwner { owner, you } => write!(
                f,
                "header: written for uid {owner}, you are {you}: run as the owner"
            ),
            Header {
                field,
                value,
                limit,
            } => write!(
                f,
                "header: {field} is {value:#x}, limit {limit:#x}: the header is damaged; restore the \
                 image from a copy"
            ),
            Truncated { window, needs, has } => write!(
                f,
                "window {window}: {has} bytes, the header says {needs}: the file was cut; restore the \
                 image from a copy"
            ),
            LogTail { tail, limit } => write!(
                f,
                "undo log: tail {tail:#x}, limit {limit:#x}: the log is damaged; restore the image \
                 from a copy"
            ),
            LogRecord { at, why } => write!(
                f,
                "undo log: record at {at:#x}: {why}: the log is damaged; restore the image from a copy"
            ),
            HeapWord {
                segment,
                span,
                word,
            } => write!(
                f,
                "heap of segment {segment}: span {span}: state word is {word:#x}: the heap is damaged; \
                 restore the image from a copy"
            ),
            LogFull { needs, left } => write!(
                f,
                "undo log: {needs} bytes needed, {left} left: abort, and make the transaction smaller \
                 or create the image with a longer log"
            ),
            HeapFull { segment, size } => write!(
                f,
                "heap of segment {segment}: allocate {size} bytes: no room; abort and grow the segment"
            ),
            Range {
                at,
                len,
                window_len,
            } => write!(
                f,
                "range {at}+{len}: outside its segment of {window_len} bytes, or misaligned: pass a \
                 place in a mapped segment"
            ),
            NotAllocated { at } => {
                write!(
                    f,
                    "free {at}: not an allocated block: it was freed before, or never allocated"
                )
            }
            InTransaction => write!(
                f,
                "begin: a transaction is already open, and Vista does not nest: end or abort it first"
            ),
            NoTransaction => write!(f, "no transaction is open: begin one first"),
            NoSuchSegment { segment } => {
                write!(f, "segment {segment}: not in this image: map it first")
            }
            NoMoreSegments => write!(f, "add a segment: all are taken: use a second image"),
            Shrink { len, to } => {
                write!(
                    f,
                    "grow from {len} to {to} bytes: segments do not shrink: pass more"
                )
            }
            PastMax { to, max } => write!(
                f,
                "grow to {to} bytes: the segment was created for at most {max}: copy it to one with \
                 more room"
            ),
            Seal { cause } => write!(
                f,
                "commit: making it durable failed with errno {}: the transaction is still open; abort \
                 it, mend the storage, try again",
                cause.0
            ),
        }
    }
}

impl core::error::Error for Fault {}
