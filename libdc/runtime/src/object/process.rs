//! What belongs to the process as a whole: directory, umask, its end.
//!
//! save:     in the state, as the calls change it
//! restore:  chdir, umask
//! survives: warm and cold
#![allow(unsafe_code)]

use super::output;
use super::record::{self, IoHead};
use super::undo::beside;
use super::undo::place::{AT_FDCWD, O_DIRECTORY, identity, open_path};
use crate::engine::{engine, state};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user, vector};
use crate::{fatal, sys};
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;
use dc_image::boot::high_fd;

/// exit_group(2): the last visible event.
pub fn exit_group(l: &mut Local, a: [usize; 6]) -> isize {
    core::mem::forget(engine().lock.acquire(l));
    crate::run::end::end(l, crate::run::end::How::Exit(a[0] as u8))
}

/// A signal to somebody else is output: it is on record, and not sent again. (Only a
/// death between the call and its record leaves open whether it was sent: no counter
/// of the kernel tells. Then it is sent again, and said.)
/// Under the big lock.
pub fn send_to_others(l: &mut Local, n: usize, a: [usize; 6]) -> isize {
    // SAFETY: the program's own call with its own arguments.
    let deed = || unsafe { crate::machine::sys::raw6(n, a) };
    sent(l, signal_sum(n, &a), deed)
}

/// In the place of a process: all of them.
pub const KILL_ALL: usize = usize::MAX;

/// The same of what is done by several calls of the kernel: `to` says whom and what.
pub fn send_to_others_by(l: &mut Local, to: [usize; 2], deed: impl FnOnce() -> isize) -> isize {
    let args = [to[0], to[1], 0, 0, 0, 0];
    sent(l, signal_sum(nr::KILL, &args), deed)
}

fn sent(l: &mut Local, sum: u64, deed: impl FnOnce() -> isize) -> isize {
    let e = engine();
    if let Some(r) = e.replay.take(l.slot, SIGNAL, sum, 0) {
        if !e.replay.is_active() {
            event::caught_up(l);
        }
        return r;
    }
    event::visible(l);
    let flight = &e.live().output;
    let before = e.journal.tail() as u64 | output::MESSAGE_MARK;
    flight.fd.store(SIGNAL as u32, Relaxed);
    flight.before.store(before, Relaxed);
    crate::run::flies();
    flight.begin(engine().slot);
    let r = deed();
    crate::commit::fault_point(dc_image::boot::fault::AFTER_VISIBLE);
    if !failed(r) && !crate::log::is_kept() {
        let head = IoHead {
            fd: SIGNAL,
            thread: l.slot,
            mark: record::mark(before),
            ret: 0,
            sum,
        };
        record::append(record::OUTPUT, &[record::bytes_of(&head)]);
    }
    flight.end();
    event::non_deterministic(l);
    r
}

/// In [`IoHead::fd`]: a signal, which goes through no descriptor.
pub const SIGNAL: i32 = -2;

/// Tells one signal from another.
pub fn signal_sum(n: usize, a: &[usize; 6]) -> u64 {
    let used = match n {
        nr::KILL | nr::TKILL | nr::RT_SIGQUEUEINFO => 2,
        _ => 3,
    };
    let mut bytes = [0u8; 32];
    for (to, word) in bytes.chunks_mut(8).zip([n].iter().chain(&a[..used])) {
        to.copy_from_slice(&(*word as u32 as u64).to_le_bytes());
    }
    dc_image::header::checksum(&bytes)
}

/// The process id that the program knows.
pub fn getpid(_l: &mut Local, _a: [usize; 6]) -> isize {
    state().root.pid as isize
}

pub fn arch_prctl(_l: &mut Local, a: [usize; 6]) -> isize {
    const ARCH_SET_GS: usize = 0x1001;
    const ARCH_GET_GS: usize = 0x1004;
    const ARCH_CET_STATUS: usize = 0x3001;
    const ARCH_GET_XCOMP_SUPP: usize = 0x1021;
    const ARCH_GET_XCOMP_PERM: usize = 0x1022;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    match a[0] {
        ARCH_SET_GS | ARCH_GET_GS => {
            crate::say!("this program uses the gs register, which the runtime needs for itself");
            -EPERM
        }
        ARCH_GET_XCOMP_SUPP | ARCH_GET_XCOMP_PERM => {
            let r = sys!(ARCH_PRCTL, a[0], a[1]);
            if let Some(there) = user::read::<u64>(a[1]).filter(|_| !failed(r)) {
                user::write(a[1], &(there & !vector::TILES));
            }
            r
        }
        // (As on a processor that has no such thing.)
        ARCH_REQ_XCOMP_PERM => {
            crate::say!("this program asks for AMX, whose tiles are not kept: it is refused");
            -EOPNOTSUPP
        }
        ARCH_CET_STATUS..=0x3fff | 0x5001..=0x5005 => -EINVAL,
        _ => sys!(ARCH_PRCTL, a[0], a[1]),
    }
}

pub fn chdir(l: &mut Local, a: [usize; 6]) -> isize {
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(l.frame.nr, a) };
    if !failed(r) {
        note_cwd();
    }
    r
}

/// Which directory it is, and what it is called.
pub fn note_cwd() {
    let root = &mut state().root;
    let slot = high_fd::CWD;
    if let Ok(fd) = open_path(AT_FDCWD, c".".as_ptr().cast(), O_DIRECTORY, slot)
        && let Ok(id) = identity(fd)
    {
        root.cwd_is = [id.dev, id.ino];
    }
    let cwd = &mut state().root.cwd;
    // The kernel cannot write into state that sleeps.
    let at = cwd.as_ptr() as usize;
    engine().pieces.wake(at, at + cwd.len());
    let n = sys!(GETCWD, cwd.as_mut_ptr(), cwd.len());
    if failed(n) {
        cwd[0] = 0;
    }
}

pub fn umask(_l: &mut Local, a: [usize; 6]) -> isize {
    state().root.umask = a[0] as u32 & 0o777;
    sys!(UMASK, a[0])
}

/// Reads a path of the program, made absolute, NUL-terminated.
pub fn absolute(dir: i32, at: usize, out: &mut [u8; 4096]) -> Result<usize, isize> {
    let n = user::read_cstr(at, out)?;
    if n == 0 {
        return Err(-ENOENT);
    }
    if out[0] == b'/' {
        return Ok(n);
    }
    let mut base = [0u8; 4096];
    let b = if dir == AT_FDCWD {
        let cwd = &state().root.cwd;
        let b = cwd.iter().position(|&c| c == 0).unwrap_or(0);
        base[..b].copy_from_slice(&cwd[..b]);
        b
    } else {
        fd_path(dir, &mut base)
    };
    // `.` at the start is common and only makes paths longer.
    let skip = if n > 2 && out[0] == b'.' && out[1] == b'/' {
        2
    } else {
        0
    };
    let len = b + 1 + n - skip;
    if len + 1 > out.len() {
        return Err(-ENAMETOOLONG);
    }
    out.copy_within(skip..n + 1, b + 1);
    out[..b].copy_from_slice(&base[..b]);
    out[b] = b'/';
    Ok(len)
}

/// What /proc says a descriptor is; its length.
pub fn fd_path(fd: i32, out: &mut [u8]) -> usize {
    let mut link = [0u8; 40];
    let head = b"/proc/self/fd/";
    link[..head.len()].copy_from_slice(head);
    let mut digits = [0u8; 10];
    let mut n = fd as u32;
    let mut k = 10;
    loop {
        k -= 1;
        digits[k] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    link[head.len()..head.len() + 10 - k].copy_from_slice(&digits[k..]);
    let r = sys!(
        READLINKAT,
        crate::proc::folder(),
        crate::proc::below(&link),
        out.as_mut_ptr(),
        out.len()
    );
    if failed(r) { 0 } else { r as usize }
}

/// At recovery.
pub fn restore() {
    sys!(UMASK, state().root.umask);
    if let Err(e) = go_back() {
        let cwd = &state().root.cwd;
        let n = cwd.iter().position(|&b| b == 0).unwrap_or(0);
        let cwd = core::str::from_utf8(&cwd[..n]).unwrap_or("?");
        fatal::stop(
            FatalCode::CannotRestore,
            e,
            format_args!(
                "go back to the working directory {cwd}: it is not there any more, or another one \
                 is (error {}); put it back, then resume",
                -e
            ),
        )
    }
}

/// By its descriptor, which outlives a worker, or by its name.
fn go_back() -> Result<(), isize> {
    let root = &state().root;
    let is_it = |fd: i32| identity(fd).is_ok_and(|id| [id.dev, id.ino] == root.cwd_is);
    let slot = engine().high_fd(high_fd::CWD);
    if !is_it(slot) {
        let fd = open_path(AT_FDCWD, root.cwd.as_ptr(), O_DIRECTORY, high_fd::CWD);
        if !fd.is_ok_and(is_it) {
            let [dev, ino] = root.cwd_is;
            let renamed = beside::open(dev, ino, &root.cwd, high_fd::CWD);
            if !renamed.is_some_and(is_it) {
                return Err(fd.err().unwrap_or(-ENOENT));
            }
        }
    }
    let r = sys!(FCHDIR, slot);
    if failed(r) { Err(r) } else { Ok(()) }
}
