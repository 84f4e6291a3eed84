//! `--trace`: one line an event, for people and for `dcrun check`.
//!
//! The format and its writer are those of `protocols::trace`. A sequence number
//! is never used twice, also not after a failure: the counter lies in Rio, out
//! of every rollback. A line is one append of the kernel's, so a kill leaves
//! none in pieces.

use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::boot::high_fd;
use protocols::trace::{Class, Fate, HEADER, Line, Note};

/// Whether anybody reads along.
#[inline(always)]
pub fn wanted() -> bool {
    engine().boot.trace != 0 && !engine().alone
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
    let commit = state().root.trace_commit;
    if engine().live().trace_sequence.load(Relaxed) < commit {
        committed();
    }
    write(Class::Kill, "kill", Fate::Open, Note::None);
    write(Class::Recover, "recover", Fate::Open, Note::To(commit));
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
        crate::fatal::count_written(live, r as usize);
    }
}
