//! Whether there may be descriptors that the table does not know.
//!
//! The kernel makes one by a call that we do not know, by a device's command, by a message.
//! The table learns of it when the program uses it. Who has to close all descriptors asks
//! here how far they reach: the numbers that a program could have may be half a million, and
//! the kernel looks at each. What is not certain is taken for possible, so a process that was
//! recovered, or whose parent was, always looks at all.

use crate::engine::{engine, state};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Inherited by children with the memory of the runtime.
static MAY_BE: AtomicBool = AtomicBool::new(true);

/// A fresh worker has entered what it was given, all of which lies below `known`.
pub fn begin(known: i32) {
    MAY_BE.store(engine().boot.inherited_end > known, Relaxed);
}

/// A call may make a descriptor, or more, that nobody enters.
pub fn may_come() {
    MAY_BE.store(true, Relaxed);
}

pub fn may_be() -> bool {
    MAY_BE.load(Relaxed)
}

/// The number that no descriptor of this process's program reaches.
pub fn end() -> i32 {
    match may_be() {
        true => engine().boot.fd_base,
        false => state().root.fd_high as i32,
    }
}

/// An option of a socket is asked for: some answer with a descriptor (SO_PEERPIDFD,
/// SCTP_SOCKOPT_PEELOFF).
pub fn option_asked(level: usize, name: usize) {
    const SOL_SOCKET: usize = 1;
    const FIRST_OF_THEM: usize = 77;
    // IP, TCP, UDP, IPv6.
    let is_plain = match level {
        SOL_SOCKET => name < FIRST_OF_THEM,
        level => matches!(level, 0 | 6 | 17 | 41),
    };
    if !is_plain {
        may_come();
    }
}

/// A command of ioctl(2) is passed on: those of terminals make none that is not entered.
pub fn commanded(command: usize) {
    const OF_TERMINALS: usize = 0x54;
    if command >> 8 != OF_TERMINALS {
        may_come();
    }
}
