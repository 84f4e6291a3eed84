//! What was typed into a terminal of the run's own and is not read yet: the steps that led to
//! it ([`dc_image::terminal`]), from the last moment on in which nothing was there.
//!
//! They tell what the kernel has, whatever becomes of the interval: so they are not rolled back,
//! and a step is noted when the kernel has taken it, not when the program makes it again. A
//! commit takes a copy of them.
#![allow(unsafe_code)]

use super::slave_of;
use crate::machine::sys::failed;
use crate::machine::{nr, user};
use crate::object::descriptor::{known_file, open_file};
use crate::object::output::Call;
use crate::object::tty::TCGETS2;
use crate::run::{run, shared};
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::header::Inflight;
use dc_image::run::{Shared, pty_number};
use dc_image::terminal::{
    FRESH, STEP_HEAD, Step, TYPED_LEN, TYPED_OFFSET, UNKEPT, step_head, steps, typed_head,
};

/// `struct termios2` of the kernel.
pub const TERMIOS_LEN: usize = 44;

/// The steps of an entry.
pub fn kept(at: usize, s: &Shared) -> &'static [u8] {
    let len = (s.peer.load(Relaxed) as usize).min(TYPED_LEN);
    // SAFETY: mapped for the life of the worker; under the big lock nobody writes there.
    unsafe { core::slice::from_raw_parts(shared::contents(at, 0).wrapping_add(TYPED_OFFSET), len) }
}

fn is_empty(s: &Shared) -> bool {
    s.peer.load(Relaxed) == 0
}

/// Nothing lies in the input any more.
pub fn forget(s: &Shared) {
    s.peer.store(0, Relaxed);
    s.is_foreign.fetch_and(!UNKEPT, Relaxed);
}

/// Puts bytes behind the steps; they are none yet. False if there is no room.
fn put(at: usize, s: &Shared, from: usize, bytes: &[u8]) -> bool {
    let to = s.peer.load(Relaxed) as usize + from;
    let fits = to + bytes.len() <= TYPED_LEN;
    if fits {
        shared::put_inside(at, 0, TYPED_OFFSET + to, bytes);
    } else {
        s.is_foreign.fetch_or(UNKEPT, Relaxed);
    }
    fits
}

/// So many bytes behind the steps are one.
fn is_one(s: &Shared, len: usize) {
    s.peer.fetch_add(len as u32, Relaxed);
}

fn add(at: usize, step: &Step) {
    let s = shared::entry(at);
    let bytes = match step {
        Step::Set(bytes) | Step::Typed(bytes) => *bytes,
        _ => &[],
    };
    if put(at, s, 0, &step_head(step)) && put(at, s, STEP_HEAD, bytes) {
        is_one(s, STEP_HEAD + bytes.len());
    }
}

/// The terminal's settings are other ones.
pub fn is_set(at: usize, fd: i32) {
    if !is_empty(shared::entry(at)) {
        add_settings(at, fd);
    }
}

fn add_settings(at: usize, fd: i32) {
    let mut termios = [0u8; 64];
    if !failed(sys!(IOCTL, fd, TCGETS2, termios.as_mut_ptr())) {
        add(at, &Step::Set(&termios[..TERMIOS_LEN]));
    }
}

/// tcflush(3) was called.
pub fn is_flushed(fd: i32, what: usize) {
    let file = known_file(fd).map(open_file);
    if let Some((at, s)) = file.and_then(|f| slave_of(f))
        && !is_empty(s)
    {
        add(at, &Step::Flushed(what));
    }
}

/// Before something is written to a descriptor: if that is a master, the bytes are put where
/// they will be a step.
pub fn is_typed_next(fd: i32, c: &Call) -> Option<usize> {
    let f = open_file(known_file(fd)?);
    let (at, s) = super::master_of(f)?;
    if is_empty(s) {
        add_settings(at, fd);
    }
    let mut copied = STEP_HEAD;
    let mut copy = |from: usize, len: usize| {
        let mut part = [0u8; 1024];
        let mut done = 0;
        while done < len {
            let n = part.len().min(len - done);
            if !user::read_bytes(from + done, &mut part[..n]) || !put(at, s, copied, &part[..n]) {
                return false;
            }
            done += n;
            copied += n;
        }
        true
    };
    let whole = match c.nr {
        nr::WRITE => copy(c.args[1], c.args[2]),
        nr::WRITEV | nr::PWRITEV2 => (0..c.args[2])
            .filter_map(|i| user::read::<[usize; 2]>(c.args[1] + i * 16))
            .all(|[from, len]| copy(from, len)),
        _ => {
            s.is_foreign.fetch_or(UNKEPT, Relaxed);
            false
        }
    };
    if !whole {
        return None;
    }
    s.typed_from.store(s.peer.load(Relaxed), Relaxed);
    s.listener.store((copied - STEP_HEAD) as u32 + 1, Relaxed);
    Some(at)
}

/// So much of it was taken.
pub fn was_typed(at: usize, taken: isize) {
    let s = shared::entry(at);
    let most = s.listener.load(Relaxed).saturating_sub(1) as usize;
    let len = (taken.max(0) as usize).min(most);
    let is_noted = s.peer.load(Relaxed) != s.typed_from.load(Relaxed);
    if len > 0 && !is_noted && put(at, s, 0, &typed_head(len)) {
        is_one(s, STEP_HEAD + len);
        s.is_foreign.fetch_or(FRESH, Relaxed);
    }
    s.listener.store(0, Relaxed);
}

/// At recovery: the call that was under way has moved so many bytes.
pub fn settle(done: u64) {
    for at in 0..run().shared_high.load(Relaxed) as usize {
        let s = shared::entry(at);
        if pty_number(s.ino.load(Relaxed)).is_some() && s.listener.load(Relaxed) != 0 {
            was_typed(at, done as isize);
        }
    }
}

/// Before a read: notes of it whether it may take something of what was typed.
pub fn is_read_next(file: u32, flight: &Inflight) {
    let of = slave_of(open_file(file)).filter(|(_, s)| !is_empty(s));
    let [entry, steps] = of.map_or([0; 2], |(at, s)| {
        [at as u64 + 1, s.peer.load(Relaxed).into()]
    });
    flight.from.store(entry, Relaxed);
    flight.done.store(steps, Relaxed);
}

/// Behind it, or at recovery: so much was got, unless that is noted already.
pub fn was_read(flight: &Inflight, got: isize) {
    let Some(at) = (flight.from.load(Relaxed) as usize).checked_sub(1) else {
        return;
    };
    if got >= 0 && u64::from(shared::entry(at).peer.load(Relaxed)) == flight.done.load(Relaxed) {
        add(at, &Step::Read(got as usize));
    }
}

/// Whether the terminal's input is empty, `readable` being all that poll(2) and FIONREAD say:
/// an unfinished line is not seen by either.
pub fn is_all_read(at: usize, s: &Shared, termios: &[u8; 64], readable: bool) -> bool {
    const ICANON: u32 = 2;
    if readable {
        return false;
    }
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| termios[at + i]));
    if word(12) & ICANON == 0 {
        return true;
    }
    let mut last: &[u8] = &[];
    for step in steps(kept(at, s)) {
        if let Step::Typed(bytes) = step
            && !bytes.is_empty()
        {
            last = bytes;
        }
    }
    last.is_empty() || ends_line(last, termios, [word(0), word(12)])
}

/// Whether nothing is left of a line behind these bytes.
fn ends_line(bytes: &[u8], termios: &[u8; 64], [iflag, lflag]: [u32; 2]) -> bool {
    const IGNCR: u32 = 0x80;
    const ICRNL: u32 = 0x100;
    const INLCR: u32 = 0x40;
    const ISIG: u32 = 1;
    const NOFLSH: u32 = 0x80;
    const IEXTEN: u32 = 0x8000;
    let special = |i: usize| termios[17 + i];
    let (interrupt, quit, end, suspend, literal) =
        (special(0), special(1), special(4), special(10), special(15));
    let [before, last] = match bytes {
        [.., a, b] => [*a, *b],
        // What came before it is another step's: it may be the sign that it is meant literally.
        [b] => [literal, *b],
        [] => return true,
    };
    if lflag & IEXTEN != 0 && literal != 0 && before == literal && bytes.len() > 1 {
        return false;
    }
    let flushes = lflag & ISIG != 0 && lflag & NOFLSH == 0;
    last == b'\n' && iflag & INLCR == 0
        || last == b'\r' && iflag & (ICRNL | IGNCR) == ICRNL
        || last != 0 && last == end
        || flushes && last != 0 && [interrupt, quit, suspend].contains(&last)
}
