//! Interval timers and POSIX timers: armed again at recovery.
//!
//! state:    what was set, and when
//! restore:  setitimer with what is left; timer_create under the old id
//!           (PR_TIMER_CREATE_RESTORE_IDS, Linux 6.15)
//! survives: warm and cold

use super::timerfd::left;
use crate::commit::now_ns;
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::signal::queue::SigInfo;
use crate::state::{ITimer, PosixTimer};
use crate::{sys, thread};

const NS: u64 = 1_000_000_000;

pub fn alarm(l: &mut Local, a: [usize; 6]) -> isize {
    let mut old = [0u64; 4];
    let new = [0u64, 0, a[0] as u32 as u64, 0];
    sys!(SETITIMER, 0, &raw const new, &raw mut old);
    note_itimer(0, new);
    set_before_a_death(l, nr::ALARM, &a, a[0] as u64 * NS);
    (old[2] + (old[3] > 0) as u64) as isize
}

pub fn setitimer(l: &mut Local, a: [usize; 6]) -> isize {
    let r = sys!(SETITIMER, a[0], a[1], a[2]);
    if !failed(r) && a[0] < 3 {
        let spec = if a[1] == 0 {
            [0; 4]
        } else {
            user::read::<[u64; 4]>(a[1]).unwrap_or([0; 4])
        };
        note_itimer(a[0], spec);
        set_before_a_death(l, nr::SETITIMER, &a, spec[2] * NS + spec[3] * 1000);
    }
    r
}

/// A rollback may have come to before the call that set a timer for `ns`, which ran on
/// meanwhile.
pub fn set_before_a_death(l: &Local, number: usize, a: &[usize; 6], ns: u64) {
    match thread::moment::set_before(l, number, a) {
        Some(at_ns) => was_set_at(number, a, at_ns),
        None => thread::moment::commit_within(ns),
    }
}

fn note_itimer(which: usize, spec: [u64; 4]) {
    let value = spec[2] * 1_000_000 + spec[3];
    state().root.itimers[which] = ITimer {
        interval_us: spec[0] * 1_000_000 + spec[1],
        deadline_ns: if value == 0 { 0 } else { now_ns() },
        remaining_us: value,
    };
}

pub fn create(l: &mut Local, a: [usize; 6]) -> isize {
    let i = match known().iter().position(|t| t.used == 0) {
        Some(i) => i,
        None => state().root.timer_high as usize,
    };
    if i >= state().root.timers.len() {
        return -EAGAIN;
    }
    let mut sigevent = [0u8; 64];
    if a[1] != 0 && !user::read_bytes(a[1], &mut sigevent) {
        return -EFAULT;
    }
    let mut real = sigevent;
    translate(&mut real);
    let event = if a[1] == 0 { 0 } else { real.as_ptr() as usize };
    let r = match numbered(a[0], event, a[2]) {
        Some(r) => r,
        None => {
            if engine().log.wanted {
                // The kernel's next number would be another one.
                l.commit_after = true;
            }
            sys!(TIMER_CREATE, a[0], event, a[2])
        }
    };
    if failed(r) {
        return r;
    }
    let Some(id) = user::read::<i32>(a[2]) else {
        return -EFAULT;
    };
    if a[1] == 0 {
        sigevent[8..12].copy_from_slice(&14i32.to_le_bytes());
        sigevent[..4].copy_from_slice(&id.to_le_bytes());
    }
    let mut signo = [0; 4];
    signo.copy_from_slice(&sigevent[8..12]);
    crate::signal::outside::is_own(i32::from_le_bytes(signo));
    state().root.timer_high = state().root.timer_high.max(i as u32 + 1);
    state().root.timers[i] = PosixTimer {
        used: 1,
        clock: a[0] as u32,
        id,
        abs: 0,
        sigevent,
        spec: [0; 4],
        set_at_ns: 0,
    };
    r
}

/// A timer gets the number that a kernel would give it: the next one that is free. A
/// new worker's kernel would begin anew, and re-execution is to get the same. None if the
/// kernel takes no numbers.
fn numbered(clock: usize, event: usize, at: usize) -> Option<isize> {
    if failed(keep_numbers(true)) {
        return None;
    }
    let root = &mut state().root;
    let mut number = root.next_timer;
    while timer(number as usize).is_some() {
        number = number.wrapping_add(1) & i32::MAX;
    }
    let mut given = number;
    let r = sys!(TIMER_CREATE, clock, event, &raw mut given);
    keep_numbers(false);
    if failed(r) {
        return Some(r);
    }
    root.next_timer = number.wrapping_add(1) & i32::MAX;
    match user::write(at, &number) {
        true => Some(r),
        false => {
            sys!(TIMER_DELETE, number);
            Some(-EFAULT)
        }
    }
}

/// A timer of the runtime's own, far from the numbers that programs get.
pub fn create_own(clock: usize, event: *const u8, which: i32) -> Option<i32> {
    const OWN: i32 = 0x7f00_0000;
    let exact = !failed(keep_numbers(true));
    let mut id = OWN + which;
    let r = sys!(TIMER_CREATE, clock, event, &raw mut id);
    if exact {
        keep_numbers(false);
    }
    (!failed(r)).then_some(id)
}

/// Whether timer_create takes the number it is given.
fn keep_numbers(on: bool) -> isize {
    const PR_TIMER_CREATE_RESTORE_IDS: usize = 77;
    sys!(PRCTL, PR_TIMER_CREATE_RESTORE_IDS, on, 0, 0, 0)
}

/// In a replay, after the call that set a timer was made again: it was set at
/// that time, so less of it is left.
pub fn was_set_at(number: usize, a: &[usize; 6], at_ns: u64) {
    match number {
        nr::ALARM => itimer_was_set_at(0, at_ns),
        nr::SETITIMER if a[0] < 3 => itimer_was_set_at(a[0], at_ns),
        nr::TIMER_SETTIME => {
            if let Some(t) = timer(a[0]) {
                t.set_at_ns = at_ns;
                arm_again(t);
            }
        }
        nr::TIMERFD_SETTIME => super::timerfd::was_set_at(a[0] as i32, at_ns),
        _ => {}
    }
}

fn itimer_was_set_at(which: usize, at_ns: u64) {
    let t = &mut state().root.itimers[which];
    if t.deadline_ns != 0 {
        t.deadline_ns = at_ns;
        arm_itimer(which);
    }
}

/// A timer's signal is delivered: one that rings once has rung, and a recovery
/// must not have it ring again. (A signal that waited while its timer was set
/// anew says nothing about the new time.)
pub fn rang(info: &SigInfo) {
    const SI_KERNEL: i32 = 0x80;
    const SI_TIMER: i32 = -2;
    let which = match info.signo {
        14 => 0,
        26 => 1,
        27 => 2,
        _ => 3,
    };
    if info.code == SI_KERNEL && which < 3 {
        let t = &mut state().root.itimers[which];
        let due = t.deadline_ns + t.remaining_us * 1000;
        if t.interval_us == 0 && (which != 0 || due <= now_ns()) {
            t.deadline_ns = 0;
        }
    } else if info.code == SI_TIMER {
        let id = i32::from_le_bytes([info.rest[4], info.rest[5], info.rest[6], info.rest[7]]);
        if let Some(t) = timer(id as usize) {
            let due = t.set_at_ns + t.spec[2] * 1_000_000_000 + t.spec[3];
            if t.spec[0] | t.spec[1] == 0 && (t.abs & 1 != 0 || due <= now_ns()) {
                t.spec = [0; 4];
            }
        }
    }
}

/// SIGEV_THREAD_ID names a thread by the id that the program knows.
fn translate(sigevent: &mut [u8; 64]) {
    const SIGEV_THREAD_ID: i32 = 4;
    let at = |b: &[u8; 64], i: usize| i32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
    if at(sigevent, 12) == SIGEV_THREAD_ID {
        let tid = crate::thread::real_tid(at(sigevent, 16));
        sigevent[16..20].copy_from_slice(&tid.to_le_bytes());
    }
}

fn timer(id: usize) -> Option<&'static mut PosixTimer> {
    let mut timers = known().iter_mut();
    timers.find(|t| t.used != 0 && t.id == id as i32)
}

/// The entries that were ever used: the others lie in pages that a process never had.
fn known() -> &'static mut [PosixTimer] {
    let root = &mut state().root;
    &mut root.timers[..root.timer_high as usize]
}

/// A child has none of its parent's.
pub fn forked() {
    for t in known().iter_mut().filter(|t| t.used != 0) {
        t.used = 0;
    }
}

pub fn settime(l: &mut Local, a: [usize; 6]) -> isize {
    let r = sys!(TIMER_SETTIME, a[0], a[1], a[2], a[3]);
    if !failed(r)
        && let (Some(t), Some(spec)) = (timer(a[0]), user::read::<[u64; 4]>(a[2]))
    {
        t.abs = a[1] as u32;
        t.spec = spec;
        t.set_at_ns = now_ns();
        set_before_a_death(l, nr::TIMER_SETTIME, &a, spec[2].saturating_mul(NS));
    }
    r
}

pub fn delete(_l: &mut Local, a: [usize; 6]) -> isize {
    let r = sys!(TIMER_DELETE, a[0]);
    if let Some(t) = timer(a[0]) {
        t.used = 0;
    }
    r
}

/// An exec takes POSIX timers away; interval timers stay.
pub fn delete_all() {
    for t in known().iter_mut().filter(|t| t.used != 0) {
        sys!(TIMER_DELETE, t.id);
        t.used = 0;
    }
}

/// At recovery: the new process has none of them.
pub fn restore() {
    (0..3).for_each(arm_itimer);
    let exact = !failed(keep_numbers(true));
    for t in known().iter().filter(|t| t.used != 0) {
        create_again(t, exact);
    }
    if exact {
        keep_numbers(false);
    }
}

/// Sets an interval timer to what is left of it.
fn arm_itimer(which: usize) {
    let t = state().root.itimers[which];
    if t.deadline_ns == 0 {
        return;
    }
    let mut spec = [0, t.interval_us * 1000, 0, t.remaining_us * 1000];
    spec = [
        spec[1] / 1_000_000_000,
        spec[1] % 1_000_000_000,
        spec[3] / 1_000_000_000,
        spec[3] % 1_000_000_000,
    ];
    if which == 0 {
        left(&mut spec, t.deadline_ns);
    }
    let tv = [spec[0], spec[1] / 1000, spec[2], (spec[3] / 1000).max(1)];
    sys!(SETITIMER, which, &raw const tv, 0);
}

fn create_again(t: &PosixTimer, exact: bool) {
    let mut id = t.id;
    let mut real = t.sigevent;
    translate(&mut real);
    let r = sys!(TIMER_CREATE, t.clock, real.as_ptr(), &raw mut id);
    if failed(r) || id != t.id {
        let why = if exact {
            ""
        } else {
            " (this kernel cannot give a timer its old number)"
        };
        crate::say!(
            "timer {} cannot be made again: error {}{}",
            t.id,
            -r.min(0),
            why
        );
        return;
    }
    arm_again(t);
}

/// Sets a POSIX timer to what is left of it.
fn arm_again(t: &PosixTimer) {
    if t.spec[2] | t.spec[3] != 0 {
        let mut spec = t.spec;
        if t.abs & 1 == 0 {
            left(&mut spec, t.set_at_ns);
        }
        sys!(TIMER_SETTIME, t.id, t.abs, &raw const spec, 0);
    }
}
