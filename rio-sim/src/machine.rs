//! The processor's words for durability: writing cache lines back, and the fence after it.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _mm_sfence};

pub const LINE: usize = 64;

/// How a cache line is written back, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteBack {
    /// Writes the line and keeps it in the cache.
    Clwb,
    /// Writes it and drops it, in parallel with others.
    Clflushopt,
    /// Writes it and drops it, one after the other.
    Clflush,
}

impl WriteBack {
    /// The best that this processor has.
    pub fn detect() -> WriteBack {
        if __cpuid(0).eax < 7 {
            return WriteBack::Clflush;
        }
        let features = __cpuid_count(7, 0).ebx;
        match (features >> 24 & 1, features >> 23 & 1) {
            (1, _) => WriteBack::Clwb,
            (_, 1) => WriteBack::Clflushopt,
            _ => WriteBack::Clflush,
        }
    }
}

/// Starts writing back every cache line of a range. It is durable after the next `fence`.
///
/// # Safety
/// The range is mapped.
#[inline]
pub unsafe fn write_back(how: WriteBack, from: *const u8, len: usize) {
    let first = from.addr() & !(LINE - 1);
    for line in (first..from.addr() + len).step_by(LINE) {
        let line = from.with_addr(line);
        // SAFETY: the line holds a byte of the range, so it is mapped; the processor has the
        // instruction, because `detect` chose it.
        unsafe {
            match how {
                WriteBack::Clwb => clwb(line),
                WriteBack::Clflushopt => clflushopt(line),
                WriteBack::Clflush => clflush(line),
            }
        }
    }
}

/// Waits for the lines written back before.
#[inline]
pub fn fence() {
    // SAFETY: every x86-64 has it, and it touches no memory.
    unsafe { _mm_sfence() }
}

/// # Safety
/// As for `write_back`.
#[inline]
unsafe fn clwb(line: *const u8) {
    // SAFETY: only the cache is touched. No `nomem`: stores before it must come before it.
    unsafe { asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags)) }
}

/// # Safety
/// As for `write_back`.
#[inline]
unsafe fn clflushopt(line: *const u8) {
    // SAFETY: as for `clwb`.
    unsafe { asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags)) }
}

/// # Safety
/// As for `write_back`.
#[inline]
unsafe fn clflush(line: *const u8) {
    // SAFETY: as for `clwb`.
    unsafe { asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags)) }
}
