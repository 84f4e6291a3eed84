//! Access to the program's memory.
//!
//! A pointer that the program passes may be bad; the kernel would answer
//! EFAULT, and so must we. Each copy here is one asm function between labels:
//! the SIGSEGV handler recognises the range and continues at its failure label.
#![allow(unsafe_code)]

use core::arch::naked_asm;
use vista_core::pages::sum::{self, LANES};
use vista_core::pages::{Copied, Sums};

/// Copies `n` bytes; returns the number NOT copied (0 is success).
#[unsafe(naked)]
unsafe extern "C" fn copy_or_fault(dst: *mut u8, src: *const u8, n: usize) -> usize {
    naked_asm!(
        "mov rcx, rdx",
        ".global dc_user_copy_begin",
        "dc_user_copy_begin:",
        "rep movsb",
        ".global dc_user_copy_end",
        "dc_user_copy_end:",
        "mov rax, rcx",
        "ret"
    )
}

/// Copies a page past the caches; returns 0, or 1 if a fault came. For a frame
/// that nobody has looked at for long: it need not be read before it is written.
#[unsafe(naked)]
unsafe extern "C" fn stream_page_or_fault(dst: *mut u8, src: *const u8) -> usize {
    naked_asm!(
        "mov ecx, 64",
        ".global dc_user_stream_begin",
        "dc_user_stream_begin:",
        "2:",
        "prefetcht0 [rsi + 512]",
        "movdqa xmm0, [rsi]",
        "movdqa xmm1, [rsi + 16]",
        "movdqa xmm2, [rsi + 32]",
        "movdqa xmm3, [rsi + 48]",
        "movntdq [rdi], xmm0",
        "movntdq [rdi + 16], xmm1",
        "movntdq [rdi + 32], xmm2",
        "movntdq [rdi + 48], xmm3",
        "add rsi, 64",
        "add rdi, 64",
        "dec ecx",
        "jne 2b",
        "sfence",
        "xor eax, eax",
        "ret",
        ".global dc_user_stream_end",
        "dc_user_stream_end:",
        "mov eax, 1",
        "ret"
    )
}

/// The same, and of each eighth pair of blocks the sum in a lane of its own, as
/// [`vista_core::pages::sum`] has it: read back it would have to come from memory.
#[unsafe(naked)]
unsafe extern "C" fn stream_and_sum_or_fault(
    dst: *mut u8,
    src: *const u8,
    lanes: *mut [[u64; 2]; LANES],
) -> usize {
    naked_asm!(
        "movdqu xmm8, [rdx]",
        "movdqu xmm9, [rdx + 16]",
        "movdqu xmm10, [rdx + 32]",
        "movdqu xmm11, [rdx + 48]",
        "movdqu xmm12, [rdx + 64]",
        "movdqu xmm13, [rdx + 80]",
        "movdqu xmm14, [rdx + 96]",
        "movdqu xmm15, [rdx + 112]",
        "mov ecx, 16",
        ".global dc_user_sum_begin",
        "dc_user_sum_begin:",
        "2:",
        "prefetcht0 [rsi + 512]",
        "prefetcht0 [rsi + 576]",
        "movdqa xmm0, [rsi]",
        "movdqa xmm1, [rsi + 16]",
        "movdqa xmm2, [rsi + 32]",
        "movdqa xmm3, [rsi + 48]",
        "movdqa xmm4, [rsi + 64]",
        "movdqa xmm5, [rsi + 80]",
        "movdqa xmm6, [rsi + 96]",
        "movdqa xmm7, [rsi + 112]",
        "movntdq [rdi], xmm0",
        "movntdq [rdi + 16], xmm1",
        "movntdq [rdi + 32], xmm2",
        "movntdq [rdi + 48], xmm3",
        "movntdq [rdi + 64], xmm4",
        "movntdq [rdi + 80], xmm5",
        "movntdq [rdi + 96], xmm6",
        "movntdq [rdi + 112], xmm7",
        "pxor xmm8, xmm0",
        "aesenc xmm8, xmm1",
        "pxor xmm9, xmm2",
        "aesenc xmm9, xmm3",
        "pxor xmm10, xmm4",
        "aesenc xmm10, xmm5",
        "pxor xmm11, xmm6",
        "aesenc xmm11, xmm7",
        "sub rsi, -128",
        "sub rdi, -128",
        "prefetcht0 [rsi + 512]",
        "prefetcht0 [rsi + 576]",
        "movdqa xmm0, [rsi]",
        "movdqa xmm1, [rsi + 16]",
        "movdqa xmm2, [rsi + 32]",
        "movdqa xmm3, [rsi + 48]",
        "movdqa xmm4, [rsi + 64]",
        "movdqa xmm5, [rsi + 80]",
        "movdqa xmm6, [rsi + 96]",
        "movdqa xmm7, [rsi + 112]",
        "movntdq [rdi], xmm0",
        "movntdq [rdi + 16], xmm1",
        "movntdq [rdi + 32], xmm2",
        "movntdq [rdi + 48], xmm3",
        "movntdq [rdi + 64], xmm4",
        "movntdq [rdi + 80], xmm5",
        "movntdq [rdi + 96], xmm6",
        "movntdq [rdi + 112], xmm7",
        "pxor xmm12, xmm0",
        "aesenc xmm12, xmm1",
        "pxor xmm13, xmm2",
        "aesenc xmm13, xmm3",
        "pxor xmm14, xmm4",
        "aesenc xmm14, xmm5",
        "pxor xmm15, xmm6",
        "aesenc xmm15, xmm7",
        "sub rsi, -128",
        "sub rdi, -128",
        "dec ecx",
        "jne 2b",
        "sfence",
        "movdqu [rdx], xmm8",
        "movdqu [rdx + 16], xmm9",
        "movdqu [rdx + 32], xmm10",
        "movdqu [rdx + 48], xmm11",
        "movdqu [rdx + 64], xmm12",
        "movdqu [rdx + 80], xmm13",
        "movdqu [rdx + 96], xmm14",
        "movdqu [rdx + 112], xmm15",
        "xor eax, eax",
        "ret",
        ".global dc_user_sum_end",
        "dc_user_sum_end:",
        "mov eax, 1",
        "ret"
    )
}

/// Compares two pages; returns 0 if they are equal, 1 if not or if a fault came.
#[unsafe(naked)]
unsafe extern "C" fn compare_page_or_fault(a: *const u8, b: *const u8) -> usize {
    naked_asm!(
        "mov ecx, 64",
        ".global dc_user_compare_begin",
        "dc_user_compare_begin:",
        "2:",
        "movdqa xmm0, [rsi]",
        "movdqa xmm1, [rsi + 16]",
        "movdqa xmm2, [rsi + 32]",
        "movdqa xmm3, [rsi + 48]",
        "pcmpeqb xmm0, [rdi]",
        "pcmpeqb xmm1, [rdi + 16]",
        "pcmpeqb xmm2, [rdi + 32]",
        "pcmpeqb xmm3, [rdi + 48]",
        "pand xmm0, xmm1",
        "pand xmm2, xmm3",
        "pand xmm0, xmm2",
        "pmovmskb eax, xmm0",
        "cmp eax, 0xffff",
        "jne dc_user_compare_end",
        "add rsi, 64",
        "add rdi, 64",
        "dec ecx",
        "jne 2b",
        "xor eax, eax",
        "ret",
        ".global dc_user_compare_end",
        "dc_user_compare_end:",
        "mov eax, 1",
        "ret"
    )
}

unsafe extern "C" {
    static dc_user_copy_begin: u8;
    static dc_user_copy_end: u8;
    static dc_user_stream_begin: u8;
    static dc_user_stream_end: u8;
    static dc_user_sum_begin: u8;
    static dc_user_sum_end: u8;
    static dc_user_compare_begin: u8;
    static dc_user_compare_end: u8;
}

/// If a fault at `rip` came from a user copy: where to go on, which is where the
/// copy gives up.
pub fn fixup(rip: usize) -> Option<usize> {
    let at = |p: *const u8| p as usize;
    // Only the addresses of the labels are taken.
    let places = [
        (
            at(&raw const dc_user_copy_begin),
            at(&raw const dc_user_copy_end),
        ),
        (
            at(&raw const dc_user_stream_begin),
            at(&raw const dc_user_stream_end),
        ),
        (
            at(&raw const dc_user_sum_begin),
            at(&raw const dc_user_sum_end),
        ),
        (
            at(&raw const dc_user_compare_begin),
            at(&raw const dc_user_compare_end),
        ),
    ];
    places
        .into_iter()
        .find(|p| (p.0..p.1).contains(&rip))
        .map(|p| p.1)
}

/// Whether a range is the program's to name.
fn in_upper_half(addr: usize, len: usize) -> bool {
    let Some(end) = addr.checked_add(len) else {
        return false;
    };
    use dc_image::window::{LOWER_HALF, TRANSFER_BASE, USER_END};
    // (What a call moves is as good as the program's.)
    end <= USER_END + 1
        && (end <= LOWER_HALF.start || addr >= LOWER_HALF.end || addr >= TRANSFER_BASE)
}

/// Reads `dst.len()` bytes of the program at `addr`; false is EFAULT.
pub fn read_bytes(addr: usize, dst: &mut [u8]) -> bool {
    in_upper_half(addr, dst.len())
        // SAFETY: dst is ours; a fault on src is handled by the fixup.
        && unsafe { copy_or_fault(dst.as_mut_ptr(), addr as *const u8, dst.len()) == 0 }
}

/// Writes to the program at `addr`; false is EFAULT.
pub fn write_bytes(addr: usize, src: &[u8]) -> bool {
    in_upper_half(addr, src.len())
        // SAFETY: src is ours; a fault on dst is handled by the fixup.
        && unsafe { copy_or_fault(addr as *mut u8, src.as_ptr(), src.len()) == 0 }
}

/// Copies between raw places of which either may fault; false if it did.
///
/// # Safety
/// Whatever of the two does not belong to the program is valid for `n` bytes.
pub unsafe fn try_copy(dst: *mut u8, src: *const u8, n: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { copy_or_fault(dst, src, n) == 0 }
}

/// [`try_copy`] of a whole page into a frame that is not in the caches.
///
/// # Safety
/// `dst` is a page-aligned frame; `src` is page-aligned and may fault.
pub unsafe fn try_stream_page(dst: *mut u8, src: *const u8, sums: &Sums) -> Copied {
    if !sums.is_quick() {
        // SAFETY: the caller's promise.
        return match unsafe { stream_page_or_fault(dst, src) } {
            0 => Copied::Whole,
            _ => Copied::Not,
        };
    }
    let mut lanes = sum::BEGIN;
    // SAFETY: the caller's promise; the processor has the instruction.
    match unsafe { stream_and_sum_or_fault(dst, src, &raw mut lanes) } {
        0 => Copied::Summed(sums.of_lanes(&lanes)),
        _ => Copied::Not,
    }
}

/// Whether a page of the program can be read and equals a frame.
///
/// # Safety
/// `frame` is a page-aligned frame; `page` is page-aligned and may fault.
pub unsafe fn same_page(frame: *const u8, page: *const u8) -> bool {
    // SAFETY: the caller's promise.
    unsafe { compare_page_or_fault(frame, page) == 0 }
}

/// Reads a plain value.
pub fn read<T: Copy>(addr: usize) -> Option<T> {
    let mut v = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the slice covers exactly `v`.
    let bytes =
        unsafe { core::slice::from_raw_parts_mut(v.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
    if read_bytes(addr, bytes) {
        // SAFETY: T is plain data; all bytes were written.
        Some(unsafe { v.assume_init() })
    } else {
        None
    }
}

/// Writes a plain value; false is EFAULT.
pub fn write<T: Copy>(addr: usize, v: &T) -> bool {
    // SAFETY: the slice covers exactly `v`.
    let bytes =
        unsafe { core::slice::from_raw_parts((v as *const T).cast::<u8>(), size_of::<T>()) };
    write_bytes(addr, bytes)
}

/// Reads a C string into `buf`; its length without the NUL, or a negative errno.
pub fn read_cstr(addr: usize, buf: &mut [u8]) -> Result<usize, isize> {
    use super::sys::errno::{EFAULT, ENAMETOOLONG};
    let mut n = 0;
    while n < buf.len() {
        // To the end of the page, so that a string before an unmapped page works.
        let step = (4096 - (addr + n) % 4096).min(buf.len() - n).min(256);
        let part = &mut buf[n..n + step];
        if !read_bytes(addr + n, part) {
            return Err(-EFAULT);
        }
        if let Some(i) = part.iter().position(|&b| b == 0) {
            return Ok(n + i);
        }
        n += step;
    }
    Err(-ENAMETOOLONG)
}
