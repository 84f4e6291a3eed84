//! A client that speaks line by line and waits for each answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub struct Client {
    reader: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Client {
    pub fn connect(place: &str) -> Result<Client, String> {
        let stream =
            TcpStream::connect(place).map_err(|cause| format!("connect to {place}: {cause}"))?;
        let set = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(60))));
        set.map_err(|cause| format!("{place}: {cause}"))?;
        Ok(Client {
            reader: BufReader::with_capacity(64 << 10, stream),
            line: Vec::new(),
        })
    }

    pub fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        self.reader
            .get_mut()
            .write_all(octets)
            .map_err(|cause| format!("send: {cause}"))
    }

    fn read_line(&mut self) -> Result<&[u8], String> {
        self.line.clear();
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(0) => Err("the server has closed the connection".into()),
            Ok(_) => Ok(&self.line),
            Err(cause) => Err(format!("read: {cause}")),
        }
    }

    /// Reads a reply of SMTP, which must have this code.
    pub fn reply(&mut self, code: &str) -> Result<(), String> {
        loop {
            let line = self.read_line()?;
            if !line.starts_with(code.as_bytes()) {
                return Err(format!(
                    "expected {code}: {}",
                    String::from_utf8_lossy(line).trim_end()
                ));
            }
            if line.get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }

    pub fn smtp(&mut self, command: &str, code: &str) -> Result<(), String> {
        self.send(format!("{command}\r\n").as_bytes())?;
        self.reply(code)
    }

    pub fn greeting(&mut self) -> Result<(), String> {
        self.read_line().map(|_| ())
    }

    /// Carries out an IMAP command; the octets of literals that came, and the
    /// untagged line that has `wanted` in it.
    pub fn imap(&mut self, command: &str, wanted: &str) -> Result<(u64, Option<String>), String> {
        self.send(format!("x {command}\r\n").as_bytes())?;
        self.answer(command, wanted)
    }

    /// Reads the answer to a command that was sent with the tag x.
    pub fn answer(&mut self, command: &str, wanted: &str) -> Result<(u64, Option<String>), String> {
        let mut octets = 0;
        let mut found = None;
        loop {
            let line = self.read_line()?;
            if line.starts_with(b"x ") {
                if !line.starts_with(b"x OK") {
                    return Err(format!(
                        "{command}: {}",
                        String::from_utf8_lossy(line).trim_end()
                    ));
                }
                return Ok((octets, found));
            }
            if !wanted.is_empty() {
                let text = String::from_utf8_lossy(line);
                if text.contains(wanted) {
                    found = Some(text.trim_end().to_string());
                }
            }
            if let Some(len) = literal(&self.line) {
                let copied =
                    std::io::copy(&mut self.reader.by_ref().take(len), &mut std::io::sink());
                octets += copied.map_err(|cause| format!("read: {cause}"))?;
            }
        }
    }

    pub fn login(place: &str, user: &str, password: &str) -> Result<Client, String> {
        let mut client = Client::connect(place)?;
        client.greeting()?;
        client.imap(&format!("LOGIN {user} {password}"), "")?;
        Ok(client)
    }
}

/// The length of the literal that a line announces at its end.
fn literal(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"}\r\n")?;
    let open = line.iter().rposition(|byte| *byte == b'{')?;
    std::str::from_utf8(&line[open + 1..]).ok()?.parse().ok()
}
