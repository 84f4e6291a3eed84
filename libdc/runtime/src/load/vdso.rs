//! The vDSO that the program sees: ours, which lets the runtime know of the time.
//!
//! The kernel's own would answer what time it is without anybody noticing, and a
//! program could show what it does not repeat. Without any vDSO each such question
//! is a system call. Ours is one page of the program's half, committed with it and
//! the same under every kernel; its functions only go to
//! [`crate::machine::clock`], by a pointer behind gs as patched sites do.
//!
//! The tables are what glibc, musl and Go look for: symbols by a classic hash, and
//! the version LINUX_2.6.
#![allow(unsafe_code)]

use crate::machine::clock::BACK;
use crate::machine::frame::LOCAL_TIME;
use crate::machine::sys::failed;
use crate::space;
use core::arch::global_asm;
use dc_image::window::{PAGE, PROGRAM_VDSO};

global_asm!(
    ".pushsection .rodata.dc_vdso, \"a\"",
    ".balign 64",
    "dc_vdso_begin:",
    // ELF header: shared object, x86-64, two program headers.
    ".byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0",
    ".short 3, 62",
    ".long 1",
    ".quad 0, 64, 0",
    ".long 0",
    ".short 64, 56, 2, 64, 0, 0",
    // PT_LOAD, readable and executable; PT_DYNAMIC, readable.
    ".long 1, 5",
    ".quad 0, 0, 0, dc_vdso_end - dc_vdso_begin, dc_vdso_end - dc_vdso_begin, 4096",
    ".long 2, 4",
    ".quad 20f - dc_vdso_begin, 20f - dc_vdso_begin, 20f - dc_vdso_begin, 21f - 20f, 21f - 20f, 8",
    // Dynamic section: name, hash, strings, symbols, versions.
    "20:",
    ".quad 14, 31f - 30f",
    ".quad 4, 40f - dc_vdso_begin",
    ".quad 5, 30f - dc_vdso_begin",
    ".quad 6, 50f - dc_vdso_begin",
    ".quad 10, 39f - 30f",
    ".quad 11, 24",
    ".quad 0x6ffffff0, 60f - dc_vdso_begin",
    ".quad 0x6ffffffc, 70f - dc_vdso_begin",
    ".quad 0x6ffffffd, 2",
    ".quad 0, 0",
    "21:",
    // Strings.
    "30: .byte 0",
    "31: .asciz \"linux-vdso.so.1\"",
    "32: .asciz \"LINUX_2.6\"",
    "33: .asciz \"__vdso_clock_gettime\"",
    "34: .asciz \"__vdso_gettimeofday\"",
    "35: .asciz \"__vdso_time\"",
    "36: .asciz \"__vdso_getcpu\"",
    "37: .asciz \"__vdso_clock_getres\"",
    "39:",
    // Hash table: one bucket, all symbols in one chain.
    ".balign 8",
    "40: .long 1, 6, 1, 0, 2, 3, 4, 5, 0",
    // Symbols: functions, global.
    ".balign 8",
    "50: .quad 0, 0, 0",
    ".long 33b - 30b, 0x10012", ".quad 81f - dc_vdso_begin, 32",
    ".long 34b - 30b, 0x10012", ".quad 82f - dc_vdso_begin, 32",
    ".long 35b - 30b, 0x10012", ".quad 83f - dc_vdso_begin, 32",
    ".long 36b - 30b, 0x10012", ".quad 84f - dc_vdso_begin, 32",
    ".long 37b - 30b, 0x10012", ".quad 85f - dc_vdso_begin, 32",
    // Their versions, and the definitions: the file's own name, LINUX_2.6. The
    // fifth word is the hash of the name.
    "60: .short 0, 2, 2, 2, 2, 2",
    ".balign 8",
    "70: .short 1, 1, 1, 1", ".long 0xdeebfa1, 20, 28", ".long 31b - 30b, 0",
    ".short 1, 0, 2, 1", ".long 0x3ae75f6, 20, 0", ".long 32b - 30b, 0",
    // The functions. `syscall` is reached only by a call that is made again, which
    // begins two bytes before the address in rcx.
    ".balign 32, 0xcc",
    // (.org: `clock::roll_back` relies on the length.)
    "81: mov eax, 228", "lea rcx, [rip + 91f]", "jmp qword ptr gs:[{time}]", "syscall",
    ".org 81b + {back}", "91: ret",
    ".balign 32, 0xcc",
    "82: mov eax, 96", "lea rcx, [rip + 92f]", "jmp qword ptr gs:[{time}]", "syscall", "92: ret",
    ".balign 32, 0xcc",
    "83: mov eax, 201", "lea rcx, [rip + 93f]", "jmp qword ptr gs:[{time}]", "syscall", "93: ret",
    ".balign 32, 0xcc",
    "84: mov eax, 309", "lea rcx, [rip + 94f]", "jmp qword ptr gs:[{time}]", "syscall", "94: ret",
    ".balign 32, 0xcc",
    "85: mov eax, 229", "lea rcx, [rip + 95f]", "jmp qword ptr gs:[{time}]", "syscall", "95: ret",
    ".balign 32, 0xcc",
    "dc_vdso_end:",
    ".popsection",
    time = const LOCAL_TIME,
    back = const BACK,
);

unsafe extern "C" {
    static dc_vdso_begin: u8;
    static dc_vdso_end: u8;
}

/// Maps the page; its address for AT_SYSINFO_EHDR.
pub fn map() -> Option<usize> {
    let len = &raw const dc_vdso_end as usize - &raw const dc_vdso_begin as usize;
    if failed(space::map_anonymous(PROGRAM_VDSO, PAGE, 3, 0)) {
        return None;
    }
    // SAFETY: a page just mapped; the file is shorter.
    unsafe {
        core::ptr::copy_nonoverlapping(&raw const dc_vdso_begin, PROGRAM_VDSO as *mut u8, len);
    }
    const PROT_READ_EXEC: usize = 5;
    space::calls::mprotect([PROGRAM_VDSO, PAGE, PROT_READ_EXEC, 0, 0, 0]);
    Some(PROGRAM_VDSO)
}
