//! Limits of resources, as getrlimit(2) has them.
//!
//! state:     [`Limits`]: what the program has set
//! intercept: getrlimit, setrlimit, prlimit64 of the process itself
//! restore:   setrlimit, before the right to raise them again is given up
//! survives:  warm and cold; where the kernel refuses, the recovery stops and says which
//!
//! The number of descriptors is the program's own view: those above ours are not its
//! business. RLIMIT_AS and RLIMIT_DATA are never told to the kernel, which would count
//! the runtime's memory too; `space::quota` enforces them. Of RLIMIT_CPU a new worker
//! has what is left. Of RLIMIT_FSIZE and RLIMIT_NPROC the kernel is told the soft limit only:
//! so the runtime can lift it for what it needs itself ([`lifted`]), an image that grows and a
//! companion. sshd sets both to 0 in the process that others talk to.
#![allow(unsafe_code)]

use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::object::{cpu_time, identity, set_by_others};
use crate::{fatal, sys};
use dc_image::FatalCode;

const RLIMIT_CPU: usize = 0;
pub const RLIMIT_FSIZE: usize = 1;
pub const RLIMIT_DATA: usize = 2;
pub const RLIMIT_NPROC: usize = 6;
const RLIMIT_NOFILE: usize = 7;
pub const RLIMIT_AS: usize = 9;
pub const COUNT: usize = 16;
const INFINITY: u64 = u64::MAX;
const NAMES: [&str; COUNT] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Limits {
    /// A bit for each that the program has set.
    pub set: u64,
    /// Soft, hard.
    pub values: [[u64; 2]; COUNT],
}

/// A fresh program: limits of memory that dcrun was called under.
pub fn begin() {
    let limits = &mut state().root.limits;
    let given = engine().boot.memory_limits;
    for (resource, limit) in [RLIMIT_AS, RLIMIT_DATA].into_iter().zip(given) {
        if limit[0] != INFINITY {
            limits.set |= 1 << resource;
            limits.values[resource] = limit;
        }
    }
}

/// Whether the kernel may end this process when it has used its time.
pub fn may_end_it() -> bool {
    state().root.limits.set & 1 << RLIMIT_CPU != 0
}

/// Whether the runtime enforces a limit, or has its own view of it.
fn is_ours(resource: usize) -> bool {
    matches!(resource, RLIMIT_NOFILE | RLIMIT_AS | RLIMIT_DATA)
}

/// Whether the runtime lifts a limit now and then.
fn is_lifted(resource: usize) -> bool {
    matches!(resource, RLIMIT_FSIZE | RLIMIT_NPROC)
}

/// What the kernel is told of a limit that is lifted: the hard one only grows.
fn with_kernels_hard(resource: usize, want: [u64; 2]) -> [u64; 2] {
    let hard = in_kernel(resource).map_or(want[1], |kernel| kernel[1]);
    [want[0], want[1].max(hard)]
}

fn in_kernel(resource: usize) -> Result<[u64; 2], isize> {
    let mut kernel = [0u64; 2];
    let r = sys!(PRLIMIT64, 0, resource, 0, kernel.as_mut_ptr());
    if failed(r) { Err(r) } else { Ok(kernel) }
}

/// Does something for the runtime that the program's limit is not meant for.
pub fn lifted<T>(resource: usize, make: impl FnOnce() -> T) -> T {
    let [soft, hard] = in_kernel(resource).unwrap_or([INFINITY; 2]);
    if soft == hard {
        return make();
    }
    sys!(PRLIMIT64, 0, resource, [hard; 2].as_ptr(), 0);
    let made = make();
    sys!(PRLIMIT64, 0, resource, [soft, hard].as_ptr(), 0);
    made
}

/// getrlimit(2), setrlimit(2), prlimit(2).
pub fn call(l: &mut Local, a: [usize; 6]) -> isize {
    let (resource, new, old) = match l.frame.nr {
        nr::GETRLIMIT => (a[0], 0, a[1]),
        nr::SETRLIMIT => (a[0], a[1], 0),
        _ if a[0] != 0 && a[0] as i32 != state().root.pid => {
            return of_another(a);
        }
        _ => (a[1], a[2], a[3]),
    };
    if resource >= COUNT {
        // SAFETY: as above.
        return unsafe { crate::machine::sys::raw6(l.frame.nr, a) };
    }
    let current = match value(resource) {
        Ok(current) => current,
        Err(r) => return r,
    };
    if new != 0 {
        let Some(want) = user::read::<[u64; 2]>(new) else {
            return -EFAULT;
        };
        let r = set(resource, want, current);
        if failed(r) {
            return r;
        }
        if resource == RLIMIT_CPU {
            // A process that the kernel ends at it is to be known then.
            identity::commit_soon(l);
        }
    }
    if old != 0 && !user::write(old, &current) {
        return -EFAULT;
    }
    0
}

/// prlimit(2) of another process. The limits that the kernel is not told of only their own
/// process can set.
fn of_another(mut a: [usize; 6]) -> isize {
    let is_of_run = crate::run::known_as(a[0] as i32).is_some();
    a[0] = set_by_others::real(a[0]);
    if a[2] == 0 {
        // SAFETY: the program's own call with its own arguments.
        return unsafe { crate::machine::sys::raw6(nr::PRLIMIT64, a) };
    }
    if is_of_run && is_ours(a[1]) {
        crate::say!(
            "a limit of descriptors or memory of another process of the run cannot be set \
             (prlimit); ulimit in that process can"
        );
        return -EPERM;
    }
    set_by_others::call(nr::PRLIMIT64, a)
}

/// What the kernel has now is what is to come back.
pub fn note_all() {
    for resource in (0..COUNT).filter(|&i| !is_ours(i)) {
        let Ok(kernel) = in_kernel(resource) else {
            continue;
        };
        let limits = &mut state().root.limits;
        let known = left(resource, limits.values[resource]);
        let is_known = match is_lifted(resource) {
            true => known[0] == kernel[0],
            false => known == kernel,
        };
        if limits.set & 1 << resource == 0 || !is_known {
            limits.set |= 1 << resource;
            limits.values[resource] = with_used(resource, kernel);
        }
    }
}

/// How many lie below the reserved numbers.
fn descriptors() -> u64 {
    engine().boot.fd_base as u64
}

/// A limit as the program knows it.
pub fn value(resource: usize) -> Result<[u64; 2], isize> {
    let root = &state().root;
    if resource == RLIMIT_NOFILE {
        // More cannot be had: a program that raises its limit as far as it may uses the last
        // numbers first (valgrind).
        return Ok(root.nofile.map(|limit| limit.min(descriptors())));
    }
    if root.limits.set & 1 << resource != 0 {
        return Ok(root.limits.values[resource]);
    }
    in_kernel(resource)
}

fn set(resource: usize, want: [u64; 2], current: [u64; 2]) -> isize {
    if want[0] > want[1] {
        return -EINVAL;
    }
    let root = &mut state().root;
    if resource == RLIMIT_NOFILE {
        if want[1] > root.nofile[1] {
            return -EPERM;
        }
        root.nofile = want;
        return 0;
    }
    if is_ours(resource) {
        if want[1] > current[1] {
            return -EPERM;
        }
    } else {
        if is_lifted(resource) && want[1] > current[1] && !identity::may_raise_limits() {
            return -EPERM;
        }
        let told = told(resource, want);
        let r = sys!(PRLIMIT64, 0, resource, told.as_ptr(), 0);
        if failed(r) {
            return r;
        }
    }
    root.limits.set |= 1 << resource;
    root.limits.values[resource] = want;
    0
}

/// What the kernel is told of a limit.
fn told(resource: usize, want: [u64; 2]) -> [u64; 2] {
    match is_lifted(resource) {
        true => with_kernels_hard(resource, want),
        false => left(resource, want),
    }
}

/// Of processor time, what earlier workers have left of it.
fn left(resource: usize, want: [u64; 2]) -> [u64; 2] {
    if resource != RLIMIT_CPU {
        return want;
    }
    let used_s = cpu_time::of_earlier_workers_ns() / 1_000_000_000;
    want.map(|limit| match limit {
        INFINITY => INFINITY,
        limit => limit.saturating_sub(used_s).max(1),
    })
}

/// And the way back.
fn with_used(resource: usize, kernel: [u64; 2]) -> [u64; 2] {
    if resource != RLIMIT_CPU {
        return kernel;
    }
    let used_s = cpu_time::of_earlier_workers_ns() / 1_000_000_000;
    kernel.map(|limit| limit.saturating_add(used_s))
}

/// At recovery, before rights are given up.
pub fn restore() {
    let limits = state().root.limits;
    for resource in (0..COUNT).filter(|&i| limits.set & 1 << i != 0 && !is_ours(i)) {
        let want = told(resource, limits.values[resource]);
        let r = sys!(PRLIMIT64, 0, resource, want.as_ptr(), 0);
        if failed(r) {
            fatal::stop(
                FatalCode::CannotRestore,
                r,
                format_args!(
                    "restore RLIMIT_{} (soft {}, hard {}): error {}; resume with limits that \
                     are no lower, or as root",
                    NAMES[resource], want[0], want[1], -r
                ),
            );
        }
    }
}
