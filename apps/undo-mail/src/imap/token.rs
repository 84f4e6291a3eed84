//! The syntax of IMAP, as far as a proxy needs it: lines with literals inside, made of atoms,
//! strings and lists (RFC 3501, section 9; LITERAL+ of RFC 7888).
//!
//! Framing comes first and knows nothing of commands: a line that ends in `{n}` goes on behind n
//! bytes. So whatever a client sends, we know where it ends.

use std::io::{self, BufRead, Read};

/// How much one line with its literals may be, in bytes: what somebody only announces takes memory.
#[derive(Clone, Copy)]
pub struct Longest {
    /// Without the literals.
    pub line: usize,
    /// All literals together.
    pub literals: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// An atom, a number, a flag, or an item like `BODY[HEADER.FIELDS (TO)]<0>`.
    Atom(Vec<u8>),
    Quoted(Vec<u8>),
    Literal(Vec<u8>),
    List(Vec<Token>),
}

/// Reads one line with its literals. `more` is called before a literal for which the other side
/// waits. `None`: the connection has ended.
pub fn read_frame(
    reader: &mut impl BufRead,
    longest: Longest,
    mut more: impl FnMut() -> io::Result<()>,
) -> io::Result<Option<Vec<u8>>> {
    let mut frame = Vec::new();
    let (mut line_left, mut literals_left) = (longest.line, longest.literals);
    loop {
        let start = frame.len();
        reader
            .by_ref()
            .take(line_left as u64)
            .read_until(b'\n', &mut frame)?;
        if frame.len() == start && line_left > 0 {
            return Ok(None);
        }
        line_left -= frame.len() - start;
        if frame.len() == start || frame.last() != Some(&b'\n') {
            let what = match line_left == 0 {
                true => "a line is too long",
                false => return Ok(None),
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let Some((length, waits)) = literal_at_end(&frame[start..]) else {
            return Ok(Some(frame));
        };
        if length > literals_left {
            let what = format!("a literal of {length} bytes is longer than {literals_left}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        literals_left -= length;
        if waits {
            more()?;
        }
        let at = frame.len();
        frame.resize(at + length, 0);
        reader.read_exact(&mut frame[at..])?;
    }
}

/// `{12}` or `{12+}` before the end of a line: its number, and whether the sender waits.
fn literal_at_end(line: &[u8]) -> Option<(usize, bool)> {
    let line = line.strip_suffix(b"\n")?;
    let line = line
        .strip_suffix(b"\r")
        .unwrap_or(line)
        .strip_suffix(b"}")?;
    let open = line.iter().rposition(|&b| b == b'{')?;
    let digits = &line[open + 1..];
    let (digits, waits) = match digits.strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (digits, true),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, waits))
}

/// Takes a frame apart. The error says what is wrong with it.
pub fn parse(frame: &[u8]) -> Result<Vec<Token>, String> {
    let mut parser = Parser { frame, at: 0 };
    let tokens = parser.list(false, 0)?;
    Ok(tokens)
}

struct Parser<'a> {
    frame: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.frame.get(self.at).copied()
    }

    fn list(&mut self, inner: bool, depth: usize) -> Result<Vec<Token>, String> {
        if depth > 50 {
            return Err("lists are nested too deep".into());
        }
        let mut tokens = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b' ' => self.at += 1,
                b'\r' | b'\n' if !inner => return Ok(tokens),
                b'\r' | b'\n' => self.at += 1,
                b'(' => {
                    self.at += 1;
                    tokens.push(Token::List(self.list(true, depth + 1)?));
                }
                b')' if inner => {
                    self.at += 1;
                    return Ok(tokens);
                }
                b')' => return Err("a parenthesis closes that was not opened".into()),
                b'"' => tokens.push(self.quoted()?),
                b'{' => tokens.push(self.literal()?),
                _ => tokens.push(self.atom()),
            }
        }
        if inner {
            Err("a parenthesis is not closed".into())
        } else {
            Ok(tokens)
        }
    }

    fn quoted(&mut self) -> Result<Token, String> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            match self.peek() {
                None | Some(b'\r' | b'\n') => return Err("a quoted string is not closed".into()),
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    text.extend(self.peek());
                }
                Some(byte) => text.push(byte),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(Token::Quoted(text))
    }

    fn literal(&mut self) -> Result<Token, String> {
        let rest = &self.frame[self.at..];
        let end = rest
            .iter()
            .position(|&b| b == b'\n')
            .ok_or("a literal has no length")?;
        let (length, _) = literal_at_end(&rest[..=end]).ok_or("a literal has no length")?;
        let bytes = rest
            .get(end + 1..end + 1 + length)
            .ok_or("a literal is cut short")?;
        self.at += end + 1 + length;
        Ok(Token::Literal(bytes.to_vec()))
    }

    /// An atom ends at a space or a parenthesis, but not inside of brackets.
    fn atom(&mut self) -> Token {
        let start = self.at;
        let mut brackets = 0usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'[' => brackets += 1,
                b']' => brackets = brackets.saturating_sub(1),
                b'\r' | b'\n' => break,
                b' ' | b'(' | b')' | b'"' if brackets == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        Token::Atom(self.frame[start..self.at].to_vec())
    }
}

impl Token {
    /// The bytes of an atom or a string; `None` for a list.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Token::Atom(bytes) | Token::Quoted(bytes) | Token::Literal(bytes) => Some(bytes),
            Token::List(_) => None,
        }
    }

    pub fn text(&self) -> Option<String> {
        self.bytes()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The atom in capitals.
    pub fn word(&self) -> Option<String> {
        match self {
            Token::Atom(bytes) => Some(String::from_utf8_lossy(bytes).to_uppercase()),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<u32> {
        self.text()?.parse().ok()
    }

    pub fn list(&self) -> Option<&[Token]> {
        match self {
            Token::List(tokens) => Some(tokens),
            _ => None,
        }
    }

    /// As it is written in a response.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Token::Atom(bytes) => out.extend_from_slice(bytes),
            Token::Quoted(bytes) => out.extend(quote(bytes)),
            Token::Literal(bytes) => {
                out.extend_from_slice(format!("{{{}}}\r\n", bytes.len()).as_bytes());
                out.extend_from_slice(bytes);
            }
            Token::List(tokens) => {
                out.push(b'(');
                for (n, token) in tokens.iter().enumerate() {
                    if n > 0 {
                        out.push(b' ');
                    }
                    token.write(out);
                }
                out.push(b')');
            }
        }
    }
}

/// A quoted string; a LITERAL+ if it holds what cannot be quoted.
pub fn quote(bytes: &[u8]) -> Vec<u8> {
    if bytes
        .iter()
        .any(|&b| b == b'\r' || b == b'\n' || b == 0 || b >= 0x80)
    {
        let mut out = format!("{{{}+}}\r\n", bytes.len()).into_bytes();
        out.extend_from_slice(bytes);
        return out;
    }
    let mut out = vec![b'"'];
    for &byte in bytes {
        if byte == b'"' || byte == b'\\' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
    out
}

/// A set of numbers like `1:4,7,9:*`. `largest` is what `*` means.
pub fn sequence_set(text: &str, largest: u32) -> Result<Vec<(u32, u32)>, String> {
    let number = |part: &str| match part {
        "*" => Ok(largest),
        _ => match part.parse::<u32>() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(format!("{part:?} is no number of a message")),
        },
    };
    text.split(',')
        .map(|range| {
            let (a, b) = range.split_once(':').unwrap_or((range, range));
            let (a, b) = (number(a)?, number(b)?);
            Ok((a.min(b), a.max(b)))
        })
        .collect()
}

/// Ascending numbers as a set, with ranges where they follow one another.
pub fn show_set(numbers: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(n) => *end = n,
            _ => parts.push((n, n)),
        }
    }
    let show = |&(a, b): &(u32, u32)| {
        if a == b {
            a.to_string()
        } else {
            format!("{a}:{b}")
        }
    };
    parts.iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atom(text: &str) -> Token {
        Token::Atom(text.as_bytes().to_vec())
    }

    const SHORT: Longest = Longest {
        line: 60,
        literals: 100,
    };

    #[test]
    fn many_literals_are_no_more_than_one() {
        let read = |bytes: &[u8]| read_frame(&mut &bytes[..], SHORT, || Ok(()));
        let fifty = [&b"{50+}\r\n"[..], &[b'x'; 50]].concat();
        let whole = |count| [&fifty.repeat(count)[..], b"\r\n"].concat();
        assert!(read(&whole(2)).unwrap().is_some());
        assert!(read(&whole(3)).is_err());
        // Nor can a line be made longer by literals.
        assert!(read(&[&b"x".repeat(58)[..], b"\r\n"].concat()).is_ok());
        assert!(read(&b"{0+}\r\n".repeat(11)).is_err());
        assert!(read(&[&b"{0+}\r\n".repeat(10)[..], b"\r\n"].concat()).is_err());
    }

    #[test]
    fn a_frame_ends_behind_its_literals() {
        let bytes = b"a APPEND x {3}\r\nb\r\n {2+}\r\n{1}\r\nnext\r\n";
        let mut asked = 0;
        let mut reader = &bytes[..];
        let frame = read_frame(&mut reader, SHORT, || {
            asked += 1;
            Ok(())
        })
        .unwrap()
        .unwrap();
        assert_eq!(asked, 1);
        assert_eq!(reader, b"next\r\n".as_slice());
        let tokens = parse(&frame).unwrap();
        assert_eq!(
            tokens[3..],
            [
                Token::Literal(b"b\r\n".to_vec()),
                Token::Literal(b"{1".to_vec()),
                atom("}")
            ]
        );
        assert!(read_frame(&mut &b"a {101}\r\n"[..], SHORT, || Ok(())).is_err());
        assert!(
            read_frame(&mut &b"cut"[..], SHORT, || Ok(()))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let line = b"* 1 FETCH (FLAGS (\\Seen) BODY[HEADER.FIELDS (TO)]<0> {4}\r\nab)( X \"q\\\"\\\\\" NIL ())\r\n";
        let tokens = parse(line).unwrap();
        let list = tokens[3].list().unwrap();
        assert_eq!(list[2], atom("BODY[HEADER.FIELDS (TO)]<0>"));
        assert_eq!(list[3], Token::Literal(b"ab)(".to_vec()));
        let mut out = Vec::new();
        tokens[3].write(&mut out);
        assert_eq!(parse(&out).unwrap()[0], tokens[3]);
    }

    #[test]
    fn nonsense_is_refused_and_never_panics() {
        for bad in [
            "a (b",
            "a b)",
            "a \"b",
            "a {x}",
            "a {9}\r\nb",
            &"(".repeat(99),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let mut random = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..12)
                .map(|_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    b"(){}[]\"\\\r\n 1a+"[(random >> 40) as usize % 14]
                })
                .collect();
            let _ = parse(&bytes);
            let _ = read_frame(&mut &bytes[..], SHORT, || Ok(()));
        }
    }

    #[test]
    fn sets_are_read_and_shown() {
        assert_eq!(
            sequence_set("1:3,7,*:9", 12).unwrap(),
            [(1, 3), (7, 7), (9, 12)]
        );
        assert!(
            sequence_set("0", 5).is_err()
                && sequence_set("a", 5).is_err()
                && sequence_set("", 5).is_err()
        );
        assert_eq!(show_set(&[1, 2, 3, 5, 7, 8]), "1:3,5,7:8");
    }
}
