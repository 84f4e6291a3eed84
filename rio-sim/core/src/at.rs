//! A place in persistent memory, independent of where it is mapped today.
//!
//! ```text
//!   63      48 47                            0
//!  +----------+-------------------------------+
//!  |  window  |            offset             |    0 is "nowhere": window 0 begins with a header
//!  +----------+-------------------------------+
//! ```

use core::fmt;

/// A window and an offset in it, in one word that can be stored in persistent memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct At(u64);

const OFFSET_BITS: u32 = 48;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;

impl At {
    /// The place that no object has.
    pub const NOWHERE: At = At(0);

    /// Of the offset, 48 bits count.
    #[inline(always)]
    pub const fn new(window: usize, offset: usize) -> At {
        At((window as u64) << OFFSET_BITS | offset as u64 & OFFSET_MASK)
    }

    #[inline]
    pub const fn from_word(word: u64) -> At {
        At(word)
    }

    #[inline]
    pub const fn word(self) -> u64 {
        self.0
    }

    #[inline]
    pub const fn window(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    #[inline]
    pub const fn offset(self) -> usize {
        (self.0 & OFFSET_MASK) as usize
    }

    /// So many bytes further. Past 48 bits of offset it names another window, or none; places are
    /// checked when they are used, so that is a wrong place and no wild one.
    #[inline]
    pub const fn plus(self, bytes: usize) -> At {
        At(self.0.wrapping_add(bytes as u64))
    }
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:#x}", self.window(), self.offset())
    }
}
