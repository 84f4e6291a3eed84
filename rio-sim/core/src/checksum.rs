//! A checksum over bytes that a crash or a fault may have torn; no defence against malice.

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Four sums run beside each other, because one would wait for its own multiplication.
const LANES: usize = 4;

/// The length and a seed are part of the sum.
pub fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    let mut lanes: [u64; LANES] = core::array::from_fn(|lane| seed ^ FACTOR ^ lane as u64);
    let mut rows = bytes.chunks_exact(8 * LANES);
    for row in &mut rows {
        for (sum, word) in lanes.iter_mut().zip(row.chunks_exact(8)) {
            *sum = step(*sum, word);
        }
    }
    let words = rows.remainder().chunks(8);
    let sum = words.fold(step(seed, &bytes.len().to_le_bytes()), step);
    let sum = lanes
        .iter()
        .fold(sum, |sum, lane| step(sum, &lane.to_le_bytes()));
    sum | 1 // never 0, which is what an unwritten log holds
}

/// Two words made one, in which every bit of both counts.
#[inline(always)]
pub const fn mix(a: u64, b: u64) -> u64 {
    let product = (a ^ FACTOR) as u128 * (b ^ 0xe703_7ed1_a0b4_28db) as u128;
    product as u64 ^ (product >> 64) as u64
}

/// A word, or the last bytes of what is summed.
#[inline(always)]
fn step(sum: u64, bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    (sum ^ u64::from_le_bytes(word))
        .wrapping_mul(FACTOR)
        .rotate_left(29)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::checksum;
    use std::vec::Vec;

    #[test]
    fn every_byte_the_length_and_the_seed_count() {
        for len in [0, 1, 7, 8, 31, 32, 33, 100] {
            let bytes: Vec<u8> = (0..len).collect();
            let sum = checksum(1, &bytes);
            assert_ne!(sum, checksum(2, &bytes), "seed, {len} bytes");
            for index in 0..bytes.len() {
                let mut other = bytes.clone();
                other[index] ^= 1;
                assert_ne!(sum, checksum(1, &other), "byte {index} of {len}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_ne!(sum, checksum(1, &longer), "{len} bytes and a zero");
        }
    }
}
