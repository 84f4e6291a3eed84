//! `--trace`: one line an event, for people and for `dcrun check`.
//!
//! The format and its writer are those of `protocols::trace`. A sequence number
//! is never used twice, also not after a failure: the counter lies in Rio, out
//! of every rollback; whether its last line was written the trace itself says.

use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::boot::high_fd;
use protocols::trace::{Class, Fate, HEADER, Line, Note};

/// Whether anybody reads along.
#[inline(always)]
pub fn wanted() -> bool {
    engine().boot.trace != 0 && engine().slot == 0
}

/// The call that a thread is in, as a trace names it.
fn call_of(l: &Local) -> &'static str {
    if l.frame.nr == usize::MAX {
        "signal"
    } else {
        crate::table::row(l.frame.nr).name
    }
}

/// An event of a thread's present call.
pub fn event(l: &Local, class: Class) {
    if wanted() {
        write(class, call_of(l), Fate::Open, Note::None);
    }
}

/// A non-deterministic result of a thread's present call.
pub fn chance(l: &Local, fate: Fate) {
    if wanted() {
        let call = call_of(l);
        write(crate::log::class_of(call), call, fate, Note::None);
    }
}

/// The records that were queued are durable.
pub fn flushed() {
    if wanted() {
        write(Class::Flush, "flush", Fate::Open, Note::None);
    }
}

/// The number that the next commit's line will have; part of what it commits.
pub fn before_commit() {
    if wanted() {
        state().root.trace_commit = engine().live().trace_sequence.load(Relaxed) + 1;
    }
}

/// The commit is published.
pub fn committed() {
    if wanted() {
        write(Class::Commit, "commit", Fate::Commit, Note::None);
    }
}

/// A recovery: what the dead worker could not say, and where we stand again.
pub fn recovered() {
    if !wanted() {
        return;
    }
    if let Some(last) = last_written() {
        // A kill may have come between a number and its line.
        engine().live().trace_sequence.store(last, Relaxed);
    }
    let commit = state().root.trace_commit;
    if engine().live().trace_sequence.load(Relaxed) < commit {
        committed();
    }
    write(Class::Kill, "kill", Fate::Open, Note::None);
    write(Class::Recover, "recover", Fate::Open, Note::To(commit));
}

/// Cuts off a line that a kill has left in pieces (one that crosses a page may
/// be), and returns the number in the last whole one, if that is of this process.
fn last_written() -> Option<u64> {
    let fd = engine().high_fd(high_fd::TRACE);
    let end = sys!(LSEEK, fd, 0, 2);
    if end <= 0 {
        // Not even the first line was written.
        return (end == 0).then_some(0);
    }
    let mut text = [0u8; 512];
    let from = (end - text.len() as isize).max(0);
    let n = sys!(PREAD64, fd, text.as_mut_ptr(), text.len(), from);
    crate::object::input::count_read(n);
    let text = &text[..n.max(0) as usize];
    let newline = text.iter().rposition(|&b| b == b'\n')?;
    if newline + 1 < text.len() {
        sys!(FTRUNCATE, fd, from as usize + newline + 1);
    }
    let whole = &text[..newline];
    let line = whole.rsplit(|&b| b == b'\n').next()?;
    let mut fields = line.split(|&b| b == b' ').map(|field| {
        field.iter().try_fold(0u64, |v, b| match b {
            b'0'..=b'9' => Some(v * 10 + (b - b'0') as u64),
            _ => None,
        })
    });
    let process = fields.next()??;
    let sequence = fields.next()??;
    (process == state().root.pid as u64).then_some(sequence)
}

fn write(class: Class, call: &str, fate: Fate, note: Note) {
    let live = engine().live();
    let fd = engine().high_fd(high_fd::TRACE);
    let mut buffer = [0u8; 256];
    let sequence = live.trace_sequence.load(Relaxed) + 1;
    let process = state().root.pid as u32;
    let clock = [(process, sequence)];
    let line = Line {
        process,
        sequence,
        class,
        call,
        fate,
        clock: &clock,
        note,
    };
    let head = if sequence == 1 { HEADER.len() } else { 0 };
    buffer[..head].copy_from_slice(&HEADER.as_bytes()[..head]);
    let Ok(n) = line.write_to(&mut buffer[head..]) else {
        return;
    };
    live.trace_sequence.store(sequence, Relaxed);
    let r = sys!(WRITE, fd, buffer.as_ptr(), head + n);
    if r > 0 {
        crate::fatal::count_written(r as usize);
    }
}
