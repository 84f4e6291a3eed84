//! Descriptors: warm from the shared table, cold by name and kind.

use crate::engine::{engine, state};
use crate::machine::sys::failed;
use crate::object::descriptor::{self, any_fd, open_file};
use crate::object::*;
use crate::state::{INHERITED, Kind};
use crate::{fatal, sys};
use dc_image::FatalCode;

const O_CLOEXEC: usize = 0o2000000;

/// Numbers that were closed or replaced since the commit get their old meaning.
pub fn undo_limbo(warm: bool) {
    let e = engine();
    if !warm {
        return;
    }
    // Of the last attempt: an earlier recovery has taken back what was before
    // it. Newest last; each number was moved aside at most once as an old one.
    let since = e
        .journal
        .records(0)
        .filter(|r| r.kind == record::RECOVERED)
        .last()
        .map_or(0, |r| r.offset);
    for r in e.journal.records(since) {
        if r.kind != record::LIMBO {
            continue;
        }
        let (Some(fd), Some(limbo)) = (
            record::value_of::<i32>(r.payload),
            record::value_of::<i32>(&r.payload[4..]),
        ) else {
            continue;
        };
        if state().fds[fd as usize].file == 0 {
            continue;
        }
        let cloexec = if state().fds[fd as usize].cloexec != 0 {
            O_CLOEXEC
        } else {
            0
        };
        sys!(DUP3, limbo, fd, cloexec);
    }
}

pub fn restore(warm: bool) {
    if warm {
        close_others();
        descriptor::empty_limbo();
    }
    let high = state().root.fd_high as usize;
    for fd in 0..high {
        let file = state().fds[fd].file as u32;
        // Each file once, by its lowest number.
        if file == 0 || any_fd(file) != Some(fd as i32) {
            continue;
        }
        let kind = open_file(file).kind;
        if kind == Kind::Epoll {
            if !warm {
                install(file, epoll::remake(file), fd as i32);
            }
            continue;
        }
        let given = open_file(file).inherited == INHERITED && is_open(fd as i32);
        if !(warm || given) {
            remake(file, fd as i32);
        }
        if !warm && given {
            // This dcrun's own: as it was given, but for what the program asked.
            const F_GETFL: usize = 3;
            const F_SETFL: usize = 4;
            let nonblock = open_file(file).flags as usize & descriptor::O_NONBLOCK;
            let flags = sys!(FCNTL, fd, F_GETFL, 0);
            if nonblock != 0 && !failed(flags) {
                sys!(FCNTL, fd, F_SETFL, flags as usize | nonblock);
            }
            if regular::rewinds(open_file(file)) {
                sys!(LSEEK, fd, open_file(file).offset, 0);
            }
            continue;
        }
        match kind {
            Kind::Regular | Kind::Directory | Kind::MemFd | Kind::Pipe => {
                regular::restore_warm(file, fd as i32)
            }
            Kind::EventFd if warm => eventfd::restore_warm(file, fd as i32),
            Kind::TimerFd => timerfd::restore(file, fd as i32),
            _ => {}
        }
    }
    for fd in 0..high {
        let file = state().fds[fd].file as u32;
        if file != 0
            && any_fd(file) == Some(fd as i32)
            && open_file(file).kind == Kind::Epoll
            && !warm
        {
            epoll::fill(file);
        }
    }
    pipe::put_back(warm);
    if warm {
        epoll::roll_back();
        epoll::arm_reported();
    }
}

fn is_open(fd: i32) -> bool {
    !failed(sys!(FCNTL, fd, 1, 0))
}

/// Whatever is open below the reserved numbers and not in the table.
fn close_others() {
    let end = engine().boot.fd_base as usize;
    let mut from = 0;
    for fd in 0..state().root.fd_high as usize {
        if state().fds[fd].file != 0 {
            if fd > from {
                sys!(CLOSE_RANGE, from, fd - 1, 0);
            }
            from = fd + 1;
        }
    }
    sys!(CLOSE_RANGE, from, end - 1, 0);
}

/// Makes the description of a file again.
fn remake(file: u32, fd: i32) {
    let f = open_file(file);
    if f.inherited == INHERITED && f.kind != Kind::Regular {
        // A terminal or pipe that this dcrun was not given: the nearest is
        // what it was given instead.
        if let Some(other) = (0..3).find(|&o| o != fd && is_open(o)) {
            install(file, sys!(DUP, other), fd);
            return;
        }
    }
    let made = match f.kind {
        Kind::Regular | Kind::Directory | Kind::Device | Kind::Other | Kind::Tty => {
            regular::reopen(file)
        }
        Kind::Pipe if f.peer != 0 => {
            if is_open(fd) {
                return; // made together with its other end
            }
            pipe::remake(file)
        }
        Kind::Pipe => regular::reopen(file),
        Kind::EventFd => eventfd::remake(file),
        Kind::TimerFd => timerfd::remake(file),
        Kind::SignalFd => signalfd::remake(file),
        Kind::Inotify => inotify::remake(file),
        Kind::MemFd => memfd::remake(file),
        Kind::Socket => closed_peer(),
        Kind::Epoll | Kind::None => return,
    };
    if failed(made) {
        let path = core::str::from_utf8(&f.path[..f.path_len as usize]).unwrap_or("?");
        let why = if f.unlinked != 0 {
            "it had no name any more"
        } else {
            "it cannot be opened"
        };
        fatal::stop(
            FatalCode::CannotRestore,
            made,
            format_args!("restore descriptor {fd}: {path}: {why} (error {})", -made),
        );
    }
    install(file, made, fd);
}

/// A socket whose other end has closed: what a lost connection looks like.
fn closed_peer() -> isize {
    let mut pair = [0i32; 2];
    let r = sys!(SOCKETPAIR, 1, 1, 0, pair.as_mut_ptr());
    if failed(r) {
        return r;
    }
    sys!(CLOSE, pair[1]);
    pair[0] as isize
}

/// Puts a fresh descriptor on every number of a file.
pub fn install(file: u32, made: isize, _lowest: i32) {
    let mut wanted_itself = false;
    for fd in 0..state().root.fd_high as usize {
        if state().fds[fd].file as u32 != file {
            continue;
        }
        if fd as isize == made {
            wanted_itself = true;
            continue;
        }
        let cloexec = if state().fds[fd].cloexec != 0 {
            O_CLOEXEC
        } else {
            0
        };
        sys!(DUP3, made, fd, cloexec);
    }
    if !wanted_itself {
        sys!(CLOSE, made);
    }
}
