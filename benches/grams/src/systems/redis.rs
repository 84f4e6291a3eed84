//! Redis with a stream each way, appendonly with appendfsync always; MULTI makes taking and
//! answering one. In memory the append-only file is on tmpfs.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Client, Server, Setup, dies_with_parent};

pub struct Streams {
    to: BufReader<UnixStream>,
    path: PathBuf,
    /// The last entry that was read.
    last: String,
}

/// Id and body.
type Entry = (Vec<u8>, Vec<u8>);

impl Streams {
    pub fn server(setup: &Setup) -> Result<Streams, String> {
        let path = setup.dir.join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "yes"]);
        command
            .args(["--appendfsync", "always", "--unixsocket"])
            .arg(&path);
        command
            .arg("--dir")
            .arg(setup.dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        dies_with_parent(&mut command);
        command
            .spawn()
            .map_err(|error| format!("redis-server: {error}: install redis-server"))?;
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(30));
            if let Ok(streams) = Streams::client(path.to_str().expect("a path")) {
                return Ok(streams);
            }
        }
        Err("redis-server: it does not answer".into())
    }

    pub fn client(path: &str) -> Result<Streams, String> {
        let socket = UnixStream::connect(path).map_err(|error| format!("{path}: {error}"))?;
        let mut streams = Streams {
            to: BufReader::new(socket),
            path: path.into(),
            last: "0".into(),
        };
        streams.call(&[b"PING"])?;
        Ok(streams)
    }

    fn send(&mut self, words: &[&[u8]]) -> Result<(), String> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.to
            .get_mut()
            .write_all(&bytes)
            .map_err(|error| error.to_string())
    }

    fn call(&mut self, words: &[&[u8]]) -> Result<Vec<Vec<u8>>, String> {
        self.send(words)?;
        self.reply()
    }

    /// All strings of a reply, however nested.
    fn reply(&mut self) -> Result<Vec<Vec<u8>>, String> {
        let mut strings = Vec::new();
        let mut left = 1;
        while left > 0 {
            left -= 1;
            let mut line = String::new();
            self.to
                .read_line(&mut line)
                .map_err(|error| error.to_string())?;
            let line = line.trim_end();
            let (kind, rest) = line.split_at_checked(1).ok_or("redis: it hung up")?;
            match kind {
                "*" => left += rest.parse::<i64>().unwrap_or(0).max(0),
                "$" => {
                    let len = rest.parse::<i64>().unwrap_or(-1);
                    if len >= 0 {
                        let mut bytes = vec![0; len as usize + 2];
                        self.to
                            .read_exact(&mut bytes)
                            .map_err(|error| error.to_string())?;
                        bytes.truncate(len as usize);
                        strings.push(bytes);
                    }
                }
                "-" => return Err(format!("redis: {rest}")),
                _ => strings.push(rest.as_bytes().to_vec()),
            }
        }
        Ok(strings)
    }

    /// The next entry of a stream: its id and its body.
    fn next(&mut self, stream: &[u8]) -> Result<Option<Entry>, String> {
        let last = self.last.clone();
        let found = self.call(&[
            b"XREAD",
            b"COUNT",
            b"1",
            b"BLOCK",
            b"1000",
            b"STREAMS",
            stream,
            last.as_bytes(),
        ])?;
        let [_, id, _, body] = &found[..] else {
            return Ok(None);
        };
        self.last = String::from_utf8_lossy(id).into_owned();
        Ok(Some((id.clone(), body.clone())))
    }
}

impl Server for Streams {
    fn address(&self) -> String {
        self.path.display().to_string()
    }

    fn answer(&mut self) -> Result<(), String> {
        let Some((id, body)) = self.next(b"requests")? else {
            return Ok(());
        };
        self.send(&[b"MULTI"])?;
        self.send(&[b"XDEL", b"requests", &id])?;
        self.send(&[b"XADD", b"responses", b"*", b"b", &body])?;
        self.send(&[b"EXEC"])?;
        (0..4).try_for_each(|_| self.reply().map(|_| ()))
    }
}

impl Client for Streams {
    fn ask(&mut self, message: &[u8]) -> Result<(), String> {
        self.call(&[b"XADD", b"requests", b"*", b"b", message])?;
        loop {
            if let Some((id, _)) = self.next(b"responses")? {
                self.call(&[b"XDEL", b"responses", &id])?;
                return Ok(());
            }
        }
    }
}
