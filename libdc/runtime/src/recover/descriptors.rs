//! Descriptors: warm from the shared table, cold by name and kind.

use super::closed_behind;
use crate::engine::{engine, state};
use crate::machine::sys::errno::*;
use crate::machine::sys::failed;
use crate::object::descriptor::{self, any_fd, open_file};
use crate::object::*;
use crate::run::together::{self, Step};
use crate::run::{self, me};
use crate::state::{Kind, OWN, OpenFile, RECEIVED};
use crate::{fatal, reserved, sys};
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;
use dc_image::boot::high_fd;
use dc_image::run::{BY_KEEPER, Shared};

const O_CLOEXEC: usize = 0o2000000;

/// Numbers that were closed or replaced since the commit get their old meaning.
pub fn undo_closes(warm: bool) {
    if !warm {
        return;
    }
    // Newest last; each number was moved aside at most once as an old one.
    for r in record::own(last_recovery()) {
        if r.kind != record::DEFERRED {
            continue;
        }
        let (Some(fd), Some(deferred)) = (
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
        sys!(DUP3, deferred, fd, cloexec);
    }
}

pub fn restore(warm: bool) {
    let mut held = Held::new();
    if warm {
        socket::accepted::keep(None);
        close_others();
        deferred_close::close_all();
        closed_behind::fill_gaps();
        held.make_shared(proc_file::is_of_run);
    } else {
        held.take_given();
        held.hold_fifos();
        fifo::count_lost_interval();
        held.make_shared(|_| true);
    }
    memfd::restore(warm);
    together::come_to(Step::Made);
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
        let is_other = kind == Kind::MemFd && memfd::is_other(file, fd as i32);
        if warm && (is_other || kind == Kind::PidFd) {
            remake(file, fd as i32);
        }
        if warm && !matches!(open_file(file).inherited, OWN | RECEIVED) {
            // What a cold recovery was given instead no commit has taken note of.
            descriptor::look_again(file, fd as i32);
        }
        if warm && proc_file::is_of_run(open_file(file)) {
            proc_file::renew(file, held.shared(file));
        }
        if !warm {
            if let Some(given) = held.given(file) {
                install(file, sys!(DUP, given), fd as i32);
                as_it_was_asked_for(file, fd as i32);
                continue;
            }
            match held.shared(file) {
                Some(made) => {
                    install(file, made, fd as i32);
                    if kind == Kind::Tty {
                        as_it_was_asked_for(file, fd as i32);
                    }
                }
                None => remake(file, fd as i32),
            }
            if kind == Kind::Socket {
                regular::restore_warm(file, fd as i32);
                socket::remade::apply_options(fd as i32, open_file(file));
            }
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
    for (_, file) in descriptor::each_file() {
        if open_file(file).kind == Kind::Epoll && !warm {
            epoll::fill(file);
        }
    }
    pipe::put_back(warm);
    if warm {
        epoll::roll_back();
        epoll::arm();
    }
    together::come_to(Step::Taken);
    held.fill_fifos();
    if !warm {
        socket::remade::reconnect();
    }
    held.close();
}

/// What this dcrun was given: as it was given, but for what the program asked.
fn as_it_was_asked_for(file: u32, fd: i32) {
    if !matches!(open_file(file).inherited, OWN | RECEIVED) {
        descriptor::look_again(file, fd);
    }
    const F_GETFL: usize = 3;
    const F_SETFL: usize = 4;
    let nonblock = open_file(file).flags as usize & descriptor::O_NONBLOCK;
    let flags = sys!(FCNTL, fd, F_GETFL, 0);
    if nonblock != 0 && !failed(flags) {
        sys!(FCNTL, fd, F_SETFL, flags as usize | nonblock);
    }
    if regular::rewinds(open_file(file)) {
        let at = regular::committed_offset(open_file(file));
        sys!(LSEEK, fd, at, 0);
    }
}

/// Cold: descriptors that are put aside, above those of the program, until all processes
/// have theirs.
struct Held {
    /// Number under which dcrun was given it, and where it is now.
    given: [(i32, i32); 64],
    given_len: usize,
    len: i32,
    /// Entries of fifos, and what keeps them open.
    fifos: [(usize, i32); 16],
    fifos_len: usize,
}

impl Held {
    fn new() -> Held {
        Held {
            given: [(0, 0); 64],
            given_len: 0,
            len: 0,
            fifos: [(0, 0); 16],
            fifos_len: 0,
        }
    }

    /// Keeps the fifos of this process open.
    fn hold_fifos(&mut self) {
        fifo::each(|f, at, s| {
            if self.fifos[..self.fifos_len].iter().any(|held| held.0 == at) {
                return;
            }
            let fd = fifo::hold(f, s);
            if failed(fd) {
                return;
            }
            if self.fifos_len == self.fifos.len() {
                crate::say!("a process has more than 16 fifos: what lay in one is lost");
                sys!(CLOSE, fd);
                return;
            }
            self.fifos[self.fifos_len] = (at, self.put(fd));
            self.fifos_len += 1;
            sys!(CLOSE, fd);
        });
    }

    fn fill_fifos(&self) {
        for &(at, fd) in &self.fifos[..self.fifos_len] {
            fifo::fill(at, run::shared::entry(at), fd);
        }
    }

    fn put(&mut self, fd: isize) -> i32 {
        // From the end of the range: at its beginning memfds are held.
        let to = engine().high_fd(high_fd::DEFERRED) + high_fd::DEFERRED_COUNT - 1 - self.len;
        if self.len == high_fd::DEFERRED_COUNT / 2 {
            fatal::stop(
                FatalCode::CannotRestore,
                0,
                format_args!(
                    "restore descriptors: process {} shares more than {} with others, which is all \
                     that it can make again",
                    state().root.pid,
                    self.len
                ),
            );
        }
        self.len += 1;
        sys!(DUP3, fd, to, O_CLOEXEC);
        to
    }

    /// Takes what this dcrun was given out of the way.
    fn take_given(&mut self) {
        for file in 1..=state().root.file_high {
            if state().file_refs[file as usize - 1] == 0 {
                continue;
            }
            let number = open_file(file).inherited as i32 - 1;
            let known = self.given[..self.given_len].iter().any(|g| g.0 == number);
            if number < 0 || known || !is_open(number) || self.given_len == self.given.len() {
                continue;
            }
            let to = self.put(number as isize);
            self.given[self.given_len] = (number, to);
            self.given_len += 1;
        }
        sys!(CLOSE_RANGE, 0, engine().boot.fd_base - 1, 0);
    }

    fn given(&self, file: u32) -> Option<i32> {
        let number = open_file(file).inherited as i32 - 1;
        self.given[..self.given_len]
            .iter()
            .find(|g| g.0 == number && number >= 0)
            .map(|g| g.1)
    }

    /// Makes what several processes know, unless another one does.
    fn make_shared(&mut self, is_wanted: fn(&OpenFile) -> bool) {
        for file in 1..=state().root.file_high {
            if state().file_refs[file as usize - 1] == 0 || self.given(file).is_some() {
                continue;
            }
            let f = open_file(file);
            let Some((at, shared)) = run::shared::of(f).filter(|_| is_wanted(f)) else {
                continue;
            };
            if f.kind == Kind::Epoll || any_fd(file).is_none() || fifo::is_one(f) {
                continue;
            }
            if f.kind == Kind::Socket {
                if socket::remade::claim(file, at, shared) {
                    self.make_socket(file, at, shared);
                }
                continue;
            }
            if !run::shared::claim(shared) {
                continue;
            }
            let made = match f.kind {
                Kind::Pipe => pipe::make_both(f.flags as usize),
                Kind::EventFd => [eventfd::remake(file), -1],
                _ => [regular::reopen(file), -1],
            };
            if failed(made[0]) {
                cannot(file, any_fd(file).unwrap_or(-1), made[0]);
            }
            if f.kind == Kind::Pipe {
                pipe::is_anew(shared, made[0] as i32);
                pipe::fill_shared(at, shared, 0, made[1] as i32);
            }
            for (i, fd) in made.into_iter().enumerate() {
                if !failed(fd) {
                    let held = self.put(fd);
                    sys!(CLOSE, fd);
                    shared.made[i].store(held, Relaxed);
                }
            }
        }
    }

    /// The same of a socket, and of its other end.
    fn make_socket(&mut self, file: u32, at: usize, shared: &'static Shared) {
        let (made, other) = socket::remade::make(file, at, shared);
        if failed(made) {
            cannot(file, any_fd(file).unwrap_or(-1), made);
        }
        for (s, fd) in [(shared, made)].into_iter().chain(other) {
            let held = self.put(fd);
            sys!(CLOSE, fd);
            s.made[0].store(held, Relaxed);
        }
    }

    /// A descriptor of what several know, made here or elsewhere.
    fn shared(&self, file: u32) -> Option<isize> {
        let f = open_file(file);
        let (_, shared) = run::shared::of(f).filter(|_| !fifo::is_one(f))?;
        let writes = f.kind == Kind::Pipe && f.flags as usize & descriptor::O_ACCMODE == 1;
        let made = match shared.maker.load(Acquire) as usize {
            0 => return None,
            maker if maker == engine().slot + 1 || maker == BY_KEEPER as usize => {
                sys!(DUP, shared.made[usize::from(writes)].load(Acquire))
            }
            _ => run::shared::fetch_made(shared, usize::from(writes)),
        };
        if failed(made) {
            cannot(file, any_fd(file).unwrap_or(-1), made);
        }
        Some(made)
    }

    fn close(self) {
        let ptys = engine().high_fd(high_fd::PTYS);
        sys!(CLOSE_RANGE, ptys, ptys + high_fd::PTYS_COUNT - 1, 0);
        if self.len > 0 {
            let last = engine().high_fd(high_fd::DEFERRED) + high_fd::DEFERRED_COUNT - 1;
            sys!(CLOSE_RANGE, last + 1 - self.len, last, 0);
        }
    }
}

/// The descriptors of this process are gone, or not to be had. Made again here they would have
/// nothing in common with those that others still have: so all go back as if all had died. The
/// keeper sees to it when it finds this one dead, and its companion.
pub fn have_all_made_again() -> ! {
    let companion = me().companion.load(Relaxed);
    if companion != 0 {
        sys!(KILL, companion, crate::signal::SIGKILL);
    }
    fatal::die()
}

/// Warm, in a process that is not the first: its descriptors from the companion of the
/// worker that died. False if that is gone too.
pub fn take_over() -> bool {
    let companion = me().companion.load(Relaxed) as i32;
    let pidfd = sys!(PIDFD_OPEN, companion, 0);
    if companion == 0 || failed(pidfd) {
        return false;
    }
    let pidfd = reserved::move_high(pidfd, high_fd::SCRATCH);
    sys!(CLOSE_RANGE, 0, engine().boot.fd_base - 1, 0);
    for fd in 0..state().root.fd_high as i32 {
        let d = state().fds[fd as usize];
        if d.file == 0 {
            continue;
        }
        // What was put aside since the commit comes from there.
        let aside = put_aside_at(fd).map_or(-EBADF, |at| sys!(PIDFD_GETFD, pidfd, at, 0));
        let r = if failed(aside) {
            sys!(PIDFD_GETFD, pidfd, fd, 0)
        } else {
            aside
        };
        if failed(r) {
            if r == -EPERM || r == -ESRCH {
                sys!(CLOSE, pidfd);
                return false;
            }
            continue;
        }
        let cloexec = if d.cloexec != 0 { O_CLOEXEC } else { 0 };
        if r == fd as isize {
            const F_SETFD: usize = 2;
            sys!(FCNTL, fd, F_SETFD, d.cloexec);
        } else {
            sys!(DUP3, r, fd, cloexec);
            sys!(CLOSE, r);
        }
    }
    socket::accepted::keep(Some(pidfd));
    sys!(CLOSE, pidfd);
    true
}

/// Where a number was put aside since the commit, if it was.
fn put_aside_at(fd: i32) -> Option<i32> {
    let since = last_recovery();
    record::own(since)
        .filter(|r| r.kind == record::DEFERRED)
        .filter_map(|r| record::value_of::<[i32; 2]>(r.payload))
        .find(|moved| moved[0] == fd)
        .map(|moved| moved[1])
}

/// Where the journal stood when this process's descriptors were those of the commit last:
/// an earlier recovery has taken back what was before it.
pub fn last_recovery() -> usize {
    record::own(0)
        .filter(|r| r.kind == record::RECOVERED)
        .last()
        .map_or(0, |r| r.offset)
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
    if !matches!(f.inherited, OWN | RECEIVED) && f.kind != Kind::Regular {
        // A terminal or pipe that this dcrun was not given: the nearest is
        // what it was given instead.
        if let Some(other) = (0..3).find(|&o| o != fd && is_open(o)) {
            install(file, sys!(DUP, other), fd);
            descriptor::look_again(file, fd);
            return;
        }
    }
    if device::is_bound(f) {
        let path = core::str::from_utf8(&f.path[..f.path_len as usize]).unwrap_or("?");
        fatal::stop(
            FatalCode::CannotRestore,
            0,
            format_args!(
                "restore descriptor {fd}: {path}: what the program had told the device went with \
                 the descriptor; begin again with --fresh"
            ),
        )
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
        Kind::PidFd => pidfd::remake(file),
        Kind::MemFd => memfd::remake(file),
        Kind::Socket => socket::remade::again(file),
        Kind::Epoll | Kind::None => return,
    };
    if failed(made) {
        cannot(file, fd, made);
    }
    install(file, made, fd);
}

fn cannot(file: u32, fd: i32, r: isize) -> ! {
    let f = open_file(file);
    let path = core::str::from_utf8(&f.path[..f.path_len as usize]).unwrap_or("?");
    let path = if f.kind == Kind::Socket {
        "a socket"
    } else {
        path
    };
    let why = if f.unlinked != 0 {
        "it had no name any more"
    } else {
        "it cannot be opened"
    };
    fatal::stop(
        FatalCode::CannotRestore,
        r,
        format_args!("restore descriptor {fd}: {path}: {why} (error {})", -r),
    )
}

/// Puts a fresh descriptor on every number of a file.
pub fn install(file: u32, made: isize, _lowest: i32) {
    let mut wanted_itself = false;
    for fd in 0..state().root.fd_high as usize {
        if state().fds[fd].file as u32 != file {
            continue;
        }
        if fd as isize == made {
            const F_SETFD: usize = 2;
            sys!(FCNTL, fd, F_SETFD, state().fds[fd].cloexec);
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
