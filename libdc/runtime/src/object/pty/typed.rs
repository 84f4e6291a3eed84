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

/// The kernel takes less at a time (20 KiB were measured).
const MOST: usize = 32 << 10;
/// `struct termios2` of the kernel.
pub const TERMIOS_LEN: usize = 44;

/// Bit of [`Shared::peer`]: the steps lie in the second place of the entry.
const SECOND: u32 = 1 << 31;

/// How many bytes the steps have, and in which place they lie.
fn extent(s: &Shared) -> (usize, usize) {
    let word = s.peer.load(Relaxed);
    let len = (word & !SECOND) as usize;
    (len.min(TYPED_LEN), usize::from(word & SECOND != 0))
}

/// The steps of an entry.
pub fn kept(at: usize, s: &Shared) -> &'static [u8] {
    let (len, place) = extent(s);
    let from = shared::contents(at, place).wrapping_add(TYPED_OFFSET);
    // SAFETY: mapped for the life of the worker; under the big lock nobody writes there.
    unsafe { core::slice::from_raw_parts(from, len) }
}

fn is_empty(s: &Shared) -> bool {
    extent(s).0 == 0
}

/// Makes room: leaves out what was read, if that can be told. The new steps are written beside
/// the old ones, and are the steps by one store.
fn shorten(at: usize, s: &Shared) {
    let (len, place) = extent(s);
    let steps_now = kept(at, s);
    let Some(unread) = unread(steps_now) else {
        return;
    };
    let other = 1 - place;
    let mut end = 0;
    let mut put = |bytes: &[u8]| {
        shared::put_inside(at, other, TYPED_OFFSET + end, bytes);
        end += bytes.len();
    };
    if let Some(set) = unread.set {
        put(&step_head(&Step::Set(set)));
        put(set);
    }
    put(&typed_head(unread.typed - unread.read));
    let mut skip = unread.read;
    for step in steps(steps_now) {
        if let Step::Typed(bytes) = step {
            let left = &bytes[skip.min(bytes.len())..];
            skip -= bytes.len() - left.len();
            put(left);
        }
    }
    if end < len {
        let bit = if other == 1 { SECOND } else { 0 };
        s.peer.store(end as u32 | bit, Relaxed);
    }
}

/// Of steps that are as simple as most: the one way in which the terminal was set, and how
/// many bytes have been typed and read.
struct Unread<'a> {
    set: Option<&'a [u8]>,
    typed: usize,
    read: usize,
}

/// None if what was read is not what was typed first, byte for byte: something was edited,
/// cut off, or set in between.
fn unread(all: &[u8]) -> Option<Unread<'_>> {
    /// So many bytes of a line the kernel takes for sure.
    const LINE: usize = 4000;
    let mut now = Unread {
        set: None,
        typed: 0,
        read: 0,
    };
    let mut line = 0;
    for step in steps(all) {
        match step {
            Step::Set(bytes) if now.set.is_none_or(|set| set == bytes) => now.set = Some(bytes),
            Step::Typed(bytes) => {
                for &byte in bytes {
                    line = if byte == b'\n' { 0 } else { line + 1 };
                    if !is_plain(now.set?, byte) || line > LINE && is_canonical(now.set?) {
                        return None;
                    }
                }
                now.typed += bytes.len();
            }
            Step::Read(n) => now.read += n,
            _ => return None,
        }
    }
    (now.read <= now.typed).then_some(now)
}

/// A word of `struct termios2`.
fn word(termios: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|i| termios.get(at + i).copied().unwrap_or(0)))
}

const ICANON: u32 = 2;
const ISIG: u32 = 1;
const IGNCR: u32 = 0x80;

fn is_canonical(termios: &[u8]) -> bool {
    word(termios, 12) & ICANON != 0
}

/// Whether a byte that is typed becomes one byte to be read, and nothing else.
fn is_plain(termios: &[u8], byte: u8) -> bool {
    const PARMRK: u32 = 8;
    const IXON: u32 = 0x400;
    let (iflag, lflag) = (word(termios, 0), word(termios, 12));
    let is_any_of = |places: &[usize]| {
        let is = |&i: &usize| termios.get(17 + i).is_some_and(|&c| c != 0 && c == byte);
        places.iter().any(is)
    };
    // VINTR, VQUIT and VSUSP; VSTART and VSTOP; VERASE, VKILL, VEOF, VEOL, VREPRINT, VWERASE,
    // VLNEXT and VEOL2.
    !(lflag & ISIG != 0 && is_any_of(&[0, 1, 10])
        || iflag & IXON != 0 && is_any_of(&[8, 9])
        || is_canonical(termios) && is_any_of(&[2, 3, 4, 11, 12, 14, 15, 16])
        || iflag & IGNCR != 0 && byte == b'\r'
        || iflag & PARMRK != 0 && byte == 0xff)
}

/// Nothing lies in the input any more.
pub fn forget(s: &Shared) {
    s.peer.store(0, Relaxed);
    s.is_foreign.fetch_and(!UNKEPT, Relaxed);
}

/// Puts bytes behind the steps; they are none yet. False if there is no room.
fn put(at: usize, s: &Shared, from: usize, bytes: &[u8]) -> bool {
    let (len, place) = extent(s);
    let to = len + from;
    let fits = to + bytes.len() <= TYPED_LEN;
    if fits {
        shared::put_inside(at, place, TYPED_OFFSET + to, bytes);
    } else {
        s.is_foreign.fetch_or(UNKEPT, Relaxed);
    }
    fits
}

/// So many bytes behind the steps are one.
fn is_one(s: &Shared, len: usize) {
    s.peer.fetch_add(len as u32, Relaxed);
}

/// At a commit: few steps are made again sooner than many.
pub fn shorten_if_long(at: usize, s: &Shared) {
    const LONG: usize = 2048;
    if extent(s).0 > LONG {
        shorten(at, s);
    }
}

fn make_room(at: usize, s: &Shared, len: usize) {
    if extent(s).0 + len > TYPED_LEN {
        shorten(at, s);
    }
}

fn add(at: usize, step: &Step) {
    let s = shared::entry(at);
    let bytes = match step {
        Step::Set(bytes) | Step::Typed(bytes) => *bytes,
        _ => &[],
    };
    make_room(at, s, STEP_HEAD + bytes.len());
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
    make_room(at, s, STEP_HEAD + MOST);
    let mut copied = STEP_HEAD;
    let mut copy = |from: usize, len: usize| {
        let mut part = [0u8; 1024];
        let mut done = 0;
        let len = len.min(MOST + STEP_HEAD - copied);
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
    if taken > most as isize {
        s.is_foreign.fetch_or(UNKEPT, Relaxed);
    }
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
    if readable {
        return false;
    }
    if !is_canonical(termios) {
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
    last.is_empty() || ends_line(last, termios)
}

/// Whether nothing is left of a line behind these bytes.
fn ends_line(bytes: &[u8], termios: &[u8; 64]) -> bool {
    let (iflag, lflag) = (word(termios, 0), word(termios, 12));
    const ICRNL: u32 = 0x100;
    const INLCR: u32 = 0x40;
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
