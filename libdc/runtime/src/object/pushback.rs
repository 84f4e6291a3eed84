//! What was consumed since the last commit, and is fed again after a crash,
//! before anything new: the *pushback*, a part of the state. Records of (file u32,
//! len u32, bytes).
#![allow(unsafe_code)]

use super::buffers::Buffers;
use super::record::{self, IoHead};
use super::socket::{accepted, handed};
use super::{descriptor, message};
use crate::engine::{engine, state};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::sys::errno::*;
use dc_image::boot::plant;

/// For calls that receive in another way: what waits to be fed from this
/// descriptor, taken away or only looked at.
pub fn fed(l: &mut Local, fd: i32, to: &Buffers, peek: bool) -> Option<isize> {
    if !any() {
        return None;
    }
    let _guard = engine().lock.acquire(l);
    let file = descriptor::known_file(fd)?;
    if !peek {
        return feed(l, file, fd, to);
    }
    let root = &state().root;
    let mut at = 0;
    while at < root.pushback_len as usize {
        let n = len_at(&root.pushback, at);
        if u32_at(&root.pushback, at) == file {
            let bytes = plain(&root.pushback, at);
            let take = bytes.len().min(to.len);
            let given = to.give(&bytes[..take]);
            return Some(if given { take as isize } else { -EFAULT });
        }
        at += 8 + n;
    }
    None
}

/// Calls `f` for what waits to be fed, with the file that it is fed from.
pub fn each(mut f: impl FnMut(u32, &[u8])) {
    let root = &state().root;
    let mut at = 0;
    while at < root.pushback_len as usize {
        f(u32_at(&root.pushback, at), plain(&root.pushback, at));
        at += 8 + len_at(&root.pushback, at);
    }
}

/// Calls `f` for the control data of each message that waits to be fed.
pub fn each_control(mut f: impl FnMut(&[u8])) {
    let b = &state().root.pushback;
    let mut at = 0;
    while at < state().root.pushback_len as usize {
        if is_whole(b, at) {
            f(message::control_of(&b[at + 8..at + 8 + len_at(b, at)]));
        }
        at += 8 + len_at(b, at);
    }
}

/// Gives the program what was consumed from this file before the crash.
pub fn feed(l: &mut Local, file: u32, fd: i32, to: &Buffers) -> Option<isize> {
    let root = &mut state().root;
    let total = root.pushback_len as usize;
    let mut at = 0;
    while at < total {
        let owner = u32_at(&root.pushback, at);
        let n = len_at(&root.pushback, at);
        if owner != file {
            at += 8 + n;
            continue;
        }
        let bytes = plain(&root.pushback, at);
        let take = bytes.len().min(to.len);
        if !to.give(&bytes[..take]) {
            return Some(-EFAULT);
        }
        // What of a message finds no room is gone.
        if take == n || is_whole(&root.pushback, at) {
            root.pushback.copy_within(at + 8 + n..total, at);
            root.pushback_len -= 8 + n as u64;
        } else {
            root.pushback.copy_within(at + 8 + take..total, at + 8);
            root.pushback_len -= take as u64;
            root.pushback[at + 4..at + 8].copy_from_slice(&((n - take) as u32).to_le_bytes());
        }
        super::timerfd::was_read(file, fd, true);
        // What waits here is part of the state: fed again, it is fed alike.
        if !engine().log.wanted {
            event::non_deterministic(l);
        }
        return Some(take as isize);
    }
    None
}

/// Bit of a length: a [`message`], with all that belongs to it.
const WHOLE: u32 = 1 << 31;

fn is_whole(b: &[u8], at: usize) -> bool {
    u32_at(b, at + 4) & WHOLE != 0
}

/// Bytes of the entry at `at`, its head not counted.
fn len_at(b: &[u8], at: usize) -> usize {
    (u32_at(b, at + 4) & !WHOLE) as usize
}

/// What a plain read gets of it.
fn plain(b: &[u8], at: usize) -> &[u8] {
    let entry = &b[at + 8..at + 8 + len_at(b, at)];
    if is_whole(b, at) {
        message::data_of(entry)
    } else {
        entry
    }
}

/// What waits first for a file.
pub enum Fed {
    Bytes,
    Message(&'static [u8]),
}

pub fn next_fed(file: u32) -> Option<Fed> {
    let at = first_of(file)?;
    let b = &state().root.pushback;
    Some(match is_whole(b, at) {
        true => Fed::Message(&b[at + 8..at + 8 + len_at(b, at)]),
        false => Fed::Bytes,
    })
}

/// It was given to the program.
pub fn drop_fed(file: u32) {
    if let Some(at) = first_of(file) {
        let root = &mut state().root;
        let n = 8 + len_at(&root.pushback, at);
        root.pushback
            .copy_within(at + n..root.pushback_len as usize, at);
        root.pushback_len -= n as u64;
    }
}

fn first_of(file: u32) -> Option<usize> {
    let root = &state().root;
    let mut at = 0;
    while at < root.pushback_len as usize {
        if u32_at(&root.pushback, at) == file {
            return Some(at);
        }
        at += 8 + len_at(&root.pushback, at);
    }
    None
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// Whether a read of this descriptor would be fed.
pub fn has(fd: i32) -> bool {
    if accepted::waits_for(fd) {
        return true;
    }
    let root = &state().root;
    if root.pushback_len == 0 {
        return false;
    }
    let Some(file) = descriptor::known_file(fd) else {
        return false;
    };
    first_of(file).is_some()
}

/// Whether anything at all waits to be fed.
pub fn any() -> bool {
    state().root.pushback_len != 0 || accepted::any()
}

/// The file is gone: so is what was to be fed from it.
pub fn forget(file: u32) {
    let root = &mut state().root;
    let mut at = 0;
    while at < root.pushback_len as usize {
        let n = 8 + len_at(&root.pushback, at);
        if u32_at(&root.pushback, at) == file {
            let total = root.pushback_len as usize;
            root.pushback.copy_within(at + n..total, at);
            root.pushback_len -= n as u64;
        } else {
            at += n;
        }
    }
}

/// At recovery: something that the program is to read from a file before anything else. False
/// if there is no room.
pub fn push(file: u32, bytes: &[u8]) -> bool {
    let root = &mut state().root;
    let at = root.pushback_len as usize;
    if at + 8 + bytes.len() > root.pushback.len() {
        return false;
    }
    root.pushback[at..at + 4].copy_from_slice(&file.to_le_bytes());
    root.pushback[at + 4..at + 8].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    root.pushback[at + 8..at + 8 + bytes.len()].copy_from_slice(bytes);
    root.pushback_len += 8 + bytes.len() as u64;
    true
}

/// At recovery: what was consumed since the last commit, or since the end of
/// the log at that offset of the journal, is fed again.
pub fn restore(warm: bool, from: usize) {
    let e = engine();
    if e.boot.plant == plant::LOSE_READ {
        return;
    }
    let numbers = handed::Numbers::new();
    let anew_until = match warm {
        true => record::last_cold_recovery(),
        false => usize::MAX,
    };
    let root = &mut state().root;
    for r in crate::object::record::own(from) {
        if !matches!(r.kind, record::INPUT | record::MESSAGE) {
            continue;
        }
        let Some(head) = record::value_of::<IoHead>(r.payload) else {
            continue;
        };
        // A descriptor that came into being since the commit is not there any
        // more; what it gave cannot be fed.
        let Some(file) = descriptor::known_file(head.fd) else {
            continue;
        };
        let is_anew = || {
            let is_own = head.thread & record::OWN_PIPE != 0 || super::pipe::is_own(head.fd);
            is_own || super::fifo::is_rewound(head.fd)
        };
        if super::pipe::is_state(head.fd)
            || super::inotify::is_anew(file)
            || r.offset < anew_until && is_anew()
        {
            continue;
        }
        let (bytes, whole) = match r.kind {
            record::MESSAGE => (r.payload, WHOLE),
            _ => (&r.payload[size_of::<IoHead>()..], 0),
        };
        let at = root.pushback_len as usize;
        if at + 8 + bytes.len() > root.pushback.len() {
            crate::say!("more input since the last commit than can be fed again; the rest is lost");
            return;
        }
        root.pushback[at..at + 4].copy_from_slice(&file.to_le_bytes());
        root.pushback[at + 4..at + 8].copy_from_slice(&(bytes.len() as u32 | whole).to_le_bytes());
        root.pushback[at + 8..at + 8 + bytes.len()].copy_from_slice(bytes);
        if whole != 0 {
            let payload = &mut root.pushback[at + 8..at + 8 + bytes.len()];
            numbers.put_into(payload, r.offset);
        }
        root.pushback_len += 8 + bytes.len() as u64;
    }
}
