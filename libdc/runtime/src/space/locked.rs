//! mlock(2) and its relatives: the program's own memory, never the runtime's, of which the
//! kernel knows nothing but that it is there.
//!
//! What is locked is not replaced by a mapping of the image from then on. A recovery does
//! not lock it again.
#![allow(unsafe_code)]

use super::*;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed, raw6};
use crate::thread;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use dc_image::window::PAGE;

const MCL_CURRENT: usize = 1;
const MCL_FUTURE: usize = 2;
const MCL_ONFAULT: usize = 4;
const MLOCK_ONFAULT: usize = 1;

/// How memory that comes is locked, as mlockall was told; like all of it not of the state.
static TO_COME: AtomicU32 = AtomicU32::new(0);

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
    unsafe { raw6(l.frame.nr, a) }
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
    if flags & MCL_CURRENT != 0 {
        for v in areas() {
            // (Where nothing may be read nothing is read in, which is no error here.)
            let r = lock(v.start as usize, (v.end - v.start) as usize, flags);
            if r == -EPERM || r == -ENOMEM && v.prot != 0 {
                return r;
            }
        }
    }
    let to_come = if flags & MCL_FUTURE != 0 { flags } else { 0 };
    TO_COME.store(to_come as u32, Relaxed);
    0
}

/// munlockall.
pub fn none(_l: &mut Local, _a: [usize; 6]) -> isize {
    TO_COME.store(0, Relaxed);
    sys!(MUNLOCKALL)
}

/// Memory has come, which is to be locked if that was asked for.
pub fn came(at: usize, len: usize) {
    match TO_COME.load(Relaxed) {
        0 => {}
        flags => {
            lock(at, len, flags as usize);
        }
    }
}

fn lock(at: usize, len: usize, flags: usize) -> isize {
    let on_fault = (flags & MCL_ONFAULT != 0) as usize * MLOCK_ONFAULT;
    sys!(MLOCK2, at, len, on_fault)
}
