//! semget, semop, semtimedop, semctl: sets of semaphores.
//!
//! An operation is tried under the run's lock: all of it or nothing. Where it would wait,
//! the thread sleeps on the set's futex without the lock, and tries again when the set has
//! changed.

use super::info::{self, Asks};
use super::room::*;
use super::*;

pub const SETS_MOST: usize = 32000;
pub const OPS_MOST: usize = 500;
pub const VALUE_MOST: i32 = 32767;
const SEM_UNDO: i16 = 0x1000;
const NOWAIT: i16 = IPC_NOWAIT as i16;
const OTIME: usize = 0;
const CTIME: usize = 2;

const GETPID: usize = 11;
const GETVAL: usize = 12;
const GETALL: usize = 13;
const GETNCNT: usize = 14;
const GETZCNT: usize = 15;
const SETVAL: usize = 16;
const SETALL: usize = 17;

#[derive(Clone, Copy)]
#[repr(C)]
struct Semaphore {
    value: i32,
    pid: i32,
}

/// `struct sembuf`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Op {
    number: u16,
    amount: i16,
    flags: i16,
}

fn semaphores(o: &Object) -> &'static mut [Semaphore] {
    values(o, 0, o.size as usize)
}

pub fn get(l: &mut Local, a: [usize; 6]) -> isize {
    let (key, count, flags) = (a[0] as i32, a[1] as i32, a[2]);
    if count < 0 || count as usize > SETS_MOST {
        return -EINVAL;
    }
    let fits = |o: &Object| if count as u64 > o.size { -EINVAL } else { 0 };
    let r = super::get(Family::Semaphores, key, flags, fits, |o| {
        if count == 0 {
            return Err(-EINVAL);
        }
        o.size = count as u64;
        let len = count as usize * size_of::<Semaphore>();
        let units = len.div_ceil(UNIT);
        o.unit = take_units(units).ok_or(-ENOSPC)?;
        o.units = units as u32;
        before_change(o.at(), len);
        semaphores(o).fill(Semaphore { value: 0, pid: 0 });
        Ok(())
    });
    event::non_deterministic(l);
    r
}

pub fn operate(l: &mut Local, a: [usize; 6]) -> isize {
    timed(l, [a[0], a[1], a[2], 0, 0, 0])
}

/// semtimedop(2).
pub fn timed(l: &mut Local, a: [usize; 6]) -> isize {
    let [id, at, count, time, ..] = a;
    if count == 0 {
        return -EINVAL;
    }
    if count > OPS_MOST {
        return -E2BIG;
    }
    let mut ops = [Op {
        number: 0,
        amount: 0,
        flags: 0,
    }; OPS_MOST];
    for (i, op) in ops[..count].iter_mut().enumerate() {
        match user::read::<Op>(at.wrapping_add(i * size_of::<Op>())) {
            Some(read) => *op = read,
            None => return -EFAULT,
        }
    }
    let ops = &ops[..count];
    let end = match time {
        0 => None,
        _ => match user::read::<[u64; 2]>(time) {
            Some([s, ns]) if s <= i64::MAX as u64 && ns < 1_000_000_000 => {
                let ns = s.saturating_mul(1_000_000_000).saturating_add(ns);
                Some(thread::moment::end_of_wait(l, nr::SEMTIMEDOP, &a, ns).0)
            }
            Some(_) => return -EINVAL,
            None => return -EFAULT,
        },
    };
    until_done(l, end, |waited| attempt(id, ops, waited))
}

fn attempt(id: usize, ops: &[Op], waited: bool) -> Attempt {
    let o = match find(Family::Semaphores, id) {
        Ok(o) => o,
        Err(_) if waited => return Attempt::Done(-EIDRM),
        Err(e) => return Attempt::Done(e),
    };
    if ops.iter().any(|op| op.number as u64 >= o.size) {
        return Attempt::Done(-EFBIG);
    }
    let alters = ops.iter().any(|op| op.amount != 0);
    if !permits(o, if alters { WRITE } else { READ }) {
        return Attempt::Done(-EACCES);
    }
    match try_all(o, ops) {
        Err(r) => Attempt::Done(r),
        Ok(Some(blocked)) if blocked.flags & NOWAIT != 0 => Attempt::Done(-EAGAIN),
        Ok(Some(blocked)) => {
            let mut wait = Blocked::on(Family::Semaphores, o);
            wait.number = blocked.number;
            wait.for_zero = blocked.amount == 0;
            Attempt::Blocked(wait)
        }
        Ok(None) => Attempt::Done(apply(o, ops)),
    }
}

/// Whether all of it can be done; else the operation that has to wait.
fn try_all<'a>(o: &Object, ops: &'a [Op]) -> Result<Option<&'a Op>, isize> {
    let all = semaphores(o);
    for (i, op) in ops.iter().enumerate() {
        let same = |other: &&Op| other.number == op.number;
        let before: i32 = ops[..i]
            .iter()
            .filter(same)
            .map(|op| i32::from(op.amount))
            .sum();
        let value = all[op.number as usize].value + before;
        let after = value + i32::from(op.amount);
        if op.amount == 0 && value != 0 || after < 0 {
            return Ok(Some(op));
        }
        if after > VALUE_MOST {
            return Err(-ERANGE);
        }
        if op.flags & SEM_UNDO != 0 {
            let adjust = adjustment(o, op.number) - i32::from(op.amount);
            if !(-VALUE_MOST - 1..=VALUE_MOST).contains(&adjust) {
                return Err(-ERANGE);
            }
        }
    }
    Ok(None)
}

fn apply(o: &mut Object, ops: &[Op]) -> isize {
    // First what may fail.
    let undone = ops.iter().filter(|op| op.flags & SEM_UNDO != 0);
    for op in undone.clone() {
        if undo_entry(o, op.number, true).is_none() {
            return -ENOSPC;
        }
    }
    for op in ops.iter().filter(|op| op.amount != 0) {
        let s = &mut semaphores(o)[op.number as usize];
        let new = Semaphore {
            value: s.value + i32::from(op.amount),
            pid: pid(),
        };
        change(s, new);
    }
    for op in undone {
        if let Some(u) = undo_entry(o, op.number, true) {
            let adjust = u.adjust - i32::from(op.amount);
            change(&mut u.adjust, adjust);
        }
    }
    for op in ops.iter().filter(|op| op.amount == 0) {
        let s = &mut semaphores(o)[op.number as usize];
        change(&mut s.pid, pid());
    }
    let now = seconds();
    if o.times[OTIME] != now {
        change(&mut o.times[OTIME], now);
    }
    if ops.iter().any(|op| op.amount != 0) {
        tell(o);
    }
    0
}

fn adjustment(o: &Object, number: u16) -> i32 {
    undo_entry(o, number, false).map_or(0, |u| u.adjust)
}

/// What this process gives back to a semaphore at its end.
fn undo_entry(o: &Object, number: u16, make: bool) -> Option<&'static mut Undo> {
    let set = index_of(Family::Semaphores, o) as u16;
    let own = process();
    let mut free = None;
    for (i, u) in room().undos.iter().enumerate() {
        if u.process == own && u.set == set && u.number == number {
            return Some(&mut room().undos[i]);
        }
        if u.process == 0 && free.is_none() {
            free = Some(i);
        }
    }
    if !make {
        return None;
    }
    let u = &mut room().undos[free?];
    let new = Undo {
        process: own,
        set,
        number,
        adjust: 0,
    };
    change(u, new);
    Some(u)
}

/// A process ends: its operations with SEM_UNDO are taken back.
pub fn ends(of: u32) {
    for u in room().undos.iter_mut().filter(|u| u.process == of) {
        let o = &mut room().objects[Family::Semaphores as usize][u.set as usize];
        if o.used == MADE && (u.number as u64) < o.size && u.adjust != 0 {
            let s = &mut semaphores(o)[u.number as usize];
            let new = Semaphore {
                value: (s.value + u.adjust).clamp(0, VALUE_MOST),
                pid: crate::run::process(of as usize - 1).id.load(Relaxed),
            };
            change(s, new);
            tell(o);
        }
        change(&mut u.process, 0);
    }
}

/// Nothing is given back any more: to one semaphore of a set, or to all of it.
fn forget_undo(o: &Object, number: Option<u16>) {
    let set = index_of(Family::Semaphores, o) as u16;
    let of = |u: &&mut Undo| {
        u.process != 0 && u.set == set && number.is_none_or(|number| u.number == number)
    };
    for u in room().undos.iter_mut().filter(of) {
        change(&mut u.process, 0);
    }
}

/// `struct semid64_ds` behind its first part.
fn status(o: &Object) -> [u64; 7] {
    [o.times[OTIME], 0, o.times[CTIME], 0, o.size, 0, 0]
}

pub fn control(l: &mut Local, a: [usize; 6]) -> isize {
    let (number, command, argument) = (a[1], a[2], a[3]);
    event::non_deterministic(l);
    match info::asks(Family::Semaphores, command) {
        Some(Asks::Place { checked }) => {
            return match info::at_place(Family::Semaphores, a[0], checked) {
                Ok((id, o)) => given(give_status(o, argument, &status(o)), id),
                Err(e) => e,
            };
        }
        Some(asks) => return info::answer(Family::Semaphores, asks, argument),
        None => {}
    }
    let of_one = matches!(command, GETPID | GETVAL | GETNCNT | GETZCNT | SETVAL);
    if !of_one && !matches!(command, IPC_RMID | IPC_SET | IPC_STAT | GETALL | SETALL) {
        return -EINVAL;
    }
    let o = match find(Family::Semaphores, a[0]) {
        Ok(o) => o,
        Err(e) => return e,
    };
    match command {
        IPC_SET | IPC_RMID if !owns(o) => return -EPERM,
        IPC_SET => return set_permission(o, argument),
        IPC_RMID => {
            forget_undo(o, None);
            remove(o);
            return 0;
        }
        _ => {}
    }
    let sets = matches!(command, SETVAL | SETALL);
    if !permits(o, if sets { WRITE } else { READ }) {
        return -EACCES;
    }
    if of_one && number as i32 as u32 as u64 >= o.size {
        return -EINVAL;
    }
    let all = semaphores(o);
    match command {
        IPC_STAT => give_status(o, argument, &status(o)),
        GETPID => all[number].pid as isize,
        GETVAL => all[number].value as isize,
        GETNCNT | GETZCNT => waiting(o, number as u16, command == GETZCNT),
        GETALL => written(
            all.iter()
                .enumerate()
                .all(|(i, s)| user::write(argument + i * 2, &(s.value as u16))),
        ),
        SETVAL => {
            let value = argument as i32;
            if !(0..=VALUE_MOST).contains(&value) {
                return -ERANGE;
            }
            forget_undo(o, Some(number as u16));
            set(&mut all[number], value);
            after_set(o)
        }
        _ => {
            for i in 0..all.len() {
                match user::read::<u16>(argument + i * 2) {
                    Some(v) if i32::from(v) <= VALUE_MOST => {}
                    Some(_) => return -ERANGE,
                    None => return -EFAULT,
                }
            }
            forget_undo(o, None);
            for (i, s) in all.iter_mut().enumerate() {
                let value = user::read::<u16>(argument + i * 2).unwrap_or(0);
                set(s, i32::from(value));
            }
            after_set(o)
        }
    }
}

fn set(s: &mut Semaphore, value: i32) {
    change(s, Semaphore { value, pid: pid() });
}

fn after_set(o: &mut Object) -> isize {
    change(&mut o.times[CTIME], seconds());
    tell(o);
    0
}

fn written(all: bool) -> isize {
    if all { 0 } else { -EFAULT }
}

fn waiting(o: &Object, number: u16, for_zero: bool) -> isize {
    let set = index_of(Family::Semaphores, o) as u16;
    let of = |w: &&Waiter| {
        w.process != 0
            && w.family == Family::Semaphores as u16
            && w.index == set
            && w.number == number
            && (w.for_zero != 0) == for_zero
    };
    room().waiters.iter().filter(of).count() as isize
}
