//! A map from sequence numbers that are close together: a sorted vector.
//!
//! New numbers come at the end and settled ones leave near the front, so both are cheap, and a map
//! that is often empty allocates nothing each time it is not (a B-tree allocates a node).

use std::ops::RangeFrom;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seqs<T> {
    entries: Vec<(u64, T)>,
}

impl<T> Default for Seqs<T> {
    fn default() -> Seqs<T> {
        Seqs {
            entries: Vec::new(),
        }
    }
}

impl<T> Seqs<T> {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn first(&self) -> Option<u64> {
        self.entries.first().map(|(seq, _)| *seq)
    }

    fn find(&self, seq: u64) -> Result<usize, usize> {
        match self.entries.last() {
            Some((last, _)) if *last < seq => Err(self.entries.len()),
            Some((last, _)) if *last == seq => Ok(self.entries.len() - 1),
            _ => self.entries.binary_search_by_key(&seq, |(seq, _)| *seq),
        }
    }

    pub fn contains(&self, seq: u64) -> bool {
        self.find(seq).is_ok()
    }

    pub fn get(&self, seq: u64) -> Option<&T> {
        let at = self.find(seq).ok()?;
        Some(&self.entries[at].1)
    }

    pub fn get_mut(&mut self, seq: u64) -> Option<&mut T> {
        let at = self.find(seq).ok()?;
        Some(&mut self.entries[at].1)
    }

    pub fn insert(&mut self, seq: u64, value: T) {
        match self.find(seq) {
            Ok(at) => self.entries[at].1 = value,
            Err(at) => self.entries.insert(at, (seq, value)),
        }
    }

    pub fn remove(&mut self, seq: u64) -> Option<T> {
        let at = self.find(seq).ok()?;
        Some(self.entries.remove(at).1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().map(|(seq, value)| (*seq, value))
    }

    /// Those from a number on.
    pub fn from(&self, range: RangeFrom<u64>) -> impl Iterator<Item = (u64, &T)> {
        let at = self.find(range.start).unwrap_or_else(|at| at);
        self.entries[at..].iter().map(|(seq, value)| (*seq, value))
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        self.entries.retain_mut(|(_, value)| keep(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map_in_order() {
        let mut map = Seqs::default();
        for seq in [5, 3, 9, 4, 5] {
            map.insert(seq, seq * 10);
        }
        let all: Vec<_> = map.iter().map(|(seq, value)| (seq, *value)).collect();
        assert_eq!(all, [(3, 30), (4, 40), (5, 50), (9, 90)]);
        assert_eq!(
            (map.first(), map.len(), map.get(9)),
            (Some(3), 4, Some(&90))
        );
        assert_eq!(
            map.from(5..).map(|(seq, _)| seq).collect::<Vec<_>>(),
            [5, 9]
        );
        assert_eq!(map.from(6..).map(|(seq, _)| seq).collect::<Vec<_>>(), [9]);
        assert_eq!(
            (map.remove(4), map.remove(4), map.contains(3)),
            (Some(40), None, true)
        );
    }
}
