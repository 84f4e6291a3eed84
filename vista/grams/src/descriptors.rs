//! Descriptors of a thread's own.
//!
//! While threads share a table of descriptors, the kernel counts references for each call on one of
//! them. The keeper of time needs few; with a table of its own, a program without threads does not
//! pay for it, whatever it calls.

use std::marker::PhantomData;
use std::os::fd::RawFd;

/// Panics are told there.
const STDERR: RawFd = 2;

/// A table of the thread's own. It is emptied when this is dropped: a thread that has ended is joined
/// before the kernel has let go of its table, and whoever joins it may want the ports again.
///
/// It stays with the thread: elsewhere it would empty the program's.
pub struct Own(PhantomData<*const ()>);

/// Gives the calling thread a table with these descriptors and standard error; where that cannot
/// be, it goes on sharing the program's. The others stay open in the program's table, and only
/// there: who reads from them sees their end when the program closes them.
pub fn keep_only(kept: [RawFd; 2]) -> Option<Own> {
    let mut kept = [kept[0], kept[1], STDERR].map(|fd| fd as u32);
    kept.sort_unstable();
    let [low, middle, high] = kept;
    // The first call makes the table: only once that is done may others close anything.
    if !close_range(high + 1, u32::MAX, libc::CLOSE_RANGE_UNSHARE) {
        return None;
    }
    for (first, end) in [(0, low), (low + 1, middle), (middle + 1, high)] {
        if first < end {
            close_range(first, end - 1, 0);
        }
    }
    Some(Own(PhantomData))
}

impl Drop for Own {
    fn drop(&mut self) {
        close_range(0, u32::MAX, 0);
    }
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> bool {
    // SAFETY: no memory is touched. What is closed is closed in this thread's table only, which
    // `keep_only` has made with its first call, and of which an `Own` is the proof.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::UdpSocket;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_keeps_two_and_the_others_end_with_the_program() {
        let (one, other) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("[::1]:0"));
        let (one, other) = (one.unwrap(), other.unwrap());
        let mut ends = [0; 2];
        // SAFETY: room for two, which are then owned here.
        let (mut reads, writes) = unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            let writes = OwnedFd::from_raw_fd(ends[1]);
            (std::fs::File::from_raw_fd(ends[0]), writes)
        };
        let fds = [other.as_raw_fd(), one.as_raw_fd()];
        let written = writes.as_raw_fd();
        let (said, heard) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let keeper = thread::spawn(move || {
            let own = keep_only(fds);
            assert!(own.is_some());
            // SAFETY: this asks only whether there is one.
            let is_open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
            said.send([fds[0], fds[1], STDERR, written].map(is_open))
                .unwrap();
            let _ = wait.recv();
            drop(own);
            assert!(!is_open(fds[0]) && !is_open(fds[1]));
        });
        assert_eq!(heard.recv().unwrap(), [true, true, true, false]);
        // The pipe is open here still, and its end is seen when it is closed here.
        drop(writes);
        assert_eq!(reads.read(&mut [0; 1]).unwrap(), 0);
        drop(go);
        keeper.join().unwrap();
        one.send_to(b"x", one.local_addr().unwrap()).unwrap();
    }
}
