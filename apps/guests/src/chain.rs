//! Judges a run that is different every time: a program that asks for chance and shows what it got.
//!
//! No two runs agree, so what is checked is that the run agrees with itself. Each line is `NUMBER VALUE CHAIN`: a value
//! that chance gave and the hash of all values up to it. If a value was shown before it was committed, a recovery asks
//! again, gets another one, and either the number appears twice or the chain breaks: exactly what consistent recovery
//! forbids, and what a program that computes the same thing again would hide.

use crate::compare::Kind;

/// Takes out the lines that cold restarts, at these offsets, repeated as they may: the very last one, the same again.
pub fn without_repeats(output: &[u8], restarts: &[usize]) -> (Vec<u8>, usize) {
    let (mut whole, mut from, mut repeats) = (Vec::new(), 0, 0);
    for to in restarts.iter().copied().chain([output.len()]) {
        let to = to.clamp(from, output.len());
        let piece = &output[from..to];
        let last = whole
            .split_inclusive(|byte| *byte == b'\n')
            .next_back()
            .unwrap_or(&[]);
        let again = if !last.is_empty() && piece.starts_with(last) {
            last.len()
        } else {
            0
        };
        repeats += usize::from(again > 0);
        whole.extend_from_slice(&piece[again..]);
        from = to;
    }
    (whole, repeats)
}

/// What is wrong with the chain, if anything.
pub fn broken(output: &[u8]) -> Option<(Kind, String)> {
    let text = String::from_utf8_lossy(output);
    let (mut chain, mut number) = (0u64, 0u64);
    for line in text.lines() {
        if line == "ok" {
            return None;
        }
        let mut words = line.split(' ');
        let (Some(count), Some(value), Some(link), None) = (
            words.next().and_then(|word| word.parse::<u64>().ok()),
            words.next().and_then(hex),
            words.next().and_then(hex),
            words.next(),
        ) else {
            return Some((
                Kind::Different,
                format!("line {} is no link: {line:?}", number + 1),
            ));
        };
        if count <= number {
            return Some((
                Kind::Repeated,
                format!("link {count} comes after link {number}"),
            ));
        }
        if count > number + 1 {
            return Some((
                Kind::Lost,
                format!("link {count} comes after link {number}"),
            ));
        }
        chain = mix(chain ^ value);
        if chain != link {
            let what = format!("link {count} goes on from a value that was never shown");
            return Some((Kind::Different, what));
        }
        number = count;
    }
    Some((Kind::Lost, format!("the chain ends at link {number}")))
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16).ok()
}

/// The hash of the probes.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(values: &[u64]) -> Vec<String> {
        let mut link = 0;
        let mut lines = Vec::new();
        for (index, value) in values.iter().enumerate() {
            link = mix(link ^ value);
            lines.push(format!("{} {value:016x} {link:016x}\n", index + 1));
        }
        lines
    }

    fn kind(lines: &[String]) -> Option<Kind> {
        broken((lines.concat() + "ok\n").as_bytes()).map(|(kind, _)| kind)
    }

    #[test]
    fn a_chain_that_was_shown_twice_or_goes_on_from_elsewhere_is_broken() {
        let lines = chain(&[5, 6, 7, 8]);
        assert_eq!(kind(&lines), None);
        let twice = [&lines[..2], &lines[1..]].concat();
        assert_eq!(kind(&twice), Some(Kind::Repeated));
        let hole = [&lines[..1], &lines[2..]].concat();
        assert_eq!(kind(&hole), Some(Kind::Lost));
        let other = [&lines[..2], &chain(&[5, 9, 7, 8])[2..]].concat();
        assert_eq!(kind(&other), Some(Kind::Different));
        assert_eq!(
            broken(lines.concat().as_bytes()).map(|(kind, _)| kind),
            Some(Kind::Lost)
        );
    }
}
