//! A vector clock of bounded size, for a process that may not allocate.

/// For each process the last of its events that the owner depends on; ascending by process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock<const N: usize> {
    len: usize,
    entries: [(u32, u64); N],
}

/// More processes than the clock has room for. Forgetting one would hide a dependency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockFull;

impl<const N: usize> Clock<N> {
    pub const fn new() -> Self {
        Clock {
            len: 0,
            entries: [(0, 0); N],
        }
    }

    pub fn as_slice(&self) -> &[(u32, u64)] {
        &self.entries[..self.len]
    }

    /// The last event of that process that the owner depends on; 0 if none.
    pub fn get(&self, process: u32) -> u64 {
        match self.find(process) {
            Ok(at) => self.entries[at].1,
            Err(_) => 0,
        }
    }

    /// Another event of that process, the owner; its sequence number.
    pub fn tick(&mut self, process: u32) -> Result<u64, ClockFull> {
        let next = self.get(process) + 1;
        self.learn(process, next)?;
        Ok(next)
    }

    /// A message has brought another clock.
    pub fn merge(&mut self, other: &[(u32, u64)]) -> Result<(), ClockFull> {
        other
            .iter()
            .try_for_each(|(process, sequence)| self.learn(*process, *sequence))
    }

    /// The owner depends on that event, and on those before it.
    pub fn learn(&mut self, process: u32, sequence: u64) -> Result<(), ClockFull> {
        match self.find(process) {
            Ok(at) => self.entries[at].1 = self.entries[at].1.max(sequence),
            Err(_) if self.len == N => return Err(ClockFull),
            Err(at) => {
                self.entries.copy_within(at..self.len, at + 1);
                self.entries[at] = (process, sequence);
                self.len += 1;
            }
        }
        Ok(())
    }

    fn find(&self, process: u32) -> Result<usize, usize> {
        self.as_slice()
            .binary_search_by_key(&process, |entry| entry.0)
    }
}

impl<const N: usize> Default for Clock<N> {
    fn default() -> Self {
        Clock::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_learns_and_stays_in_order() {
        let mut clock = Clock::<3>::new();
        assert_eq!(clock.tick(9), Ok(1));
        assert_eq!(clock.merge(&[(4, 7), (9, 1)]), Ok(()));
        assert_eq!(clock.learn(6, 2), Ok(()));
        assert_eq!(
            clock.learn(4, 3),
            Ok(()),
            "an older message brings nothing new"
        );
        assert_eq!(clock.as_slice(), &[(4, 7), (6, 2), (9, 1)]);
        assert_eq!(clock.tick(9), Ok(2));
        assert_eq!(clock.learn(5, 1), Err(ClockFull));
    }
}
