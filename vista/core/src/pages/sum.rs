//! Sums of frames: what tells a damaged frame, and one that belongs elsewhere.
//!
//! The sum of 4096 bytes is taken at each copy of a page, so it must be next to nothing. A
//! round of AES mixes 16 bytes in an instruction, takes in 32 (one block before it, one
//! behind), and one lane need not wait for another: 30 ns a page in the caches, where the
//! copy takes 20 to 90. Every change of one block of 16 bytes is found, because a round is a
//! permutation; others with all but certainty. It is no defence against malice.
//!
//! ```text
//! entry, first word    sum, upper 29 bits | number of the page, 35 bits
//!        second word   sum, lower 16 bits | number of the commit, 48 bits
//! ```
//!
//! Page, commit and the image's own number are part of the sum, so a frame or an entry that
//! was moved, exchanged, or taken from another image does not fit.
#![allow(unsafe_code)] // The instruction has to be asked for.

use super::PAGE;
use core::arch::x86_64::*;
use rio_core::mix;

const PAGE_BITS: u32 = 35;
const SEQ_BITS: u32 = 48;
/// Independent sums, each of every eighth pair of blocks.
pub const LANES: usize = 8;

/// What an entry of the table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Address of the page.
    pub page: usize,
    /// Commit that wrote it; 0 is none.
    pub seq: u64,
    pub sum: u64,
}

impl Entry {
    #[inline(always)]
    pub fn of([page, seq]: [u64; 2]) -> Entry {
        Entry {
            page: (page & ((1 << PAGE_BITS) - 1)) as usize * PAGE,
            seq: Entry::seq_of(seq),
            sum: page >> PAGE_BITS << 16 | seq >> SEQ_BITS,
        }
    }

    /// The commit that its second word names.
    #[inline(always)]
    pub fn seq_of(word: u64) -> u64 {
        word & ((1 << SEQ_BITS) - 1)
    }
}

/// What an entry adds to the sum of a table.
#[inline(always)]
pub fn of_words([page, seq]: [u64; 2]) -> u64 {
    mix(page, seq)
}

/// Takes sums, for one image.
#[derive(Clone, Copy)]
pub struct Sums {
    seed: u64,
    /// The processor has the instruction.
    quick: bool,
}

impl Sums {
    pub const fn closed() -> Sums {
        Sums {
            seed: 0,
            quick: false,
        }
    }

    pub fn new(seed: u64) -> Sums {
        const AES: u32 = 1 << 25;
        Sums {
            seed,
            quick: __cpuid(1).ecx & AES != 0,
        }
    }

    /// Whether [`Sums::content`] is cheap, and may be taken by the instruction elsewhere.
    pub fn is_quick(&self) -> bool {
        self.quick
    }

    /// The words of the entry of a frame with this content.
    #[inline(always)]
    pub fn entry(&self, content: u64, page: usize, seq: u64) -> [u64; 2] {
        let number = (page / PAGE) as u64;
        let sum = mix(content ^ self.seed, mix(number, seq));
        [
            sum >> (64 - 29) << PAGE_BITS | number,
            sum << SEQ_BITS | Entry::seq_of(seq),
        ]
    }

    /// The sum of a page whose lanes somebody else has taken, by the instruction, from
    /// [`BEGIN`] on.
    #[inline]
    pub fn of_lanes(&self, lanes: &[[u64; 2]; LANES]) -> u64 {
        debug_assert!(self.quick);
        // SAFETY: the processor has the instruction, or nobody could have used it.
        unsafe { finish_by_instruction(lanes.map(lane)) }
    }

    /// The sum of what a frame holds.
    #[inline(always)]
    pub fn content(&self, page: &Frame) -> u64 {
        if self.quick {
            // SAFETY: the processor has the instruction, which is all that is asked.
            unsafe { by_instruction(page) }
        } else {
            by_table(page)
        }
    }
}

/// The bytes of a frame.
#[derive(Clone)]
#[repr(C, align(16))]
pub struct Frame(pub [u8; PAGE]);

impl Frame {
    /// Frames that follow one another, to be read from a file.
    pub fn bytes_of(frames: &mut [Frame]) -> &mut [u8] {
        let len = size_of_val(frames);
        // SAFETY: a frame is its bytes and nothing else.
        unsafe { core::slice::from_raw_parts_mut(frames.as_mut_ptr().cast(), len) }
    }
}

/// What the lanes begin with: for a sum that is taken with a copy, see [`of_lanes`].
pub const BEGIN: [[u64; 2]; LANES] = {
    let mut lanes = [[0; 2]; LANES];
    let mut i = 0;
    while i < LANES {
        lanes[i] = [mix(i as u64, 1), mix(i as u64, 2)];
        i += 1;
    }
    lanes
};

/// # Safety
/// The processor has AES.
#[target_feature(enable = "aes")]
fn by_instruction(page: &Frame) -> u64 {
    let mut lanes = BEGIN.map(lane);
    let blocks = page.0.as_ptr().cast::<__m128i>();
    for row in (0..PAGE / 16).step_by(2 * LANES) {
        for (nth, lane) in lanes.iter_mut().enumerate() {
            // SAFETY: both blocks lie in the page, which is aligned for them.
            let [before, behind] =
                [0, 1].map(|i| unsafe { _mm_load_si128(blocks.add(row + 2 * nth + i)) });
            *lane = _mm_aesenc_si128(_mm_xor_si128(*lane, before), behind);
        }
    }
    finish_by_instruction(lanes)
}

/// # Safety
/// The processor has AES.
#[target_feature(enable = "aes")]
fn finish_by_instruction(lanes: [__m128i; LANES]) -> u64 {
    let mut sum = lanes[0];
    for lane in &lanes[1..] {
        sum = _mm_aesenc_si128(sum, *lane);
    }
    for _ in 0..3 {
        sum = _mm_aesenc_si128(sum, lanes[0]);
    }
    _mm_cvtsi128_si64(sum) as u64
}

fn lane([low, high]: [u64; 2]) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_set_epi64x(high as i64, low as i64) }
}

fn block_of(low: u64, high: u64) -> [u8; 16] {
    let mut block = [0; 16];
    block[..8].copy_from_slice(&low.to_le_bytes());
    block[8..].copy_from_slice(&high.to_le_bytes());
    block
}

/// The same by tables, for a processor that has no such instruction: 30 times slower.
#[cold]
fn by_table(page: &Frame) -> u64 {
    let mut lanes = BEGIN.map(|[low, high]| block_of(low, high));
    for row in page.0.chunks_exact(32 * LANES) {
        for (lane, pair) in lanes.iter_mut().zip(row.chunks_exact(32)) {
            let (before, behind) = pair.split_at(16);
            lane.iter_mut().zip(before).for_each(|(a, b)| *a ^= b);
            *lane = round(lane, behind);
        }
    }
    finish(&lanes)
}

fn finish(lanes: &[[u8; 16]; LANES]) -> u64 {
    let mut sum = lanes[0];
    for lane in &lanes[1..] {
        sum = round(&sum, lane);
    }
    for _ in 0..3 {
        sum = round(&sum, &lanes[0]);
    }
    let mut word = [0; 8];
    word.copy_from_slice(&sum[..8]);
    u64::from_le_bytes(word)
}

/// A round of AES (FIPS 197): ShiftRows, SubBytes, MixColumns, and the block added.
fn round(state: &[u8; 16], block: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    for column in 0..4 {
        let s: [u8; 4] =
            core::array::from_fn(|row| SUBSTITUTE[state[(column + row) % 4 * 4 + row] as usize]);
        let all = s[0] ^ s[1] ^ s[2] ^ s[3];
        for row in 0..4 {
            let at = column * 4 + row;
            out[at] = s[row] ^ all ^ twice(s[row] ^ s[(row + 1) % 4]) ^ block[at];
        }
    }
    out
}

/// Multiplied by x in the field of AES.
const fn twice(a: u8) -> u8 {
    a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 }
}

/// The S-box: of every byte the inverse in the field, turned and added up.
const SUBSTITUTE: [u8; 256] = {
    let mut table = [0; 256];
    // `p` runs through all of the field by threes, `q` through the inverses.
    let (mut p, mut q) = (1u8, 1u8);
    loop {
        p ^= twice(p);
        q ^= q << 1;
        q ^= q << 2;
        q ^= q << 4;
        if q & 0x80 != 0 {
            q ^= 0x09;
        }
        let turned = q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4);
        table[p as usize] = q ^ turned ^ 0x63;
        if p == 1 {
            break;
        }
    }
    table[0] = 0x63;
    table
};

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::boxed::Box;

    fn page(seed: u64) -> Box<Frame> {
        let mut page = Box::new(Frame([0; PAGE]));
        for (nth, word) in page.0.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&mix(seed, nth as u64).to_le_bytes());
        }
        page
    }

    fn sums(quick: bool) -> Sums {
        Sums {
            quick,
            ..Sums::new(7)
        }
    }

    #[test]
    fn instruction_and_table_agree() {
        if !Sums::new(0).is_quick() {
            return;
        }
        for seed in 0..20 {
            let page = page(seed);
            let (by_instruction, by_table) =
                (sums(true).content(&page), sums(false).content(&page));
            assert_eq!(by_instruction, by_table);
        }
    }

    #[test]
    fn every_bit_of_a_page_counts() {
        let sums = Sums::new(7);
        let mut page = page(1);
        let whole = sums.content(&page);
        for bit in 0..PAGE * 8 {
            page.0[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(sums.content(&page), whole, "bit {bit}");
            page.0[bit / 8] ^= 1 << (bit % 8);
        }
        for at in (0..PAGE - 512).step_by(512) {
            page.0.copy_within(at + 512..at + 1024, at);
            assert_ne!(sums.content(&page), whole, "the sector at {at}");
            page = self::page(1);
        }
    }

    #[test]
    fn page_commit_and_image_are_part_of_it() {
        let sums = Sums::new(7);
        let words = sums.entry(99, 0x7fff_f7fd_0000, 1 << 40);
        let entry = Entry::of(words);
        assert_eq!((entry.page, entry.seq), (0x7fff_f7fd_0000, 1 << 40));
        let sum_of = |sums: &Sums, page, seq| Entry::of(sums.entry(99, page, seq)).sum;
        assert_eq!(entry.sum, sum_of(&sums, 0x7fff_f7fd_0000, 1 << 40));
        assert_ne!(entry.sum, sum_of(&sums, 0x7fff_f7fd_1000, 1 << 40));
        assert_ne!(entry.sum, sum_of(&sums, 0x7fff_f7fd_0000, (1 << 40) + 1));
        assert_ne!(entry.sum, sum_of(&Sums::new(8), 0x7fff_f7fd_0000, 1 << 40));
    }
}
