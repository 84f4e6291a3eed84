//! The sessions: one mail handed over, one look into an INBOX.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

struct Talk {
    stream: BufReader<TcpStream>,
    tags: u32,
}

impl Talk {
    fn connect(address: &str) -> io::Result<Talk> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Talk {
            stream: BufReader::new(stream),
            tags: 0,
        })
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        self.stream
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line)? {
            0 => Err(io::Error::other("the server has hung up")),
            _ => Ok(String::from_utf8_lossy(&line).into_owned()),
        }
    }

    /// An SMTP reply of this class.
    fn expect(&mut self, class: char) -> io::Result<()> {
        loop {
            let line = self.line()?;
            if line.as_bytes().get(3) == Some(&b'-') {
                continue;
            }
            return match line.starts_with(class) {
                true => Ok(()),
                false => Err(io::Error::other(line.trim_end().to_owned())),
            };
        }
    }

    /// An IMAP command that must succeed; its untagged responses, without literals.
    fn ask(&mut self, command: &str) -> io::Result<Vec<String>> {
        self.tags += 1;
        let tag = format!("l{} ", self.tags);
        self.say(&format!("{tag}{command}"))?;
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            if let Some(answer) = line.strip_prefix(&tag) {
                return match answer.starts_with("OK") {
                    true => Ok(lines),
                    false => Err(io::Error::other(answer.trim_end().to_owned())),
                };
            }
            let literal = line.trim_end().strip_suffix('}');
            let length = literal.and_then(|l| l.rsplit_once('{')?.1.parse::<u64>().ok());
            if let Some(length) = length {
                let mut text = (&mut self.stream).take(length);
                io::copy(&mut text, &mut io::sink())?;
            }
            lines.push(line);
        }
    }
}

/// Hands one mail over, with a text that hardly compresses.
pub fn mail(address: &str, lmtp: bool, from: &str, to: &str, bytes: usize) -> io::Result<()> {
    let mut talk = Talk::connect(address)?;
    talk.expect('2')?;
    for (line, class) in [
        (if lmtp { "LHLO load" } else { "EHLO load" }.to_owned(), '2'),
        (format!("MAIL FROM:<{from}>"), '2'),
        (format!("RCPT TO:<{to}>"), '2'),
        ("DATA".to_owned(), '3'),
    ] {
        talk.say(&line)?;
        talk.expect(class)?;
    }
    let mut text = format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: load\r\n\r\n").into_bytes();
    fill(&mut text, bytes);
    talk.stream.get_mut().write_all(&text)?;
    talk.say(".")?;
    talk.expect('2')?;
    talk.say("QUIT")?;
    talk.expect('2')
}

/// Lines of letters and digits, as base64 has them, up to so many bytes.
fn fill(text: &mut Vec<u8>, bytes: usize) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |t| t.as_nanos() as u64 | 1);
    while text.len() < bytes {
        for _ in 0..76 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            text.push(LETTERS[(random >> 58) as usize]);
        }
        text.extend_from_slice(b"\r\n");
    }
}

/// Logs in and looks; if `fetches`, reads all that is there and removes it.
pub fn look(address: &str, user: &str, password: &str, fetches: bool) -> io::Result<()> {
    let mut talk = Talk::connect(address)?;
    talk.line()?;
    talk.ask(&format!("LOGIN {user} {password}"))?;
    let selected = talk.ask("SELECT INBOX")?;
    let count = selected.iter().find_map(|line| {
        let number = line.trim_end().strip_suffix(" EXISTS")?;
        number.strip_prefix("* ")?.parse::<u32>().ok()
    });
    if fetches && count.unwrap_or(0) > 0 {
        talk.ask("FETCH 1:* (UID BODY[])")?;
        talk.ask("STORE 1:* +FLAGS.SILENT (\\Deleted)")?;
        talk.ask("EXPUNGE")?;
    }
    talk.ask("LOGOUT").map(drop)
}
