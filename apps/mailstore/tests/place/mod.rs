//! A server of its own for each test, in a directory that goes with it, and
//! clients that speak line by line.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use argon2::password_hash::{PasswordHasher, SaltString};
use mailstore::maildir::disk::Disk;
use mailstore::net::tls;
use mailstore::server::{self, Running};
use mailstore::settings::{Service, Settings};

/// A directory that is removed with its value.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Directory {
        static TURN: AtomicU32 = AtomicU32::new(0);
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() {
            memory.to_path_buf()
        } else {
            std::env::temp_dir()
        };
        let dir = base.join(format!("mailstore-{name}-{}-{turn}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Directory(dir)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Place {
    runtime: Option<tokio::runtime::Runtime>,
    running: Option<Running>,
    pub directory: Directory,
}

/// A hash that takes no time.
pub fn hash(password: &str) -> String {
    let parameters = argon2::Params::new(8, 1, 1, None).unwrap();
    let hasher = argon2::Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        parameters,
    );
    let salt = SaltString::from_b64("c29tZXNhbHQ").unwrap();
    hasher
        .hash_password(password.as_bytes(), &salt)
        .unwrap()
        .to_string()
}

impl Place {
    /// Accounts anna (password `a`), bob (`b`, quota 20K) at example.org, an alias,
    /// a second name of the domain, and the master `op` (`m`).
    pub fn new(name: &str) -> Place {
        Place::with(name, "")
    }

    pub fn with(name: &str, more: &str) -> Place {
        Place::in_directory(Directory::new(name), more)
    }

    pub fn in_directory(directory: Directory, more: &str) -> Place {
        let text = format!(
            r#"
            hostname = "mail.example.org"
            data = "data"
            max_message = "1M"
            [listen]
            smtp = ["127.0.0.1:0"]
            submission = ["127.0.0.1:0"]
            lmtp = ["127.0.0.1:0"]
            imap = ["127.0.0.1:0"]
            imaps = ["127.0.0.1:0"]
            [tls]
            certificate = "cert.pem"
            key = "key.pem"
            [[domain]]
            name = "example.org"
            [[domain]]
            name = "example.com"
            same_as = "example.org"
            [[account]]
            address = "anna@example.org"
            password = "{}"
            [[account]]
            address = "bob@example.org"
            password = "{}"
            quota = "20K"
            [[alias]]
            address = "team@example.org"
            to = ["anna@example.org", "bob@example.org"]
            [master]
            name = "op"
            password = "{}"
            {more}
            "#,
            hash("a"),
            hash("b"),
            hash("m"),
        );
        let settings = Settings::parse(&text, &directory.0).unwrap_or_else(|p| panic!("{p:#?}"));
        tls::make_own(
            settings.tls.as_ref().unwrap(),
            &["localhost"],
            &Disk::default(),
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let running = runtime
            .block_on(server::start(settings, Disk::default()))
            .unwrap();
        Place {
            runtime: Some(runtime),
            running: Some(running),
            directory,
        }
    }

    pub fn address(&self, service: Service) -> SocketAddr {
        self.running.as_ref().unwrap().address(service).unwrap()
    }

    pub fn client(&self, service: Service) -> Client {
        Client::connect(self.address(service))
    }

    /// Logged in to IMAP.
    pub fn imap(&self, user: &str, password: &str) -> Client {
        let mut client = self.client(Service::Imap);
        client.expect("* OK");
        client.ok(&format!("LOGIN {user} {password}"));
        client
    }

    /// Delivers by LMTP; the reply for the one recipient.
    pub fn deliver(&self, recipient: &str, text: &str) -> String {
        let mut client = self.client(Service::Lmtp);
        client.expect("220");
        client.smtp("LHLO test", "250");
        client.smtp("MAIL FROM:<sender@elsewhere.net>", "250");
        client.smtp(&format!("RCPT TO:<{recipient}>"), "250");
        client.smtp("DATA", "354");
        client.send(&format!("{text}\r\n.\r\n"));
        client.line()
    }

    pub fn mail_of(&self, account: &str) -> PathBuf {
        self.directory.0.join("data/mail").join(account)
    }

    /// Ends the server and gives back its directory.
    pub fn stop(mut self) -> Directory {
        self.end();
        std::mem::replace(
            &mut self.directory,
            Directory(PathBuf::from("/nonexistent")),
        )
    }

    fn end(&mut self) {
        if let (Some(runtime), Some(running)) = (self.runtime.take(), self.running.take()) {
            runtime.block_on(running.stop());
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end();
    }
}

pub struct Client {
    reader: BufReader<TcpStream>,
    tag: u32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Client {
            reader: BufReader::new(stream),
            tag: 0,
        }
    }

    pub fn send(&mut self, text: &str) {
        self.send_octets(text.as_bytes());
    }

    pub fn send_octets(&mut self, octets: &[u8]) {
        self.reader.get_mut().write_all(octets).unwrap();
    }

    /// The next line without its end; empty at the end of the connection.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line)
            .trim_end_matches(['\r', '\n'])
            .to_string()
    }

    pub fn octets(&mut self, len: usize) -> Vec<u8> {
        let mut octets = vec![0; len];
        self.reader.read_exact(&mut octets).unwrap();
        octets
    }

    pub fn expect(&mut self, start: &str) -> String {
        let line = self.line();
        assert!(line.starts_with(start), "expected {start:?}, got {line:?}");
        line
    }

    /// An SMTP command; the lines of its reply, which must have this code.
    pub fn smtp(&mut self, command: &str, code: &str) -> String {
        self.send(&format!("{command}\r\n"));
        self.smtp_reply(code)
    }

    pub fn smtp_reply(&mut self, code: &str) -> String {
        let mut reply = String::new();
        loop {
            let line = self.line();
            assert!(line.starts_with(code), "expected {code}, got {line:?}");
            reply.push_str(&line);
            reply.push('\n');
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply;
            }
        }
    }

    /// An IMAP command; all lines of its answer, the tagged one last. A literal
    /// stands in its line, behind its braces.
    pub fn imap(&mut self, command: &str) -> Vec<String> {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        self.send(&format!("{tag} {command}\r\n"));
        self.answer(&tag)
    }

    pub fn answer(&mut self, tag: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = self.line();
            assert!(!line.is_empty(), "the connection ended after {lines:#?}");
            while let Some(len) = literal(&line) {
                let text = self.octets(len);
                line.push_str(&String::from_utf8_lossy(&text));
                line.push_str(&self.line());
            }
            let last = line.starts_with(&format!("{tag} "));
            lines.push(line);
            if last {
                return lines;
            }
        }
    }

    /// An IMAP command that must succeed; its answer in one text.
    pub fn ok(&mut self, command: &str) -> String {
        self.with(command, "OK")
    }

    /// An IMAP command that must end with this; its answer in one text.
    pub fn with(&mut self, command: &str, end: &str) -> String {
        let lines = self.imap(command);
        let last = lines.last().unwrap();
        let wanted = format!("t{} {end}", self.tag);
        assert!(
            last.starts_with(&wanted),
            "{command}: expected {wanted:?}, got {lines:#?}"
        );
        lines.join("\n")
    }
}

fn literal(line: &str) -> Option<usize> {
    line.strip_suffix('}')?.rsplit_once('{')?.1.parse().ok()
}
