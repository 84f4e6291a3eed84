//! System calls of the runtime itself.
//!
//! They leave from the runtime's own text, which Syscall User Dispatch allows,
//! so they never re-enter the runtime. Results are as the kernel gives them:
//! `-errno` in `-4095..0`.
#![allow(unsafe_code)]

use core::arch::asm;

/// A raw system call with six arguments.
///
/// # Safety
/// The caller answers for what the call does to the memory and descriptors of
/// this process.
#[inline(always)]
pub unsafe fn raw6(nr: usize, a: [usize; 6]) -> isize {
    let ret: isize;
    // SAFETY: the syscall instruction clobbers only rax, rcx and r11; the rest
    // is the caller's promise.
    unsafe {
        asm!("syscall", inlateout("rax") nr as isize => ret,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

/// A raw system call; missing arguments are zero.
///
/// # Safety
/// As [`raw6`].
#[inline(always)]
pub unsafe fn raw<const N: usize>(nr: usize, args: [usize; N]) -> isize {
    let mut a = [0usize; 6];
    let mut i = 0;
    while i < N && i < 6 {
        a[i] = args[i];
        i += 1;
    }
    // SAFETY: passed on to the caller.
    unsafe { raw6(nr, a) }
}

/// A call of the runtime with its own, valid arguments: numbers, or pointers
/// into memory that it owns or has checked.
pub fn own<const N: usize>(nr: usize, args: [usize; N]) -> isize {
    // SAFETY: that is the contract of the one place that calls this, `sys!`.
    unsafe { raw(nr, args) }
}

/// [`own`] with the name of a call and arguments of any plain type.
#[macro_export]
macro_rules! sys {
    ($nr:ident $(, $a:expr)* $(,)?) => {
        $crate::machine::sys::own($crate::machine::nr::$nr, [$($a as usize),*])
    };
}

/// Whether a result is an error.
#[inline(always)]
pub fn failed(ret: isize) -> bool {
    (-4095..0).contains(&ret)
}

/// Error numbers the runtime itself answers with.
#[allow(dead_code)]
pub mod errno {
    pub const EPERM: isize = 1;
    pub const ENOENT: isize = 2;
    pub const ESRCH: isize = 3;
    pub const EINTR: isize = 4;
    pub const EIO: isize = 5;
    pub const ENXIO: isize = 6;
    pub const E2BIG: isize = 7;
    pub const ENOEXEC: isize = 8;
    pub const EBADF: isize = 9;
    pub const ECHILD: isize = 10;
    pub const EAGAIN: isize = 11;
    pub const ENOMEM: isize = 12;
    pub const EACCES: isize = 13;
    pub const EFAULT: isize = 14;
    pub const EEXIST: isize = 17;
    pub const EXDEV: isize = 18;
    pub const ENODEV: isize = 19;
    pub const EINVAL: isize = 22;
    pub const ENFILE: isize = 23;
    pub const EMFILE: isize = 24;
    pub const ETXTBSY: isize = 26;
    pub const ENOSPC: isize = 28;
    pub const ESPIPE: isize = 29;
    pub const EPIPE: isize = 32;
    pub const ERANGE: isize = 34;
    pub const ENAMETOOLONG: isize = 36;
    pub const ENOSYS: isize = 38;
    pub const ELOOP: isize = 40;
    pub const ELIBBAD: isize = 80;
    pub const EOPNOTSUPP: isize = 95;
    pub const EADDRINUSE: isize = 98;
    pub const EADDRNOTAVAIL: isize = 99;
    pub const ECONNRESET: isize = 104;
    pub const EISCONN: isize = 106;
    pub const ETIMEDOUT: isize = 110;
    pub const ECONNREFUSED: isize = 111;
}
