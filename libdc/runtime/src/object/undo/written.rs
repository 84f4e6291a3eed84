//! What the program has left in a file: a sum of each write.
//!
//! Before anything is undone it is compared with that. What was written is summed as
//! the program gave it, before the call, so the record holds whatever moment a death
//! chooses; `Live::file_write` says which write was under way then, for only of that
//! the file may have some part.
//!
//! ```text
//! WROTE: [ WroteHead ]      size before and after, and the sum of at..at+len
//! ```

use super::contents::{self, Entry};
use super::*;
use crate::object::output::Call;
use core::sync::atomic::Ordering::*;

/// Of WROTE.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WroteHead {
    pub dev: u64,
    pub ino: u64,
    pub at: u64,
    pub len: u64,
    pub sum: u64,
    pub size_before: u64,
    pub size_after: u64,
    /// The record that has the path.
    pub path_at: u32,
    pub flags: u32,
}

/// The sum says nothing: only the size is compared.
pub const CONTENTS_UNKNOWN: u32 = 1;

/// A write that is about to be made.
#[derive(Clone, Copy)]
pub struct Written {
    /// First record of it, and its WROTE.
    first: u32,
    head: WroteHead,
}

/// Before a change of a size: the record; its offset. [`over`] follows.
pub fn note(e: &Entry, at: u64, len: u64, before: u64, after: u64, flags: u32) -> u32 {
    append(&WroteHead {
        dev: e.dev,
        ino: e.ino,
        at,
        len,
        sum: 0,
        size_before: before,
        size_after: after,
        path_at: e.path_at,
        flags,
    })
}

/// Behind it. One that failed has changed nothing.
pub fn over(fd: i32, r: isize) {
    let under_way = &engine().live().file_write;
    let offset = under_way.load(Relaxed);
    if failed(r) && offset > 0 {
        names::not_done(offset as u32 - 1);
        if let Ok(st) = Stat::of_fd(fd) {
            contents::now_is(st.dev, st.ino, st.size);
        }
    }
    stamp::after_change(fd);
    under_way.store(0, Relaxed);
}

fn append(head: &WroteHead) -> u32 {
    let at = engine().journal.tail() as u32;
    let under_way = &engine().live().file_write;
    under_way.store(u64::from(at) + 1, Relaxed);
    record::append(record::WROTE, &[bytes_of(head)]);
    at
}

/// Before a write into a file of the program's own, at a position of its own or at that
/// of the descriptor. None if nothing is noted.
pub fn before_write(fd: i32, file: u32, at: Option<u64>, c: &Call) -> Option<Written> {
    if c.len == 0 {
        return None;
    }
    let appends = open_file(file).flags as usize & O_APPEND != 0;
    let at = match at {
        _ if appends => None,
        Some(at) => Some(at),
        None => {
            let r = sys!(LSEEK, fd, 0, 1);
            Some(if failed(r) { 0 } else { r as u64 })
        }
    };
    // Its first record of all is not of this write alone.
    contents::entry(fd, file)?;
    let mut first = engine().journal.tail() as u32;
    let mut kept = true;
    if let Some(at) = at {
        let published = engine().store.published();
        kept = contents::before_change(fd, file, at, c.len as u64);
        if engine().store.published() != published {
            first = u32::MAX;
        }
    }
    let e = contents::entry(fd, file)?;
    let at = at.unwrap_or(e.now);
    let sum = Sum::of_call(c, c.len);
    let unknown = !kept || e.mapped || sum.is_none();
    let head = WroteHead {
        dev: e.dev,
        ino: e.ino,
        at,
        len: c.len as u64,
        sum: sum.unwrap_or(0),
        size_before: e.now,
        size_after: e.now.max(at.saturating_add(c.len as u64)),
        path_at: e.path_at,
        flags: if unknown { CONTENTS_UNKNOWN } else { 0 },
    };
    let offset = append(&head);
    contents::now_is(e.dev, e.ino, head.size_after);
    Some(Written {
        first: first.min(offset),
        head,
    })
}

/// Behind it: what it has really written.
pub fn after_write(fd: i32, w: Option<Written>, c: &Call, r: isize) {
    let Some(w) = w else { return };
    let mut head = w.head;
    let raced = r > 0
        && !crate::run::is_alone()
        && head.flags & CONTENTS_UNKNOWN == 0
        && Sum::of_call(c, r as usize) != Some(head.sum);
    if r != head.len as isize || raced {
        let done = r.max(0) as u64;
        head.len = done;
        head.size_after = match done {
            0 => head.size_before,
            _ => head.size_before.max(head.at + done),
        };
        match Sum::of_call(c, done as usize) {
            // Another thread has changed what was written, before or after.
            _ if raced && r == w.head.len as isize => head.flags |= CONTENTS_UNKNOWN,
            Some(sum) => head.sum = sum,
            None => head.flags |= CONTENTS_UNKNOWN,
        }
        contents::now_is(head.dev, head.ino, head.size_after);
        if done == 0 {
            names::not_done(w.first);
        } else {
            // In the place of the first, which the rollback leaves out.
            head.flags |= REPLACES;
            append(&head);
        }
    }
    stamp::after_change(fd);
    engine().live().file_write.store(0, Relaxed);
}

/// The record says what the WROTE before it of the same file has really become.
pub const REPLACES: u32 = 2;

/// A sum over bytes that come in pieces.
pub struct Sum {
    lanes: [u64; 4],
    rest: [u8; 32],
    rest_len: usize,
    len: u64,
}

const PRIMES: [u64; 4] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x27d4_eb2f_1656_67c5,
];

impl Sum {
    pub const fn new() -> Sum {
        Sum {
            lanes: PRIMES,
            rest: [0; 32],
            rest_len: 0,
            len: 0,
        }
    }

    fn block(lanes: &mut [u64; 4], block: &[u8; 32]) {
        for (i, lane) in lanes.iter_mut().enumerate() {
            let mut word = [0; 8];
            word.copy_from_slice(&block[i * 8..i * 8 + 8]);
            *lane = (*lane ^ u64::from_le_bytes(word))
                .wrapping_mul(PRIMES[0])
                .rotate_left(31);
        }
    }

    pub fn add(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if self.rest_len > 0 {
            let n = bytes.len().min(32 - self.rest_len);
            self.rest[self.rest_len..self.rest_len + n].copy_from_slice(&bytes[..n]);
            self.rest_len += n;
            bytes = &bytes[n..];
            if self.rest_len < 32 {
                return;
            }
            let block = self.rest;
            Sum::block(&mut self.lanes, &block);
            self.rest_len = 0;
        }
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            Sum::block(&mut self.lanes, block);
        }
        self.rest[..rest.len()].copy_from_slice(rest);
        self.rest_len = rest.len();
    }

    pub fn end(mut self) -> u64 {
        let len = self.len;
        if self.rest_len > 0 {
            self.rest[self.rest_len..].fill(0);
            let block = self.rest;
            Sum::block(&mut self.lanes, &block);
        }
        let mut sum = len.wrapping_mul(PRIMES[3]);
        for (i, lane) in self.lanes.iter().enumerate() {
            sum = (sum ^ lane.rotate_left(7 * i as u32 + 1)).wrapping_mul(PRIMES[1]);
            sum ^= sum >> 29;
        }
        sum
    }

    /// The first bytes of what a call writes; None if they cannot be read.
    pub fn of_call(c: &Call, len: usize) -> Option<u64> {
        let mut sum = Sum::new();
        let mut left = len;
        match c.nr {
            crate::machine::nr::WRITE | crate::machine::nr::PWRITE64 => {
                sum.add_from(c.args[1], left.min(c.args[2]))?
            }
            _ => {
                for i in 0..c.args[2] {
                    let [at, len] = user::read::<[usize; 2]>(c.args[1] + i * 16)?;
                    let n = len.min(left);
                    sum.add_from(at, n)?;
                    left -= n;
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        Some(sum.end())
    }

    fn add_from(&mut self, mut at: usize, mut len: usize) -> Option<()> {
        let mut piece = [0u8; 2048];
        while len > 0 {
            let n = len.min(piece.len());
            if !user::read_bytes(at, &mut piece[..n]) {
                return None;
            }
            self.add(&piece[..n]);
            at += n;
            len -= n;
        }
        Some(())
    }
}
