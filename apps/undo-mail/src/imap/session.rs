//! One connection to the real IMAP server, logged in as one user by the master login.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::token::{self, Longest, Token};

/// A list of all UIDs of a folder is one line.
const LONGEST: Longest = Longest {
    line: 64 << 20,
    literals: 256 << 20,
};

/// What the server answered to a command.
#[derive(Debug, Default)]
pub struct Answer {
    /// Untagged responses, without the star.
    pub untagged: Vec<Vec<Token>>,
    /// The text of the tagged response.
    pub text: String,
    pub kind: Kind,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Ok,
    No,
    Bad,
}

/// A folder that is selected in a session.
#[derive(Debug, Clone)]
pub struct Selected {
    pub folder: String,
    pub read_only: bool,
    pub uid_validity: u32,
    /// The UIDs by sequence number, as far as they are known: those of messages that have come
    /// since [`Session::list_uids`] are missing at the end.
    pub uids: Vec<u32>,
    /// How many messages there are, as the server has said last.
    pub exists: usize,
    /// UIDs that the server has said to be gone, as far as they were known.
    pub gone: Vec<u32>,
    /// The flags that can be kept, as the server writes them.
    pub permanent_flags: Vec<u8>,
    pub flags: Vec<u8>,
}

pub struct Session {
    stream: BufReader<TcpStream>,
    tag: u32,
    /// The command under way asks for all UIDs.
    lists_uids: bool,
    /// Which of a user's generations of sessions it is of; the pool's.
    pub generation: u64,
    pub selected: Option<Selected>,
}

impl Session {
    /// Connects and logs in.
    pub fn open(
        address: &str,
        user: &str,
        password: &str,
        patience: Duration,
    ) -> io::Result<Session> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut session = Session {
            stream: BufReader::new(stream),
            tag: 0,
            lists_uids: false,
            generation: 0,
            selected: None,
        };
        session.frame()?;
        let mut login = b"LOGIN ".to_vec();
        login.extend(token::quote(user.as_bytes()));
        login.push(b' ');
        login.extend(token::quote(password.as_bytes()));
        let answer = session.ask(&login)?;
        if answer.kind == Kind::Ok {
            return Ok(session);
        }
        // (RFC 5530: it cannot look, or there are too many; that says nothing about the user.)
        let codes = ["[UNAVAILABLE]", "[INUSE]", "[LIMIT]", "[SERVERBUG]"];
        let kind = match codes.iter().any(|code| answer.text.starts_with(code)) {
            true => io::ErrorKind::ConnectionRefused,
            false => io::ErrorKind::PermissionDenied,
        };
        Err(io::Error::new(kind, answer.text))
    }

    fn frame(&mut self) -> io::Result<Vec<u8>> {
        token::read_frame(&mut self.stream, LONGEST, || Ok(()))?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server has closed the connection",
            )
        })
    }

    /// Sends a command (without tag and line end) and reads up to its tagged response.
    pub fn ask(&mut self, command: &[u8]) -> io::Result<Answer> {
        self.tag += 1;
        let tag = format!("u{}", self.tag);
        let mut line = Vec::with_capacity(command.len() + 16);
        line.extend_from_slice(tag.as_bytes());
        line.push(b' ');
        line.extend_from_slice(command);
        line.extend_from_slice(b"\r\n");
        self.stream.get_mut().write_all(&line)?;
        let mut answer = Answer::default();
        loop {
            let frame = self.frame()?;
            let (first, rest) = split(&frame);
            if first == b"*" {
                self.untagged(rest, &mut answer)?;
            } else if first == tag.as_bytes() {
                let (status, text) = split(rest);
                answer.text = String::from_utf8_lossy(text).trim().to_owned();
                answer.kind = match status {
                    b"OK" => Kind::Ok,
                    b"NO" => Kind::No,
                    _ => Kind::Bad,
                };
                return Ok(answer);
            }
        }
    }

    fn untagged(&mut self, rest: &[u8], answer: &mut Answer) -> io::Result<()> {
        let (word, text) = split(rest);
        if matches!(word, b"OK" | b"NO" | b"BAD" | b"BYE" | b"PREAUTH") {
            // Free text need not have the syntax of anything.
            let words = vec![
                Token::Atom(word.to_vec()),
                Token::Literal(text.trim_ascii_end().to_vec()),
            ];
            answer.untagged.push(words);
            return Ok(());
        }
        let tokens =
            token::parse(rest).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        if let (Some(n), Some(kind), Some(selected)) = (
            tokens.first().and_then(Token::number),
            tokens.get(1).and_then(Token::word),
            self.selected.as_mut(),
        ) {
            match kind.as_str() {
                "EXISTS" => selected.exists = n as usize,
                "EXPUNGE" => {
                    if (1..=selected.uids.len()).contains(&(n as usize)) {
                        let uid = selected.uids.remove(n as usize - 1);
                        selected.gone.push(uid);
                    }
                    selected.exists = selected.exists.saturating_sub(1);
                }
                _ => {}
            }
        }
        if self.lists_uids
            && tokens.first().and_then(Token::word).as_deref() == Some("SEARCH")
            && let Some(selected) = self.selected.as_mut()
        {
            selected.uids = tokens[1..].iter().filter_map(Token::number).collect();
            selected.uids.sort_unstable();
        }
        answer.untagged.push(tokens);
        Ok(())
    }

    /// Asks for the UIDs of all messages of the selected folder.
    ///
    /// They are taken over at their place among the responses: what the server tells behind them,
    /// in the answer to the same command, is about messages that have come or gone since it made
    /// the list. Dovecot does that, and does not tell it again.
    pub fn list_uids(&mut self) -> io::Result<Answer> {
        if let Some(selected) = self.selected.as_mut() {
            selected.uids.clear();
        }
        self.lists_uids = true;
        let answer = self.ask(b"UID SEARCH ALL");
        self.lists_uids = false;
        answer
    }

    /// Selects a folder, or makes sure that it is selected and up to date.
    pub fn select(&mut self, folder: &str, read_only: bool) -> io::Result<Result<(), String>> {
        if let Some(selected) = &self.selected
            && selected.folder == folder
            && (!selected.read_only || read_only)
        {
            self.ask(b"NOOP")?;
            return Ok(Ok(()));
        }
        self.selected = None;
        let mut command = if read_only {
            b"EXAMINE ".to_vec()
        } else {
            b"SELECT ".to_vec()
        };
        command.extend(token::quote(folder.as_bytes()));
        let answer = self.ask(&command)?;
        if answer.kind != Kind::Ok {
            return Ok(Err(answer.text));
        }
        let mut selected = Selected {
            folder: folder.to_owned(),
            read_only,
            uid_validity: 0,
            uids: Vec::new(),
            exists: 0,
            gone: Vec::new(),
            permanent_flags: b"()".to_vec(),
            flags: b"()".to_vec(),
        };
        for response in &answer.untagged {
            match (
                response.first().and_then(Token::word).as_deref(),
                response.get(1),
            ) {
                (Some("FLAGS"), Some(list)) => {
                    selected.flags.clear();
                    list.write(&mut selected.flags);
                }
                (Some("OK"), Some(text)) => read_code(text, &mut selected),
                (Some(number), Some(word)) if word.word().as_deref() == Some("EXISTS") => {
                    selected.exists = number.parse().unwrap_or(0);
                }
                _ => {}
            }
        }
        self.selected = Some(selected);
        Ok(Ok(()))
    }

    /// Lets go of the selected folder. False: the server cannot do that (RFC 3691), or is gone.
    pub fn unselect(&mut self) -> bool {
        self.selected = None;
        let answer = self.ask(b"UNSELECT");
        answer.is_ok_and(|answer| answer.kind == Kind::Ok)
    }

    /// Ends the session so that the server's process has let go of everything when this returns.
    pub fn log_out(mut self) {
        let _ = self.ask(b"LOGOUT");
        let mut rest = Vec::new();
        let _ = io::Read::read_to_end(&mut self.stream, &mut rest);
    }
}

fn read_code(text: &Token, selected: &mut Selected) {
    let text = text.text().unwrap_or_default();
    let code = text.trim_start_matches('[');
    if let Some(number) = code.strip_prefix("UIDVALIDITY ") {
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        selected.uid_validity = digits.parse().unwrap_or(0);
    } else if let Some(flags) = code.strip_prefix("PERMANENTFLAGS ")
        && let Some(end) = flags.find(')')
    {
        selected.permanent_flags = flags.as_bytes()[..=end].to_vec();
    }
}

fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&b| b == b' ') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes.trim_ascii_end(), &[]),
    }
}
