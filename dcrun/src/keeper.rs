//! The watch over a worker: start it, wait, decide, start the next one.
//!
//! While a worker lives nothing is opened, and nothing is allocated between a
//! death and the next start but what the kernel does.

use std::fs::File;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Instant;

use dc_image::boot::{Mode, fault, high_fd, plant};
use dc_image::header::UNCOUNTED;
use dc_image::{FatalCode, Status};

use crate::addressee::Addressee;
use crate::families::{self, Member};
use crate::fruitless::Fruitless;
use crate::handover;
use crate::image;
use crate::interrupter;
use crate::limits::AtLimits;
use crate::machine::process::{self, Change};
use crate::machine::shared::SharedLive;
use crate::machine::signals;
use crate::machine::{descriptors, terminal};
use crate::message::{OWN_FAULT, Outcome};
use crate::opener;
use crate::record::Record;
use crate::relay::{Copies, Missed, is_for_program};
use crate::remains::Remains;
use crate::reserve::Reservation;
use crate::run_directory::RunDirectory;
use crate::suspension::{self, Suspension};
use crate::terminals;
use crate::tree;
use crate::verdict::{self, Facts, Verdict};
use crate::victims::Victims;
use crate::worker::{Start, Starter};

/// What ends the watch over a run's processes.
enum Seen {
    /// One has failed, or the last one has ended; how.
    Death(i32, Change),
    /// The first process has, and others live on.
    FirstEnded,
}

/// Everything that a run's watch needs.
pub struct Keeper {
    pub run: RunDirectory,
    pub record: Record,
    pub live: SharedLive,
    pub image: File,
    pub starter: Starter,
    pub reservation: Reservation,
    /// Low descriptors that were open when dcrun was called, in order.
    pub inherited: Vec<RawFd>,
    pub remains: Remains,
    /// The terminal's settings, to be put back when the run is stopped.
    pub terminal: Option<terminal::Settings>,
    /// The OOM killer's count of victims, if the kernel tells.
    pub victims: Option<Victims>,
    pub fault: u32,
    pub verbose: bool,
    /// Its caller is told the program's exit status, as soon as there is one.
    pub is_waited_for: bool,
}

impl Keeper {
    /// Runs the program to its end; returns the exit status of dcrun.
    pub fn keep(mut self, mode: Mode) -> Outcome<u8> {
        interrupter::start(&self)?;
        opener::start(&self)?;
        let mut start = Start {
            mode,
            pid: self.live.first().id.load(Relaxed),
            fault: take_fault(&mut self.fault, mode),
        };
        if mode == Mode::Fresh {
            start.pid = 0;
        } else {
            // They died with the last keeper; others may have their numbers.
            tree::forget_companions(&self.live);
            if tree::forget_strangers(&self.live) > 0 {
                self.tell(
                    "a program ran beside the run; how it ended nobody knows, so it counts as killed",
                );
            }
            // What was sent to a dead keeper died with it; what stands here may be damage.
            self.live.signals_missed.store(0, Relaxed);
            self.begin_recovery(process::monotonic_ns());
        }
        // If all died at once, nobody has counted what the last worker did; the
        // counts of the next one must not be taken for its.
        self.note_counts(Some((UNCOUNTED, UNCOUNTED)));
        let mut missed = Missed::default();
        let mut fruitless = Fruitless::default();
        loop {
            let mut copies = Copies::default();
            copies.settle(&self.live.first().signals_taken);
            let mut addressee = Addressee::new(&self.live);
            let pid = self.start(&mut start, &mut missed, &mut copies, &mut addressee)?;
            let seen = self.watch(pid, &mut copies, &mut addressee);
            let died_ns = process::monotonic_ns();
            let Seen::Death(dead, death) = seen else {
                (missed, _) = self.gather(0, 0, &mut copies, &mut addressee);
                let live = &self.live;
                let code = live.exit_code.load(Relaxed);
                let status = verdict::of_ended(code, live.exit_signal.load(Relaxed));
                handover::to_another_keeper(&mut self, status)?;
                start = self.recover(Mode::Warm, died_ns);
                continue;
            };
            let limits;
            (missed, limits) = self.gather(dead, pid, &mut copies, &mut addressee);
            let had_run = self.had_run();
            let in_a_row = fruitless.count(had_run);
            let verdict = self.judge(dead == pid, death, limits, in_a_row);
            if !matches!(verdict, Verdict::Recover { .. } | Verdict::StartOver { .. }) {
                self.remains.settle();
            }
            match verdict {
                Verdict::Finished(status) | Verdict::ToldToDie(status) => {
                    return self.finish(status);
                }
                Verdict::Recover { crashes } => {
                    self.count_crashes(crashes);
                    self.close_dead();
                    std::thread::sleep(fruitless.pause());
                    // What was not yet made again cannot be taken over.
                    let mode = match start.mode {
                        Mode::Cold if !had_run => Mode::Cold,
                        _ => Mode::Warm,
                    };
                    start = self.recover(mode, died_ns);
                    if self.verbose {
                        self.tell(&format!(
                            "{}; going on from commit {}",
                            cause(death),
                            self.live.published.load(Relaxed)
                        ));
                    }
                }
                Verdict::StartOver { crashes } => {
                    self.count_crashes(crashes);
                    self.close_dead();
                    let pid = self.live.first().id.load(Relaxed);
                    std::thread::sleep(fruitless.pause());
                    self.start_over(died_ns)?;
                    if self.verbose {
                        self.tell(&format!(
                            "{} before the first commit; starting again",
                            cause(death)
                        ));
                    }
                    start = Start {
                        mode: Mode::Fresh,
                        pid,
                        fault: fault::NONE,
                    };
                }
                Verdict::CrashLoop { signal, crashes } => {
                    self.count_crashes(crashes);
                    return self.stop_for_crashes(signal, crashes);
                }
                Verdict::Killed => {
                    self.live.kill_requested.store(0, Relaxed);
                    let name = &self.run.name;
                    let published = self.live.published.load(Relaxed);
                    self.stop(&format!(
                        "killed; `dcrun resume {name}` goes on from commit {published}"
                    ));
                    return Ok(verdict::by_signal(libc::SIGKILL));
                }
                Verdict::Suspended => return self.suspend(),
                Verdict::ImageAtLimit => {
                    let name = &self.run.name;
                    self.stop(&format!(
                        "its image cannot grow: the limit of file size is {} MiB. The run is \
                         stopped at commit {}; raise the limit (`ulimit -f`), then `dcrun resume \
                         {name}`",
                        limits.file_bytes >> 20,
                        self.live.published.load(Relaxed)
                    ));
                    return Ok(OWN_FAULT);
                }
                Verdict::GaveUp(status) => return self.give_up(status),
                Verdict::Vanished(status) => {
                    let name = &self.run.name;
                    let published = self.live.published.load(Relaxed);
                    self.stop(&format!(
                        "the worker exited with status {status} without the runtime's knowledge; \
                         this is a bug of dcrun. `dcrun resume {name}` goes on from commit \
                         {published}"
                    ));
                    return Ok(OWN_FAULT);
                }
            }
        }
    }

    /// What the next workers are to begin with, when the last ones died at this time.
    fn recover(&mut self, mode: Mode, died_ns: u64) -> Start {
        self.begin_recovery(died_ns);
        Start {
            mode,
            pid: self.live.first().id.load(Relaxed),
            fault: take_fault(&mut self.fault, mode),
        }
    }

    /// Starts the workers of all processes that live in the last commit, the first one
    /// last: the others get a copy of the keeper's descriptors as it has them now. Answers
    /// the first one's number, 0 if that has ended. The mode becomes what it had to be.
    fn start(
        &mut self,
        start: &mut Start,
        missed: &mut Missed,
        copies: &mut Copies,
        addressee: &mut Addressee,
    ) -> Outcome<i32> {
        let fresh = start.mode == Mode::Fresh;
        if start.mode == Mode::Warm && !tree::has_descriptors(&self.live) {
            start.mode = Mode::Cold;
            self.tell("descriptors of a process died with it; going on as if all had died");
        }
        let start = *start;
        let (others, first) = match fresh {
            true => (Vec::new(), true),
            false => tree::roll_back(&self.live, start.mode == Mode::Cold),
        };
        let mut members = match fresh {
            true => vec![Member::first(start.pid)],
            false => {
                let first = first.then_some(0);
                let slots: Vec<usize> = others.into_iter().chain(first).collect();
                families::arrange(&self.live, &slots)
            }
        };
        if start.mode == Mode::Cold
            && terminals::make_again(&self.live, &self.image, &self.reservation)? > 0
        {
            self.tell(
                "what was on its way through a terminal of the program's own, and not yet read, is lost",
            );
        }
        let last = match first {
            true => members.pop(),
            false => None,
        };
        let mut groups = Vec::new();
        for member in &members {
            let pid = self.starter.start(start, member, &mut groups)?;
            // It says so itself, if it comes so far: one that is killed before is missed all
            // the same.
            if let Some(slot) = member.slot {
                self.live.processes()[slot as usize]
                    .real
                    .store(pid, Relaxed);
            }
        }
        let Some(last) = last else {
            return Ok(0);
        };
        if !fresh {
            missed.leave(&self.live, copies);
        }
        let pid = self.starter.start(start, &last, &mut groups)?;
        missed.pass_on(pid, &self.live, copies, addressee);
        let entry = self.live.first();
        entry.real.store(pid, Relaxed);
        if start.pid == 0 {
            entry.id.store(pid, Relaxed);
            entry.born.store(1, Relaxed);
        }
        Ok(pid)
    }

    /// A process has died that had not ended, or the last one has: kills the others, and
    /// notes what the one whose call was under way had read and written.
    fn gather(
        &mut self,
        dead: i32,
        first: i32,
        copies: &mut Copies,
        addressee: &mut Addressee,
    ) -> (Missed, AtLimits) {
        let run = self.live.run();
        run.dying.iter().for_each(|place| place.store(0, Relaxed));
        let killed = tree::kill_others(&self.live, dead, self.remains.companions());
        let in_flight = self.live.run().in_flight.load(Relaxed) as usize;
        let of_first = in_flight == 0;
        let flying = self.live.processes().get(in_flight);
        let flying = flying.map_or(0, |p| p.real.load(Relaxed));
        self.note_counts(match of_first {
            true => read_io(self.starter.plan.counters),
            false => process::counters_of(flying).as_deref().and_then(parse_io),
        });
        let pending = process::pending_signals(first);
        let mut limits = AtLimits::of_dead(dead, &self.image);
        if limits.processor_used_up && dead != first && tree::note_end_at_limit(&self.live, dead) {
            limits.processor_used_up = false;
        }
        for &pid in &killed {
            process::reap(pid);
        }
        if dead != 0 {
            process::reap(dead);
        }
        let companion = self.live.first().companion.swap(0, Relaxed) as i32;
        self.remains
            .bury(companion, self.reservation.number(high_fd::UFFD));
        self.live.run().dying_first.store(companion, Relaxed);
        let missed = Missed::while_it_died(&self.live, first, pending, copies, addressee);
        self.live.first().real.store(0, Relaxed);
        (missed, limits)
    }

    /// Waits until a process has failed or the last one has ended, passing on signals and
    /// stops meanwhile.
    fn watch(&mut self, mut pid: i32, copies: &mut Copies, addressee: &mut Addressee) -> Seen {
        let mut first_ended: Option<Instant> = None;
        let mut known_stop = false;
        let mut since_passed = true;
        let mut waits = 0;
        let mut suspension: Option<Suspension> = None;
        loop {
            if let Some(death) = process::peek_death(pid)
                && !self.is_no_failure(0)
            {
                return Seen::Death(pid, death);
            }
            // (Of a program beside the run only this keeper hears.)
            if first_ended.is_some_and(|at| at.elapsed() >= handover::PATIENCE)
                && tree::strangers(&self.live).is_empty()
            {
                return Seen::FirstEnded;
            }
            match process::peek_stop(pid) {
                Some(Change::Stopped(signal)) if !known_stop => {
                    known_stop = true;
                    if matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) {
                        self.stop_along(pid, signal);
                        known_stop = false;
                        continue;
                    }
                }
                Some(_) => {}
                None => known_stop = false,
            }
            if let Some((child, change)) = process::take_stop() {
                tree::note_stop(&self.live, child, change);
                continue;
            }
            if let Some((dead, death)) = process::peek_any_death() {
                match tree::entry_of(&self.live, dead) {
                    // (An entry that is another process's by now was an ended one's.)
                    Some(slot)
                        if !self.is_no_failure(slot)
                            && tree::entry_of(&self.live, dead) == Some(slot) =>
                    {
                        return Seen::Death(dead, death);
                    }
                    Some(slot) => {
                        let entry = &self.live.processes()[slot];
                        let _ = entry.real.compare_exchange(dead, 0, Release, Relaxed);
                        if dead == pid {
                            pid = 0;
                            first_ended = Some(Instant::now());
                        }
                    }
                    None => tree::note_strangers_end(&self.live, dead, death),
                }
                process::reap(dead);
                self.remains.reaped(dead);
                continue;
            }
            if suspension::is_wanted(&self.live) {
                suspension
                    .get_or_insert_with(|| Suspension::begin(&self.live))
                    .step(&self.live);
            }
            let arrived = match (copies.any() || since_passed, first_ended) {
                _ if suspension.is_some() => signals::wait_for(suspension::LOOKS),
                (true, _) => signals::wait_for(Copies::SETTLED),
                (false, Some(_)) => signals::wait_for(handover::PATIENCE),
                (false, None) => Some(signals::wait()),
            };
            match arrived {
                None if suspension.is_some() => {}
                // (What a process of the run sends to its group it sends to each.)
                Some(arrived)
                    if tree::entry_of(&self.live, arrived.sender).is_none()
                        && suspension::is_asked_by(&arrived, &self.live) => {}
                Some(arrived)
                    if is_for_program(&arrived, pid)
                        && tree::entry_of(&self.live, arrived.sender).is_none() =>
                {
                    if pid > 0 {
                        addressee.pass(pid, &arrived, &self.live);
                    }
                    copies.sent(arrived.number);
                    since_passed = true;
                }
                Some(arrived) => copies.arrived(&arrived),
                None if copies.any() && waits < Copies::LONGEST && copies.on_their_way(pid) => {
                    waits += 1;
                }
                None => {
                    waits = 0;
                    addressee.settle(pid, &self.live);
                    since_passed = false;
                    copies.send_lost(pid, &self.live.first().signals_taken);
                    copies.settle(&self.live.first().signals_taken);
                }
            }
        }
    }

    /// Whether the death of a process's worker is what its end was committed as, and others
    /// live on.
    fn is_no_failure(&self, slot: usize) -> bool {
        let live = &self.live;
        if self.starter.info.plant == plant::OWN_KILL && slot != 0 {
            return true;
        }
        live.status.load(Acquire) != Status::Done as u32
            && live.fatal.load(Acquire) == FatalCode::None as u32
            && tree::has_ended(&live.processes()[slot], live.published.load(Acquire))
    }

    /// Job control stopped the worker: stop too, so that the shell sees it, and
    /// when continued see to it that the worker goes on as well.
    fn stop_along(&self, pid: i32, signal: i32) {
        signals::stop_self(signal);
        // A shell continues the whole group; its signal to the worker may still
        // be under way, and a second one would run a handler twice.
        std::thread::sleep(std::time::Duration::from_millis(2));
        // A stop by another signal is a new one: continued in the background,
        // the worker has read from the terminal meanwhile.
        if process::peek_stop(pid) == Some(Change::Stopped(signal)) {
            signals::send(pid, libc::SIGCONT);
        }
    }

    /// Whether the last worker came as far as its program.
    fn had_run(&self) -> bool {
        let status = Status::from_u32(self.live.status.load(Acquire));
        !matches!(status, Some(Status::New | Status::Recovering))
    }

    fn judge(
        &mut self,
        is_first: bool,
        death: Change,
        limits: AtLimits,
        fruitless: u64,
    ) -> Verdict {
        let live = &self.live;
        let facts = Facts {
            // What would end the first process does not reach another one: that is told
            // to its runtime.
            death: match death {
                Change::Killed(_) if !is_first => Change::Killed(libc::SIGKILL),
                _ => death,
            },
            done: live.status.load(Acquire) == Status::Done as u32,
            exit_code: live.exit_code.load(Relaxed),
            exit_signal: live.exit_signal.load(Relaxed),
            fatal: live.fatal.load(Acquire),
            published: live.published.load(Acquire),
            crashes: live.crashes.load(Relaxed),
            crash_commit: live.crash_commit.load(Relaxed),
            kill_requested: live.kill_requested.load(Acquire) != 0,
            suspend_wanted: suspension::is_wanted(live),
            suspend_on: live.suspend_on.load(Relaxed),
            out_of_memory: death == Change::Killed(libc::SIGKILL)
                && self.victims.as_mut().is_some_and(Victims::grew),
            processor_used_up: limits.processor_used_up,
            image_at_limit: limits.image_at_limit,
            fruitless,
        };
        verdict::judge(&facts)
    }

    fn count_crashes(&self, crashes: u64) {
        self.live.crashes.store(crashes, Relaxed);
        self.live
            .crash_commit
            .store(self.live.published.load(Relaxed), Relaxed);
    }

    /// Closes what only the dead worker used.
    fn close_dead(&self) {
        for place in [high_fd::PAGEMAP, high_fd::MEM, high_fd::SCRATCH] {
            descriptors::close(self.reservation.number(place));
        }
    }

    /// Leaves in Rio what the dead worker had read and written, so that the
    /// next one can settle the call that was under way, however often it dies
    /// over it.
    fn note_counts(&self, counted: Option<(u64, u64)>) {
        let generation = self.live.generation.load(Relaxed);
        if self.live.dead_generation.load(Relaxed) == generation {
            return;
        }
        if let Some((rchar, wchar)) = counted {
            self.live.dead_rchar.store(rchar, Relaxed);
            self.live.dead_wchar.store(wchar, Relaxed);
            self.live.dead_generation.store(generation, Release);
        }
    }

    fn begin_recovery(&self, since_ns: u64) {
        let live = &self.live;
        live.recovery_begin_ns.store(since_ns, Relaxed);
        let nth = live.recoveries.fetch_add(1, Relaxed) + 1;
        live.recovery_ns[nth as usize % live.recovery_ns.len()].store(0, Relaxed);
        live.status.store(Status::Recovering as u32, Release);
    }

    /// Makes image and descriptor table as they were before the first worker.
    fn start_over(&self, died_ns: u64) -> Outcome<()> {
        forget_all(&self.image, &self.record.image, &self.live)?;
        let live = &self.live;
        self.begin_recovery(died_ns);
        live.status.store(Status::New as u32, Release);
        let mut next = 0;
        for &number in &self.inherited {
            descriptors::close_range(next, number - 1);
            next = number + 1;
        }
        descriptors::close_range(next, self.reservation.fd_base - 1);
        let deferred = self.reservation.number(high_fd::DEFERRED);
        descriptors::close_range(deferred, deferred + high_fd::DEFERRED_COUNT - 1);
        Ok(())
    }

    /// The exit status, if the program had ended when its keeper died.
    pub fn had_ended(&mut self) -> Option<u8> {
        let died = Change::Killed(libc::SIGKILL);
        match self.judge(true, died, AtLimits::default(), 0) {
            Verdict::Finished(status) => Some(status),
            _ => None,
        }
    }
}

/// Empties an image of which nothing was ever committed: what its first interval has left there
/// is of no use.
pub fn forget_all(image: &File, path: &Path, live: &SharedLive) -> Outcome<()> {
    image::empty(image)?;
    for counter in [&live.journal, &live.journal_durable] {
        counter.store(0, Relaxed);
    }
    image::remove_beside(path);
    live.input.end();
    live.output.end();
    Ok(())
}

/// `rchar` and `wchar` of a worker that is dead and not yet reaped.
fn read_io(counters: RawFd) -> Option<(u64, u64)> {
    parse_io(descriptors::read_start(counters, &mut [0; 512])?)
}

fn parse_io(text: &str) -> Option<(u64, u64)> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))?
            .trim()
            .parse::<u64>()
            .ok()
    };
    Some((value("rchar:")?, value("wchar:")?))
}

/// The fault that the next worker gets, which then is used up. A fault of
/// recovery waits for a worker that recovers.
fn take_fault(fault: &mut u32, mode: Mode) -> u32 {
    if *fault == fault::IN_RECOVERY && mode == Mode::Fresh {
        return fault::NONE;
    }
    std::mem::replace(fault, fault::NONE)
}

pub fn cause(death: Change) -> String {
    match death {
        Change::Killed(signal) | Change::Stopped(signal) => {
            let name = nix::sys::signal::Signal::try_from(signal)
                .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
            format!("the program died by {name}")
        }
        Change::Exited(status) => format!("the worker exited with {status}"),
        Change::Continued => "the program was continued".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_counters_of_a_zombie() {
        let text = "rchar: 12\nwchar: 7\nsyscr: 3\nsyscw: 1\nread_bytes: 0\n";
        assert_eq!(parse_io(text), Some((12, 7)));
        assert_eq!(parse_io("rchar: 12\n"), None);
    }

    #[test]
    fn a_fault_fires_in_one_worker_only() {
        let mut fault = fault::AFTER_READ;
        assert_eq!(take_fault(&mut fault, Mode::Fresh), fault::AFTER_READ);
        assert_eq!(take_fault(&mut fault, Mode::Warm), fault::NONE);
        let mut fault = fault::IN_RECOVERY;
        assert_eq!(take_fault(&mut fault, Mode::Fresh), fault::NONE);
        assert_eq!(take_fault(&mut fault, Mode::Warm), fault::IN_RECOVERY);
        assert_eq!(take_fault(&mut fault, Mode::Warm), fault::NONE);
    }
}
