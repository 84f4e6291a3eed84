//! What a commit has of a terminal that the run has made: what was printed and its master has
//! not read, and how what was typed and is not read came to be there.
//!
//! ```text
//! place of a commit    printed bytes | steps        (place: see crate::shared::Shared)
//! first place, TYPED_OFFSET ..      steps, as the kernel has them now
//! ```
//!
//! What was printed is kept as it is. What was typed lies in the kernel as lines, some of them
//! unfinished, and cannot be looked at; so the steps that led there are kept, from the last
//! moment on in which nothing was there. Made again on a new terminal, they lead there again.

use crate::run::CONTENTS_LEN;

/// Where the steps lie in the first place of an entry, and how much room they have.
pub const TYPED_OFFSET: usize = CONTENTS_LEN - TYPED_LEN;
pub const TYPED_LEN: usize = 64 << 10;
/// More than the kernel holds of what was printed (20 KiB were measured).
pub const PRINTED_LEN: usize = 96 << 10;
const _: () = assert!(PRINTED_LEN + TYPED_LEN <= TYPED_OFFSET);

/// Bits of [`crate::run::Shared::is_foreign`] of a terminal: some process has had it open as a
/// terminal, not only as its master; what was typed could not be kept; it was typed since the
/// last commit.
pub const OPENED: u32 = 2;
pub const UNKEPT: u32 = 4;
pub const FRESH: u32 = 8;

/// As a value of [`crate::run::Shared`]: how much there is in all in the low half, as with
/// pipes; how much of it was printed, and flags, above.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Inside {
    pub printed: usize,
    pub steps: usize,
    pub opened: bool,
    /// Printing waits, for ^S was typed.
    pub is_stopped: bool,
    /// Something that lay there could not be kept.
    pub is_lost: bool,
}

impl Inside {
    /// How many bytes of the place it takes.
    pub fn len(self) -> usize {
        self.printed + self.steps
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub fn value(self) -> u64 {
        let flags = [self.opened, self.is_stopped, self.is_lost];
        let flags = (0..3).map(|i| u64::from(flags[i]) << (56 + i)).sum::<u64>();
        self.len() as u64 | (self.printed as u64) << 32 | flags
    }

    pub fn from_value(value: u64) -> Inside {
        let printed = (value >> 32) as usize & 0xff_ffff;
        Inside {
            printed,
            steps: (value as u32 as usize).saturating_sub(printed),
            opened: value >> 56 & 1 != 0,
            is_stopped: value >> 57 & 1 != 0,
            is_lost: value >> 58 & 1 != 0,
        }
    }
}

/// What a commit has taken out of a terminal and not yet put back ([`crate::run::Shared`]'s
/// `address`): 0 is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moving {
    /// Bytes that were taken, and lie in the place of the commit to come.
    pub taken: usize,
    /// Bytes of them that are back.
    pub put: usize,
    /// All of them are out; else only some.
    pub all_taken: bool,
    /// Printing waited, for ^S was typed.
    pub is_stopped: bool,
}

impl Moving {
    pub fn value(self) -> u64 {
        let flags = 1 << 63 | u64::from(self.all_taken) << 62 | u64::from(self.is_stopped) << 61;
        flags | (self.put as u64) << 24 | self.taken as u64
    }

    pub fn from_value(value: u64) -> Option<Moving> {
        (value >> 63 != 0).then_some(Moving {
            taken: value as usize & 0xff_ffff,
            put: (value >> 24) as usize & 0xff_ffff,
            all_taken: value >> 62 & 1 != 0,
            is_stopped: value >> 61 & 1 != 0,
        })
    }
}

/// What has led to what lies in a terminal's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// Its settings became these (`struct termios2`).
    Set(&'a [u8]),
    /// Its master wrote these bytes.
    Typed(&'a [u8]),
    /// So many bytes were read from it, by one call.
    Read(usize),
    /// tcflush(3) with this argument.
    Flushed(usize),
}

/// Bytes before those of a step: its kind and its length, u32.
pub const STEP_HEAD: usize = 4;
const MOST: usize = (1 << 24) - 1;

/// The head of a step, and the bytes behind it.
pub fn step_head(step: &Step) -> [u8; STEP_HEAD] {
    let (kind, n) = match step {
        Step::Set(bytes) => (1, bytes.len()),
        Step::Typed(bytes) => (2, bytes.len()),
        Step::Read(n) => (3, *n),
        Step::Flushed(what) => (4, *what),
    };
    ((kind << 24) | n.min(MOST) as u32).to_le_bytes()
}

/// The head of [`Step::Typed`] of so many bytes.
pub fn typed_head(len: usize) -> [u8; STEP_HEAD] {
    ((2 << 24) | len.min(MOST) as u32).to_le_bytes()
}

/// The steps that were kept; it ends at what is none.
pub fn steps(bytes: &[u8]) -> impl Iterator<Item = Step<'_>> {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        let (head, behind) = rest.split_first_chunk::<STEP_HEAD>()?;
        let head = u32::from_le_bytes(*head);
        let n = head as usize & MOST;
        let mut take = |n: usize| {
            rest = behind.get(n..)?;
            behind.get(..n)
        };
        match head >> 24 {
            1 => Some(Step::Set(take(n)?)),
            2 => Some(Step::Typed(take(n)?)),
            3 => take(0).map(|_| Step::Read(n)),
            4 => take(0).map(|_| Step::Flushed(n)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    #[test]
    fn it_is_read_as_it_was_written() {
        for flags in 0..8 {
            let inside = Inside {
                printed: PRINTED_LEN,
                steps: TYPED_LEN,
                opened: flags & 1 != 0,
                is_stopped: flags & 2 != 0,
                is_lost: flags & 4 != 0,
            };
            assert_eq!(Inside::from_value(inside.value()), inside);
            assert_eq!(
                inside.value() as u32 as usize,
                inside.len(),
                "as pipes have it"
            );
        }
    }

    #[test]
    fn what_moves_is_read_as_it_was_written() {
        assert_eq!(Moving::from_value(0), None);
        for flags in 0..4 {
            let moving = Moving {
                taken: PRINTED_LEN,
                put: PRINTED_LEN - 1,
                all_taken: flags & 1 != 0,
                is_stopped: flags & 2 != 0,
            };
            assert_eq!(Moving::from_value(moving.value()), Some(moving));
        }
    }

    #[test]
    fn steps_come_again_in_their_order() {
        let all = [
            Step::Set(&[7; 44]),
            Step::Typed(b"ls\n"),
            Step::Typed(b""),
            Step::Read(3),
            Step::Read(0),
            Step::Flushed(2),
            Step::Typed(b"unfin"),
        ];
        let mut bytes = Vec::new();
        for step in &all {
            bytes.extend(step_head(step));
            if let Step::Set(b) | Step::Typed(b) = step {
                bytes.extend(*b);
            }
        }
        assert_eq!(steps(&bytes).collect::<Vec<_>>(), all);
        // What is cut off is none.
        bytes.pop();
        assert_eq!(steps(&bytes).count(), all.len() - 1);
    }
}
