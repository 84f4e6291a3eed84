//! The words that commands are made of: atoms, strings, literals, numbers, sets,
//! flags (RFC 3501, section 9).

use crate::imap::command::{Flag, Set};
use crate::maildir::name::Flags;

/// What was read, or what was expected instead, for the client to read.
pub type Parsed<T> = Result<T, String>;

pub fn is_tag_char(byte: u8) -> bool {
    is_astring_char(byte) && byte != b'+'
}

pub fn is_atom_char(byte: u8) -> bool {
    (0x21..0x7f).contains(&byte) && !b"(){%*\"\\]".contains(&byte)
}

fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

/// A place in a command's octets.
pub struct Cursor<'a> {
    input: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        let input = input.strip_suffix(b"\n").unwrap_or(input);
        Cursor {
            input: input.strip_suffix(b"\r").unwrap_or(input),
            at: 0,
        }
    }

    pub fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    pub fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    pub fn expect(&mut self, byte: u8) -> Parsed<()> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.wrong(&format!("{:?}", byte as char)))
        }
    }

    pub fn space(&mut self) -> Parsed<()> {
        if self.take(b' ') {
            Ok(())
        } else {
            Err(self.wrong("a space and an argument"))
        }
    }

    pub fn end(&mut self) -> Parsed<()> {
        // Some clients leave a space behind a command.
        while self.take(b' ') {}
        if self.at >= self.input.len() {
            Ok(())
        } else {
            Err(self.wrong("the end of the command"))
        }
    }

    pub fn to_end(&mut self) {
        self.at = self.input.len();
    }

    /// The error that something else was expected here.
    pub fn wrong(&self, expected: &str) -> String {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let shown: String = String::from_utf8_lossy(&rest[..rest.len().min(20)])
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        if shown.is_empty() {
            format!("Expected {expected} at the end")
        } else {
            format!("Expected {expected} before {shown:?}")
        }
    }

    pub fn while_(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|byte| !accept(*byte))
            .unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// An atom in upper case; empty if there is none.
    pub fn word(&mut self) -> String {
        String::from_utf8_lossy(self.while_(|byte| is_atom_char(byte) && byte != b'['))
            .to_ascii_uppercase()
    }

    pub fn number(&mut self) -> Parsed<u64> {
        let digits = self.while_(|byte| byte.is_ascii_digit());
        std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .filter(|number| *number < 1 << 63)
            .ok_or_else(|| self.wrong("a number"))
    }

    pub fn number32(&mut self) -> Parsed<u32> {
        u32::try_from(self.number()?).map_err(|_| "A number is larger than 32 bits".to_string())
    }

    pub fn quoted(&mut self) -> Parsed<Vec<u8>> {
        self.expect(b'"')?;
        let mut out = Vec::new();
        loop {
            match self.peek() {
                None | Some(b'\r' | b'\n') => return Err("A quoted string has no end".into()),
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(byte @ (b'"' | b'\\')) => out.push(byte),
                        _ => return Err("In a quoted string only \\\" and \\\\ are escapes".into()),
                    }
                }
                Some(byte) => out.push(byte),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(out)
    }

    pub fn literal(&mut self) -> Parsed<Vec<u8>> {
        self.expect(b'{')?;
        let len = self.number()?;
        self.take(b'+');
        self.expect(b'}')?;
        self.take(b'\r');
        self.expect(b'\n')?;
        let rest = self.input.get(self.at..).unwrap_or_default();
        let text = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let text = text.ok_or("A literal is shorter than it says")?;
        self.at += text.len();
        Ok(text.to_vec())
    }

    pub fn astring(&mut self) -> Parsed<Vec<u8>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal(),
            // Wildcards are none of an atom's, but clients write `user*master` so.
            _ => match self.while_(|byte| is_astring_char(byte) || b"*%".contains(&byte)) {
                b"" => Err(self.wrong("a string")),
                atom => Ok(atom.to_vec()),
            },
        }
    }

    /// A string that is text.
    pub fn text(&mut self) -> Parsed<String> {
        let octets = self.astring()?;
        match String::from_utf8(octets) {
            Ok(text) if !text.contains(['\0', '\r', '\n']) => Ok(text),
            _ => Err("A string is not UTF-8, or has a line end or a zero in it".into()),
        }
    }

    /// A space, and a string that is text.
    pub fn argument(&mut self) -> Parsed<String> {
        self.space()?;
        self.text()
    }

    /// A mailbox name with wildcards.
    pub fn pattern(&mut self) -> Parsed<String> {
        match self.peek() {
            Some(b'"' | b'{') => self.text(),
            _ => match self.while_(|byte| is_astring_char(byte) || b"*%".contains(&byte)) {
                b"" => Err(self.wrong("a pattern")),
                atom => Ok(String::from_utf8_lossy(atom).into_owned()),
            },
        }
    }

    pub fn set(&mut self) -> Parsed<Set> {
        let mut ranges = Vec::new();
        loop {
            let first = self.set_number()?;
            let last = if self.take(b':') {
                self.set_number()?
            } else {
                first
            };
            ranges.push((first, last));
            if !self.take(b',') {
                return Ok(Set(ranges));
            }
        }
    }

    fn set_number(&mut self) -> Parsed<Option<u32>> {
        if self.take(b'*') {
            return Ok(None);
        }
        match self.number32()? {
            0 => Err("Numbers of messages begin with 1".into()),
            number => Ok(Some(number)),
        }
    }

    pub fn flag_list(&mut self) -> Parsed<Vec<Flag>> {
        self.expect(b'(')?;
        let mut flags = Vec::new();
        while !self.take(b')') {
            if self.at > 0 && self.peek() == Some(b' ') {
                self.at += 1;
            }
            if self.peek() != Some(b')') {
                flags.push(self.flag()?);
            }
        }
        Ok(flags.into_iter().flatten().collect())
    }

    /// One flag; `None` for \Recent, which nobody can set.
    pub fn flag(&mut self) -> Parsed<Option<Flag>> {
        let system = self.take(b'\\');
        let name = String::from_utf8_lossy(self.while_(is_atom_char)).into_owned();
        if name.is_empty() || name.len() > 200 {
            return Err(self.wrong("a flag"));
        }
        if !system {
            return Ok(Some(Flag::Keyword(name)));
        }
        Ok(Some(Flag::System(
            match name.to_ascii_uppercase().as_str() {
                "SEEN" => Flags::SEEN,
                "ANSWERED" => Flags::ANSWERED,
                "FLAGGED" => Flags::FLAGGED,
                "DELETED" => Flags::DELETED,
                "DRAFT" => Flags::DRAFT,
                "RECENT" => return Ok(None),
                _ => return Err(format!("There is no flag \\{name}")),
            },
        )))
    }
}
