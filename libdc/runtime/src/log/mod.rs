//! The log of an interval: results that re-execution would not see again.
//!
//! A protocol that logs (CAND-LOG, CBNDVS-LOG) commits less often, because a
//! non-deterministic result that is in the log is determined: after a crash the
//! program runs again from its last commit, and every such call is given what
//! it was given before. What it showed since then is on record too, and is not
//! shown again. When the log is at its end, the program goes on live.
//!
//! ```text
//! commit  DET DET OUT INPUT DET OUT | CLOSED | INPUT SIGNAL ..      crash
//!         `---- the log, replayed --'          `- fed, not replayed
//! ```
//!
//! The log is the journal of the interval: [determinants](determinant), input
//! ([`crate::object::input`]) and output ([`crate::object::output`]), in the
//! order in which the one thread met them. A result that cannot be logged (a
//! signal, a second thread, a child) *closes* the log: a replay could not get
//! past it. From there on the protocol's flag is set, so nothing is shown
//! before the next commit, and what was consumed is fed again as ever.
//!
//! [`shapes`] says of each call what to log, [`replay`] gives it back,
//! [`choose`] is the protocol `auto`.

pub mod choose;
pub mod determinant;
pub mod replay;
pub mod shapes;

use crate::commit::now_ns;
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::object::record;
use crate::{event, trace};
use core::sync::atomic::Ordering::*;
use protocols::Event;
use protocols::trace::Class;

/// Records that an interval's log may have before it commits: they are all
/// replayed before anybody sees the program go on.
const MAX_RECORDS: u64 = 1 << 16;
/// Bytes of input that an interval may have: what is to be fed again lies in the
/// state, which has room for a MiB, one more message included.
const MAX_INPUT: u64 = 384 << 10;
/// Bytes of journal, before-images included, as a multiple of the log's bound.
const JOURNAL_FACTOR: u64 = 16;

/// What a worker knows about the log. Nothing here is rolled back.
pub struct Log {
    /// Results may be logged, or are watched by `auto`: calls report what was
    /// chance about them at their end.
    pub wanted: bool,
    pub replay: replay::Replay,
    pub chooser: choose::Chooser,
    /// This interval's.
    records: u64,
    bytes: u64,
    /// Of input, whether it is part of the log or not.
    input: u64,
    /// The storage does not have all of the journal yet.
    unsynced: bool,
    /// Some time a child was made: what was the program's own is shared.
    shared: bool,
}

impl Log {
    pub const fn new() -> Log {
        Log {
            wanted: false,
            replay: replay::Replay::new(),
            chooser: choose::Chooser::new(),
            records: 0,
            bytes: 0,
            input: 0,
            unsynced: false,
            shared: false,
        }
    }

    /// Kernel objects that only this one thread can reach behave the same each
    /// time: they are rolled back, and their calls made again.
    pub fn private(&self) -> bool {
        self.wanted && !self.shared && crate::run::is_alone()
    }

    /// A child has what its parent had.
    pub fn share(&mut self) {
        self.shared = true;
    }
}

/// A worker begins: fresh, or with the machine of the last commit.
pub fn begin() {
    let e = engine();
    // In memory a record is durable as soon as it is written.
    let lazy = e.boot.durable != 0;
    e.machine.set_lazy_log(lazy);
    state().root.machine_at_start.set_lazy_log(lazy);
    let protocol = e.machine.protocol();
    if e.boot.auto != 0 {
        e.log.chooser.begin(protocol);
    }
    in_force();
}

/// The protocol in force may be another one now.
fn in_force() {
    let e = engine();
    let protocol = e.machine.protocol();
    e.live().protocol_now.store(protocol as u32, Relaxed);
    e.log.wanted = protocol.logs() || e.log.chooser.is_on();
}

/// Whether a log is kept: under `auto` that changes.
pub fn is_kept() -> bool {
    engine().log.wanted && engine().machine.protocol().logs()
}

/// In a child: nothing of it is committed, so nothing is logged.
pub fn leave() {
    engine().log.wanted = false;
}

/// From here on a replay of this interval could not find its way.
pub fn close() {
    record::append(record::LOG_CLOSED, &[]);
}

/// A record of so many bytes has become part of the log.
pub fn grew(l: &mut Local, bytes: usize) {
    let e = engine();
    let live = e.live();
    live.logged_events.fetch_add(1, Relaxed);
    live.logged_bytes.fetch_add(bytes as u64, Relaxed);
    let log = &mut e.log;
    log.unsynced = true;
    log.records += 1;
    log.bytes += bytes as u64;
    let limit = e.boot.log_limit;
    if log.bytes > limit
        || log.records > MAX_RECORDS
        || e.journal.tail() as u64 > limit.saturating_mul(JOURNAL_FACTOR)
    {
        event::tell(Event::CommitRequested, 0);
        live.log_bound_commits.fetch_add(1, Relaxed);
        l.commit_after = true;
    }
}

/// Input of so many bytes, its record included, was consumed.
pub fn consumed(l: &mut Local, bytes: usize) {
    let log = &mut engine().log;
    log.input += bytes as u64;
    if log.input > MAX_INPUT {
        event::tell(Event::CommitRequested, 0);
        l.commit_after = true;
    }
}

/// At recovery: this interval's input so far, all of which will be fed again if
/// there is another one.
pub fn count_input() {
    let e = engine();
    let input =
        crate::object::record::own(0).filter(|r| matches!(r.kind, record::INPUT | record::MESSAGE));
    let since: u64 = input.map(|r| r.payload.len() as u64).sum();
    e.log.input = state().root.pushback_len + since;
}

/// Output was made and is on record.
pub fn output_recorded() {
    engine().log.unsynced = true;
}

/// Makes the tail of the log durable, before something leaves the process.
/// In memory it is.
pub fn flush() {
    let e = engine();
    if e.boot.durable != 0 && e.log.unsynced {
        let begin = now_ns();
        record::make_durable();
        let took = now_ns() - begin;
        e.live().log_flush_ns.fetch_add(took, Relaxed);
        e.log.chooser.flush_took(took);
        e.live().log_flushes.fetch_add(1, Relaxed);
    }
    e.log.unsynced = false;
    if e.machine.unflushed() {
        let queued = e.boot.durable != 0;
        event::tell(Event::Flushed, 0);
        if queued {
            trace::flushed();
        }
    }
}

/// Whether an event must wait for storage, although no log record does: output
/// that was made must be known to have been made before more is.
pub fn must_flush() -> bool {
    let e = engine();
    e.machine.protocol().logs() && e.log.unsynced && e.boot.durable != 0
}

/// The protocol that the commit to come commits, too.
pub fn before_commit() {
    let e = engine();
    if e.log.replay.is_active() {
        replay::unexpected("a commit");
    }
    if let Some(to) = e.log.chooser.pending() {
        // Whatever is open now is closed by this very commit.
        e.machine.step(Event::Committed);
        e.machine.change_to(to);
        state().root.machine_at_start = e.machine;
    }
}

/// The commit is published, and the journal void.
pub fn after_commit() {
    let e = engine();
    let log = &mut e.log;
    (log.records, log.bytes, log.unsynced) = (0, 0, false);
    // What is still to be fed needs its room as well.
    log.input = state().root.pushback_len;
    log.chooser.committed();
    in_force();
}

/// How an event stands in the trace.
pub fn class_of(call: &str) -> Class {
    // What a person typed will be typed again; time will not stand still.
    match call {
        "read" | "readv" => Class::Fixed,
        _ => Class::NonDeterministic,
    }
}
