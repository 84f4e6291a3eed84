//! Telling the protocol what happens, and committing when it asks.
//!
//! `protocols` decides, this file acts. Callers hold the big lock.

use crate::engine::{add, engine, state};
use crate::machine::frame::Local;
use crate::{commit, trace};
use core::sync::atomic::Ordering::*;
use protocols::trace::Class;
use protocols::{Decision, Event};

/// A non-deterministic result is known and the program has not seen it yet.
pub fn non_deterministic(local: &mut Local) {
    let e = engine();
    add(&e.live().nd_events, 1);
    if e.nd_cheap.load(Relaxed) && !trace::wanted() {
        return;
    }
    trace::event(local, Class::NonDeterministic);
    let d = engine()
        .machine
        .step(Event::NonDeterministic { loggable: false });
    after(local, d);
}

/// Something is about to become visible; commits first if it must.
pub fn visible(local: &mut Local) {
    add(&engine().live().visible_events, 1);
    let d = engine().machine.step(Event::Visible);
    if d.commit_before && engine().boot.plant != dc_image::boot::plant::SKIP_COMMIT {
        commit::commit(local);
    }
    trace::event(local, Class::Visible);
    after(local, d);
}

/// A call nobody has classified: committed around, on both sides.
pub fn unknown(local: &mut Local) {
    let d = engine().machine.step(Event::Unknown);
    if d.commit_before {
        commit::commit(local);
    }
    after(local, d);
}

fn after(local: &mut Local, d: Decision) {
    if d.commit_after {
        local.commit_after = true;
    } else {
        let e = engine();
        e.nd_cheap.store(e.machine.flag(), Relaxed);
    }
}

/// Sets the flag without an event of its own: what happened before may not
/// repeat itself.
pub fn mark(_local: &mut Local) {
    engine()
        .machine
        .step(Event::NonDeterministic { loggable: false });
}

/// Several threads run from now on, or no longer: their interleaving is
/// non-deterministic while they do.
pub fn set_threads(several: bool) {
    let e = engine();
    e.machine.set_always_nd(several);
    state().root.machine_at_start.set_always_nd(several);
    e.nd_cheap.store(e.machine.flag(), Relaxed);
}

/// After a recovery: the machine as the committed state has it.
pub fn rolled_back() {
    let e = engine();
    e.machine = state().root.machine_at_start;
    e.machine.step(Event::RolledBack);
    e.nd_cheap.store(e.machine.flag(), Relaxed);
}
