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

impl At {
    /// The place that no object has.
    pub const NOWHERE: At = At(0);

    /// An offset past 48 bits lands in no window, so that the bounds check that follows refuses it.
    #[inline]
    pub const fn new(window: usize, offset: usize) -> At {
        if window >= 1 << 16 || offset >= 1 << OFFSET_BITS {
            return At(u64::MAX);
        }
        At((window as u64) << OFFSET_BITS | offset as u64)
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
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize
    }

    #[inline]
    pub const fn plus(self, bytes: usize) -> At {
        At::new(self.window(), self.offset().wrapping_add(bytes))
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
