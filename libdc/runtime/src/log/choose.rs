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
    /// What reading the clock takes by itself.
    clock_ns: u64,
    /// Commits and the time they had taken when `costs` was last brought up.
    seen: (u64, u64),
}

/// Until something was measured.
const GUESS: Costs = Costs {
    commit_ns: 20_000,
    record_ns: 150,
    record_kib_ns: 100,
    flush_ns: 0,
};

impl Chooser {
    pub const fn new() -> Chooser {
        Chooser {
            auto: None,
            pending: None,
            costs: GUESS,
            clock_ns: 0,
            seen: (0, 0),
        }
    }

    pub fn is_on(&self) -> bool {
        self.auto.is_some()
    }

    pub fn begin(&mut self, protocol: Protocol) {
        self.auto = Some(Auto::new(protocol));
        let durable = engine().boot.durable != 0;
        // A sync, until one was measured.
        self.costs.flush_ns = if durable { 1_000_000 } else { 0 };
        let readings = (0..8).map(|_| {
            let begin = now_ns();
            now_ns() - begin
        });
        self.clock_ns = readings.min().unwrap_or(0);
        let live = engine().live();
        self.costs = known(live, self.costs);
        self.seen = (live.commits.load(Relaxed), live.commit_ns.load(Relaxed));
    }

    pub fn set_threads(&mut self, several: bool) {
        if let Some(auto) = &mut self.auto {
            auto.set_always_nd(several);
        }
    }

    /// An event, and the bytes that it takes to log it.
    pub fn watch(&mut self, event: Event, bytes: usize) {
        if let Some(auto) = &mut self.auto {
            auto.watch(event, bytes as u64, &self.costs);
        }
    }

    /// After an event: asks for the commit with which another protocol begins.
    pub fn consider(&mut self, l: &mut Local) {
        let Some(auto) = &self.auto else { return };
        match auto.advise(&engine().machine, &self.costs) {
            Advice::Stay => {}
            Advice::Move(choice) | Advice::CommitToMove(choice) => {
                self.pending = Some(choice);
                l.commit_after = true;
            }
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
        let now = (live.commits.load(Relaxed), live.commit_ns.load(Relaxed));
        if now.0 > self.seen.0 && now.1 > self.seen.1 {
            let mean = (now.1 - self.seen.1) / (now.0 - self.seen.0);
            self.costs.commit_ns = follow(self.costs.commit_ns, mean);
            live.cost_commit_ns.store(self.costs.commit_ns, Relaxed);
            self.seen = now;
        }
        if let Some(choice) = self.pending.take() {
            auto.moved(choice.to);
            live.protocol_moves.fetch_add(1, Relaxed);
            note_reason(&choice);
        }
    }

    pub fn flush_took(&mut self, ns: u64) {
        self.costs.flush_ns = follow(self.costs.flush_ns, ns);
        engine()
            .live()
            .cost_flush_ns
            .store(self.costs.flush_ns, Relaxed);
    }

    /// Making a record of so many bytes took so long.
    pub fn record_took(&mut self, ns: u64, bytes: usize) {
        let by_size = self.costs.record_kib_ns * bytes as u64 / 1024;
        let rest = ns.saturating_sub(by_size + self.clock_ns);
        self.costs.record_ns = follow(self.costs.record_ns, rest);
        engine()
            .live()
            .cost_record_ns
            .store(self.costs.record_ns, Relaxed);
    }
}

/// A mean that forgets: an eighth of it is the newest. One that lasted very
/// long says more about who else ran meanwhile, so it counts as long, no more.
fn follow(mean: u64, newest: u64) -> u64 {
    (mean * 7 + newest.min(mean * 4 + 100)) / 8
}

/// What workers before this one have measured.
fn known(live: &Live, guess: Costs) -> Costs {
    let or = |measured: &AtomicU64, guess| match measured.load(Relaxed) {
        0 => guess,
        ns => ns,
    };
    Costs {
        commit_ns: or(&live.cost_commit_ns, guess.commit_ns),
        record_ns: or(&live.cost_record_ns, guess.record_ns),
        flush_ns: or(&live.cost_flush_ns, guess.flush_ns),
        ..guess
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
