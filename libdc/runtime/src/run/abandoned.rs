//! Stopped groups that an end leaves without anybody to continue them: the kernel sends their
//! processes SIGHUP and SIGCONT (setpgid(2)). Here every parent is the keeper for it, so it does
//! not see when that is so; the table does.
//!
//! state:     how often that was due to a process, and how often it has taken it ([`Dated`]):
//!            it is committed with the end, so a rollback neither loses nor repeats it
//! intercept: the end of a process
//! survives:  warm and cold
//!
//! [`Dated`]: dc_image::dated::Dated

use super::job_control::is_orphaned;
use super::{all, me, signals, unit};
use crate::engine::engine;
use crate::machine::frame::Local;
use crate::run::end;
use crate::signal::outside;
use crate::sys;
use core::sync::atomic::Ordering::Relaxed;
use dc_image::run::{Life, PROCESS_MAX, Process};

const SIGHUP: i32 = 1;
const SIGCONT: i32 = 18;

/// Processes by entry.
pub struct Stopped([u64; PROCESS_MAX / 64]);

/// Before an end: who is stopped, and has somebody to continue it.
pub fn stopped() -> Option<Stopped> {
    let mut found: Option<Stopped> = None;
    for (slot, p) in all() {
        let is = p.life() == Life::Lives && p.stopped.get() != 0;
        if is && !is_orphaned(p.session.get(), p.group.get()) {
            let bits = &mut found.get_or_insert(Stopped([0; PROCESS_MAX / 64])).0;
            bits[slot / 64] |= 1 << (slot % 64);
        }
    }
    found
}

/// In the commit of the end: the members of the groups that have nobody any more are to find
/// the signals, and are stopped no longer.
pub fn leave(stopped: Option<Stopped>) {
    let Some(Stopped(bits)) = stopped else { return };
    let published = engine().store.published();
    let lives = |p: &Process| p.life() == Life::Lives;
    let was_stopped = |slot: usize| bits[slot / 64] & 1 << (slot % 64) != 0;
    let is_left = |p: &Process| {
        let ids = (p.session.get(), p.group.get());
        is_orphaned(ids.0, ids.1)
            && all().any(|(slot, other)| {
                was_stopped(slot) && lives(other) && (other.session.get(), other.group.get()) == ids
            })
    };
    for (_, p) in all().filter(|(_, p)| lives(p) && is_left(p)) {
        p.abandoned.set(p.abandoned.get() + 1, published);
    }
    for (_, p) in all().filter(|(_, p)| is_abandoned(p)) {
        p.stopped.set(0, published);
    }
}

fn is_abandoned(p: &Process) -> bool {
    p.life() == Life::Lives && p.abandoned.get() != p.abandoned_told.get()
}

/// When that is published: they go on. The runtime's own signal is there first, so that none of
/// them comes to its program before it has looked.
pub fn wake() {
    for (slot, p) in all().filter(|(_, p)| is_abandoned(p)) {
        unit::look_at(slot);
        unit::poke(p);
        if slot != engine().slot {
            signals::before_stop_or_go(p, SIGCONT);
            sys!(KILL, p.real.load(Relaxed), SIGCONT);
        }
    }
}

/// Takes the SIGHUP, as [`end::take_signals`] does the signals of children.
pub fn take_signal(l: &mut Local) {
    let p = me();
    if p.abandoned.get() != p.abandoned_told.get() {
        unit::runs();
        p.abandoned_told
            .set(p.abandoned.get(), engine().store.published());
        end::receive(l, &outside::by_kernel_for_run(SIGHUP));
    }
}
