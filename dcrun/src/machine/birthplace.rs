//! The session, terminal and group that a process is put into before it is a worker.
//!
//! It runs in a fork of the keeper and uses only what was prepared before the clone.

use std::io;
use std::sync::atomic::Ordering::{Acquire, Release};

use dc_image::run::{PROCESS_MAX, Process};

use crate::families::Member;
use crate::machine::jump::{Groups, Plan};
use crate::machine::process;

/// How often a process looks whether another one has come so far: some seconds.
const PATIENCE: u32 = 2_000_000;

/// Puts this process where it belongs, and says so in its entry.
pub fn take(plan: &Plan, member: &Member, groups: &mut Groups) -> io::Result<()> {
    if let Some(slot) = member.slot {
        entry(plan, slot).real.store(process::pid(), Release);
    }
    if member.begins_session {
        begin_session(member)?;
        groups.push((member.id, process::pid()));
    } else if member.group != 0 {
        join(member, groups)?;
    }
    if let Some(slot) = member.slot {
        entry(plan, slot).placed.store(1, Release);
    }
    Ok(())
}

fn begin_session(member: &Member) -> io::Result<()> {
    // SAFETY: takes no pointer.
    if unsafe { libc::setsid() } == -1 {
        return Err(io::Error::last_os_error());
    }
    let Some(terminal) = &member.terminal else {
        return Ok(());
    };
    // SAFETY: the path is a C string. The low number is in use for a moment in which no
    // program runs. Where it fails the session has lost its terminal, as by a hang-up.
    unsafe {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let low = libc::open(terminal.as_ptr(), flags);
        if low >= 0 {
            libc::ioctl(low, libc::TIOCSCTTY, 0);
            libc::close(low);
        }
    }
    Ok(())
}

/// Joins a group, or begins it. Its leader may not have begun it yet.
fn join(member: &Member, groups: &Groups) -> io::Result<()> {
    let group = match member.leads_group() {
        true => 0,
        false => groups
            .iter()
            .find(|(known, _)| *known == member.group)
            .map_or(member.group, |(_, real)| *real),
    };
    for _ in 0..PATIENCE {
        // SAFETY: takes no pointer.
        if unsafe { libc::setpgid(0, group) } == 0 {
            return Ok(());
        }
        std::thread::yield_now();
    }
    Err(io::Error::last_os_error())
}

/// The rest of the life of a process that stands in for one that has ended: until all that
/// it was for are placed.
pub fn stand_in(plan: &Plan, member: &Member, _groups: &Groups) -> ! {
    for _ in 0..PATIENCE {
        if table(plan).all(|p| p.placed.load(Acquire) != 0 || !is_awaited(p, member)) {
            break;
        }
        std::thread::yield_now();
    }
    // SAFETY: ends this process at once.
    unsafe { libc::_exit(0) }
}

fn is_awaited(p: &Process, member: &Member) -> bool {
    p.id.load(Acquire) != 0
        && p.ended.load(Acquire) == 0
        && (p.group.get() == member.id || p.session.get() == member.id)
}

fn table(plan: &Plan) -> impl Iterator<Item = &Process> {
    // SAFETY: both are mapped for the life of the keeper, and this is its fork; what is looked
    // at of them is atomic.
    let high = unsafe { (*plan.run).high.load(Acquire) } as usize;
    // SAFETY: as above.
    (0..high.min(PROCESS_MAX)).map(|at| unsafe { &*plan.processes.add(at) })
}

fn entry(plan: &Plan, slot: u32) -> &Process {
    // SAFETY: as in `table`; the slot is one of it.
    unsafe { &*plan.processes.add(slot as usize) }
}
