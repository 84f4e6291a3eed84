//! Where a datagram lands, so that a long message is not copied once more to be kept.
//!
//! Who expects a long message lets the kernel put what follows the header into a vector that can
//! be the message; who does not reads all into one buffer, which costs less, and a short message
//! is copied out of it. Expected is what came last. The vector is lent to the program with the
//! message in it, and used again if the program has dropped it: so a message allocates nothing,
//! and the memory it comes to is still in the processor's cache.

use std::sync::Arc;

use crate::packet::{HEADER_LEN, header_len};

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
    /// Of its header.
    head: usize,
    is_parted: bool,
    /// Where the first part ends: where the last header did.
    pub(crate) split: usize,
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
            head: 0,
            is_parted: false,
            split: HEADER_LEN,
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

    /// A datagram of so many bytes has landed: in `flat` alone; or up to `split` there, then as much
    /// as it has room for in the vector of `parts`, whose length says so, then from `split` on.
    pub(crate) fn landed(&mut self, len: usize) {
        self.len = len;
        self.head = header_len(&self.flat[..len.min(HEADER_LEN)]).min(len);
        if self.is_parted {
            self.put_together();
        }
        let payload = len - self.head;
        self.expected = if payload >= LONG { payload } else { 0 };
        self.split = self.head;
    }

    fn put_together(&mut self) {
        let body = Arc::get_mut(&mut self.body).expect("its only owner");
        let beyond = self.len.saturating_sub(self.split + body.len());
        let (from, to) = (self.split, self.split + beyond);
        if self.head == self.split {
            return body.extend_from_slice(&self.flat[from..to]);
        }
        // Another header than expected: as if all had landed in one.
        self.flat.copy_within(from..to, from + body.len());
        self.flat[from..from + body.len()].copy_from_slice(body);
        self.is_parted = false;
    }

    /// The first bytes: a header, if there are as many.
    pub fn head(&self) -> &[u8] {
        &self.flat[..self.head]
    }

    pub fn payload(&self) -> &[u8] {
        match self.is_parted {
            true => &self.body,
            false => &self.flat[self.head..self.len],
        }
    }

    fn keep(&mut self) -> Arc<Vec<u8>> {
        let len = self.payload().len();
        if !self.is_parted {
            self.empty(len.max(LEAST));
            let body = Arc::get_mut(&mut self.body).expect("its only owner");
            body.extend_from_slice(&self.flat[self.head..self.len]);
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
        let at = match landing.parts() {
            Some(_) => landing.split.min(datagram.len()),
            None => datagram.len(),
        };
        let (head, rest) = datagram.split_at(at);
        landing.flat[..at].copy_from_slice(head);
        let body = Arc::get_mut(&mut landing.body);
        let room = body.as_ref().map_or(0, |body| body.capacity());
        let (in_body, beyond) = rest.split_at(room.min(rest.len()));
        if let Some(body) = body {
            body.extend_from_slice(in_body);
        }
        landing.flat[at..][..beyond.len()].copy_from_slice(beyond);
        landing.landed(datagram.len());
        let (head, payload) = crate::packet::split(datagram);
        assert_eq!(landing.head(), head);
        assert_eq!(landing.payload(), payload);
    }

    /// Of any of the four lengths of headers.
    fn datagram(len: usize, flags: u8, seed: usize) -> Vec<u8> {
        let mut datagram: Vec<u8> = (0..len).map(|index| (index + seed) as u8).collect();
        if let Some(byte) = datagram.get_mut(4) {
            *byte = flags;
        }
        datagram
    }

    #[test]
    fn what_lands_is_kept_as_it_came_whatever_came_before_and_is_still_held() {
        let mut landing = Landing::default();
        let mut held = Vec::new();
        let mut random = 1u64;
        for round in 0..20_000usize {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            let len = match random >> 60 {
                0..4 => (random >> 33) as usize % 200,
                4..8 => HEADER_LEN + (random >> 33) as usize % 2000,
                8..14 => 8288,
                _ => HEADER_LEN + (random >> 33) as usize % 60_000,
            };
            let flags = if random >> 20 & 7 == 0 {
                (random >> 24) as u8
            } else {
                4
            };
            let datagram = datagram(len, flags, round);
            land(&mut landing, &datagram);
            if round % 3 != 0 {
                let kept = Payload::Landed(&mut landing).keep();
                assert!(kept.capacity() <= (2 * kept.len()).max(2 * LEAST));
                held.push((kept, crate::packet::split(&datagram).1.to_vec()));
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
            let datagram = datagram(72 + payload, 4, 0);
            let mut places = std::collections::BTreeSet::new();
            for _ in 0..100 {
                land(&mut landing, &datagram);
                places.insert(Payload::Landed(&mut landing).keep().as_ptr());
            }
            assert!(places.len() <= 2, "{payload} bytes: {places:?}");
        }
    }
}
