//! A word that carries the number of the commit from which on it holds.
//!
//! What the table of processes has is not rolled back by copying. A word that changes while
//! its process lives has two values: the one of the last commit, and the one of the interval
//! to come. Publishing makes the second one hold, without a copy.

use core::sync::atomic::{AtomicI32, AtomicU64, Ordering::*};

/// `now` holds from the commit `since` on, `before` until then.
#[repr(C)]
pub struct Dated {
    now: AtomicI32,
    before: AtomicI32,
    since: AtomicU64,
}

impl Dated {
    #[allow(clippy::new_without_default)] // Made by mapping zeros.
    pub const fn new() -> Dated {
        Dated {
            now: AtomicI32::new(0),
            before: AtomicI32::new(0),
            since: AtomicU64::new(0),
        }
    }

    /// What it is now, whether that is committed or not.
    pub fn get(&self) -> i32 {
        self.now.load(Acquire)
    }

    /// What it is in the state of a commit.
    pub fn at(&self, published: u64) -> i32 {
        match self.since.load(Acquire) <= published {
            true => self.now.load(Acquire),
            false => self.before.load(Acquire),
        }
    }

    /// Sets what holds from the commit `published + 1` on. Whoever dies between two of these
    /// stores leaves what the last commit has.
    pub fn set(&self, value: i32, published: u64) {
        self.before.store(self.at(published), Release);
        self.since.store(published + 1, Release);
        self.now.store(value, Release);
    }

    /// Sets 0 if it is still this value: somebody else may set another at any time.
    pub fn clear_if(&self, value: i32, published: u64) -> bool {
        self.before.store(self.at(published), Release);
        self.since.store(published + 1, Release);
        let cleared = self.now.compare_exchange(value, 0, AcqRel, Acquire);
        cleared.is_ok()
    }

    /// Sets what holds in the state of the last commit too: it came from outside, and does not
    /// come again.
    pub fn fix(&self, value: i32) {
        self.now.store(value, Release);
        self.since.store(0, Release);
    }

    /// At a recovery: forgets what belongs to an interval that was lost.
    pub fn roll_back(&self, published: u64) {
        self.now.store(self.at(published), Release);
        self.since.store(0, Release);
    }

    /// Nothing was ever set.
    pub fn clear(&self) {
        self.since.store(0, Release);
        self.now.store(0, Release);
        self.before.store(0, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_the_last_commit_stays_until_the_next() {
        let word = Dated::new();
        word.set(7, 0);
        assert_eq!((word.at(0), word.at(1), word.get()), (0, 7, 7));
        word.set(8, 1);
        word.set(9, 1);
        assert_eq!((word.at(1), word.at(2), word.get()), (7, 9, 9));
        word.roll_back(1);
        assert_eq!((word.at(1), word.at(2), word.get()), (7, 7, 7));
        assert!(!word.clear_if(6, 1) && word.clear_if(7, 1));
        assert_eq!((word.at(1), word.at(2), word.get()), (7, 0, 0));
        word.set(10, 1);
        word.roll_back(2);
        assert_eq!((word.at(2), word.get()), (10, 10));
    }
}
