//! When all had died: what others have changed is looked for before anything is undone.
//!
//! A rollback compares each step too, but by then newer ones are made. Files belong
//! together, as a database's log and its index do: where others have changed one, the others of them
//! must not have gone back.

use super::attribute::open_object;
use super::conflict::{Step, Trouble};
use super::contents::{BytesHead, STORED};
use super::play::{path_at, sum_of_file};
use super::stamp::{Last, Stamp, last_of};
use super::written::{CONTENTS_UNKNOWN, WroteHead};
use super::*;
use core::sync::atomic::Ordering::Relaxed;

/// Parts of files that were looked at, or that newer changes cover.
struct Seen {
    parts: [(u64, u64, u64, u64); 512],
    len: usize,
}

impl Seen {
    fn covers(&self, dev: u64, ino: u64, from: u64, to: u64) -> bool {
        self.parts[..self.len]
            .iter()
            .any(|p| (p.0, p.1) == (dev, ino) && p.2 < to && from < p.3)
    }

    fn add(&mut self, dev: u64, ino: u64, from: u64, to: u64) {
        self.parts[self.len] = (dev, ino, from, to);
        self.len += 1;
    }

    fn is_full(&self) -> bool {
        self.len == self.parts.len()
    }
}

/// Looks at what the records leave behind, newest first: the path of the first file that is
/// not as the program left it, and what is wrong there. What newer changes cover the rollback itself looks at.
pub(super) fn for_others(offsets: &[u32]) -> Result<(), (&'static [u8], Trouble)> {
    let mut seen = Seen {
        parts: [(0, 0, 0, 0); 512],
        len: 0,
    };
    for &offset in offsets.iter().rev() {
        let Some(r) = record::of_all(offset as usize).next() else {
            continue;
        };
        if seen.is_full() {
            return Ok(());
        }
        match r.kind {
            record::WROTE => {
                let Some(h) = value_of::<WroteHead>(r.payload) else {
                    continue;
                };
                let path = path_at(h.path_at);
                written_part(&h, r.offset, path, &mut seen).map_err(|trouble| (path, trouble))?;
            }
            record::FILE_BYTES => {
                let Some(h) = value_of::<BytesHead>(r.payload) else {
                    continue;
                };
                if h.len & STORED != 0 {
                    let path = path_at(h.path_at);
                    stored(&h, path, &mut seen).map_err(|trouble| (path, trouble))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn written_part(h: &WroteHead, offset: usize, path: &[u8], seen: &mut Seen) -> Step {
    let under_way = engine().live().file_write.load(Relaxed) == offset as u64 + 1;
    let to = h.at.saturating_add(h.len);
    let covered = seen.covers(h.dev, h.ino, h.at, to);
    seen.add(h.dev, h.ino, h.at, to);
    if h.size_after < h.size_before && !seen.is_full() {
        seen.add(h.dev, h.ino, h.size_after, u64::MAX);
    }
    if under_way || covered || h.flags & CONTENTS_UNKNOWN != 0 || h.len == 0 {
        return Ok(());
    }
    // What cannot be reached or read the rollback will say.
    let Ok((fd, _)) = open_object(h.dev, h.ino, path) else {
        return Ok(());
    };
    let fd = place::Named::of(fd).open(O_CLOEXEC);
    if failed(fd) {
        return Ok(());
    }
    let sum = sum_of_file(fd as i32, h.at, h.len);
    sys!(CLOSE, fd);
    if sum? == h.sum {
        return Ok(());
    }
    Err(Trouble::Bytes {
        from: h.at,
        to: h.at + h.len,
    })
}

/// Once for each file that was stored into.
fn stored(h: &BytesHead, path: &[u8], seen: &mut Seen) -> Step {
    if seen.covers(h.dev, h.ino, u64::MAX - 1, u64::MAX) {
        return Ok(());
    }
    seen.add(h.dev, h.ino, 0, u64::MAX);
    let Last::Left(left) = last_of(h.dev, h.ino) else {
        return Ok(());
    };
    match open_object(h.dev, h.ino, path) {
        Ok((_, now)) if Stamp::of(&now) != left => Err(Trouble::Since),
        _ => Ok(()),
    }
}
