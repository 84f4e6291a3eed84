//! Messages that are longer than a datagram: what has arrived, and what is still to be sent.
//!
//! A message of `len` bytes is cut into pieces of equal length, the last excepted. The receiver
//! counts each fragment once, however often it comes, and says by a [`Have`] which ones it has; the
//! sender keeps a bounded number of bytes under way and repeats only what is missing. A message
//! that fits one datagram passes here without any of this.

use crate::packet::{HAVE_BITS, Have};

/// Bytes that a sender keeps under way for one message: within every default socket buffer.
const UNDER_WAY: usize = 48 << 10;
/// So many fragments less than before are in a report only if the receiver has started anew.
const FORGOTTEN: usize = 64;
/// A receiver reports after so many new fragments.
pub const REPORT_EVERY: u32 = 8;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct Bits {
    words: Vec<u64>,
    count: u32,
}

impl Bits {
    fn new(count: u32) -> Bits {
        Bits {
            words: vec![0; count.div_ceil(64) as usize],
            count: 0,
        }
    }

    fn has(&self, index: u32) -> bool {
        self.words
            .get(index as usize / 64)
            .is_some_and(|word| word >> (index % 64) & 1 != 0)
    }

    /// Says whether it was clear.
    fn set(&mut self, index: u32) -> bool {
        let (word, mask) = (&mut self.words[index as usize / 64], 1 << (index % 64));
        if *word & mask != 0 {
            return false;
        }
        *word |= mask;
        self.count += 1;
        true
    }
}

/// A message that is arriving.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assembly {
    piece: u32,
    there: Bits,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// One more is there; the message is not whole.
    New,
    /// It was there before, or belongs to a message cut in another way.
    Known,
    Whole,
}

impl Assembly {
    pub fn new(len: u32, piece: u32) -> Assembly {
        Assembly {
            piece,
            there: Bits::new(pieces(len, piece)),
            bytes: vec![0; len as usize],
        }
    }

    /// Takes a fragment whose place and length the packet's check found right.
    pub fn add(&mut self, len: u32, piece: u32, offset: u32, payload: &[u8]) -> Added {
        if (len as usize, piece) != (self.bytes.len(), self.piece) {
            return Added::Known;
        }
        if !self.there.set(offset / piece) {
            return Added::Known;
        }
        self.bytes[offset as usize..][..payload.len()].copy_from_slice(payload);
        match self.there.count == pieces(len, piece) {
            true => Added::Whole,
            false => Added::New,
        }
    }

    pub fn is_time_to_report(&self) -> bool {
        self.there.count.is_multiple_of(REPORT_EVERY)
    }

    pub fn report(&self) -> Have {
        let count = pieces(self.bytes.len() as u32, self.piece);
        let first = (0..count)
            .find(|&index| !self.there.has(index))
            .unwrap_or(count);
        let mut bits = vec![0; HAVE_BITS / 8];
        for index in first..count.min(first + HAVE_BITS as u32) {
            if self.there.has(index) {
                bits[(index - first) as usize / 8] |= 1 << ((index - first) % 8);
            }
        }
        Have { first, bits }
    }

    pub fn memory(&self) -> usize {
        self.bytes.len() + 8 * self.there.words.len()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A message that is being sent, from the sender's side: it goes through the missing fragments in
/// passes, the first of which is all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outgoing {
    len: u32,
    piece: u32,
    /// How far this pass has come.
    next: u32,
    /// All before were reported, or are lost: a later one was reported.
    resolved: u32,
    /// Known to be there. Without words while the message is one fragment.
    there: Bits,
}

impl Outgoing {
    pub fn new(len: u32, piece: u32) -> Outgoing {
        let count = pieces(len, piece);
        Outgoing {
            len,
            piece,
            next: 0,
            resolved: 0,
            there: if count > 1 {
                Bits::new(count)
            } else {
                Bits::default()
            },
        }
    }

    pub fn piece(&self) -> u32 {
        self.piece
    }

    pub fn is_single(&self) -> bool {
        self.len <= self.piece
    }

    /// Offset and length of each fragment to be sent now, as this pass goes on.
    pub fn go_on(&mut self, send: impl FnMut(u32, u32)) {
        let room = (UNDER_WAY as u32 / self.piece).max(1);
        self.send_up_to(room, send);
    }

    /// Nothing was heard for a while: another pass, which begins gently.
    pub fn again(&mut self, send: impl FnMut(u32, u32)) {
        self.begin_pass();
        let room = (UNDER_WAY as u32 / self.piece / 2).clamp(1, REPORT_EVERY);
        self.send_up_to(room, send);
    }

    /// The receiver has told what it has: sends what that makes room for. When a pass has ended and
    /// its last fragment has arrived, what is missing is lost, and another pass begins.
    pub fn heard(&mut self, have: &Have, send: impl FnMut(u32, u32)) {
        let count = pieces(self.len, self.piece);
        if count == 1 {
            return;
        }
        self.note(have);
        let missing = |index: &u32| !self.there.has(*index);
        if self.next == count && !(self.resolved..count).any(|index| missing(&index)) {
            self.begin_pass();
        }
        self.go_on(send);
    }

    /// As `heard`, from a receiver that has waited in vain.
    pub fn asked(&mut self, have: &Have, send: impl FnMut(u32, u32)) {
        if !self.is_single() {
            self.note(have);
        }
        self.again(send);
    }

    fn note(&mut self, have: &Have) {
        let count = pieces(self.len, self.piece);
        let reach = have.first.saturating_add(8 * have.bits.len() as u32);
        // Reports may come late, but not so late: the receiver has lost what it had.
        let lacks = |index: &u32| self.there.has(*index) && !have.has(*index);
        if (have.first..count.min(reach)).filter(lacks).count() > FORGOTTEN {
            self.there = Bits::new(count);
            (self.next, self.resolved) = (have.first, have.first);
        }
        for index in 0..count.min(reach) {
            if have.has(index) && self.there.set(index) && index < self.next {
                self.resolved = self.resolved.max(index + 1);
            }
        }
    }

    fn begin_pass(&mut self) {
        let count = pieces(self.len, self.piece);
        let mut missing = (0..count).find(|&index| !self.there.has(index));
        if missing.is_none() {
            // All had arrived, and still it is not said to be whole: the receiver has started anew.
            self.there = Bits::new(count);
            missing = Some(0);
        }
        self.next = missing.unwrap_or(count);
        self.resolved = self.next;
    }

    fn send_up_to(&mut self, room: u32, mut send: impl FnMut(u32, u32)) {
        let count = pieces(self.len, self.piece);
        let unheard = (self.resolved..self.next).filter(|&index| !self.there.has(index));
        let mut under_way = unheard.count() as u32;
        while self.next < count && under_way < room {
            if !self.there.has(self.next) {
                let (offset, len) = self.place(self.next);
                send(offset, len);
                under_way += 1;
            }
            self.next += 1;
        }
    }

    fn place(&self, index: u32) -> (u32, u32) {
        let offset = index * self.piece;
        (offset, self.piece.min(self.len - offset))
    }
}

/// Into how many fragments a message is cut; an empty one is one.
pub fn pieces(len: u32, piece: u32) -> u32 {
    match len <= piece {
        true => 1,
        false => len.div_ceil(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a message over a network that loses what `lost` says, and counts the fragments.
    fn transfer(len: u32, piece: u32, mut lost: impl FnMut(usize) -> bool) -> (Vec<u8>, usize) {
        let message: Vec<u8> = (0..len)
            .map(|index| (index * 7 + index / 256) as u8)
            .collect();
        let mut assembly = Assembly::new(len, piece);
        let mut outgoing = Outgoing::new(len, piece);
        let mut under_way = Vec::new();
        let mut sent = 0;
        outgoing.go_on(|offset, len| under_way.push((offset, len)));
        for _ in 0..100_000 {
            let mut reports = Vec::new();
            for (offset, piece_len) in std::mem::take(&mut under_way) {
                sent += 1;
                if lost(sent) {
                    continue;
                }
                let payload = &message[offset as usize..(offset + piece_len) as usize];
                match assembly.add(len, piece, offset, payload) {
                    Added::Whole => return (assembly.into_bytes(), sent),
                    Added::New if !assembly.is_time_to_report() => {}
                    _ => reports.push(assembly.report()),
                }
            }
            for report in reports {
                let report = Have::parse(&report.to_bytes()).unwrap();
                outgoing.heard(&report, |offset, len| under_way.push((offset, len)));
            }
            if under_way.is_empty() {
                outgoing.again(|offset, len| under_way.push((offset, len)));
            }
        }
        panic!("the message never arrived");
    }

    #[test]
    fn a_message_of_any_length_arrives_whole() {
        for len in [0, 1, 999, 1000, 1001, 50_000, 3_000_000] {
            let (bytes, sent) = transfer(len, 1000, |_| false);
            let expected: Vec<u8> = (0..len)
                .map(|index| (index * 7 + index / 256) as u8)
                .collect();
            assert_eq!(bytes, expected);
            assert_eq!(
                sent as u32,
                pieces(len, 1000),
                "nothing is sent twice without a loss"
            );
        }
    }

    #[test]
    fn losses_cost_what_was_lost_and_not_much_more() {
        let (bytes, sent) = transfer(1_000_000, 1000, |count| count % 10 == 3);
        assert_eq!(bytes.len(), 1_000_000);
        assert!((1100..1400).contains(&sent), "{sent} fragments for 1000");
        let (_, sent) = transfer(300_000, 1000, |count| count < 200);
        assert!(sent < 1500, "{sent} fragments for 300");
    }

    #[test]
    fn a_fragment_counts_once_and_one_of_another_cut_not_at_all() {
        let mut assembly = Assembly::new(10, 4);
        assert_eq!(assembly.add(10, 4, 0, b"abcd"), Added::New);
        assert_eq!(assembly.add(10, 4, 0, b"xxxx"), Added::Known);
        assert_eq!(assembly.add(10, 5, 5, b"yyyyy"), Added::Known);
        assert_eq!(assembly.add(10, 4, 8, b"ij"), Added::New);
        assert_eq!(assembly.report().first, 1);
        assert_eq!(assembly.add(10, 4, 4, b"efgh"), Added::Whole);
        assert_eq!(assembly.into_bytes(), b"abcdefghij");
    }
}
