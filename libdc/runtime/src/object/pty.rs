//! Terminals that the run has made itself (/dev/ptmx): what their two ends have in common.
//!
//! state:     which there are, and their settings and size: an entry of what processes share
//!            for each, from the opening of the master on
//! intercept: the opening of a master; what sets it, through either end
//! restore:   warm: the settings of the last commit. Cold: the keeper makes the masters
//!            again, under their numbers, before it starts anybody, for they may be the
//!            terminals of sessions
//! survives:  warm as any other terminal: what was printed and typed is there. Cold but for
//!            what was on its way and not yet read, which the keeper says

use super::descriptor::{any_fd, known_file, open_file};
use super::stat::Stat;
use super::tty::{self, TCGETS2, TIOCGPTN, TIOCGWINSZ, TIOCPKT, TIOCSPTLCK, TIOCSWINSZ};
use crate::engine::{engine, state};
use crate::machine::sys::failed;
use crate::run::shared;
use crate::state::Kind;
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::run::{Settings, pty_number, pty_of};

const TIOCGPTLCK: usize = 0x8004_5439;
const TIOCGPKT: usize = 0x8004_5438;
/// The device number of /dev/ptmx, and the major number of slaves.
const MULTIPLEXER: u64 = 5 << 8 | 2;
const SLAVES: u64 = 136;

/// A terminal was opened: a new master gets its entry.
pub fn opened(fd: i32, file: u32, st: &Stat) {
    let mut number = 0u32;
    if st.rdev != MULTIPLEXER || failed(sys!(IOCTL, fd, TIOCGPTN, &raw mut number)) {
        return;
    }
    let f = open_file(file);
    match shared::enter_pty(f, pty_of(number)) {
        Ok(()) => note(fd),
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
fn number_of(fd: i32) -> Option<u32> {
    let st = Stat::of_fd(fd).ok()?;
    let mut number = 0u32;
    if st.rdev == MULTIPLEXER {
        return (!failed(sys!(IOCTL, fd, TIOCGPTN, &raw mut number))).then_some(number);
    }
    let minor = (st.rdev & 0xff | st.rdev >> 12 & 0xf_ff00) as u32;
    (st.rdev >> 8 & 0xfff == SLAVES).then_some(minor)
}

/// The entry of a terminal that the run has made.
pub fn entry_of(fd: i32) -> Option<usize> {
    number_of(fd).and_then(|number| shared::with_ino(pty_of(number)))
}

/// Its settings have changed.
pub fn note(fd: i32) {
    let Some(at) = entry_of(fd) else { return };
    let s = shared::entry(at);
    let published = engine().store.published();
    let settings = shared::settings(at, s.place_for(published));
    settings.termios = [0; 64];
    sys!(IOCTL, fd, TCGETS2, settings.termios.as_mut_ptr());
    sys!(IOCTL, fd, TIOCGWINSZ, settings.size.as_mut_ptr());
    if let Some(master) = master_of(at) {
        sys!(IOCTL, master, TIOCGPTLCK, &raw mut settings.locked);
        sys!(IOCTL, master, TIOCGPKT, &raw mut settings.packets);
    } else if let Some(place) = s.place_at(u64::MAX) {
        let last = shared::settings(at, place);
        (settings.locked, settings.packets) = (last.locked, last.packets);
    }
    s.set(
        pty_number(s.ino.load(Relaxed)).unwrap_or(0).into(),
        published,
    );
}

/// This process's descriptor of the master.
fn master_of(at: usize) -> Option<i32> {
    (1..=state().root.file_high)
        .filter(|&file| state().file_refs[file as usize - 1] != 0)
        .filter(|&file| open_file(file).kind == Kind::Tty)
        .find(|&file| shared::of(open_file(file)).is_some_and(|(entry, _)| entry == at))
        .and_then(any_fd)
}

/// At recovery, by who has the master: the settings of the last commit.
pub fn restore() {
    let published = engine().store.published();
    for fd in 0..state().root.fd_high as i32 {
        let Some(file) = known_file(fd) else { continue };
        let f = open_file(file);
        let Some((at, s)) = shared::of(f) else {
            continue;
        };
        if f.kind != Kind::Tty || any_fd(file) != Some(fd) {
            continue;
        }
        if let Some(place) = s.place_at(published) {
            apply(fd, shared::settings(at, place));
        }
    }
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
