//! What the person at the terminal should know and the program goes on without.
//!
//! Each notice is said once in a run, whatever recoveries there are. If the
//! terminal shows a screen that a program paints itself, a line of ours in the
//! middle of it would stay there, and be no part of what the program believes to
//! have shown. Then it is kept in the image, and the keeper says it when the
//! program has ended and the screen is the user's again.
//!
//! ```text
//! image at NOTICES_OFFSET:  [ SAID or KEPT, text in UTF-8, NUL ] ... 0
//! ```
#![allow(unsafe_code)]

use crate::engine::engine;
use crate::fatal::{self, Text};
use crate::machine::sys::failed;
use crate::sys;
use core::fmt::Write;
use dc_image::boot::high_fd;
use dc_image::header::{NOTICE_KEPT, NOTICE_SAID, NOTICES_LEN, NOTICES_OFFSET};
use dc_image::window::RIO_BASE;

/// Says a line on the keeper's standard error, or keeps it for later.
#[macro_export]
macro_rules! say {
    ($($t:tt)*) => { $crate::notice::give(format_args!($($t)*)) };
}

pub fn give(message: core::fmt::Arguments) {
    let mut text = Text::<400>::new();
    let _ = text.write_fmt(message);
    let e = engine();
    let fd = e.high_fd(high_fd::MESSAGES);
    if !e.live.is_null() {
        let kept = paints_itself(fd);
        let mark = if kept { NOTICE_KEPT } else { NOTICE_SAID };
        match note(mark, text.as_bytes()) {
            Noted::Already => return,
            Noted::Now if kept => return,
            Noted::Now | Noted::Full => {}
        }
    }
    let mut line = Text::<420>::new();
    let _ = write!(line, "dcrun: ");
    line.append(text.as_bytes());
    line.append(b"\r\n");
    let n = sys!(WRITE, fd, line.as_bytes().as_ptr(), line.as_bytes().len());
    if n > 0 {
        fatal::count_written(n as usize);
    }
}

enum Noted {
    Now,
    Already,
    Full,
}

fn note(mark: u8, text: &[u8]) -> Noted {
    // SAFETY: the keeper has made these pages; the runtime alone writes there,
    // and at worst two threads at once, of which then one is overwritten.
    let page = unsafe {
        core::slice::from_raw_parts_mut((RIO_BASE + NOTICES_OFFSET) as *mut u8, NOTICES_LEN)
    };
    let mut at = 0;
    while at < page.len() && page[at] != 0 {
        let rest = &page[at + 1..];
        let len = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
        if &rest[..len] == text {
            return Noted::Already;
        }
        at += 1 + len + 1;
    }
    // One byte stays 0 behind the last.
    if at + 1 + text.len() + 1 >= page.len() {
        return Noted::Full;
    }
    page[at + 1..at + 1 + text.len()].copy_from_slice(text);
    page[at] = mark;
    Noted::Now
}

/// Whether messages go to a terminal whose lines the program does not leave to
/// the kernel.
fn paints_itself(fd: i32) -> bool {
    const TCGETS: usize = 0x5401;
    const LFLAG: usize = 3;
    const ICANON: u32 = 2;
    let mut termios = [0u32; 16];
    !failed(sys!(IOCTL, fd, TCGETS, termios.as_mut_ptr())) && termios[LFLAG] & ICANON == 0
}
