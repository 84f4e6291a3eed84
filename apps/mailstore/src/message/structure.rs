//! The tree of MIME parts (RFC 2045, 2046), as ranges of the message's octets.

use std::ops::Range;

use memchr::memchr;

use super::header::{self, Parameters};
use super::lines;

/// Deeper parts, and more of them, are left undivided: mail that does so means harm.
const MAX_DEPTH: usize = 30;
const MAX_PARTS: usize = 2000;

#[derive(Debug)]
pub struct Part {
    pub header: Range<usize>,
    pub body: Range<usize>,
    pub content_type: Parameters,
    pub inside: Inside,
}

#[derive(Debug)]
pub enum Inside {
    Nothing,
    Parts(Vec<Part>),
    /// A message/rfc822 part.
    Message(Box<Part>),
}

impl Part {
    /// Main type and subtype, in upper case.
    pub fn kind(&self) -> (String, String) {
        let value = String::from_utf8_lossy(&self.content_type.value).to_ascii_uppercase();
        match value.split_once('/') {
            Some((main, sub)) if !main.trim().is_empty() && !sub.trim().is_empty() => {
                (main.trim().to_string(), sub.trim().to_string())
            }
            _ => ("TEXT".into(), "PLAIN".into()),
        }
    }

    /// The part that a section's number means inside of this one (RFC 3501, 6.4.5).
    pub fn child(&self, number: usize) -> Option<&Part> {
        match &self.inside {
            Inside::Parts(parts) => parts.get(number.checked_sub(1)?),
            Inside::Message(message) => match &message.inside {
                Inside::Parts(_) => message.child(number),
                _ => (number == 1).then_some(message),
            },
            Inside::Nothing => None,
        }
    }
}

/// Takes a message apart.
pub fn parse(text: &[u8]) -> Part {
    let mut budget = MAX_PARTS;
    parse_part(text, 0..text.len(), 0, false, &mut budget)
}

fn parse_part(
    text: &[u8],
    range: Range<usize>,
    depth: usize,
    in_digest: bool,
    budget: &mut usize,
) -> Part {
    *budget = budget.saturating_sub(1);
    let header_end = range.start + lines::header_len(&text[range.clone()]);
    let header = range.start..header_end;
    let body = header_end..range.end;
    let declared = header::first(&text[header.clone()], "content-type");
    let content_type = match declared {
        Some(value) => Parameters::parse(&value),
        None if in_digest => Parameters::parse(b"message/rfc822"),
        None => Parameters::parse(b"text/plain; charset=us-ascii"),
    };
    let mut part = Part {
        header,
        body,
        content_type,
        inside: Inside::Nothing,
    };
    if depth >= MAX_DEPTH || *budget == 0 {
        return part;
    }
    let (main, sub) = part.kind();
    if main == "MULTIPART" {
        if let Some(boundary) = part.content_type.get("boundary").filter(|b| !b.is_empty()) {
            let pieces = pieces(text, part.body.clone(), boundary, *budget);
            let mut parts = Vec::with_capacity(pieces.len());
            for piece in pieces {
                parts.push(parse_part(text, piece, depth + 1, sub == "DIGEST", budget));
            }
            if !parts.is_empty() {
                part.inside = Inside::Parts(parts);
            }
        }
    } else if main == "MESSAGE" && sub == "RFC822" {
        let message = parse_part(text, part.body.clone(), depth + 1, false, budget);
        part.inside = Inside::Message(Box::new(message));
    }
    part
}

/// What lies between the boundaries. The line end before a boundary is its own.
fn pieces(text: &[u8], body: Range<usize>, boundary: &[u8], most: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut open: Option<usize> = None;
    let mut at = body.start;
    while at < body.end {
        let line_end = memchr(b'\n', &text[at..body.end]).map_or(body.end, |len| at + len + 1);
        if let Some(last) = boundary_line(&text[at..line_end], boundary) {
            if let Some(start) = open.take() {
                pieces.push(start..before_line_end(text, start, at));
            }
            if last || pieces.len() >= most {
                return pieces;
            }
            open = Some(line_end);
        }
        at = line_end;
    }
    if let Some(start) = open {
        pieces.push(start..body.end);
    }
    pieces
}

/// Whether the line is the boundary, and if so whether it is the last.
fn boundary_line(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    let (last, rest) = match rest.strip_prefix(b"--") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    rest.iter().all(u8::is_ascii_whitespace).then_some(last)
}

fn before_line_end(text: &[u8], start: usize, mut at: usize) -> usize {
    if at > start && text[at - 1] == b'\n' {
        at -= 1;
        if at > start && text[at - 1] == b'\r' {
            at -= 1;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_parts_end_where_the_outer_boundary_says() {
        let text = b"Content-Type: multipart/mixed; boundary=o\r\n\r\npreamble\r\n--o\r\n\r\none\r\n--o\r\n\
            Content-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\n\r\ntwo\r\n--o  \r\n\
            Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nthree\r\n--o--\r\nepilogue";
        let root = parse(text);
        let body = |part: &Part| String::from_utf8_lossy(&text[part.body.clone()]).into_owned();
        assert_eq!(body(root.child(1).unwrap()), "one");
        assert_eq!(body(root.child(2).unwrap().child(1).unwrap()), "two");
        assert_eq!(body(root.child(3).unwrap().child(1).unwrap()), "three");
        assert!(root.child(4).is_none() && root.child(0).is_none());
    }

    #[test]
    fn deep_and_wide_mail_is_bounded() {
        let mut deep = String::new();
        for level in 0..200 {
            deep.push_str(&format!(
                "Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"
            ));
        }
        parse(deep.as_bytes());
        let wide = format!(
            "Content-Type: multipart/x; boundary=b\r\n\r\n{}",
            "--b\r\n".repeat(50_000)
        );
        let Inside::Parts(parts) = parse(wide.as_bytes()).inside else {
            panic!("not divided")
        };
        assert!(parts.len() <= MAX_PARTS);
    }
}
