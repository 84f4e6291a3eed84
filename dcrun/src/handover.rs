//! A program whose first process has ended while others live on: a daemon, or a job left in
//! the background. Whoever called dcrun is told, and the run goes on.
//!
//! In the kernel all processes of a run are the keeper's children, and the keeper is the
//! process that was called. It cannot leave them to another one. So another keeper is made,
//! a copy of this one that has the same descriptors and with them the run's lock; this one
//! kills the processes, the other one recovers them, and then this one exits with the first
//! process's status. To the program that is a failure like any other.
//!
//! The caller's standard error is given up, as daemons do, so that a pipe there ends. What is
//! still to be said goes to a file in the run's directory.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use dc_image::Status;
use dc_image::boot::high_fd;

use crate::interrupter;
use crate::keeper::Keeper;
use crate::machine::{descriptors, process};
use crate::message::{Doing, Outcome};
use crate::opener;
use crate::run_directory::MESSAGES;
use crate::standard::{self, Standard};

/// Others that are about to end as well are waited for.
pub const PATIENCE: Duration = Duration::from_millis(100);
/// Longer than any recovery takes; its success is told by `ps`, not to the caller.
const RECOVERY: Duration = Duration::from_secs(20);
const LOOKS: Duration = Duration::from_micros(500);

/// Gives the run, none of whose processes is there any more, to another keeper: that is who
/// comes back from here. `status` is that of the first process.
pub fn to_another_keeper(keeper: &mut Keeper, status: u8) -> Outcome<()> {
    let doing = || format!("{}: make a keeper for the background", keeper.run.name);
    keeper.live.status.store(Status::Recovering as u32, Relaxed);
    let other = process::copy_with_descriptors().doing(doing)?;
    if other != 0 {
        await_recovery(keeper, other);
        process::exit_at_once(status);
    }
    let own = process::pid();
    keeper.starter.plan.keeper = own;
    keeper.live.keeper_pid.store(own as u32, Relaxed);
    process::become_subreaper().doing(|| "become the reaper of orphans".to_owned())?;
    let lock = keeper.reservation.number(crate::launch::LOCK);
    keeper.run.is_kept_by_this(lock);
    give_up_messages(keeper)?;
    give_up_terminal(keeper);
    // (Their threads were left behind.)
    interrupter::start(keeper)?;
    opener::start(keeper)
}

/// Until the program goes on, or cannot.
fn await_recovery(keeper: &Keeper, other: i32) {
    let begun = Instant::now();
    let recovers = || keeper.live.status.load(Acquire) == Status::Recovering as u32;
    while recovers() && process::is_alive(other) && begun.elapsed() < RECOVERY {
        // Companions of the dead, which the next workers have done with.
        while let Some((dead, _)) = process::peek_any_death()
            && dead != other
        {
            process::reap(dead);
        }
        std::thread::sleep(LOOKS);
    }
}

/// Whoever sat at it was told that the program has ended: the run no longer waits for them to be
/// resumed.
fn give_up_terminal(keeper: &mut Keeper) {
    let record = &mut keeper.record;
    if standard::has_terminal(&record.standard) {
        for one in &mut record.standard {
            if *one == Standard::Terminal {
                *one = Standard::Other;
            }
        }
        // (Else it waits for its user, which is said then.)
        let _ = keeper.run.write_record(record);
    }
}

fn give_up_messages(keeper: &Keeper) -> Outcome<()> {
    let log = keeper.run.open_to_add(MESSAGES)?;
    let number = keeper.reservation.number(high_fd::MESSAGES);
    descriptors::place(log.into(), number)
        .doing(|| "descriptor of messages: place it".to_owned())?;
    Ok(())
}
