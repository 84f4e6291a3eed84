//! UndoIDs: names of messages and folders that hold in every state of the store (paper, 4.1.1).
//!
//! IMAP names messages by numbers that a rewind gives to other messages, and folders by names that
//! a rename changes. A verb therefore names neither. A message carries its UndoID in the header
//! field [`FIELD`]; a folder's is kept in the [factory](crate::factory).

use std::fmt;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// The reserved header field. One that comes with a message from outside is removed.
pub const FIELD: &str = "X-Undo-ID";

/// The UndoID of a message in its folder. Copies of a message in one folder share `id`; `nth` tells
/// them apart, from 1, in the order of their arrival there; see [`copies`](crate::imap::copies).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Message {
    pub id: u64,
    pub nth: u16,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nth {
            1 => write!(f, "{:016x}", self.id),
            nth => write!(f, "{:016x}#{nth}", self.id),
        }
    }
}

/// A folder, by its UndoID, and by the name that its user gave when the verb was made (which is
/// for people, and for a surrogate if the folder has gone).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    pub id: u64,
    pub name: String,
}

impl Folder {
    pub fn is_inbox(&self) -> bool {
        self.id == inbox()
    }
}

/// A new UndoID: microseconds since 1970, and a count. Unique among those of one proxy.
pub fn fresh() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = undo::when::now_us() << 8;
    LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
        Some(now.max(last + 1))
    })
    .map_or(now, |last| now.max(last + 1))
}

/// The UndoID of every user's INBOX.
pub fn inbox() -> u64 {
    hash(&[b"INBOX"])
}

/// A hash that stays the same for ever, of several byte strings.
pub fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new();
    for part in parts {
        hasher.write_u64(part.len() as u64);
        hasher.write(part);
    }
    hasher.finish()
}

/// The message with its UndoID as the first line of its header, and without any other.
pub fn with_id(id: u64, message: &[u8]) -> Vec<u8> {
    let mut marked = format!("{FIELD}: {id:016x}\r\n").into_bytes();
    marked.extend(without_id(message));
    marked
}

/// The message without the reserved field.
pub fn without_id(message: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(message.len());
    let mut rest = message;
    let mut dropping = false;
    while !rest.is_empty() {
        // (A message that is cut off may end within a line of its header.)
        let end = rest.iter().position(|&b| b == b'\n');
        let (line, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        if line == b"\r\n" || line == b"\n" {
            break;
        }
        let folded = line[0] == b' ' || line[0] == b'\t';
        dropping = if folded {
            dropping
        } else {
            is_field(line, FIELD)
        };
        if !dropping {
            kept.extend_from_slice(line);
        }
        rest = after;
    }
    kept.extend_from_slice(rest);
    kept
}

/// The UndoID in a header, if it has one. (A message whose first line is folded makes that line a part
/// of the field that we have put before it.)
pub fn marked_id(header: &[u8]) -> Option<u64> {
    let value = field(header, FIELD)?;
    let id = value.split_ascii_whitespace().next()?;
    u64::from_str_radix(id, 16).ok()
}

/// The UndoID in a header; one made of the header itself if a message came by another way.
pub fn id_of(header: &[u8]) -> u64 {
    marked_id(header).unwrap_or_else(|| hash(&[b"foreign", header]))
}

fn is_field(line: &[u8], name: &str) -> bool {
    line.len() > name.len()
        && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
        && line[name.len()] == b':'
}

/// The value of the first field of this name, unfolded.
pub fn field(message: &[u8], name: &str) -> Option<String> {
    let mut value: Option<Vec<u8>> = None;
    for line in message.split_inclusive(|&b| b == b'\n') {
        let folded = line.first().is_some_and(|&b| b == b' ' || b == b'\t');
        match &mut value {
            Some(text) if folded => text.extend_from_slice(line.trim_ascii_end()),
            Some(_) => break,
            None if line == b"\r\n" || line == b"\n" => return None,
            None if is_field(line, name) => {
                value = Some(line[name.len() + 1..].trim_ascii().to_vec())
            }
            None => {}
        }
    }
    value.map(|text| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_field_is_removed_and_ours_is_found() {
        let message = b"Subject: a\r\nx-undo-id: 12\r\n 34\r\nTo: b\r\n\r\nX-Undo-ID: body\r\n";
        let marked = with_id(0xabc, message);
        assert_eq!(
            String::from_utf8(marked.clone()).unwrap(),
            "X-Undo-ID: 0000000000000abc\r\nSubject: a\r\nTo: b\r\n\r\nX-Undo-ID: body\r\n"
        );
        assert_eq!(id_of(&marked), 0xabc);
        assert_eq!(field(&marked, "subject").as_deref(), Some("a"));
        assert_eq!(without_id(b"no header at all"), b"no header at all");
        // What fuzzing has found: a header that is cut off, and one that begins with a folded line.
        assert_eq!(without_id(b"To: b\r\nX-Undo-ID: 12"), b"To: b\r\n");
        let folded = with_id(0xabc, b" 12\r\nTo: b\r\n\r\n");
        assert_eq!(id_of(&folded), 0xabc);
        assert_ne!(id_of(b"Subject: a\r\n\r\n"), id_of(b"Subject: b\r\n\r\n"));
    }

    #[test]
    fn ids_are_never_the_same() {
        let all: std::collections::BTreeSet<u64> = (0..10_000).map(|_| fresh()).collect();
        assert_eq!(all.len(), 10_000);
    }
}
