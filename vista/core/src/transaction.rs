//! Transactions over the windows of a Rio: begin, set_range, end, abort, and the recovery that
//! opens.
//!
//! `end` is: keep what the log names, seal, tail := 0. `abort` and recovery are: walk the log from
//! its end, put everything back, tail := 0. Both may stop anywhere and be done again.

use core::mem::size_of;
use core::slice;

use rio_core::{At, Rio};

use crate::Fault;
use crate::header::{Summary, check, header_sum, load, read_header, table_sum};
use crate::heap::Heap;
use crate::layout::*;
use crate::log::{self, Kind, Log, Record};

/// An open image. One thread uses it at a time: there is no lock in here.
pub struct Core<R: Rio> {
    rio: R,
    log: Log,
    frees: Frees,
    count: usize,
    heaps: [Heap; SEGMENTS],
}

/// A block that the open transaction allocated, or a part of it.
pub struct Fresh<'c, R: Rio> {
    rio: &'c R,
    at: At,
    place: *mut u8,
    len: usize,
}

impl<R: Rio> Fresh<'_, R> {
    /// Stores bytes from an offset on, where there is room for them.
    #[inline(always)]
    pub fn store(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.len && bytes.len() <= self.len - offset);
        let to = self.place.wrapping_add(offset);
        // SAFETY: the range lies in what was resolved, as was checked, and `bytes` is a reference,
        // which nobody may hold into a segment across a transaction's calls.
        unsafe { self.rio.store_mapped(self.at.plus(offset), to, bytes) };
    }
}

/// What `end` has to carry out of frees. The log holds them all; the first few are kept beside it, so
/// that most commits need not walk the log.
struct Frees {
    first: [(At, u64); FIRST_FREES],
    count: usize,
}

const FIRST_FREES: usize = 8;

/// The bytes of window 0 of an image without segments.
pub const fn meta_len(geometry: &Geometry) -> usize {
    LOG_AT + geometry.log_len
}

/// Writes header and table of an empty image into a zeroed window 0; the magic word comes last.
pub fn create<R: Rio>(rio: &R, geometry: &Geometry) -> Result<(), Fault> {
    let (needs, has) = (meta_len(geometry) as u64, rio.window(0).len as u64);
    if needs > has || geometry.log_len == 0 || !geometry.log_len.is_multiple_of(PAGE) {
        return Err(Fault::Truncated {
            window: 0,
            needs,
            has,
        });
    }
    let mut header = Header {
        magic: MAGIC,
        version: VERSION,
        owner: geometry.owner,
        log_len: geometry.log_len as u64,
        checksum: 0,
    };
    header.checksum = header_sum(&header);
    let rows = [SegmentInfo::NONE; SEGMENTS];
    put_table(
        rio,
        0,
        Table {
            checksum: 0,
            segments: 0,
            meta_len: needs,
            rows,
        },
    );
    let start = At::new(0, 0);
    // SAFETY: window 0 was found long enough, and the header is a value of this function.
    unsafe {
        rio.store(start.plus(8), &bytes_of(&header)[8..]);
        rio.order(start, size_of::<Header>());
        rio.store_word(start, MAGIC);
    }
    rio.order(start, 8);
    rio.keep(start, LOG_AT);
    rio.seal().map_err(|cause| Fault::Seal { cause })
}

impl<R: Rio> Core<R> {
    /// Checks the image and undoes the transaction that a crash left open.
    pub fn open(rio: R, you: u32) -> Result<Core<R>, Fault> {
        let found: Summary = check(&rio, you)?;
        let mut core = Core {
            rio,
            log: Log::new(found.log_len, found.tail),
            frees: Frees {
                first: [(At::NOWHERE, 0); FIRST_FREES],
                count: 0,
            },
            count: found.table.segments as usize,
            heaps: found.table.rows.map(Heap::new),
        };
        core.undo()?;
        Ok(core)
    }

    pub fn rio(&self) -> &R {
        &self.rio
    }

    /// For whoever maps further windows; the existing ones stay as they are.
    pub fn rio_mut(&mut self) -> &mut R {
        &mut self.rio
    }

    pub fn segments(&self) -> usize {
        self.count
    }

    pub fn segment(&self, segment: usize) -> Result<&SegmentInfo, Fault> {
        self.heap_of(segment).map(|heap| &heap.info)
    }

    pub fn in_transaction(&self) -> bool {
        self.log.is_open()
    }

    /// Bytes of undo log in use.
    pub fn log_tail(&self) -> usize {
        self.log.tail()
    }

    #[inline(always)]
    pub fn begin(&mut self) -> Result<(), Fault> {
        if self.log.is_open() {
            return Err(Fault::InTransaction);
        }
        self.log.open();
        Ok(())
    }

    /// Saves the bytes of a range, which the program may then change until the transaction ends.
    #[inline(always)]
    pub fn set_range(&mut self, at: At, len: usize) -> Result<*mut u8, Fault> {
        let place = self.resolve(at, len)?;
        self.log_range(at, place, len)?;
        Ok(place)
    }

    /// `set_range` and the store, through the Rio.
    #[inline(always)]
    pub fn write(&mut self, at: At, bytes: &[u8]) -> Result<(), Fault> {
        let place = self.set_range(at, bytes.len())?;
        // SAFETY: `set_range` found the range inside a segment; `bytes` is a reference, and nobody
        // may hold one into a segment across a transaction's calls.
        unsafe { self.rio.store_mapped(at, place, bytes) };
        Ok(())
    }

    /// Stores into a block that this transaction allocated: there is no old content to save.
    #[inline]
    pub fn write_fresh(&mut self, at: At, bytes: &[u8]) -> Result<(), Fault> {
        self.resolve(at, bytes.len())?;
        self.must_be_open()?;
        // SAFETY: as in `write`.
        unsafe { self.rio.store(at, bytes) };
        Ok(())
    }

    /// The same for a block that is stored into piece by piece, or for one that an earlier
    /// transaction has allocated and whose content nobody needs, even if this one is undone. Of the
    /// latter a Rio that writes back hears nothing.
    #[inline]
    pub fn fresh(&mut self, at: At, len: usize) -> Result<Fresh<'_, R>, Fault> {
        let place = self.resolve(at, len)?;
        self.must_be_open()?;
        let rio = &self.rio;
        Ok(Fresh {
            rio,
            at,
            place,
            len,
        })
    }

    /// Where a range of a segment is mapped.
    #[inline(always)]
    pub fn resolve(&self, at: At, len: usize) -> Result<*mut u8, Fault> {
        // Window 0 is not the user's, and comes out as the last of all.
        if at.window().wrapping_sub(1) < SEGMENTS {
            let window = self.rio.window(at.window());
            // An offset has 48 bits, so the sum wraps only for a length that is no length.
            let end = at.offset().wrapping_add(len);
            if end <= window.len && end >= len {
                return Ok(window.base.wrapping_add(at.offset()));
            }
        }
        Err(self.outside(at, len))
    }

    /// Commits. On an error the transaction is still open, and the caller aborts it.
    #[inline(always)]
    pub fn end(&mut self) -> Result<(), Fault> {
        self.must_be_open()?;
        if self.frees.count > FIRST_FREES || self.rio.writes_back() {
            self.collect()?;
        } else {
            for &(at, arg) in &self.frees.first[..self.frees.count] {
                self.heaps[at.window() - 1].finish_free(&self.rio, at, arg);
            }
        }
        self.rio.seal().map_err(|cause| Fault::Seal { cause })?;
        self.forget();
        Ok(())
    }

    /// Puts everything back as it was at `begin`.
    pub fn abort(&mut self) -> Result<(), Fault> {
        self.must_be_open()?;
        self.undo()
    }

    pub fn malloc(&mut self, segment: usize, size: usize) -> Result<At, Fault> {
        self.must_be_open()?;
        self.heap_of(segment)?;
        self.heaps[segment - 1].malloc(&self.rio, &mut self.log, segment, size)
    }

    pub fn free(&mut self, at: At) -> Result<(), Fault> {
        self.must_be_open()?;
        self.heap_of(at.window())?;
        let arg = self.heaps[at.window() - 1].free(&self.rio, &mut self.log, at)?;
        if let Some(first) = self.frees.first.get_mut(self.frees.count) {
            *first = (at, arg);
        }
        self.frees.count += 1;
        Ok(())
    }

    /// Visits every allocated block of a segment's heap with its place and length.
    pub fn each_block(&self, segment: usize, visit: impl FnMut(At, usize)) -> Result<(), Fault> {
        self.heap_of(segment)?.each_block(&self.rio, segment, visit)
    }

    /// The word from which a program finds its data again; 0 at first.
    pub fn root(&self, segment: usize) -> Result<At, Fault> {
        self.heap_of(segment)?;
        Ok(At::from_word(load(&self.rio, root_at(segment))))
    }

    pub fn set_root(&mut self, segment: usize, root: At) -> Result<(), Fault> {
        self.heap_of(segment)?;
        let at = root_at(segment);
        self.log_range(at, self.rio.window(0).base.wrapping_add(at.offset()), 8)?;
        // SAFETY: a root is an aligned word of the control page.
        unsafe { self.rio.store_word(at, root.word()) };
        Ok(())
    }

    /// Adds a row to the table. Its window is already in place, and window 0 long enough for a
    /// heap.
    pub fn add_segment(&mut self, row: SegmentInfo) -> Result<usize, Fault> {
        if self.count == SEGMENTS {
            return Err(Fault::NoMoreSegments);
        }
        let mut table = self.table()?;
        let row = SegmentInfo {
            meta_at: table.meta_len,
            ..row
        };
        table.rows[self.count] = row;
        table.segments += 1;
        table.meta_len += meta_len_of_heap(&row) as u64;
        let has = self.rio.window(0).len as u64;
        if table.meta_len > has {
            return Err(Fault::Truncated {
                window: 0,
                needs: table.meta_len,
                has,
            });
        }
        self.replace_table(table)?;
        self.heaps[self.count] = Heap::new(row);
        self.count += 1;
        Ok(self.count)
    }

    /// Lengthens a segment. Its window already has the new length.
    pub fn grow(&mut self, segment: usize, len: usize) -> Result<(), Fault> {
        let row = *self.segment(segment)?;
        let to = len as u64;
        if to < row.len {
            return Err(Fault::Shrink { len: row.len, to });
        }
        if to > row.max_len {
            return Err(Fault::PastMax {
                to,
                max: row.max_len,
            });
        }
        let mut table = self.table()?;
        table.rows[segment - 1].len = to;
        self.replace_table(table)?;
        self.heaps[segment - 1].info.len = to;
        Ok(())
    }

    /// The table in force, with its length of window 0.
    pub fn table(&self) -> Result<Table, Fault> {
        let owner = (load(&self.rio, At::new(0, 8)) >> 32) as u32;
        read_header(&self.rio, owner).map(|(_, table)| table)
    }

    #[inline(always)]
    fn log_range(&mut self, at: At, place: *const u8, len: usize) -> Result<(), Fault> {
        // SAFETY: callers found the range inside a window; the slice lives for the copy only.
        let image = unsafe { slice::from_raw_parts(place, len) };
        self.log.push(&self.rio, Kind::Range, at, len as u64, image)
    }

    /// Carries out the frees and hands all that the transaction changed to the Rio.
    fn collect(&mut self) -> Result<(), Fault> {
        let mut height = self.log.tail();
        while height > 0 {
            let Record {
                kind,
                at,
                arg,
                begins,
            } = log::record_before(&self.rio, height)?;
            match (kind, at.window().checked_sub(1)) {
                (Kind::Range, _) => self.rio.keep(at, arg as usize),
                (_, Some(index)) => {
                    if kind == Kind::Free {
                        self.heaps[index].finish_free(&self.rio, at, arg);
                    }
                    self.heaps[index].keep(&self.rio, kind, at, arg);
                }
                (_, None) => {}
            }
            height = begins;
        }
        Ok(())
    }

    /// Abort and recovery. Images go back from the newest to the oldest, so that the oldest stays.
    fn undo(&mut self) -> Result<(), Fault> {
        let mut height = self.log.tail();
        while height > 0 {
            let record = log::record_before(&self.rio, height)?;
            match (record.kind, record.at.window().checked_sub(1)) {
                (Kind::Range, _) => {
                    // SAFETY: the record was made by `log_range`, or passed `check` when opening.
                    unsafe { self.rio.store(record.at, log::image(&self.rio, &record)) };
                    self.rio.order(record.at, record.arg as usize);
                }
                (kind, Some(index)) => {
                    self.heaps[index].undo(&self.rio, kind, record.at, record.arg);
                }
                (_, None) => {}
            }
            height = record.begins;
        }
        self.forget();
        Ok(())
    }

    #[inline(always)]
    fn forget(&mut self) {
        self.log.close(&self.rio);
        self.frees.count = 0;
    }

    /// Writes the table that is not in force, then switches by one store: no undo is needed, which
    /// matters because recovery must read the table before it can undo anything.
    fn replace_table(&mut self, table: Table) -> Result<(), Fault> {
        if self.log.is_open() {
            return Err(Fault::InTransaction);
        }
        let (old, new) = (load(&self.rio, ACTIVE), load(&self.rio, ACTIVE) ^ 1);
        put_table(&self.rio, new, table);
        self.switch_table(new);
        self.rio.keep(table_at(new), size_of::<Table>());
        self.rio.keep(ACTIVE, 8);
        self.rio.seal().map_err(|cause| {
            self.switch_table(old);
            Fault::Seal { cause }
        })
    }

    fn switch_table(&self, active: u64) {
        // SAFETY: ACTIVE is an aligned word of the control page.
        unsafe { self.rio.store_word(ACTIVE, active) };
        self.rio.order(ACTIVE, 8);
    }

    #[inline(always)]
    fn must_be_open(&self) -> Result<(), Fault> {
        if self.log.is_open() {
            Ok(())
        } else {
            Err(Fault::NoTransaction)
        }
    }

    #[cold]
    fn outside(&self, at: At, len: usize) -> Fault {
        let window_len = match at.window() {
            0 => 0,
            index => self.rio.window(index).len,
        };
        Fault::Range {
            at,
            len,
            window_len,
        }
    }

    fn heap_of(&self, segment: usize) -> Result<&Heap, Fault> {
        match segment.checked_sub(1) {
            Some(index) if index < self.count => Ok(&self.heaps[index]),
            _ => Err(Fault::NoSuchSegment { segment }),
        }
    }
}

/// The bytes that a segment's heap takes of window 0, in whole pages.
pub const fn meta_len_of_heap(row: &SegmentInfo) -> usize {
    let spans = row.max_len.saturating_sub(row.heap_at) as usize / SPAN;
    (spans * SPAN_META).next_multiple_of(PAGE)
}

fn put_table<R: Rio>(rio: &R, active: u64, mut table: Table) {
    table.checksum = table_sum(&table);
    // SAFETY: both tables lie in the first page, which every window 0 has.
    unsafe { rio.store(table_at(active), bytes_of(&table)) };
    rio.order(table_at(active), size_of::<Table>());
}

fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: used for header and table only, which are plain words without gaps.
    unsafe { slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}
