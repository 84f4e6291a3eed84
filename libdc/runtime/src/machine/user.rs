//! Access to the program's memory.
//!
//! A pointer that the program passes may be bad; the kernel would answer
//! EFAULT, and so must we. Each copy here is one asm function between labels:
//! the SIGSEGV handler recognises the range and continues at its failure label.

use core::arch::naked_asm;

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

unsafe extern "C" {
    static dc_user_copy_begin: u8;
    static dc_user_copy_end: u8;
}

/// If a fault at `rip` came from a user copy: where to go on (rcx then holds
/// what is missing).
pub fn fixup(rip: usize) -> Option<usize> {
    let (begin, end) = (
        &raw const dc_user_copy_begin as usize,
        &raw const dc_user_copy_end as usize,
    );
    (begin..end).contains(&rip).then_some(end)
}

/// Whether a range is the program's to name.
fn in_upper_half(addr: usize, len: usize) -> bool {
    let Some(end) = addr.checked_add(len) else {
        return false;
    };
    end <= dc_image::window::USER_END + 1
        && (end <= dc_image::window::LOWER_HALF.start || addr >= dc_image::window::LOWER_HALF.end)
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
