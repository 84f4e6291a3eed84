//! What the log holds of each call: how its result is given back, which of its
//! arguments must agree, and where the kernel left what it answered.
//!
//! A call that is not here cannot be logged: its result is the protocol's
//! matter alone. A call that is deterministic needs no entry: it is made again.

use crate::machine::{nr, user};

/// How a replay treats a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The record answers; the call is not made.
    Fed,
    /// It is made again, because it changes what is ours and was rolled back; it
    /// must answer as the record says. A failure changed nothing, so it is fed.
    Again,
    /// It is made again, and the record answers: a clock set anew, and what was
    /// left of the old one.
    AgainFed,
}

/// Where a call leaves bytes. Numbers name arguments, from 0 on.
#[derive(Clone, Copy)]
pub enum Out {
    /// So many bytes, unless the address is 0.
    Bytes(u8, u16),
    /// As many as the result says, times a unit; at most so many as another
    /// argument allows.
    Result(u8, u16, u8),
    /// As many as another argument says, times a unit.
    Array(u8, u8, u16),
    /// A set of descriptors below argument 0.
    Set(u8),
    /// A value, and its length (u32) at the address in another argument.
    Value(u8, u8),
    /// As many as the result says, over an array of buffers and its length.
    Vector(u8, u8),
    /// A `struct msghdr` and all that it names.
    Message(u8),
}

/// What else a replay must do for a call that is fed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Also {
    Nothing,
    /// The directory goes on behind the last entry that was read.
    Seek,
    /// Single shots that were reported are over.
    Disarm,
}

#[derive(Clone, Copy)]
pub struct Shape {
    pub way: Way,
    /// So many arguments must agree.
    pub compared: u8,
    /// One of them is a path, which must agree too.
    pub path: Option<u8>,
    pub outs: &'static [Out],
    pub also: Also,
}

const fn fed(compared: u8, outs: &'static [Out]) -> Option<Shape> {
    Some(Shape {
        way: Way::Fed,
        compared,
        path: None,
        outs,
        also: Also::Nothing,
    })
}

/// A question about a path in argument `at`.
const fn asked(compared: u8, at: u8, outs: &'static [Out]) -> Option<Shape> {
    Some(Shape {
        way: Way::Fed,
        compared,
        path: Some(at),
        outs,
        also: Also::Nothing,
    })
}

const fn fed_and(compared: u8, outs: &'static [Out], also: Also) -> Option<Shape> {
    Some(Shape {
        way: Way::Fed,
        compared,
        path: None,
        outs,
        also,
    })
}

const fn again(compared: u8, path: Option<u8>) -> Option<Shape> {
    Some(Shape {
        way: Way::Again,
        compared,
        path,
        outs: &[],
        also: Also::Nothing,
    })
}

const fn set_anew(compared: u8, outs: &'static [Out]) -> Option<Shape> {
    Some(Shape {
        way: Way::AgainFed,
        compared,
        path: None,
        outs,
        also: Also::Nothing,
    })
}

const STAT: u16 = 144;
const STATFS: u16 = 120;

/// The shape of a call by its number. (ioctl and futex: see [`of`].)
pub const fn of_call(number: usize) -> Option<Shape> {
    use Out::*;
    match number {
        nr::READ => fed(3, &[Result(1, 1, 2)]),
        nr::PREAD64 => fed(4, &[Result(1, 1, 2)]),
        nr::READV => fed(3, &[Vector(1, 2)]),
        nr::PREADV | nr::PREADV2 => fed(4, &[Vector(1, 2)]),
        nr::WRITE | nr::WRITEV => fed(3, &[]),
        nr::PWRITE64 | nr::PWRITEV | nr::PWRITEV2 => fed(4, &[]),
        nr::POLL => fed(3, &[Array(0, 1, 8)]),
        nr::PPOLL => fed(5, &[Array(0, 1, 8), Bytes(2, 16)]),
        nr::SELECT => fed(5, &[Set(1), Set(2), Set(3), Bytes(4, 16)]),
        nr::PSELECT6 => fed(6, &[Set(1), Set(2), Set(3), Bytes(4, 16)]),
        nr::EPOLL_WAIT | nr::EPOLL_PWAIT | nr::EPOLL_PWAIT2 => {
            fed_and(4, &[Result(1, 12, 2)], Also::Disarm)
        }

        nr::CLOCK_GETTIME => fed(2, &[Bytes(1, 16)]),
        nr::GETTIMEOFDAY => fed(2, &[Bytes(0, 16), Bytes(1, 8)]),
        nr::TIME => fed(1, &[Bytes(0, 8)]),
        nr::TIMES => fed(1, &[Bytes(0, 32)]),
        nr::GETRUSAGE => fed(2, &[Bytes(1, 144)]),
        nr::SYSINFO => fed(1, &[Bytes(0, 112)]),
        nr::GETCPU => fed(2, &[Bytes(0, 4), Bytes(1, 4)]),
        nr::GETRANDOM => fed(3, &[Result(0, 1, 1)]),
        nr::NANOSLEEP => fed(2, &[]),
        nr::CLOCK_NANOSLEEP => fed(4, &[]),
        nr::GETITIMER | nr::TIMER_GETTIME | nr::TIMERFD_GETTIME => fed(2, &[Bytes(1, 32)]),
        nr::TIMER_GETOVERRUN => fed(1, &[]),
        nr::GETPPID | nr::GETPGRP => fed(0, &[]),
        nr::GETPGID | nr::GETSID => fed(1, &[]),
        nr::ALARM => set_anew(1, &[]),
        nr::SETITIMER => set_anew(3, &[Bytes(2, 32)]),
        nr::TIMER_SETTIME | nr::TIMERFD_SETTIME => set_anew(4, &[Bytes(3, 32)]),

        nr::STAT | nr::LSTAT => asked(2, 0, &[Bytes(1, STAT)]),
        nr::FSTAT => fed(2, &[Bytes(1, STAT)]),
        nr::NEWFSTATAT => asked(4, 1, &[Bytes(2, STAT)]),
        nr::STATX => asked(5, 1, &[Bytes(4, 256)]),
        nr::STATFS => asked(2, 0, &[Bytes(1, STATFS)]),
        nr::FSTATFS => fed(2, &[Bytes(1, STATFS)]),
        nr::ACCESS => asked(2, 0, &[]),
        nr::FACCESSAT => asked(3, 1, &[]),
        nr::FACCESSAT2 => asked(4, 1, &[]),
        nr::READLINK => asked(3, 0, &[Result(1, 1, 2)]),
        nr::READLINKAT => asked(4, 1, &[Result(2, 1, 3)]),
        nr::GETXATTR | nr::LGETXATTR => asked(4, 0, &[Result(2, 1, 3)]),
        nr::FGETXATTR => fed(4, &[Result(2, 1, 3)]),
        nr::LISTXATTR | nr::LLISTXATTR => asked(3, 0, &[Result(1, 1, 2)]),
        nr::FLISTXATTR => fed(3, &[Result(1, 1, 2)]),
        nr::GETDENTS | nr::GETDENTS64 => fed_and(3, &[Result(1, 1, 2)], Also::Seek),

        nr::GETSOCKNAME | nr::GETPEERNAME => fed(3, &[Value(1, 2)]),
        nr::GETSOCKOPT => fed(5, &[Value(3, 4)]),
        nr::RECVFROM => fed(6, &[Result(1, 1, 2), Value(4, 5)]),
        nr::RECVMSG => fed(3, &[Message(1)]),
        nr::SENDTO => fed(6, &[]),
        nr::SENDMSG => fed(3, &[]),
        nr::KILL | nr::TKILL => fed(2, &[]),
        nr::TGKILL | nr::RT_SIGQUEUEINFO => fed(3, &[]),
        nr::RT_TGSIGQUEUEINFO => fed(4, &[]),

        nr::OPEN => again(3, Some(0)),
        nr::OPENAT => again(4, Some(1)),
        nr::CREAT => again(2, Some(0)),
        nr::CHDIR => again(1, Some(0)),
        nr::FCHDIR => again(1, None),
        nr::TRUNCATE | nr::MKDIR | nr::CHMOD | nr::LINK => again(2, Some(0)),
        nr::RENAME | nr::SYMLINK => again(2, Some(1)),
        nr::RMDIR | nr::UNLINK => again(1, Some(0)),
        nr::CHOWN | nr::LCHOWN | nr::MKNOD => again(3, Some(0)),
        nr::UTIME | nr::UTIMES => again(2, Some(0)),
        nr::FTRUNCATE | nr::FCHMOD => again(2, None),
        nr::FCHOWN => again(3, None),
        nr::FALLOCATE => again(4, None),
        nr::MKDIRAT | nr::UNLINKAT | nr::FCHMODAT | nr::FUTIMESAT => again(3, Some(1)),
        nr::MKNODAT | nr::FCHMODAT2 | nr::UTIMENSAT => again(4, Some(1)),
        nr::FCHOWNAT => again(5, Some(1)),
        nr::RENAMEAT => again(4, Some(3)),
        nr::RENAMEAT2 | nr::LINKAT => again(5, Some(3)),
        nr::SYMLINKAT => again(3, Some(2)),
        nr::SETXATTR | nr::LSETXATTR => again(5, Some(0)),
        nr::REMOVEXATTR | nr::LREMOVEXATTR => again(2, Some(0)),
        nr::FSETXATTR => again(5, None),
        nr::FREMOVEXATTR => again(2, None),
        nr::FLOCK => again(2, None),
        nr::INOTIFY_INIT => again(0, None),
        nr::INOTIFY_INIT1 => again(1, None),
        nr::INOTIFY_ADD_WATCH => again(3, Some(1)),
        nr::INOTIFY_RM_WATCH => again(2, None),
        _ => None,
    }
}

/// The shape of this very call: of ioctl and futex only some commands can be
/// logged.
pub fn of(number: usize, args: &[usize; 6]) -> Option<Shape> {
    match number {
        nr::IOCTL => of_ioctl(args[1] & 0xffff_ffff),
        nr::FUTEX => of_futex(args[1]),
        _ => crate::table::row(number).log,
    }
}

/// Questions about terminals and streams, and what a terminal was told to do
/// that outlives its teller.
fn of_ioctl(command: usize) -> Option<Shape> {
    use Out::Bytes;
    match command {
        // TCGETS, TCGETA, TCGETS2
        0x5401 => fed(3, &[Bytes(2, 36)]),
        0x5405 => fed(3, &[Bytes(2, 18)]),
        0x802c_542a => fed(3, &[Bytes(2, 44)]),
        // TIOCGWINSZ
        0x5413 => fed(3, &[Bytes(2, 8)]),
        // TIOCGPGRP, TIOCOUTQ, TIOCMGET, FIONREAD, TIOCGETD, TIOCGSID, SIOCATMARK
        0x540f | 0x5411 | 0x5415 | 0x541b | 0x5424 | 0x5429 | 0x8905 => fed(3, &[Bytes(2, 4)]),
        // TIOCGPTN, TIOCGPTLCK
        0x8004_5430 | 0x8004_5439 => fed(3, &[Bytes(2, 4)]),
        // TCSETS, TCSETSW, TCSETSF, and the same of TCSETS2
        0x5402..=0x5404 | 0x402c_542b..=0x402c_542d => fed(3, &[]),
        // TCSBRK, TCXONC, TCFLSH, TIOCSPGRP, TIOCSWINSZ, TCSBRKP
        0x5409..=0x540b | 0x5410 | 0x5414 | 0x5425 => fed(3, &[]),
        _ => None,
    }
}

/// Waiting and waking touch no memory but by those who wake.
fn of_futex(operation: usize) -> Option<Shape> {
    const PRIVATE_AND_CLOCK: usize = 128 | 256;
    // WAIT, WAKE, WAIT_BITSET, WAKE_BITSET
    match operation & !PRIVATE_AND_CLOCK {
        0 | 1 | 9 | 10 => fed(4, &[]),
        _ => None,
    }
}

impl Shape {
    /// What must agree between a call and its record.
    pub fn sum(&self, args: &[usize; 6]) -> u64 {
        let mut h = 0xcbf2_9ce4_8422_2325u64;
        let mut mix = |v: u64| h = (h ^ v).wrapping_mul(0x100_0000_01b3).rotate_left(29);
        for &a in &args[..self.compared as usize] {
            mix(a as u64);
        }
        if let Some(at) = self.path {
            // The end of a path tells more than its beginning.
            let mut path = [0u8; 4096];
            if let Ok(n) = user::read_cstr(args[at as usize], &mut path) {
                path[..n].chunks(8).for_each(|part| {
                    let mut word = [0; 8];
                    word[..part.len()].copy_from_slice(part);
                    mix(u64::from_le_bytes(word));
                });
            }
        }
        h
    }

    /// Calls `f(address, length)` for every place where the call left bytes,
    /// until it says no.
    pub fn places(&self, args: &[usize; 6], ret: isize, mut f: impl FnMut(usize, usize) -> bool) {
        if ret < 0 {
            return;
        }
        let ret = ret as usize;
        let arg = |i: u8| args[i as usize];
        for out in self.outs {
            let more = match *out {
                Out::Bytes(at, len) => arg(at) == 0 || f(arg(at), len as usize),
                Out::Result(at, unit, limit) => {
                    let n = ret.min(arg(limit));
                    arg(at) == 0 || n == 0 || f(arg(at), n * unit as usize)
                }
                Out::Array(at, count, unit) => f(arg(at), arg(count).min(1 << 16) * unit as usize),
                Out::Set(at) => arg(at) == 0 || f(arg(at), args[0].min(1 << 16).div_ceil(64) * 8),
                Out::Value(at, len) => {
                    arg(at) == 0 || arg(len) == 0 || {
                        let n = user::read::<u32>(arg(len)).unwrap_or(0);
                        f(arg(at), n.min(4096) as usize) && f(arg(len), 4)
                    }
                }
                Out::Vector(at, count) => vector(arg(at), arg(count), ret, &mut f),
                Out::Message(at) => message(arg(at), ret, &mut f),
            };
            if !more {
                return;
            }
        }
    }
}

/// The parts of a received message: name, data, control data, and last its
/// header, whose lengths the kernel has changed.
fn message(at: usize, ret: usize, f: &mut impl FnMut(usize, usize) -> bool) -> bool {
    let Some([name, name_len, parts, count, control, control_len, _]) =
        user::read::<[usize; 7]>(at)
    else {
        return false;
    };
    let name_len = name_len & 0xffff_ffff;
    if name != 0 && !f(name, name_len.min(128)) {
        return false;
    }
    vector(parts, count, ret, f) && (control == 0 || f(control, control_len.min(4096))) && f(at, 56)
}

/// The first `ret` bytes of an array of buffers.
fn vector(
    parts: usize,
    count: usize,
    ret: usize,
    f: &mut impl FnMut(usize, usize) -> bool,
) -> bool {
    let mut left = ret;
    for i in 0..count.min(1024) {
        let Some([part, len]) = user::read::<[usize; 2]>(parts + i * 16) else {
            return false;
        };
        let n = len.min(left);
        if n > 0 && !f(part, n) {
            return false;
        }
        left -= n;
    }
    true
}
