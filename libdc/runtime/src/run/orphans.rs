//! What a process leaves behind: children that another one adopts, and those that have
//! asked for a signal at its end.
//!
//! state:     what each has asked for (prctl(2)), in its [`Attributes`] and, for others to
//!            see, in the table of processes
//! intercept: PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER; the end of a process or thread
//! restore:   into the table; a signal that was sent and not taken is taken then
//! survives:  warm and cold
//!
//! In the kernel all are children of the keeper, so it sends none of these signals. An end
//! is committed, and that its children were told of it with it: how often such a signal was
//! sent to each, and how often it took one, are words of the table ([`Dated`]).
//!
//! [`Attributes`]: crate::object::attributes::Attributes
//! [`Dated`]: dc_image::dated::Dated

use super::{all, end, me, process, unit};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::signal::queue::SigInfo;
use crate::signal::{self, SIGKILL};
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::run::{Life, Process};

const SIGCHLD: u32 = 17;
const SIGCONT: i32 = 18;
/// The number that an orphan takes for its parent's, if nobody of the run adopts it.
pub const NOBODYS: isize = 1;

fn children_of(slot: usize) -> impl Iterator<Item = (usize, &'static Process)> {
    all().filter(move |(_, child)| {
        child.life() != Life::None && child.parent_at(u64::MAX) == Some(slot)
    })
}

/// The children of a process that ends with the commit to come get another parent: the
/// nearest one above that has asked for orphans, else nobody of the run.
pub fn leave_children(slot: usize) {
    let published = engine().store.published();
    let reaper = reaper_above(slot);
    for (_, child) in children_of(slot) {
        child.adopt(reaper, published);
        if child.life() == Life::Zombie && reaper.is_none() {
            child.reaped.store(published + 1, SeqCst);
        }
        if reaper.is_some() {
            child.exit_signal.store(SIGCHLD, Relaxed);
        }
        if child.death_signal.load(Relaxed) != 0 {
            bereave(child, process(slot));
        }
    }
}

fn reaper_above(slot: usize) -> Option<usize> {
    let mut above = process(slot).parent_at(u64::MAX);
    while let Some(slot) = above {
        let p = process(slot);
        if p.adopts.load(Relaxed) != 0 && p.life() == Life::Lives {
            break;
        }
        above = p.parent_at(u64::MAX);
    }
    above
}

/// When that commit is published: zombies among them are told to their new parent, and
/// whoever asked for a signal looks for it.
pub fn tell_those_left(slot: usize) {
    let published = engine().store.published();
    let left = |p: &Process| {
        p.parent_since.load(Relaxed) == published
            && p.parent_before.load(Relaxed) as usize == slot + 1
    };
    for (slot, child) in all().filter(|(_, p)| p.life() != Life::None && left(p)) {
        if child.life() == Life::Zombie {
            end::tell_parent(slot);
        } else if is_bereft(child) {
            wake(slot, child);
        }
    }
}

/// A thread of this process ends, which to its children is the end of their parent
/// (PR_SET_PDEATHSIG). Under the big lock.
pub fn thread_ends(l: &mut Local, tid: i32) {
    if !super::has_company() {
        return;
    }
    for (slot, child) in children_of(engine().slot) {
        if child.parent_thread.load(Relaxed) != tid {
            continue;
        }
        // Another thread is the parent from now on.
        let other = state().root.pid;
        child.parent_thread.store(other, Relaxed);
        if child.death_signal.load(Relaxed) == 0 || child.life() == Life::Zombie {
            continue;
        }
        if child.death_signal.load(Relaxed) == SIGKILL as u32 {
            end::kill_others(l, |at, _| at == slot);
        } else {
            bereave(child, me());
            wake(slot, child);
        }
    }
}

/// All threads but this one have ended, as an exec wants it; this one has the number of the
/// process from now on.
pub fn others_ended(l: &mut Local) {
    let (own, pid) = (state().threads[l.slot as usize].tid, state().root.pid);
    let made_by =
        |tid| children_of(engine().slot).any(|(_, p)| p.parent_thread.load(Relaxed) == tid);
    if own != pid && made_by(pid) {
        thread_ends(l, pid);
    }
    while let Some((_, child)) = children_of(engine().slot)
        .find(|(_, p)| ![own, pid].contains(&p.parent_thread.load(Relaxed)))
    {
        thread_ends(l, child.parent_thread.load(Relaxed));
    }
    for (_, child) in children_of(engine().slot) {
        child.parent_thread.store(pid, Relaxed);
    }
}

fn bereave(child: &Process, of: &Process) {
    let signal = child.death_signal.load(Relaxed);
    child.bereft_signal.store(signal, Relaxed);
    child.bereft_of.store(of.id.load(Relaxed), Relaxed);
    let times = child.bereft.get() + 1;
    child.bereft.set(times, engine().store.published());
}

fn is_bereft(p: &Process) -> bool {
    p.bereft.get() != p.bereft_told.get()
}

fn wake(slot: usize, child: &Process) {
    unit::look_at(slot);
    if child.bereft_signal.load(Relaxed) == SIGCONT as u32 {
        // It may be stopped, and so not take it by itself.
        sys!(KILL, child.real.load(Relaxed), SIGCONT);
    }
    unit::poke(child);
}

/// The lowest process below one that is about to end, of those that want to be killed
/// with their parent; this process not among them. They end first, each by itself.
pub fn doomed_below(slot: usize) -> Option<usize> {
    let own = engine().slot;
    let below = |slot| {
        let mut children = children_of(slot).filter(|(child, _)| *child != own);
        let is_doomed =
            |p: &Process| p.death_signal.load(Relaxed) == SIGKILL as u32 && p.life() == Life::Lives;
        children.find(|(_, p)| is_doomed(p)).map(|(slot, _)| slot)
    };
    let mut lowest = below(slot)?;
    while let Some(next) = below(lowest) {
        lowest = next;
    }
    Some(lowest)
}

/// Takes the signal of a parent that has ended, as [`end::take_signals`] does those of
/// children.
pub fn take_signal(l: &mut Local) {
    let p = me();
    if !is_bereft(p) {
        return;
    }
    unit::runs();
    p.bereft_told
        .set(p.bereft.get(), engine().store.published());
    let signo = p.bereft_signal.load(Relaxed) as i32;
    match signo {
        SIGKILL | SIGCONT => {}
        signal::SIGSTOP => {
            sys!(KILL, engine().pid, signo);
        }
        _ => end::receive(l, &from_parent(p, signo)),
    }
}

/// Whether this process has killed its parent and is to be killed for it.
pub fn is_killed_for_it() -> bool {
    is_bereft(me()) && me().bereft_signal.load(Relaxed) == SIGKILL as u32
}

/// As the kernel sends it: by the one that ended.
fn from_parent(p: &Process, signo: i32) -> SigInfo {
    let mut info = SigInfo {
        code: 0,
        ..signal::outside::by_kernel_for_run(signo)
    };
    let uid = sys!(GETUID) as u32;
    info.rest[4..8].copy_from_slice(&p.bereft_of.load(Relaxed).to_le_bytes());
    info.rest[8..12].copy_from_slice(&uid.to_le_bytes());
    info
}
