//! A run: all processes of a program as one process of the theory.
//!
//! They commit together, under the one number that the image of the run holds, and go
//! back together. What passes between them is state, as it is between threads. So they
//! are treated as threads are: one lock for all, and a commit that stops all.
//!
//! [`unit`] is the commit of all, [`moving`] what it waits for; [`birth`], [`vfork`], [`end`],
//! [`wait`] and [`orphans`] are the lives of processes, [`stranger`] what is none; [`shared`] is what several of them know; [`image`] where a process that is
//! not the first has its pages, [`handed`] what the keeper opens for it; [`together`] how all recover at once;
//! [`signals`] and [`many`] what they send to each other.
#![allow(unsafe_code)]

pub mod abandoned;
pub mod birth;
pub mod end;
pub mod ends;
mod handed;
pub mod image;
pub mod job_control;
pub mod many;
pub mod moving;
pub mod orphans;
pub mod seal;
pub mod served;
pub mod shared;
pub mod signals;
pub mod stranger;
pub mod together;
pub mod unit;
pub mod vfork;
pub mod wait;

use crate::engine::engine;
use core::sync::atomic::Ordering::*;
use dc_image::run::{Life, PROCESS_MAX, PROCESSES_OFFSET, Process, RUN_OFFSET, Run};
use dc_image::window::RIO_BASE;

const BASE: usize = RIO_BASE + RUN_OFFSET;

/// What all processes of the run share. Not before the image is mapped.
#[inline(always)]
pub fn run() -> &'static Run {
    // SAFETY: mapped for the life of the worker; all that changes is atomic.
    unsafe { &*(BASE as *const Run) }
}

/// An entry of the table of processes.
#[inline(always)]
pub fn process(slot: usize) -> &'static Process {
    debug_assert!(slot < PROCESS_MAX);
    // SAFETY: as `run`; the table has this many entries.
    unsafe { &*((BASE + PROCESSES_OFFSET) as *const Process).add(slot) }
}

/// This process's own entry.
#[inline(always)]
pub fn me() -> &'static Process {
    process(engine().slot)
}

/// This process has taken the big lock, beside others.
#[inline(always)]
pub fn holds_lock() {
    run().lock_holder.store(engine().slot as u32 + 1, Relaxed);
}

/// Entries that were ever used.
pub fn all() -> impl Iterator<Item = (usize, &'static Process)> {
    (0..run().high.load(Acquire) as usize).map(|slot| (slot, process(slot)))
}

/// The other processes of the run that live.
pub fn others() -> impl Iterator<Item = (usize, &'static Process)> {
    let own = engine().slot;
    all().filter(move |&(slot, p)| slot != own && p.life() == Life::Lives)
}

/// Whether other processes of the run live.
#[inline(always)]
pub fn has_company() -> bool {
    run().living.load(Relaxed) > 1
}

/// Whether this is the only thread of the run.
#[inline(always)]
pub fn is_alone() -> bool {
    engine().thread_count.load(Relaxed) == 1 && !has_company()
}

/// Whether this process is one of several, or the child of one that was.
pub fn is_tree() -> bool {
    engine().slot != 0 || has_company() || crate::engine::state().root.tree != 0
}

/// What this process runs, as `ps` shows it.
pub fn note_name(name: &[u8; 16]) {
    let to = (&raw const me().name).cast_mut();
    // SAFETY: the entry is mapped and this process's own; whoever reads it may read a name
    // that is half the old one.
    unsafe { to.write_volatile(*name) };
}

/// An input or output call of this process is under way, see
/// [`dc_image::header::Inflight`].
#[inline(always)]
pub fn flies() {
    run().in_flight.store(engine().slot as u32, Relaxed);
}

/// At a recovery: whether the call that was under way was this process's.
pub fn is_in_flight() -> bool {
    run().in_flight.load(Relaxed) as usize == engine().slot
}

/// The living process that programs know by this number.
pub fn known_as(id: i32) -> Option<(usize, &'static Process)> {
    if id <= 0 {
        return None;
    }
    all().find(|(_, p)| p.id.load(Relaxed) == id && p.life() != Life::None)
}

/// Whether a process has been waited for while the kernel still has it: it closes what it had,
/// or the keeper has yet to reap it.
pub fn is_leaving(id: i32) -> bool {
    let is_it = |p: &Process| p.id.load(Relaxed) == id && p.reaped.load(Relaxed) != 0;
    let keeper = engine().live().keeper_pid.load(Relaxed) as i32;
    // (The keeper forgets the number before it reaps: behind that it may be anybody's.)
    let is_there = |p: &Process| p.real.load(Relaxed) != 0 || many::parent_of(id) == Some(keeper);
    id > 0 && all().any(|(_, p)| is_it(p) && p.life() == Life::None && is_there(p))
}

/// The kernel's number of a process or process group that the program names.
pub fn real_id(id: i32) -> i32 {
    /// The kernel gives no process a number as high.
    const NOBODY: i32 = i32::MAX;
    match known_as(id) {
        Some((_, p)) if p.real.load(Relaxed) != 0 => p.real.load(Relaxed),
        None if is_leaving(id) => NOBODY,
        _ => id,
    }
}

/// The number that the program knows for one of the kernel's.
pub fn known_id(real: i32) -> i32 {
    all()
        .find(|(_, p)| p.real.load(Relaxed) == real && p.life() != Life::None)
        .map_or(real, |(_, p)| p.id.load(Relaxed))
}
