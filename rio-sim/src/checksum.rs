//! A checksum over bytes that a crash or a fault may have torn; no defence against malice.

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Eight bytes a step; the length and a seed are part of the sum.
pub fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let mut words = bytes.chunks_exact(8);
    let mut sum = step(seed ^ FACTOR, bytes.len() as u64);
    for word in &mut words {
        sum = step(
            sum,
            u64::from_le_bytes(word.try_into().expect("chunks of 8")),
        );
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    step(sum, u64::from_le_bytes(last)) | 1 // never 0, which is what an unwritten log holds
}
