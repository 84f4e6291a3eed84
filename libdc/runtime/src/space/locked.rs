//! mlock(2) and its relatives: the program's own memory, never the runtime's, of which the
//! kernel knows nothing but that it is there.
//!
//! What is locked is not replaced by a mapping of the image from then on. The table of areas
//! remembers it, and a recovery locks it again ([`super::advice`]).
#![allow(unsafe_code)]

use super::*;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed, raw6};
use crate::thread;
use dc_image::window::PAGE;

const MCL_CURRENT: usize = 1;
const MCL_FUTURE: usize = 2;
const MCL_ONFAULT: usize = 4;
const MLOCK_ONFAULT: usize = 1;

/// mlock, mlock2 and munlock.
pub fn range(l: &mut Local, a: [usize; 6]) -> isize {
    let from = a[0] & !(PAGE - 1);
    let end = a[0].checked_add(a[1]).map(|to| to.next_multiple_of(PAGE));
    if l.frame.nr == nr::MLOCK2 && a[2] & !MLOCK_ONFAULT != 0 || end.is_none_or(|to| to < from) {
        return -EINVAL;
    }
    let to = end.unwrap_or(from);
    if to > from && !allowed(from, to - from) {
        return -ENOMEM;
    }
    if l.frame.nr != nr::MUNLOCK {
        engine().fold.never();
        let r = gather::in_call(from, to);
        if failed(r) {
            return r;
        }
    }
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { raw6(l.frame.nr, a) };
    if !failed(r) {
        let how = match l.frame.nr {
            nr::MUNLOCK => None,
            nr::MLOCK2 => Some(a[2] & MLOCK_ONFAULT != 0),
            _ => Some(false),
        };
        advice::lock(from as u64, to as u64, how);
    }
    r
}

/// mlockall: area by area, for the kernel would lock the runtime's windows as well.
pub fn all(l: &mut Local, a: [usize; 6]) -> isize {
    let flags = a[0];
    if flags == 0 || flags == MCL_ONFAULT || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0
    {
        return -EINVAL;
    }
    engine().fold.never();
    thread::stop_others(l);
    let r = gather::all();
    thread::resume_others();
    if failed(r) {
        return r;
    }
    let on_fault = flags & MCL_ONFAULT != 0;
    if flags & MCL_CURRENT != 0 {
        advice::lock(0, u64::MAX, Some(on_fault));
        for v in areas() {
            // (Where nothing may be read nothing is read in, which is no error here.)
            let r = lock(v.start as usize, (v.end - v.start) as usize, on_fault);
            if r == -EPERM || r == -ENOMEM && v.prot != 0 {
                return r;
            }
        }
    }
    let to_come = if flags & MCL_FUTURE != 0 { flags } else { 0 };
    state().root.lock_to_come = to_come as u32;
    0
}

/// munlockall.
pub fn none(_l: &mut Local, _a: [usize; 6]) -> isize {
    state().root.lock_to_come = 0;
    advice::lock(0, u64::MAX, None);
    sys!(MUNLOCKALL)
}

/// A child, or another program, has locked nothing.
pub fn forget() {
    state().root.lock_to_come = 0;
}

/// Memory has come, which is to be locked if that was asked for; or is, by the call that
/// made it.
pub fn came(at: usize, len: usize, is_locked: bool) {
    let to_come = state().root.lock_to_come as usize;
    let on_fault = !is_locked && to_come & MCL_ONFAULT != 0;
    if to_come != 0 {
        lock(at, len, on_fault);
    }
    if to_come != 0 || is_locked {
        advice::lock(at as u64, (at + len) as u64, Some(on_fault));
    }
}

pub fn lock(at: usize, len: usize, on_fault: bool) -> isize {
    sys!(MLOCK2, at, len, usize::from(on_fault) * MLOCK_ONFAULT)
}
