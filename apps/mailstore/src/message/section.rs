//! The part of a message that `BODY[section]<from.len>` names (RFC 3501, 6.4.5).

use super::header;
use super::lines;
use super::structure::{Inside, Part};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// `1.2` in `BODY[1.2.HEADER]`.
    pub path: Vec<u32>,
    pub what: What,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum What {
    #[default]
    All,
    Header,
    Text,
    Mime,
    /// Names in upper case.
    Fields(Vec<String>),
    FieldsNot(Vec<String>),
}

impl Section {
    /// Only the header of the whole message is needed.
    pub fn is_in_header(&self) -> bool {
        self.path.is_empty()
            && matches!(
                self.what,
                What::Header | What::Fields(_) | What::FieldsNot(_)
            )
    }

    /// The section as a response names it.
    pub fn name(&self) -> String {
        let mut name: Vec<String> = self.path.iter().map(u32::to_string).collect();
        match &self.what {
            What::All => {}
            What::Header => name.push("HEADER".into()),
            What::Text => name.push("TEXT".into()),
            What::Mime => name.push("MIME".into()),
            What::Fields(fields) => name.push(format!("HEADER.FIELDS ({})", list(fields))),
            What::FieldsNot(fields) => name.push(format!("HEADER.FIELDS.NOT ({})", list(fields))),
        }
        name.join(".")
    }

    /// The octets; `None` if the message has no such part. The tree of parts is
    /// needed, and so taken, only if there is a path.
    pub fn of<'p>(&self, text: &[u8], root: impl FnOnce() -> &'p Part) -> Option<Vec<u8>> {
        let (header, body) = if self.path.is_empty() {
            if self.what == What::All {
                return Some(text.to_vec());
            }
            lines::split_header(text)
        } else {
            let part = find(root(), &self.path)?;
            match (&self.what, &part.inside) {
                (What::All, _) => return Some(text[part.body.clone()].to_vec()),
                (What::Mime, _) => return Some(text[part.header.clone()].to_vec()),
                (_, Inside::Message(message)) => {
                    (&text[message.header.clone()], &text[message.body.clone()])
                }
                _ => return None,
            }
        };
        Some(match &self.what {
            What::Text => body.to_vec(),
            What::Fields(names) => pick(header, |field| names.iter().any(|name| field.is(name))),
            What::FieldsNot(names) => {
                pick(header, |field| !names.iter().any(|name| field.is(name)))
            }
            What::All | What::Header | What::Mime => header.to_vec(),
        })
    }
}

fn list(fields: &[String]) -> String {
    let quoted: Vec<String> = fields
        .iter()
        .map(|name| {
            match name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            {
                true if !name.is_empty() => name.clone(),
                _ => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
            }
        })
        .collect();
    quoted.join(" ")
}

fn find<'p>(root: &'p Part, path: &[u32]) -> Option<&'p Part> {
    let (first, rest) = path.split_first()?;
    let mut part = match &root.inside {
        Inside::Parts(_) => root.child(*first as usize)?,
        // A message that is one part has it under the number 1.
        _ if *first == 1 => root,
        _ => return None,
    };
    for number in rest {
        part = part.child(*number as usize)?;
    }
    Some(part)
}

fn pick(header: &[u8], wanted: impl Fn(&header::Field) -> bool) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for field in header::fields(header).filter(wanted) {
        out.extend_from_slice(field.whole);
        if !field.whole.ends_with(b"\n") {
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::structure;

    #[test]
    fn sections_of_nested_messages() {
        let text: &[u8] = b"Subject: s\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nX: y\r\n\r\none\r\n\
            --o\r\nContent-Type: message/rfc822\r\n\r\nSubject: i\r\nTo: t\r\n\r\ninner\r\n--o--\r\n";
        let root = structure::parse(text);
        let get = |path: &[u32], what: What| {
            let section = Section {
                path: path.to_vec(),
                what,
            };
            section
                .of(text, || &root)
                .map(|bytes| String::from_utf8(bytes).unwrap())
        };
        let some = |text: &str| Some(text.to_string());
        assert_eq!(get(&[1], What::All), some("one"));
        assert_eq!(get(&[1], What::Mime), some("X: y\r\n\r\n"));
        assert_eq!(get(&[1], What::Header), None);
        assert_eq!(get(&[2], What::Header), some("Subject: i\r\nTo: t\r\n\r\n"));
        assert_eq!(get(&[2], What::Text), some("inner"));
        assert_eq!(get(&[2, 1], What::All), some("inner"));
        assert_eq!(get(&[2, 2], What::All), None);
        assert_eq!(
            get(&[2], What::Fields(vec!["TO".into()])),
            some("To: t\r\n\r\n")
        );
        assert_eq!(
            get(&[], What::Fields(vec!["SUBJECT".into()])),
            some("Subject: s\r\n\r\n")
        );
        let plain: &[u8] = b"A: b\r\n\r\nbody";
        let root = structure::parse(plain);
        let section = Section {
            path: vec![1],
            what: What::All,
        };
        assert_eq!(section.of(plain, || &root).unwrap(), b"body");
    }
}
