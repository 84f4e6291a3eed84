//! What every system under test can do: tables of records, read one, change a part of one, commit.

use std::path::Path;

/// One table: so many records of so many bytes, all there from the start.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub record_len: usize,
    pub count: usize,
}

/// Where a run keeps its data, and whether commits must survive the machine.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    pub dir: &'a Path,
    pub tables: &'a [Table],
    pub durable: bool,
}

pub trait Engine {
    fn begin(&mut self);

    /// The record's bytes, as the transaction sees them.
    fn read(&mut self, table: usize, index: usize) -> &[u8];

    /// Replaces `bytes.len()` bytes of a record.
    fn update(&mut self, table: usize, index: usize, offset: usize, bytes: &[u8]);

    fn commit(&mut self);
}

/// Where each table begins if they all lie one behind the other, and the length of it all.
pub fn layout(tables: &[Table]) -> (Vec<usize>, usize) {
    let mut end: usize = 0;
    let starts = tables.iter().map(|table| {
        let start = end;
        end += (table.record_len * table.count).next_multiple_of(4096);
        start
    });
    (starts.collect(), end)
}

/// A key for stores that have but one space of them.
pub fn key(table: usize, index: usize) -> u64 {
    (table as u64) << 32 | index as u64
}
