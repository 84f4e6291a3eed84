//! Where a datagram lands, so that a long message is not copied once more to be kept.
//!
//! Who expects a long message lets the kernel put what follows the header into a vector that can
//! be the message; who does not reads all into one buffer, which costs less, and a short message
//! is copied out of it. Expected is what came last. The vector is lent to the program with the
//! message in it, and used again if the program has dropped it: so a message allocates nothing,
//! and the memory it comes to is still in the processor's cache.

use std::sync::Arc;

use crate::packet::HEADER_LEN;

/// Longer than any datagram.
const LONGEST: usize = 65536;
/// From here on a copy costs more than receiving in parts.
const LONG: usize = 1024;
/// Vectors that are remembered. A program has few messages in hand.
const LENT: usize = 4;
const LEAST: usize = 256;

pub struct Landing {
    /// The header, and what of the rest did not land in `body`.
    pub(crate) flat: Vec<u8>,
    /// Nobody else has it while a datagram lands; then perhaps the program.
    pub(crate) body: Arc<Vec<u8>>,
    /// Of the datagram, all its parts.
    len: usize,
    is_parted: bool,
    /// The room that the next one is expected to need, if it is long.
    expected: usize,
    /// Former bodies.
    lent: [Arc<Vec<u8>>; LENT],
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
            Payload::Landed(landing) => landing.payload(),
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
            flat: vec![0; LONGEST],
            body: Arc::default(),
            len: 0,
            is_parted: false,
            expected: 0,
            lent: Default::default(),
            next: 0,
        }
    }
}

impl Landing {
    /// The vector for what follows the header, empty, if the next datagram is to land in parts.
    pub(crate) fn parts(&mut self) -> Option<&mut Vec<u8>> {
        self.is_parted = self.expected > 0;
        self.is_parted.then(|| self.empty(self.expected))
    }

    /// A datagram of so many bytes has landed: in `flat` alone, or after the header as much as it
    /// has room for in the vector of `parts`, whose length says so, and then in `flat` again.
    pub(crate) fn landed(&mut self, len: usize) {
        self.len = len;
        let payload = len.saturating_sub(HEADER_LEN);
        self.expected = if payload >= LONG { payload } else { 0 };
        if self.is_parted && self.body.len() < payload {
            let beyond = HEADER_LEN + payload - self.body.len();
            let body = Arc::get_mut(&mut self.body).expect("its only owner");
            body.extend_from_slice(&self.flat[HEADER_LEN..beyond]);
        }
    }

    /// The first bytes: a header, if there are as many.
    pub fn head(&self) -> &[u8] {
        &self.flat[..self.len.min(HEADER_LEN)]
    }

    pub fn payload(&self) -> &[u8] {
        match self.is_parted {
            true => &self.body,
            false => &self.flat[HEADER_LEN..self.len.max(HEADER_LEN)],
        }
    }

    fn keep(&mut self) -> Arc<Vec<u8>> {
        let len = self.payload().len();
        if !self.is_parted {
            self.empty(len.max(LEAST));
            let body = Arc::get_mut(&mut self.body).expect("its only owner");
            body.extend_from_slice(&self.flat[HEADER_LEN..self.len]);
        } else if self.body.capacity() > (2 * len).max(LEAST) {
            return Arc::new(self.body.to_vec());
        }
        self.body.clone()
    }

    /// Makes the body an empty vector with this room, and not much more, that nobody else has.
    fn empty(&mut self, room: usize) -> &mut Vec<u8> {
        let fits = |body: &mut Arc<Vec<u8>>| {
            let free = Arc::get_mut(body);
            free.is_some_and(|free| (room..=2 * room).contains(&free.capacity()))
        };
        if !fits(&mut self.body) {
            match self.lent.iter_mut().position(fits) {
                Some(index) => std::mem::swap(&mut self.lent[index], &mut self.body),
                None => {
                    let new = Arc::new(Vec::with_capacity(room));
                    self.lent[self.next] = std::mem::replace(&mut self.body, new);
                    self.next = (self.next + 1) % LENT;
                }
            }
        }
        let body = Arc::get_mut(&mut self.body).expect("its only owner");
        body.clear();
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the socket fills it.
    fn land(landing: &mut Landing, datagram: &[u8]) {
        let (head, payload) = datagram.split_at(datagram.len().min(HEADER_LEN));
        let mut rest = payload;
        if let Some(body) = landing.parts() {
            let room = body.capacity().min(payload.len());
            body.extend_from_slice(&payload[..room]);
            rest = &payload[room..];
        }
        landing.flat[..head.len()].copy_from_slice(head);
        landing.flat[HEADER_LEN..][..rest.len()].copy_from_slice(rest);
        landing.landed(datagram.len());
        assert_eq!(landing.head(), head);
        assert_eq!(landing.payload(), payload);
    }

    #[test]
    fn what_lands_is_kept_as_it_came_whatever_came_before_and_is_still_held() {
        let mut landing = Landing::default();
        let mut held = Vec::new();
        let mut random = 1u64;
        for round in 0..4000usize {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            let len = match random >> 60 {
                0..4 => (random >> 33) as usize % 200,
                4..8 => HEADER_LEN + (random >> 33) as usize % 2000,
                8..14 => 8288,
                _ => HEADER_LEN + (random >> 33) as usize % 60_000,
            };
            let datagram: Vec<u8> = (0..len).map(|index| (index + round) as u8).collect();
            land(&mut landing, &datagram);
            if len >= HEADER_LEN && round % 3 != 0 {
                let kept = Payload::Landed(&mut landing).keep();
                assert!(kept.capacity() <= (2 * kept.len()).max(2 * LEAST));
                held.push((kept, datagram[HEADER_LEN..].to_vec()));
            }
            if round % 7 == 0 {
                let from = held.len().saturating_sub(round % 5);
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
            let datagram = vec![7; HEADER_LEN + payload];
            let mut places = std::collections::BTreeSet::new();
            for _ in 0..100 {
                land(&mut landing, &datagram);
                places.insert(Payload::Landed(&mut landing).keep().as_ptr());
            }
            assert!(places.len() <= 2, "{payload} bytes: {places:?}");
        }
    }
}
