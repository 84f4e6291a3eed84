//! Reading the clock as fast as natively, and the protocol knows of it.
//!
//! ```text
//! program -> page of ours (load::vdso) -> enter -> the kernel's vDSO -> program
//!                                           `----> syscall_entry, as any call
//! ```
//!
//! While the protocol's flag is set, one more non-deterministic event changes
//! nothing, and the kernel's vDSO may answer: it is counted, no more. Else, and
//! under protocols that commit or log at each such event, the way is that of a
//! system call.
//!
//! A thread on the short way is "in the program", but neither its program counter
//! nor its stack mean anything after a recovery. So [`enter`] keeps what it came
//! with, and a signal that finds it there sends it back to before the call, which
//! has no effect but its result: [`roll_back`]. No commit, no handler of the
//! program and no image ever sees it inside.
//!
//! The kernel's vDSO lies where it belongs to this process ([`keep`]); after a
//! recovery it is perhaps another one elsewhere, and nothing of the program or
//! its committed state points to it.
#![allow(unsafe_code)]

use super::frame::{LOCAL_WINDOW, Local, PROGRAM, Window};
use super::sys::{self, failed};
use crate::engine::{ENGINE, Engine, engine};
use crate::signal::UContext;
use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicUsize, Ordering::*};
use dc_image::window::{VDSO_BASE, VDSO_END};

/// Bytes from the beginning of a function of ours to the address in rcx.
pub const BACK: usize = 22;

/// The kernel's functions; 0 is none.
static FUNCTIONS: [AtomicUsize; 5] = [const { AtomicUsize::new(0) }; 5];
/// For the runtime's own use, whatever the protocol.
static OWN: AtomicUsize = AtomicUsize::new(0);
const NAMES: [&[u8]; 5] = [
    b"__vdso_clock_gettime",
    b"__vdso_gettimeofday",
    b"__vdso_time",
    b"__vdso_getcpu",
    b"__vdso_clock_getres",
];

macro_rules! w {
    ($field:ident) => {
        LOCAL_WINDOW + offset_of!(Window, $field)
    };
}

/// Where the functions of our vDSO jump to: the number in rax, the address behind
/// the call in rcx, all else as their caller left it.
#[unsafe(naked)]
pub unsafe extern "C" fn enter() {
    naked_asm!(
        ".global dc_time_begin",
        "dc_time_begin:",
        "cmp byte ptr [rip + {engine} + {cheap}], 0",
        "je {slowly}",
        "cmp eax, 228",
        "je 2f",
        "cmp eax, 96",
        "mov r11, [rip + {functions} + 8]",
        "je 3f",
        "cmp eax, 201",
        "mov r11, [rip + {functions} + 16]",
        "je 3f",
        "cmp eax, 309",
        "mov r11, [rip + {functions} + 24]",
        "je 3f",
        "mov r11, [rip + {functions} + 32]",
        "jmp 4f",
        "2:",
        "mov r11, [rip + {functions}]",
        "4:",
        // The clocks that the kernel's vDSO knows; others would leave from there
        // by a system call.
        "cmp edi, 12",
        "jae {slowly}",
        "mov edx, 0x8f3",
        "bt edx, edi",
        "jnc {slowly}",
        "3:",
        "test r11, r11",
        "je {slowly}",
        "inc qword ptr [rip + {engine} + {told}]",
        "mov gs:[{rcx}], rcx",
        "mov gs:[{rsp}], rsp",
        "mov gs:[{rbp}], rbp",
        "mov gs:[{rbx}], rbx",
        "mov gs:[{r12}], r12",
        "mov gs:[{r13}], r13",
        "mov gs:[{r14}], r14",
        "mov gs:[{r15}], r15",
        "mov gs:[{rdi}], rdi",
        "mov gs:[{rsi}], rsi",
        "mov gs:[{rdx}], rdx",
        ".global dc_time_saved",
        "dc_time_saved:",
        "sub rsp, 8",
        "call r11",
        "add rsp, 8",
        "ret",
        ".global dc_time_end",
        "dc_time_end:",
        "ud2",
        engine = sym ENGINE,
        cheap = const offset_of!(Engine, nd_cheap),
        told = const offset_of!(Engine, times_told),
        functions = sym FUNCTIONS,
        slowly = sym super::entry::syscall_entry,
        rcx = const w!(rcx), rsp = const w!(rsp), rbp = const w!(rbp), rbx = const w!(rbx),
        r12 = const w!(r12), r13 = const w!(r13), r14 = const w!(r14), r15 = const w!(r15),
        rdi = const w!(rdi), rsi = const w!(rsi), rdx = const w!(rdx),
    )
}

unsafe extern "C" {
    static dc_time_begin: u8;
    static dc_time_saved: u8;
    static dc_time_end: u8;
}

fn in_vdso(rip: usize) -> bool {
    (VDSO_BASE..VDSO_END).contains(&rip)
}

/// A signal found the thread at `uc.rip`. If that is on the short way, the thread
/// is again where it had not called yet.
pub fn roll_back(l: &Local, uc: &mut UContext) {
    let at = |p: *const u8| p as usize;
    // Only the addresses of the labels are taken.
    let (begin, saved, end) = (
        at(&raw const dc_time_begin),
        at(&raw const dc_time_saved),
        at(&raw const dc_time_end),
    );
    if (begin..saved).contains(&uc.rip) {
        uc.rip = uc.rcx - BACK;
    } else if (saved..end).contains(&uc.rip) || in_vdso(uc.rip) {
        // The runtime asks for the time as well.
        if l.state.load(Relaxed) != PROGRAM {
            return;
        }
        let w = &l.window;
        uc.rip = w.rcx - BACK;
        (uc.rsp, uc.rbp, uc.rbx) = (w.rsp, w.rbp, w.rbx);
        (uc.r12, uc.r13, uc.r14, uc.r15) = (w.r12, w.r13, w.r14, w.r15);
        (uc.rdi, uc.rsi, uc.rdx) = (w.rdi, w.rsi, w.rdx);
    }
}

/// The kernel's vDSO makes a call after all (there is no clock that it can read
/// by itself): it is made for it, and nothing else happens.
pub fn call_of_vdso(uc: &mut UContext) -> bool {
    if !in_vdso(uc.rip) {
        return false;
    }
    for at in [uc.rdi, uc.rsi] {
        engine().pieces.wake(at, at.saturating_add(16));
    }
    // SAFETY: the program's own call, on its way through the kernel's own code.
    uc.rax = unsafe { sys::raw6(uc.rax, [uc.rdi, uc.rsi, uc.rdx, 0, 0, 0]) } as usize;
    true
}

/// Before everything but the runtime is unmapped: the kernel's vDSO goes to our
/// half. `program` says whether the program's questions may be answered by it.
pub fn keep(program: bool) {
    let pieces = engine().boot.vdso;
    let lowest = pieces.iter().filter(|p| p.len > 0).map(|p| p.addr).min();
    let (Some(lowest), code) = (lowest, pieces[3]) else {
        return;
    };
    let to = |addr: u64| VDSO_BASE + (addr - lowest) as usize;
    if code.len == 0 || to(code.addr + code.len) > VDSO_END {
        return;
    }
    for p in pieces.iter().filter(|p| p.len > 0) {
        const MAYMOVE_FIXED: usize = 3;
        let r = crate::sys!(MREMAP, p.addr, p.len, p.len, MAYMOVE_FIXED, to(p.addr));
        if failed(r) {
            // Sealed, perhaps. What moved already is of no use, nor in the way.
            return;
        }
    }
    for (i, name) in NAMES.iter().enumerate() {
        let found = find(to(code.addr), name).unwrap_or(0);
        if program {
            FUNCTIONS[i].store(found, Relaxed);
        }
        if i == 0 {
            OWN.store(found, Relaxed);
        }
    }
}

/// A symbol of the vDSO at `base`.
fn find(base: usize, name: &[u8]) -> Option<usize> {
    // SAFETY: reads within the image that the kernel has mapped, by its own tables.
    unsafe {
        let word = |at: usize| (at as *const usize).read_unaligned();
        let half = |at: usize| (at as *const u16).read_unaligned() as usize;
        let (phoff, phnum) = (word(base + 32), half(base + 56));
        let (mut bias, mut dynamic) = (base, 0);
        for i in 0..phnum {
            let p = base + phoff + i * 56;
            match (p as *const u32).read_unaligned() {
                1 if word(p + 8) == 0 => bias = base.wrapping_sub(word(p + 16)),
                2 => dynamic = word(p + 16),
                _ => {}
            }
        }
        let (mut strings, mut symbols) = (0, 0);
        let mut d = bias.wrapping_add(dynamic);
        while dynamic != 0 && word(d) != 0 {
            match word(d) {
                5 => strings = bias.wrapping_add(word(d + 8)),
                6 => symbols = bias.wrapping_add(word(d + 8)),
                _ => {}
            }
            d += 16;
        }
        // The strings follow the symbols, in every vDSO there has been.
        let mut s = symbols;
        while symbols != 0 && s + 24 <= strings {
            let at = strings + (s as *const u32).read_unaligned() as usize;
            let text = core::ffi::CStr::from_ptr(at as *const core::ffi::c_char);
            if text.to_bytes() == name && half(s + 6) != 0 {
                return Some(bias.wrapping_add(word(s + 8)));
            }
            s += 24;
        }
        None
    }
}

/// CLOCK_MONOTONIC in ns, for the runtime itself.
pub fn monotonic_ns() -> u64 {
    let mut ts = [0u64; 2];
    match OWN.load(Relaxed) {
        0 => {
            crate::sys!(CLOCK_GETTIME, 1, &raw mut ts);
        }
        f => {
            // SAFETY: the kernel's function of this type.
            let f: extern "C" fn(i32, *mut [u64; 2]) -> i32 = unsafe { core::mem::transmute(f) };
            f(1, &raw mut ts);
        }
    }
    ts[0] * 1_000_000_000 + ts[1]
}
