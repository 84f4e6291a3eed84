//! Time as a number, and a heap of wake-ups that costs nothing on the path of a message.
//!
//! Each link and each client has one wake-up at most that counts; a later need that is earlier
//! pushes another one, and the one passed over is recognised by its time when it comes. So a
//! message that is answered in time touches the heap only if its link had no wake-up at all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::ClientKey;

/// Nanoseconds since some moment of the driver's choice.
pub type Nanos = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    Link(u32),
    Client(ClientKey),
}

#[derive(Clone, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Nanos, Timer)>>,
}

impl Timers {
    pub fn push(&mut self, at: Nanos, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    pub fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub fn pop(&mut self, now: Nanos) -> Option<(Nanos, Timer)> {
        self.next().filter(|&at| at <= now)?;
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

pub fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// How long the other side takes, as RFC 6298 estimates it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundTrip {
    smoothed: Nanos,
    variation: Nanos,
}

impl RoundTrip {
    /// A round trip without retransmission; others tell nothing (Karn's rule).
    pub fn measured(&mut self, took: Nanos) {
        if self.smoothed == 0 {
            (self.smoothed, self.variation) = (took, took / 2);
            return;
        }
        let differs = self.smoothed.abs_diff(took);
        self.variation = (3 * self.variation + differs) / 4;
        self.smoothed = (7 * self.smoothed + took) / 8;
    }

    /// How long to wait before the retransmission of that number.
    pub fn wait(&self, tries: u32, first: Nanos, least: Nanos, most: Nanos) -> Nanos {
        let one = match self.smoothed {
            0 => first,
            smoothed => smoothed + 4 * self.variation,
        };
        (one.max(least) << tries.min(16)).min(most)
    }
}

/// A small generator: for jitter, not for secrets.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// Between three and five quarters of a time, so that many do not wake at once.
    pub fn jittered(&mut self, wait: Nanos) -> Nanos {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        wait - wait / 4 + self.0 % (wait / 2 + 1)
    }
}
