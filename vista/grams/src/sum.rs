//! The checksum of a packet: finds damage, and costs little beside copying the bytes once.
//!
//! Each 64-bit word is added to its lane, and so is the product of its two halves under a key that
//! is another one for each place (the sum NH of UMAC, Black et al. 1999, as XXH3 uses it). The
//! plain addition makes that a change of one word changes its lane; the products, that words which
//! change places or change together do. Eight lanes that do not wait for each other are what vector
//! units take: the same lines are compiled for the widest that this processor has, and give the
//! same sum everywhere.

/// Words beside each other.
const LANES: usize = 8;
/// The bytes of a row of words. What is not a row is summed with zeros behind it.
pub const ROW: usize = 8 * LANES;
/// The golden ratio, as for any multiplicative hash; odd, so multiplying loses nothing.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// From a row's keys to the next one's.
const KEY_STEP: u64 = FACTOR << 4 | 1;

type Lanes = [u64; LANES];

/// The sum of a head and of what follows it.
#[inline]
pub fn sum(head: &[u8], bytes: &[u8]) -> u64 {
    let mut sums = Sums::new();
    sums.add(head, add_rows);
    if bytes.len() < 4 * ROW {
        sums.add(bytes, add_rows);
    } else {
        sums.add(bytes, widest());
    }
    // The length tells apart what only zeros at the end distinguish.
    sums.joined(bytes.len() as u64)
}

type AddRows = fn(&mut Sums, &[u8]);

/// The vectors are 256 bits long, not 512: those would make each switch between programs save and
/// restore more than a message is long.
fn widest() -> AddRows {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: this processor has AVX2.
        return |sums, rows| unsafe { avx2::add_rows(sums, rows) };
    }
    add_rows
}

#[inline(always)]
fn add_rows(sums: &mut Sums, rows: &[u8]) {
    for row in rows.chunks_exact(ROW) {
        sums.add_row(row.try_into().expect("a row"));
    }
}

/// The lines of [`Sums::add_row`], a vector for four lanes. Written out, because the compiler makes
/// vectors of rows instead of lanes.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{KEY_STEP, ROW, Sums};

    /// # Safety
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub unsafe fn add_rows(sums: &mut Sums, rows: &[u8]) {
        // SAFETY: each half of `keys`, `words` and `products` is four words, read and written as
        // one unaligned vector; of a row, which is 64 bytes, each half is one as well.
        unsafe {
            for half in 0..2 {
                let lanes = |sums: &mut [u64; 8]| sums[4 * half..].as_mut_ptr().cast::<__m256i>();
                let (keys, words, products) = (
                    lanes(&mut sums.keys),
                    lanes(&mut sums.words),
                    lanes(&mut sums.products),
                );
                let mut key = _mm256_loadu_si256(keys);
                let mut word_sum = _mm256_loadu_si256(words);
                let mut product_sum = _mm256_loadu_si256(products);
                let step = _mm256_set1_epi64x(KEY_STEP as i64);
                for row in rows.chunks_exact(ROW) {
                    let word = _mm256_loadu_si256(row[32 * half..].as_ptr().cast());
                    let keyed = _mm256_xor_si256(word, key);
                    let product = _mm256_mul_epu32(keyed, _mm256_srli_epi64::<32>(keyed));
                    word_sum = _mm256_add_epi64(word_sum, word);
                    product_sum = _mm256_add_epi64(product_sum, product);
                    key = _mm256_add_epi64(key, step);
                }
                _mm256_storeu_si256(keys, key);
                _mm256_storeu_si256(words, word_sum);
                _mm256_storeu_si256(products, product_sum);
            }
        }
    }
}

struct Sums {
    keys: Lanes,
    words: Lanes,
    products: Lanes,
}

impl Sums {
    #[inline(always)]
    fn new() -> Sums {
        Sums {
            keys: std::array::from_fn(|lane| FACTOR.wrapping_mul(lane as u64 + 1)),
            words: [0; LANES],
            products: [0; LANES],
        }
    }

    #[inline(always)]
    fn add(&mut self, bytes: &[u8], add_rows: impl Fn(&mut Sums, &[u8])) {
        let (rows, rest) = bytes.split_at(bytes.len() / ROW * ROW);
        add_rows(self, rows);
        if !rest.is_empty() {
            let mut row = [0; ROW];
            row[..rest.len()].copy_from_slice(rest);
            self.add_row(&row);
        }
    }

    #[inline(always)]
    fn add_row(&mut self, row: &[u8; ROW]) {
        for lane in 0..LANES {
            let at = 8 * lane;
            let word = u64::from_le_bytes(row[at..at + 8].try_into().expect("8"));
            let keyed = word ^ self.keys[lane];
            let product = (keyed & 0xffff_ffff) * (keyed >> 32);
            self.words[lane] = self.words[lane].wrapping_add(word);
            self.products[lane] = self.products[lane].wrapping_add(product);
            self.keys[lane] = self.keys[lane].wrapping_add(KEY_STEP);
        }
    }

    /// In pairs, so that few wait for each other.
    #[inline(always)]
    fn joined(&self, len: u64) -> u64 {
        let lanes: Lanes =
            std::array::from_fn(|lane| joined(self.words[lane], self.products[lane]));
        let pairs = |lane: usize| joined(lanes[lane], lanes[lane + 1]);
        let (low, high) = (joined(pairs(0), pairs(2)), joined(pairs(4), pairs(6)));
        joined(joined(low, high), len)
    }
}

/// Of either word, another one gives another result.
#[inline(always)]
fn joined(one: u64, other: u64) -> u64 {
    let word = (one.rotate_left(32) ^ other).wrapping_mul(FACTOR);
    word ^ word >> 29
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len)
            .map(|index| (index * 31 + index / 256) as u8)
            .collect()
    }

    #[test]
    fn every_bit_the_length_and_the_head_count() {
        for len in [0, 1, 7, 8, 63, 64, 65, 255, 256, 300, 1000] {
            let mut bytes = bytes(len);
            let whole = sum(b"head", &bytes);
            assert_ne!(whole, sum(b"heap", &bytes), "head, {len} bytes");
            for index in 0..len {
                for bit in 0..8 {
                    bytes[index] ^= 1 << bit;
                    let other = sum(b"head", &bytes);
                    assert_ne!(whole, other, "byte {index} bit {bit} of {len}");
                    bytes[index] ^= 1 << bit;
                }
            }
            bytes.push(0);
            assert_ne!(whole, sum(b"head", &bytes), "a zero behind {len} bytes");
        }
    }

    #[test]
    fn words_that_change_places_are_found() {
        let sent = bytes(2048);
        let whole = sum(b"head", &sent);
        for one in 0..2048 / 8 {
            for other in 0..one {
                let mut bytes = sent.clone();
                for index in 0..8 {
                    bytes.swap(8 * one + index, 8 * other + index);
                }
                let other_sum = sum(b"head", &bytes);
                assert!(
                    bytes == sent || whole != other_sum,
                    "words {one} and {other}"
                );
            }
        }
        for lost in (0..2048).step_by(ROW) {
            let mut bytes = sent.clone();
            bytes[lost..lost + ROW].fill(0);
            assert_ne!(whole, sum(b"head", &bytes), "row at {lost}");
        }
    }

    #[test]
    fn every_processor_gets_the_same_sum() {
        for len in [0, 64, 256, 300, 1000, 4096, 8192, 65_411] {
            let bytes = bytes(len);
            let by = |add_rows: AddRows| {
                let mut sums = Sums::new();
                sums.add(b"head", add_rows);
                sums.add(&bytes, add_rows);
                sums.joined(len as u64)
            };
            let plain = by(add_rows);
            assert_eq!(by(widest()), plain, "{len} bytes");
            assert_eq!(sum(b"head", &bytes), plain, "{len} bytes");
        }
        // Written down: another sum is another version of the packet.
        assert_eq!(sum(b"head", b"what is sent"), 3850091356631433674);
    }
}
