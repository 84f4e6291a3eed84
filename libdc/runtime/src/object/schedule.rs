//! How a thread is scheduled: policy, priority, nice value, processors, class of its
//! input and output, timer slack.
//!
//! state:     [`Schedule`] of each thread: what the program has set, read from the
//!            kernel behind the call
//! intercept: sched_set*, setpriority, ioprio_set, prctl(PR_SET_TIMERSLACK)
//! restore:   by the thread itself, before it loses the rights that this may need
//! survives:  warm and cold; where the kernel refuses, the recovery stops and says which
#![allow(unsafe_code)]

use super::set_by_others::{self, real};
use crate::engine::{MAX_THREADS, engine, state};
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::{fatal, sys};
use dc_image::FatalCode;

const PRIO_PROCESS: usize = 0;
const IOPRIO_WHO_PROCESS: usize = 1;
const PR_SET_TIMERSLACK: usize = 29;
const PR_GET_TIMERSLACK: usize = 30;

/// Bits of [`Schedule::set`].
const POLICY: u32 = 1;
const AFFINITY: u32 = 2;
const IO: u32 = 4;
const SLACK: u32 = 8;

#[derive(Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Schedule {
    /// What of it the program has set.
    pub set: u32,
    pub io: i32,
    pub slack_ns: u64,
    /// `struct sched_attr`.
    pub attributes: Attributes,
    /// Of up to 8192 processors, a bit each.
    pub affinity: [u64; 128],
}

#[derive(Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// sched_setaffinity(2), sched_setscheduler(2), sched_setparam(2), sched_setattr(2):
/// of a thread, by the number that the program knows.
pub fn set(l: &mut Local, mut a: [usize; 6]) -> isize {
    let slot = slot_of(l, a[0]);
    a[0] = real(a[0]);
    if slot.is_none() {
        return set_by_others::call(l.frame.nr, a);
    }
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(l.frame.nr, a) };
    let what = match l.frame.nr {
        nr::SCHED_SETAFFINITY => AFFINITY,
        _ => POLICY,
    };
    if !failed(r)
        && let Some(slot) = slot
    {
        note(slot, what);
    }
    r
}

/// The questions that belong to these: of the thread that the program means.
pub fn get(l: &mut Local, mut a: [usize; 6]) -> isize {
    a[0] = real(a[0]);
    // SAFETY: as above.
    unsafe { crate::machine::sys::raw6(l.frame.nr, a) }
}

/// setpriority(2) and ioprio_set(2): of a thread, of a group or of a user.
pub fn set_priority(l: &mut Local, mut a: [usize; 6]) -> isize {
    let (one, what) = match l.frame.nr {
        nr::SETPRIORITY => (a[0] == PRIO_PROCESS, POLICY),
        _ => (a[0] == IOPRIO_WHO_PROCESS, IO),
    };
    let slot = if one { slot_of(l, a[1]) } else { None };
    if one || is_group(l, a[0]) {
        a[1] = real(a[1]);
    }
    let r = match slot {
        // SAFETY: as above.
        Some(_) => unsafe { crate::machine::sys::raw6(l.frame.nr, a) },
        None => set_by_others::call(l.frame.nr, a),
    };
    if failed(r) {
        return r;
    }
    if one {
        if let Some(slot) = slot {
            note(slot, what);
        }
    } else {
        // This process may be meant, or not: then it has what it had.
        for slot in (0..MAX_THREADS).filter(|&i| state().threads[i].used != 0) {
            note(slot, what);
        }
    }
    r
}

/// getpriority(2) and ioprio_get(2).
pub fn get_priority(l: &mut Local, mut a: [usize; 6]) -> isize {
    let one = match l.frame.nr {
        nr::GETPRIORITY => PRIO_PROCESS,
        _ => IOPRIO_WHO_PROCESS,
    };
    if a[0] == one || is_group(l, a[0]) {
        a[1] = real(a[1]);
    }
    // SAFETY: as above.
    unsafe { crate::machine::sys::raw6(l.frame.nr, a) }
}

/// prctl(PR_SET_TIMERSLACK).
pub fn set_slack(l: &mut Local, ns: usize) -> isize {
    let r = sys!(PRCTL, PR_SET_TIMERSLACK, ns, 0, 0, 0);
    if !failed(r) {
        note(l.slot as usize, SLACK);
    }
    r
}

fn is_group(l: &Local, which: usize) -> bool {
    const PRIO_PGRP: usize = 1;
    const IOPRIO_WHO_PGRP: usize = 2;
    match l.frame.nr {
        nr::SETPRIORITY | nr::GETPRIORITY => which == PRIO_PGRP,
        _ => which == IOPRIO_WHO_PGRP,
    }
}

/// The thread that a call names, if it is one of this process.
fn slot_of(l: &Local, tid: usize) -> Option<usize> {
    if tid == 0 {
        return Some(l.slot as usize);
    }
    (0..MAX_THREADS).find(|&i| state().threads[i].used != 0 && state().threads[i].tid == tid as i32)
}

/// Of all threads whatever others may have set.
pub fn note_all() {
    for slot in (0..MAX_THREADS).filter(|&i| state().threads[i].used != 0) {
        for what in [POLICY, AFFINITY, IO] {
            note(slot, what);
        }
    }
}

/// What the kernel has now is what is to come back.
fn note(slot: usize, what: u32) {
    let thread = engine().threads[slot];
    if thread.is_null() {
        return;
    }
    // SAFETY: blocks are never unmapped.
    let tid = unsafe { (*thread).tid };
    let s = &mut state().threads[slot].schedule;
    let at = &raw const *s as usize;
    // The kernel cannot write into state that sleeps.
    engine().pieces.wake(at, at + size_of::<Schedule>());
    s.set |= what;
    match what {
        POLICY => {
            let len = size_of::<Attributes>();
            sys!(SCHED_GETATTR, tid, &raw mut s.attributes, len, 0);
        }
        AFFINITY => {
            s.affinity = [0; 128];
            sys!(SCHED_GETAFFINITY, tid, 1024, s.affinity.as_mut_ptr());
        }
        IO => s.io = sys!(IOPRIO_GET, IOPRIO_WHO_PROCESS, tid) as i32,
        _ => s.slack_ns = sys!(PRCTL, PR_GET_TIMERSLACK, 0, 0, 0, 0) as u64,
    }
}

/// At recovery, of the calling thread.
pub fn restore(l: &Local) {
    let s = &state().threads[l.slot as usize].schedule;
    let done = |what: u32, name: &str, call: &dyn Fn() -> isize| {
        if s.set & what != 0 {
            let r = call();
            if failed(r) {
                cannot(name, r);
            }
        }
    };
    done(AFFINITY, "processors (affinity)", &|| {
        sys!(SCHED_SETAFFINITY, 0, 1024, s.affinity.as_ptr())
    });
    done(POLICY, "scheduling policy and nice value", &|| {
        sys!(SCHED_SETATTR, 0, &raw const s.attributes, 0)
    });
    done(IO, "priority of input and output", &|| {
        sys!(IOPRIO_SET, IOPRIO_WHO_PROCESS, 0, s.io)
    });
    done(SLACK, "timer slack", &|| {
        sys!(PRCTL, PR_SET_TIMERSLACK, s.slack_ns, 0, 0, 0)
    });
}

fn cannot(name: &str, r: isize) -> ! {
    let remedy = match -r {
        EPERM | EACCES => "resume as the user who started it",
        _ => "this machine has no longer what the program asked for",
    };
    fatal::stop(
        FatalCode::CannotRestore,
        r,
        format_args!(
            "restore how the program is scheduled: {name}: error {}; {remedy}",
            -r
        ),
    )
}
