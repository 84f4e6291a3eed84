//! The windows of the worker's address space.
//!
//! ```text
//! 0x0000_0040_0000  non-PIE program            |
//! 0x5555_5555_4000  PIE program, then its heap | the program's half:
//! 0x7fff_f7fd_0000  ld.so and libraries, mmap  | rolled back by recovery
//! 0x7fff_ffff_f000  stack (top)                |
//!
//! 0x2000_0000_0000  runtime: text, data, stacks     never rolled back
//! 0x2010_0000_0000  state: tables of kernel objects rolled back
//! 0x2020_0000_0000  arena: tables of the runtime    never rolled back
//! 0x2100_0000_0000  Rio: the image, mapped          survives the process
//! 0x2300_0000_0000  number of the newest commit     survives, beside the image
//! 0x2400_0000_0000  scratch: memory on its way      only inside one call
//! 0x2500_0000_0000  memory behind descriptors, to read   rolled back
//! 0x2600_0000_0000  bytes on their way              only inside one call
//! ```
//!
//! The runtime's half lies between what Linux gives to programs at the bottom
//! and at the top, and above the shadow that the address sanitizer wants. All
//! of it is fixed: a restored program finds every address as it left it.

/// Bytes of a page; the unit of every commit.
pub const PAGE: usize = 4096;

pub const RUNTIME_BASE: usize = 0x2000_0000_0000;
/// The runtime's executable never grows past this.
pub const RUNTIME_END: usize = 0x2000_1000_0000;

/// Where the kernel's vDSO and its data are moved to. Not in the range above: calls
/// that leave from there are the runtime's own.
pub const VDSO_BASE: usize = 0x2000_2000_0000;
pub const VDSO_END: usize = 0x2000_2010_0000;

pub const STATE_BASE: usize = 0x2010_0000_0000;
/// Bytes reserved for the state tables (touched sparsely).
pub const STATE_LEN: usize = 256 << 20;

pub const ARENA_BASE: usize = 0x2020_0000_0000;
/// Bytes reserved for the runtime's own tables (touched sparsely).
pub const ARENA_LEN: usize = 16 << 30;

pub const RIO_BASE: usize = 0x2100_0000_0000;

/// Where the number of the newest commit is mapped, from a file beside the image.
pub const NEWEST_BASE: usize = 0x2300_0000_0000;

/// Where memory is made that then moves to its place in the program's half.
pub const SCRATCH_BASE: usize = 0x2400_0000_0000;

/// Where memory that has a descriptor, but no name, is mapped once more for the
/// runtime, and the addresses by which the page store knows it.
pub const MEMORY_BASE: usize = 0x2500_0000_0000;
pub const MEMORY_END: usize = 0x2700_0000_0000;

/// Where what a call moves from one descriptor to another lies meanwhile: a part for
/// each thread.
pub const TRANSFER_BASE: usize = 0x2700_0000_0000;
pub const TRANSFER_LEN: usize = 2 << 30;
pub const TRANSFER_END: usize = 0x2800_0000_0000;

/// First and last address (exclusive) that belong to the runtime's half.
pub const LOWER_HALF: core::ops::Range<usize> = RUNTIME_BASE..0x2800_0000_0000;

/// End of user space on x86-64 with four-level page tables, less the guard page.
pub const USER_END: usize = 0x7fff_ffff_f000;

/// Top of the program's stack.
pub const STACK_TOP: usize = 0x7fff_ffff_e000;
/// The vDSO that the program sees: one page above its stack.
pub const PROGRAM_VDSO: usize = STACK_TOP;
/// Where `mmap(NULL)` starts to place areas, downward; the stack may grow to here.
pub const MMAP_TOP: usize = 0x7fff_f800_0000;
/// Where a position-independent executable is loaded.
pub const PIE_BASE: usize = 0x5555_5555_4000;
/// Lowest address the program may map.
pub const USER_MIN: usize = 0x1_0000;
