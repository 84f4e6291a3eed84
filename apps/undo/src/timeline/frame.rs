//! The bytes of one record of the timeline.
//!
//! ```text
//!  0      2      4          8          12        14
//!  | 7DE5 | flag | length   | crc32    | head len| head (postcard) | body                     |
//!                 of head and body      of head                      verb len u32, verb, tag
//! ```
//!
//! Little-endian. The sum covers everything behind it and the flags and the length before it. The
//! body holds a verb and a tag as the service encodes them; it is compressed (zstd) if that makes
//! it shorter, which flag bit 0 says. The head is never compressed: opening a timeline reads heads.

use crate::{Context, Error, Result};

const MARK: [u8; 2] = [0xe5, 0x7d];
const COMPRESSED: u16 = 1;
/// What stands before the head of a record, in bytes.
pub const PREFIX: usize = 14;
/// No record is longer than this. A length above it is damage.
pub const LONGEST: usize = 1 << 30;
const _: () = assert!(PREFIX == 2 + 2 + 4 + 4 + 2);

/// What a record carries besides its head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    pub verb: Vec<u8>,
    pub tag: Vec<u8>,
}

/// Encodes a record.
pub fn encode(head: &[u8], body: &Body) -> Vec<u8> {
    let mut plain = Vec::new();
    if !body.verb.is_empty() || !body.tag.is_empty() {
        plain.reserve(4 + body.verb.len() + body.tag.len());
        plain.extend_from_slice(&(body.verb.len() as u32).to_le_bytes());
        plain.extend_from_slice(&body.verb);
        plain.extend_from_slice(&body.tag);
    }
    let mut flags = 0u16;
    if plain.len() > 200
        && let Ok(packed) = zstd::bulk::compress(&plain, 1)
        && packed.len() + 4 < plain.len()
    {
        flags |= COMPRESSED;
        let length = (plain.len() as u32).to_le_bytes();
        plain = [&length[..], &packed].concat();
    }
    let mut frame = Vec::with_capacity(PREFIX + head.len() + plain.len());
    frame.extend_from_slice(&MARK);
    frame.extend_from_slice(&flags.to_le_bytes());
    frame.extend_from_slice(&((head.len() + plain.len()) as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&(head.len() as u16).to_le_bytes());
    frame.extend_from_slice(head);
    frame.extend_from_slice(&plain);
    let sum = sum_of(&frame);
    frame[8..12].copy_from_slice(&sum.to_le_bytes());
    frame
}

/// A record whose sum was right, still packed.
pub struct Frame<'a> {
    pub head: &'a [u8],
    body: &'a [u8],
    compressed: bool,
    /// The length of the whole record in bytes.
    pub length: usize,
}

/// Decodes the record that `bytes` begins with. `None`: there is none, or it is damaged or cut.
pub fn decode(bytes: &[u8]) -> Option<Frame<'_>> {
    if bytes.len() < PREFIX || bytes[..2] != MARK {
        return None;
    }
    let flags = u16::from_le_bytes([bytes[2], bytes[3]]);
    let length = u32::from_le_bytes(bytes[4..8].try_into().ok()?) as usize;
    let head = u16::from_le_bytes([bytes[12], bytes[13]]) as usize;
    if length > LONGEST || head > length || bytes.len() < PREFIX + length {
        return None;
    }
    let frame = &bytes[..PREFIX + length];
    if u32::from_le_bytes(bytes[8..12].try_into().ok()?) != sum_of(frame) {
        return None;
    }
    Some(Frame {
        head: &frame[PREFIX..PREFIX + head],
        body: &frame[PREFIX + head..],
        compressed: flags & COMPRESSED != 0,
        length: PREFIX + length,
    })
}

impl Frame<'_> {
    pub fn body(&self) -> Result<Body> {
        if self.body.is_empty() {
            return Ok(Body::default());
        }
        let broken = || Error::new("timeline", "unpack a record", "its body is too short");
        let plain = if self.compressed {
            let (length, packed) = self.body.split_first_chunk::<4>().ok_or_else(broken)?;
            let length = (u32::from_le_bytes(*length) as usize).min(LONGEST);
            zstd::bulk::decompress(packed, length).context("timeline", "unpack a record")?
        } else {
            self.body.to_vec()
        };
        let (length, rest) = plain.split_first_chunk::<4>().ok_or_else(broken)?;
        let (verb, tag) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(broken)?;
        Ok(Body {
            verb: verb.to_vec(),
            tag: tag.to_vec(),
        })
    }
}

fn sum_of(frame: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&frame[..8]);
    sum.update(&frame[12..]);
    sum.finalize()
}
