//! RocksDB with its write-ahead log: in memory unsynced, on disk synced. A transaction is a batch.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use crate::engine::{Engine, Setup, Table, key};

crate::library! { Api in c"librocksdb.so.7.8" {
    fn rocksdb_options_create() -> *mut c_void;
    fn rocksdb_options_set_create_if_missing(*mut c_void, c_uchar);
    fn rocksdb_options_set_compression(*mut c_void, c_int);
    fn rocksdb_open(*mut c_void, *const c_char, *mut *mut c_char) -> *mut c_void;
    fn rocksdb_writeoptions_create() -> *mut c_void;
    fn rocksdb_writeoptions_set_sync(*mut c_void, c_uchar);
    fn rocksdb_readoptions_create() -> *mut c_void;
    fn rocksdb_writebatch_create() -> *mut c_void;
    fn rocksdb_writebatch_clear(*mut c_void);
    fn rocksdb_writebatch_put(*mut c_void, *const c_char, usize, *const c_char, usize);
    fn rocksdb_write(*mut c_void, *mut c_void, *mut c_void, *mut *mut c_char);
    fn rocksdb_get_pinned(*mut c_void, *mut c_void, *const c_char, usize, *mut *mut c_char) -> *mut c_void;
    fn rocksdb_pinnableslice_value(*const c_void, *mut usize) -> *const c_char;
    fn rocksdb_pinnableslice_destroy(*mut c_void);
} }

pub struct Rocksdb {
    api: Api,
    db: *mut c_void,
    writes: *mut c_void,
    reads: *mut c_void,
    batch: *mut c_void,
    /// What the batch holds: a transaction reads its own writes.
    pending: HashMap<u64, Vec<u8>>,
    record: Vec<u8>,
}

impl Rocksdb {
    pub fn new(setup: &Setup) -> Result<Rocksdb, String> {
        let api = Api::load()?;
        let path = CString::new(setup.dir.join("rocksdb").as_os_str().as_bytes()).expect("a path");
        let mut error = ptr::null_mut();
        // SAFETY: as the library's header says; everything stays until the process ends.
        let mut rocksdb = unsafe {
            let options = (api.rocksdb_options_create)();
            (api.rocksdb_options_set_create_if_missing)(options, 1);
            (api.rocksdb_options_set_compression)(options, 0);
            let db = (api.rocksdb_open)(options, path.as_ptr(), &mut error);
            must(error)?;
            let writes = (api.rocksdb_writeoptions_create)();
            let reads = (api.rocksdb_readoptions_create)();
            let batch = (api.rocksdb_writebatch_create)();
            let (pending, record) = (HashMap::new(), Vec::new());
            Rocksdb {
                api,
                db,
                writes,
                reads,
                batch,
                pending,
                record,
            }
        };
        for (number, &Table { record_len, count }) in setup.tables.iter().enumerate() {
            let record = vec![0; record_len];
            for index in 0..count {
                rocksdb.put(key(number, index), &record);
                if index % 1000 == 999 {
                    rocksdb.commit();
                }
            }
            rocksdb.commit();
        }
        // SAFETY: the options are this value's own.
        unsafe { (api.rocksdb_writeoptions_set_sync)(rocksdb.writes, setup.durable.into()) };
        Ok(rocksdb)
    }

    fn put(&mut self, key: u64, record: &[u8]) {
        let name = key.to_be_bytes();
        // SAFETY: both slices outlive the call, which copies them.
        unsafe {
            let put = self.api.rocksdb_writebatch_put;
            put(
                self.batch,
                name.as_ptr().cast(),
                8,
                record.as_ptr().cast(),
                record.len(),
            );
        }
    }
}

impl Engine for Rocksdb {
    fn begin(&mut self) {}

    fn read(&mut self, table: usize, index: usize) -> &[u8] {
        let key = key(table, index);
        self.record.clear();
        if let Some(own) = self.pending.get(&key) {
            self.record.extend_from_slice(own);
            return &self.record;
        }
        let name = key.to_be_bytes();
        let mut error = ptr::null_mut();
        // SAFETY: the slice is pinned until it is destroyed.
        unsafe {
            let get = self.api.rocksdb_get_pinned;
            let slice = get(self.db, self.reads, name.as_ptr().cast(), 8, &mut error);
            must(error).expect("get");
            let mut len = 0;
            let value = (self.api.rocksdb_pinnableslice_value)(slice, &mut len).cast();
            self.record
                .extend_from_slice(std::slice::from_raw_parts(value, len));
            (self.api.rocksdb_pinnableslice_destroy)(slice);
        }
        &self.record
    }

    fn update(&mut self, table: usize, index: usize, offset: usize, bytes: &[u8]) {
        self.read(table, index);
        let mut record = std::mem::take(&mut self.record);
        record[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.put(key(table, index), &record);
        self.pending.insert(key(table, index), record);
    }

    fn commit(&mut self) {
        let mut error = ptr::null_mut();
        // SAFETY: all three are open.
        unsafe {
            (self.api.rocksdb_write)(self.db, self.writes, self.batch, &mut error);
            must(error).expect("write");
            (self.api.rocksdb_writebatch_clear)(self.batch);
        }
        self.pending.clear();
    }
}

fn must(error: *mut c_char) -> Result<(), String> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the library's message, a C string.
    let message = unsafe { CStr::from_ptr(error) };
    Err(format!("RocksDB: {}", message.to_string_lossy()))
}
