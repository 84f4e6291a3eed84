//! The clients of a server, by their keys: one look for each packet and few for each transaction.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use siphasher::sip::SipHasher24;

use super::ClientKey;
use super::client::Client;

/// A transaction looks for the same client again and again, so the last one found is asked first.
#[derive(Clone)]
pub struct Clients {
    places: HashMap<ClientKey, usize, Secret>,
    /// By place; those that are free are listed.
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    /// Where the last one was found. Whether it still is there, its key says.
    last: Cell<usize>,
}

impl Clients {
    pub fn new(secret: Secret) -> Clients {
        Clients {
            places: HashMap::with_hasher(secret),
            clients: Vec::new(),
            free: Vec::new(),
            last: Cell::new(0),
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    #[inline]
    fn place(&self, key: &ClientKey) -> Option<usize> {
        let last = self.last.get();
        if let Some(Some(client)) = self.clients.get(last)
            && client.key == *key
        {
            return Some(last);
        }
        self.look_up(key)
    }

    #[inline(never)]
    fn look_up(&self, key: &ClientKey) -> Option<usize> {
        let place = *self.places.get(key)?;
        self.last.set(place);
        Some(place)
    }

    #[inline]
    pub fn get(&self, key: &ClientKey) -> Option<&Client> {
        self.clients[self.place(key)?].as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, key: &ClientKey) -> Option<&mut Client> {
        let place = self.place(key)?;
        self.clients[place].as_mut()
    }

    /// In place of the one with this key, if there is one.
    pub fn insert(&mut self, client: Client) {
        let key = client.key;
        if let Some(known) = self.get_mut(&key) {
            *known = client;
            return;
        }
        let place = self.free.pop().unwrap_or(self.clients.len());
        match self.clients.get_mut(place) {
            Some(free) => *free = Some(client),
            None => self.clients.push(Some(client)),
        }
        self.places.insert(key, place);
    }

    pub fn remove(&mut self, key: &ClientKey) -> Option<Client> {
        let place = self.places.remove(key)?;
        self.free.push(place);
        self.clients[place].take()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.clients.iter_mut().flatten()
    }
}

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::NodeId;

    #[test]
    fn it_is_a_map_whatever_was_found_last() {
        let mut clients = Clients::new(Secret::new([1; 16]));
        let mut model: BTreeMap<ClientKey, u64> = BTreeMap::new();
        let mut random = 1u64;
        for round in 0..20_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            // Some nodes have several links.
            let key = (
                NodeId([(random >> 40) as u8 % 5; 16]),
                (random >> 50) as u32 % 4,
            );
            match random >> 60 {
                0..6 => {
                    let from = "127.0.0.1:1".parse().unwrap();
                    clients.insert(Client::fresh(key, round, from, 0));
                    model.insert(key, round);
                }
                6..9 => {
                    let removed = clients.remove(&key).map(|client| client.stream);
                    assert_eq!(removed, model.remove(&key));
                }
                9..12 => {
                    if let Some(client) = clients.get_mut(&key) {
                        client.stream = round;
                        *model.get_mut(&key).expect("the model has it") = round;
                    }
                }
                _ => {}
            }
            let found = clients.get(&key).map(|client| (client.key, client.stream));
            assert_eq!(found, model.get(&key).map(|stream| (key, *stream)));
            assert_eq!(
                (clients.len(), clients.is_empty()),
                (model.len(), model.is_empty())
            );
        }
        let mut all: Vec<_> = clients.iter().map(|one| (one.key, one.stream)).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(model));
        assert!(clients.clients.len() <= 20, "places are used again");
    }
}
