//! Signals from outside: input like any other, and as little to be lost.
//!
//! What the terminal or another process sent comes once. It is on its way
//! through the kernel (the keeper looks what a dead worker left pending there),
//! through the queue (counted here, when it enters and when it leaves) and,
//! delivered, through the interval (in the journal until the next commit).
#![allow(unsafe_code)]

use super::queue::SigInfo;
use super::{RESERVED, SIGSYS, bit, suspension};
use crate::engine::{MAX_THREADS, engine, state};
use crate::machine::frame::{ATTENTION_SIGNAL, Local};
use crate::object::group::KEEPERS;
use crate::object::record;
use crate::object::seccomp::SYS_SECCOMP;
use crate::run::me;
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::stamp::Stamp;

const SI_USER: i32 = 0;
const SI_KERNEL: i32 = 0x80;
/// In `si_errno` of a signal that waits: a process of the run has sent it, and will send it
/// again after a rollback. (Linux leaves that field 0, and so the program finds it.)
pub const OF_RUN: i32 = 0x6463;

/// Whether nobody would send this signal again after a rollback. Timers are
/// armed again, faults and the program's own signals repeat themselves.
pub fn is(info: &SigInfo) -> bool {
    if info.errno == OF_RUN {
        return false;
    }
    let sender = sender_of(info);
    let terminal = info.code == SI_KERNEL && is_of_terminal(info.signo);
    let other = info.code == SI_USER
        && sender != sys!(GETPID) as i32
        && !crate::run::signals::is_from_run(sender);
    info.signo < 32 && (terminal || other)
}

pub fn sender_of(info: &SigInfo) -> i32 {
    i32::from_le_bytes([info.rest[4], info.rest[5], info.rest[6], info.rest[7]])
}

/// The run may have sent this signal to itself, or have set a timer for it: one that waits at
/// a death need not be another's.
pub fn is_own(signo: i32) {
    if (1..=64).contains(&signo) {
        engine().live().signals_own.fetch_or(bit(signo), SeqCst);
    }
}

/// Tells the keeper that a signal has come, which may have got one of its own: see
/// `addressee.rs` there. The time first, for it looks at the number.
fn tell_keeper(info: &SigInfo) {
    let live = engine().live();
    let signo = info.signo as usize;
    let sender = sender_of(info);
    if sender == live.keeper_pid.load(Relaxed) as i32 {
        live.signals_passed[signo].fetch_add(1, SeqCst);
    } else {
        let stamp = Stamp::new(crate::machine::clock::monotonic_ns(), sender);
        live.last_of_others[signo].store(stamp.word(), SeqCst);
        live.signals_of_others[signo].fetch_add(1, SeqCst);
    }
}

fn is_of_terminal(signo: i32) -> bool {
    matches!(signo, 1 | 2 | 3 | 20 | 28)
}

/// Puts a signal that the kernel gave into the thread's queue.
pub fn take(l: &mut Local, info: &SigInfo) {
    taken(info, |info| l.queue.push(info));
}

/// Into that of the process.
pub fn take_for_process(info: &SigInfo) {
    taken(info, super::for_process::push);
}

fn taken(info: &SigInfo, push: impl FnOnce(&SigInfo) -> bool) {
    if crate::run::signals::is_of_dead_leader(info) || suspension::is_asked_by(info) {
        return;
    }
    let from_outside = is(info);
    if from_outside && info.code == SI_USER && engine().slot == 0 {
        tell_keeper(info);
    }
    let mut info = *info;
    if !from_outside && info.code == SI_USER {
        info.errno = OF_RUN;
    }
    crate::run::signals::translate_sender(&mut info);
    if push(&info) && from_outside {
        crate::run::me().signals_taken[info.signo as usize].add(1, SeqCst);
    }
}

/// A signal that the kernel would send for what a process of the run has done: a rollback has
/// that done once more.
pub fn by_kernel_for_run(signo: i32) -> SigInfo {
    SigInfo {
        signo,
        errno: OF_RUN,
        code: SI_KERNEL,
        rest: [0; 116],
    }
}

/// As its sender sent it.
pub fn as_sent(info: &SigInfo) -> SigInfo {
    let mut info = *info;
    super::for_process::as_sent(&mut info);
    // (A filter of system calls says there what it wants.)
    let is_free = (info.signo, info.code) == (SIGSYS, SYS_SECCOMP);
    if info.errno == OF_RUN && !is_free {
        info.errno = 0;
    }
    info
}

/// It leaves the queue, to a handler or for nothing.
pub fn count(info: &SigInfo) {
    let delivered = &mut state().root.signals_delivered[info.signo as usize];
    *delivered = delivered.wrapping_add(1);
}

/// Until the next commit the journal has it, and where the thread was when it got it.
pub fn note(l: &Local, info: &SigInfo) {
    let place = super::held::place(l);
    let parts = [
        &l.slot.to_le_bytes()[..],
        &place.to_le_bytes(),
        record::bytes_of(info),
    ];
    record::append(record::SIGNAL, &parts);
}

/// At recovery: signals delivered since the commit are delivered again, and
/// those that a dead worker had taken and not delivered. (Cold, what a terminal of the run's own
/// has sent since comes again, for what brought it about is made again.)
pub fn restore(main: u32, warm: bool) {
    let comes_again = |signo: i32| !warm && is_of_terminal(signo) && me().session.get() != KEEPERS;
    for r in crate::object::record::own(0) {
        let (record::SIGNAL, Some(slot), Some(info)) = (
            r.kind,
            record::value_of::<u32>(r.payload),
            r.payload.get(8..).and_then(record::value_of::<SigInfo>),
        ) else {
            continue;
        };
        if info.code == SI_KERNEL && comes_again(info.signo) {
            continue;
        }
        let threads = &engine().threads;
        let gone = threads[slot as usize].is_null();
        push(if gone { main } else { slot }, &info);
    }
    if engine().slot == 0 {
        take_missed(main);
    }
    for signo in 1..32 {
        let taken = crate::run::me().signals_taken[signo].load(SeqCst);
        let delivered = &mut state().root.signals_delivered[signo];
        let known = queued(signo as i32);
        if taken.wrapping_sub(*delivered) > PLAUSIBLE {
            crate::run::seal::damaged(format_args!("its count of signals {signo}"));
        }
        let is_missing = taken.wrapping_sub(*delivered) > known && known == 0;
        if is_missing && !comes_again(signo as i32) {
            push(main, &sent(signo as i32));
        }
        // Of several that had not been delivered one is, like those of a kernel.
        *delivered = taken.wrapping_sub(queued(signo as i32));
    }
}

/// No queue of a dead worker has held so many signals of a number.
const PLAUSIBLE: u32 = 1 << 12;

/// What the keeper has kept for the program, whose first process this is: counted as taken before it is out of its hands, so that
/// another death does not lose it.
fn take_missed(main: u32) {
    let live = engine().live();
    let missed = live.signals_missed.load(Acquire) & !RESERVED;
    for signo in (1..=64).filter(|&signo| missed & bit(signo) != 0) {
        // Of several that wait a kernel makes one, too.
        if queued(signo) == 0 {
            push(main, &sent(signo));
        }
        if let Some(taken) = crate::run::me().signals_taken.get(signo as usize) {
            taken.add(1, SeqCst);
        }
        live.signals_missed.fetch_and(!bit(signo), SeqCst);
    }
}

fn queued(signo: i32) -> u32 {
    let of_this = |info: &&SigInfo| info.signo == signo && is(info);
    (0..MAX_THREADS)
        .map(|slot| engine().threads[slot])
        .filter(|thread| !thread.is_null())
        // SAFETY: the threads wait for the end of the recovery.
        .map(|thread| unsafe { &*thread }.queue.waiting().filter(of_this).count() as u32)
        .sum::<u32>()
        + super::for_process::waiting().filter(of_this).count() as u32
}

fn push(slot: u32, info: &SigInfo) {
    // SAFETY: a thread's block, or that of the first thread, which recovers;
    // the others wait for the end of the recovery.
    let thread = unsafe { &mut *engine().threads[slot as usize] };
    let blocked = super::mask_of(thread) & bit(info.signo) != 0;
    let alone = engine().thread_count.load(Relaxed) <= 1;
    if blocked && !alone && super::for_process::is(info) {
        super::for_process::push(info);
        return;
    }
    thread.queue.push(info);
    thread.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
}

/// A signal of which only the number is left.
fn sent(signo: i32) -> SigInfo {
    let of_terminal = is_of_terminal(signo);
    SigInfo {
        signo,
        errno: 0,
        code: if of_terminal { SI_KERNEL } else { SI_USER },
        rest: [0; 116],
    }
}
