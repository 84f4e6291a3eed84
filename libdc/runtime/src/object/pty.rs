//! Terminals that the run has made itself (/dev/ptmx): what their two ends have in common.
//!
//! state:     which there are, their settings and size, what lies in them: an entry of what
//!            processes share for each, from the opening of the master on
//! intercept: the opening of a master; what sets it, through either end
//! save:      by one of those who have the master, which is asked to if anything has moved
//!            there since the last commit: what was printed ([`printed`]), what was typed
//!            ([`typed`])
//! restore:   warm: the settings of the last commit; what was printed and typed is there. Cold:
//!            the keeper makes the masters again, under their numbers and with what lay in
//!            them, before it starts anybody, for they may be the terminals of sessions; what
//!            went in and out since is made again, as with pipes
//! survives:  warm and cold; but not, cold, what came in packets (TIOCPKT), and the rest of what
//!            was typed if that is more than 64 KiB

pub mod printed;
pub mod typed;

use super::descriptor::{O_NONBLOCK, any_fd, known_file, open_file};
use super::stat::Stat;
use super::tty::{self, TCGETS2, TIOCGPTN, TIOCGWINSZ, TIOCPKT, TIOCSPTLCK, TIOCSWINSZ};
use crate::engine::{engine, state};
use crate::machine::sys::failed;
use crate::run::{self, shared};
use crate::state::{Kind, OpenFile};
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::run::{Settings, Shared, pty_number, pty_of};
use dc_image::terminal::OPENED;

const TIOCGPTLCK: usize = 0x8004_5439;
const TIOCGPKT: usize = 0x8004_5438;
/// The device number of /dev/ptmx, and the major number of slaves.
const MULTIPLEXER: u64 = 5 << 8 | 2;
const SLAVES: u64 = 136;
const F_GETFL: usize = 3;
const F_SETFL: usize = 4;
/// In `OpenFile::words` of a slave: the entry of its terminal + 1.
const ENTRY: usize = 2;
/// In `OpenFile::words` of a slave: what [`Shared::ino`] is there, as long as it is this one's.
const IS_OF: usize = 3;

/// A terminal was opened: a new master gets its entry.
pub fn opened(fd: i32, file: u32, st: &Stat) {
    let Some(number) = number_of(fd, st) else {
        return;
    };
    let f = open_file(file);
    if st.rdev != MULTIPLEXER {
        if let Some(at) = shared::with_ino(pty_of(number)) {
            f.words[ENTRY] = at as u64 + 1;
            f.words[IS_OF] = pty_of(number);
            shared::entry(at).is_foreign.fetch_or(OPENED, Relaxed);
            moves(shared::entry(at));
        }
        return;
    }
    match shared::enter_pty(f, pty_of(number)) {
        Ok(at) => moves(shared::entry(at)),
        Err(_) => crate::say!(
            "there is no room to keep terminal /dev/pts/{number}: it does not outlive the keeper"
        ),
    }
}

/// Whether a terminal is no master.
pub fn is_slave(fd: i32) -> bool {
    Stat::of_fd(fd).is_ok_and(|st| st.rdev != MULTIPLEXER)
}

/// The number of a terminal, by either end.
fn number_of(fd: i32, st: &Stat) -> Option<u32> {
    let mut number = 0u32;
    if st.rdev == MULTIPLEXER {
        return (!failed(sys!(IOCTL, fd, TIOCGPTN, &raw mut number))).then_some(number);
    }
    let minor = (st.rdev & 0xff | st.rdev >> 12 & 0xf_ff00) as u32;
    (st.rdev >> 8 & 0xfff == SLAVES).then_some(minor)
}

/// The entry of a terminal that the run has made, by either end.
pub fn of(f: &OpenFile) -> Option<(usize, &'static Shared)> {
    if f.kind != Kind::Tty {
        return None;
    }
    master_of(f).or_else(|| slave_of(f))
}

fn master_of(f: &OpenFile) -> Option<(usize, &'static Shared)> {
    shared::of(f).filter(|_| f.kind == Kind::Tty)
}

fn slave_of(f: &OpenFile) -> Option<(usize, &'static Shared)> {
    let at = (f.words[ENTRY] as usize).checked_sub(1)?;
    let s = shared::entry(at);
    (f.kind == Kind::Tty && s.ino.load(Relaxed) == f.words[IS_OF]).then_some((at, s))
}

/// The entry of a terminal that the run has made.
pub fn entry_of(fd: i32) -> Option<usize> {
    known_file(fd)
        .and_then(|file| of(open_file(file)))
        .map(|(at, _)| at)
}

/// Whether all that goes through a terminal comes from the run and stays in it: a cold
/// recovery makes it again as it was at the commit.
pub fn is_own(f: &OpenFile) -> bool {
    of(f).is_some()
}

/// Something goes through a terminal, or changes what can: the next commit looks there.
pub fn touch(f: &OpenFile) {
    if let Some((_, s)) = of(f) {
        moves(s);
    }
}

fn moves(s: &Shared) {
    let interval = this_interval();
    if s.moved.swap(interval, Relaxed) != interval {
        run::run().terminals_moved.store(interval, Relaxed);
        super::socket::pair::look_at_holder(s);
    }
}

fn this_interval() -> u64 {
    engine().store.published() + 1
}

/// Its settings have changed.
pub fn note(fd: i32) {
    if let Some(at) = entry_of(fd) {
        typed::is_set(at, fd);
        moves(shared::entry(at));
    }
}

/// tcflush(3) or tcflow(3) was called.
pub fn flushed_or_stopped(fd: i32, is_flush: bool, what: usize) {
    if let Some(at) = entry_of(fd) {
        if is_flush {
            typed::is_flushed(fd, what);
        }
        moves(shared::entry(at));
    }
}

/// Makes a call on a terminal, or a pipe, that does not answer "at once or not at all" to a single call
/// (RWF_NOWAIT): its description is told. Nobody else of the run uses it meanwhile. Whoever
/// reads at the other end may need the lock for it, so nobody waits for room under that.
pub fn without_waiting(fd: i32, call: impl FnOnce() -> isize) -> isize {
    let flags = sys!(FCNTL, fd, F_GETFL);
    if failed(flags) || flags as usize & O_NONBLOCK != 0 {
        return call();
    }
    sys!(FCNTL, fd, F_SETFL, flags as usize | O_NONBLOCK);
    let r = call();
    sys!(FCNTL, fd, F_SETFL, flags);
    r
}

/// At a warm recovery: a death in the middle of that has left the description as it was told.
pub fn wait_again(fd: i32) {
    let of = known_file(fd).map(open_file).filter(|f| is_own(f));
    if of.is_some_and(|f| f.flags as usize & O_NONBLOCK == 0) {
        let flags = sys!(FCNTL, fd, F_GETFL);
        if !failed(flags) {
            sys!(FCNTL, fd, F_SETFL, flags as usize & !O_NONBLOCK);
        }
    }
}

/// A process of the run has this terminal's last descriptor no longer: who waits at the master
/// may be told.
pub fn leaves(f: &OpenFile) {
    touch(f);
}

/// At a recovery this process has the master again. What lies there is not what it was.
pub fn joined(s: &Shared) {
    if pty_number(s.ino.load(Relaxed)).is_some() {
        s.moved.store(this_interval(), Relaxed);
        run::run().terminals_moved.store(this_interval(), Relaxed);
    }
}

/// What a terminal is set to, by its master.
fn read_settings(master: i32) -> Settings {
    let mut settings = Settings::NONE;
    sys!(IOCTL, master, TCGETS2, settings.termios.as_mut_ptr());
    sys!(IOCTL, master, TIOCGWINSZ, settings.size.as_mut_ptr());
    sys!(IOCTL, master, TIOCGPTLCK, &raw mut settings.locked);
    sys!(IOCTL, master, TIOCGPKT, &raw mut settings.packets);
    settings
}

/// Calls `f` for each terminal whose master this process has.
fn each_master(mut f: impl FnMut(i32, usize, &'static Shared)) {
    for file in 1..=state().root.file_high {
        if state().file_refs[file as usize - 1] != 0
            && let Some((at, s)) = master_of(open_file(file))
            && let Some(fd) = any_fd(file)
            && super::descriptor::is_there(file, fd)
        {
            f(fd, at, s);
        }
    }
}

/// At a commit: what lies in the terminals whose masters this process has, if it may have
/// changed.
pub fn save() {
    let interval = this_interval();
    if run::run().terminals_moved.load(Relaxed) != interval {
        return;
    }
    let own = engine().slot as u32 + 1;
    each_master(|fd, at, s| {
        // Of several that have it one looks.
        let holder = s.holder.compare_exchange(0, own, SeqCst, SeqCst);
        if s.moved.load(Relaxed) == interval && holder.map_or_else(|h| h == own, |_| true) {
            printed::save(fd, at, s);
        }
    });
}

/// At recovery, by who has the master: the settings of the last commit. Warm, one of several
/// does it, after it has put back what a commit has not come to.
pub fn restore(warm: bool) {
    let published = engine().store.published();
    each_master(|fd, at, s| {
        if warm && !shared::claim(s) {
            return;
        }
        if warm {
            printed::put_back_rest(fd, at, s);
        }
        if let Some(place) = s.place_at(published) {
            apply(fd, shared::settings(at, place));
            if warm {
                typed::is_set(at, fd);
            }
        }
    });
}

fn apply(fd: i32, wanted: &Settings) {
    let mut size = [0u16; 4];
    tty::apply(fd, wanted.termios.as_ptr());
    if !failed(sys!(IOCTL, fd, TIOCGWINSZ, size.as_mut_ptr())) && size != wanted.size {
        sys!(IOCTL, fd, TIOCSWINSZ, wanted.size.as_ptr());
    }
    sys!(IOCTL, fd, TIOCSPTLCK, &raw const wanted.locked);
    sys!(IOCTL, fd, TIOCPKT, &raw const wanted.packets);
}
