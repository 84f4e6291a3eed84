//! Seals: sums of what a commit leaves, by which a recovery knows that it finds that.
//!
//! A commit writes its seals before it stores `published`, into the place that the last
//! commit does not use. So whenever a crash comes, the seal of the published commit is whole.
//! What `published` says must have its seal, and what the seal says must be there: a number
//! that was changed, a table or an entry that was emptied, an older part of the same image
//! do not agree.

use core::sync::atomic::{AtomicU64, Ordering::*};
use rio_core::mix;

/// One of two places.
#[repr(C, align(32))]
pub struct Seal {
    /// The commit; 0 is none.
    pub seq: AtomicU64,
    pub words: [AtomicU64; 2],
    /// A sum of the three, and of what they are of.
    pub check: AtomicU64,
}

#[repr(C)]
pub struct Seals {
    pub places: [Seal; 2],
}

/// The newest seal is not what was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// What tells the seals of one image, and of one process in it, from all others.
pub fn key(image: u64, of: u64) -> u64 {
    mix(image, of)
}

/// In [`key`]: the seal of the whole run. That of a process has its entry + 1.
pub const OF_RUN: u64 = 0;

/// The sum of what lies in a pipe.
pub fn contents_sum(bytes: &[u8]) -> u64 {
    rio_core::checksum(OF_RUN, bytes)
}

fn check(key: u64, seq: u64, words: [u64; 2]) -> u64 {
    // (Never 0, which is what an empty place holds.)
    mix(mix(key, seq), mix(words[0], words[1])) | 1
}

impl Seal {
    const fn new() -> Seal {
        Seal {
            seq: AtomicU64::new(0),
            words: [const { AtomicU64::new(0) }; 2],
            check: AtomicU64::new(0),
        }
    }
}

impl Seals {
    #[allow(clippy::new_without_default)] // Made by mapping zeros, and in tests.
    pub const fn new() -> Seals {
        Seals {
            places: [const { Seal::new() }; 2],
        }
    }

    fn newest(&self, published: u64) -> Option<&Seal> {
        let holds = |seal: &&Seal| (1..=published).contains(&seal.seq.load(Acquire));
        let newest = self.places.iter().filter(holds);
        newest.max_by_key(|seal| seal.seq.load(Relaxed))
    }

    /// Seals the commit `published + 1`.
    #[inline]
    pub fn write(&self, key: u64, published: u64, words: [u64; 2]) {
        let seq = published + 1;
        let in_use = self.newest(published);
        let first = in_use.is_some_and(|seal| core::ptr::eq(seal, &self.places[0]));
        let place = &self.places[usize::from(first)];
        place.seq.store(0, Release);
        place.words[0].store(words[0], Relaxed);
        place.words[1].store(words[1], Relaxed);
        place.check.store(check(key, seq, words), Relaxed);
        place.seq.store(seq, Release);
    }

    /// The seal that holds in the state of a commit: its commit, and what it says.
    pub fn at(&self, key: u64, published: u64) -> Result<Option<(u64, [u64; 2])>, Broken> {
        let Some(seal) = self.newest(published) else {
            return Ok(None);
        };
        let seq = seal.seq.load(Relaxed);
        let words = [seal.words[0].load(Relaxed), seal.words[1].load(Relaxed)];
        match seal.check.load(Relaxed) == check(key, seq, words) {
            true => Ok(Some((seq, words))),
            false => Err(Broken),
        }
    }

    /// At a recovery: forgets what belongs to a commit that was lost.
    pub fn roll_back(&self, published: u64) {
        for seal in &self.places {
            if seal.seq.load(Relaxed) > published {
                seal.seq.store(0, Relaxed);
            }
        }
    }

    pub fn clear(&self) {
        for seal in &self.places {
            seal.seq.store(0, Relaxed);
            seal.check.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_until_the_next_one_is_published() {
        let s = Seals::new();
        assert_eq!(s.at(3, 9), Ok(None));
        s.write(3, 4, [1, 2]);
        assert_eq!(s.at(3, 4), Ok(None));
        assert_eq!(s.at(3, 5), Ok(Some((5, [1, 2]))));
        // Not asked by the next commit, and by the one after twice.
        s.write(3, 6, [3, 4]);
        s.write(3, 6, [5, 6]);
        assert_eq!(s.at(3, 6), Ok(Some((5, [1, 2]))));
        assert_eq!(s.at(3, 7), Ok(Some((7, [5, 6]))));
        s.roll_back(6);
        assert_eq!(s.at(3, 7), Ok(Some((5, [1, 2]))));
    }

    #[test]
    fn every_word_of_a_seal_counts_and_whose_it_is() {
        let s = Seals::new();
        s.write(3, 4, [1, 2]);
        assert_eq!(s.at(4, 5), Err(Broken));
        let place = &s.places[0];
        for word in [&place.seq, &place.words[0], &place.words[1], &place.check] {
            word.fetch_xor(2, Relaxed);
            assert_eq!(s.at(3, 9), Err(Broken));
            word.fetch_xor(2, Relaxed);
        }
        assert!(s.at(3, 5).is_ok());
    }
}
