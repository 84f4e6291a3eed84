//! The watch over a worker: start it, wait, decide, start the next one.
//!
//! While a worker lives nothing is opened, and nothing is allocated between a
//! death and the next start but what the kernel does.

use std::fs::File;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use dc_image::boot::{Mode, fault, high_fd};
use dc_image::header::UNCOUNTED;
use dc_image::{FatalCode, Status};

use crate::image;
use crate::machine::process::{self, Change};
use crate::machine::shared::SharedLive;
use crate::machine::signals;
use crate::machine::{descriptors, terminal};
use crate::message::{OWN_FAULT, Outcome, say};
use crate::ps::State;
use crate::record::Record;
use crate::relay::{Copies, Missed, is_for_program};
use crate::remains::Remains;
use crate::reserve::Reservation;
use crate::run_directory::RunDirectory;
use crate::stats;
use crate::verdict::{self, Facts, Verdict};
use crate::victims::Victims;
use crate::worker::{Start, Starter};

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
}

impl Keeper {
    /// Runs the program to its end; returns the exit status of dcrun.
    pub fn keep(mut self, mode: Mode) -> Outcome<u8> {
        let mut start = Start {
            mode,
            pid: self.live.program_pid.load(Relaxed) as i32,
            fault: take_fault(&mut self.fault, mode),
        };
        if mode == Mode::Fresh {
            start.pid = 0;
        } else {
            self.begin_recovery(process::monotonic_ns());
        }
        // If all died at once, nobody has counted what the last worker did; the
        // counts of the next one must not be taken for its.
        self.note_counts(Some((UNCOUNTED, UNCOUNTED)));
        let mut missed = Missed::default();
        loop {
            let mut copies = Copies::default();
            copies.settle(&self.live.signals_taken);
            if start.mode != Mode::Fresh {
                missed.leave(&self.live, &mut copies);
            }
            let pid = self.starter.start(start)?;
            missed.pass_on(pid, &mut copies);
            self.live.worker_pid.store(pid as u32, Relaxed);
            if start.pid == 0 {
                self.live.program_pid.store(pid as u32, Relaxed);
            }
            let death = self.watch(pid, &mut copies);
            let died_ns = process::monotonic_ns();
            self.note_counts(read_io(self.starter.plan.counters));
            let pending = process::pending_signals(pid);
            process::reap(pid);
            let companion = self.live.companion_pid.swap(0, Relaxed) as i32;
            self.remains
                .bury(companion, self.reservation.number(high_fd::UFFD));
            missed = Missed::while_it_died(pid, pending, &mut copies, &self.live.signals_taken);
            self.live.worker_pid.store(0, Relaxed);
            let verdict = self.judge(death);
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
                    self.begin_recovery(died_ns);
                    if self.verbose {
                        self.tell(&format!(
                            "{}; going on from commit {}",
                            cause(death),
                            self.live.published.load(Relaxed)
                        ));
                    }
                    let fault = take_fault(&mut self.fault, Mode::Warm);
                    let pid = self.live.program_pid.load(Relaxed) as i32;
                    start = Start {
                        mode: Mode::Warm,
                        pid,
                        fault,
                    };
                }
                Verdict::StartOver { crashes } => {
                    self.count_crashes(crashes);
                    self.close_dead();
                    self.start_over(died_ns)?;
                    if self.verbose {
                        self.tell(&format!(
                            "{} before the first commit; starting again",
                            cause(death)
                        ));
                    }
                    let pid = self.live.program_pid.load(Relaxed) as i32;
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

    /// Waits until the worker is dead, passing on signals and stops meanwhile.
    fn watch(&mut self, pid: i32, copies: &mut Copies) -> Change {
        let mut known_stop = false;
        loop {
            if let Some(death) = process::peek_death(pid) {
                return death;
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
            match process::peek_any_death() {
                Some(dead) if dead == pid => continue,
                Some(orphan) => {
                    process::reap(orphan);
                    self.remains.reaped(orphan);
                    continue;
                }
                None => {}
            }
            let arrived = match copies.any() {
                false => Some(signals::wait()),
                true => signals::wait_for(Copies::SETTLED),
            };
            match arrived {
                Some(arrived) if is_for_program(&arrived, pid) => {
                    signals::send(pid, arrived.number);
                    copies.sent(arrived.number);
                }
                Some(arrived) => copies.arrived(&arrived),
                None => {
                    copies.send_lost(pid, &self.live.signals_taken);
                    copies.settle(&self.live.signals_taken);
                }
            }
        }
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

    fn judge(&mut self, death: Change) -> Verdict {
        let live = &self.live;
        let facts = Facts {
            death,
            done: live.status.load(Acquire) == Status::Done as u32,
            exit_code: live.exit_code.load(Relaxed),
            exit_signal: live.exit_signal.load(Relaxed),
            fatal: live.fatal.load(Acquire),
            published: live.published.load(Acquire),
            crashes: live.crashes.load(Relaxed),
            crash_commit: live.crash_commit.load(Relaxed),
            kill_requested: live.kill_requested.load(Acquire) != 0,
            out_of_memory: death == Change::Killed(libc::SIGKILL)
                && self.victims.as_mut().is_some_and(Victims::grew),
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
        image::empty(&self.image)?;
        let live = &self.live;
        for counter in [
            &live.journal,
            &live.journal_durable,
            &live.frame_limit,
            &live.rchar,
            &live.wchar,
            &live.frames_used,
        ] {
            counter.store(0, Relaxed);
        }
        for counter in &live.signals_taken {
            counter.store(0, Relaxed);
        }
        live.input.active.store(0, Relaxed);
        live.output.active.store(0, Relaxed);
        self.begin_recovery(died_ns);
        live.status.store(Status::New as u32, Release);
        let mut next = 0;
        for &number in &self.inherited {
            descriptors::close_range(next, number - 1);
            next = number + 1;
        }
        descriptors::close_range(next, self.reservation.fd_base - 1);
        let limbo = self.reservation.number(high_fd::LIMBO);
        descriptors::close_range(limbo, limbo + high_fd::LIMBO_COUNT - 1);
        Ok(())
    }

    /// The program has ended: its image is of no more use, its counters are.
    /// Whatever fails here, the program's status is what its caller waits for.
    pub fn finish(self, status: u8) -> Outcome<u8> {
        self.tell_notices();
        let mut counters = stats::counters(&self.record, &self.live);
        counters["state"] = State::Done.name().into();
        counters["exit_status"] = status.into();
        let tidied = self
            .run
            .write_done(&counters)
            .and(image::remove(&self.record.image));
        if let Err(failure) = tidied {
            say(&failure.to_string());
        }
        crate::run_directory::prune(&self.run.name);
        let run = self.run.clone();
        drop(self);
        run.told();
        Ok(status)
    }

    /// The exit status, if the program had ended when its keeper died.
    pub fn had_ended(&mut self) -> Option<u8> {
        match self.judge(Change::Killed(libc::SIGKILL)) {
            Verdict::Finished(status) => Some(status),
            _ => None,
        }
    }

    fn give_up(self, status: u8) -> Outcome<u8> {
        let code = self.live.fatal.load(Relaxed);
        let detail = self.live.fatal_detail.load(Relaxed);
        let text = self
            .live
            .message
            .split(|&b| b == 0)
            .next()
            .unwrap_or_default();
        let mut text = String::from_utf8_lossy(text).into_owned();
        if text.is_empty() {
            text = "the runtime gave up without a message".to_owned();
        }
        if code == FatalCode::Internal as u32 && detail != 0 {
            let cause = std::io::Error::from_raw_os_error(detail as i32);
            text = format!("{text}: {cause}");
        }
        let name = &self.run.name;
        if code == FatalCode::CannotLoad as u32 {
            // Nothing ran, so there is nothing to resume.
            self.tell(&text);
            image::remove(&self.record.image)?;
            self.run.remove()?;
            return Ok(status);
        }
        let published = self.live.published.load(Relaxed);
        let remedy = if published == 0 {
            format!("nothing was committed yet; `dcrun rm {name}` removes the run")
        } else if code == FatalCode::RioFull as u32 {
            format!(
                "the run is stopped at commit {published}; make room where its image lies ({}), \
                 then `dcrun resume {name}`",
                self.record.image.display()
            )
        } else if code == FatalCode::Conflict as u32 {
            format!(
                "the run is stopped at commit {published}; `dcrun resume {name} --keep theirs` \
                 leaves that as it is, `--keep ours` undoes the program's change all the same"
            )
        } else {
            format!(
                "the run is stopped at commit {published}; `dcrun resume {name}` tries again, \
                 --fresh starts over"
            )
        };
        self.stop(&format!("{text}; {remedy}"));
        Ok(status)
    }

    fn stop_for_crashes(self, signal: i32, crashes: u64) -> Outcome<u8> {
        let name = &self.run.name;
        self.stop(&format!(
            "{} {crashes} times from commit {}, so it is not started again; the same command \
             line with --fresh goes back to the beginning, `dcrun resume {name}` tries to go on",
            cause(Change::Killed(signal)),
            self.live.published.load(Relaxed)
        ));
        Ok(verdict::by_signal(signal))
    }

    /// The run stays at its last commit, and its user gets the terminal back.
    fn stop(&self, why: &str) {
        self.live.status.store(Status::Stopped as u32, Relaxed);
        if let Some(settings) = &self.terminal {
            terminal::put_back(settings);
        }
        self.tell_notices();
        self.tell(why);
    }

    /// What the runtime did not want to say in the middle of the program's screen.
    fn tell_notices(&self) {
        for notice in image::take_notices(&self.image) {
            say(&notice);
        }
    }

    fn tell(&self, text: &str) {
        say(&format!("{}: {text}", self.run.name));
    }
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

fn cause(death: Change) -> String {
    match death {
        Change::Killed(signal) | Change::Stopped(signal) => {
            let name = nix::sys::signal::Signal::try_from(signal)
                .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
            format!("the program died by {name}")
        }
        Change::Exited(status) => format!("the worker exited with {status}"),
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
