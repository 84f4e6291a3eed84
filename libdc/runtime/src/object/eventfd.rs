//! eventfd: a counter in the kernel, mirrored in the state.
//!
//! state:    words[0] the counter, words[1] EFD_SEMAPHORE
//! restore:  warm: drained and set; cold: made anew
//! survives: warm and cold

use super::descriptor::*;
use super::output::Call;
use super::poll;
use crate::engine::engine;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::state::Kind;
use crate::sys;

const EFD_SEMAPHORE: usize = 1;

pub fn eventfd(l: &mut Local, a: [usize; 6]) -> isize {
    eventfd2(l, [a[0], 0, 0, 0, 0, 0])
}

pub fn eventfd2(_l: &mut Local, a: [usize; 6]) -> isize {
    if !has_numbers(1) {
        return -EMFILE;
    }
    let r = sys!(EVENTFD2, a[0] as u32, a[1]);
    if failed(r) {
        return r;
    }
    let Some(file) = new_file(Kind::EventFd) else {
        return -EMFILE;
    };
    let f = open_file(file);
    f.flags = (a[1] & O_NONBLOCK) as u32 | 2;
    f.words[0] = a[0] as u32 as u64;
    f.words[1] = (a[1] & EFD_SEMAPHORE != 0) as u64;
    enter(r as i32, file, a[1] & O_CLOEXEC != 0);
    r
}

/// A write: waits without the lock if the counter is at its end.
pub fn write(l: &mut Local, fd: i32, c: Call) -> isize {
    if c.nr != nr::WRITE || c.len < 8 {
        return -EINVAL;
    }
    match user::read::<u64>(c.args[1]) {
        Some(v) => add(l, fd, v),
        None => -EFAULT,
    }
}

/// Adds a number; 8 if it did.
pub fn add(l: &mut Local, fd: i32, v: u64) -> isize {
    loop {
        let guard = engine().lock.acquire(l);
        let Some(file) = file_of(fd) else {
            return -EBADF;
        };
        let f = open_file(file);
        if v == u64::MAX || poll::ready_now(fd, poll::POLLOUT) || f.flags as usize & O_NONBLOCK != 0
        {
            let r = sys!(WRITE, fd, &raw const v, 8);
            if !failed(r) {
                crate::fatal::count_written(8);
                f.words[0] = f.words[0].saturating_add(v);
                note(file);
            }
            return r;
        }
        drop(guard);
        if let Err(e) = poll::wait_for(l, fd, poll::POLLOUT) {
            return e;
        }
    }
}

pub fn read(l: &mut Local, fd: i32, addr: usize, len: usize) -> isize {
    if len < 8 {
        return -EINVAL;
    }
    loop {
        let guard = engine().lock.acquire(l);
        let Some(file) = file_of(fd) else {
            return -EBADF;
        };
        let f = open_file(file);
        if poll::ready_now(fd, poll::POLLIN) || f.flags as usize & O_NONBLOCK != 0 {
            let mut v = 0u64;
            let r = sys!(READ, fd, &raw mut v, 8);
            super::input::count_read(r);
            // To one thread alone it is a variable like others.
            if !engine().log.private() {
                crate::event::non_deterministic(l);
            }
            if failed(r) {
                return r;
            }
            f.words[0] = if f.words[1] != 0 {
                f.words[0].saturating_sub(1)
            } else {
                0
            };
            note(file);
            return if user::write(addr, &v) { 8 } else { -EFAULT };
        }
        drop(guard);
        if let Err(e) = poll::wait_for(l, fd, poll::POLLIN) {
            return e;
        }
    }
}

/// Its count has changed, and other processes may know it too.
fn note(file: u32) {
    if open_file(file).shared != 0 {
        super::regular::touch(file);
    }
}

/// The count, as the kernel tells it without taking it (proc_pid_fdinfo(5)).
pub fn count_of(fd: i32) -> isize {
    let mut path = crate::fatal::Text::<40>::new();
    let _ = core::fmt::Write::write_fmt(&mut path, format_args!("/proc/self/fdinfo/{fd}\0"));
    let info = crate::proc::open(path.as_bytes(), O_CLOEXEC);
    if failed(info) {
        return info;
    }
    let mut text = [0u8; 256];
    let n = sys!(READ, info, text.as_mut_ptr(), text.len());
    super::input::count_read(n);
    sys!(CLOSE, info);
    let text = &text[..n.max(0) as usize];
    let key = b"eventfd-count:";
    let Some(at) = text.windows(key.len()).position(|w| w == key) else {
        return -EINVAL;
    };
    let digits = text[at + key.len()..].trim_ascii_start();
    let digits = digits.iter().take_while(|b| b.is_ascii_hexdigit());
    digits.fold(0, |v, &b| {
        let digit = (b as char).to_digit(16).unwrap_or(0);
        v << 4 | digit as isize
    })
}

/// The counter of the last commit: another process may have changed it.
fn committed(f: &crate::state::OpenFile) -> u64 {
    crate::run::shared::of(f)
        .and_then(|(_, shared)| shared.get(engine().store.published()))
        .unwrap_or(f.words[0])
}

/// At warm recovery: the counter of the last commit. Of several that have it one sets it, for
/// two would count it twice.
pub fn restore_warm(file: u32, fd: i32) {
    let f = open_file(file);
    if let Some((_, s)) = crate::run::shared::of(f)
        && (failed(count_of(fd)) || !crate::run::shared::claim(s))
    {
        f.words[0] = committed(f);
        return;
    }
    const F_SETFL: usize = 4;
    sys!(FCNTL, fd, F_SETFL, O_NONBLOCK);
    let mut v = 0u64;
    while sys!(READ, fd, &raw mut v, 8) == 8 {
        super::input::count_read(8);
    }
    let v = committed(f);
    f.words[0] = v;
    if v > 0 {
        sys!(WRITE, fd, &raw const v, 8);
        crate::fatal::count_written(8);
    }
    sys!(FCNTL, fd, F_SETFL, f.flags as usize & O_NONBLOCK);
}

/// At cold recovery.
pub fn remake(file: u32) -> isize {
    let f = open_file(file);
    let flags = f.flags as usize & O_NONBLOCK | f.words[1] as usize & EFD_SEMAPHORE;
    let r = sys!(EVENTFD2, 0, flags);
    f.words[0] = committed(f);
    if !failed(r) && f.words[0] > 0 {
        let v = f.words[0];
        sys!(WRITE, r, &raw const v, 8);
        crate::fatal::count_written(8);
    }
    r
}
