//! Into the runtime and out of it: the only doors.
//!
//! ```text
//! patched site -> stub -> syscall_entry --.
//! SIGSYS handler (edits its frame) -------+-> on_call --> leave -> program
//! signal handler (edits its frame) -> async_entry -> on_async --'
//! ```
//!
//! A stub gives `rax` the number and `rcx` the return address, exactly what
//! the kernel leaves in them. `leave` is restartable: from `dc_leave_begin`
//! to its last jump it only reads the frame, so a signal that arrives there
//! sends it back to look for what wants attention.
#![allow(unsafe_code)]

use super::frame::{
    ATTENTION_LOOK, ATTENTION_SIGNAL, ATTENTION_STAGE, Frame, LOCAL_ATTENTION, LOCAL_FRAME,
    LOCAL_STACK_TOP, LOCAL_STATE, Local, PROGRAM,
};
use crate::engine::{ENGINE, Engine};
use core::arch::{asm, naked_asm};
use core::mem::offset_of;

macro_rules! f {
    ($field:ident) => {
        LOCAL_FRAME + offset_of!(Frame, $field)
    };
}

/// Where stubs and the SIGSYS handler send a thread.
#[unsafe(naked)]
pub unsafe extern "C" fn syscall_entry() {
    naked_asm!(
        "mov gs:[{rsp}], rsp",
        "mov gs:[{rax}], rax",
        "mov gs:[{nr}], rax",
        "mov gs:[{rcx}], rcx",
        "mov gs:[{rip}], rcx",
        "mov gs:[{rdi}], rdi",
        "mov gs:[{rsi}], rsi",
        "mov gs:[{rdx}], rdx",
        "mov gs:[{r8}], r8",
        "mov gs:[{r9}], r9",
        "mov gs:[{r10}], r10",
        "mov rsp, gs:[{stack_top}]",
        "pushfq",
        "pop r11",
        "mov gs:[{rflags}], r11",
        "mov gs:[{r11}], r11",
        "mov gs:[{rbx}], rbx",
        "mov gs:[{rbp}], rbp",
        "mov gs:[{r12}], r12",
        "mov gs:[{r13}], r13",
        "mov gs:[{r14}], r14",
        "mov gs:[{r15}], r15",
        "mov rdi, gs:[0]",
        "lea rax, [rdi + {xmm}]",
        "movaps [rax], xmm0", "movaps [rax+16], xmm1", "movaps [rax+32], xmm2", "movaps [rax+48], xmm3",
        "movaps [rax+64], xmm4", "movaps [rax+80], xmm5", "movaps [rax+96], xmm6", "movaps [rax+112], xmm7",
        "movaps [rax+128], xmm8", "movaps [rax+144], xmm9", "movaps [rax+160], xmm10", "movaps [rax+176], xmm11",
        "movaps [rax+192], xmm12", "movaps [rax+208], xmm13", "movaps [rax+224], xmm14", "movaps [rax+240], xmm15",
        "cld",
        "call {on_call}",
        "jmp {leave}",
        stack_top = const LOCAL_STACK_TOP,
        rsp = const f!(rsp), rax = const f!(rax), nr = const f!(nr), rcx = const f!(rcx), rip = const f!(rip),
        rdi = const f!(rdi), rsi = const f!(rsi), rdx = const f!(rdx), r8 = const f!(r8),
        r9 = const f!(r9), r10 = const f!(r10), r11 = const f!(r11), rflags = const f!(rflags),
        rbx = const f!(rbx), rbp = const f!(rbp), r12 = const f!(r12), r13 = const f!(r13),
        r14 = const f!(r14), r15 = const f!(r15), xmm = const f!(xmm),
        on_call = sym crate::dispatch::on_call,
        leave = sym leave,
    )
}

/// Where a signal handler sends a thread whose general registers it has put
/// into the frame: the vector registers are still the program's.
#[unsafe(naked)]
pub unsafe extern "C" fn async_entry() {
    naked_asm!(
        "mov rsp, gs:[{stack_top}]",
        "mov rdi, gs:[0]",
        "lea rax, [rdi + {xmm}]",
        "movaps [rax], xmm0", "movaps [rax+16], xmm1", "movaps [rax+32], xmm2", "movaps [rax+48], xmm3",
        "movaps [rax+64], xmm4", "movaps [rax+80], xmm5", "movaps [rax+96], xmm6", "movaps [rax+112], xmm7",
        "movaps [rax+128], xmm8", "movaps [rax+144], xmm9", "movaps [rax+160], xmm10", "movaps [rax+176], xmm11",
        "movaps [rax+192], xmm12", "movaps [rax+208], xmm13", "movaps [rax+224], xmm14", "movaps [rax+240], xmm15",
        "cld",
        "call {on_async}",
        "jmp {leave}",
        stack_top = const LOCAL_STACK_TOP,
        xmm = const f!(xmm),
        on_async = sym crate::dispatch::on_async,
        leave = sym leave,
    )
}

/// Back to the program, with whatever the frame says.
#[unsafe(naked)]
pub unsafe extern "C" fn leave() -> ! {
    naked_asm!(
        ".global dc_leave_restart",
        "dc_leave_restart:",
        "cld",
        "mov rsp, gs:[{stack_top}]",
        "mov rdi, gs:[0]",
        "call {on_leave}",
        ".global dc_leave_begin",
        "dc_leave_begin:",
        "mov rdi, gs:[0]",
        // With other threads the store must be seen before attention is read;
        // alone, only a signal can come between, and it restarts us.
        "cmp dword ptr [rip + {engine} + {count}], 1",
        "jne 3f",
        "mov dword ptr [rdi + {state}], {program}",
        "2:",
        "cmp dword ptr [rdi + {attention}], 0",
        "jne dc_leave_restart",
        "lea rax, [rdi + {xmm}]",
        "movaps xmm0, [rax]", "movaps xmm1, [rax+16]", "movaps xmm2, [rax+32]", "movaps xmm3, [rax+48]",
        "movaps xmm4, [rax+64]", "movaps xmm5, [rax+80]", "movaps xmm6, [rax+96]", "movaps xmm7, [rax+112]",
        "movaps xmm8, [rax+128]", "movaps xmm9, [rax+144]", "movaps xmm10, [rax+160]", "movaps xmm11, [rax+176]",
        "movaps xmm12, [rax+192]", "movaps xmm13, [rax+208]", "movaps xmm14, [rax+224]", "movaps xmm15, [rax+240]",
        // popfq takes as long as a tenth of a system call. As a rule only the six
        // flags of arithmetic are set, which need no privilege and no microcode.
        "mov rax, [rdi + {rflags}]",
        "test rax, {unusual}",
        "jne 4f",
        "mov r15, rax",
        "shl eax, 8",
        "shr r15, 11",
        "mov al, r15b",
        "and al, 1",
        "add al, 0x7f",
        "sahf",
        "5:",
        "mov r15, gs:[{r15}]",
        "mov r14, gs:[{r14}]",
        "mov r13, gs:[{r13}]",
        "mov r12, gs:[{r12}]",
        "mov rbp, gs:[{rbp}]",
        "mov rbx, gs:[{rbx}]",
        "mov r11, gs:[{r11}]",
        "mov r10, gs:[{r10}]",
        "mov r9, gs:[{r9}]",
        "mov r8, gs:[{r8}]",
        "mov rax, gs:[{rax}]",
        "mov rcx, gs:[{rcx}]",
        "mov rdx, gs:[{rdx}]",
        "mov rsi, gs:[{rsi}]",
        "mov rdi, gs:[{rdi}]",
        "mov rsp, gs:[{rsp}]",
        "jmp qword ptr gs:[{rip}]",
        "3:",
        "mov eax, {program}",
        "xchg [rdi + {state}], eax",
        "jmp 2b",
        "4:",
        "push rax",
        "popfq",
        "jmp 5b",
        ".global dc_leave_end",
        "dc_leave_end:",
        "ud2",
        stack_top = const LOCAL_STACK_TOP, state = const LOCAL_STATE, attention = const LOCAL_ATTENTION,
        program = const PROGRAM,
        engine = sym ENGINE, count = const offset_of!(Engine, thread_count),
        rsp = const f!(rsp), rax = const f!(rax), rcx = const f!(rcx), rip = const f!(rip),
        rdi = const f!(rdi), rsi = const f!(rsi), rdx = const f!(rdx), r8 = const f!(r8),
        r9 = const f!(r9), r10 = const f!(r10), r11 = const f!(r11), rflags = const f!(rflags),
        rbx = const f!(rbx), rbp = const f!(rbp), r12 = const f!(r12), r13 = const f!(r13),
        r14 = const f!(r14), r15 = const f!(r15), xmm = const f!(xmm),
        on_leave = sym crate::dispatch::on_leave,
        unusual = const UNUSUAL_FLAGS,
    )
}

/// Flags that `leave` restores by `popfq` only: all but those of arithmetic, the
/// one that is always set, and interrupts.
const UNUSUAL_FLAGS: i32 = !0x0ad7;

/// A kernel call that may last. If a signal is queued before the kernel is
/// entered, it answers -EINTR without the call: the signal handler moves a
/// thread that it finds between the labels to the abort label.
#[unsafe(naked)]
pub unsafe extern "C" fn interruptible(nr: usize, args: *const [usize; 6]) -> isize {
    naked_asm!(
        "mov rax, rdi",
        "mov r11, rsi",
        "mov rdi, [r11]",
        "mov rsi, [r11 + 8]",
        "mov rdx, [r11 + 16]",
        "mov r10, [r11 + 24]",
        "mov r8, [r11 + 32]",
        "mov r9, [r11 + 40]",
        ".global dc_interruptible_begin",
        "dc_interruptible_begin:",
        "test dword ptr gs:[{attention}], {signal}",
        "jne dc_interruptible_abort",
        "syscall",
        ".global dc_interruptible_end",
        "dc_interruptible_end:",
        "ret",
        ".global dc_interruptible_abort",
        "dc_interruptible_abort:",
        "mov rax, -4",
        "ret",
        attention = const LOCAL_ATTENTION,
        signal = const ATTENTION_SIGNAL | ATTENTION_STAGE | ATTENTION_LOOK,
    )
}

/// Makes a thread or a process (clone3(2)), which runs `main(arg)` on the stack given.
#[unsafe(naked)]
pub unsafe extern "C" fn clone_to<T>(
    args: *const u8,
    size: usize,
    arg: *mut T,
    main: extern "C" fn(*mut T) -> !,
) -> isize {
    naked_asm!(
        "mov r8, rdx",
        "mov r9, rcx",
        "mov eax, 435",
        "syscall",
        "test rax, rax",
        "je 2f",
        "ret",
        "2:",
        "xor ebp, ebp",
        "mov rdi, r8",
        "call r9",
        "ud2",
    )
}

/// Restorer of the runtime's own signal frames.
#[unsafe(naked)]
pub unsafe extern "C" fn sigreturn() {
    naked_asm!("mov eax, 15", "syscall", "ud2")
}

/// Ends a thread whose stack may be taken by another one at once.
pub fn exit_thread(code: usize) -> ! {
    // SAFETY: the exit call does not come back.
    unsafe { asm!("syscall", "ud2", in("rax") 60usize, in("rdi") code, options(noreturn)) }
}

/// The thread's own block.
#[inline(always)]
pub fn local() -> &'static mut Local {
    let p: *mut Local;
    // SAFETY: gs points to this thread's Local from its first instruction in
    // the runtime; no other thread has a mutable reference to it while this
    // one runs (others use the atomics, or a stopped thread's frame).
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) p, options(nostack, preserves_flags, readonly, pure));
        &mut *p
    }
}

unsafe extern "C" {
    static dc_leave_restart: u8;
    static dc_leave_begin: u8;
    static dc_leave_end: u8;
    static dc_interruptible_begin: u8;
    static dc_interruptible_end: u8;
    static dc_interruptible_abort: u8;
}

/// Where a thread that a signal found at `rip` inside the runtime must go on,
/// so that the signal is not overlooked.
pub fn redirect(rip: usize) -> Option<usize> {
    let at = |p: *const u8| p as usize;
    // Only the addresses of the labels are taken.
    if (at(&raw const dc_leave_begin)..at(&raw const dc_leave_end)).contains(&rip) {
        Some(at(&raw const dc_leave_restart))
    } else if (at(&raw const dc_interruptible_begin)..at(&raw const dc_interruptible_end))
        .contains(&rip)
    {
        Some(at(&raw const dc_interruptible_abort))
    } else {
        None
    }
}
