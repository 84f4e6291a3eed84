//! The controlling terminal, as it was when dcrun was called.
//!
//! A program that ends puts its terminal back itself. One that is stopped at
//! its last commit cannot, and leaves its user with a shell that echoes nothing.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

const TERMINAL: &str = "/dev/tty";

/// Settings of the terminal.
pub struct Settings(libc::termios);

/// `None` without a controlling terminal.
pub fn remember() -> Option<Settings> {
    let terminal = File::open(TERMINAL).ok()?;
    let mut settings = MaybeUninit::uninit();
    // SAFETY: tcgetattr fills the settings if it answers 0.
    unsafe {
        let answer = libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr());
        (answer == 0).then(|| Settings(settings.assume_init()))
    }
}

/// Puts the settings back. The worker must be dead: this opens a descriptor.
pub fn put_back(settings: &Settings) {
    if let Ok(terminal) = File::open(TERMINAL) {
        // SAFETY: the settings were filled by tcgetattr. SIGTTOU is blocked, so
        // that this works from the background, too.
        unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSADRAIN, &raw const settings.0) };
    }
}

/// A new terminal of one's own, unlocked: its master, and its number.
pub fn new_pty() -> io::Result<(RawFd, u32)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let (mut number, unlocked) = (0u32, 0i32);
    // SAFETY: the path is a C string, and both ioctls have room for a number.
    unsafe {
        let fd = libc::open(c"/dev/ptmx".as_ptr(), flags);
        if fd == -1
            || libc::ioctl(fd, libc::TIOCGPTN, &raw mut number) == -1
            || libc::ioctl(fd, libc::TIOCSPTLCK, &raw const unlocked) == -1
        {
            return Err(io::Error::last_os_error());
        }
        Ok((fd, number))
    }
}
