//! Signals, virtualised: the kernel delivers to the runtime, the runtime to
//! the program.
//!
//! The runtime's handler never runs anything of the program and takes no lock.
//! It queues the signal and turns the interrupted thread towards a place where
//! it can be delivered: from the program's code straight into the runtime
//! ([`crate::machine::entry::async_entry`]), from the runtime's exit back to
//! its beginning, from before a long kernel call to its abort.
#![allow(unsafe_code)]

pub mod awaited;
pub mod calls;
pub mod deliver;
pub mod for_process;
pub mod held;
pub mod outside;
pub mod queue;
pub mod suspension;

use crate::engine::{engine, state};
use crate::machine::entry::{self, local, redirect};
use crate::machine::frame::{ATTENTION_SIGNAL, Local};
use crate::machine::sys::failed;
use crate::machine::{clock, user};
use crate::{fatal, sys};
use core::sync::atomic::Ordering::*;
use dc_image::window::{RUNTIME_BASE, RUNTIME_END, VDSO_BASE, VDSO_END};
use queue::SigInfo;

/// Reserved for the runtime: stops threads for a commit, ticks the interval.
pub const STOP: i32 = 64;
pub const SIGSYS: i32 = 31;
pub const SIGKILL: i32 = 9;
pub const SIGSTOP: i32 = 19;
pub const SIGSEGV: i32 = 11;
pub const SIGBUS: i32 = 7;

pub const SA_SIGINFO: usize = 4;
pub const SA_ONSTACK: usize = 0x0800_0000;
pub const SA_RESTART: usize = 0x1000_0000;
pub const SA_NODEFER: usize = 0x4000_0000;
pub const SA_RESETHAND: usize = 0x8000_0000;
pub const SA_RESTORER: usize = 0x0400_0000;
pub const SA_NOCLDSTOP: usize = 1;
pub const SA_NOCLDWAIT: usize = 2;
pub const SIG_DFL: usize = 0;
pub const SIG_IGN: usize = 1;

pub const fn bit(sig: i32) -> u64 {
    1 << (sig - 1)
}

/// Never blocked for real: without them the runtime could not work.
pub const RESERVED: u64 = bit(SIGSYS) | bit(STOP) | bit(SIGSEGV) | bit(SIGBUS);

/// For a moment in which no signal may come: but the runtime's own writes may
/// meet a piece of the state that sleeps.
pub const ALL_BUT_FAULTS: u64 = !(bit(SIGSEGV) | bit(SIGBUS));

/// `struct ucontext` as the kernel lays it out in a signal frame.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct UContext {
    pub flags: u64,
    pub link: usize,
    pub stack: [usize; 3],
    pub r8: usize,
    pub r9: usize,
    pub r10: usize,
    pub r11: usize,
    pub r12: usize,
    pub r13: usize,
    pub r14: usize,
    pub r15: usize,
    pub rdi: usize,
    pub rsi: usize,
    pub rbp: usize,
    pub rbx: usize,
    pub rdx: usize,
    pub rax: usize,
    pub rcx: usize,
    pub rsp: usize,
    pub rip: usize,
    pub rflags: usize,
    pub segments: [u16; 4],
    pub err: usize,
    pub trapno: usize,
    pub oldmask: usize,
    pub cr2: usize,
    pub fpstate: usize,
    pub reserved: [usize; 8],
    pub sigmask: u64,
}

/// Installs the runtime's handler in the kernel.
pub fn install(sig: i32, extra_flags: usize) -> isize {
    let act = [
        handler as *const () as usize,
        SA_SIGINFO | SA_ONSTACK | SA_RESTORER | extra_flags,
        entry::sigreturn as *const () as usize,
        usize::MAX,
    ];
    sys!(RT_SIGACTION, sig, &raw const act, 0, 8)
}

/// The handlers that the runtime needs whatever the program does.
pub fn install_own() {
    for sig in [SIGSYS, STOP, SIGSEGV, SIGBUS] {
        install(sig, 0);
    }
}

fn in_runtime(rip: usize) -> bool {
    (RUNTIME_BASE..RUNTIME_END).contains(&rip) || (VDSO_BASE..VDSO_END).contains(&rip)
}

/// The code of a signal that a timer sends.
const SI_TIMER: i32 = -2;

/// The one handler for every signal.
extern "C" fn handler(sig: i32, info: *mut SigInfo, uc: *mut UContext) {
    // SAFETY: the kernel passes pointers into the frame it built for us.
    let (info, uc) = unsafe { (&mut *info, &mut *uc) };
    const SYS_USER_DISPATCH: i32 = 2;
    if sig == SIGSYS && info.code == SYS_USER_DISPATCH {
        if clock::call_of_vdso(uc) {
            return;
        }
        // An unpatched site: go the way of the patched ones.
        engine().live().calls_trapped.fetch_add(1, Relaxed);
        uc.rcx = uc.rip;
        local().trapped = true;
        uc.rip = entry::syscall_entry as *const () as usize;
        return;
    }
    let l = local();
    let fault = info.code > 0 && matches!(sig, 4 | 5 | 7 | 8 | 11);
    if fault {
        if sig == SIGSEGV && uc.err & 2 != 0 && engine().pieces.fault(uc.cr2) {
            return;
        }
        if let Some(to) = user::fixup(uc.rip) {
            uc.rip = to;
            return;
        }
        clock::roll_back(l, uc);
        if in_runtime(uc.rip) {
            fatal::stop(
                dc_image::FatalCode::Internal,
                sig as isize,
                format_args!(
                    "the runtime failed: signal {sig} at {:#x}, address {:#x}",
                    uc.rip, uc.cr2
                ),
            );
        }
    }
    if sig != STOP {
        outside::take(l, info);
        if !l.queue.has_room() {
            // The kernel keeps the others until some are delivered.
            l.flooded = true;
            uc.sigmask |= !RESERVED;
        }
        l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
    } else if info.code == SI_TIMER && info.rest[12] == held::TIMER as u8 {
        held::release(l);
    } else if info.code == SI_TIMER {
        // The clock of --interval, or that of a timer that was set and is not committed.
        let own = engine().timer_set_clock > 0
            && info.timer_id() == engine().timer_set_clock
            && engine().timer_set != engine().store.published();
        engine().tick.fetch_or(!own, Relaxed);
        l.attention
            .fetch_or(crate::machine::frame::ATTENTION_STOP, SeqCst);
    } else {
        crate::run::signals::own_signal(l);
    }
    clock::roll_back(l, uc);
    if in_runtime(uc.rip) {
        if let Some(to) = redirect(uc.rip) {
            uc.rip = to;
        }
    } else if engine().stubs.contains(uc.rip) {
        // On its way into the runtime already.
    } else {
        enter_from(l, uc);
    }
}

/// The program was interrupted between two instructions: into the runtime
/// with all its registers.
fn enter_from(l: &mut Local, uc: &mut UContext) {
    let f = &mut l.frame;
    (f.r15, f.r14, f.r13, f.r12) = (uc.r15, uc.r14, uc.r13, uc.r12);
    (f.rbp, f.rbx, f.r11, f.r10) = (uc.rbp, uc.rbx, uc.r11, uc.r10);
    (f.r9, f.r8, f.rax, f.rcx) = (uc.r9, uc.r8, uc.rax, uc.rcx);
    (f.rdx, f.rsi, f.rdi, f.rip) = (uc.rdx, uc.rsi, uc.rdi, uc.rip);
    (f.rflags, f.rsp) = (uc.rflags, uc.rsp);
    f.nr = usize::MAX;
    l.again = false;
    uc.rip = entry::async_entry as *const () as usize;
    uc.rflags &= !(1 << 10 | 1 << 8);
}

/// The signals that the program wants blocked in this thread.
pub fn mask_of(l: &Local) -> u64 {
    state().threads[l.slot as usize].sigmask
}

/// Sets the thread's mask, for the program and for the kernel.
pub fn set_mask(l: &mut Local, mask: u64) {
    let mask = mask & !(bit(SIGKILL) | bit(19));
    state().threads[l.slot as usize].sigmask = mask;
    let real = mask & !RESERVED;
    sys!(RT_SIGPROCMASK, 2, &raw const real, 0, 8);
    if waiting_for(l) & !mask != 0 {
        l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
    }
}

/// The signals that a thread could take, blocked or not, as a mask.
pub fn waiting_for(l: &Local) -> u64 {
    l.queue.pending() | for_process::pending(l.slot)
}

/// Before a commit: signals that wait in the kernel would die with the worker, so they move
/// into the queues. They wait because the program blocks them; or another thread is on its way
/// to one that a process of the run has sent in this interval. A signalfd reads from the
/// kernel, so its signals stay there: answers which these are.
pub fn collect_blocked(l: &mut Local) -> u64 {
    let blocked = mask_of(l) & !RESERVED;
    let sent = crate::run::me().signalled.load(SeqCst) > engine().store.published();
    if blocked == 0 && !sent {
        return 0;
    }
    let for_signalfd = blocked & crate::object::signalfd::masks();
    let mask = match sent {
        true => !RESERVED & !for_signalfd,
        false => blocked & !for_signalfd,
    };
    if mask == 0 {
        return for_signalfd;
    }
    collect(l, mask);
    for_signalfd
}

/// Moves signals of a set that wait in the kernel into the queues. What finds no room stays.
fn collect(l: &mut Local, set: u64) {
    if set != 0 {
        while l.queue.has_room() && for_process::has_room() && collect_one(l, set) {}
    }
}

fn collect_one(l: &mut Local, set: u64) -> bool {
    let zero = [0usize; 2];
    let mut info = SigInfo {
        signo: 0,
        errno: 0,
        code: 0,
        rest: [0; 116],
    };
    let r = sys!(
        RT_SIGTIMEDWAIT,
        &raw const set,
        &raw mut info,
        &raw const zero,
        8
    );
    if failed(r) {
        return false;
    }
    let alone = engine().thread_count.load(Relaxed) <= 1 && for_process::is_empty();
    if alone || !for_process::is(&info) {
        outside::take(l, &info);
        if mask_of(l) & bit(info.signo) == 0 {
            // It was on its way to the handler, which would have said so.
            l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
        }
    } else {
        outside::take_for_process(&info);
    }
    true
}

/// Leaves a signal in the kernel for the process, as it came. Only a first thread may say of
/// one that the kernel or kill(2) has sent it; from another one it comes as queued by a
/// program, which is better than not at all.
pub fn leave_in_kernel(info: &SigInfo) {
    const SI_QUEUE: i32 = -1;
    let pid = crate::engine::engine().pid;
    let mut info = *info;
    let r = sys!(RT_SIGQUEUEINFO, pid, info.signo, &raw const info);
    if r == -crate::machine::sys::errno::EPERM {
        info.code = SI_QUEUE;
        sys!(RT_SIGQUEUEINFO, pid, info.signo, &raw const info);
    }
}

/// A signal that stops was held back while the program blocked it: the process stops now,
/// and goes on here.
pub fn stop_for(sig: i32) {
    let unblock = bit(sig);
    let mut old = 0u64;
    sys!(RT_SIGPROCMASK, 1, &raw const unblock, &raw mut old, 8);
    let (pid, tid) = (sys!(GETPID), sys!(GETTID));
    sys!(TGKILL, pid, tid, sig);
    sys!(RT_SIGPROCMASK, 2, &raw const old, 0, 8);
}

/// A fatal signal of the program: dies of it for real.
pub fn die_of(sig: i32) -> ! {
    let act = [
        SIG_DFL,
        SA_RESTORER,
        entry::sigreturn as *const () as usize,
        0,
    ];
    sys!(RT_SIGACTION, sig, &raw const act, 0, 8);
    let unblock = bit(sig);
    sys!(RT_SIGPROCMASK, 1, &raw const unblock, 0, 8);
    let (pid, tid) = (sys!(GETPID), sys!(GETTID));
    let r = sys!(TGKILL, pid, tid, sig);
    debug_assert!(!failed(r));
    fatal::die()
}
