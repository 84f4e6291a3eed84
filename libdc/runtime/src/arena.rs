//! The runtime's own memory: handed out once, never rolled back, never freed.

use dc_image::window::{ARENA_BASE, ARENA_LEN};

/// A bump allocator over the arena window, which the keeper has mapped.
pub struct Arena {
    next: usize,
}

impl Arena {
    pub const fn new() -> Arena {
        Arena { next: 0 }
    }

    /// Starts behind what the boot block uses.
    pub fn init(&mut self, first_free: usize) {
        self.next = first_free.next_multiple_of(4096);
    }

    /// Zeroed memory, aligned to 64 (to a page from a page on); never null in
    /// practice, since the window is far larger than the tables.
    pub fn alloc(&mut self, bytes: usize) -> *mut u8 {
        let align = if bytes >= 4096 { 4096 } else { 64 };
        let at = self.next.next_multiple_of(align);
        if at + bytes > ARENA_BASE + ARENA_LEN {
            return core::ptr::null_mut();
        }
        self.next = at + bytes;
        at as *mut u8
    }
}
