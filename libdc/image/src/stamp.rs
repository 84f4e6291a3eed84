//! When a signal came, and whose it was, in one word: so that both are of the same one.

/// Of the sender's number; the kernel gives none above 2^22.
const SENDER_BITS: u32 = 24;
/// A unit of time has so many nanoseconds: 2^20, about a millisecond.
const UNIT_BITS: u32 = 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp(u64);

impl Stamp {
    /// At a time of CLOCK_MONOTONIC, ns.
    pub fn new(at_ns: u64, sender: i32) -> Stamp {
        let sender = u64::from(sender as u32) & ((1 << SENDER_BITS) - 1);
        Stamp((at_ns >> UNIT_BITS) << SENDER_BITS | sender)
    }

    pub fn from_word(word: u64) -> Stamp {
        Stamp(word)
    }

    pub fn word(self) -> u64 {
        self.0
    }

    pub fn is_by(self, sender: i32) -> bool {
        self.0 & ((1 << SENDER_BITS) - 1) == u64::from(sender as u32)
    }

    /// How long ago it was, to about a millisecond; 0 if it is to come.
    pub fn age_ns(self, now_ns: u64) -> u64 {
        (now_ns >> UNIT_BITS).saturating_sub(self.0 >> SENDER_BITS) << UNIT_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::Stamp;

    #[test]
    fn it_tells_whose_and_when() {
        let second = 1_000_000_000;
        let stamp = Stamp::from_word(Stamp::new(5 * second, 4_194_303).word());
        assert!(stamp.is_by(4_194_303) && !stamp.is_by(4_194_302) && !stamp.is_by(0));
        let age = stamp.age_ns(7 * second);
        assert!(age.abs_diff(2 * second) < 2_000_000, "{age}");
        assert_eq!(stamp.age_ns(4 * second), 0);
    }
}
