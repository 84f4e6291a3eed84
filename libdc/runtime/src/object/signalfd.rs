//! signalfd: the kernel's, over signals that the program blocks.
//!
//! What waits to be read by one stays in the kernel, where poll(2) and its relatives look
//! for it. So a commit keeps a copy, and a recovery sends it once more.
//!
//! state:    words[0] the mask; `Root::for_signalfd`, what waits
//! survives: warm; cold made again

use super::descriptor::*;
use crate::engine::state;
use crate::machine::frame::Local;
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::state::Kind;
use crate::{signal, sys};

pub fn signalfd(l: &mut Local, a: [usize; 6]) -> isize {
    let flags = if l.frame.nr == nr::SIGNALFD4 { a[3] } else { 0 };
    let Some(mask) = user::read::<u64>(a[1]) else {
        return -EFAULT;
    };
    if a[0] as i32 == -1 && !has_numbers(1) {
        return -EMFILE;
    }
    let r = sys!(SIGNALFD4, a[0], a[1], a[2], flags);
    if failed(r) {
        return r;
    }
    let file = if a[0] as i32 >= 0 {
        match file_of(a[0] as i32) {
            Some(file) => file,
            None => return -EBADF,
        }
    } else {
        let Some(file) = new_file(Kind::SignalFd) else {
            return -EMFILE;
        };
        open_file(file).flags = (flags & O_NONBLOCK) as u32 | 2;
        enter(r as i32, file, flags & O_CLOEXEC != 0);
        file
    };
    open_file(file).words[0] = mask;
    r
}

/// All signals that some signalfd reads.
pub fn masks() -> u64 {
    let mut all = 0;
    for fd in 0..state().root.fd_high as i32 {
        if let Some(file) = known_file(fd)
            && open_file(file).kind == Kind::SignalFd
        {
            all |= open_file(file).words[0];
        }
    }
    all
}

/// In a commit, when all threads are stopped: takes what waits out of the kernel, notes it,
/// and sends it again. `mask`: which signals.
pub fn save(mask: u64) {
    let root = &mut state().root;
    let mut n = 0;
    if mask != 0 {
        let zero = [0usize; 2];
        let mut info = root.for_signalfd[0];
        let (set, timeout) = (&raw const mask, &raw const zero);
        while n < root.for_signalfd.len()
            && !failed(sys!(RT_SIGTIMEDWAIT, set, &raw mut info, timeout, 8))
        {
            if !signal::suspension::is_asked_by(&info) {
                root.for_signalfd[n] = info;
                n += 1;
            }
        }
        for info in &root.for_signalfd[..n] {
            signal::leave_in_kernel(info);
        }
        if n == root.for_signalfd.len() && crate::table::first_time(nr::SIGNALFD4 as u16) {
            crate::say!("of more than {n} signals that wait for a signalfd, {n} survive a death");
        }
    }
    if root.for_signalfd_len != n as u32 {
        root.for_signalfd_len = n as u32;
    }
}

/// At a recovery, when what was consumed since the commit is known: what waited then and
/// was not read waits again. So does what has come from outside meanwhile.
pub fn put_back(l: &mut Local) {
    let mask = masks() & signal::mask_of(l) & !signal::RESERVED;
    if mask == 0 {
        return;
    }
    // An ignored signal waits only where it is blocked.
    sys!(RT_SIGPROCMASK, 0, &raw const mask, 0, 8);
    let mut read = [0u32; 65];
    super::pushback::each(|file, bytes| {
        if open_file(file).kind == Kind::SignalFd {
            for one in bytes.chunks_exact(SIGNALFD_SIGINFO) {
                let signo = u32::from_le_bytes([one[0], one[1], one[2], one[3]]);
                read[(signo as usize).min(64)] += 1;
            }
        }
    });
    let root = &state().root;
    for info in &root.for_signalfd[..root.for_signalfd_len as usize] {
        match &mut read[info.signo as usize] {
            0 => signal::leave_in_kernel(info),
            n => *n -= 1,
        }
    }
    let next = |l: &mut Local| {
        let own = l.queue.take(mask);
        own.or_else(|| signal::for_process::take(l.slot, mask))
    };
    while let Some(info) = next(l) {
        if signal::outside::is(&info) {
            signal::outside::count(&info);
        }
        signal::leave_in_kernel(&signal::outside::as_sent(&info));
    }
}

/// `struct signalfd_siginfo`; the number of the signal comes first.
pub const SIGNALFD_SIGINFO: usize = 128;

/// Whether what such a descriptor reads may ask for the run's suspension.
pub fn suspends(fd: i32) -> bool {
    let signals = signal::suspension::signals();
    signals != 0
        && known_file(fd)
            .map(open_file)
            .is_some_and(|f| f.kind == Kind::SignalFd && f.words[0] & signals != 0)
}

/// At cold recovery.
pub fn remake(file: u32) -> isize {
    let f = open_file(file);
    sys!(
        SIGNALFD4,
        -1isize,
        f.words.as_ptr(),
        8,
        f.flags as usize & O_NONBLOCK
    )
}
