//! The processes of a run, as their keeper sees them: all are its children in the kernel.
//!
//! A process that ends says so in the table before it does, with the commit that makes it
//! so. One that dies otherwise has failed, and with it the run: all others are killed, the
//! table goes back to the last commit, and all that live in it are started again.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use dc_image::FatalCode;
use dc_image::run::{Life, Process, STRANGER_ENDED};

use crate::machine::process::{self, Change};
use crate::machine::shared::SharedLive;
use crate::machine::signals;

/// Whether the end of a process is committed, and all of it done.
pub fn has_ended(p: &Process, published: u64) -> bool {
    let ended = p.ended.load(Acquire);
    let left = p.left.load(Acquire);
    ended != 0 && ended <= published && left != 0 && left == p.id.load(Acquire)
}

/// The entry of the process whose worker has this number.
pub fn entry_of(live: &SharedLive, pid: i32) -> Option<usize> {
    live.processes()
        .iter()
        .position(|p| p.real.load(Acquire) == pid && p.id.load(Relaxed) != 0)
}

/// Kills every worker but `dead`, and waits until all are dead. Says which those were.
///
/// A worker may have died in the middle of a fork, so that its child is in no table yet.
/// Every child of the keeper is a worker or one of the companions, which are known.
pub fn kill_others(live: &SharedLive, dead: i32, spared: &[i32]) -> Vec<i32> {
    let mut killed: Vec<i32> = Vec::new();
    if live.run().high.load(Acquire) <= 1 {
        // It has never made a child.
        return killed;
    }
    loop {
        let companions: Vec<i32> = live
            .processes()
            .iter()
            .map(|p| p.companion.load(Acquire) as i32)
            .collect();
        let beside = strangers(live);
        let is_worker = |pid: &i32| {
            *pid != dead
                && !beside.contains(pid)
                && !killed.contains(pid)
                && !companions.contains(pid)
                && !spared.contains(pid)
        };
        let more: Vec<i32> = process::children().into_iter().filter(is_worker).collect();
        if more.is_empty() {
            return killed;
        }
        for &pid in &more {
            signals::send(pid, libc::SIGKILL);
        }
        let server = live.run().served_by.load(Relaxed) as usize;
        if server > 1 && live.fatal.load(Acquire) != FatalCode::None as u32 {
            // Who waits for a file system that the run serves (FUSE) dies when nobody has that
            // open any more, the server's companion neither. (What the first process has open
            // is this one's too.)
            let companion = live.processes()[server - 1].companion.load(Acquire) as i32;
            if companion > 0 {
                signals::send(companion, libc::SIGKILL);
            }
        }
        for &pid in &more {
            process::await_death(pid);
        }
        killed.extend(more);
    }
}

/// A process was stopped or continued: its parent is to know.
pub fn note_stop(live: &SharedLive, pid: i32, change: Change) {
    let Some(slot) = entry_of(live, pid).or_else(|| stands_for(live, pid)) else {
        return;
    };
    let p = &live.processes()[slot];
    let change = match change {
        // It has stopped itself for what the terminal wanted.
        Change::Stopped(libc::SIGSTOP) => match p.stops_by.swap(0, SeqCst) as i32 {
            0 => change,
            signal => Change::Stopped(signal),
        },
        _ => change,
    };
    let status = match change {
        Change::Stopped(signal) => 0x7f | signal << 8,
        Change::Continued => 0xffff,
        _ => return,
    };
    // One that was made to run for a commit stops again: nobody else is to know.
    if p.thawed.load(Acquire) != 0 {
        if matches!(change, Change::Stopped(_)) {
            p.thawed.store(0, Release);
        }
        return;
    }
    let signal = match change {
        Change::Stopped(signal) => signal,
        _ => 0,
    };
    // What a process of the run has brought about is rolled back with it, and comes again.
    // Only what somebody typed does not.
    let published = live.published.load(Acquire);
    let is_typed = signal == libc::SIGTSTP && p.stop_sent.load(Acquire) <= published;
    for (word, value) in [
        (&p.stopped, signal),
        (&p.changed, status),
        (&p.change_untold, status),
    ] {
        match is_typed {
            true => word.fix(value),
            false => word.set(value, published),
        }
    }
    let Some(parent) = p.parent_at(u64::MAX) else {
        return;
    };
    let slot = parent;
    let parent = &live.processes()[slot];
    parent.ran.store(1, SeqCst);
    live.run().stir(slot);
    parent.child_event.fetch_add(1, Release);
    process::wake(&parent.child_event);
    let real = parent.real.load(Acquire);
    if real > 0 {
        signals::send(real, RUNTIMES_OWN);
    }
}

/// The signal by which a runtime is told to look.
pub const RUNTIMES_OWN: i32 = 64;

/// Whether the descriptors of all processes of the last commit are still there. Those of the
/// first are the keeper's own; the OOM killer may have taken a companion with its worker.
pub fn has_descriptors(live: &SharedLive) -> bool {
    let published = live.published.load(Acquire);
    let others = live.processes().iter().skip(1);
    others
        .filter(|p| p.life_at(published) == Life::Lives)
        .map(|p| p.companion.load(Relaxed) as i32)
        .all(|companion| companion > 0 && process::is_alive(companion))
}

/// The process that stands in the place of a stranger with this number.
fn stands_for(live: &SharedLive, stranger: i32) -> Option<usize> {
    live.processes().iter().position(|p| {
        p.stranger.load(Acquire) == stranger && p.id.load(Relaxed) != 0 && !is_over(p)
    })
}

/// Whether the stranger in whose place a process stands has ended.
fn is_over(p: &Process) -> bool {
    p.stranger_end.load(Acquire) & STRANGER_ENDED != 0
}

/// Programs beside the run, which are the keeper's children too.
pub fn strangers(live: &SharedLive) -> Vec<i32> {
    let has_one = |p: &&Process| p.stranger.load(Acquire) > 0 && !is_over(p);
    let all = live.processes().iter().filter(has_one);
    all.map(|p| p.stranger.load(Acquire)).collect()
}

/// A program beside the run has ended: who stands in its place ends as it did.
pub fn note_strangers_end(live: &SharedLive, pid: i32, death: Change) {
    let Some(slot) = stands_for(live, pid) else {
        return;
    };
    let status = match death {
        Change::Exited(code) => (code & 0xff) << 8,
        Change::Killed(signal) => signal,
        Change::Stopped(_) | Change::Continued => return,
    };
    let p = &live.processes()[slot];
    p.stranger_end.store(status as u32 | STRANGER_ENDED, SeqCst);
    p.child_event.fetch_add(1, SeqCst);
    process::wake(&p.child_event);
}

/// Programs beside the run whose keeper has died: nobody will hear how they end. Says how
/// many there were.
pub fn forget_strangers(live: &SharedLive) -> usize {
    let lost = |p: &&Process| p.stranger.load(Relaxed) > 0 && !is_over(p);
    let all = live.processes().iter().filter(lost);
    all.inspect(|p| {
        p.stranger_end
            .store(libc::SIGKILL as u32 | STRANGER_ENDED, SeqCst);
    })
    .count()
}

/// A process that is not the first was ended by the kernel at a limit: when it has come back it
/// ends of that. False if no commit has it.
pub fn note_end_at_limit(live: &SharedLive, dead: i32) -> bool {
    let published = live.published.load(Acquire);
    let entry = entry_of(live, dead).map(|slot| &live.processes()[slot]);
    let Some(p) = entry.filter(|p| p.life_at(published) == Life::Lives) else {
        return false;
    };
    p.ends_of.store(libc::SIGKILL as u64, SeqCst);
    true
}

/// Waits until what an earlier keeper and its processes had open is closed: they are dead, and
/// their image is free.
pub fn await_closed(live: &SharedLive) {
    /// Longer than any of them takes. (What still has something open then does so for good.)
    const PATIENCE: Duration = Duration::from_secs(60);
    const REAPED_WITHIN: Duration = Duration::from_millis(200);
    const PAUSE: Duration = Duration::from_micros(200);
    let begun = Instant::now();
    let keeper = live.keeper_pid.load(Relaxed) as i32;
    let run = live.run();
    let companions = run.dying.iter().chain([&run.dying_first]);
    let of_process = |p: &Process| {
        let companion = p.companion.load(Relaxed) as i32;
        [p.real.load(Relaxed), p.worker.load(Relaxed), companion]
    };
    let all = std::iter::once(keeper)
        .chain(companions.map(|companion| companion.load(Relaxed)))
        .chain(live.processes().iter().flat_map(of_process));
    let all: Vec<i32> = all
        .filter(|&pid| pid > 0 && pid != process::pid())
        .collect();
    for &pid in &all {
        while process::is_giving_up(pid) && begun.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
    }
    // Their groups are there until init has reaped them, where there is one that does.
    let closed = Instant::now();
    for &pid in &all {
        while process::is_zombie(pid) && closed.elapsed() < REAPED_WITHIN {
            std::thread::sleep(PAUSE);
        }
    }
}

/// No companion of an earlier keeper lives.
pub fn forget_companions(live: &SharedLive) {
    for p in live.processes() {
        p.companion.store(0, Relaxed);
    }
    // Nor is anybody's death to be waited for: the numbers are somebody else's by now.
    let run = live.run();
    for place in run.dying.iter().chain([&run.dying_first]) {
        place.store(0, Relaxed);
    }
}

/// Takes the tables back to the last commit. Says which processes live in it, the first
/// process not among them, and whether that does.
pub fn roll_back(live: &SharedLive, cold: bool) -> (Vec<usize>, bool) {
    let published = live.published.load(Acquire);
    let mut others = Vec::new();
    let mut first = true;
    for (slot, p) in live.processes().iter().enumerate() {
        if slot != 0 {
            let companion = p.companion.load(Relaxed) as i32;
            if companion > 0 && (cold || p.life_at(published) != Life::Lives) {
                signals::send(companion, libc::SIGKILL);
                if !live.run().note_dying(companion) {
                    process::await_death(companion);
                }
                p.companion.store(0, Relaxed);
            }
        }
        if slot == 0 {
            // Its stop was nobody's state: the parent that was told of it is outside, and
            // whoever kills a stopped worker wants it to go on.
            p.stopped.clear();
        }
        p.real.store(0, Relaxed);
        match p.roll_back(published) {
            Life::Lives if slot != 0 => others.push(slot),
            Life::Lives => {}
            _ if slot == 0 => first = false,
            _ => {}
        }
    }
    for shared in live.shared() {
        shared.roll_back(published);
    }
    let run = live.run();
    for opener in &run.openers {
        opener.what.roll_back(published);
    }
    let living = others.len() as u32 + u32::from(first);
    for word in [&run.lock, &run.stopping].into_iter().chain(&run.arrived) {
        word.store(0, Relaxed);
    }
    run.living.store(living, Relaxed);
    run.recovering.store(living, Relaxed);
    let elder = if first {
        0
    } else {
        others.first().copied().unwrap_or(0)
    };
    run.elder.store(elder as u32, Release);
    (others, first)
}
