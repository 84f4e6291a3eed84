//! Compares two streams of output, and says what kind of difference there is: lost, repeated or other bytes.
//!
//! A warm recovery promises identical bytes. A cold one may repeat the last visible event: at each restart the stream
//! may step back by some bytes that stood right before it. Which of several overlaps was meant is undecidable at one
//! restart (`"1\n1\n"`), so all places where the native stream could stand are carried along, each with the fewest
//! repeats that lead there.

use crate::compare::Kind;
use std::collections::BTreeMap;

/// The longest single event that a cold restart may repeat.
const LONGEST_EVENT: usize = 1 << 16;

/// How many of the restarts repeated an event, or None when no choice explains the stream.
pub fn repeats_after_restarts(native: &[u8], seen: &[u8], restarts: &[usize]) -> Option<usize> {
    let mut places = BTreeMap::from([(0usize, 0usize)]);
    let mut from = 0;
    let ends = restarts.iter().copied().chain([seen.len()]);
    for (index, to) in ends.enumerate() {
        let to = to.clamp(from, seen.len());
        let piece = &seen[from..to];
        let mut next = BTreeMap::new();
        let mut offer = |place: usize, repeats: usize| {
            if native.get(place..place + piece.len()) == Some(piece) {
                let best = next.entry(place + piece.len()).or_insert(repeats);
                *best = repeats.min(*best);
            }
        };
        for (&place, &repeats) in &places {
            offer(place, repeats);
            if index > 0 && !piece.is_empty() {
                for back in 1..=place.min(LONGEST_EVENT) {
                    offer(place - back, repeats + 1);
                }
            }
        }
        places = next;
        from = to;
    }
    places.get(&native.len()).copied()
}

/// What kind of difference, and a sentence that shows where.
pub fn difference(native: &[u8], seen: &[u8]) -> Option<(Kind, String)> {
    if native == seen {
        return None;
    }
    let prefix = native.iter().zip(seen).take_while(|(a, b)| a == b).count();
    let most = native.len().min(seen.len()) - prefix;
    let suffix = native
        .iter()
        .rev()
        .zip(seen.iter().rev())
        .take(most)
        .take_while(|(a, b)| a == b)
        .count();
    let missing = &native[prefix..native.len() - suffix];
    let extra = &seen[prefix..seen.len() - suffix];
    let kind = if extra.is_empty() {
        Kind::Lost
    } else if missing.is_empty() && is_repeat(native, prefix, extra) {
        Kind::Repeated
    } else {
        Kind::Different
    };
    let line = native[..prefix].iter().filter(|b| **b == b'\n').count() + 1;
    let mut detail = format!(
        "at byte {prefix} (line {line}) of {} native, {} seen; after {}",
        native.len(),
        seen.len(),
        excerpt(&native[prefix.saturating_sub(40)..prefix])
    );
    if !missing.is_empty() {
        detail += &format!("\n    native: {}", excerpt(missing));
    }
    if !extra.is_empty() {
        detail += &format!("\n    seen:   {}", excerpt(extra));
    }
    Some((kind, detail))
}

/// Whether the extra bytes stand in the native stream right before or after the place where they were added.
fn is_repeat(native: &[u8], at: usize, extra: &[u8]) -> bool {
    native[..at].ends_with(extra) || native[at..].starts_with(extra)
}

fn excerpt(bytes: &[u8]) -> String {
    let most = 160;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned();
    if bytes.len() > most {
        format!("{text:?}… ({} bytes)", bytes.len())
    } else {
        format!("{text:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_differences() {
        let native = b"one\ntwo\nthree\n";
        let kind = |seen: &[u8]| difference(native, seen).map(|(kind, _)| kind);
        assert_eq!(kind(b"one\ntwo\nthree\n"), None);
        assert_eq!(kind(b"one\nthree\n"), Some(Kind::Lost));
        assert_eq!(kind(b"one\ntwo\ntwo\nthree\n"), Some(Kind::Repeated));
        assert_eq!(kind(b"one\n2\nthree\n"), Some(Kind::Different));
        assert_eq!(kind(b"one\ntwo\nfour\nthree\n"), Some(Kind::Different));
    }

    #[test]
    fn a_restart_may_repeat_the_last_event_and_nothing_else_may() {
        let native = b"a\nbb\nbb\nccc\n";
        assert_eq!(repeats_after_restarts(native, native, &[]), Some(0));
        assert_eq!(repeats_after_restarts(native, native, &[5]), Some(0));
        assert_eq!(
            repeats_after_restarts(native, b"a\nbb\nbb\nbb\nccc\n", &[]),
            None
        );
        assert_eq!(
            repeats_after_restarts(native, b"a\nbb\nbb\nbb\nccc\n", &[8]),
            Some(1)
        );
        assert_eq!(
            repeats_after_restarts(native, b"a\nbb\nbb\nbb\nccc\n", &[2]),
            None
        );
        assert_eq!(repeats_after_restarts(native, b"a\nbb\nccc\n", &[5]), None);
    }
}
