//! Processor time: what the program was told of it never goes back.
//!
//! A new worker has used none. So each clock goes on from what the last committed state
//! was told of it; what was used and never asked for is not counted.
//!
//! state:     [`CpuTime`] of the process, of its dead children, and of each thread
//! intercept: clock_gettime of the processor's clocks, times, getrusage
//! survives:  warm and cold
#![allow(unsafe_code)]

use crate::engine::{MAX_THREADS, engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::sys;

const PROCESS: usize = 2;
const THREAD: usize = 3;
const NS: u64 = 1_000_000_000;
/// Nanoseconds of a tick of times(2).
const TICK: u64 = NS / 100;

/// Of a process or thread, in nanoseconds: all, in user mode, in the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct CpuTime {
    /// Used by workers before this one.
    earlier: [u64; 3],
    told: [u64; 3],
}

#[derive(Clone, Copy)]
enum Part {
    All = 0,
    User = 1,
    System = 2,
}

impl CpuTime {
    pub const ZERO: CpuTime = CpuTime {
        earlier: [0; 3],
        told: [0; 3],
    };

    /// What the program is told when the kernel says `now`.
    fn tell(&mut self, part: Part, now: u64) -> u64 {
        let i = part as usize;
        let all = (now + self.earlier[i]).max(self.told[i]);
        if self.told[i] != all {
            self.told[i] = all;
        }
        all
    }

    fn goes_on(&mut self) {
        let [all, user, system] = self.told;
        self.earlier = [all.max(user + system), user, system];
        self.told = self.earlier;
    }
}

/// A child was waited for: to the kernel it was the keeper's, so what it used, and what its own
/// children did, is counted here.
pub fn child_ended(user_us: u64, system_us: u64) {
    let time = &mut state().root.cpu_of_children;
    let (user, system) = (user_us * 1000, system_us * 1000);
    for (i, ns) in [user + system, user, system].into_iter().enumerate() {
        time.earlier[i] += ns;
        time.told[i] = time.told[i].max(time.earlier[i]);
    }
}

/// What this process and the children that it has waited for have used, in microseconds: in
/// user mode, in the kernel.
pub fn of_self_and_children() -> [u64; 2] {
    let mut usage = [0u64; 18];
    sys!(GETRUSAGE, 0, usage.as_mut_ptr());
    let [us, uu, ss, su, ..] = usage;
    let root = &mut state().root;
    let user = root.cpu.tell(Part::User, us * NS + uu * 1000);
    let system = root.cpu.tell(Part::System, ss * NS + su * 1000);
    let children = root.cpu_of_children.told;
    [
        (user + children[Part::User as usize]) / 1000,
        (system + children[Part::System as usize]) / 1000,
    ]
}

/// At recovery.
pub fn restore() {
    let s = state();
    s.root.cpu.goes_on();
    s.root.cpu_of_children.goes_on();
    for record in s.threads.iter_mut().filter(|t| t.used != 0) {
        record.cpu.goes_on();
    }
}

pub fn of_earlier_workers_ns() -> u64 {
    state().root.cpu.earlier[0]
}

/// clock_gettime(2). The common clocks go straight to the kernel.
#[inline]
pub fn clock_gettime(l: &mut Local, a: [usize; 6]) -> isize {
    let clock = a[0] as i32;
    if clock != PROCESS as i32 && clock != THREAD as i32 && clock >= 0 {
        return sys!(CLOCK_GETTIME, a[0], a[1]);
    }
    of_processor(l, clock, a[1])
}

#[cold]
fn of_processor(l: &mut Local, clock: i32, at: usize) -> isize {
    let _guard = engine().lock.acquire(l);
    let (real, slot) = match clock {
        2 => (clock, None),
        3 => (clock, Some(l.slot as usize)),
        _ => translated(l, clock),
    };
    let mut now = [0u64; 2];
    let r = sys!(CLOCK_GETTIME, real, now.as_mut_ptr());
    if failed(r) {
        return r;
    }
    const KIND: i32 = 3;
    let part = match clock < 0 && clock & KIND == 1 {
        true => Part::User,
        false => Part::All,
    };
    let ns = now[0] * NS + now[1];
    let told = match slot {
        _ if clock < 0 && is_foreign(clock) => ns,
        None => state().root.cpu.tell(part, ns),
        Some(slot) => state().threads[slot].cpu.tell(part, ns),
    };
    if user::write(at, &[told / NS, told % NS]) {
        0
    } else {
        -EFAULT
    }
}

/// Clocks below 0 hold the complement of a process or thread number, shifted by 3, a
/// bit that says thread, and a kind.
const OF_THREAD: i32 = 4;

fn number_of(clock: i32) -> i32 {
    !(clock >> 3)
}

fn slot_of(tid: i32) -> Option<usize> {
    (0..MAX_THREADS).find(|&i| state().threads[i].used != 0 && state().threads[i].tid == tid)
}

/// Whether a clock is another process's.
fn is_foreign(clock: i32) -> bool {
    let number = number_of(clock);
    number != 0 && number != state().root.pid && slot_of(number).is_none()
}

/// The kernel's number for such a clock, and the thread that it is of.
fn translated(l: &Local, clock: i32) -> (i32, Option<usize>) {
    let number = number_of(clock);
    let slot = match clock & OF_THREAD {
        0 => None,
        _ if number == 0 => Some(l.slot as usize),
        _ => slot_of(number),
    };
    let real = match number {
        0 => 0,
        n if n == state().root.pid && slot.is_none() => engine().pid,
        n => crate::thread::real_tid(n),
    };
    ((!real << 3) | (clock & 7), slot)
}

/// times(2): user, system, and the same of dead children, in ticks.
pub fn times(l: &mut Local, a: [usize; 6]) -> isize {
    let _guard = engine().lock.acquire(l);
    let mut now = [0u64; 4];
    let r = sys!(TIMES, now.as_mut_ptr());
    if failed(r) || a[0] == 0 {
        return r;
    }
    let root = &mut state().root;
    let told = [
        root.cpu.tell(Part::User, now[0] * TICK) / TICK,
        root.cpu.tell(Part::System, now[1] * TICK) / TICK,
        root.cpu_of_children.tell(Part::User, now[2] * TICK) / TICK,
        root.cpu_of_children.tell(Part::System, now[3] * TICK) / TICK,
    ];
    if user::write(a[0], &told) { r } else { -EFAULT }
}

/// getrusage(2): the first two of its values are times.
pub fn getrusage(l: &mut Local, a: [usize; 6]) -> isize {
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(l.frame.nr, a) };
    if failed(r) {
        return r;
    }
    let _guard = engine().lock.acquire(l);
    let Some([us, uu, ss, su]) = user::read::<[u64; 4]>(a[1]) else {
        return r;
    };
    let s = state();
    let time = match a[0] as i32 {
        0 => &mut s.root.cpu,
        -1 => &mut s.root.cpu_of_children,
        _ => &mut s.threads[l.slot as usize].cpu,
    };
    let user_ns = time.tell(Part::User, us * NS + uu * 1000);
    let system_ns = time.tell(Part::System, ss * NS + su * 1000);
    let split = |ns: u64| [ns / NS, ns % NS / 1000];
    let ([a0, a1], [b0, b1]) = (split(user_ns), split(system_ns));
    user::write(a[1], &[a0, a1, b0, b1]);
    r
}
