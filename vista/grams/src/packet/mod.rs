//! The bytes of a packet, and who is believed.
//!
//! ```text
//!    +------------+---------+--------+-----------------------+
//!    | "VG"       | version | kind   | flags u32             |
//!    +------------+---------+--------+-----------------------+
//!    | tag: a checksum of 8 bytes, or under a shared key     |
//!    | SipHash-2-4 of 16, of all other bytes                 |
//!    +-------------------------------------------------------+
//!    | client: the node that sends requests on this link     |
//!    +---------------------------+---------------------------+
//!    | link u32                  | message length u32        |
//!    +---------------------------+---------------------------+
//!    | stream u64: the server's number of this conversation  |
//!    | cookie u64: to the server, what it granted;           |
//!    |   to the client, the port for retransmitted packets   |
//!    | seq u64: which request of the link                    |
//!    | low u64: all requests below are settled               |
//!    +-------------------------------------------------------+ unless the flags say SHORT:
//!    | done u64: bit i: request low + 1 + i is settled       |
//!    +---------------------------+---------------------------+
//!    | offset of this fragment   | length of full fragments  |
//!    +---------------------------+---------------------------+
//!    | payload: the fragment, or what the kind says          |
//!    +-------------------------------------------------------+
//! ```
//!
//! A message that is whole, of a client of whose later requests none is settled, needs nothing of
//! the last two rows: most do not. So without a key most headers have 72 bytes, and 1400 bytes of
//! message make one frame of Ethernet under IPv4.
//!
//! All numbers are little-endian. Every packet names its link, so that either side finds its state
//! by one look; every packet of a client carries `low` and `done`, which is how acknowledgements
//! ride on requests (thesis, section 4.4). A packet that is not whole, or not ours, is dropped
//! without an answer: whoever forges learns nothing.
//!
//! Without a key the tag finds damage only. With one it finds forgery; 128 bits of SipHash-2-4
//! (Aumasson and Bernstein, 2012), because it is made for short inputs.

mod kind;
mod payload;

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::NodeId;
use crate::sum::{HEAD_WORDS, Part, sum, sum_of_part};

pub use kind::{Kind, Rejected};
pub use payload::{HAVE_BITS, Have, WELCOME_LEN, Welcome};

/// 2 has another checksum than 1, and headers that are shorter; 3 has another checksum than 2.
pub const VERSION: u8 = 3;
/// The longest header.
pub const HEADER_LEN: usize = 96;
/// No message is longer: 16 MB.
pub const MESSAGE_LIMIT: usize = 16 << 20;
/// The most payload that a UDP datagram over IPv4 carries beside our header.
pub const PIECE_LIMIT: usize = 65507 - HEADER_LEN;

const MAGIC: [u8; 2] = *b"VG";
/// What stands before the tag.
const START: usize = 8;
const SUM_LEN: usize = 8;
const KEYED_TAG_LEN: usize = 16;
/// What a short header lacks.
const TAIL: usize = 16;
/// A header without its tag, in words of 8 bytes; those that a short one lacks are zeros.
type Words = [u64; HEAD_WORDS];
const PLAIN_LEN: usize = HEADER_LEN - KEYED_TAG_LEN;
const SHORT_LEN: usize = PLAIN_LEN - TAIL;
const _: () = assert!(PLAIN_LEN == 8 * HEAD_WORDS);
const KEYED: u32 = 1;
/// The tail is left out.
const SHORT: u32 = 4;

/// The packet was sent before, or may have been.
pub const RESENT: u32 = 2;
const KNOWN_FLAGS: u32 = KEYED | RESENT | SHORT;

/// A secret of all parties of a system.
pub type Key = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Header {
    pub kind: Kind,
    pub flags: u32,
    pub client: NodeId,
    pub link: u32,
    pub message_len: u32,
    pub stream: u64,
    pub cookie: u64,
    pub seq: u64,
    pub low: u64,
    pub done: u64,
    pub offset: u32,
    pub piece: u32,
}

/// The bytes of a header.
pub struct Sealed {
    bytes: [u8; HEADER_LEN],
    len: usize,
}

impl std::ops::Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// How long the header is that begins like this; of a few bytes, the most.
#[inline]
pub fn header_len(start: &[u8]) -> usize {
    len_of_header(start.get(4).map_or(KEYED, |&byte| byte.into()))
}

#[inline]
fn len_of_header(flags: u32) -> usize {
    let tail = if flags & SHORT != 0 { 0 } else { TAIL };
    SHORT_LEN + tag_len(flags) + tail
}

/// A datagram's header, or all of it if it is shorter, and the rest.
pub fn split(datagram: &[u8]) -> (&[u8], &[u8]) {
    datagram.split_at(header_len(datagram).min(datagram.len()))
}

impl Header {
    /// The packet's first bytes, tagged for the payload that will follow them.
    #[inline]
    pub fn seal(&self, payload: &[u8], key: Option<&Key>) -> Sealed {
        self.seal_by(payload, key, |words| sum(words, payload))
    }

    /// The same for a payload of which the part of the sum may be known.
    pub fn seal_summed(&self, payload: &[u8], part: Option<&Part>, key: Option<&Key>) -> Sealed {
        self.seal_by(payload, key, |words| match part {
            Some(part) => sum_of_part(words, part, payload.len()),
            None => sum(words, payload),
        })
    }

    #[inline]
    fn seal_by(
        &self,
        payload: &[u8],
        key: Option<&Key>,
        sum: impl FnOnce(&Words) -> u64,
    ) -> Sealed {
        let mut flags = self.flags;
        flags |= if key.is_some() { KEYED } else { 0 };
        flags |= if self.is_short() { SHORT } else { 0 };
        let words = self.words(flags);
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, word: u64| {
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        };
        put(0, words[0]);
        // The tail, if it is left out, lies behind the end.
        match key {
            None => {
                put(START, sum(&words));
                (1..HEAD_WORDS).for_each(|index| put(SUM_LEN + 8 * index, words[index]));
            }
            Some(key) => {
                (1..HEAD_WORDS).for_each(|index| put(KEYED_TAG_LEN + 8 * index, words[index]));
                let tag = keyed_tag(&words, flags, payload, key);
                bytes[START..][..KEYED_TAG_LEN].copy_from_slice(&tag);
            }
        }
        let len = len_of_header(flags);
        Sealed { bytes, len }
    }

    #[inline]
    fn words(&self, flags: u32) -> Words {
        let [low, high] = halves(&self.client.0);
        let start = [MAGIC[0], MAGIC[1], VERSION, self.kind as u8];
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let (done, place) = match flags & SHORT {
            0 => (self.done, pair(self.offset, self.piece)),
            _ => (0, 0),
        };
        [
            pair(u32::from_le_bytes(start), flags),
            low,
            high,
            pair(self.link, self.message_len),
            self.stream,
            self.cookie,
            self.seq,
            self.low,
            done,
            place,
        ]
    }

    /// Whether a short header says all: the message is whole, and nothing above `low` is settled.
    fn is_short(&self) -> bool {
        let is_whole = match self.has_fragment() {
            true => self.piece >= self.message_len.max(1),
            false => self.piece == 0,
        };
        is_whole && self.offset == 0 && self.done == 0
    }

    fn has_fragment(&self) -> bool {
        matches!(self.kind, Kind::Request | Kind::Response)
    }

    /// The header and the payload of a datagram, if it is whole and from one of us.
    pub fn open<'a>(datagram: &'a [u8], key: Option<&Key>) -> Result<(Header, &'a [u8]), Rejected> {
        let (head, payload) = split(datagram);
        Ok((Header::open_parts(head, payload, key)?, payload))
    }

    /// The same of a datagram that is split. The length of full fragments is that of the message
    /// if the message is whole.
    pub fn open_parts(head: &[u8], payload: &[u8], key: Option<&Key>) -> Result<Header, Rejected> {
        let Some(start) = head.first_chunk::<START>() else {
            return Err(Rejected::Foreign);
        };
        if start[..2] != MAGIC {
            return Err(Rejected::Foreign);
        }
        if start[2] != VERSION {
            return Err(Rejected::OtherVersion(start[2]));
        }
        if head.len() != header_len(start) {
            return Err(Rejected::Foreign);
        }
        let flags = u32::from_le_bytes(start[4..8].try_into().expect("4"));
        let (tag, fields) = head[START..].split_at(tag_len(flags));
        let mut words = [0; HEAD_WORDS];
        words[0] = u64::from_le_bytes(*start);
        for (word, field) in words[1..].iter_mut().zip(fields.chunks_exact(8)) {
            *word = u64::from_le_bytes(field.try_into().expect("8"));
        }
        let is_sealed = match (flags & KEYED, key) {
            (0, None) => tag == sum(&words, payload).to_le_bytes(),
            (KEYED, Some(key)) => same(&keyed_tag(&words, flags, payload, key), tag),
            _ => false,
        };
        if !is_sealed {
            return Err(Rejected::Tag);
        }
        let (low, high) = (|word: u64| word as u32, |word: u64| (word >> 32) as u32);
        let mut client = [0; 16];
        client[..8].copy_from_slice(&words[1].to_le_bytes());
        client[8..].copy_from_slice(&words[2].to_le_bytes());
        let mut header = Header {
            kind: Kind::from_byte(start[3]).ok_or(Rejected::Field("kind"))?,
            flags: flags & !(KEYED | SHORT),
            client: NodeId(client),
            link: low(words[3]),
            message_len: high(words[3]),
            stream: words[4],
            cookie: words[5],
            seq: words[6],
            low: words[7],
            done: words[8],
            offset: low(words[9]),
            piece: high(words[9]),
        };
        if flags & SHORT != 0 && header.has_fragment() {
            header.piece = header.message_len.max(1);
        }
        header.check(flags, payload)?;
        Ok(header)
    }

    fn check(&self, flags: u32, payload: &[u8]) -> Result<(), Rejected> {
        if flags & !KNOWN_FLAGS != 0 {
            return Err(Rejected::Field("flags"));
        }
        // Sequence numbers rise by one from 1; half of the range leaves sums without overflow.
        if self.seq > u64::MAX / 2 || self.low > u64::MAX / 2 {
            return Err(Rejected::Field("seq"));
        }
        if self.has_fragment() {
            self.check_fragment(payload.len())?;
        }
        Ok(())
    }

    fn check_fragment(&self, len: usize) -> Result<(), Rejected> {
        let (message, offset, piece) = (
            self.message_len as usize,
            self.offset as usize,
            self.piece as usize,
        );
        if message > MESSAGE_LIMIT {
            return Err(Rejected::Field("message length"));
        }
        if piece == 0 || piece > PIECE_LIMIT {
            return Err(Rejected::Field("fragment length"));
        }
        let begins = offset == 0 || offset.is_multiple_of(piece);
        let whole_fragments = begins && offset <= message;
        if !whole_fragments || len != piece.min(message - offset) {
            return Err(Rejected::Field("offset"));
        }
        if len == 0 && message > 0 {
            return Err(Rejected::Field("offset"));
        }
        Ok(())
    }
}

fn tag_len(flags: u32) -> usize {
    match flags & KEYED {
        0 => SUM_LEN,
        _ => KEYED_TAG_LEN,
    }
}

/// Of a header without its tag, and of what follows it.
fn keyed_tag(words: &Words, flags: u32, payload: &[u8], key: &Key) -> [u8; KEYED_TAG_LEN] {
    let mut plain = [0; PLAIN_LEN];
    for (bytes, word) in plain.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let is_short = flags & SHORT != 0;
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(&plain[..if is_short { SHORT_LEN } else { PLAIN_LEN }]);
    hasher.write(payload);
    hasher.finish128().as_bytes()
}

fn halves(bytes: &[u8; 16]) -> [u64; 2] {
    let half = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8"));
    [half(0), half(8)]
}

/// Takes the same time wherever the first difference lies.
fn same(one: &[u8], other: &[u8]) -> bool {
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("8"));
    let words = one.chunks_exact(8).zip(other.chunks_exact(8));
    let differ = words.fold(0, |sum, (a, b)| sum | (word(a) ^ word(b)));
    differ == 0 && one.len() == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Request,
            flags: RESENT,
            client: NodeId([7; 16]),
            link: 3,
            message_len: 5,
            stream: 11,
            cookie: 12,
            seq: 13,
            low: 12,
            done: 1,
            offset: 0,
            piece: 1000,
        }
    }

    /// Of a whole message, the first that is not settled.
    fn short() -> Header {
        Header {
            done: 0,
            piece: 5,
            ..header()
        }
    }

    #[test]
    fn a_packet_is_read_as_it_was_written_and_no_other_byte_is() {
        let forms = [
            (header(), None, 88),
            (header(), Some([9; 16]), 96),
            (short(), None, 72),
            (short(), Some([9; 16]), 80),
        ];
        for (header, key, len) in forms {
            let key = key.as_ref();
            let mut datagram = header.seal(b"hello", key).to_vec();
            assert_eq!(datagram.len(), len);
            datagram.extend_from_slice(b"hello");
            assert_eq!(Header::open(&datagram, key), Ok((header, &b"hello"[..])));
            for index in 0..datagram.len() {
                for bit in 0..8 {
                    let mut other = datagram.clone();
                    other[index] ^= 1 << bit;
                    assert!(Header::open(&other, key).is_err(), "byte {index} bit {bit}");
                }
            }
            for len in 0..datagram.len() {
                assert!(Header::open(&datagram[..len], key).is_err(), "{len} bytes");
            }
        }
    }

    #[test]
    fn a_short_header_leaves_out_only_what_it_means() {
        type Case = (fn(&mut Header), bool);
        let cases: [Case; 6] = [
            (|_| {}, true),
            (|h| h.done = 1, false),
            (|h| h.piece = 4, false),
            (|h| (h.message_len, h.offset) = (10, 5), false),
            (
                |h| (h.kind, h.message_len, h.piece) = (Kind::Ack, 0, 0),
                true,
            ),
            (|h| h.kind = Kind::Ack, false),
        ];
        for (change, is_short) in cases {
            let mut header = short();
            change(&mut header);
            assert_eq!(
                header.seal(b"hello", None).len(),
                if is_short { 72 } else { 88 }
            );
        }
        // How messages are cut is not told with one that is not cut.
        let whole = Header {
            piece: 1000,
            ..short()
        };
        let mut datagram = whole.seal(b"hello", None).to_vec();
        datagram.extend_from_slice(b"hello");
        assert_eq!(Header::open(&datagram, None).unwrap().0, short());
    }

    #[test]
    fn another_version_is_named_before_anything_is_summed() {
        for version in [1, 2, VERSION + 1] {
            let mut datagram = short().seal(b"hello", None).to_vec();
            datagram.extend_from_slice(b"hello");
            datagram[2] = version;
            let refused = Err(Rejected::OtherVersion(version));
            assert_eq!(Header::open(&datagram, None), refused);
        }
    }

    #[test]
    fn keys_must_be_the_same_on_both_sides() {
        let mut datagram = header().seal(b"hello", Some(&[9; 16])).to_vec();
        datagram.extend_from_slice(b"hello");
        for key in [None, Some(&[8; 16])] {
            assert_eq!(Header::open(&datagram, key), Err(Rejected::Tag));
        }
    }

    #[test]
    fn fields_out_of_bounds_are_refused_though_the_tag_is_right() {
        type Case = (&'static str, fn(&mut Header));
        let cases: [Case; 6] = [
            ("fragment length", |h| h.piece = 0),
            ("fragment length", |h| h.piece = PIECE_LIMIT as u32 + 1),
            ("message length", |h| {
                h.message_len = MESSAGE_LIMIT as u32 + 1
            }),
            ("offset", |h| h.offset = 1),
            ("offset", |h| h.message_len = 6),
            ("seq", |h| h.seq = u64::MAX),
        ];
        for (field, change) in cases {
            let mut header = header();
            change(&mut header);
            let mut datagram = header.seal(b"hello", None).to_vec();
            datagram.extend_from_slice(b"hello");
            assert_eq!(Header::open(&datagram, None), Err(Rejected::Field(field)));
        }
    }

    #[test]
    fn a_have_says_which_fragments_are_there() {
        let have = Have {
            first: 10,
            bits: vec![0b10, 0, 1, 0],
        };
        let read = Have::parse(&have.to_bytes()).unwrap();
        let there: Vec<u32> = (0..60).filter(|&index| read.has(index)).collect();
        assert_eq!(there, [(0..10).collect(), vec![11, 26]].concat());
        assert_eq!(Have::parse(&[0; 4 + HAVE_BITS / 8 + 1]), None);
    }
}
