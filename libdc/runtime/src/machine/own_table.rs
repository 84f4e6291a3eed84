//! Work in a descriptor table of its own.
//!
//! A POSIX lock belongs to a process' descriptor table, and the first close of any
//! descriptor of its file gives it away (fcntl(2)). So a file that the program has
//! locked is opened and closed by a child that shares the memory but not the table,
//! while this thread waits. It costs what a vfork costs.
#![allow(unsafe_code)]

use crate::sys;
use core::arch::asm;

/// Runs `f` there. False if the child came to no good end.
pub fn run<F: FnMut()>(mut f: F) -> bool {
    extern "C" fn call<F: FnMut()>(f: *mut F) {
        const PR_SET_PDEATHSIG: usize = 1;
        sys!(PRCTL, PR_SET_PDEATHSIG, 9);
        // SAFETY: the parent's value, which it does not touch meanwhile.
        unsafe { (*f)() }
    }
    // No handler may run in the child.
    let (all, mut mask) = (!0u64, 0u64);
    sys!(RT_SIGPROCMASK, 2, &raw const all, &raw mut mask, 8);
    // SAFETY: `f` lives until the child has ended.
    let pid = unsafe { vfork_and_call(call::<F> as *const () as usize, &raw mut f as usize) };
    let mut status = 0i32;
    const WALL: usize = 0x4000_0000;
    let reaped = pid > 0 && sys!(WAIT4, pid, &raw mut status, WALL, 0) == pid;
    sys!(RT_SIGPROCMASK, 2, &raw const mask, 0, 8);
    reaped && status == 0
}

/// A child on this stack calls `function(argument)` and exits; its pid, or an error.
///
/// # Safety
/// `function` takes one argument and may use what this thread may use.
unsafe fn vfork_and_call(function: usize, argument: usize) -> isize {
    const CLONE_VM_VFORK: usize = 0x100 | 0x4000;
    let pid: isize;
    // SAFETY: the child leaves the frames above alone: it calls and exits, below them;
    // the parent goes on when it has, and finds its registers as they were.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r13",
            "call r12",
            "xor edi, edi",
            "mov eax, 60",
            "syscall",
            "ud2",
            "2:",
            inlateout("rax") crate::machine::nr::CLONE as isize => pid,
            in("rdi") CLONE_VM_VFORK,
            in("rsi") 0usize,
            in("rdx") 0usize,
            in("r10") 0usize,
            in("r8") 0usize,
            in("r12") function,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    pid
}
