//! process_vm_readv(2) and process_vm_writev(2): memory of a process that is named.
//!
//! survives:  what is written into the process's own memory, as any store; that of another
//!            process of the run can be read, and not written (EPERM); of others committed around

use crate::engine::engine;
use crate::machine::frame::Local;
use crate::machine::sys::errno::*;
use crate::machine::user;
use crate::{run, space, sys, table};

/// Parts that one call may name (IOV_MAX).
const PARTS: usize = 1024;

pub fn read(_l: &mut Local, a: [usize; 6]) -> isize {
    let [pid, local, count, remote, remote_count, flags] = a;
    let pid = run::real_id(pid as i32);
    sys!(
        PROCESS_VM_READV,
        pid,
        local,
        count,
        remote,
        remote_count,
        flags
    )
}

pub fn write(l: &mut Local, a: [usize; 6]) -> isize {
    let [pid, local, count, remote, remote_count, flags] = a;
    let Some((slot, p)) = run::known_as(pid as i32) else {
        return table::around(l, a, None);
    };
    if slot != engine().slot {
        return -EPERM;
    }
    let _guard = engine().lock.acquire(l);
    // The kernel stores where this process may, and sleeping memory is read-only.
    for part in 0..remote_count.min(PARTS) {
        let Some([at, len]) = user::read::<[usize; 2]>(remote + 16 * part) else {
            break;
        };
        let end = at.saturating_add(len);
        engine().pieces.wake(at, end);
        if engine().shared.any() {
            space::shared::open(at, end);
        }
    }
    let pid = p.real.load(core::sync::atomic::Ordering::Relaxed);
    sys!(
        PROCESS_VM_WRITEV,
        pid,
        local,
        count,
        remote,
        remote_count,
        flags
    )
}
