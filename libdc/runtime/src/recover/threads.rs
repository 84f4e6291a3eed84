//! Threads: each in its old slot, with its old id where that is allowed.
#![allow(unsafe_code)]

use crate::engine::{MAX_THREADS, engine, state};
use crate::machine::entry;
use crate::machine::frame::*;
use crate::machine::sys::failed;
use crate::object::seccomp;
use crate::signal::queue::SigInfo;
use crate::thread::{self, new_local_at};
use crate::{signal, sys};
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;

/// The first thread's block; from here on faults of this thread are handled.
pub fn first() -> &'static mut Local {
    let pid = state().root.pid;
    let used = |i: usize| state().threads[i].used != 0;
    // Where the first one has ended, another takes its place in the kernel; the program
    // goes on knowing it by its own number.
    let first = (0..MAX_THREADS).find(|&i| used(i) && state().threads[i].tid == pid);
    let Some(main) = first.or_else(|| (0..MAX_THREADS).find(|&i| used(i))) else {
        crate::fatal::stop(
            FatalCode::Corrupt,
            0,
            format_args!("restore threads: the state has none"),
        )
    };
    let l = block(main);
    l.tid = engine().pid;
    thread::arm(l);
    l
}

/// Makes all other threads; they wait until [`go`].
pub fn restore(first: &Local) {
    let e = engine();
    let used = |i: usize| state().threads[i].used != 0;
    let main = first.slot as usize;
    e.stopping.store(1, SeqCst);
    for slot in 0..MAX_THREADS {
        if slot == main || !used(slot) {
            continue;
        }
        let child = block(slot);
        child.attention.fetch_or(ATTENTION_STOP, SeqCst);
        let tid = state().threads[slot].tid;
        let mut r = thread::spawn(child, if e.boot.can_set_tid != 0 { tid } else { 0 });
        if failed(r) && e.boot.can_set_tid != 0 {
            r = thread::spawn(child, 0);
        }
        if failed(r) {
            crate::fatal::stop(
                FatalCode::CannotRestore,
                r,
                format_args!("restore thread {tid}: error {}", -r),
            );
        }
    }
}

/// A block with the registers of the last commit.
fn block(slot: usize) -> &'static mut Local {
    let Some(l) = new_local_at(slot) else {
        panic!("no memory for a thread")
    };
    let record = &state().threads[slot];
    l.frame = record.frame;
    l.xsave = record.xsave;
    l.has_vectors = true;
    l.queue = record.queue;
    l.again = false;
    seccomp::recovered(l);
    if signal::waiting_for(l) != 0 {
        l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
    }
    l
}

/// The first thread goes on, and lets the others go.
pub fn go(l: &'static mut Local) -> ! {
    let ends_of = crate::run::me().ends_of.load(SeqCst) as i32;
    if ends_of != 0 {
        const SI_KERNEL: i32 = 0x80;
        l.queue.push(&SigInfo {
            signo: ends_of,
            errno: 0,
            code: SI_KERNEL,
            rest: [0; 116],
        });
        l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
    }
    let mask = state().threads[l.slot as usize].sigmask & !signal::RESERVED;
    sys!(RT_SIGPROCMASK, 2, &raw const mask, 0, 8);
    thread::restore_kernel_pointers(l);
    thread::restore_registers(l);
    crate::object::api::call_recovery_function(l);
    thread::resume_others();
    // SAFETY: the frame is complete.
    unsafe { entry::leave() }
}
