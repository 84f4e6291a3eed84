//! What a commit copies of such memory.

use super::*;
use crate::engine::store_and_supply;
use vista_core::pages::{Copied, Full};

/// Copies a page of the window into the commit to come.
pub fn stage(page: usize) -> Result<(), Full> {
    let (store, mut supply) = store_and_supply();
    store.stage(page, &mut supply, |dst| {
        // SAFETY: dst is a whole frame; behind the end of the memory it faults, which
        // is caught.
        match unsafe { user::try_copy(dst, page as *const u8, PAGE) } {
            true => Copied::Whole,
            false => Copied::Not,
        }
    })?;
    Ok(())
}

/// Copies what no scan finds. How many pages that are.
pub fn stage_changed() -> Result<u64, Full> {
    let mut copied = 0;
    for k in 0..core::mem::take(&mut engine().memory.len) {
        let (from, to) = engine().memory.ranges[k];
        for i in 0..MAX_OBJECTS {
            let o = &state().memory_objects[i];
            let (first, end) = (o.base as usize, (o.base + o.size) as usize);
            let (from, to) = (from.max(first), to.min(end.next_multiple_of(PAGE)));
            if o.used != 0 && from < to {
                let fd = opened_anew(i);
                let staged = stage_data(fd, first, from, to);
                if !failed(fd) {
                    sys!(CLOSE, fd);
                }
                copied += staged?;
            }
        }
    }
    Ok(copied)
}

/// What there is between two addresses of an object's part of the window. Its holes are left out:
/// to read one gives it a page, and of memory that is reserved thus there may be more than the
/// machine has.
fn stage_data(fd: isize, base: usize, from: usize, to: usize) -> Result<u64, Full> {
    const SEEK_DATA: usize = 3;
    const SEEK_HOLE: usize = 4;
    const ENXIO: isize = 6;
    let mut copied = 0;
    let mut at = from;
    while at < to {
        let data = sys!(LSEEK, fd, at - base, SEEK_DATA);
        if data == -ENXIO {
            break;
        }
        let mut end = to;
        if !failed(data) {
            at = base + (data as usize & !(PAGE - 1));
            let hole = sys!(LSEEK, fd, data, SEEK_HOLE);
            if !failed(hole) {
                end = (base + hole as usize).next_multiple_of(PAGE).min(to);
            }
        }
        for page in (at..end).step_by(PAGE) {
            stage(page)?;
            copied += 1;
        }
        at = end.max(at + PAGE);
    }
    Ok(copied)
}
