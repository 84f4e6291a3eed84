//! The half of Discount Checking that lives inside the worker process.
//!
//! # Rules of this program
//!
//! It runs in the address space of somebody else's program, between any two of
//! its instructions. Therefore:
//! - no libc, no thread-local storage, no allocator: there is none to link;
//! - nothing in here may panic on purpose: a panic stops the program at its
//!   last commit, with the message;
//! - the program's memory is touched only through [`machine::user`] and by
//!   the copy of pages in [`commit`];
//! - whatever must be rolled back lies in [`state`]; whatever must not, in
//!   [`engine`] or the arena; nothing lies in both.
//!
//! Read on in [`boot`] (how a worker starts), [`dispatch`] (how calls come in),
//! [`commit`] and [`recover`].
#![no_std]
#![no_main]
// A file that needs unsafe code says so at its head.
#![deny(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]
// Statics are reached through raw pointers on purpose.
#![allow(clippy::deref_addrof)]

mod arena;
mod boot;
mod commit;
mod dispatch;
mod engine;
mod event;
mod fatal;
mod load;
mod log;
mod machine;
mod notice;
mod object;
mod patch;
mod proc;
mod recover;
mod reserved;
mod run;
mod signal;
mod space;
mod state;
mod sysv;
mod table;
mod thread;
mod trace;
mod uffd;

/// Entry: the keeper's child jumps here with the address of its BootInfo.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "xor ebp, ebp",
        "lea rsp, [rip + {stack} + {size}]",
        "and rsp, -64",
        "call {main}",
        "ud2",
        stack = sym BOOT_STACK,
        size = const BOOT_STACK_LEN,
        main = sym boot::main,
    )
}

const BOOT_STACK_LEN: usize = 256 << 10;
#[repr(align(64))]
struct BootStack(#[allow(dead_code)] [u8; BOOT_STACK_LEN]);
static mut BOOT_STACK: BootStack = BootStack([0; BOOT_STACK_LEN]);

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    fatal::internal(info)
}
