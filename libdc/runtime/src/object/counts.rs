//! The kernel's own counts of what this process has read and written.
//!
//! After a death they tell what became of the call that was under way (the
//! keeper reads them from the zombie), so the runtime keeps equal counts of its
//! own in `Live`: of what it reads and writes call by call, and anew from the
//! kernel where others have added to them. Those are the keeper's child, which
//! became this process, and the children that the program has reaped: their
//! counts go to whoever reaps them.

use crate::engine::engine;
use crate::machine::sys::failed;
use crate::reserved;
use crate::sys;
use core::sync::atomic::Ordering::Relaxed;
use dc_image::boot::high_fd;

/// Takes the kernel's counts over. The caller holds the big lock, or is alone.
pub fn take() {
    let mut text = [0u8; 256];
    let r = crate::proc::open(b"/proc/self/io\0", super::descriptor::O_CLOEXEC);
    if failed(r) {
        return;
    }
    let fd = reserved::move_high(r, high_fd::SCRATCH);
    let n = sys!(READ, fd, text.as_mut_ptr(), text.len()).max(0);
    sys!(CLOSE, fd);
    let text = &text[..n as usize];
    let _live = engine().live();
    if let Some(count) = number(text, b"rchar: ") {
        // What was just read is counted, and not yet in what it says.
        crate::run::me().rchar.store(count + n as u64, Relaxed);
    }
    if let Some(count) = number(text, b"wchar: ") {
        crate::run::me().wchar.store(count, Relaxed);
    }
}

fn number(text: &[u8], key: &[u8]) -> Option<u64> {
    let at = text.windows(key.len()).position(|w| w == key)? + key.len();
    let digits = text[at..].iter().take_while(|b| b.is_ascii_digit());
    Some(digits.fold(0, |v, b| v * 10 + (b - b'0') as u64))
}
