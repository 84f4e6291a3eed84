//! Memory that survives by being mapped: a shared mapping of a file outlives the process that
//! stored into it.
//!
//! Nothing has to be flushed, because a killed process leaves its stores in the page cache; all
//! that durability asks is that the compiler keeps their order. That makes `order` and `seal` free.

use core::sync::atomic::{Ordering, compiler_fence};

use crate::{At, Errno, Rio, WINDOWS, Window};

/// Windows over mappings that somebody else made and will take down.
#[derive(Clone, Debug)]
pub struct Mapped {
    windows: [Window; WINDOWS],
}

// SAFETY: the windows are plain memory that no thread owns.
unsafe impl Send for Mapped {}

impl Mapped {
    /// # Safety
    /// The windows are as the trait [`Rio`] asks, and stay so while the value lives.
    pub const unsafe fn new(windows: [Window; WINDOWS]) -> Mapped {
        Mapped { windows }
    }

    /// Puts a window in place, for a segment that is added or that grew.
    ///
    /// # Safety
    /// As for `new`.
    pub unsafe fn set(&mut self, index: usize, window: Window) {
        if let Some(slot) = self.windows.get_mut(index) {
            *slot = window;
        }
    }
}

// SAFETY: the maker of the value vouched for the windows.
unsafe impl Rio for Mapped {
    #[inline(always)]
    fn window(&self, index: usize) -> Window {
        if index < WINDOWS {
            self.windows[index]
        } else {
            Window::NONE
        }
    }

    #[inline(always)]
    fn writes_back(&self) -> bool {
        false
    }

    #[inline(always)]
    fn order(&self, _at: At, _len: usize) {
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn keep(&self, _at: At, _len: usize) {}

    #[inline(always)]
    fn seal(&self) -> Result<(), Errno> {
        compiler_fence(Ordering::SeqCst);
        Ok(())
    }
}
