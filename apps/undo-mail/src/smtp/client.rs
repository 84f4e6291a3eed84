//! Handing mail to the real server, by SMTP or LMTP (RFC 5321, RFC 2033), over kept connections.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::read_line;

/// A reply: its code, and its lines in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub text: String,
}

impl Reply {
    pub fn is_good(&self) -> bool {
        self.code < 400
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

struct Connection {
    stream: BufReader<TcpStream>,
    /// The server takes commands without waiting for its replies (RFC 2920).
    pipelines: bool,
    /// When the server has answered last.
    used: Instant,
    /// It must not be used again.
    is_spoiled: bool,
}

/// The real server.
pub struct Server {
    address: String,
    lmtp: bool,
    hostname: String,
    idle: Mutex<Vec<Connection>>,
}

/// More idle connections are not kept.
const MOST_IDLE: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);
/// A server that has answered so lately has not ended the connection for being idle.
const FRESH: Duration = Duration::from_secs(1);

impl Server {
    pub fn new(address: &str, lmtp: bool, hostname: &str) -> Server {
        Server {
            address: address.into(),
            lmtp,
            hostname: hostname.into(),
            idle: Mutex::default(),
        }
    }

    pub fn ready(&self) -> io::Result<()> {
        TcpStream::connect(&self.address).map(drop)
    }

    /// Closes the kept connections.
    pub fn forget(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for mut connection in idle {
            let _ = connection.ask("QUIT");
        }
    }

    /// Delivers a message to one recipient. `Ok(Err(..))`: the server has refused it.
    pub fn deliver(
        &self,
        from: &str,
        to: &str,
        options: &str,
        body: &[u8],
    ) -> io::Result<Result<(), Reply>> {
        let mut connection = self.connection()?;
        let result = self.transaction(&mut connection, from, to, options, body);
        match result {
            Ok(_) => self.keep(connection),
            // The server has died, and the other connections with it: the next attempt needs a new one.
            Err(_) => drop(std::mem::take(&mut *self.idle())),
        }
        result
    }

    fn transaction(
        &self,
        connection: &mut Connection,
        from: &str,
        to: &str,
        options: &str,
        body: &[u8],
    ) -> io::Result<Result<(), Reply>> {
        let mail = match options {
            "" => format!("MAIL FROM:<{from}>"),
            _ => format!("MAIL FROM:<{from}> {options}"),
        };
        let commands = [mail, format!("RCPT TO:<{to}>"), "DATA".into()];
        if let Some(reply) = connection.refusal(&commands)? {
            if !connection.is_spoiled {
                connection.ask("RSET")?;
            }
            return Ok(Err(reply));
        }
        connection.send(&stuffed(body))?;
        // (LMTP answers once for each recipient; there is one.)
        let reply = connection.reply()?;
        Ok(if reply.is_good() { Ok(()) } else { Err(reply) })
    }

    /// Asks whether mail to this recipient would be taken.
    pub fn would_take(&self, from: &str, to: &str) -> io::Result<Reply> {
        let mut connection = self.connection()?;
        connection.ask(&format!("MAIL FROM:<{from}>"))?;
        let reply = connection.ask(&format!("RCPT TO:<{to}>"))?;
        connection.ask("RSET")?;
        self.keep(connection);
        Ok(reply)
    }

    fn connection(&self) -> io::Result<Connection> {
        loop {
            let kept = self.idle().pop();
            let Some(mut connection) = kept else { break };
            // A server ends connections that are idle for long.
            if connection.used.elapsed() < FRESH {
                return Ok(connection);
            }
            if connection.ask("RSET").is_ok_and(|reply| reply.is_good()) {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Connection {
            stream: BufReader::new(stream),
            pipelines: false,
            used: Instant::now(),
            is_spoiled: false,
        };
        let greeting = connection.reply()?;
        let hello = if self.lmtp { "LHLO" } else { "EHLO" };
        let hello = connection.ask(&format!("{hello} {}", self.hostname))?;
        connection.pipelines = hello.text.split(' ').any(|word| word == "PIPELINING");
        for reply in [greeting, hello] {
            if !reply.is_good() {
                return Err(io::Error::other(format!("the server says {reply}")));
            }
        }
        Ok(connection)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < MOST_IDLE && !connection.is_spoiled {
            idle.push(connection);
        }
    }
}

impl Connection {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Asks for a transaction, up to its DATA. `None`: the server waits for the message.
    fn refusal(&mut self, commands: &[String; 3]) -> io::Result<Option<Reply>> {
        if !self.pipelines {
            for command in commands {
                let reply = self.ask(command)?;
                if !reply.is_good() {
                    return Ok(Some(reply));
                }
            }
            return Ok(None);
        }
        self.send(format!("{}\r\n", commands.join("\r\n")).as_bytes())?;
        let replies = [self.reply()?, self.reply()?, self.reply()?];
        if replies[2].is_good() && !replies.iter().all(Reply::is_good) {
            // It waits for a message that it would give to nobody.
            self.is_spoiled = true;
        }
        Ok(replies.into_iter().find(|reply| !reply.is_good()))
    }

    fn ask(&mut self, command: &str) -> io::Result<Reply> {
        self.send(format!("{command}\r\n").as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = read_line(&mut self.stream, 4096)?
                .ok_or_else(|| {
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the server has hung up")
                })?
                .map_err(io::Error::other)?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let code = line.get(..3).and_then(|c| c.parse().ok());
            let Some(code) = code else {
                return Err(io::Error::other(format!("the server says {line:?}")));
            };
            lines.push(line.get(4..).unwrap_or("").to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                self.used = Instant::now();
                return Ok(Reply {
                    code,
                    text: lines.join(" "),
                });
            }
        }
    }
}

/// The message with CRLF at every line end, dots doubled at the start of lines, and the final dot.
fn stuffed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / 50 + 8);
    for line in body.split_inclusive(|&b| b == b'\n') {
        if line[0] == b'.' {
            out.push(b'.');
        }
        match line.strip_suffix(b"\n") {
            Some(text) => {
                out.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
                out.extend_from_slice(b"\r\n");
            }
            None => {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
    out.extend_from_slice(b".\r\n");
    out
}
