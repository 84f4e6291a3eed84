//! The vector state: everything that `xsave` knows.
//!
//! The runtime is compiled for plain SSE2, so it changes xmm0-15 only. Entry
//! saves those into the frame; the rest stays in the registers and is saved
//! here when a commit, a long wait or a signal frame needs it.
#![allow(unsafe_code)]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Room for the largest state we can keep (AVX-512 needs 2.7 KB, AMX 11 KB).
pub const XSAVE_MAX: usize = 12 << 10;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct XsaveArea {
    pub bytes: [u8; XSAVE_MAX],
}

static MASK: AtomicU64 = AtomicU64::new(3);
static SIZE: AtomicU32 = AtomicU32::new(576);

/// Bytes of a standard-format area with everything the system enabled, but for AMX's tiles: the
/// kernel's own signal frames have them only where they were asked for.
pub fn standard_size() -> usize {
    SIZE.load(Relaxed) as usize
}

/// The components (XCR0) that are saved.
pub fn mask() -> u64 {
    MASK.load(Relaxed)
}

/// Asks the processor what there is. Returns false if it is more than fits.
pub fn detect() -> bool {
    let leaf = core::arch::x86_64::__cpuid_count(0xd, 0);
    let (lo, hi): (u32, u32);
    // SAFETY: Linux enables OSXSAVE on every processor that has xsave; dcrun's
    // doctor checks it.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") lo, out("edx") hi, options(nomem, nostack)) };
    let enabled = (hi as u64) << 32 | lo as u64;
    // AMX tiles need a permission of their own and 8 KB: left in their initial state.
    MASK.store(enabled & !TILES, Relaxed);
    let size = match enabled & TILE_DATA {
        0 => leaf.ebx,
        _ => size_of_all(enabled & !TILE_DATA),
    };
    SIZE.store(size, Relaxed);
    leaf.ebx as usize <= XSAVE_MAX
}

const TILE_DATA: u64 = 1 << 18;
/// AMX: how the tiles are laid out, and what is in them.
pub const TILES: u64 = 3 << 17;

/// Where the last of these components ends, in the standard format.
fn size_of_all(components: u64) -> u32 {
    const HEAD: u32 = 576;
    (2..63)
        .filter(|component| components >> component & 1 != 0)
        .map(|component| core::arch::x86_64::__cpuid_count(0xd, component))
        .fold(HEAD, |end, leaf| end.max(leaf.ebx + leaf.eax))
}

/// Saves into `area` (compact format); xmm0-15 are the runtime's, see [`set_xmm`].
///
/// # Safety
/// `area` is writable for [`XSAVE_MAX`] bytes and aligned to 64.
#[inline(always)]
pub unsafe fn save_compact(area: *mut u8) {
    let m = mask();
    // SAFETY: the caller's promise; the header must be zero in its reserved part.
    unsafe {
        core::ptr::write_bytes(area.add(512), 0, 64);
        asm!("xsavec64 [{a}]", a = in(reg) area, in("eax") m as u32, in("edx") (m >> 32) as u32,
            options(nostack));
    }
}

/// Saves into `area` in the standard format, as signal frames have it.
///
/// # Safety
/// `area` is writable for [`standard_size`] bytes and aligned to 64.
#[inline(always)]
pub unsafe fn save_standard(area: *mut u8) {
    let m = mask();
    // SAFETY: the caller's promise.
    unsafe {
        core::ptr::write_bytes(area.add(512), 0, 64);
        asm!("xsave64 [{a}]", a = in(reg) area, in("eax") m as u32, in("edx") (m >> 32) as u32,
            options(nostack));
    }
}

/// Loads an area of either format; the caller restores xmm0-15 from a frame.
///
/// # Safety
/// `area` holds what one of the save functions (or the kernel) wrote.
#[inline(always)]
pub unsafe fn load(area: *const u8) {
    let m = mask();
    // SAFETY: the caller's promise; xmm0-15 are declared as changed.
    unsafe {
        asm!("xrstor64 [{a}]", a = in(reg) area, in("eax") m as u32, in("edx") (m >> 32) as u32,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack));
    }
}

const LEGACY_MXCSR: usize = 24;
const LEGACY_XMM: usize = 160;
const XSTATE_BV: usize = 512;

/// Puts the program's xmm0-15 into a saved area and declares them present.
///
/// # Safety
/// `area` was written by a save function.
pub unsafe fn set_xmm(area: *mut u8, xmm: &[[u64; 2]; 16]) {
    // SAFETY: both lie within the 576 bytes that every format has.
    unsafe {
        core::ptr::copy_nonoverlapping(xmm.as_ptr().cast::<u8>(), area.add(LEGACY_XMM), 256);
        let bv = area.add(XSTATE_BV).cast::<u64>();
        if bv.read() & 2 == 0 {
            // The component was in its initial state and not written, MXCSR,
            // which belongs to it, included.
            bv.write(bv.read() | 2);
            area.add(LEGACY_MXCSR).cast::<u32>().write(0x1f80);
        }
    }
}

/// The xmm0-15 of a saved area.
///
/// # Safety
/// `area` was written by a save function or by the kernel.
pub unsafe fn get_xmm(area: *const u8) -> [[u64; 2]; 16] {
    // SAFETY: as above.
    unsafe {
        let bv = area.add(XSTATE_BV).cast::<u64>().read_unaligned();
        if bv & 2 == 0 {
            [[0; 2]; 16]
        } else {
            area.add(LEGACY_XMM)
                .cast::<[[u64; 2]; 16]>()
                .read_unaligned()
        }
    }
}

static FSGSBASE: AtomicU32 = AtomicU32::new(0);

/// Whether the kernel lets programs read their own fs base (AT_HWCAP2, bit 1).
pub fn allow_fsgsbase(hwcap2: u64) {
    FSGSBASE.store((hwcap2 >> 1 & 1) as u32, Relaxed);
}

/// The program's fs base.
#[inline(always)]
pub fn fs_base() -> usize {
    let mut v = 0usize;
    if FSGSBASE.load(Relaxed) != 0 {
        // SAFETY: the kernel has said that it allows the instruction.
        unsafe { asm!("rdfsbase {}", out(reg) v, options(nomem, nostack, preserves_flags)) };
        return v;
    }
    const ARCH_GET_FS: usize = 0x1003;
    crate::sys!(ARCH_PRCTL, ARCH_GET_FS, &raw mut v);
    v
}
