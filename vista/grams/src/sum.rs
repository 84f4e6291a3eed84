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

#[cfg(target_arch = "x86_64")]
mod instruction {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::slice;

    use super::{
        Block, HEAD_WORDS, LANES, Part, ROW, State as _, add_rows, add_rows_copied, finish,
        part_by, sum_by,
    };

    /// # Safety
    /// The processor has AES-NI.
    #[target_feature(enable = "aes")]
    pub unsafe fn sum(head: &[u64; HEAD_WORDS], bytes: &[u8]) -> u64 {
        sum_by::<State>(head, bytes, add_rows)
    }

    /// # Safety
    /// The processor has AES-NI.
    #[target_feature(enable = "aes")]
    pub unsafe fn part(bytes: &[u8], copy: impl FnMut(usize, &[u8])) -> Part {
        part_by::<State, _>(bytes, copy, add_rows_copied)
    }

    /// # Safety
    /// The processor has AES-NI, VAES and AVX2.
    #[target_feature(enable = "aes,avx2")]
    pub unsafe fn wide_part<C: FnMut(usize, &[u8])>(bytes: &[u8], copy: C) -> Part {
        // SAFETY: as the caller says.
        part_by::<State, C>(bytes, copy, |lanes, rows, copy| unsafe {
            add_wide(lanes, rows, copy)
        })
    }

    /// # Safety
    /// The processor has AES-NI.
    #[target_feature(enable = "aes")]
    pub unsafe fn sum_of_part(head: &[u64; HEAD_WORDS], part: &Part, len: usize) -> u64 {
        finish(State::of(part.0), head, len)
    }

    /// # Safety
    /// The processor has AES-NI, VAES and AVX2.
    #[target_feature(enable = "aes,avx2")]
    pub unsafe fn wide_sum(head: &[u64; HEAD_WORDS], bytes: &[u8]) -> u64 {
        // SAFETY: as the caller says.
        sum_by::<State>(head, bytes, |lanes, rows| unsafe {
            add_wide(lanes, rows, &mut |_, _| ())
        })
    }

    /// The lines of `add_rows_copied`, with a vector for two lanes.
    ///
    /// # Safety
    /// The processor has VAES and AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn add_wide(
        lanes: &mut [State; LANES],
        rows: &[u8],
        copy: &mut impl FnMut(usize, &[u8]),
    ) {
        // SAFETY: eight lanes are four vectors of 32 bytes, and so is a row; none need be aligned.
        unsafe {
            let places = lanes.as_mut_ptr().cast::<__m256i>();
            let mut pairs: [__m256i; LANES / 2] =
                std::array::from_fn(|pair| _mm256_loadu_si256(places.add(pair)));
            for (index, row) in rows.chunks_exact(ROW).enumerate() {
                let blocks = row.as_ptr().cast::<__m256i>();
                let row: [__m256i; LANES / 2] =
                    std::array::from_fn(|pair| _mm256_loadu_si256(blocks.add(pair)));
                copy(index * ROW, slice::from_raw_parts(row.as_ptr().cast(), ROW));
                for (pair, blocks) in pairs.iter_mut().zip(row) {
                    *pair = wide_round(*pair, blocks);
                }
            }
            for (index, pair) in pairs.into_iter().enumerate() {
                _mm256_storeu_si256(places.add(index), pair);
            }
        }
    }

    /// A round in each half. Written out, because the function for it is younger than the oldest
    /// compiler that this is built with.
    ///
    /// # Safety
    /// The processor has VAES.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn wide_round(mut pair: __m256i, blocks: __m256i) -> __m256i {
        // SAFETY: the instruction touches no memory.
        unsafe {
            asm!(
                "vaesenc {pair}, {pair}, {blocks}",
                pair = inout(ymm_reg) pair,
                blocks = in(ymm_reg) blocks,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        pair
    }

    /// Only made in the sums. A lane is 16 bytes, so that two of them are a vector.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    struct State(__m128i);

    impl super::State for State {
        #[inline(always)]
        fn of(words: [u64; 2]) -> State {
            // SAFETY: SSE2 is part of x86-64.
            State(unsafe { _mm_set_epi64x(words[1] as i64, words[0] as i64) })
        }

        #[inline(always)]
        fn load(block: &Block) -> State {
            // SAFETY: SSE2, as above; 16 bytes, aligned or not.
            State(unsafe { _mm_loadu_si128(block.as_ptr().cast()) })
        }

        #[inline(always)]
        fn round(self, block: State) -> State {
            // SAFETY: the caller of `sum` knows that the processor has the instruction.
            State(unsafe { _mm_aesenc_si128(self.0, block.0) })
        }

        #[inline(always)]
        fn plus(self, other: State) -> State {
            // SAFETY: SSE2, as above.
            State(unsafe { _mm_xor_si128(self.0, other.0) })
        }

        #[inline(always)]
        fn low(self) -> u64 {
            // SAFETY: SSE2, as above.
            unsafe { _mm_cvtsi128_si64(self.0) as u64 }
        }

        #[inline(always)]
        fn words(self) -> [u64; 2] {
            let mut words = [0; 2];
            // SAFETY: SSE2, as above; two words are 16 bytes, aligned or not.
            unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), self.0) }
            words
        }
    }
}

/// The same for a processor without the instruction, some 50 times slower: each byte chooses a
/// column, which is its S-box and its part of MixColumns.
mod table {
    use super::{BLOCK, Block};

    /// The four columns.
    #[derive(Clone, Copy)]
    pub struct State([u32; 4]);

    impl super::State for State {
        fn of(words: [u64; 2]) -> State {
            let mut block = [0; BLOCK];
            block[..8].copy_from_slice(&words[0].to_le_bytes());
            block[8..].copy_from_slice(&words[1].to_le_bytes());
            State::load(&block)
        }

        fn load(block: &Block) -> State {
            State(std::array::from_fn(|column| {
                u32::from_le_bytes(block[4 * column..][..4].try_into().expect("4"))
            }))
        }

        fn round(self, block: State) -> State {
            State(std::array::from_fn(|column| {
                let rows = (0..4).map(|row| {
                    let byte = self.0[(column + row) % 4].to_le_bytes()[row];
                    COLUMNS[byte as usize].rotate_left(8 * row as u32)
                });
                rows.fold(block.0[column], |sum, part| sum ^ part)
            }))
        }

        fn plus(self, other: State) -> State {
            State(std::array::from_fn(|column| {
                self.0[column] ^ other.0[column]
            }))
        }

        fn low(self) -> u64 {
            u64::from(self.0[0]) | u64::from(self.0[1]) << 32
        }

        fn words(self) -> [u64; 2] {
            [0, 2].map(|at| u64::from(self.0[at]) | u64::from(self.0[at + 1]) << 32)
        }
    }

    /// What the first byte of a column becomes: twice, once, once, three times its S-box.
    static COLUMNS: [u32; 256] = {
        let mut columns = [0; 256];
        let (mut power, mut inverse) = (1u8, 1u8);
        loop {
            columns[power as usize] = column(inverse);
            // 3 generates all bytes but 0, and 0xf6 is one third.
            power ^= doubled(power);
            inverse = third(inverse);
            if power == 1 {
                break;
            }
        }
        columns[0] = column(0);
        columns
    };

    const fn column(inverse: u8) -> u32 {
        let mut boxed = inverse ^ 0x63;
        let mut turns = 1;
        while turns <= 4 {
            boxed ^= inverse.rotate_left(turns);
            turns += 1;
        }
        u32::from_le_bytes([doubled(boxed), boxed, boxed, doubled(boxed) ^ boxed])
    }

    /// By the polynomial x^8 + x^4 + x^3 + x + 1.
    const fn doubled(byte: u8) -> u8 {
        byte << 1 ^ if byte >> 7 != 0 { 0x1b } else { 0 }
    }

    /// The byte of which this one is three times.
    const fn third(byte: u8) -> u8 {
        let byte = byte ^ byte << 1;
        let byte = byte ^ byte << 2;
        let byte = byte ^ byte << 4;
        byte ^ if byte >> 7 != 0 { 0x09 } else { 0 }
    }
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
