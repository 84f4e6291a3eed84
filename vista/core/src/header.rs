//! Reading an image that may be anything: nothing is believed before it was checked, nothing
//! written.

use core::mem::size_of;
use core::{array, ptr, slice};

use rio_core::{At, Rio};

use crate::Fault;
use crate::heap;
use crate::layout::*;
use crate::log::{self, Kind};

/// What a look into an image finds, and what a recovery would do.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub owner: u32,
    pub log_len: usize,
    pub table: Table,
    pub roots: [u64; SEGMENTS],
    /// Bytes of undo log in use: 0 unless a transaction was open.
    pub tail: usize,
    pub undo_ranges: usize,
    pub undo_bytes: usize,
    pub undo_mallocs: usize,
    pub undo_frees: usize,
}

/// Checks header, table, log and the windows' sizes; recovery may then run without looking again.
pub fn check<R: Rio>(rio: &R, you: u32) -> Result<Summary, Fault> {
    let (header, table) = read_header(rio, you)?;
    for (index, row) in table.rows.iter().take(table.segments as usize).enumerate() {
        let has = rio.window(index + 1).len as u64;
        if has < row.len {
            return Err(Fault::Truncated {
                window: index + 1,
                needs: row.len,
                has,
            });
        }
    }
    let mut found = Summary {
        owner: header.owner,
        log_len: header.log_len as usize,
        table,
        roots: array::from_fn(|index| load(rio, root_at(index + 1))),
        tail: 0,
        undo_ranges: 0,
        undo_bytes: 0,
        undo_mallocs: 0,
        undo_frees: 0,
    };
    let tail = load(rio, TAIL);
    if tail > header.log_len || !tail.is_multiple_of(8) {
        return Err(Fault::LogTail {
            tail,
            limit: header.log_len,
        });
    }
    found.tail = tail as usize;
    let mut height = found.tail;
    while height > 0 {
        let record = log::record_before(rio, height)?;
        check_target(rio, &found.table, &record).map_err(|why| Fault::LogRecord {
            at: record.begins,
            why,
        })?;
        match record.kind {
            Kind::Range => {
                found.undo_ranges += 1;
                found.undo_bytes += record.arg as usize;
            }
            Kind::Malloc => found.undo_mallocs += 1,
            Kind::Free => found.undo_frees += 1,
        }
        height = record.begins;
    }
    Ok(found)
}

/// Header and table alone, for whoever must know them before the other windows can be mapped.
pub fn read_header<R: Rio>(rio: &R, you: u32) -> Result<(Header, Table), Fault> {
    let window = rio.window(0);
    let has = window.len as u64;
    if window.len < LOG_AT {
        return Err(Fault::Truncated {
            window: 0,
            needs: LOG_AT as u64,
            has,
        });
    }
    // SAFETY: the window is longer than the header, page-aligned, and a header is plain words.
    let header = unsafe { ptr::read(window.base.cast::<Header>()) };
    if header.magic != MAGIC {
        return Err(Fault::NotVista {
            found: header.magic,
        });
    }
    if header.version != VERSION {
        return Err(Fault::OtherVersion {
            found: header.version,
        });
    }
    same("header", header.checksum, header_sum(&header))?;
    if header.owner != you {
        return Err(Fault::OtherOwner {
            owner: header.owner,
            you,
        });
    }
    let active = load(rio, ACTIVE);
    check_bounds(&[("number of the active table", active, 1)])?;
    let at = table_at(active).offset();
    // SAFETY: both tables lie inside the first page.
    let table = unsafe { ptr::read(window.base.add(at).cast::<Table>()) };
    same("segment table", table.checksum, table_sum(&table))?;
    if table.meta_len > has {
        return Err(Fault::Truncated {
            window: 0,
            needs: table.meta_len,
            has,
        });
    }
    check_bounds(&[
        ("number of segments", table.segments, SEGMENTS as u64),
        (
            "length of the undo log",
            header.log_len,
            table.meta_len.saturating_sub(LOG_AT as u64),
        ),
        ("alignment of the undo log", header.log_len % PAGE as u64, 0),
    ])?;
    for row in table.rows.iter().take(table.segments as usize) {
        let meta_len = SPAN_META.saturating_mul(row.max_spans()) as u64;
        check_bounds(&[
            ("length of a segment", row.len, row.max_len),
            ("limit of a segment", row.max_len, 1 << 40),
            ("start of a heap", row.heap_at, row.max_len),
            (
                "alignment of a heap",
                (row.heap_at | row.meta_at) % PAGE as u64,
                0,
            ),
            (
                "end of the undo log",
                LOG_AT as u64 + header.log_len,
                row.meta_at,
            ),
            (
                "end of a heap",
                row.meta_at.saturating_add(meta_len),
                table.meta_len,
            ),
        ])?;
    }
    Ok((header, table))
}

pub fn header_sum(header: &Header) -> u64 {
    let plain = Header {
        checksum: 0,
        ..*header
    };
    // SAFETY: a header is words without gaps, asserted beside its definition.
    sum(unsafe { words_of(&plain) })
}

pub fn table_sum(table: &Table) -> u64 {
    let plain = Table {
        checksum: 0,
        ..*table
    };
    // SAFETY: as above.
    sum(unsafe { words_of(&plain) })
}

/// # Safety
/// `T` is made of whole words without gaps.
unsafe fn words_of<T>(value: &T) -> &[u64] {
    // SAFETY: the caller vouches for the words; their lifetime is the value's.
    unsafe { slice::from_raw_parts((&raw const *value).cast(), size_of::<T>() / 8) }
}

fn sum(words: &[u64]) -> u64 {
    let step = |sum: u64, word: &u64| {
        (sum ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    };
    words.iter().fold(MAGIC, step)
}

fn same(object: &'static str, stored: u64, computed: u64) -> Result<(), Fault> {
    match stored == computed {
        true => Ok(()),
        false => Err(Fault::Checksum {
            object,
            stored,
            computed,
        }),
    }
}

/// A word of window 0 that the caller knows to be inside it.
#[inline]
pub fn load<R: Rio>(rio: &R, at: At) -> u64 {
    // SAFETY: offsets come from the layout of a checked header. Volatile, because stores go around
    // Rust's references.
    unsafe {
        rio.window(0)
            .base
            .wrapping_add(at.offset())
            .cast::<u64>()
            .read_volatile()
    }
}

fn check_bounds(bounds: &[(&'static str, u64, u64)]) -> Result<(), Fault> {
    match bounds.iter().find(|(_, value, limit)| value > limit) {
        Some(&(field, value, limit)) => Err(Fault::Header {
            field,
            value,
            limit,
        }),
        None => Ok(()),
    }
}

fn check_target<R: Rio>(rio: &R, table: &Table, record: &log::Record) -> Result<(), &'static str> {
    let window = record.at.window();
    if window > table.segments as usize {
        return Err("it names a segment that does not exist");
    }
    if record.kind != Kind::Range {
        let row = window.checked_sub(1).map(|index| &table.rows[index]);
        return row
            .and_then(|row| heap::check_block(row, record.at, record.arg))
            .ok_or("it names a block that the heap cannot have");
    }
    // Of window 0 only roots are changed by a range.
    let (from, to) = match window {
        0 => (root_at(0).offset(), root_at(SEGMENTS).offset() + 8),
        _ => (0, rio.window(window).len),
    };
    match record.at.offset().checked_add(record.arg as usize) {
        Some(end) if end <= to && record.at.offset() >= from => Ok(()),
        _ => Err("its range is outside its segment"),
    }
}
