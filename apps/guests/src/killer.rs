//! Kills the worker, or keeper and worker, at moments drawn from a seed, while the driver types.
//!
//! The killer learns from `dcrun ps --json` whom to kill and whether the run has come back. It kills nobody outside the
//! console's own session. A run that does not commit comes no further while it is killed again and again, so it is
//! killed some times at one commit and then left alone until the next.

use crate::chance::Chance;
use crate::console::in_session;
use crate::dcrun::{Dcrun, RunInfo};
use crate::drive::Watcher;
use crate::error::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Worker,
    KeeperAndWorker,
    /// One time this, another time that: what the one leaves on record the other one meets.
    Either,
}

/// How to kill in one run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub victim: Victim,
    pub kills: usize,
    /// The mean time between a recovery and the next kill.
    pub gap: Duration,
    pub seed: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Kills {
    /// Kills that met a living run.
    pub kills: usize,
    pub recoveries: usize,
    /// From each kill until `ps` showed the run again: an upper bound.
    pub seen_us: Vec<u64>,
    /// What did not come back.
    pub trouble: Vec<String>,
}

pub struct Killer<'a> {
    dcrun: &'a Dcrun,
    name: &'a str,
    session: i32,
    plan: Plan,
    stop: AtomicBool,
    strikes: AtomicUsize,
    /// Kills of everything that the driver has not yet answered by running the command again.
    unanswered: AtomicUsize,
    kills: Mutex<Kills>,
}

/// Whether a run is there again after the death of one process, or of all.
fn is_back(before: &RunInfo, now: &RunInfo, all: bool) -> bool {
    match all {
        false => now.recoveries > before.recoveries && matches!(&*now.state, "running" | "done"),
        true => now.keeper_pid != before.keeper_pid && now.state == "running",
    }
}

/// How long a run may take to come back.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);

/// How often one commit is made to recover: more often than a program may crash there by its own fault.
const KILLS_AT_ONE_COMMIT: usize = 6;

impl<'a> Killer<'a> {
    pub fn new(dcrun: &'a Dcrun, name: &'a str, session: i32, plan: Plan) -> Self {
        Killer {
            dcrun,
            name,
            session,
            plan,
            stop: AtomicBool::new(false),
            strikes: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            kills: Mutex::new(Kills::default()),
        }
    }

    /// Kills until the plan is done or [`Killer::stop`] is called.
    pub fn hunt(&self) {
        let mut chance = Chance::new(self.plan.seed);
        let mut last = (u64::MAX, 0);
        let mut struck = 0;
        while self.lock().kills < self.plan.kills && !self.stopped() {
            self.pause(&mut chance, &mut struck);
            let Some(run) = self.alive() else {
                sleep(Duration::from_millis(1));
                continue;
            };
            // What is in the log is as good as committed.
            let progress = run.commits + run.logged_events;
            if progress != last.0 {
                last = (progress, 0);
            }
            if last.1 >= KILLS_AT_ONE_COMMIT || self.stopped() {
                sleep(Duration::from_millis(1));
                continue;
            }
            let whom = match self.plan.victim {
                Victim::Either if chance.below(2) == 0 => Victim::Worker,
                Victim::Either => Victim::KeeperAndWorker,
                always => always,
            };
            let Some((at, victim)) = self.kill(&run, whom, &mut chance) else {
                continue;
            };
            last.1 += 1;
            let all = whom == Victim::KeeperAndWorker;
            if !self.await_recovery(&run, at, (!all).then_some(victim)) {
                return;
            }
        }
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub fn kills(&self) -> Kills {
        self.lock().clone()
    }

    /// Waits for a random time, or until the script stands at a moment worth a kill.
    fn pause(&self, chance: &mut Chance, struck: &mut usize) {
        let gap_us = self.plan.gap.as_micros() as u64;
        let until = Instant::now() + Duration::from_micros(chance.below(2 * gap_us + 1));
        while Instant::now() < until && !self.stopped() {
            let strikes = self.strikes.load(Ordering::SeqCst);
            if strikes > *struck {
                *struck = strikes;
                return;
            }
            sleep(Duration::from_micros(200).min(until.saturating_duration_since(Instant::now())));
        }
    }

    fn alive(&self) -> Option<RunInfo> {
        // A question that fails is asked again: the run may not have begun yet.
        self.find().ok().flatten().filter(|run| {
            run.state == "running"
                && run
                    .worker_pid
                    .is_some_and(|pid| in_session(pid, self.session))
        })
    }

    fn find(&self) -> Result<Option<RunInfo>> {
        self.dcrun.find(self.name)
    }

    /// Kills, and says when and whom.
    fn kill(&self, run: &RunInfo, whom: Victim, chance: &mut Chance) -> Option<(Instant, i32)> {
        let worker = run.worker_pid?;
        match whom {
            // Any process of the run.
            Victim::Worker | Victim::Either => {
                let all: Vec<i32> = run.processes.iter().filter_map(|p| p.pid).collect();
                let nth = chance.below(all.len().max(1) as u64) as usize;
                let victim = all.get(nth).copied().unwrap_or(worker);
                self.shoot(victim).then(|| (Instant::now(), victim))
            }
            Victim::KeeperAndWorker => {
                let keeper = run.keeper_pid?;
                self.unanswered.fetch_add(1, Ordering::SeqCst);
                // Either may die first: the keeper may be caught in the middle of a recovery.
                let worker_first = chance.below(2) == 0;
                if worker_first {
                    self.shoot(worker);
                    sleep(Duration::from_micros(chance.below(3000)));
                }
                if !self.shoot(keeper) {
                    self.unanswered.store(0, Ordering::SeqCst);
                    return None;
                }
                if !worker_first {
                    self.shoot(worker);
                }
                Some((Instant::now(), worker))
            }
        }
    }

    fn shoot(&self, pid: i32) -> bool {
        in_session(pid, self.session) && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
    }

    /// Waits until the run is there again; false when it is not to be killed any more. `victim` is the one process that
    /// was killed; none if it was all of them.
    fn await_recovery(&self, before: &RunInfo, at: Instant, victim: Option<i32>) -> bool {
        loop {
            match self.find() {
                Ok(Some(run)) if is_back(before, &run, victim.is_none()) => {
                    let mut kills = self.lock();
                    kills.kills += 1;
                    kills.recoveries += 1;
                    kills.seen_us.push(at.elapsed().as_micros() as u64);
                    return true;
                }
                // The kill met a program that had just ended.
                Ok(Some(run)) if run.state == "done" => return false,
                _ if self.stopped() => return false,
                // A child that had just ended: the kill met nobody.
                Ok(Some(run))
                    if victim.is_some()
                        && victim != before.worker_pid
                        && run.recoveries == before.recoveries
                        && at.elapsed() > MISSED =>
                {
                    return true;
                }
                found if at.elapsed() > RECOVERY_LIMIT => {
                    let mut kills = self.lock();
                    kills.kills += 1;
                    kills.trouble.push(format!(
                        "no recovery in {} s after a kill at commit {}: {found:?}",
                        RECOVERY_LIMIT.as_secs(),
                        before.commits
                    ));
                    return false;
                }
                _ => sleep(Duration::from_micros(500)),
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kills> {
        self.kills
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// After so long without a recovery a kill of a child has met one that had ended.
const MISSED: Duration = Duration::from_millis(500);

impl Watcher for Killer<'_> {
    fn strike(&self) {
        self.strikes.fetch_add(1, Ordering::SeqCst);
    }

    fn was_killed(&self, status: i32) -> bool {
        let unanswered = self.unanswered.swap(0, Ordering::SeqCst);
        status == 128 + Signal::SIGKILL as i32 && unanswered > 0
    }
}
