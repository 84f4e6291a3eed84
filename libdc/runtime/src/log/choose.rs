//! The protocol `auto`: which protocol costs least, here and now.
//!
//! [`protocols::auto`] follows the program with a shadow of each protocol; this
//! file tells it what happens and what things cost, and lets a protocol take
//! over with a commit: the commit holds the machine under its new protocol, so
//! a crash finds either the old protocol with its interval or the new one with
//! its own.
#![allow(unsafe_code)]

use crate::commit::now_ns;
use crate::engine::engine;
use crate::fatal::Text;
use crate::machine::frame::Local;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering::*};
use dc_image::header::Live;
use protocols::auto::{Advice, Auto, Choice, Costs};
use protocols::{Event, Protocol};

pub struct Chooser {
    auto: Option<Auto>,
    pending: Option<Choice>,
    costs: Costs,
    commit: Price,
    record: Price,
    flush: Price,
    /// What reading the clock takes by itself.
    clock_ns: u64,
    /// Results that passed by since the last event, and bytes to log them.
    passed: (u64, u64),
    /// Commits and the time they had taken when `costs` was last brought up.
    seen: (u64, u64),
    /// How often the protocol in force has done what is measured.
    measured: u32,
    /// Records since one was timed.
    untimed: u32,
}

/// Until something was measured.
const IN_MEMORY: Costs = Costs {
    commit_ns: 20_000,
    record_ns: 150,
    record_kib_ns: 100,
    flush_ns: 0,
};
/// A commit is two syncs, and the second one has little to write.
const ON_DISK: Costs = Costs {
    commit_ns: 1_500_000,
    flush_ns: 1_000_000,
    ..IN_MEMORY
};

/// One record in so many is timed: reading the clock twice costs a third of one.
const TIMED: u32 = 16;

impl Chooser {
    pub const fn new() -> Chooser {
        Chooser {
            auto: None,
            pending: None,
            costs: IN_MEMORY,
            commit: Price::NONE,
            record: Price::NONE,
            flush: Price::NONE,
            clock_ns: 0,
            passed: (0, 0),
            seen: (0, 0),
            measured: 0,
            untimed: 0,
        }
    }

    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.auto.is_some()
    }

    pub fn begin(&mut self, protocol: Protocol) {
        let mut auto = Auto::new(protocol);
        let durable = engine().boot.durable != 0;
        auto.set_output_is_flushed(durable);
        self.auto = Some(auto);
        let readings = (0..8).map(|_| {
            let begin = now_ns();
            now_ns() - begin
        });
        self.clock_ns = readings.min().unwrap_or(0);
        let live = engine().live();
        let guess = if durable { ON_DISK } else { IN_MEMORY };
        self.commit = Price::known(&live.cost_commit_ns);
        self.record = Price::known(&live.cost_record_ns);
        self.flush = Price::known(&live.cost_flush_ns);
        self.costs = Costs {
            commit_ns: self.commit.or(guess.commit_ns),
            record_ns: self.record.or(guess.record_ns),
            flush_ns: self.flush.or(guess.flush_ns),
            ..guess
        };
        self.seen = counted(live);
    }

    pub fn set_threads(&mut self, several: bool) {
        self.pass_on();
        if let Some(auto) = &mut self.auto {
            auto.set_always_nd(several);
        }
    }

    /// Results that can be logged and of which the protocol was not told, because
    /// its flag is set. They are many, so a shadow hears of them all at once.
    pub fn passes(&mut self, results: u64, bytes: u64) {
        self.passed.0 += results;
        self.passed.1 += bytes;
    }

    fn pass_on(&mut self) {
        let (results, bytes) = core::mem::take(&mut self.passed);
        if let Some(auto) = &mut self.auto {
            auto.passed(results, bytes, &self.costs);
        }
    }

    /// An event, and the bytes that it takes to log it.
    pub fn watch(&mut self, event: Event, bytes: usize) {
        self.pass_on();
        if let Some(auto) = &mut self.auto {
            auto.watch(event, bytes as u64, &self.costs);
        }
    }

    /// Something outlives a rollback, for which a log commits once more.
    pub fn outlived(&mut self) {
        // The call's own result may be among them.
        self.pass_on();
        if let Some(auto) = &mut self.auto {
            auto.outlived(&self.costs);
        }
    }

    /// After an event: asks for the commit with which another protocol begins.
    pub fn consider(&mut self, l: &mut Local) {
        let Some(auto) = &self.auto else { return };
        if crate::event::is_behind() {
            // What was measured may say otherwise than before the crash.
            return;
        }
        match auto.advise(&engine().machine, &self.costs) {
            Advice::Stay => {}
            Advice::Move(choice) | Advice::CommitToMove(choice) => {
                self.pending = Some(choice);
                l.commit_after = true;
            }
        }
    }

    /// A commit is about to be made for another reason: a move with it is free. (Not
    /// in the middle of a call: it may have asked already whether a log is kept.)
    pub fn ride(&mut self) {
        crate::event::passed_by();
        self.pass_on();
        let Some(auto) = &self.auto else { return };
        if self.pending.is_some() || crate::event::is_behind() {
            return;
        }
        let mut machine = engine().machine;
        machine.step(Event::Committed);
        if let Advice::Move(choice) = auto.advise(&machine, &self.costs) {
            self.pending = Some(choice);
        }
    }

    /// What the commit under way is to begin with.
    pub fn pending(&self) -> Option<Protocol> {
        self.pending.map(|choice| choice.to)
    }

    /// A commit is made: what it cost, and whether it has brought a change.
    pub fn committed(&mut self) {
        let Some(auto) = &mut self.auto else { return };
        let live = engine().live();
        let now = counted(live);
        // The first commit holds all of the program, and says nothing about others.
        if self.seen.0 > 1 && now.0 > self.seen.0 && now.1 > self.seen.1 {
            let each = (now.1 - self.seen.1) / (now.0 - self.seen.0);
            self.costs.commit_ns = self.commit.take(each, &live.cost_commit_ns);
            // A commit on disk waits for it twice, and a flush once.
            if self.flush.taken == 0 && engine().boot.durable != 0 {
                self.costs.flush_ns = self.costs.commit_ns / 2;
            }
        }
        self.seen = now;
        if let Some(choice) = self.pending.take() {
            auto.moved(choice.to, &self.costs);
            self.measured = 0;
            live.protocol_moves.fetch_add(1, Relaxed);
            note_reason(&choice);
        } else if !auto.in_force().logs() {
            self.doubt();
        }
    }

    /// What the protocol in force seldom does is not measured under it, and the first
    /// of each were dear: once its own price is known well, the other's is a low one,
    /// so that it is tried again if that would pay.
    fn doubt(&mut self) {
        let Some(auto) = &self.auto else { return };
        self.measured += 1;
        if self.measured < 2 * MEASURED as u32 {
            return;
        }
        if auto.in_force().logs() && self.commit.taken > 0 {
            self.costs.commit_ns = self.commit.low();
        } else if !auto.in_force().logs() && self.flush.taken > 0 {
            self.costs.flush_ns = self.flush.low();
        }
    }

    pub fn flush_took(&mut self, ns: u64) {
        if self.is_on() {
            let cost = &engine().live().cost_flush_ns;
            self.costs.flush_ns = self.flush.take(ns, cost);
            self.doubt();
        }
    }

    /// Whether the record that is made now is to be timed.
    pub fn times_a_record(&mut self) -> bool {
        self.untimed += 1;
        self.is_on() && (self.record.taken < TIMED || self.untimed >= TIMED)
    }

    /// Making a record of so many bytes took so long.
    pub fn record_took(&mut self, ns: u64, bytes: usize) {
        self.untimed = 0;
        let by_size = self.costs.record_kib_ns * bytes as u64 / 1024;
        let rest = ns.saturating_sub(by_size + self.clock_ns);
        let cost = &engine().live().cost_record_ns;
        let price = self.record.take(rest, cost);
        // The first one may have waited for the storage of the log.
        if self.record.taken > 2 {
            self.costs.record_ns = price;
        }
    }
}

/// Commits, and the time that they have taken, all but the one under way.
fn counted(live: &Live) -> (u64, u64) {
    (live.commits.load(Relaxed), live.commit_ns.load(Relaxed))
}

/// The last things of a kind that were measured. Of each, the middle one counts: the first commits
/// on a disk take several times as long as those that follow, and any may have met another's.
#[derive(Clone, Copy)]
struct Price {
    last: [u64; MEASURED],
    taken: u32,
}

const MEASURED: usize = 8;

impl Price {
    const NONE: Price = Price {
        last: [0; MEASURED],
        taken: 0,
    };

    /// What workers before this one have measured.
    fn known(cost: &AtomicU64) -> Price {
        let ns = cost.load(Relaxed);
        Price {
            last: [ns; MEASURED],
            taken: if ns > 0 { MEASURED as u32 } else { 0 },
        }
    }

    fn or(&self, guess: u64) -> u64 {
        if self.taken > 0 { self.middle() } else { guess }
    }

    /// Takes one in; what it is now goes to `cost` as well.
    fn take(&mut self, ns: u64, cost: &AtomicU64) -> u64 {
        self.last[self.taken as usize % MEASURED] = ns;
        self.taken = self.taken.wrapping_add(1).max(1);
        let middle = self.middle();
        cost.store(middle, Relaxed);
        middle
    }

    fn middle(&self) -> u64 {
        self.cheaper_than(2)
    }

    /// A quarter of them were cheaper.
    fn low(&self) -> u64 {
        self.cheaper_than(4)
    }

    /// What one in so many was cheaper than.
    fn cheaper_than(&self, part: usize) -> u64 {
        let mut sorted = self.last;
        let known = &mut sorted[..MEASURED.min(self.taken as usize)];
        known.sort_unstable();
        known.get(known.len() / part).copied().unwrap_or(0)
    }
}

/// For `dcrun stats`.
fn note_reason(choice: &Choice) {
    let mut text = Text::<319>::new();
    let _ = write!(text, "{choice}");
    let live = engine().live;
    // SAFETY: Live is mapped for the life of the worker; only the one thread
    // that commits writes the text, under the lock.
    unsafe {
        let dst = (&raw mut (*live).protocol_reason).cast::<u8>();
        core::ptr::copy_nonoverlapping(text.as_bytes().as_ptr(), dst, text.as_bytes().len());
        dst.add(text.as_bytes().len()).write(0);
    }
}
