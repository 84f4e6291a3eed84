//! Terminals: settings, and the other ioctls.
//!
//! state:     the settings that this process has set
//! intercept: TCSETS* (noted, so that a rollback sets them again); groups are in
//!            `group.rs`
//! restore:   warm and cold: the settings of the last commit
//! survives:  the terminal belongs to the keeper's session and lives on
#![allow(unsafe_code)]

use super::descriptor::*;
use super::group::{TIOCGPGRP, TIOCSPGRP};
use super::{device, group, pty, record};
use crate::engine::{engine, state};
use crate::event;
use crate::fatal::Text;
use crate::log::replay;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{entry, nr, user};
use crate::run::job_control::{self, SIGTTOU};
use crate::state::{Kind, OpenFile};
use crate::{sys, thread};
use core::fmt::Write;

const TCGETS: usize = 0x5401;
const TCSETS: usize = 0x5402;
const TCSETSF: usize = 0x5404;
pub const TCXONC: usize = 0x540a;
const TCFLSH: usize = 0x540b;
const TIOCSTI: usize = 0x5412;
pub const TIOCGWINSZ: usize = 0x5413;
pub const TCGETS2: usize = 0x802c_542a;
const TCSETS2: usize = 0x402c_542b;
const TCSETSF2: usize = 0x402c_542d;
pub const TIOCGPTN: usize = 0x8004_5430;
const TIOCSCTTY: usize = 0x540e;
const TIOCNOTTY: usize = 0x5422;
const TIOCGSID: usize = 0x5429;
pub const TIOCSWINSZ: usize = 0x5414;
pub const TIOCSPTLCK: usize = 0x4004_5431;
pub const TIOCPKT: usize = 0x5420;
pub const TIOCGPTPEER: usize = 0x5441;
const FIONREAD: usize = 0x541b;
const FIONBIO: usize = 0x5421;
const FICLONE: usize = 0x4004_9409;
const FICLONERANGE: usize = 0x4020_940d;
const FIOCLEX: usize = 0x5451;
const FIONCLEX: usize = 0x5450;
/// `struct termios2` of the kernel.
const TERMIOS2_LEN: usize = 44;

/// Whether a character device can be a terminal at all: /dev/mem and its like
/// (null, zero, urandom) have major number 1.
pub fn may_be_tty(rdev: u64) -> bool {
    rdev >> 8 & 0xfff != 1
}

pub fn is_tty(fd: i32) -> bool {
    let mut t = [0u8; 64];
    !failed(sys!(IOCTL, fd, TCGETS, t.as_mut_ptr()))
}

/// Whether a terminal's input comes in lines, among which an end of input may be.
pub fn has_lines(fd: i32) -> bool {
    const ICANON: u8 = 2;
    const LOCAL_FLAGS: usize = 12;
    let mut t = [0u8; 64];
    !failed(sys!(IOCTL, fd, TCGETS2, t.as_mut_ptr())) && t[LOCAL_FLAGS] & ICANON != 0
}

pub fn ioctl(l: &mut Local, a: [usize; 6]) -> isize {
    let (fd, cmd, arg) = (a[0] as i32, a[1] & 0xffff_ffff, a[2]);
    let _guard = engine().lock.acquire(l);
    let Some(file) = file_of(fd) else {
        return -EBADF;
    };
    let kind = open_file(file).kind;
    match cmd {
        TCSETS..=TCSETSF | TCSETS2..=TCSETSF2 if kind == Kind::Tty => set(l, fd, file, a),
        FIONREAD if super::pushback::has(fd) => {
            let n = 1i32;
            if user::write(arg, &n) { 0 } else { -EFAULT }
        }
        FIOCLEX | FIONCLEX => {
            state().fds[fd as usize].cloexec = (cmd == FIOCLEX) as u8;
            sys!(IOCTL, fd, cmd, arg)
        }
        FIONBIO => {
            let r = sys!(IOCTL, fd, cmd, arg);
            if !failed(r) {
                let on = user::read::<i32>(arg).is_some_and(|v| v != 0);
                let f = open_file(file);
                f.flags = f.flags & !(O_NONBLOCK as u32) | if on { O_NONBLOCK as u32 } else { 0 };
            }
            r
        }
        TIOCSPGRP => foreground(l, fd, arg),
        TIOCSCTTY | TIOCNOTTY if kind == Kind::Tty => controls(l, fd, a),
        TIOCSWINSZ | TIOCSPTLCK | TIOCPKT if kind == Kind::Tty => {
            let r = sys!(IOCTL, fd, cmd, arg);
            if !failed(r) {
                pty::note(fd);
            }
            event::non_deterministic(l);
            r
        }
        TIOCGPTPEER => open_peer(fd, arg),
        FICLONE | FICLONERANGE => -95, // EOPNOTSUPP: programs then copy
        TIOCSTI => -EIO,
        _ => {
            let r = match replay::answer(l) {
                Some(r) => r,
                None => {
                    let asks = device::only_asks(cmd);
                    let commands = !asks || device::is_consumed(open_file(file));
                    if commands && !event::is_behind() {
                        // What a device is told, it has been told.
                        event::irrevocable(l);
                        l.commit_after = true;
                    }
                    super::strays::commanded(cmd);
                    let r = sys!(IOCTL, fd, cmd, arg);
                    if matches!(cmd, TCFLSH | TCXONC) && kind == Kind::Tty && !failed(r) {
                        pty::flushed_or_stopped(fd, cmd == TCFLSH, arg);
                    }
                    event::non_deterministic(l);
                    if !asks && !failed(r) {
                        device::was_told(open_file(file));
                    }
                    r
                }
            };
            if matches!(cmd, TIOCGPGRP | TIOCGSID)
                && !failed(r)
                && let Some(id) = user::read::<i32>(arg)
                && group::known(id) != id
            {
                user::write(arg, &group::known(id));
            }
            if cmd == TIOCGWINSZ && kind == Kind::Tty && !failed(r) {
                let size = user::read::<u64>(arg).unwrap_or(0);
                let f = open_file(file);
                (f.words[0], f.words[1]) = (size, 1);
            }
            r
        }
    }
}

/// openpty(3) opens the terminal by its master.
fn open_peer(master: i32, flags: usize) -> isize {
    let mut number = 0u32;
    let r = sys!(IOCTL, master, TIOCGPTPEER, flags);
    if failed(r) || failed(sys!(IOCTL, master, TIOCGPTN, &raw mut number)) {
        return r;
    }
    let mut path = Text::<32>::new();
    let _ = write!(path, "/dev/pts/{number}");
    adopt(r as i32, flags, path.as_bytes(), false)
}

/// A signal came before the call, unless it came of the call: from the background.
/// A call of the program's that may wait; what breaks it off for the runtime's own sake is not
/// seen outside.
fn made(l: &mut Local, args: &[usize; 6]) -> isize {
    loop {
        // SAFETY: the program's own call with its own arguments.
        let r = unsafe { entry::interruptible(nr::IOCTL, args) };
        let stops = l.queue.pending() & crate::signal::bit(SIGTTOU) != 0;
        if r != -EINTR || stops || thread::signal_waits(l) {
            return r;
        }
        thread::wait_on(l);
    }
}

fn broken_off(l: &mut Local) {
    l.interrupted = true;
    l.early = l.queue.pending() & crate::signal::bit(SIGTTOU) == 0;
}

/// The terminal of a session: taken, or given up.
fn controls(l: &mut Local, fd: i32, a: [usize; 6]) -> isize {
    let r = match replay::answer(l) {
        Some(r) => r,
        None => {
            let r = sys!(IOCTL, fd, a[1], a[2]);
            event::non_deterministic(l);
            r
        }
    };
    if !failed(r) {
        let taken = a[1] & 0xffff_ffff == TIOCSCTTY;
        group::note_terminal(if taken { number_of(fd) } else { 0 });
    }
    r
}

/// A terminal that is opened without O_NOCTTY becomes that of its opener's session, if that
/// leads one and has none.
pub fn opened(fd: i32, flags: usize) {
    let p = crate::run::me();
    let leads = p.session.get() == state().root.pid;
    if flags & O_NOCTTY != 0 || !leads || p.terminal.get() != 0 {
        return;
    }
    let mut session = 0i32;
    let r = sys!(IOCTL, fd, TIOCGSID, &raw mut session);
    if !failed(r) && session as isize == sys!(GETSID, 0) {
        group::note_terminal(number_of(fd));
    }
}

/// Major and minor number of a terminal, as the table of processes has them.
fn number_of(fd: i32) -> i32 {
    super::stat::Stat::of_fd(fd).map_or(0, |st| {
        let (major, minor) = (
            st.rdev >> 8 & 0xfff,
            st.rdev & 0xff | st.rdev >> 12 & 0xf_ff00,
        );
        (major << 20 | minor) as i32
    })
}

/// Gives the terminal to a group.
fn foreground(l: &mut Local, fd: i32, arg: usize) -> isize {
    let Some(id) = user::read::<i32>(arg) else {
        return -EFAULT;
    };
    let r = match replay::answer(l) {
        Some(r) => r,
        None => {
            let real = group::real(id);
            let args = [fd as usize, TIOCSPGRP, &raw const real as usize, 0, 0, 0];
            // From the background it may be stopped.
            let r = made(l, &args);
            event::non_deterministic(l);
            r
        }
    };
    if job_control::answers_by_stop(l, fd, r, SIGTTOU) {
        return -EINTR;
    }
    if !failed(r) {
        group::note_foreground(id);
    } else if r == -EINTR {
        broken_off(l);
    }
    r
}

/// At recovery: the window was resized while the program was dead, and its
/// SIGWINCH with it.
pub fn notice_size(main: &mut Local) {
    const SIGWINCH: i32 = 28;
    for (fd, file) in each_file() {
        let f = open_file(file);
        if f.kind != Kind::Tty || f.words[1] == 0 {
            continue;
        }
        let mut size = 0u64;
        if !failed(sys!(IOCTL, fd, TIOCGWINSZ, &raw mut size)) && size != f.words[0] {
            let pid = sys!(GETPID);
            sys!(TGKILL, pid, main.tid, SIGWINCH);
            return;
        }
    }
}

fn set(l: &mut Local, fd: i32, file: u32, a: [usize; 6]) -> isize {
    let f = open_file(file);
    if let Some(r) = replay::answer(l) {
        // The terminal is as the crash has left it: what somebody types now
        // must not be echoed as it would have been long before.
        if !failed(r) {
            note_settings(f, fd, &a);
        }
        if engine().log.replay.has_just_ended() {
            settle();
        }
        return r;
    }
    if f.termios_set == 0 {
        // Settings of before this process: a rollback to a commit before the
        // first change needs them.
        let mut was = [0u8; 64];
        sys!(IOCTL, fd, TCGETS2, was.as_mut_ptr());
        record::append(record::TERMIOS, &[&fd.to_le_bytes(), &[0; 4], &was]);
    }
    // It may wait for output to drain.
    let r = made(l, &a);
    if job_control::answers_by_stop(l, fd, r, SIGTTOU) {
        return -EINTR;
    }
    if !failed(r) {
        read_settings(f, fd);
        f.termios_set = 1;
        pty::note(fd);
    } else if r == -EINTR {
        broken_off(l);
    }
    if engine().machine.protocol().logs() {
        // Whether it was done; nothing else about it is chance.
        event::non_deterministic(l);
    }
    r
}

/// Notes what the terminal is set to. (The kernel cannot write into state that
/// sleeps.)
fn read_settings(f: &mut OpenFile, fd: i32) {
    let mut now = f.termios;
    if !failed(sys!(IOCTL, fd, TCGETS2, now.as_mut_ptr())) {
        f.termios = now;
    }
}

/// In a replay: settings that the program asks for, and the kernel is not. Both
/// forms begin alike; the older one leaves the speeds as they are.
fn note_settings(f: &mut OpenFile, fd: i32, a: &[usize; 6]) {
    const TERMIOS_LEN: usize = 36;
    if f.termios_set == 0 {
        read_settings(f, fd);
    }
    let len = match a[1] & 0xffff_ffff {
        TCSETS..=TCSETSF => TERMIOS_LEN,
        _ => TERMIOS2_LEN,
    };
    if user::read_bytes(a[2], &mut f.termios[..len]) {
        f.termios_set = 1;
    }
}

/// At the end of a replay: the terminals as the program believes them to be.
pub fn settle() {
    for (fd, file) in each_file() {
        if open_file(file).kind == Kind::Tty {
            restore(file, fd);
        }
    }
    roll_back();
}

/// At recovery: the settings as of the last commit. (Those of a terminal that the run has
/// made are kept once for all.)
pub fn restore(file: u32, fd: i32) {
    let f = open_file(file);
    if f.termios_set != 0 && pty::entry_of(fd).is_none() {
        apply(fd, f.termios.as_ptr());
    }
}

/// At warm recovery: the first change of settings since the last commit is
/// taken back.
pub fn roll_back() {
    for r in crate::object::record::own(0) {
        if r.kind == record::TERMIOS && r.payload.len() >= 8 + TERMIOS2_LEN {
            let Some(fd) = record::value_of::<i32>(r.payload) else {
                continue;
            };
            let Some(file) = known_file(fd) else { continue };
            if open_file(file).termios_set == 0 && pty::entry_of(fd).is_none() {
                apply(fd, r.payload[8..].as_ptr());
            }
        }
    }
}

pub fn apply(fd: i32, termios: *const u8) {
    // A background process would be stopped for this.
    let block = crate::signal::bit(22);
    let mut old = 0u64;
    sys!(RT_SIGPROCMASK, 0, &raw const block, &raw mut old, 8);
    sys!(IOCTL, fd, TCSETS2, termios);
    sys!(RT_SIGPROCMASK, 2, &raw const old, 0, 8);
}
