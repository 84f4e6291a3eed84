//! Where datagrams land, and the memory that messages are kept in.
//!
//! A long message goes to the program where it has landed, and the next datagram lands elsewhere; a
//! short one is copied to a vector of its size. Both are used again once the program has dropped
//! its message: so a message allocates nothing, and lands in memory that is still in the processor's
//! cache. (The kernel could write header and message to two places; to tell it both costs as much
//! as copying a kilobyte.)

use std::sync::Arc;

use crate::message::Message;
use crate::packet::split;

/// Longer than any datagram.
const LONGEST: usize = 65536;
/// Buffers to land in, of which all but one may be with the program: messages beyond are copied, so
/// that those which wait long take no more memory than they need.
const BUFFERS: usize = 3;
/// Vectors that are remembered. A program has few messages in hand.
const KEPT: usize = 4;
const LEAST: usize = 256;
/// From here on a message is not copied.
const LONG: usize = 1024;

pub struct Landing {
    buffers: [Arc<Vec<u8>>; BUFFERS],
    /// Which one the socket has filled.
    current: usize,
    /// Of the datagram in it.
    len: usize,
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
    pub fn keep(self) -> Message {
        match self {
            Payload::Lies(bytes) => bytes.to_vec().into(),
            Payload::Landed(landing) => landing.keep(),
        }
    }
}

impl Default for Landing {
    fn default() -> Landing {
        let mut landing = Landing {
            buffers: Default::default(),
            current: 0,
            len: 0,
            kept: Default::default(),
            next: 0,
        };
        landing.buffers[0] = Arc::new(vec![0; LONGEST]);
        landing
    }
}

impl Landing {
    /// For the socket to fill.
    pub fn buffer(&mut self) -> &mut [u8] {
        // The same one each time, if the program has dropped what it was given.
        if !self.is_free(self.current) {
            let other = (0..BUFFERS).find(|index| self.is_free(*index));
            self.current = other.expect("one was free, and nobody else gives it away");
            if self.buffers[self.current].is_empty() {
                self.buffers[self.current] = Arc::new(vec![0; LONGEST]);
            }
        }
        Arc::get_mut(&mut self.buffers[self.current]).expect("nobody else has it")
    }

    /// Nobody else has it, so nobody can get it from somebody else.
    fn is_free(&self, index: usize) -> bool {
        Arc::strong_count(&self.buffers[index]) == 1
    }

    /// How much of it is a datagram.
    pub fn landed(&mut self, len: usize) {
        self.len = len;
    }

    /// The header, or what there is of one, and what follows it.
    #[inline]
    pub fn parts(&self) -> (&[u8], &[u8]) {
        split(&self.buffers[self.current][..self.len])
    }

    fn keep(&mut self) -> Message {
        let len = self.parts().1.len();
        match len >= LONG {
            true => self.give().unwrap_or_else(|| self.copied()),
            false => self.copied(),
        }
    }

    /// The message where it is, if there is another buffer to land in.
    fn give(&self) -> Option<Message> {
        (0..BUFFERS).find(|&index| index != self.current && self.is_free(index))?;
        let (head, payload) = self.parts();
        let (start, len) = (head.len(), payload.len());
        let buffer = self.buffers[self.current].clone();
        Some(Message::part(buffer, start, len))
    }

    fn copied(&mut self) -> Message {
        let (_, payload) = split(&self.buffers[self.current][..self.len]);
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
                return Message::part(kept.clone(), 0, payload.len());
            }
        }
        let mut vector = Vec::with_capacity(room);
        vector.extend_from_slice(payload);
        let kept = &mut self.kept[self.next];
        self.next = (self.next + 1) % KEPT;
        *kept = Arc::new(vector);
        Message::part(kept.clone(), 0, payload.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the socket fills it.
    fn land(landing: &mut Landing, datagram: &[u8]) {
        landing.buffer()[..datagram.len()].copy_from_slice(datagram);
        landing.landed(datagram.len());
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
        let mut given = 0;
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
                match kept.buffer().len() == LONGEST {
                    true => given += 1,
                    false => assert!(kept.buffer().capacity() <= (2 * kept.len()).max(2 * LEAST)),
                }
                held.push((kept, split(&datagram).1.to_vec()));
            }
            let whole = |(kept, _): &&(Message, Vec<u8>)| kept.buffer().len() == LONGEST;
            assert!(held.iter().filter(whole).count() < BUFFERS);
            if round % 7 == 0 {
                let from = held.len().saturating_sub(round % 16);
                for (kept, sent) in held.drain(from..) {
                    assert_eq!(*kept, sent);
                }
            }
        }
        assert!(held.iter().all(|(kept, sent)| **kept == *sent));
        assert!(given > 1000, "{given} were not copied");
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
