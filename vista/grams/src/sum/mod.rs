//! The checksum of a packet: finds damage, and costs little beside copying the bytes once.
//!
//! The bytes go in blocks of 16 through rounds of AES (FIPS 197: SubBytes, ShiftRows, MixColumns),
//! after each of which the next block is added. Of a long payload the rows of 128 bytes go into
//! eight lanes first, which do not wait for each other, then the lanes into one chain, then what is
//! left of the payload, the head and the length. The processor has an instruction for a round.
//!
//! What that finds, and how surely:
//! - A round is one to one. So damage to one block always changes its lane, or the chain, there.
//! - A later block undoes that only if it is damaged by just what a round makes of the first damage.
//!   MixColumns has a branch number of five: both together differ in five bytes or more, and of a
//!   byte that differs an S-box makes any of 127 differences. So no few flipped bits undo each
//!   other within a lane, and large damage does so by chance only.
//! - Each lane passes three rounds more before the lanes are added. The same bit flipped in two of
//!   them makes the same difference there with a chance below 2^-64.
//! - Blocks that change places, come twice or lack are damage to both places. The length is a block:
//!   zeros that were cut off or added are found by it.
//! - Three rounds behind the last byte spread every bit over all 128, of which half are the sum.
//!   Damage that does not know the sum passes with a chance of 2^-64.
//!
//! All constants are known, so it is no defence against malice: that is what a key is for.
//!
//! Rejected: lanes of sums and products, as UMAC and XXH3 have them, cost six vector instructions
//! for 32 bytes, where this has two, or one. CRC32C finds less, by an instruction that takes 8 bytes.

#[cfg(target_arch = "x86_64")]
mod instruction;
mod table;

/// Words that are summed with the payload.
pub const HEAD_WORDS: usize = 10;

type Block = [u8; 16];
const BLOCK: usize = size_of::<Block>();
const LANES: usize = 8;
/// A block for each lane.
const ROW: usize = LANES * BLOCK;

/// From here on vectors of two lanes pay for beginning to use them.
const WIDE_FROM: usize = 512;

/// The golden ratio: lanes and chain begin with its multiples, so that no two are equal.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The sum of a head and of what follows it.
#[inline]
pub fn sum(head: &[u64; HEAD_WORDS], bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("aes") {
        let is_wide = bytes.len() >= WIDE_FROM
            && std::arch::is_x86_feature_detected!("vaes")
            && std::arch::is_x86_feature_detected!("avx2");
        return match is_wide {
            // SAFETY: this processor has the instructions of all three.
            true => unsafe { instruction::wide_sum(head, bytes) },
            // SAFETY: this processor has the instruction.
            false => unsafe { instruction::sum(head, bytes) },
        };
    }
    sum_by::<table::State>(head, bytes, add_rows)
}

/// What a payload makes of the chain: its sum, but for the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part([u64; 2]);

/// The part of a payload that is being copied: `copy` is given each piece of it and where that
/// begins. So the processor sums one piece while it stores the next, which takes no longer than
/// the stores.
#[inline]
pub fn while_copied(bytes: &[u8], copy: impl FnMut(usize, &[u8])) -> Part {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("aes") {
        let is_wide = std::arch::is_x86_feature_detected!("vaes")
            && std::arch::is_x86_feature_detected!("avx2");
        return match is_wide {
            // SAFETY: this processor has the instructions of all three.
            true => unsafe { instruction::wide_part(bytes, copy) },
            // SAFETY: this processor has the instruction.
            false => unsafe { instruction::part(bytes, copy) },
        };
    }
    part_by::<table::State, _>(bytes, copy, add_rows_copied)
}

/// The sum of a head and of what follows it, of which part and length are known.
#[inline]
pub fn sum_of_part(head: &[u64; HEAD_WORDS], part: &Part, len: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("aes") {
        // SAFETY: this processor has the instruction.
        return unsafe { instruction::sum_of_part(head, part, len) };
    }
    finish(table::State::of(part.0), head, len)
}

/// What a lane or the chain holds.
trait State: Copy {
    fn of(words: [u64; 2]) -> Self;
    fn load(block: &Block) -> Self;
    /// A round of AES over `self`, and a block added.
    fn round(self, block: Self) -> Self;
    fn plus(self, other: Self) -> Self;
    fn low(self) -> u64;
    fn words(self) -> [u64; 2];
}

#[inline(always)]
fn sum_by<S: State>(
    head: &[u64; HEAD_WORDS],
    bytes: &[u8],
    add_rows: impl FnOnce(&mut [S; LANES], &[u8]),
) -> u64 {
    finish(chain_by(bytes, add_rows), head, bytes.len())
}

#[inline(always)]
fn part_by<S: State, C: FnMut(usize, &[u8])>(
    bytes: &[u8],
    mut copy: C,
    add_rows_copied: impl FnOnce(&mut [S; LANES], &[u8], &mut C),
) -> Part {
    let chain = chain_by::<S>(bytes, |lanes, rows| add_rows_copied(lanes, rows, &mut copy));
    let rest = bytes.len() / ROW * ROW;
    copy(rest, &bytes[rest..]);
    Part(chain.words())
}

#[inline(always)]
fn constant<S: State>(index: u64) -> S {
    S::of([index + 1, index + 2].map(|n| FACTOR.wrapping_mul(n)))
}

#[inline(always)]
fn chain_by<S: State>(bytes: &[u8], add_rows: impl FnOnce(&mut [S; LANES], &[u8])) -> S {
    let mut chain: S = constant(2 * LANES as u64);
    let (rows, rest) = bytes.split_at(bytes.len() / ROW * ROW);
    let blocks = rest.chunks_exact(BLOCK);
    if !rows.is_empty() {
        let mut lanes: [S; LANES] = std::array::from_fn(|lane| constant(2 * lane as u64));
        add_rows(&mut lanes, rows);
        let [a, b, c, d, e, f, g, h] =
            lanes.map(|lane| lane.round(chain).round(chain).round(chain));
        let (low, high) = (a.plus(b).plus(c.plus(d)), e.plus(f).plus(g.plus(h)));
        chain = chain.plus(low.plus(high));
    }
    let is_whole = blocks.remainder().is_empty();
    for block in blocks {
        chain = chain.round(S::load(block.try_into().expect("a block")));
    }
    if !is_whole {
        // The last block overlaps the one before rather than be filled up, if there is one.
        let last = match bytes.last_chunk() {
            Some(last) => S::load(last),
            None => S::load(&filled(bytes)),
        };
        chain = chain.round(last);
    }
    chain
}

#[inline(always)]
fn finish<S: State>(mut chain: S, head: &[u64; HEAD_WORDS], len: usize) -> u64 {
    for words in head.chunks_exact(2) {
        chain = chain.round(S::of([words[0], words[1]]));
    }
    let len = S::of([len as u64, FACTOR]);
    chain.round(len).round(constant(0)).round(len).low()
}

#[inline(always)]
fn add_rows<S: State>(lanes: &mut [S; LANES], rows: &[u8]) {
    for row in rows.chunks_exact(ROW) {
        for (lane, block) in lanes.iter_mut().zip(row.chunks_exact(BLOCK)) {
            *lane = lane.round(S::load(block.try_into().expect("a block")));
        }
    }
}

#[inline(always)]
fn add_rows_copied<S: State>(
    lanes: &mut [S; LANES],
    rows: &[u8],
    copy: &mut impl FnMut(usize, &[u8]),
) {
    for (index, row) in rows.chunks_exact(ROW).enumerate() {
        copy(index * ROW, row);
        add_rows(lanes, row);
    }
}

/// A short payload as a block.
fn filled(bytes: &[u8]) -> Block {
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [u64; HEAD_WORDS] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

    fn bytes(len: usize) -> Vec<u8> {
        (0..len)
            .map(|index| (index * 31 + index / 256) as u8)
            .collect()
    }

    #[test]
    fn every_bit_the_length_and_the_head_count() {
        for len in [
            0, 1, 7, 15, 16, 17, 64, 65, 127, 128, 129, 255, 256, 300, 1000,
        ] {
            let mut bytes = bytes(len);
            let whole = sum(&HEAD, &bytes);
            for bit in 0..64 * HEAD_WORDS {
                let mut head = HEAD;
                head[bit / 64] ^= 1 << (bit % 64);
                assert_ne!(whole, sum(&head, &bytes), "head, bit {bit}, {len} bytes");
            }
            for bit in 0..8 * len {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(whole, sum(&HEAD, &bytes), "bit {bit} of {len} bytes");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            bytes.push(0);
            assert_ne!(whole, sum(&HEAD, &bytes), "a zero behind {len} bytes");
        }
    }

    /// Where bus, memory and card do damage: in the same bit of several words.
    #[test]
    fn two_flipped_bits_are_found_wherever_they_are() {
        let sent = bytes(400);
        let mut bytes = sent.clone();
        let mut seen = std::collections::HashSet::from([sum(&HEAD, &sent)]);
        for one in 0..sent.len() {
            for other in 0..one {
                let bit = (one * 3 + other) % 8;
                for mask in [1 << bit, 1 << ((bit + one) % 8)] {
                    bytes[one] ^= 1 << bit;
                    bytes[other] ^= mask;
                    seen.insert(sum(&HEAD, &bytes));
                    bytes[one] = sent[one];
                    bytes[other] = sent[other];
                }
            }
        }
        // Of all those no two are equal either, but for the pairs of which both masks are one.
        let pairs = sent.len() * (sent.len() - 1) / 2;
        let twice = (0..sent.len()).map(|one| if one % 8 == 0 { one } else { 0 });
        assert_eq!(seen.len(), 1 + 2 * pairs - twice.sum::<usize>());
    }

    #[test]
    fn blocks_that_change_places_or_are_lost_are_found() {
        let sent = bytes(2048);
        let whole = sum(&HEAD, &sent);
        for width in [4, 8, 16, 64, 128] {
            for one in 0..2048 / width {
                for other in (0..one).filter(|other| width > 4 || (one - other) % 7 == 0) {
                    let mut bytes = sent.clone();
                    let (low, high) = bytes.split_at_mut(width * one);
                    low[width * other..][..width].swap_with_slice(&mut high[..width]);
                    assert!(
                        bytes == sent || whole != sum(&HEAD, &bytes),
                        "{one} and {other} of {width} bytes"
                    );
                }
                let mut bytes = sent.clone();
                bytes[width * one..][..width].fill(0);
                assert_ne!(whole, sum(&HEAD, &bytes), "zeros at {one} of {width}");
                let mut bytes = sent.clone();
                bytes.drain(width * one..width * (one + 1));
                assert_ne!(whole, sum(&HEAD, &bytes), "lost {one} of {width}");
                bytes.extend_from_slice(&sent[..width]);
                assert_ne!(whole, sum(&HEAD, &bytes), "moved up {one} of {width}");
            }
        }
        for len in 0..2048 {
            assert_ne!(whole, sum(&HEAD, &sent[..len]), "the first {len}");
        }
        let zeros = [0; 600];
        let lens: std::collections::HashSet<u64> =
            (0..600).map(|len| sum(&HEAD, &zeros[..len])).collect();
        assert_eq!(lens.len(), 600, "only zeros");
    }

    /// Appendix B of FIPS 197: the first round, from its start to the next one's.
    #[test]
    fn a_round_is_that_of_the_standard() {
        let word = |text: &str| {
            let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
            let block: Block = std::array::from_fn(|index| byte(2 * index));
            <table::State as State>::load(&block)
        };
        let start = word("193de3bea0f4e22b9ac68d2ae9f84808");
        let key = word("a0fafe1788542cb123a339392a6c7605");
        let next = word("a49c7ff2689f352b6b5bea43026a5049");
        let round = start.round(key);
        assert_eq!(round.plus(next).low(), 0);
        assert_eq!(round.round(key).low(), next.round(key).low());
    }

    #[test]
    fn a_payload_that_is_copied_is_summed_the_same() {
        for len in (0..300).chain([1000, 1024, 4096, 8192, 65_411]) {
            let (bytes, mut copied) = (bytes(len), vec![0; len]);
            let mut end = 0;
            let part = while_copied(&bytes, |at, piece| {
                assert_eq!(at, end);
                end += piece.len();
                copied[at..end].copy_from_slice(piece);
            });
            assert_eq!(copied, bytes);
            assert_eq!(
                sum_of_part(&HEAD, &part, len),
                sum(&HEAD, &bytes),
                "{len} bytes"
            );
            assert_eq!(
                part,
                part_by::<table::State, _>(&bytes, |_, _| (), add_rows_copied),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn every_processor_gets_the_same_sum() {
        for len in (0..300).chain([1000, 4096, 8192, 65_411]) {
            let bytes = bytes(len);
            let plain = sum_by::<table::State>(&HEAD, &bytes, add_rows);
            assert_eq!(sum(&HEAD, &bytes), plain, "{len} bytes");
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("aes") {
                // SAFETY: this processor has the instruction.
                let narrow = unsafe { instruction::sum(&HEAD, &bytes) };
                assert_eq!(narrow, plain, "{len} bytes");
            }
        }
        // Written down: another sum is another version of the packet.
        assert_eq!(sum(&HEAD, b"what is sent"), 2659913687904262245);
    }
}
