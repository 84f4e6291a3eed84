//! A counter that shows when it was damaged.
//!
//! It is changed by single adds, at any time, by several at once: no sum could be kept beside
//! it. So it does not count by ones but by a large odd number, of which every word is some
//! multiple; and a word with another bit is the multiple of a number far away.

use core::sync::atomic::{AtomicU32, Ordering};

const STEP: u32 = 0x9e37_79b1;
/// `STEP * INVERSE` is 1.
const INVERSE: u32 = {
    let mut inverse = 1u32;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(STEP.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
};

#[derive(Default)]
#[repr(transparent)]
pub struct Count(AtomicU32);

impl Count {
    pub const fn new() -> Count {
        Count(AtomicU32::new(0))
    }

    pub fn load(&self, order: Ordering) -> u32 {
        self.0.load(order).wrapping_mul(INVERSE)
    }

    pub fn store(&self, n: u32, order: Ordering) {
        self.0.store(n.wrapping_mul(STEP), order);
    }

    pub fn add(&self, n: u32, order: Ordering) {
        self.0.fetch_add(n.wrapping_mul(STEP), order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ordering::Relaxed;

    #[test]
    fn a_bit_more_or_less_is_far_away() {
        let count = Count::new();
        for n in 1..3000 {
            count.add(1, Relaxed);
            assert_eq!(count.load(Relaxed), n);
            for bit in 0..32 {
                let other = Count(AtomicU32::new(count.0.load(Relaxed) ^ 1 << bit));
                let distance = other.load(Relaxed).wrapping_sub(n) as i32;
                assert!(
                    distance.unsigned_abs() > 1 << 12,
                    "{n}, bit {bit}: {distance}"
                );
            }
        }
    }
}
