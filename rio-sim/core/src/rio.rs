//! The trait: windows, stores, and three words about durability.

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::At;

/// The most windows one Rio can have. Window 0 is for whoever builds on the Rio, the others for its
/// user.
pub const WINDOWS: usize = 16;

/// A cause as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// A mapped range. A window that does not exist has no bytes.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub base: *mut u8,
    pub len: usize,
}

impl Window {
    pub const NONE: Window = Window {
        base: ptr::null_mut(),
        len: 0,
    };
}

/// Persistent memory: a set of windows whose commits are one.
///
/// The promise to the user of a Rio, for a crash at any moment:
/// - bytes that were `order`ed are found after the crash *if memory is found at all* (on a disk it
///   is not);
/// - bytes that were `keep`ed are found when the `seal` after them returned, all of them or, on a
///   disk, none;
/// - any other store may be found or not, in words of 8 aligned bytes.
///
/// # Safety
/// Each window is readable and writable for its whole `len`, page-aligned, disjoint from the others
/// and from all that Rust knows as its own, and neither moves nor shrinks while the Rio lives.
pub unsafe trait Rio {
    /// The window's place in this process. O(1): it stands on the path of every transaction.
    fn window(&self, index: usize) -> Window;

    /// Whether `order` and `keep` have work to do. Memory that survives by being mapped says no,
    /// and its user leaves out the walks that would only feed them.
    fn writes_back(&self) -> bool;

    /// These bytes are to be durable before any later store is: for what memory needs to recover
    /// (undo images).
    fn order(&self, at: At, len: usize);

    /// These bytes belong to the commit that `seal` will end.
    fn keep(&self, at: At, len: usize);

    /// Makes durable all that was kept since the last seal. On an error nothing of it counts.
    fn seal(&self) -> Result<(), Errno>;

    /// Copies `bytes` to `at`.
    ///
    /// # Safety
    /// `at .. at + bytes.len()` lies in a window and does not overlap `bytes`; nobody holds a
    /// reference to it.
    #[inline(always)]
    unsafe fn store(&self, at: At, bytes: &[u8]) {
        let to = self.window(at.window()).base.wrapping_add(at.offset());
        // SAFETY: the caller vouches for the range, and `to` is where it is mapped.
        unsafe { self.store_mapped(at, to, bytes) }
    }

    /// As `store`, for a caller that knows where `at` is mapped. The simulator sees each one;
    /// elsewhere it is a copy.
    ///
    /// # Safety
    /// As for `store`, and `to` is the address of `at`.
    #[inline(always)]
    unsafe fn store_mapped(&self, at: At, to: *mut u8, bytes: &[u8]) {
        let _ = at;
        // SAFETY: the caller vouches for the range.
        unsafe { copy(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Stores 8 bytes at once: after a crash the word is the old one or the new one.
    ///
    /// # Safety
    /// As for `store`, and `at` is a multiple of 8.
    #[inline(always)]
    unsafe fn store_word(&self, at: At, word: u64) {
        let to = self.window(at.window()).base.wrapping_add(at.offset());
        // SAFETY: in a window and aligned, says the caller. Release keeps the compiler from moving
        // earlier stores past.
        unsafe { AtomicU64::from_ptr(to.cast()) }.store(word, Ordering::Release);
    }
}

/// Copies bytes; words without a call, because most ranges are one or two of them, and what a call
/// spills takes room in the store buffer, which is what small transactions wait for.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller vouches for `len` bytes at both places; no alignment is asked.
    unsafe {
        match len {
            8 => ptr::copy_nonoverlapping(from, to, 8),
            16 => ptr::copy_nonoverlapping(from, to, 16),
            24 => ptr::copy_nonoverlapping(from, to, 24),
            _ => ptr::copy_nonoverlapping(from, to, len),
        }
    }
}
