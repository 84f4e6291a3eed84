//! The sum for a processor without the instruction, some 50 times slower: each byte chooses a
//! column, which is its S-box and its part of MixColumns.

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
