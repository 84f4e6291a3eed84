//! What was printed on a terminal of the run's own and its master has not read yet.
//!
//! The kernel lets nobody look at it. So a commit takes it out by the master, and puts it back by
//! the other end, with the processing of output off. All processes are stopped meanwhile: who
//! waits at the master may be woken, and finds there what was there. How far it has come is
//! noted in the entry of what processes share, so that a death in the middle loses nothing.
#![allow(unsafe_code)]

use super::typed;
use crate::commit::fault_point;
use crate::engine::engine;
use crate::machine::sys::failed;
use crate::object::counts;
use crate::object::descriptor::{O_CLOEXEC, O_NOCTTY, O_NONBLOCK};
use crate::object::input::count_read;
use crate::object::poll::{POLLIN, POLLOUT, ready_now};
use crate::object::tty::{TCXONC, TIOCGPTPEER, apply};
use crate::run::shared;
use crate::{fatal, sys};
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;
use dc_image::boot::fault;
use dc_image::header::Inflight;
use dc_image::run::{Settings, Shared};
use dc_image::seal::contents_sum;
use dc_image::terminal::{FRESH, Inside, Moving, OPENED, PRINTED_LEN, UNKEPT};

const FIONREAD: usize = 0x541b;
/// In [`Inflight::thread`]: what a commit takes out of a terminal, or puts back; of which entry
/// is in [`Inflight::from`].
pub const OF_COMMIT: u32 = 1 << 29;

/// At a commit: what is set, printed and typed.
pub fn save(master: i32, at: usize, s: &Shared) {
    let published = engine().store.published();
    let place = s.place_for(published);
    let settings = super::read_settings(master);
    let mut inside = Inside {
        opened: s.is_foreign.load(Relaxed) & OPENED != 0,
        ..Inside::default()
    };
    // (What was typed before anybody has opened it is echoed once more when it is made again.)
    if inside.opened {
        match Slave::of(master) {
            Some(slave) => {
                input(&slave, at, s, &settings);
                printed(master, &slave, at, s, &settings, &mut inside);
            }
            None => inside.is_lost = ready_now(master, POLLIN),
        }
    }
    inside.is_lost |= s.is_foreign.load(Relaxed) & UNKEPT != 0;
    typed::shorten_if_long(at, s);
    let steps = typed::kept(at, s);
    shared::put_inside(at, place, inside.printed, steps);
    inside.steps = steps.len();
    *shared::settings(at, place) = settings;
    let sum = contents_sum(shared::inside(at, place, inside.len()));
    s.set_with(inside.value(), sum, published);
}

/// The other end of a master, for a moment.
struct Slave(i32);

impl Slave {
    fn of(master: i32) -> Option<Slave> {
        const O_RDWR: usize = 2;
        let flags = O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
        let fd = sys!(IOCTL, master, TIOCGPTPEER, flags);
        (!failed(fd)).then_some(Slave(fd as i32))
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        sys!(CLOSE, self.0);
    }
}

/// Whether anything is left of what was typed.
fn input(slave: &Slave, at: usize, s: &Shared, settings: &Settings) {
    // (To ask makes the kernel look at what the master has written, unless a line is there.)
    let mut readable = ready_now(slave.0, POLLIN);
    if readable && s.is_foreign.load(Relaxed) & FRESH != 0 {
        const A_MOMENT_NS: usize = 100_000;
        let moment = [0, A_MOMENT_NS];
        sys!(NANOSLEEP, moment.as_ptr(), 0);
    }
    let mut inside = 0i32;
    sys!(IOCTL, slave.0, FIONREAD, &raw mut inside);
    readable |= inside != 0;
    s.is_foreign.fetch_and(!FRESH, Relaxed);
    if typed::is_all_read(at, s, &settings.termios, readable) {
        typed::forget(s);
    }
}

/// Copies what was printed into the place of the commit to come.
fn printed(
    master: i32,
    slave: &Slave,
    at: usize,
    s: &Shared,
    settings: &Settings,
    inside: &mut Inside,
) {
    if settings.packets != 0 {
        inside.is_lost = ready_now(master, POLLIN);
        return;
    }
    if !ready_now(master, POLLIN) {
        inside.is_stopped = !ready_now(slave.0, POLLOUT);
        return;
    }
    take(master, slave, at, s, Moving::default());
    (inside.printed, inside.is_stopped) = put_back(slave, master, at, s, settings);
}

/// Takes out all that is there.
fn take(master: i32, slave: &Slave, at: usize, s: &Shared, mut moving: Moving) {
    let to = shared::contents(at, s.place_for(engine().store.published()));
    s.address.store(moving.value(), SeqCst);
    while ready_now(master, POLLIN) {
        let part = PRINTED_LEN - moving.taken;
        if part == 0 {
            cannot("it holds more than any terminal should", 0);
        }
        let flight = begin(&engine().live().input, master, at, moving.taken, true);
        let r = sys!(READ, master, to.wrapping_add(moving.taken), part);
        fault_point(fault::AFTER_READ);
        moving.taken += r.max(0) as usize;
        s.address.store(moving.value(), SeqCst);
        count_read(r);
        flight.end();
        if r <= 0 {
            break;
        }
    }
    moving.all_taken = true;
    // (A full terminal takes no output either, but now it is empty.)
    moving.is_stopped = !ready_now(slave.0, POLLOUT);
    s.address.store(moving.value(), SeqCst);
}

/// Puts back what was taken out, and answers how much that is, and whether printing waits.
fn put_back(
    slave: &Slave,
    master: i32,
    at: usize,
    s: &Shared,
    settings: &Settings,
) -> (usize, bool) {
    const OPOST: u8 = 1;
    const PATIENCE: u32 = 2000;
    let mut moving = Moving::from_value(s.address.load(SeqCst)).unwrap_or_default();
    let place = s.place_for(engine().store.published());
    let bytes = shared::inside(at, place, moving.taken);
    let mut plain = settings.termios;
    plain[4] &= !OPOST;
    if moving.is_stopped {
        start(slave);
    }
    apply(slave.0, plain.as_ptr());
    let mut tries = 0;
    while moving.put < moving.taken {
        // In parts as small as the kernel's, and the last one larger: then all of it has room
        // that had it before.
        let rest = &bytes[moving.put..];
        let part = if rest.len() > 2048 { 256 } else { rest.len() };
        let flight = begin(&engine().live().output, slave.0, at, moving.put, false);
        let r = sys!(WRITE, slave.0, rest.as_ptr(), part);
        fault_point(fault::AFTER_VISIBLE);
        moving.put += r.max(0) as usize;
        s.address.store(moving.value(), SeqCst);
        fatal::count_written(r.max(0) as usize);
        flight.end();
        if r > 0 {
            tries = 0;
            continue;
        }
        tries += 1;
        if tries > PATIENCE {
            cannot("it does not take back what it held", r);
        }
        const A_MOMENT_NS: usize = 10_000;
        let moment = [0, A_MOMENT_NS];
        sys!(NANOSLEEP, moment.as_ptr(), 0);
    }
    apply(slave.0, settings.termios.as_ptr());
    if moving.is_stopped {
        stop(slave, master, settings);
    }
    s.address.store(0, SeqCst);
    (moving.taken, moving.is_stopped)
}

/// Lets printing go on that ^S has stopped.
fn start(slave: &Slave) {
    const TCOOFF: usize = 0;
    const TCOON: usize = 1;
    sys!(IOCTL, slave.0, TCXONC, TCOOFF);
    sys!(IOCTL, slave.0, TCXONC, TCOON);
}

/// Stops printing again, as ^S does.
fn stop(slave: &Slave, master: i32, settings: &Settings) {
    const IXON: u32 = 0x400;
    const STOP: u8 = 0x13;
    const PLACE_OF_STOP: usize = 17 + 9;
    let mut listens = settings.termios;
    listens[..4].copy_from_slice(&IXON.to_le_bytes());
    listens[PLACE_OF_STOP] = STOP;
    apply(slave.0, listens.as_ptr());
    let typed = [STOP];
    let r = sys!(WRITE, master, typed.as_ptr(), typed.len());
    fatal::count_written(r.max(0) as usize);
    for _ in 0..1000 {
        // (To ask for input makes the kernel look at what was typed.)
        if !ready_now(slave.0, POLLIN) && !ready_now(slave.0, POLLOUT) {
            break;
        }
        sys!(SCHED_YIELD);
    }
    apply(slave.0, settings.termios.as_ptr());
}

fn begin(
    flight: &'static Inflight,
    fd: i32,
    at: usize,
    base: usize,
    reads: bool,
) -> &'static Inflight {
    let me = crate::run::me();
    let count = if reads { &me.rchar } else { &me.wchar };
    crate::run::flies();
    flight.fd.store(fd as u32, Relaxed);
    flight.len.store(base as u64, Relaxed);
    flight.before.store(count.load(Relaxed), Relaxed);
    flight.thread.store(OF_COMMIT, Relaxed);
    flight.sum.store(0, Relaxed);
    flight.from.store(at as u64, Relaxed);
    flight.done.store(0, Relaxed);
    flight.begin(engine().slot);
    flight
}

/// At recovery: whether the call under way was one of these; then what the kernel has counted of
/// it is noted.
pub fn settle(flight: &Inflight, counted: Option<u64>, reads: bool, warm: bool) -> bool {
    if flight.thread.load(Relaxed) & OF_COMMIT == 0 {
        return false;
    }
    let s = shared::entry(flight.from.load(Relaxed) as usize);
    if let (Some(count), Some(mut moving)) = (counted, Moving::from_value(s.address.load(SeqCst))) {
        let n = count.saturating_sub(flight.before.load(Relaxed)) as usize;
        let done = flight.len.load(Relaxed) as usize + n;
        match reads {
            true => moving.taken = done.min(PRINTED_LEN),
            false => moving.put = done.min(moving.taken),
        }
        s.address.store(moving.value(), SeqCst);
    } else if warm && counted.is_none() {
        crate::say!(
            "what was printed on a terminal of the program's own may be lost, or come twice"
        );
    }
    flight.end();
    true
}

/// At a warm recovery: what a commit has taken out and not put back.
pub fn put_back_rest(master: i32, at: usize, s: &Shared) {
    let Some(moving) = Moving::from_value(s.address.load(SeqCst)) else {
        return;
    };
    let settings = super::read_settings(master);
    let Some(slave) = Slave::of(master) else {
        cannot("it cannot be opened", 0);
    };
    // What this process has read and written since it was made need not be counted yet.
    counts::take();
    if !moving.all_taken {
        take(master, &slave, at, s, moving);
    }
    put_back(&slave, master, at, s, &settings);
}

fn cannot(why: &str, r: isize) -> ! {
    fatal::stop(
        FatalCode::Internal,
        r,
        format_args!("keep what lies in a terminal of the program's own: {why}"),
    )
}
