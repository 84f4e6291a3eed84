//! Committed buffers, read beside whoever has a transaction open.
//!
//! A retransmission must not wait for the program, which may compute in its transaction for long.
//! So the driver reads messages where they are: the bytes of a committed message do not change
//! until a commit frees them, that commit tells the machine before any later transaction can use
//! the place again, and the driver asks and reads under the machine's lock.

use std::slice;

use rio_core::At;

/// The segment that holds the buffers, as it is mapped.
pub struct Stored {
    segment: usize,
    base: *const u8,
    len: usize,
}

// SAFETY: only memory that nobody changes is read through it, as the module says.
unsafe impl Send for Stored {}
// SAFETY: as above.
unsafe impl Sync for Stored {}

impl Stored {
    /// # Safety
    /// The segment stays mapped at this place until the value is dropped; it may become longer.
    pub unsafe fn at(segment: usize, base: *const u8, len: usize) -> Stored {
        Stored { segment, base, len }
    }

    /// The segment was lengthened in place.
    pub fn grown(&mut self, len: usize) {
        self.len = self.len.max(len);
    }

    /// The segment will be unmapped.
    pub fn gone(&mut self) {
        self.len = 0;
    }

    /// A message that the machine knows of, while its lock is held. A place outside the segment,
    /// which only a damaged table could name, has no bytes.
    pub fn bytes(&self, at: At, len: usize) -> &[u8] {
        if at.window() != self.segment || at.offset() + len > self.len {
            return &[];
        }
        // SAFETY: inside the mapping, and nobody writes it, as the module says.
        unsafe { slice::from_raw_parts(self.base.add(at.offset()), len) }
    }
}
