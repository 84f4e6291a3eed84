//! Where a datagram lands, and the vectors that whole messages are kept in.
//!
//! A vector goes to the program with the message in it, and is used again once the program has
//! dropped it: so a message allocates nothing, and the memory it is copied to is still in the
//! processor's cache. (To let the kernel write into the vector instead saves the copy, and was
//! measured to gain nothing, up to 8 KB: a system call for several parts costs as much.)

use std::sync::Arc;

use crate::packet::split;

/// Longer than any datagram.
const LONGEST: usize = 65536;
/// Vectors that are remembered. A program has few messages in hand.
const KEPT: usize = 4;
const LEAST: usize = 256;

pub struct Landing {
    /// What the socket fills.
    pub(crate) buffer: Vec<u8>,
    /// Of the datagram in it.
    pub(crate) len: usize,
    kept: [Arc<Vec<u8>>; KEPT],
    next: usize,
}

/// What follows the header of a packet.
pub enum Payload<'p> {
    Lies(&'p [u8]),
    Landed(&'p mut Landing),
}

impl Payload<'_> {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::Lies(bytes) => bytes,
            Payload::Landed(landing) => landing.parts().1,
        }
    }

    /// The same as a message of its own.
    pub fn keep(self) -> Arc<Vec<u8>> {
        match self {
            Payload::Lies(bytes) => Arc::new(bytes.to_vec()),
            Payload::Landed(landing) => landing.keep(),
        }
    }
}

impl Default for Landing {
    fn default() -> Landing {
        Landing {
            buffer: vec![0; LONGEST],
            len: 0,
            kept: Default::default(),
            next: 0,
        }
    }
}

impl Landing {
    /// The header, or what there is of one, and what follows it.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        split(&self.buffer[..self.len])
    }

    fn keep(&mut self) -> Arc<Vec<u8>> {
        let (_, payload) = split(&self.buffer[..self.len]);
        let room = payload.len().max(LEAST);
        let fits = |vector: &Arc<Vec<u8>>| (room..=2 * room).contains(&vector.capacity());
        // The same one each time, if the program drops each before it asks for the next.
        for kept in &mut self.kept {
            // To be sure that nobody else has it costs more than to guess.
            if Arc::strong_count(kept) == 1
                && fits(kept)
                && let Some(vector) = Arc::get_mut(kept)
            {
                vector.clear();
                vector.extend_from_slice(payload);
                return kept.clone();
            }
        }
        let mut vector = Vec::with_capacity(room);
        vector.extend_from_slice(payload);
        let kept = &mut self.kept[self.next];
        self.next = (self.next + 1) % KEPT;
        *kept = Arc::new(vector);
        kept.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the socket fills it.
    fn land(landing: &mut Landing, datagram: &[u8]) {
        landing.buffer[..datagram.len()].copy_from_slice(datagram);
        landing.len = datagram.len();
        assert_eq!(landing.parts(), split(datagram));
    }

    fn datagram(len: usize, seed: usize) -> Vec<u8> {
        let mut datagram: Vec<u8> = (0..len).map(|index| (index + seed) as u8).collect();
        if let Some(flags) = datagram.get_mut(4) {
            *flags = 4;
        }
        datagram
    }

    #[test]
    fn what_is_kept_stays_as_it_came_while_it_is_held() {
        let mut landing = Landing::default();
        let mut held = Vec::new();
        let mut random = 1u64;
        for round in 0..20_000usize {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            let len = match random >> 60 {
                0..8 => (random >> 33) as usize % 2000,
                8..14 => 8288,
                _ => (random >> 33) as usize % 60_000,
            };
            let datagram = datagram(len, round);
            land(&mut landing, &datagram);
            if round % 3 != 0 {
                let kept = Payload::Landed(&mut landing).keep();
                assert!(kept.capacity() <= (2 * kept.len()).max(2 * LEAST));
                held.push((kept, split(&datagram).1.to_vec()));
            }
            if round % 7 == 0 {
                let from = held.len().saturating_sub(round % 16);
                for (kept, sent) in held.drain(from..) {
                    assert_eq!(*kept, sent);
                }
            }
        }
        assert!(held.iter().all(|(kept, sent)| **kept == *sent));
    }

    #[test]
    fn a_program_that_drops_its_messages_makes_nothing_allocate() {
        let mut landing = Landing::default();
        for payload in [64, 8192] {
            let datagram = datagram(72 + payload, 0);
            let mut places = std::collections::BTreeSet::new();
            for _ in 0..100 {
                land(&mut landing, &datagram);
                places.insert(Payload::Landed(&mut landing).keep().as_ptr());
            }
            assert_eq!(places.len(), 1, "{payload} bytes: {places:?}");
        }
    }
}
