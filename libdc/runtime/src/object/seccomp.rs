//! Filters of system calls: seccomp(2), and prctl(2) with PR_SET_SECCOMP.
//!
//! The kernel's own would bind the runtime as well, so the runtime asks the programs itself,
//! before it does anything for a call ([`stops`]); a thread without filters passes by.
//!
//! state:     the mode and the newest filter of each thread ([`OfThread`]); the programs of
//!            the process ([`table`])
//! intercept: seccomp, prctl; every call of a thread that has filters
//! restore:   nothing: a recovered thread has them before its first call
//! survives:  warm and cold. The kernel knows nothing of them: /proc/PID/status says 0 behind
//!            `Seccomp:` and `Seccomp_filters:`, nothing is logged, the time stamp counter can
//!            be read in strict mode. They are no wall against a program that jumps into the
//!            runtime's own code. User notification is refused, and whoever has filters cannot
//!            execute what would run beside the run (EACCES)
//!
//! A change is committed with the call that makes it, so that no later death comes to before
//! it. Other threads get filters (SECCOMP_FILTER_FLAG_TSYNC) while they stand still; what they
//! are to have in the kernel, they give themselves with their next call.
//!
//! Questions for the time by way of the vDSO are none of the calls that a filter sees, though
//! they may be calls here.

mod program;
pub mod table;

use self::program::{Data, KILL_PROCESS, LONGEST};
use self::table::Newest;
use super::identity;
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::errno::*;
use crate::machine::{nr, user};
use crate::run::end::{self, How};
use crate::signal::queue::SigInfo;
use crate::signal::{self, SIGKILL, SIGSYS};
use crate::thread;
use core::sync::atomic::Ordering::*;
use dc_image::window::{PAGE, PROGRAM_VDSO};

/// Modes, as PR_GET_SECCOMP answers them.
const STRICT: u32 = 1;
const FILTER: u32 = 2;

const SECCOMP_SET_MODE_STRICT: u32 = 0;
const SECCOMP_SET_MODE_FILTER: u32 = 1;
const SECCOMP_GET_ACTION_AVAIL: u32 = 2;

/// Flags of SECCOMP_SET_MODE_FILTER.
const TSYNC: u32 = 1;
const LOG_ALL: u32 = 1 << 1;
const SPEC_ALLOW: u32 = 1 << 2;
const NEW_LISTENER: u32 = 1 << 3;
const TSYNC_ESRCH: u32 = 1 << 4;

/// Actions.
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
const ACTION: u32 = 0xffff_0000;
const DATA: u32 = 0xffff;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// The code of a SIGSYS by a filter.
pub const SYS_SECCOMP: i32 = 1;

/// What a thread may call. All zeros is everything.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct OfThread {
    mode: u32,
    pub newest: Newest,
    /// Another thread has given it filters, and no_new_privs that the kernel does not know of.
    owes_no_new_privs: u32,
    _pad: u32,
    /// It was in a call when it was given filters: where that returns to, and the stack pointer.
    /// Made again by a recovery, the call has passed already.
    passed: [usize; 2],
}

fn of(l: &Local) -> &'static mut OfThread {
    &mut state().threads[l.slot as usize].seccomp
}

/// seccomp(2). Under the big lock.
pub fn call(l: &mut Local, a: [usize; 6]) -> isize {
    let (operation, flags, at) = (a[0] as u32, a[1] as u32, a[2]);
    match operation {
        SECCOMP_SET_MODE_STRICT if flags == 0 && at == 0 => set_strict(l),
        SECCOMP_SET_MODE_FILTER => set_filter(l, flags, at),
        SECCOMP_GET_ACTION_AVAIL if flags == 0 => is_available(at),
        // (SECCOMP_GET_NOTIF_SIZES: there is no user notification.)
        _ => -EINVAL,
    }
}

/// PR_SET_SECCOMP. Under the big lock.
pub fn set_by_prctl(l: &mut Local, mode: usize, at: usize) -> isize {
    match u32::try_from(mode) {
        Ok(STRICT) => set_strict(l),
        Ok(FILTER) => set_filter(l, 0, at),
        _ => -EINVAL,
    }
}

/// PR_GET_SECCOMP.
pub fn mode(l: &Local) -> isize {
    of(l).mode as isize
}

fn is_available(at: usize) -> isize {
    match user::read::<u32>(at) {
        None => -EFAULT,
        Some(KILL_PROCESS | KILL_THREAD | TRAP | ERRNO | TRACE | LOG | ALLOW) => 0,
        Some(_) => -EOPNOTSUPP,
    }
}

fn set_strict(l: &mut Local) -> isize {
    if of(l).mode == FILTER {
        return -EINVAL;
    }
    of(l).mode = STRICT;
    is_set(l)
}

/// The checks are the kernel's, in its order.
fn set_filter(l: &mut Local, flags: u32, at: usize) -> isize {
    if flags & NEW_LISTENER != 0 && at != 0 {
        crate::say!(
            "a listener of a filter's questions (SECCOMP_FILTER_FLAG_NEW_LISTENER) is refused"
        );
    }
    // (Without a listener, whether it may be killed while it waits for one means nothing.)
    if flags & !(TSYNC | LOG_ALL | SPEC_ALLOW | TSYNC_ESRCH) != 0 {
        return -EINVAL;
    }
    let Some([len, instructions]) = user::read::<[usize; 2]>(at) else {
        return -EFAULT;
    };
    let len = usize::from(len as u16);
    if len == 0 || len > LONGEST {
        return -EINVAL;
    }
    if !identity::has_no_new_privs() && !identity::may_filter() {
        return -EACCES;
    }
    let filter = match table::add(l, instructions, len, of(l).newest) {
        Ok(filter) => filter,
        Err(e) => return e,
    };
    if of(l).mode == STRICT {
        table::drop_last(filter);
        return -EINVAL;
    }
    if flags & TSYNC != 0
        && let Err(thread) = give_all(l, filter)
    {
        table::drop_last(filter);
        return match flags & TSYNC_ESRCH {
            0 => thread as isize,
            _ => -ESRCH,
        };
    }
    (of(l).mode, of(l).newest) = (FILTER, filter);
    is_set(l)
}

/// From here on the call has been made: made again, it might not be allowed.
fn is_set(l: &mut Local) -> isize {
    (l.is_filtered, l.is_recovered) = (true, false);
    of(l).passed = [0; 2];
    (l.frame.rax, l.again) = (0, false);
    identity::commit_soon(l);
    0
}

/// Gives a filter, which the caller is about to have, to all other threads; or answers which
/// of them has one that the caller has not.
fn give_all(l: &mut Local, filter: Newest) -> Result<(), i32> {
    let own = of(l).newest;
    thread::stop_others(l);
    let strays = |t: &&mut Local| match of(t).mode {
        STRICT => true,
        _ => !table::is_among(of(t).newest, own),
    };
    let stray = thread::others(l).find(strays);
    let r = match stray {
        Some(t) => Err(state().threads[t.slot as usize].tid),
        None => {
            thread::others(l).for_each(|t| give(t, filter));
            Ok(())
        }
    };
    thread::resume_others();
    r
}

/// The thread stands still. (What the kernel is asked for is the caller's.)
fn give(t: &mut Local, filter: Newest) {
    let record = &mut state().threads[t.slot as usize];
    let it = &mut record.seccomp;
    (it.mode, it.newest) = (FILTER, filter);
    t.is_filtered = true;
    if t.again {
        t.is_recovered = false;
        it.passed = [t.frame.rip, t.frame.rsp];
    }
    let rights = &mut record.credentials;
    if identity::has_no_new_privs() && rights.no_new_privs == 0 {
        (rights.changed, rights.no_new_privs) = (1, 1);
        it.owes_no_new_privs = 1;
    }
}

/// A new thread has the filters of its maker.
pub fn inherit(from: &Local, to: &mut Local) {
    *of(to) = OfThread {
        passed: [0; 2],
        ..*of(from)
    };
    (to.is_filtered, to.is_recovered) = (from.is_filtered, false);
}

/// And so has one that goes on for another one, behind its exec.
pub fn take_over(from: &Local, to: &mut Local) {
    let owes = of(to).owes_no_new_privs;
    inherit(from, to);
    of(to).owes_no_new_privs |= owes;
}

/// A commit has the thread as it stands: outside of the call that has passed, it has passed
/// with none.
pub fn saved(l: &Local, is_in_call: bool) {
    let is_over = l.is_filtered && !is_in_call && !l.is_recovered;
    if is_over && of(l).passed != [0; 2] {
        of(l).passed = [0; 2];
    }
}

/// At recovery, before the thread goes on.
pub fn recovered(l: &mut Local) {
    l.is_filtered = of(l).mode != 0;
    l.is_recovered = true;
}

/// What the kernel alone can start, it would start without the filters.
pub fn lets_start_beside(l: &Local) -> Result<(), isize> {
    if !l.is_filtered {
        return Ok(());
    }
    crate::say!(
        "a program that would run beside the run is refused to one that has filters of calls (seccomp)"
    );
    Err(-EACCES)
}

/// Asks the filters of a thread, before its call is made. Whether that ends here: it is
/// answered, or a signal has come in its place.
#[cold]
pub fn stops(l: &mut Local, args: &[usize; 6]) -> bool {
    if of(l).owes_no_new_privs != 0 {
        give_no_new_privs(l);
    }
    if has_passed(l) || is_of_vdso(l, args) {
        return false;
    }
    if of(l).mode == STRICT {
        return match l.frame.nr as u32 as usize {
            nr::READ | nr::WRITE | nr::EXIT | nr::RT_SIGRETURN => false,
            _ => end_thread(l, SIGKILL),
        };
    }
    let answer = table::ask(of(l).newest, &data_of(l, args));
    let data = answer & DATA;
    match answer & ACTION {
        ALLOW | LOG => return false,
        ERRNO => {
            const MOST: u32 = 4095;
            l.frame.rax = (data.min(MOST) as usize).wrapping_neg();
            l.again = false;
        }
        // Nobody traces, and nobody is notified.
        TRACE | USER_NOTIF => {
            l.frame.rax = ENOSYS.wrapping_neg() as usize;
            l.again = false;
        }
        TRAP => trap(l, data),
        KILL_THREAD => end_thread(l, SIGSYS),
        _ => end_process(l, SIGSYS),
    }
    true
}

#[cold]
fn give_no_new_privs(l: &mut Local) {
    identity::give_no_new_privs();
    of(l).owes_no_new_privs = 0;
}

/// Whether it is the call that the thread was in when it got its filters. It is in it again,
/// and the next death may come to before it once more.
fn has_passed(l: &mut Local) -> bool {
    let is_first = core::mem::take(&mut l.is_recovered);
    let passed = of(l).passed;
    if passed == [0; 2] {
        return false;
    }
    let is_it = is_first && passed == [l.frame.rip, l.frame.rsp];
    if !is_it {
        of(l).passed = [0; 2];
    }
    is_it
}

/// Whether a function of the vDSO asks for what the kernel's would know by itself. (Whoever
/// jumps there with another number is asked.)
fn is_of_vdso(l: &Local, args: &[usize; 6]) -> bool {
    const CLOCKS: usize = 0x8f3;
    let answers = match l.frame.nr {
        nr::CLOCK_GETTIME | nr::CLOCK_GETRES => args[0] < 12 && CLOCKS & 1 << args[0] != 0,
        nr::GETTIMEOFDAY | nr::TIME | nr::GETCPU => true,
        _ => false,
    };
    answers && (PROGRAM_VDSO..PROGRAM_VDSO + PAGE).contains(&l.frame.rip)
}

fn data_of(l: &Local, args: &[usize; 6]) -> Data {
    let mut data = [0; 16];
    (data[0], data[1]) = (l.frame.nr as u32, AUDIT_ARCH_X86_64);
    let words = core::iter::once(&l.frame.rip).chain(args);
    for (to, &word) in data[2..].chunks_mut(2).zip(words) {
        to.copy_from_slice(&[word as u32, (word >> 32) as u32]);
    }
    data
}

/// SIGSYS, with the registers as they were before the call, but behind it.
fn trap(l: &mut Local, data: u32) {
    let mut info = SigInfo {
        signo: SIGSYS,
        errno: data as i32,
        code: SYS_SECCOMP,
        rest: [0; 116],
    };
    info.rest[4..12].copy_from_slice(&l.frame.rip.to_le_bytes());
    info.rest[12..16].copy_from_slice(&(l.frame.nr as u32).to_le_bytes());
    info.rest[16..20].copy_from_slice(&AUDIT_ARCH_X86_64.to_le_bytes());
    let handler = state().root.actions[SIGSYS as usize].handler;
    let is_blocked = signal::mask_of(l) & signal::bit(SIGSYS) != 0;
    if is_blocked || matches!(handler, signal::SIG_DFL | signal::SIG_IGN) {
        end_process(l, SIGSYS);
    }
    let _guard = engine().lock.acquire(l);
    signal::deliver::at_once(l, &info);
}

/// What a filter ends is no failure that a recovery could mend: so it ends for good.
fn end_process(l: &mut Local, signo: i32) -> ! {
    core::mem::forget(engine().lock.acquire(l));
    end::end(l, How::Signal(signo))
}

fn end_thread(l: &mut Local, signo: i32) -> ! {
    let guard = engine().lock.acquire(l);
    if engine().thread_count.load(SeqCst) > 1 {
        thread::end_one(l, guard, signo as usize);
    }
    core::mem::forget(guard);
    end::end(l, How::Signal(signo))
}
