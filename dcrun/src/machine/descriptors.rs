//! Descriptors by number: placing them where the program does not look.

use std::io;
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd, RawFd};

/// Moves `descriptor` to exactly `number`, close-on-exec, replacing what is there.
pub fn place(descriptor: OwnedFd, number: RawFd) -> io::Result<()> {
    let low = descriptor.into_raw_fd();
    let placed = copy(low, number);
    close(low);
    placed
}

/// Copies `from` to exactly `number`, close-on-exec, replacing what is there.
pub fn copy(from: RawFd, number: RawFd) -> io::Result<()> {
    // SAFETY: dup3 takes no pointer. The numbers given here are reserved for
    // the keeper, so no owner of `number` is surprised.
    match unsafe { libc::dup3(from, number, libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Closes a number that nobody owns as an `OwnedFd`; an unused one is no error.
pub fn close(number: RawFd) {
    // SAFETY: close takes no pointer, and callers pass reserved numbers or
    // numbers of a worker that is dead.
    unsafe { libc::close(number) };
}

/// Closes all numbers from `first` to `last`, inclusive.
pub fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: takes no pointer; callers pass numbers that only a dead worker used, or of a
        // table that is the calling thread's alone and has no owners of what they pass.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// From here on the calling thread has a table for itself, with nothing in it.
pub fn leave_table() -> std::io::Result<()> {
    const CLOSE_RANGE_UNSHARE: u32 = 2;
    // SAFETY: takes no pointer; the table that it closes is nobody else's.
    let r = unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, CLOSE_RANGE_UNSHARE) };
    if r == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Whether the number names an open descriptor.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Writes all of `bytes`, giving up on the first error: there is nobody to tell.
pub fn write_all(number: RawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and length are those of a live slice.
        match unsafe { libc::write(number, bytes.as_ptr().cast(), bytes.len()) } {
            n if n > 0 => bytes = &bytes[n as usize..],
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// Writes `bytes` at the start of a file; there is nobody to tell of an error.
pub fn write_at_start(number: RawFd, bytes: &[u8]) {
    // SAFETY: the pointer and length are those of a live slice.
    unsafe { libc::pwrite(number, bytes.as_ptr().cast(), bytes.len(), 0) };
}

/// Reads from the start of a file; `None` if it cannot be read.
pub fn read_start(number: RawFd, buffer: &mut [u8]) -> Option<&str> {
    // SAFETY: the pointer and length are those of a live slice.
    let len = unsafe { libc::pread(number, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    std::str::from_utf8(&buffer[..usize::try_from(len).ok()?]).ok()
}

/// Takes the lock that keeper and worker hold together. It belongs to the
/// descriptor *table* (a POSIX lock), which both share and which children of
/// the program do not: it is free exactly when both are gone.
/// `Err` holds the pid of the holder.
pub fn lock_table(number: RawFd) -> io::Result<Result<(), i32>> {
    let mut wanted = whole_file();
    // SAFETY: fcntl reads the flock given by reference.
    if unsafe { libc::fcntl(number, libc::F_SETLK, &raw const wanted) } == 0 {
        return Ok(Ok(()));
    }
    let error = io::Error::last_os_error();
    if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) {
        return Err(error);
    }
    // SAFETY: fcntl writes the holder into the flock given by reference.
    unsafe { libc::fcntl(number, libc::F_GETLK, &raw mut wanted) };
    Ok(Err(wanted.l_pid))
}

/// The lock of [`lock_table`], which this table holds, is said to be this process's: whoever
/// asks for its holder is told so. (The kernel notes who has changed it; it is never free.)
pub fn own_lock(number: RawFd) {
    for kind in [libc::F_RDLCK, libc::F_WRLCK] {
        let wanted = libc::flock {
            l_type: kind as i16,
            ..whole_file()
        };
        // SAFETY: fcntl reads the flock given by reference.
        unsafe { libc::fcntl(number, libc::F_SETLK, &raw const wanted) };
    }
}

/// Takes the lock that all processes of a run hold: it belongs to the open file description
/// (flock(2)), which all of them have, by a descriptor or by what they have mapped. False if
/// somebody else has it.
pub fn lock_description(number: RawFd) -> io::Result<bool> {
    // SAFETY: flock takes no pointers.
    if unsafe { libc::flock(number, libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EWOULDBLOCK) => Ok(false),
        _ => Err(error),
    }
}

/// Who holds the lock of [`lock_table`], seen from another process.
pub fn lock_holder(number: RawFd) -> Option<i32> {
    let mut asked = whole_file();
    // SAFETY: fcntl writes the holder into the flock given by reference.
    let answered = unsafe { libc::fcntl(number, libc::F_GETLK, &raw mut asked) } == 0;
    (answered && asked.l_type != libc::F_UNLCK as i16).then_some(asked.l_pid)
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes a placed number as a file, which then closes it.
pub fn adopt(number: RawFd) -> std::fs::File {
    use std::os::fd::FromRawFd;
    // SAFETY: callers placed the descriptor themselves and adopt it once.
    unsafe { std::fs::File::from_raw_fd(number) }
}

/// Takes a descriptor that the kernel has made for us, with a message.
pub fn take(number: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: callers have it from a message, and take it once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// A placed number, for as long as whoever placed it leaves it open.
pub fn placed(number: &RawFd) -> BorrowedFd<'_> {
    // SAFETY: callers pass what they placed and do not close while they use it.
    unsafe { BorrowedFd::borrow_raw(*number) }
}
