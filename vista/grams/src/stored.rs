//! Committed buffers, read beside whoever has a transaction open.
//!
//! A retransmission must not wait for the program, which may compute in its transaction for long.
//! So the driver reads messages where they are: the bytes of a committed message do not change
//! until a commit frees them, that commit tells the machine before any later transaction can use
//! the place again, and the driver asks and reads under the machine's lock. Under the same lock it
//! writes headers into the room that is kept for them before long messages, and that means nothing
//! to anybody else.

use std::ptr;
use std::slice;

use rio_core::At;

use crate::tables::ROOM;

/// The segment that holds the buffers, as it is mapped.
pub struct Stored {
    segment: usize,
    base: *mut u8,
    len: usize,
    /// Between transactions as well.
    is_writable: bool,
}

// SAFETY: through it only memory is read that nobody changes, and only the room before a message is
// written, which is nobody else's, as the module says.
unsafe impl Send for Stored {}
// SAFETY: as above.
unsafe impl Sync for Stored {}

impl Stored {
    /// # Safety
    /// The segment stays mapped at this place until the value is dropped; it may become longer.
    /// `is_writable` says that it can be written outside of transactions.
    pub unsafe fn at(segment: usize, base: *mut u8, len: usize, is_writable: bool) -> Stored {
        Stored {
            segment,
            base,
            len,
            is_writable,
        }
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

    /// The same bytes behind a header, which is written into the room before them. None if it
    /// cannot be.
    pub fn packet(&mut self, at: At, len: usize, header: &[u8]) -> Option<&[u8]> {
        let begin = at.offset().checked_sub(ROOM)?;
        let is_inside = at.window() == self.segment && at.offset() + len <= self.len;
        if !is_inside || !self.is_writable || header.len() > ROOM {
            return None;
        }
        let begin = begin + ROOM - header.len();
        // SAFETY: inside the mapping; nobody but the holder of the machine's lock reads or writes
        // the room, and nobody writes the message.
        unsafe {
            let start = self.base.add(begin);
            ptr::copy_nonoverlapping(header.as_ptr(), start, header.len());
            Some(slice::from_raw_parts(start, header.len() + len))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_goes_into_the_room_before_a_message_and_nowhere_else() {
        let mut memory = vec![1u8; 4096];
        let base = memory.as_mut_ptr();
        // SAFETY: the vector outlives the value, and is looked at between its uses only.
        let mut stored = unsafe { Stored::at(1, base, 4096, true) };
        let header = [7; 72];
        let packet = stored.packet(At::new(1, 1000), 2000, &header).unwrap();
        assert_eq!((packet.len(), &packet[..72]), (2072, &header[..]));
        assert!(packet[72..].iter().all(|&byte| byte == 1));
        let outside = [
            (1, ROOM - 1, 100, 72),
            (1, 4000, 97, 72),
            (2, 1000, 100, 72),
            (1, 1000, 100, ROOM + 1),
        ];
        for (window, offset, len, header) in outside {
            let header = vec![9; header];
            assert!(
                stored
                    .packet(At::new(window, offset), len, &header)
                    .is_none()
            );
        }
        // SAFETY: as above.
        let mut protected = unsafe { Stored::at(1, base, 4096, false) };
        assert!(protected.packet(At::new(1, 1000), 2000, &[9; 72]).is_none());
        stored.gone();
        assert!(stored.packet(At::new(1, 1000), 2000, &[9; 72]).is_none());
        let written = (0..4096).filter(|&at| memory[at] != 1);
        assert!(written.eq(1000 - 72..1000));
    }
}
