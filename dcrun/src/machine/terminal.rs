//! The controlling terminal, as it was when dcrun was called.
//!
//! A program that ends puts its terminal back itself. One that is stopped at
//! its last commit cannot, and leaves its user with a shell that echoes nothing.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

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

/// The other end of such a terminal, which does not wait and is nobody's session's.
pub fn other_end(master: RawFd) -> io::Result<OwnedFd> {
    const TIOCGPTPEER: libc::c_ulong = 0x5441;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: takes no pointer; the descriptor that it answers is nobody else's.
    unsafe {
        match libc::ioctl(master, TIOCGPTPEER, flags) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// What the kernel calls `struct termios2`: 44 bytes of it count.
pub type Termios = [u8; 64];

/// Whether calls on it wait.
pub fn let_wait(fd: RawFd, waits: bool) {
    // SAFETY: takes no pointer.
    unsafe { libc::fcntl(fd, libc::F_SETFL, if waits { 0 } else { libc::O_NONBLOCK }) };
}

/// The first bytes of something, as settings.
pub fn termios(bytes: &[u8]) -> Termios {
    let mut all = [0; 64];
    let n = bytes.len().min(all.len());
    all[..n].copy_from_slice(&bytes[..n]);
    all
}

/// Sets a terminal, by either end.
pub fn set(fd: RawFd, termios: &Termios) {
    const TCSETS2: libc::c_ulong = 0x402c_542b;
    // SAFETY: the kernel reads 44 bytes.
    unsafe { libc::ioctl(fd, TCSETS2, termios.as_ptr()) };
}

/// tcflush(3).
pub fn flush(fd: RawFd, what: usize) {
    // SAFETY: takes no pointer.
    unsafe { libc::ioctl(fd, libc::TCFLSH, what) };
}

/// Lets printing go on, whatever has stopped it.
pub fn start(fd: RawFd) {
    // SAFETY: takes no pointer.
    unsafe {
        libc::ioctl(fd, libc::TCXONC, libc::TCOOFF);
        libc::ioctl(fd, libc::TCXONC, libc::TCOON);
    }
}

/// Whether a terminal can be read, and whether it takes output. To ask makes the kernel process
/// what the other end has written, unless something is there already.
pub fn is_ready(fd: RawFd) -> [bool; 2] {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN | libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one entry.
    unsafe { libc::poll(&raw mut poll, 1, 0) };
    [libc::POLLIN, libc::POLLOUT].map(|bit| poll.revents & bit != 0)
}

/// What one read gives of what is there.
pub fn read_now(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    if !is_ready(fd)[0] {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    // SAFETY: the pointer and length are those of a live slice.
    let n = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// How much one write takes; 0 if there is no room.
pub fn write_now(fd: RawFd, bytes: &[u8]) -> usize {
    if !is_ready(fd)[1] {
        return 0;
    }
    // SAFETY: the pointer and length are those of a live slice.
    let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(n).unwrap_or(0)
}
