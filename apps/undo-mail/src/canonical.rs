//! What of an output counts for consistency, as a hash (paper, section 4.1.2).
//!
//! Externalized are the text of messages with its attachments, the standard header fields (To,
//! From, Subject and Cc, but not Date), and the names of folders. Everything else may differ from
//! one execution to the next: the fields that delivery adds (Received, Delivered-To, Return-Path)
//! carry times, and flags, sizes and sequence numbers are no text.

use crate::imap::token::Token;
use crate::names;

/// The fields that users see in lists of messages.
const STANDARD: [&str; 4] = ["To", "From", "Subject", "Cc"];

/// The hash of what one message has shown; 0 if it showed nothing that counts.
pub fn shown(items: &[(String, Token)]) -> u64 {
    let mut parts: Vec<(String, u64)> = items
        .iter()
        .filter_map(|(name, value)| canonical(name, value).map(|hash| (key(name), hash)))
        .collect();
    if parts.is_empty() {
        return 0;
    }
    // The server may answer items in any order.
    parts.sort();
    parts.dedup();
    let bytes: Vec<Vec<u8>> = parts
        .iter()
        .map(|(name, hash)| [name.as_bytes(), &hash.to_le_bytes()].concat())
        .collect();
    names::hash(&bytes.iter().map(Vec::as_slice).collect::<Vec<_>>()).max(1)
}

/// RFC822 and BODY[] show the same.
fn key(name: &str) -> String {
    match name {
        "RFC822" => "BODY[]".into(),
        "RFC822.HEADER" => "BODY[HEADER]".into(),
        "RFC822.TEXT" => "BODY[TEXT]".into(),
        _ => name.to_owned(),
    }
}

fn canonical(name: &str, value: &Token) -> Option<u64> {
    match key(name).as_str() {
        "FLAGS" | "UID" | "RFC822.SIZE" | "INTERNALDATE" | "MODSEQ" => None,
        "ENVELOPE" => {
            // (date subject from sender reply-to to cc bcc in-reply-to message-id)
            let fields = value.list()?;
            let chosen = [1, 2, 5, 6].map(|n| {
                let mut bytes = Vec::new();
                if let Some(field) = fields.get(n) {
                    write_plain(field, &mut bytes);
                }
                bytes
            });
            Some(names::hash(
                &chosen.iter().map(Vec::as_slice).collect::<Vec<_>>(),
            ))
        }
        "BODY[]" => Some(message(value.bytes()?)),
        "BODY[HEADER]" => Some(header(value.bytes()?)),
        // A part of something with a header in it moves with what delivery adds to the header.
        name if name.starts_with("BODY[]<") || name.starts_with("BODY[HEADER]<") => None,
        name if name.starts_with("BODY[HEADER.FIELDS") => Some(header(value.bytes()?)),
        _ => {
            let mut bytes = Vec::new();
            write_plain(value, &mut bytes);
            Some(names::hash(&[&bytes]))
        }
    }
}

/// Whether a string came quoted or as a literal is the server's choice.
fn write_plain(token: &Token, out: &mut Vec<u8>) {
    match token {
        Token::List(tokens) => {
            out.push(b'(');
            for token in tokens {
                write_plain(token, out);
                out.push(b' ');
            }
            out.push(b')');
        }
        Token::Atom(bytes) => out.extend(bytes.to_ascii_uppercase()),
        Token::Quoted(bytes) | Token::Literal(bytes) => {
            out.push(b'"');
            out.extend_from_slice(bytes);
        }
    }
}

fn message(bytes: &[u8]) -> u64 {
    let split = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| at + 4);
    let (head, text) = bytes.split_at(split.unwrap_or(bytes.len()));
    names::hash(&[&header(head).to_le_bytes(), text])
}

fn header(bytes: &[u8]) -> u64 {
    let fields = STANDARD.map(|name| {
        let value = names::field(bytes, name).unwrap_or_default();
        value
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .into_bytes()
    });
    names::hash(&fields.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_body(text: &str) -> u64 {
        shown(&[("BODY[]".into(), Token::Literal(text.as_bytes().to_vec()))])
    }

    #[test]
    fn what_delivery_adds_does_not_count_and_what_users_read_does() {
        let one = shown_body("Received: by x; Mon\r\nSubject: a\r\n b\r\nDate: x\r\n\r\ntext\r\n");
        assert_eq!(
            one,
            shown_body("Delivered-To: q\r\nSubject: a b\r\nDate: y\r\n\r\ntext\r\n")
        );
        assert_ne!(one, shown_body("Subject: a c\r\n\r\ntext\r\n"));
        assert_ne!(one, shown_body("Subject: a b\r\n\r\nother\r\n"));
        assert_eq!(shown(&[("FLAGS".into(), Token::List(vec![]))]), 0);
    }

    #[test]
    fn the_form_of_a_string_does_not_count() {
        let envelope = |subject: Token| {
            let nil = || Token::Atom(b"NIL".to_vec());
            let date = Token::Quoted(b"some day".to_vec());
            let fields = vec![
                date,
                subject,
                nil(),
                nil(),
                nil(),
                nil(),
                nil(),
                nil(),
                nil(),
                nil(),
            ];
            shown(&[("ENVELOPE".into(), Token::List(fields))])
        };
        let literal = envelope(Token::Literal(b"s".to_vec()));
        assert_eq!(envelope(Token::Quoted(b"s".to_vec())), literal);
        assert_ne!(envelope(Token::Quoted(b"t".to_vec())), literal);
    }
}
