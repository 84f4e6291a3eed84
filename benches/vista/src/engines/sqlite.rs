//! SQLite in WAL mode: in memory with synchronous off, on disk with synchronous full.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use crate::engine::{Engine, Setup, Table};

crate::library! { Api in c"libsqlite3.so.0" {
    fn sqlite3_open(*const c_char, *mut *mut c_void) -> c_int;
    fn sqlite3_exec(*mut c_void, *const c_char, *mut c_void, *mut c_void, *mut c_void) -> c_int;
    fn sqlite3_prepare_v2(*mut c_void, *const c_char, c_int, *mut *mut c_void, *mut c_void) -> c_int;
    fn sqlite3_bind_int64(*mut c_void, c_int, i64) -> c_int;
    fn sqlite3_bind_blob(*mut c_void, c_int, *const c_void, c_int, isize) -> c_int;
    fn sqlite3_step(*mut c_void) -> c_int;
    fn sqlite3_reset(*mut c_void) -> c_int;
    fn sqlite3_column_blob(*mut c_void, c_int) -> *const c_void;
    fn sqlite3_column_bytes(*mut c_void, c_int) -> c_int;
} }

pub struct Sqlite {
    api: Api,
    db: *mut c_void,
    begin: *mut c_void,
    commit: *mut c_void,
    selects: Vec<*mut c_void>,
    updates: Vec<*mut c_void>,
    record: Vec<u8>,
}

impl Sqlite {
    pub fn new(setup: &Setup) -> Result<Sqlite, String> {
        let api = Api::load()?;
        let path = CString::new(setup.dir.join("sqlite").as_os_str().as_bytes()).expect("a path");
        let mut db = ptr::null_mut();
        // SAFETY: as the library's header says.
        let status = unsafe { (api.sqlite3_open)(path.as_ptr(), &mut db) };
        if status != 0 {
            return Err(format!("SQLite: error {status}"));
        }
        let none = ptr::null_mut;
        let mut sqlite = Sqlite {
            api,
            db,
            begin: none(),
            commit: none(),
            selects: Vec::new(),
            updates: Vec::new(),
            record: Vec::new(),
        };
        let synchronous = if setup.durable { "FULL" } else { "OFF" };
        sqlite.exec("PRAGMA journal_mode=WAL; PRAGMA cache_size=-262144;");
        sqlite.exec(&format!("PRAGMA synchronous={synchronous};"));
        sqlite.begin = sqlite.prepare("BEGIN IMMEDIATE");
        sqlite.commit = sqlite.prepare("COMMIT");
        for (number, &Table { record_len, count }) in setup.tables.iter().enumerate() {
            sqlite.exec(&format!(
                "CREATE TABLE t{number}(k INTEGER PRIMARY KEY, v BLOB);"
            ));
            sqlite.exec(&format!(
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n LIMIT {count}) \
                 INSERT INTO t{number} SELECT i, zeroblob({record_len}) FROM n;"
            ));
            let select = sqlite.prepare(&format!("SELECT v FROM t{number} WHERE k=?"));
            let update = sqlite.prepare(&format!("UPDATE t{number} SET v=?2 WHERE k=?1"));
            sqlite.selects.push(select);
            sqlite.updates.push(update);
        }
        sqlite.exec("PRAGMA wal_checkpoint(TRUNCATE);");
        Ok(sqlite)
    }

    fn exec(&self, statement: &str) {
        let statement = CString::new(statement).expect("a statement");
        let none = ptr::null_mut;
        // SAFETY: the database is open.
        let status =
            unsafe { (self.api.sqlite3_exec)(self.db, statement.as_ptr(), none(), none(), none()) };
        assert_eq!(status, 0, "{statement:?}");
    }

    fn prepare(&self, statement: &str) -> *mut c_void {
        let statement = CString::new(statement).expect("a statement");
        let mut prepared = ptr::null_mut();
        // SAFETY: the database is open.
        let status = unsafe {
            (self.api.sqlite3_prepare_v2)(
                self.db,
                statement.as_ptr(),
                -1,
                &mut prepared,
                ptr::null_mut(),
            )
        };
        assert_eq!(status, 0, "{statement:?}");
        prepared
    }

    fn run(&self, statement: *mut c_void) {
        // SAFETY: a prepared statement of this database.
        unsafe {
            assert_eq!((self.api.sqlite3_step)(statement), 101, "not done");
            (self.api.sqlite3_reset)(statement);
        }
    }
}

impl Engine for Sqlite {
    fn begin(&mut self) {
        self.run(self.begin);
    }

    fn read(&mut self, table: usize, index: usize) -> &[u8] {
        let select = self.selects[table];
        // SAFETY: a prepared statement; the blob is copied before the reset.
        unsafe {
            (self.api.sqlite3_bind_int64)(select, 1, index as i64);
            assert_eq!((self.api.sqlite3_step)(select), 100, "no row");
            let blob = (self.api.sqlite3_column_blob)(select, 0).cast::<u8>();
            let len = (self.api.sqlite3_column_bytes)(select, 0) as usize;
            self.record.clear();
            self.record
                .extend_from_slice(std::slice::from_raw_parts(blob, len));
            (self.api.sqlite3_reset)(select);
        }
        &self.record
    }

    fn update(&mut self, table: usize, index: usize, offset: usize, bytes: &[u8]) {
        self.read(table, index);
        self.record[offset..offset + bytes.len()].copy_from_slice(bytes);
        let update = self.updates[table];
        // SAFETY: a prepared statement; the record lives until it was run.
        unsafe {
            (self.api.sqlite3_bind_int64)(update, 1, index as i64);
            (self.api.sqlite3_bind_blob)(
                update,
                2,
                self.record.as_ptr().cast(),
                self.record.len() as c_int,
                0,
            );
        }
        self.run(update);
    }

    fn commit(&mut self) {
        self.run(self.commit);
    }
}
