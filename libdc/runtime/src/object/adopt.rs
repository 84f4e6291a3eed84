//! What a descriptor is that the kernel has made or given: found out, and entered into the
//! table.

use super::descriptor::*;
use super::stat::*;
use crate::engine::{engine, state};
use crate::machine::sys::{errno::*, failed};
use crate::state::*;
use crate::sys;

/// A descriptor that came by no call that we know: with a message, from another process,
/// from a call that is new. None if it is not open.
#[cold]
pub fn adopt_unknown(fd: i32) -> Option<u32> {
    let flags = flags_of(fd)?;
    super::strays::may_come();
    let cloexec = flags & O_CLOEXEC != 0;
    if let Some(same) = same_description(fd, state().root.fd_high as i32) {
        hold(same);
        enter(fd, same, cloexec);
        return Some(same);
    }
    let mut path = [0u8; 3072];
    let n = super::process::fd_path(fd, &mut path);
    let shown = &path[..n];
    let named = if shown.starts_with(b"/") { shown } else { b"" };
    if failed(adopt(fd, flags, named, true)) {
        return None;
    }
    let file = known_file(fd)?;
    let f = open_file(file);
    f.inherited = RECEIVED;
    if f.kind == Kind::Socket {
        super::socket::pair::received(fd, file);
    } else if f.kind == Kind::Pipe {
        super::pipe::received(file);
    } else if shown.starts_with(b"/memfd:") {
        f.kind = Kind::MemFd;
    } else if shown.starts_with(b"anon_inode:[event")
        && !shown.starts_with(b"anon_inode:[eventpoll")
        || shown.starts_with(b"anon_inode:[timerfd")
        || shown.starts_with(b"anon_inode:inotify")
        || shown.starts_with(b"anon_inode:[signalfd")
    {
        // What is read from it is gone, as from a pipe.
        f.kind = Kind::Pipe;
    }
    Some(file)
}

/// A descriptor by a call of which no more is known than that it makes one: whether it waits,
/// and whether an exec closes it, is as the kernel has it.
pub fn adopt_made(fd: i32) -> isize {
    adopt(fd, flags_of(fd).unwrap_or(O_CLOEXEC), b"", false)
}

/// The flags of an open descriptor, O_CLOEXEC among them.
fn flags_of(fd: i32) -> Option<usize> {
    const F_GETFD: usize = 1;
    const F_GETFL: usize = 3;
    let flags = sys!(FCNTL, fd, F_GETFL, 0);
    let closes = sys!(FCNTL, fd, F_GETFD, 0) & 1 != 0;
    (!failed(flags)).then_some(flags as usize | if closes { O_CLOEXEC } else { 0 })
}

/// Finds out what a descriptor is, and enters it. `path` is absolute or empty.
pub fn adopt(fd: i32, flags: usize, path: &[u8], inherited: bool) -> isize {
    let limit = match inherited {
        true => (engine().boot.fd_base as usize).min(MAX_FDS),
        false => limit(),
    };
    if fd as usize >= limit {
        sys!(CLOSE, fd);
        return -EMFILE;
    }
    let Ok(st) = Stat::of_fd(fd) else {
        return -EBADF;
    };
    if !is_through_proc(path) {
        return enter_new(fd, flags, path, inherited, &st, false);
    }
    if st.kind() == S_IFIFO
        && let Some(file) = end_of_pipe(&st, flags)
    {
        hold(file);
        enter(fd, file, flags & O_CLOEXEC != 0);
        return fd as isize;
    }
    let mut real = [0u8; 3072];
    let n = super::process::fd_path(fd, &mut real);
    let shown = &real[..n];
    // A link of /proc to a file elsewhere is another way to that file, no more.
    let leads_out = shown.starts_with(b"/") && !is_through_proc(shown);
    match st.kind() {
        S_IFREG | S_IFDIR if leads_out => enter_new(fd, flags, shown, inherited, &st, false),
        _ => enter_new(fd, flags, path, inherited, &st, !leads_out),
    }
}

fn enter_new(
    fd: i32,
    flags: usize,
    path: &[u8],
    inherited: bool,
    st: &Stat,
    in_proc: bool,
) -> isize {
    let kind = match st.kind() {
        S_IFREG | S_IFDIR if in_proc => Kind::Other,
        _ => kind_of(fd, st),
    };
    let Some(file) = new_file(kind) else {
        sys!(CLOSE, fd);
        return -EMFILE;
    };
    let f = open_file(file);
    f.flags = (flags & !(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC)) as u32;
    f.mode = st.mode;
    (f.dev, f.ino) = (st.dev, st.ino);
    // Its number there, by which a later dcrun is given the same.
    f.inherited = if inherited { fd as u32 + 1 } else { OWN };
    if kind == Kind::Device {
        f.words[super::device::NUMBER] = st.rdev;
        if super::device::is_fuse(f) {
            crate::run::served::begins();
        }
    }
    if inherited && kind == Kind::Regular {
        f.offset = sys!(LSEEK, fd, 0, 1).max(0) as u64;
    }
    match in_proc {
        true => super::proc_file::enter_path(f, fd, path),
        false => set_path(f, path),
    }
    super::memfd::adopt(file, st, flags);
    if kind == Kind::Tty && !inherited {
        super::pty::opened(fd, file, st);
        super::tty::opened(fd, flags);
    }
    super::fifo::opened(file);
    enter(fd, file, flags & O_CLOEXEC != 0);
    fd as isize
}

fn kind_of(fd: i32, st: &Stat) -> Kind {
    match st.kind() {
        S_IFREG => Kind::Regular,
        S_IFDIR => Kind::Directory,
        S_IFIFO => Kind::Pipe,
        S_IFSOCK => Kind::Socket,
        S_IFCHR if super::tty::may_be_tty(st.rdev) && super::tty::is_tty(fd) => Kind::Tty,
        S_IFCHR => Kind::Device,
        _ => Kind::Other,
    }
}

/// Cold: what this dcrun was given under a number may be something else than what the last one
/// was given, a pipe for a file: then it is treated as what it is.
pub fn look_again(file: u32, fd: i32) {
    let Ok(st) = Stat::of_fd(fd) else { return };
    let (f, kind) = (open_file(file), kind_of(fd, &st));
    if kind == f.kind || f.kind == Kind::Other {
        return;
    }
    f.kind = kind;
    f.mode = st.mode;
    (f.dev, f.ino) = (st.dev, st.ino);
    f.words = Default::default();
    if kind == Kind::Device {
        f.words[super::device::NUMBER] = st.rdev;
    }
    f.offset = match kind {
        Kind::Regular => sys!(LSEEK, fd, 0, 1).max(0) as u64,
        _ => 0,
    };
    let mut path = [0u8; 512];
    let n = super::process::fd_path(fd, &mut path);
    let named = n > 0 && path[0] == b'/';
    set_path(f, if named { &path[..n] } else { b"" });
}

/// Whether a path leads to what /proc and /sys make up, or by a link there to anything.
fn is_through_proc(path: &[u8]) -> bool {
    let links: [&[u8]; 6] = [
        b"/proc/",
        b"/sys/",
        b"/dev/fd/",
        b"/dev/stdin",
        b"/dev/stdout",
        b"/dev/stderr",
    ];
    links.into_iter().any(|link| path.starts_with(link))
}

/// The end of a pipe within the run that was opened once more (by /proc/self/fd).
fn end_of_pipe(st: &Stat, flags: usize) -> Option<u32> {
    const O_ACCMODE: usize = 3;
    (0..state().root.fd_high as i32)
        .filter_map(known_file)
        .find(|&file| {
            let f = open_file(file);
            f.kind == Kind::Pipe
                && f.peer != 0
                && any_fd(file)
                    .and_then(|fd| Stat::of_fd(fd).ok())
                    .is_some_and(|s| (s.dev, s.ino) == (st.dev, st.ino))
                && f.flags as usize & O_ACCMODE == flags & O_ACCMODE
        })
}

/// The descriptors the program starts with.
pub fn adopt_inherited() {
    let known = engine().boot.fd_base.min(1024);
    super::strays::begin(known);
    for fd in 0..known {
        const F_GETFL: usize = 3;
        let flags = sys!(FCNTL, fd, F_GETFL, 0);
        if failed(flags) {
            continue;
        }
        let mut path = [0u8; 512];
        let n = super::process::fd_path(fd, &mut path);
        let path = if n > 0 && path[0] == b'/' {
            &path[..n]
        } else {
            &path[..0]
        };
        // Two numbers of one terminal or pipe are one description, as a rule.
        if let Some(same) = same_description(fd, fd) {
            hold(same);
            enter(fd, same, false);
            continue;
        }
        adopt(fd, flags as usize, path, true);
    }
}

/// The file of a descriptor below `end` that is another number of the same description.
fn same_description(fd: i32, end: i32) -> Option<u32> {
    const KCMP_FILE: usize = 0;
    let pid = sys!(GETPID);
    (0..end).filter(|&other| other != fd).find_map(|other| {
        let file = known_file(other)?;
        (sys!(KCMP, pid, pid, KCMP_FILE, fd, other) == 0).then_some(file)
    })
}
