//! Persistent memory of a process that dies after a given number of stores.
//!
//! Later stores are swallowed, so that the code under test runs on to the end of its step while
//! the memory stays as the death left it; whoever drives the step throws its results away.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;

use rio_core::{At, Errno, Rio, WINDOWS, Window};

/// The bytes of every window.
pub type Image = Vec<Vec<u8>>;

pub struct Mortal {
    windows: [Window; WINDOWS],
    left: Cell<u64>,
    alive: Cell<bool>,
    done: Cell<u64>,
}

impl Mortal {
    pub fn new(image: &Image) -> Mortal {
        let mut windows = [Window::NONE; WINDOWS];
        for (window, bytes) in windows.iter_mut().zip(image) {
            let layout = layout(bytes.len());
            // SAFETY: the layout is not empty, and the copy fits what was allocated for it.
            unsafe {
                let base = alloc_zeroed(layout);
                if base.is_null() {
                    handle_alloc_error(layout);
                }
                base.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                *window = Window {
                    base,
                    len: bytes.len(),
                };
            }
        }
        Mortal {
            windows,
            left: Cell::new(u64::MAX),
            alive: Cell::new(true),
            done: Cell::new(0),
        }
    }

    /// It dies after so many stores more.
    pub fn dies_after(&self, stores: u64) {
        self.left.set(stores);
    }

    /// No store was swallowed so far.
    pub fn is_alive(&self) -> bool {
        self.alive.get()
    }

    pub fn stores(&self) -> u64 {
        self.done.get()
    }

    pub fn image(&self) -> Image {
        let windows = self.windows.iter().take_while(|window| window.len > 0);
        // SAFETY: the windows are this value's own allocations, and nobody stores meanwhile.
        windows
            .map(|w| unsafe { std::slice::from_raw_parts(w.base, w.len) }.to_vec())
            .collect()
    }

    fn lives(&self) -> bool {
        self.done.set(self.done.get() + 1);
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        self.alive.set(self.alive.get() && left > 0);
        left > 0
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        for window in self.windows.iter().filter(|window| !window.base.is_null()) {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(window.base, layout(window.len)) }
        }
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len.max(1), 4096).expect("a size in memory")
}

// SAFETY: the windows are allocations of this value, page-aligned, and never moved.
unsafe impl Rio for Mortal {
    fn window(&self, index: usize) -> Window {
        self.windows.get(index).copied().unwrap_or(Window::NONE)
    }

    fn writes_back(&self) -> bool {
        false
    }

    fn order(&self, _: At, _: usize) {}

    fn keep(&self, _: At, _: usize) {}

    fn seal(&self) -> Result<(), Errno> {
        Ok(())
    }

    unsafe fn store_mapped(&self, _: At, to: *mut u8, bytes: &[u8]) {
        // A store of many bytes may stop in the middle, at a word.
        for (index, word) in bytes.chunks(8).enumerate() {
            if self.lives() {
                let to = to.wrapping_add(8 * index);
                // SAFETY: in a window, says the caller.
                unsafe { to.copy_from_nonoverlapping(word.as_ptr(), word.len()) }
            }
        }
    }

    unsafe fn store_word(&self, at: At, word: u64) {
        if self.lives() {
            let to = self.window(at.window()).base.wrapping_add(at.offset());
            // SAFETY: in a window and aligned, says the caller.
            unsafe { to.cast::<u64>().write(word) }
        }
    }
}
