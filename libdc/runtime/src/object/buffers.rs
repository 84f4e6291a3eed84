//! Where a call that reads puts what it gets: one buffer of the program, or several
//! that are filled in turn.

use crate::engine::engine;
use crate::machine::user;
use crate::space::shared;

#[derive(Clone, Copy)]
pub struct Buffers {
    /// The buffer, or an array of iovecs.
    at: usize,
    /// Entries of that array; of one buffer none.
    count: Option<usize>,
    /// Bytes at the front that are filled already.
    filled: usize,
    /// Bytes that find room.
    pub len: usize,
}

/// Whether memory can be a program's at all: the kernel answers EFAULT before anything else
/// where it cannot.
pub fn is_user(at: usize, len: usize) -> bool {
    at.checked_add(len)
        .is_some_and(|end| end <= dc_image::window::USER_END)
}

impl Buffers {
    pub fn one(at: usize, len: usize) -> Buffers {
        Buffers {
            at,
            count: None,
            filled: 0,
            len,
        }
    }

    /// None if the array cannot be read, or names what no program can have.
    pub fn several(at: usize, count: usize) -> Option<Buffers> {
        let mut len = 0usize;
        for i in 0..count.min(1024) {
            let part = user::read::<[usize; 2]>(at + i * 16)?;
            if !is_user(part[0], part[1]) {
                return None;
            }
            len = len.saturating_add(part[1]);
        }
        Some(Buffers {
            at,
            count: Some(count.min(1024)),
            filled: 0,
            len,
        })
    }

    /// What is left when so many bytes have come.
    pub fn behind(&self, done: usize) -> Buffers {
        Buffers {
            filled: self.filled + done,
            len: self.len.saturating_sub(done),
            ..*self
        }
    }

    /// Address and length of the first piece that has room.
    pub fn first(&self) -> [usize; 2] {
        let mut first = [self.at, 0];
        self.each(|at, len| {
            first = [at, len];
            false
        });
        first
    }

    /// Hands bytes to the program; false if a buffer cannot be written.
    pub fn give(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        self.each(|at, len| {
            let (now, later) = rest.split_at(len.min(rest.len()));
            rest = later;
            shared::open(at, at.saturating_add(now.len()));
            now.is_empty() || user::write_bytes(at, now)
        })
    }

    /// Before the kernel or anybody else writes to them.
    pub fn wake(&self) {
        let e = engine();
        if e.pieces.any() || e.shared.any() {
            self.each(|at, len| {
                let end = at.saturating_add(len);
                e.pieces.wake(at, end);
                shared::open(at, end);
                true
            });
        }
    }

    /// Address and length of each piece that has room, until `f` says no.
    fn each(&self, mut f: impl FnMut(usize, usize) -> bool) -> bool {
        let Some(count) = self.count else {
            return f(self.at + self.filled, self.len);
        };
        let mut skip = self.filled;
        (0..count).all(|i| {
            let Some([at, len]) = user::read::<[usize; 2]>(self.at + i * 16) else {
                return false;
            };
            let gone = skip.min(len);
            skip -= gone;
            gone == len || f(at + gone, len - gone)
        })
    }
}
