//! Signals that suspend the run instead of being the program's (`--on-term`, `--on-hup`).
//!
//! At a shutdown everybody gets SIGTERM, keeper and workers alike and in any order. So the keeper
//! leaves in the image which signals mean it (`Live::suspend_on`), and whoever takes one from the
//! kernel that was sent by nobody of the run drops it and tells the keeper. What a process of the
//! run sends is the program's own affair, as ever.

use super::queue::SigInfo;
use super::{SIG_DFL, bit, calls, outside};
use crate::engine::{engine, state};
use crate::machine::frame::{ATTENTION_STOP, Local};
use crate::machine::sys::errno::EPERM;
use crate::object::group::KEEPERS;
use crate::{run, sys};
use core::sync::atomic::Ordering::*;

const SIGHUP: i32 = 1;
/// What wakes the keeper, and would do nothing else to it.
const SIGCONT: i32 = 18;
const SI_USER: i32 = 0;
const SI_QUEUE: i32 = -1;
const SI_TKILL: i32 = -6;
const SI_KERNEL: i32 = 0x80;

/// The signals that suspend the run.
pub fn signals() -> u64 {
    match engine().live.is_null() {
        true => 0,
        false => engine().live().suspend_on.load(Relaxed),
    }
}

/// Whether a signal that the kernel gave asks for the run's suspension; then the keeper is told,
/// and the program gets nothing.
pub fn is_asked_by(info: &SigInfo) -> bool {
    let is_meant = info.signo < 32 && signals() & bit(info.signo) != 0;
    if !is_meant || info.errno == outside::OF_RUN || !is_from_outside(info) {
        return false;
    }
    ask(info.signo);
    true
}

fn is_from_outside(info: &SigInfo) -> bool {
    match info.code {
        SI_USER | SI_QUEUE | SI_TKILL => {
            let sender = outside::sender_of(info);
            sender != sys!(GETPID) as i32 && !run::signals::is_from_run(sender)
        }
        // The terminal that dcrun was given has gone; one of the run's own is the run's affair.
        SI_KERNEL => info.signo == SIGHUP && run::me().session.get() == KEEPERS,
        _ => false,
    }
}

fn ask(signo: i32) {
    let live = engine().live();
    live.suspend_wanted.store(signo as u32, SeqCst);
    let keeper = live.keeper_pid.load(Relaxed) as isize;
    // (One that is not the parent has died, and so does this process.)
    if sys!(GETPPID) == keeper && sys!(KILL, keeper, SIGCONT) == -EPERM {
        // Whoever has given up its rights has the keeper's thread tell it.
        run::unit::wake_keeper();
    }
}

/// Has the runtime told of such signals where the program has left them as they are: its worker
/// must not die of one.
pub fn install() {
    for signo in (1..32).filter(|&signo| signals() & bit(signo) != 0) {
        let action = state().root.actions[signo as usize];
        if action.handler == SIG_DFL {
            calls::install_for(signo, &action);
        }
    }
}

/// The runtime's own signal has come: does the keeper want a commit? It is made as by the clock
/// of `--interval`.
pub fn take_request(l: &mut Local) {
    let live = engine().live();
    if live.commit_wanted.load(Relaxed) != 0 && live.commit_wanted.swap(0, SeqCst) != 0 {
        engine().tick.store(true, Relaxed);
        l.attention.fetch_or(ATTENTION_STOP, SeqCst);
    }
}

/// Whether what was read from a signalfd is one such signal (`struct signalfd_siginfo`).
pub fn is_asked_by_read(bytes: &[u8]) -> bool {
    let word = |at: usize| {
        bytes
            .get(at..at + 4)?
            .try_into()
            .ok()
            .map(i32::from_le_bytes)
    };
    let (Some(signo), Some(code), Some(sender)) = (word(0), word(8), word(12)) else {
        return false;
    };
    let mut info = SigInfo {
        signo,
        errno: 0,
        code,
        rest: [0; 116],
    };
    info.rest[4..8].copy_from_slice(&sender.to_le_bytes());
    signo > 0 && is_asked_by(&info)
}
