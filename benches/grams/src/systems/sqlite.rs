//! A queue of requests and one of responses in SQLite, WAL: one file, two processes.
//!
//! It has no way to wake the other side, so both look again and again, which is the fastest they can
//! do. In memory with synchronous off, on disk with synchronous full.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use super::{Client, Server, Setup};

crate::library! { Api in c"libsqlite3.so.0" {
    fn sqlite3_open(*const c_char, *mut *mut c_void) -> c_int;
    fn sqlite3_busy_timeout(*mut c_void, c_int) -> c_int;
    fn sqlite3_exec(*mut c_void, *const c_char, *mut c_void, *mut c_void, *mut c_void) -> c_int;
    fn sqlite3_prepare_v2(*mut c_void, *const c_char, c_int, *mut *mut c_void, *mut c_void) -> c_int;
    fn sqlite3_bind_int64(*mut c_void, c_int, i64) -> c_int;
    fn sqlite3_bind_blob(*mut c_void, c_int, *const c_void, c_int, isize) -> c_int;
    fn sqlite3_step(*mut c_void) -> c_int;
    fn sqlite3_reset(*mut c_void) -> c_int;
    fn sqlite3_column_int64(*mut c_void, c_int) -> i64;
    fn sqlite3_column_blob(*mut c_void, c_int) -> *const c_void;
    fn sqlite3_column_bytes(*mut c_void, c_int) -> c_int;
} }

const ROW: c_int = 100;
const DONE: c_int = 101;

pub struct Queue {
    api: Api,
    db: *mut c_void,
    begin: *mut c_void,
    commit: *mut c_void,
    /// Into the other's queue, and out of one's own.
    put: *mut c_void,
    find: *mut c_void,
    remove: *mut c_void,
    body: Vec<u8>,
    last: i64,
    file: String,
}

impl Queue {
    pub fn open(setup: &Setup, is_server: bool) -> Result<Queue, String> {
        let api = Api::load()?;
        let file = setup.dir.join("queue");
        let path = CString::new(file.as_os_str().as_bytes()).expect("a path");
        let mut db = ptr::null_mut();
        // SAFETY: as the library's header says.
        let status = unsafe { (api.sqlite3_open)(path.as_ptr(), &mut db) };
        if status != 0 {
            return Err(format!("SQLite: error {status}"));
        }
        let none = ptr::null_mut();
        let mut queue = Queue {
            api,
            db,
            begin: none,
            commit: none,
            put: none,
            find: none,
            remove: none,
            body: Vec::new(),
            last: 0,
            file: file.display().to_string(),
        };
        // SAFETY: the database is open.
        unsafe { (api.sqlite3_busy_timeout)(db, 10_000) };
        queue.exec("PRAGMA journal_mode=WAL;");
        queue.exec(if setup.durable {
            "PRAGMA synchronous=FULL;"
        } else {
            "PRAGMA synchronous=OFF;"
        });
        for table in ["requests", "responses"] {
            queue.exec(&format!(
                "CREATE TABLE IF NOT EXISTS {table}(id INTEGER PRIMARY KEY, body BLOB);"
            ));
        }
        let (to, from, which) = match is_server {
            true => ("responses", "requests", "ORDER BY id LIMIT 1"),
            false => ("requests", "responses", "WHERE id=?1"),
        };
        queue.begin = queue.prepare("BEGIN IMMEDIATE");
        queue.commit = queue.prepare("COMMIT");
        queue.put = queue.prepare(&format!("INSERT INTO {to} VALUES(?1, ?2)"));
        queue.find = queue.prepare(&format!("SELECT id, body FROM {from} {which}"));
        queue.remove = queue.prepare(&format!("DELETE FROM {from} WHERE id=?1"));
        Ok(queue)
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
        let none = ptr::null_mut();
        // SAFETY: the database is open.
        let status = unsafe {
            (self.api.sqlite3_prepare_v2)(self.db, statement.as_ptr(), -1, &mut prepared, none)
        };
        assert_eq!(status, 0, "{statement:?}");
        prepared
    }

    fn run(&self, statement: *mut c_void) {
        // SAFETY: a prepared statement of this database.
        unsafe {
            assert_eq!((self.api.sqlite3_step)(statement), DONE, "not done");
            (self.api.sqlite3_reset)(statement);
        }
    }

    fn bind(&self, statement: *mut c_void, id: i64, body: Option<&[u8]>) {
        // SAFETY: a prepared statement; the body lives until it was run.
        unsafe {
            (self.api.sqlite3_bind_int64)(statement, 1, id);
            if let Some(body) = body {
                let len = body.len() as c_int;
                (self.api.sqlite3_bind_blob)(statement, 2, body.as_ptr().cast(), len, 0);
            }
        }
    }

    /// The message that is there, copied to `body`.
    fn found(&mut self) -> Option<i64> {
        // SAFETY: a prepared statement; the blob is copied before the reset.
        unsafe {
            let step = (self.api.sqlite3_step)(self.find);
            let id = (step == ROW).then(|| {
                let blob = (self.api.sqlite3_column_blob)(self.find, 1).cast::<u8>();
                let len = (self.api.sqlite3_column_bytes)(self.find, 1) as usize;
                self.body.clear();
                self.body
                    .extend_from_slice(std::slice::from_raw_parts(blob, len));
                (self.api.sqlite3_column_int64)(self.find, 0)
            });
            (self.api.sqlite3_reset)(self.find);
            id
        }
    }
}

impl Server for Queue {
    fn address(&self) -> String {
        self.file.clone()
    }

    fn answer(&mut self) -> Result<(), String> {
        let Some(id) = self.found() else {
            std::thread::yield_now();
            return Ok(());
        };
        self.run(self.begin);
        self.bind(self.remove, id, None);
        self.run(self.remove);
        self.bind(self.put, id, Some(&self.body));
        self.run(self.put);
        self.run(self.commit);
        Ok(())
    }
}

impl Client for Queue {
    fn ask(&mut self, message: &[u8]) -> Result<(), String> {
        self.last += 1;
        self.run(self.begin);
        self.bind(self.put, self.last, Some(message));
        self.run(self.put);
        self.run(self.commit);
        self.bind(self.find, self.last, None);
        while self.found().is_none() {
            std::thread::yield_now();
        }
        self.run(self.begin);
        self.bind(self.remove, self.last, None);
        self.run(self.remove);
        self.run(self.commit);
        Ok(())
    }
}
