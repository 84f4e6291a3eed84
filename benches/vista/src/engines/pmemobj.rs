//! libpmemobj, its transactions over one root object. How it flushes is chosen by its environment,
//! which the driver sets for the process.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use crate::engine::{Engine, Setup, Table, layout};

#[repr(C)]
#[derive(Clone, Copy)]
struct Oid {
    pool: u64,
    offset: u64,
}

crate::library! { Api in c"libpmemobj.so.1" {
    fn pmemobj_create(*const c_char, *const c_char, usize, libc::mode_t) -> *mut c_void;
    fn pmemobj_root(*mut c_void, usize) -> Oid;
    fn pmemobj_errormsg() -> *const c_char;
    fn pmemobj_tx_begin(*mut c_void, *mut c_void, c_int) -> c_int;
    fn pmemobj_tx_add_range_direct(*const c_void, usize) -> c_int;
    fn pmemobj_tx_commit();
    fn pmemobj_tx_end() -> c_int;
} }

pub struct Pmemobj {
    api: Api,
    pool: *mut c_void,
    base: *mut u8,
    starts: Vec<usize>,
    tables: Vec<Table>,
}

impl Pmemobj {
    pub fn new(setup: &Setup) -> Result<Pmemobj, String> {
        let api = Api::load()?;
        let (starts, len) = layout(setup.tables);
        let path = CString::new(setup.dir.join("pmemobj").as_os_str().as_bytes()).expect("a path");
        // SAFETY: as the library's header says; the pool stays open until the process ends.
        unsafe {
            let pool = (api.pmemobj_create)(
                path.as_ptr(),
                c"bench".as_ptr(),
                2 * len + (64 << 20),
                0o600,
            );
            if pool.is_null() {
                let message = std::ffi::CStr::from_ptr((api.pmemobj_errormsg)());
                return Err(format!("libpmemobj: {}", message.to_string_lossy()));
            }
            let root = (api.pmemobj_root)(pool, len);
            let base = pool.cast::<u8>().add(root.offset as usize);
            ptr::write_bytes(base, 0, len);
            Ok(Pmemobj {
                api,
                pool,
                base,
                starts,
                tables: setup.tables.to_vec(),
            })
        }
    }

    fn place(&self, table: usize, index: usize) -> *mut u8 {
        self.base
            .wrapping_add(self.starts[table] + index * self.tables[table].record_len)
    }
}

impl Engine for Pmemobj {
    fn begin(&mut self) {
        // SAFETY: the pool is open; 0 ends the list of parameters.
        let status = unsafe { (self.api.pmemobj_tx_begin)(self.pool, ptr::null_mut(), 0) };
        assert_eq!(status, 0, "pmemobj_tx_begin");
    }

    fn read(&mut self, table: usize, index: usize) -> &[u8] {
        // SAFETY: workloads stay inside their tables, which lie inside the root object.
        unsafe {
            std::slice::from_raw_parts(self.place(table, index), self.tables[table].record_len)
        }
    }

    fn update(&mut self, table: usize, index: usize, offset: usize, bytes: &[u8]) {
        let place = self.place(table, index).wrapping_add(offset);
        // SAFETY: as in `read`, inside a transaction.
        unsafe {
            let status = (self.api.pmemobj_tx_add_range_direct)(place.cast(), bytes.len());
            assert_eq!(status, 0, "pmemobj_tx_add_range_direct");
            place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    fn commit(&mut self) {
        // SAFETY: a transaction is open.
        unsafe {
            (self.api.pmemobj_tx_commit)();
            assert_eq!((self.api.pmemobj_tx_end)(), 0, "pmemobj_tx_end");
        }
    }
}
