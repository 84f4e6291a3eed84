//! Workers that are killed before their program runs, one after the other.
//!
//! A kill -9 from outside is no crash, however often it comes. But the kernel
//! kills in the same way a worker that it cannot give what it needs, and the
//! next one meets the same. So that this is no loop, each further attempt waits
//! longer, and at some point there is none.

use std::time::Duration;

/// After so many in a row no further worker is started.
pub const LIMIT: u64 = 100;
/// So many follow one another at once: somebody may kill in the middle of a
/// recovery, and then again.
const AT_ONCE: u64 = 30;
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Deaths in a row without a program that ran.
#[derive(Default)]
pub struct Fruitless {
    in_a_row: u64,
}

impl Fruitless {
    /// Takes note of a death; returns how many there were in a row.
    pub fn count(&mut self, had_run: bool) -> u64 {
        self.in_a_row = if had_run { 0 } else { self.in_a_row + 1 };
        self.in_a_row
    }

    /// How long the next worker has to wait.
    pub fn pause(&self) -> Duration {
        match self.in_a_row.checked_sub(AT_ONCE) {
            None | Some(0) => Duration::ZERO,
            Some(beyond) => Duration::from_millis(1 << (beyond - 1).min(16)).min(PAUSE_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ran_ends_the_row() {
        let mut fruitless = Fruitless::default();
        for nth in 1..=LIMIT {
            assert_eq!(fruitless.count(false), nth);
        }
        assert_eq!(fruitless.pause(), PAUSE_MAX);
        assert_eq!(fruitless.count(true), 0);
        assert_eq!(fruitless.count(false), 1);
        assert_eq!(fruitless.pause(), Duration::ZERO);
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let pauses: Vec<Duration> = (0..=LIMIT)
            .map(|in_a_row| Fruitless { in_a_row }.pause())
            .collect();
        assert!(pauses.is_sorted());
        assert!(pauses.iter().sum::<Duration>() < Duration::from_secs(5));
    }
}
