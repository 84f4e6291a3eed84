//! The sum by the processor's own rounds: AES-NI, and VAES for two lanes at once.

use std::arch::asm;
use std::arch::x86_64::*;
use std::slice;

use super::{
    Block, HEAD_WORDS, LANES, Part, ROW, State as _, add_rows, add_rows_copied, finish, part_by,
    sum_by,
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
unsafe fn add_wide(lanes: &mut [State; LANES], rows: &[u8], copy: &mut impl FnMut(usize, &[u8])) {
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
