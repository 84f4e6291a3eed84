//! The clients of a server, by their keys: one look for each packet and few for each transaction.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use siphasher::sip::SipHasher24;

use super::ClientKey;
use super::client::Client;

pub type Clients = HashMap<ClientKey, Client, Secret>;

/// Makes hashes that nobody can foresee who does not know it. Keys are random already, unless
/// somebody has chosen them; so two multiplications are enough.
#[derive(Clone, Copy)]
pub struct Secret([u64; 2]);

pub struct KeyHasher {
    secret: [u64; 2],
    hash: u64,
}

impl Secret {
    /// Another one than what it is made from, which is to stay one.
    pub fn new(from: [u8; 16]) -> Secret {
        let word = |index: u8| {
            let mut hasher = SipHasher24::new_with_key(&from);
            hasher.write(&[b'k', index]);
            hasher.finish()
        };
        Secret([word(0) | 1, word(1)])
    }
}

impl BuildHasher for Secret {
    type Hasher = KeyHasher;

    #[inline]
    fn build_hasher(&self) -> KeyHasher {
        let Secret(secret) = *self;
        KeyHasher {
            secret,
            hash: secret[1],
        }
    }
}

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    /// Both halves of a product, for the low half of one hides what the high half of a word says.
    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.hash ^ word) * u128::from(self.secret[0]);
        self.hash = product as u64 ^ (product >> 64) as u64;
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    /// The length of an array, which is the same for all keys.
    #[inline]
    fn write_usize(&mut self, _: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}
