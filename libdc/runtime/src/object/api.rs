//! The reserved system call by which a program that links libdc talks to us.
//!
//! `rdi` is the operation; the answers are those of `dc.h`.

use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::errno::*;
use crate::machine::user;
use core::sync::atomic::Ordering::*;

/// Far above what Linux will ever give out.
pub const NR: usize = 0xdc0;
const MAGIC: isize = 0x0dc0_0001;

pub fn call(l: &mut Local, a: [usize; 6]) -> isize {
    match a[0] {
        0 => MAGIC,
        1 => {
            // Saved as "after", answering 0.
            let _guard = engine().lock.acquire(l);
            l.commit_after = true;
            0
        }
        3 => {
            let _guard = engine().lock.acquire(l);
            register(a[1], a[2])
        }
        4 => statistics(a[1]),
        _ => -ENOSYS,
    }
}

/// The function that runs first after a recovery. It returns through a stub of
/// ours, into the state that it interrupted.
fn register(function: usize, arg: usize) -> isize {
    let root = &mut state().root;
    if function != 0 && root.recovery_return == 0 {
        match engine().stubs.return_stub(function) {
            Some(at) => root.recovery_return = at,
            None => return -ENOMEM,
        }
    }
    root.at_recovery = [function, arg];
    0
}

/// At recovery, before the first thread goes on.
pub fn call_recovery_function(l: &mut Local) {
    let root = &state().root;
    let [function, arg] = root.at_recovery;
    if function != 0 {
        crate::signal::deliver::call_function(l, function, arg, root.recovery_return);
    }
}

fn statistics(at: usize) -> isize {
    let live = engine().live();
    let s = [
        engine().store.published(),
        live.recoveries.load(Relaxed),
        live.pages_copied.load(Relaxed),
        live.commit_ns.load(Relaxed),
        live.visible_events.load(Relaxed),
        live.nd_events.load(Relaxed),
    ];
    if user::write(at, &s) { 0 } else { -EFAULT }
}
