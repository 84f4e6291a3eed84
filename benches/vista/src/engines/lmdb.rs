//! LMDB: in memory with WRITEMAP and NOSYNC, on disk with its full sync.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use crate::engine::{Engine, Setup, Table, key, layout};

#[repr(C)]
struct Val {
    size: usize,
    data: *mut c_void,
}

crate::library! { Api in c"liblmdb.so.0" {
    fn mdb_env_create(*mut *mut c_void) -> c_int;
    fn mdb_env_set_mapsize(*mut c_void, usize) -> c_int;
    fn mdb_env_open(*mut c_void, *const c_char, c_uint, libc::mode_t) -> c_int;
    fn mdb_txn_begin(*mut c_void, *mut c_void, c_uint, *mut *mut c_void) -> c_int;
    fn mdb_txn_commit(*mut c_void) -> c_int;
    fn mdb_dbi_open(*mut c_void, *const c_char, c_uint, *mut c_uint) -> c_int;
    fn mdb_get(*mut c_void, c_uint, *mut Val, *mut Val) -> c_int;
    fn mdb_put(*mut c_void, c_uint, *mut Val, *mut Val, c_uint) -> c_int;
} }

const NOSYNC: c_uint = 0x10000;
const WRITEMAP: c_uint = 0x80000;
const INTEGERKEY: c_uint = 0x08;
const APPEND: c_uint = 0x20000;

pub struct Lmdb {
    api: Api,
    env: *mut c_void,
    txn: *mut c_void,
    dbi: c_uint,
    record: Vec<u8>,
}

impl Lmdb {
    pub fn new(setup: &Setup) -> Result<Lmdb, String> {
        let api = Api::load()?;
        let (_, len) = layout(setup.tables);
        let path = CString::new(setup.dir.as_os_str().as_bytes()).expect("a path");
        let mut lmdb = Lmdb {
            api,
            env: ptr::null_mut(),
            txn: ptr::null_mut(),
            dbi: 0,
            record: Vec::new(),
        };
        // SAFETY: as the library's header says, with pointers into this frame.
        unsafe {
            must((api.mdb_env_create)(&mut lmdb.env))?;
            must((api.mdb_env_set_mapsize)(lmdb.env, 6 * len + (256 << 20)))?;
            let flags = if setup.durable { 0 } else { WRITEMAP | NOSYNC };
            must((api.mdb_env_open)(lmdb.env, path.as_ptr(), flags, 0o600))?;
            lmdb.begin();
            must((api.mdb_dbi_open)(
                lmdb.txn,
                ptr::null(),
                INTEGERKEY,
                &mut lmdb.dbi,
            ))?;
        }
        for (number, &Table { record_len, count }) in setup.tables.iter().enumerate() {
            lmdb.record = vec![0; record_len];
            for index in 0..count {
                lmdb.put(key(number, index), APPEND);
            }
        }
        lmdb.commit();
        Ok(lmdb)
    }

    fn put(&mut self, mut key: u64, flags: c_uint) {
        let mut name = Val {
            size: 8,
            data: (&raw mut key).cast(),
        };
        let mut value = Val {
            size: self.record.len(),
            data: self.record.as_mut_ptr().cast(),
        };
        // SAFETY: a transaction is open; both values outlive the call.
        let status =
            unsafe { (self.api.mdb_put)(self.txn, self.dbi, &mut name, &mut value, flags) };
        must(status).expect("mdb_put");
    }
}

impl Engine for Lmdb {
    fn begin(&mut self) {
        // SAFETY: the environment is open.
        let status =
            unsafe { (self.api.mdb_txn_begin)(self.env, ptr::null_mut(), 0, &mut self.txn) };
        must(status).expect("mdb_txn_begin");
    }

    fn read(&mut self, table: usize, index: usize) -> &[u8] {
        let mut key = key(table, index);
        let mut name = Val {
            size: 8,
            data: (&raw mut key).cast(),
        };
        let mut value = Val {
            size: 0,
            data: ptr::null_mut(),
        };
        // SAFETY: a transaction is open; the value is good until the next write.
        unsafe {
            must((self.api.mdb_get)(
                self.txn, self.dbi, &mut name, &mut value,
            ))
            .expect("mdb_get");
            std::slice::from_raw_parts(value.data.cast(), value.size)
        }
    }

    fn update(&mut self, table: usize, index: usize, offset: usize, bytes: &[u8]) {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        record.extend_from_slice(self.read(table, index));
        record[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.record = record;
        self.put(key(table, index), 0);
    }

    fn commit(&mut self) {
        // SAFETY: the transaction is open, and is not used again.
        must(unsafe { (self.api.mdb_txn_commit)(self.txn) }).expect("mdb_txn_commit");
    }
}

fn must(status: c_int) -> Result<(), String> {
    if status == 0 {
        Ok(())
    } else {
        Err(format!("LMDB: error {status}"))
    }
}
