//! Streams: why a server may forget a client, and why a stranger cannot make it remember one.
//!
//! A late packet of a client that was forgotten would look like a new client's. So a request of an
//! unknown client counts only under a stream that this start of the server has granted, and not
//! before the last time that a client was forgotten. What was granted is proved by a cookie, a
//! SipHash under a secret of this start, so that the server keeps nothing about those it has
//! greeted; and the cookie went to the address that the greeting came from, so nobody can act for
//! an address at which he does not receive.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::ClientKey;
use crate::NodeId;
use crate::packet::Welcome;

#[derive(Clone)]
pub struct Grants {
    boots: u64,
    secret: [u8; 16],
    /// The last one granted. The number of the start is its upper half, so it always rises.
    last: u64,
    /// Those below make nobody known any more.
    least: u64,
}

impl Grants {
    pub fn new(boots: u64, secret: [u8; 16]) -> Grants {
        Grants {
            boots,
            secret,
            last: boots << 32,
            least: 0,
        }
    }

    pub fn grant(&mut self, key: ClientKey) -> (u64, u64) {
        self.last += 1;
        (self.last, self.cookie(key, self.last))
    }

    pub fn is_granted(&self, key: ClientKey, stream: u64, cookie: u64) -> bool {
        stream >= self.least && stream <= self.last && cookie == self.cookie(key, stream)
    }

    /// A client was forgotten.
    pub fn void_all(&mut self) {
        self.least = self.last + 1;
    }

    /// What a welcome and a ping say.
    pub fn about(&self, server: NodeId, window: u32) -> Welcome {
        Welcome {
            server,
            boots: self.boots,
            was: 0,
            cookie: 0,
            answers: 0,
            window,
        }
    }

    pub fn digest(&self, hasher: &mut impl Hasher) {
        hasher.write_u64(self.last);
        hasher.write_u64(self.least);
    }

    fn cookie(&self, (node, link): ClientKey, stream: u64) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(&node.0);
        hasher.write_u32(link);
        hasher.write_u64(stream);
        hasher.finish()
    }
}
