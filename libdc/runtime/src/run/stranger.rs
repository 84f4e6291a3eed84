//! Strangers: programs that cannot be hosted and run beside the run, natively.
//!
//! Only the kernel's own execve gives a program the rights of a set-uid file, runs one of
//! another machine, or one that may not be read. So such a program is started by it, as a
//! child of the keeper, with all that the process has: rights, descriptors, directory, limits,
//! group. To the run it is the outside world. The process that wanted to become it stands in
//! its place: it passes signals on, stops and goes on with it, and ends as it does.
//!
//! ```text
//! exec   commit; descriptors that go along are streams from now on; clone, execve there
//!        -> the process has an empty memory, and a thread that makes one call: wait for it
//! death  the stranger lives on; the next worker of the process waits for it
//! cold   nobody can wait for it any more: told as killed, which is said
//! ```
//!
//! It is started once: whoever makes the exec again behind the commit finds it in the table.
//!
//! survives:  warm; cold it is told as killed. What it does is not undone. It has a number of
//!            its own, and a signal to the group of `dcrun` comes to it twice; ^Z does not stop
//!            it in a session that the program has made itself
#![allow(unsafe_code)]

use super::{end, me};
use crate::engine::{engine, state};
use crate::machine::entry;
use crate::machine::frame::{ATTENTION_STOP, Frame, Local};
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::object::{limits, pipe, process, socket};
use crate::signal::queue::SigInfo;
use crate::signal::{self, SIG_IGN};
use crate::space::calls;
use crate::{commit, event, sys, thread};
use core::sync::atomic::{AtomicIsize, Ordering::*};
use dc_image::run::{Process, STRANGER_ENDED};

/// The call of the thread that stands in a stranger's place.
pub const NR: usize = 0xdc1;

const STOPS: [i32; 3] = [20, 21, 22];

/// The kernel's execve, as the program has called it, and what of the process it does not
/// find in the kernel.
struct Start {
    exec: [usize; 5],
    mask: u64,
}

/// Why the kernel would not execute it; 0 while it does.
static FAILED: AtomicIsize = AtomicIsize::new(0);

/// Aligned as a stack is.
static mut STACK: [u128; 1024] = [0; 1024];

/// Starts a program beside the run, unless that was done before a death. Under the big lock.
pub fn start(l: &mut Local, exec: [usize; 5]) -> Result<(), isize> {
    let p = me();
    if p.stranger.load(SeqCst) != 0 {
        // Behind the commit that was made for it no state leads elsewhere than to here.
        return Ok(());
    }
    event::leaves(l);
    pipe::share_all();
    commit::commit(l);
    pipe::are_streams();
    socket::pair::all_leave();
    p.stranger_end.store(0, SeqCst);
    let start = Start {
        exec,
        mask: signal::mask_of(l),
    };
    let r = clone(&start);
    let r = match FAILED.load(SeqCst) {
        0 => r,
        errno => errno,
    };
    if failed(r) {
        p.stranger.store(0, SeqCst);
        return Err(r);
    }
    commit::fault_point(dc_image::boot::fault::AFTER_VISIBLE);
    Ok(())
}

fn clone(start: &Start) -> isize {
    const CLONE_VM: u64 = 0x100;
    const CLONE_VFORK: u64 = 0x4000;
    const CLONE_PARENT: u64 = 0x8000;
    const CLONE_PARENT_SETTID: u64 = 0x10_0000;
    let stack = &raw mut STACK;
    let args: [u64; 11] = [
        CLONE_VM | CLONE_VFORK | CLONE_PARENT | CLONE_PARENT_SETTID,
        0,
        0,
        me().stranger.as_ptr() as u64,
        0,
        stack as u64,
        size_of::<[u128; 1024]>() as u64,
        0,
        0,
        0,
        0,
    ];
    FAILED.store(0, SeqCst);
    let (all, mut old) = (u64::MAX, 0u64);
    sys!(RT_SIGPROCMASK, 2, &raw const all, &raw mut old, 8);
    // SAFETY: the stack is used by one child at a time: this thread goes on when the child
    // has another memory (CLONE_VFORK).
    let r = unsafe {
        entry::clone_to(
            args.as_ptr().cast(),
            88,
            (&raw const *start).cast_mut(),
            begin,
        )
    };
    sys!(RT_SIGPROCMASK, 2, &raw const old, 0, 8);
    r
}

/// The child, in the memory of this process until its execve.
extern "C" fn begin(start: *mut Start) -> ! {
    // SAFETY: it lies on the stack of the thread that waits for this child.
    let start = unsafe { &*start };
    for signo in (1..=64).filter(|signo| ![signal::SIGKILL, signal::SIGSTOP].contains(signo)) {
        let handler = match state().root.actions[signo as usize].handler {
            SIG_IGN => SIG_IGN,
            _ => signal::SIG_DFL,
        };
        let action = [handler, 0, 0, 0];
        sys!(RT_SIGACTION, signo, action.as_ptr(), 0, 8);
    }
    for resource in 0..limits::COUNT {
        if let Ok(value) = limits::value(resource) {
            sys!(PRLIMIT64, 0, resource, value.as_ptr(), 0);
        }
    }
    sys!(CLOSE_RANGE, engine().boot.fd_base, u32::MAX, 0);
    sys!(RT_SIGPROCMASK, 2, &raw const start.mask, 0, 8);
    let [dir, path, argv, envp, flags] = start.exec;
    let r = sys!(EXECVEAT, dir, path, argv, envp, flags);
    FAILED.store(r, SeqCst);
    entry::exit_thread(127)
}

/// The memory of the old program is gone: the thread is to do nothing but [`wait`].
pub fn stand_in(l: &mut Local) {
    const PROT_READ_WRITE: usize = 3;
    const PROT_READ_EXEC: usize = 5;
    const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
    const LEN: usize = 4096;
    let at = calls::mmap([
        0,
        LEN,
        PROT_READ_WRITE,
        MAP_PRIVATE_ANONYMOUS,
        usize::MAX,
        0,
    ]);
    // again: mov $NR, %eax; syscall; jmp again
    let [a, b, c, d] = (NR as u32).to_le_bytes();
    let code = [0xb8, a, b, c, d, 0x0f, 0x05, 0xeb, 0xf7];
    if failed(at) || !crate::machine::user::write_bytes(at as usize, &code) {
        crate::fatal::stop(
            dc_image::FatalCode::CannotLoad,
            at,
            format_args!("execve: no memory to wait in"),
        );
    }
    calls::mprotect([at as usize, LEN, PROT_READ_EXEC, 0, 0, 0]);
    l.frame = Frame::ZERO;
    l.frame.rip = at as usize;
    l.frame.rsp = at as usize + LEN;
    l.frame.nr = usize::MAX;
    super::birth::join_tree();
    signal::set_mask(l, 0);
    // What stops the stranger stops this process by the table, through the keeper.
    for signo in STOPS {
        let action = &mut state().root.actions[signo as usize];
        action.handler = SIG_IGN;
        let action = *action;
        signal::calls::install_for(signo, &action);
    }
    state().root.stands_in = 1;
}

/// Whether this process stands in a stranger's place.
pub fn is_one() -> bool {
    state().root.stands_in != 0
}

/// Waits until the stranger has ended, and ends as it did.
pub fn wait(l: &mut Local, _: [usize; 6]) -> isize {
    if !is_one() {
        return -ENOSYS;
    }
    let event_of = &me().child_event;
    loop {
        let before = event_of.load(SeqCst);
        let ended = me().stranger_end.load(SeqCst);
        if ended & STRANGER_ENDED != 0 {
            ends(l, ended & !STRANGER_ENDED);
        }
        const FUTEX_WAIT: usize = 0;
        let args = [
            event_of.as_ptr() as usize,
            FUTEX_WAIT,
            before as usize,
            0,
            0,
            0,
        ];
        if thread::wait(l, nr::FUTEX, args) == -EINTR {
            if thread::signal_waits(l) {
                l.interrupted = true;
                return -EINTR;
            }
            thread::wait_on(l);
            if l.attention.load(SeqCst) & ATTENTION_STOP != 0 {
                thread::pause_for_stop(l);
            }
        }
    }
}

fn ends(l: &mut Local, status: u32) -> ! {
    let guard = engine().lock.acquire(l);
    event::non_deterministic(l);
    core::mem::forget(guard);
    match status & 0x7f {
        0 => end::end(l, end::How::Exit((status >> 8) as u8)),
        signo => end::end(l, end::How::Signal(signo as i32)),
    }
}

/// A signal for the process is the stranger's, unless the kernel has sent it: then it has come
/// to the whole group. Under the big lock.
pub fn pass_on(l: &mut Local, info: &SigInfo) {
    let stranger = me().stranger.load(SeqCst);
    if info.code <= 0 && me().stranger_end.load(SeqCst) == 0 {
        let to = [stranger as usize, info.signo as usize];
        process::send_to_others_by(l, to, || sys!(KILL, to[0], to[1]));
    }
}

/// A process is about to be sent what no runtime hears of: SIGKILL, SIGSTOP, SIGCONT.
pub fn gets_too(p: &Process, signo: i32) {
    let stranger = p.stranger.load(SeqCst);
    if stranger > 0 && p.stranger_end.load(SeqCst) == 0 {
        sys!(KILL, stranger, signo);
    }
}
