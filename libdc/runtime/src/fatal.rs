//! The end of a worker that cannot go on: say why, and stop at the last commit.
//!
//! Nothing here returns. The message goes into Rio, where the keeper finds it;
//! the worker then kills itself without any further effect, so that the state
//! is exactly the last commit and the run can be resumed once the cause is
//! mended.
#![allow(unsafe_code)]

use crate::engine::{add, engine};
use crate::sys;
use core::fmt::Write;
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;

/// Formats into a fixed buffer; what does not fit is cut off.
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    pub const fn new() -> Self {
        Text {
            bytes: [0; N],
            len: 0,
        }
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
    pub fn append(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(N - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&bytes[..n]);
        self.len += n;
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.append(s.as_bytes());
        Ok(())
    }
}

/// Stops the program at its last commit.
pub fn stop(code: FatalCode, detail: isize, message: core::fmt::Arguments) -> ! {
    let mut text = Text::<511>::new();
    let _ = text.write_fmt(message);
    let live = engine().live;
    if !live.is_null() {
        // SAFETY: Live is mapped for the life of the worker; the message is
        // written by a dying worker only.
        unsafe {
            let dst = (&raw mut (*live).message).cast::<u8>();
            core::ptr::copy_nonoverlapping(text.as_bytes().as_ptr(), dst, text.as_bytes().len());
            dst.add(text.as_bytes().len()).write(0);
            (*live).fatal_detail.store(detail as u64, Relaxed);
            (*live).fatal.store(code as u32, SeqCst);
        }
    } else {
        sys!(WRITE, 2, text.as_bytes().as_ptr(), text.as_bytes().len());
    }
    die()
}

/// Kills the whole worker at once.
pub fn die() -> ! {
    loop {
        let pid = sys!(GETPID);
        sys!(KILL, pid, 9);
        sys!(PAUSE);
    }
}

pub fn internal(info: &core::panic::PanicInfo) -> ! {
    stop(
        FatalCode::Internal,
        0,
        format_args!("the runtime failed: {info}"),
    )
}

/// Keeps `Process::wchar` equal to what the kernel counts for this process.
pub fn count_written(bytes: usize) {
    add(&crate::run::me().wchar, bytes as u64);
}
