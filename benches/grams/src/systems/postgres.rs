//! PostgreSQL with a table as queue: rows are taken by DELETE .. SKIP LOCKED, the other side is
//! woken by NOTIFY. Commits are synchronous in both settings; in memory the files are on tmpfs.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Client, Server, Setup, dies_with_parent};

crate::library! { Api in c"libpq.so.5" {
    fn PQconnectdb(*const c_char) -> *mut c_void;
    fn PQstatus(*const c_void) -> c_int;
    fn PQfinish(*mut c_void);
    fn PQerrorMessage(*const c_void) -> *const c_char;
    fn PQexec(*mut c_void, *const c_char) -> *mut c_void;
    fn PQresultStatus(*const c_void) -> c_int;
    fn PQcmdTuples(*mut c_void) -> *const c_char;
    fn PQntuples(*const c_void) -> c_int;
    fn PQclear(*mut c_void);
    fn PQconsumeInput(*mut c_void) -> c_int;
    fn PQnotifies(*mut c_void) -> *mut c_void;
    fn PQfreemem(*mut c_void);
    fn PQsocket(*const c_void) -> c_int;
} }

const BIN: &str = "/usr/lib/postgresql/15/bin";

pub struct Queue {
    api: Api,
    connection: *mut c_void,
    address: String,
    last: u64,
}

impl Queue {
    /// Starts a database of its own, as the user postgres: it refuses to be root.
    pub fn server(setup: &Setup) -> Result<Queue, String> {
        let says = |what: &str, error: String| format!("PostgreSQL: {what}: {error}");
        let id = Command::new("id").args(["-u", "postgres"]).output();
        let id = id.map_err(|error| says("id", error.to_string()))?;
        let uid: u32 = String::from_utf8_lossy(&id.stdout)
            .trim()
            .parse()
            .map_err(|_| says("user postgres", "there is none: install postgresql".into()))?;
        let data = setup.dir.join("data");
        std::fs::create_dir_all(&data).map_err(|error| says("data", error.to_string()))?;
        std::os::unix::fs::chown(&data, Some(uid), None)
            .map_err(|error| says("chown", error.to_string()))?;
        let made = Command::new(format!("{BIN}/initdb"))
            .args(["--no-sync", "-A", "trust", "-D"])
            .arg(&data)
            .uid(uid)
            .stdout(Stdio::null())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return Err(says("initdb", "failed: install postgresql".into()));
        }
        let mut command = Command::new(format!("{BIN}/postgres"));
        command
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&data)
            .args(["-c", "listen_addresses="]);
        command.uid(uid).stdout(Stdio::null()).stderr(Stdio::null());
        dies_with_parent(&mut command);
        command
            .spawn()
            .map_err(|error| says("start", error.to_string()))?;
        let address = format!("host={} user=postgres dbname=postgres", data.display());
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(50));
            if let Ok(queue) = Queue::connect(&address) {
                queue.exec(
                    "CREATE TABLE requests(id bigint PRIMARY KEY, body bytea);
                     CREATE TABLE responses(id bigint PRIMARY KEY, body bytea); LISTEN request",
                )?;
                return Ok(queue);
            }
        }
        Err(says("connect", "it does not answer".into()))
    }

    pub fn client(address: &str) -> Result<Queue, String> {
        let queue = Queue::connect(address)?;
        queue.exec("LISTEN response")?;
        Ok(queue)
    }

    fn connect(address: &str) -> Result<Queue, String> {
        let api = Api::load()?;
        let text = CString::new(address).expect("an address");
        // SAFETY: as the library's header says.
        unsafe {
            let connection = (api.PQconnectdb)(text.as_ptr());
            if (api.PQstatus)(connection) != 0 {
                let message = CStr::from_ptr((api.PQerrorMessage)(connection));
                let error = message.to_string_lossy().into_owned();
                (api.PQfinish)(connection);
                return Err(error);
            }
            Ok(Queue {
                api,
                connection,
                address: address.to_owned(),
                last: 0,
            })
        }
    }

    /// Runs statements; how many rows the last one with rows has touched.
    fn exec(&self, statements: &str) -> Result<u64, String> {
        let text = CString::new(statements).expect("statements");
        // SAFETY: the connection is open; the result is read before it is cleared.
        unsafe {
            let result = (self.api.PQexec)(self.connection, text.as_ptr());
            let (status, rows) = (
                (self.api.PQresultStatus)(result),
                (self.api.PQntuples)(result),
            );
            let touched = CStr::from_ptr((self.api.PQcmdTuples)(result)).to_string_lossy();
            let touched = touched.parse().unwrap_or(rows as u64);
            (self.api.PQclear)(result);
            match status {
                1 | 2 => Ok(touched),
                _ => {
                    let message = CStr::from_ptr((self.api.PQerrorMessage)(self.connection));
                    Err(message.to_string_lossy().into_owned())
                }
            }
        }
    }

    /// Waits until the other side has said that something is there.
    fn wait(&self) {
        // SAFETY: the connection is open; a notification is freed as the header says.
        unsafe {
            loop {
                (self.api.PQconsumeInput)(self.connection);
                let notification = (self.api.PQnotifies)(self.connection);
                if !notification.is_null() {
                    (self.api.PQfreemem)(notification);
                    return;
                }
                let mut poll = libc::pollfd {
                    fd: (self.api.PQsocket)(self.connection),
                    events: libc::POLLIN,
                    revents: 0,
                };
                libc::poll(&mut poll, 1, 1000);
            }
        }
    }
}

impl Server for Queue {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn answer(&mut self) -> Result<(), String> {
        // One statement is one transaction: taken, answered and announced together.
        let taken = self.exec(
            "WITH taken AS (DELETE FROM requests WHERE id = (SELECT id FROM requests ORDER BY id
                 FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id, body),
             put AS (INSERT INTO responses SELECT id, body FROM taken RETURNING id)
             SELECT pg_notify('response', '') FROM put",
        )?;
        if taken == 0 {
            self.wait();
        }
        Ok(())
    }
}

impl Client for Queue {
    fn ask(&mut self, message: &[u8]) -> Result<(), String> {
        use std::fmt::Write;
        self.last += 1;
        let mut hex = String::with_capacity(2 * message.len());
        for byte in message {
            let _ = write!(hex, "{byte:02x}");
        }
        let id = self.last;
        self.exec(&format!(
            "WITH put AS (INSERT INTO requests VALUES ({id}, '\\x{hex}') RETURNING id)
             SELECT pg_notify('request', '') FROM put"
        ))?;
        loop {
            self.wait();
            let taken = self.exec(&format!(
                "DELETE FROM responses WHERE id = {id} RETURNING body"
            ))?;
            if taken == 1 {
                return Ok(());
            }
        }
    }
}
