//! `--trace`: one line an event, for people and for `dcrun check`.
//!
//! The format and its writer are those of `protocols::trace`. A sequence number
//! is never used twice, also not after a failure: the counter lies in Rio, out
//! of every rollback; whether its last line was written the trace itself says.
//!
//! A run of several processes is one process of the theory, and its trace that of one: its
//! lines carry the number of the first, and the call names who has made it, if that is another.

use crate::engine::{engine, state};
use crate::fatal::Text;
use crate::machine::frame::Local;
use crate::run::{process, run, together};
use crate::sys;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering::*};
use dc_image::boot::high_fd;
use protocols::trace::{Class, Fate, HEADER, Line, Note};

/// Whether anybody reads along.
#[inline(always)]
pub fn wanted() -> bool {
    engine().boot.trace != 0
}

/// The process of the theory: the run, by the number of its first process.
fn computation() -> u32 {
    process(0).id.load(Relaxed) as u32
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
        put(class, call_of(l), Fate::Open, Note::None);
    }
}

/// A non-deterministic result of a thread's present call.
pub fn chance(l: &Local, fate: Fate) {
    if wanted() {
        let call = call_of(l);
        put(crate::log::class_of(call), call, fate, Note::None);
    }
}

/// The records that were queued are durable.
pub fn flushed() {
    if wanted() {
        put(Class::Flush, "flush", Fate::Open, Note::None);
    }
}

/// The number that the line of the commit to come will have. The last commit's is kept
/// beside it, in case this one does not come to pass.
pub fn before_commit() {
    if wanted() {
        let number = engine().live().trace_sequence.load(Relaxed) + 1;
        commit_line(engine().store.published() + 1).store(number, Relaxed);
    }
}

/// Where the number of a commit's line is kept.
fn commit_line(commit: u64) -> &'static AtomicU64 {
    &run().trace_commits[commit as usize % 2]
}

/// The commit is published.
pub fn committed() {
    if wanted() {
        put(Class::Commit, "commit", Fate::Commit, Note::None);
    }
}

/// A recovery: what the dead could not say, and where we stand again. One process says it for
/// all, before any of them goes on.
pub fn recovered() {
    if !wanted() || !together::is_elder() {
        return;
    }
    if let Some(last) = last_written() {
        // A kill may have come between a number and its line.
        engine().live().trace_sequence.store(last, Relaxed);
    }
    let commit = commit_line(engine().store.published()).load(Relaxed);
    if engine().live().trace_sequence.load(Relaxed) < commit {
        committed();
    }
    put(Class::Kill, "kill", Fate::Open, Note::None);
    put(Class::Recover, "recover", Fate::Open, Note::To(commit));
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
    (process == u64::from(computation())).then_some(sequence)
}

fn put(class: Class, call: &str, fate: Fate, note: Note) {
    let live = engine().live();
    let fd = engine().high_fd(high_fd::TRACE);
    let mut buffer = [0u8; 256];
    let sequence = live.trace_sequence.load(Relaxed) + 1;
    let process = computation();
    let clock = [(process, sequence)];
    let mut named = Text::<64>::new();
    let own = state().root.pid;
    if own as u32 != process {
        let _ = write!(named, "{call}@{own}");
    }
    let call = match core::str::from_utf8(named.as_bytes()) {
        Ok(named) if !named.is_empty() => named,
        _ => call,
    };
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
