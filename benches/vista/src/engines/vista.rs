//! Vista itself, on any of its backends, through the untyped operations (as the floor is untyped).

use rio_sim::Backend;
use vista::{At, Options, Segment, SegmentOptions, Store};

use crate::engine::{Engine, Setup, Table, layout};

pub struct Vista<B: Backend> {
    pub(crate) store: Store<B>,
    segment: Segment,
    base: *mut u8,
    starts: Vec<usize>,
    tables: Vec<Table>,
}

// SAFETY: the address is the segment's, which goes along.
unsafe impl<B: Backend> Send for Vista<B> {}

impl<B: Backend> Vista<B> {
    pub fn new(setup: &Setup, protect: bool) -> Result<Vista<B>, String> {
        let (starts, len) = layout(setup.tables);
        let path = setup.dir.join("vista");
        let fault = |error: vista::Error| error.to_string();
        let options = Options {
            log_len: 16 << 20,
            protect,
        };
        let mut store: Store<B> = Store::create(&path, options).map_err(fault)?;
        let segment = store
            .add_segment("bench", SegmentOptions::raw(len))
            .map_err(fault)?;
        let base = store.base(segment);
        // Every page present, as everywhere here.
        let mut tx = store.begin().map_err(fault)?;
        for page in (0..len).step_by(4096) {
            tx.set(vista::Ptr::from_at(segment.at(page)), 0_u8)
                .map_err(fault)?;
        }
        tx.commit().map_err(fault)?;
        Ok(Vista {
            store,
            segment,
            base,
            starts,
            tables: setup.tables.to_vec(),
        })
    }

    #[inline(always)]
    fn offset(&self, table: usize, index: usize) -> usize {
        self.starts[table] + index * self.tables[table].record_len
    }
}

impl<B: Backend> Engine for Vista<B> {
    #[inline(always)]
    fn begin(&mut self) {
        self.store.core().begin().expect("begin");
    }

    #[inline(always)]
    fn read(&mut self, table: usize, index: usize) -> &[u8] {
        let place = self.base.wrapping_add(self.offset(table, index));
        // SAFETY: workloads stay inside their tables, which lie inside the segment.
        unsafe { std::slice::from_raw_parts(place, self.tables[table].record_len) }
    }

    #[inline(always)]
    fn update(&mut self, table: usize, index: usize, offset: usize, bytes: &[u8]) {
        let at = At::new(self.segment.index(), self.offset(table, index) + offset);
        self.store.core().write(at, bytes).expect("set_range");
    }

    #[inline(always)]
    fn commit(&mut self) {
        self.store.core().end().expect("end");
    }
}

/// With the mapping write-protected between transactions.
pub struct Protected<B: Backend>(pub Vista<B>);

impl<B: Backend> Engine for Protected<B> {
    fn begin(&mut self) {
        self.0.store.open_own().expect("mprotect");
        self.0.begin();
    }

    fn read(&mut self, table: usize, index: usize) -> &[u8] {
        self.0.read(table, index)
    }

    fn update(&mut self, table: usize, index: usize, offset: usize, bytes: &[u8]) {
        let at = self.0.segment.at(self.0.offset(table, index) + offset);
        self.0.store.open_range(at, bytes.len()).expect("mprotect");
        self.0.update(table, index, offset, bytes);
    }

    fn commit(&mut self) {
        self.0.commit();
        self.0.store.close().expect("mprotect");
    }
}
