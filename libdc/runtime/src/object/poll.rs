//! poll and select: readiness is non-deterministic, but consumes nothing.
//!
//! Input that waits to be fed again counts as ready, whatever the kernel says.

use super::pushback;
use crate::engine::engine;
use crate::machine::frame::Local;
use crate::machine::sys::errno::*;
use crate::machine::{nr, user};
use crate::run::{ends, has_company};
use crate::signal::calls::{end_mask, with_mask};
use crate::sys;
use crate::thread;

pub const POLLIN: i16 = 1;
pub const POLLOUT: i16 = 4;

#[derive(Clone, Copy)]
#[repr(C)]
struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

/// Waits (without the lock) until a descriptor is ready or a signal comes.
pub fn wait_for(l: &mut Local, fd: i32, events: i16) -> Result<(), isize> {
    let p = PollFd {
        fd,
        events,
        revents: 0,
    };
    let r = thread::wait_or_signal(l, nr::POLL, [&raw const p as usize, 1, usize::MAX, 0, 0, 0]);
    if r == -EINTR { Err(r) } else { Ok(()) }
}

/// For what no poll tells: room at the other end of a datagram socket.
pub fn wait_a_moment(l: &mut Local) -> Result<(), isize> {
    let time = [0usize, 1_000_000];
    let args = [&raw const time as usize, 0, 0, 0, 0, 0];
    let r = thread::wait_or_signal(l, nr::NANOSLEEP, args);
    if r == -EINTR { Err(r) } else { Ok(()) }
}

/// Whether a descriptor is ready at this moment.
pub fn ready_now(fd: i32, events: i16) -> bool {
    let p = PollFd {
        fd,
        events,
        revents: 0,
    };
    sys!(POLL, &raw const p, 1, 0) > 0
}

pub fn poll(l: &mut Local, a: [usize; 6]) -> isize {
    if let Some(r) = fed(l, a[0], a[1]) {
        return r;
    }
    let r = thread::wait_or_signal(l, nr::POLL, a);
    look_for_ends(&a, r);
    r
}

/// What ended may have done so because its process died.
fn look_for_ends(a: &[usize; 6], mut ready: isize) {
    if !has_company() {
        return;
    }
    for i in 0..a[1] {
        if ready <= 0 {
            return;
        }
        let Some(p) = user::read::<PollFd>(a[0] + i * 8) else {
            return;
        };
        ready -= isize::from(p.revents != 0);
        ends::met_in_events(p.revents as u32);
    }
}

pub fn ppoll(l: &mut Local, a: [usize; 6]) -> isize {
    if let Some(r) = fed(l, a[0], a[1]) {
        return r;
    }
    if let Err(e) = with_mask(l, a[3], a[4]) {
        return e;
    }
    let r = thread::wait_or_signal(l, nr::PPOLL, [a[0], a[1], a[2], 0, 0, 0]);
    look_for_ends(&a, r);
    end_mask(l);
    r
}

/// The answer for descriptors whose input is fed, if there is one.
fn fed(l: &mut Local, at: usize, count: usize) -> Option<isize> {
    if !pushback::any() || count > 4096 {
        return None;
    }
    let _guard = engine().lock.acquire(l);
    let mut ready = 0;
    for i in 0..count {
        let p = user::read::<PollFd>(at + i * 8)?;
        if p.events & POLLIN != 0 && pushback::has(p.fd) {
            ready += 1;
        }
    }
    if ready == 0 {
        return None;
    }
    // What the kernel says of the others, without waiting.
    sys!(POLL, at, count, 0);
    let mut n = 0;
    for i in 0..count {
        let mut p = user::read::<PollFd>(at + i * 8)?;
        if p.events & POLLIN != 0 && pushback::has(p.fd) {
            p.revents |= POLLIN;
            user::write(at + i * 8, &p);
        }
        n += (p.revents != 0) as isize;
    }
    Some(n)
}

pub fn select(l: &mut Local, a: [usize; 6]) -> isize {
    if let Some(r) = fed_select(l, a) {
        return r;
    }
    thread::wait_or_signal(l, nr::SELECT, a)
}

pub fn pselect6(l: &mut Local, a: [usize; 6]) -> isize {
    if let Some(r) = fed_select(l, a) {
        return r;
    }
    if a[5] != 0 {
        let Some([mask, size]) = user::read::<[usize; 2]>(a[5]) else {
            return -EFAULT;
        };
        if let Err(e) = with_mask(l, mask, size) {
            return e;
        }
    }
    let r = thread::wait_or_signal(l, nr::PSELECT6, [a[0], a[1], a[2], a[3], a[4], 0]);
    end_mask(l);
    r
}

fn fed_select(l: &mut Local, a: [usize; 6]) -> Option<isize> {
    if !pushback::any() || a[1] == 0 || a[0] > 1024 {
        return None;
    }
    let _guard = engine().lock.acquire(l);
    let words = a[0].div_ceil(64);
    let mut want = [0u64; 16];
    for (i, w) in want.iter_mut().enumerate().take(words) {
        *w = user::read(a[1] + i * 8)?;
    }
    let mut fed = [0u64; 16];
    let mut any = false;
    for fd in 0..a[0] {
        if want[fd / 64] & (1 << (fd % 64)) != 0 && pushback::has(fd as i32) {
            fed[fd / 64] |= 1 << (fd % 64);
            any = true;
        }
    }
    if !any {
        return None;
    }
    let zero = [0usize; 2];
    sys!(SELECT, a[0], a[1], a[2], a[3], &raw const zero);
    let mut n = 0;
    for (which, &set) in a[1..4].iter().enumerate() {
        if set == 0 {
            continue;
        }
        for (i, &ready) in fed.iter().enumerate().take(words) {
            let mut w: u64 = user::read(set + i * 8)?;
            if which == 0 {
                w |= ready;
                user::write(set + i * 8, &w);
            }
            n += w.count_ones() as isize;
        }
    }
    Some(n)
}
