//! The size classes of the heap: which block a request gets, and how many of them a span holds.

use crate::layout::SPAN;

/// Four steps to a doubling keep the waste under a quarter; above the last, whole spans are given.
const CLASSES: [u32; COUNT - 1] = [
    16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024,
    1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192, 10240, 12288, 14336,
    16384, 20480, 24576, 28672, 32768,
];
/// One past the last class; class 0 means "no class".
pub const COUNT: usize = 41;

/// The class for a request, 1-based, or none if it needs whole spans.
#[inline]
pub fn class_for(size: usize) -> Option<usize> {
    if size <= 128 {
        return Some(size.saturating_sub(1) / 16 + 1);
    }
    if size > 32768 {
        return None;
    }
    // Four classes to each power of two: the two bits below the top one choose among them.
    let log = (size - 1).ilog2() as usize;
    Some(8 + (log - 7) * 4 + ((size - 1) >> (log - 2) & 3) + 1)
}

/// The bytes of a block of this class; 0 for a class that does not exist.
#[inline]
pub fn block_len(class: usize) -> usize {
    match class {
        1..COUNT => CLASSES[class - 1] as usize,
        _ => 0,
    }
}

/// The bytes that a request of this size is given.
#[inline]
pub fn len_given(size: usize) -> usize {
    match class_for(size) {
        Some(class) => block_len(class),
        None => size.next_multiple_of(SPAN),
    }
}

#[inline]
pub fn blocks_in_span(class: usize) -> usize {
    match class {
        1..COUNT => BLOCKS[class - 1] as usize,
        _ => 0,
    }
}

/// Which block of a span of this class begins at this byte of it; none if no block does.
#[inline]
pub fn block_at(class: usize, inside: usize) -> Option<usize> {
    let (len, per_len) = match class {
        1..COUNT if inside < SPAN => (CLASSES[class - 1] as usize, PER_LEN[class - 1]),
        _ => return None,
    };
    // Divides, without a division: both factors are so small that the error is below one part.
    let block = ((inside as u64 * per_len) >> 32) as usize;
    (block * len == inside && block < blocks_in_span(class)).then_some(block)
}

const BLOCKS: [u32; COUNT - 1] = {
    let mut blocks = [0; COUNT - 1];
    let mut index = 0;
    while index < COUNT - 1 {
        blocks[index] = SPAN as u32 / CLASSES[index];
        index += 1;
    }
    blocks
};

/// 2^32 by the length, rounded up.
const PER_LEN: [u64; COUNT - 1] = {
    let mut parts = [0; COUNT - 1];
    let mut index = 0;
    while index < COUNT - 1 {
        parts[index] = (1 << 32) / CLASSES[index] as u64 + 1;
        index += 1;
    }
    parts
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_begins_at_each_multiple_of_its_length_and_nowhere_else() {
        for class in 0..=COUNT {
            let len = block_len(class);
            for inside in 0..SPAN + 100 {
                let block = (len > 0 && inside % len == 0).then(|| inside / len);
                let block = block.filter(|&block| (block + 1) * len <= SPAN);
                assert_eq!(block_at(class, inside), block, "{inside} in class {class}");
            }
        }
    }

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for size in 0..=32768 {
            let class = class_for(size).unwrap();
            assert!(block_len(class) >= size, "{size} in class {class}");
            assert_eq!(len_given(size), block_len(class));
            assert!(
                class == 1 || block_len(class - 1) < size,
                "{size} in class {class}"
            );
        }
        assert_eq!(class_for(32769), None);
        assert_eq!(
            [32769, SPAN, SPAN + 1].map(len_given),
            [SPAN, SPAN, 2 * SPAN]
        );
        assert_eq!(block_len(0), 0);
        assert_eq!(block_len(COUNT), 0);
    }
}
