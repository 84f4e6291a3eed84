//! Fields of a header (RFC 5322, section 2.2).

use memchr::memchr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a [u8],
    /// What stands after the colon, folded as it was sent, without the last line end.
    pub value: &'a [u8],
    /// The whole field with its line end.
    pub whole: &'a [u8],
}

impl Field<'_> {
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value in one line, without the white space around it.
    pub fn unfolded(&self) -> Vec<u8> {
        unfold(self.value)
    }
}

pub fn unfold(value: &[u8]) -> Vec<u8> {
    let mut line: Vec<u8> = value
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'\r' | b'\n' | 0))
        .collect();
    while line.last().is_some_and(u8::is_ascii_whitespace) {
        line.pop();
    }
    let start = line
        .iter()
        .position(|byte| !byte.is_ascii_whitespace())
        .unwrap_or(line.len());
    line.split_off(start)
}

/// The fields of a header, in order. A line that is no field is passed over.
pub fn fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = header;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let mut len = line_len(rest);
            while matches!(rest.get(len), Some(b' ' | b'\t')) {
                len += line_len(&rest[len..]);
            }
            let (whole, after) = rest.split_at(len);
            rest = after;
            if whole == b"\r\n" || whole == b"\n" {
                return None; // the empty line that ends the header
            }
            let Some(colon) = memchr(b':', whole) else {
                continue;
            };
            let name = whole[..colon].trim_ascii_end();
            if name.is_empty() || name.iter().any(|b| !(33..=126).contains(b)) {
                continue;
            }
            let value = &whole[colon + 1..];
            let value = value.strip_suffix(b"\n").unwrap_or(value);
            let value = value.strip_suffix(b"\r").unwrap_or(value);
            return Some(Field { name, value, whole });
        }
        None
    })
}

/// The value of the first field of this name, in one line.
pub fn first(header: &[u8], name: &str) -> Option<Vec<u8>> {
    fields(header)
        .find(|field| field.is(name))
        .map(|field| field.unfolded())
}

fn line_len(text: &[u8]) -> usize {
    memchr(b'\n', text).map_or(text.len(), |at| at + 1)
}

/// A value with parameters: `text/plain; charset="utf-8"` (RFC 2045, section 5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    pub value: Vec<u8>,
    pub list: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Parameters {
    pub fn parse(text: &[u8]) -> Parameters {
        let mut scanner = Scanner { text, at: 0 };
        let mut parsed = Parameters {
            value: scanner.until(b";"),
            list: Vec::new(),
        };
        while scanner.at < text.len() {
            scanner.at += 1; // the semicolon
            let name = scanner.until(b"=;");
            if scanner.peek() != Some(b'=') {
                continue;
            }
            scanner.at += 1;
            let value = scanner.until(b";");
            if !name.is_empty() && parsed.list.len() < 64 {
                parsed.list.push((name, value));
            }
        }
        parsed
    }

    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.list
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.as_slice())
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Up to one of these, without comments, quotes and white space around it.
    fn until(&mut self, ends: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut quoted = false;
        let mut comments = 0u32;
        while let Some(byte) = self.peek() {
            match byte {
                b'\\' if quoted || comments > 0 => {
                    self.at += 1;
                    if let (Some(next), 0) = (self.peek(), comments) {
                        out.push(next);
                    }
                }
                b'"' if comments == 0 => quoted = !quoted,
                b'(' if !quoted => comments += 1,
                b')' if !quoted && comments > 0 => comments -= 1,
                _ if comments > 0 => {}
                _ if !quoted && ends.contains(&byte) => break,
                _ => out.push(byte),
            }
            self.at += 1;
        }
        unfold(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_folded_and_odd() {
        let header = b"From: a\r\nSubject: one\r\n two\r\nbroken line\r\nX :y\r\n\r\nNot: this";
        let found: Vec<_> = fields(header).map(|f| (f.name, f.unfolded())).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[1], (&b"Subject"[..], b"one two".to_vec()));
        assert_eq!(found[2], (&b"X"[..], b"y".to_vec()));
        assert_eq!(first(header, "SUBJECT").unwrap(), b"one two");
    }

    #[test]
    fn parameters_are_found_in_any_shape() {
        let parsed = Parameters::parse(
            b" text/plain (a; b) ; charset=\"a;\\\"b\" ; x ; =y; Format = flowed",
        );
        assert_eq!(parsed.value, b"text/plain");
        assert_eq!(parsed.get("CHARSET"), Some(&b"a;\"b"[..]));
        assert_eq!(parsed.get("format"), Some(&b"flowed"[..]));
        assert_eq!(parsed.list.len(), 2);
        assert_eq!(Parameters::parse(b"\"(").value, b"(");
    }
}
