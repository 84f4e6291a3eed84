//! What a death of the worker means. A pure function, so that every case can
//! be tested without a process.
//!
//! A program that is told to die dies: SIGTERM and its like end the run. What
//! no program asks for (kill -9, a crash, the OOM killer) is recovered. Three
//! crashes in a row from the same commit are a crash that recovery does not
//! mend; a kill -9 from outside is none of the program's and does not count.
//! What the kernel does for a limit of resources (setrlimit(2)) is the program's
//! own end, as it would be natively, but where it was the image that met it.

use dc_image::FatalCode;

use crate::fruitless;
use crate::machine::process::Change;
use crate::tree::RUNTIMES_OWN;

/// After so many crashes from one commit the program is not started again.
pub const CRASH_LIMIT: u64 = 3;

/// What is known about a death.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub death: Change,
    /// The runtime said before that the program is done.
    pub done: bool,
    pub exit_code: u32,
    pub exit_signal: u32,
    pub fatal: u32,
    pub published: u64,
    /// Crashes in a row, and the commit they started from, before this one.
    pub crashes: u64,
    pub crash_commit: u64,
    /// `dcrun kill` asked for this death.
    pub kill_requested: bool,
    /// The run is to be suspended; and the signals that ask for it, as a mask.
    pub suspend_wanted: bool,
    pub suspend_on: u64,
    /// The kernel's OOM killer was at work since the worker was started.
    pub out_of_memory: bool,
    /// The worker had used up the processor time of its hard limit, at which the
    /// kernel sends SIGKILL.
    pub processor_used_up: bool,
    /// The image could not grow under the worker's limit of file sizes.
    pub image_at_limit: bool,
    /// Workers in a row that died before their program ran, with this one.
    pub fruitless: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The program has ended; its exit status.
    Finished(u8),
    /// A signal told the program to end; its exit status.
    ToldToDie(u8),
    /// Start a worker at the last commit; this many crashes in a row now.
    Recover { crashes: u64 },
    /// The same, but nothing was committed: start the program again.
    StartOver { crashes: u64 },
    /// Crashed too often from one commit.
    CrashLoop { signal: i32, crashes: u64 },
    /// The image met the limit of file sizes.
    ImageAtLimit,
    /// `dcrun kill`.
    Killed,
    /// `dcrun suspend`, or a signal that means the same.
    Suspended,
    /// The runtime gave up, and said why.
    GaveUp(u8),
    /// The worker exited, and nobody said why.
    Vanished(i32),
}

pub fn judge(facts: &Facts) -> Verdict {
    if facts.done {
        return Verdict::Finished(of_ended(facts.exit_code, facts.exit_signal));
    }
    if facts.fatal != FatalCode::None as u32 {
        let cannot_load = facts.fatal == FatalCode::CannotLoad as u32;
        let told = matches!(facts.exit_code, 126 | 127);
        return Verdict::GaveUp(if cannot_load && told {
            facts.exit_code as u8
        } else {
            125
        });
    }
    let signal = match facts.death {
        Change::Exited(status) => return Verdict::Vanished(status),
        Change::Killed(signal) | Change::Stopped(signal) => signal,
        // No death.
        Change::Continued => return Verdict::Vanished(0),
    };
    if facts.kill_requested && signal == libc::SIGKILL {
        return Verdict::Killed;
    }
    if facts.suspend_wanted && ends_suspended(signal, facts.suspend_on) {
        return Verdict::Suspended;
    }
    if signal == libc::SIGXFSZ && facts.image_at_limit {
        return Verdict::ImageAtLimit;
    }
    if !is_crash(signal) || (signal == libc::SIGKILL && facts.processor_used_up) {
        return Verdict::ToldToDie(by_signal(signal));
    }
    if facts.fruitless >= fruitless::LIMIT {
        return Verdict::CrashLoop {
            signal,
            crashes: facts.fruitless,
        };
    }
    let before = if facts.crash_commit == facts.published {
        facts.crashes
    } else {
        0
    };
    let own_fault = signal != libc::SIGKILL || facts.out_of_memory;
    let crashes = before + u64::from(own_fault);
    if own_fault && crashes >= CRASH_LIMIT {
        Verdict::CrashLoop { signal, crashes }
    } else if facts.published == 0 {
        Verdict::StartOver { crashes }
    } else {
        Verdict::Recover { crashes }
    }
}

/// What a worker of a run that is to be suspended dies of: the keeper has killed it, or one of
/// these signals came before its runtime was told of them.
fn ends_suspended(signal: i32, suspend_on: u64) -> bool {
    matches!(signal, libc::SIGKILL | RUNTIMES_OWN)
        || (1..32).contains(&signal) && suspend_on >> (signal - 1) & 1 != 0
}

/// Exit status of a program that has ended, with a code or by a signal.
pub fn of_ended(code: u32, signal: u32) -> u8 {
    match signal {
        0 => code as u8,
        signal => by_signal(signal as i32),
    }
}

/// Exit status of a program that a signal ended.
pub fn by_signal(signal: i32) -> u8 {
    128u8.wrapping_add(signal as u8)
}

fn is_crash(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGKILL
            | libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGILL
            | libc::SIGFPE
            | libc::SIGABRT
            | libc::SIGSYS
            | libc::SIGTRAP
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Facts = Facts {
        death: Change::Killed(libc::SIGKILL),
        done: false,
        exit_code: 0,
        exit_signal: 0,
        fatal: 0,
        published: 7,
        crashes: 0,
        crash_commit: 0,
        kill_requested: false,
        suspend_wanted: false,
        suspend_on: 0,
        out_of_memory: false,
        processor_used_up: false,
        image_at_limit: false,
        fruitless: 0,
    };

    fn by(signal: i32) -> Facts {
        Facts {
            death: Change::Killed(signal),
            ..KILLED
        }
    }

    #[test]
    fn the_programs_own_end_comes_first() {
        let done = Facts {
            done: true,
            exit_code: 3,
            ..KILLED
        };
        assert_eq!(
            judge(&done),
            Verdict::Finished(3),
            "killed after it was done"
        );
        assert_eq!(
            judge(&Facts {
                exit_signal: 15,
                ..done
            }),
            Verdict::Finished(143)
        );
    }

    #[test]
    fn kills_and_crashes_are_recovered() {
        assert_eq!(judge(&KILLED), Verdict::Recover { crashes: 0 });
        for signal in [4, 5, 6, 7, 8, 11, 31] {
            assert_eq!(
                judge(&by(signal)),
                Verdict::Recover { crashes: 1 },
                "signal {signal}"
            );
        }
        let early = Facts {
            published: 0,
            ..by(libc::SIGSEGV)
        };
        assert_eq!(judge(&early), Verdict::StartOver { crashes: 1 });
    }

    #[test]
    fn who_is_told_to_die_dies() {
        for signal in [1, 2, 3, 10, 12, 13, 14, 15, 24, 25, 34] {
            assert_eq!(judge(&by(signal)), Verdict::ToldToDie(128 + signal as u8));
        }
        assert_eq!(
            judge(&Facts {
                kill_requested: true,
                ..KILLED
            }),
            Verdict::Killed
        );
    }

    #[test]
    fn a_run_that_is_to_be_suspended_is_no_failure() {
        let wanted = |signal| Facts {
            suspend_wanted: true,
            suspend_on: 1 << (libc::SIGTERM - 1),
            ..by(signal)
        };
        for signal in [libc::SIGKILL, libc::SIGTERM, RUNTIMES_OWN] {
            assert_eq!(judge(&wanted(signal)), Verdict::Suspended, "{signal}");
        }
        assert_eq!(judge(&wanted(libc::SIGHUP)), Verdict::ToldToDie(129));
        assert_eq!(
            judge(&wanted(libc::SIGSEGV)),
            Verdict::Recover { crashes: 1 }
        );
        let killed = Facts {
            kill_requested: true,
            ..wanted(libc::SIGKILL)
        };
        assert_eq!(judge(&killed), Verdict::Killed, "the later word counts");
        let done = Facts {
            done: true,
            ..wanted(libc::SIGKILL)
        };
        assert_eq!(judge(&done), Verdict::Finished(0));
    }

    #[test]
    fn the_third_crash_from_one_commit_is_the_last() {
        let crash = |crashes, crash_commit, published| {
            judge(&Facts {
                crashes,
                crash_commit,
                published,
                ..by(libc::SIGSEGV)
            })
        };
        assert_eq!(crash(1, 7, 7), Verdict::Recover { crashes: 2 });
        assert_eq!(
            crash(2, 7, 7),
            Verdict::CrashLoop {
                signal: 11,
                crashes: 3
            }
        );
        assert_eq!(
            crash(2, 6, 7),
            Verdict::Recover { crashes: 1 },
            "it had gone on"
        );
        assert_eq!(
            crash(2, 0, 0),
            Verdict::CrashLoop {
                signal: 11,
                crashes: 3
            }
        );
    }

    #[test]
    fn kills_from_outside_do_not_count_but_lack_of_memory_does() {
        let killed = Facts {
            crashes: 2,
            crash_commit: 7,
            ..KILLED
        };
        assert_eq!(judge(&killed), Verdict::Recover { crashes: 2 });
        let starved = Facts {
            out_of_memory: true,
            ..killed
        };
        assert_eq!(
            judge(&starved),
            Verdict::CrashLoop {
                signal: 9,
                crashes: 3
            }
        );
    }

    #[test]
    fn limits_end_a_program_as_natively() {
        let used_up = Facts {
            processor_used_up: true,
            ..KILLED
        };
        assert_eq!(judge(&used_up), Verdict::ToldToDie(137));
        let crashed = Facts {
            processor_used_up: true,
            ..by(libc::SIGSEGV)
        };
        assert_eq!(judge(&crashed), Verdict::Recover { crashes: 1 });
        let at_limit = Facts {
            image_at_limit: true,
            ..by(libc::SIGXFSZ)
        };
        assert_eq!(judge(&at_limit), Verdict::ImageAtLimit);
        assert_eq!(
            judge(&by(libc::SIGXFSZ)),
            Verdict::ToldToDie(153),
            "a file of its own"
        );
    }

    #[test]
    fn workers_that_never_run_are_no_endless_loop() {
        let killed = |fruitless| {
            judge(&Facts {
                fruitless,
                ..KILLED
            })
        };
        assert_eq!(
            killed(fruitless::LIMIT - 1),
            Verdict::Recover { crashes: 0 }
        );
        assert_eq!(
            killed(fruitless::LIMIT),
            Verdict::CrashLoop {
                signal: 9,
                crashes: fruitless::LIMIT
            }
        );
    }

    #[test]
    fn the_runtime_is_believed() {
        let full = Facts {
            fatal: FatalCode::RioFull as u32,
            ..KILLED
        };
        assert_eq!(judge(&full), Verdict::GaveUp(125));
        let load = Facts {
            fatal: FatalCode::CannotLoad as u32,
            exit_code: 126,
            ..KILLED
        };
        assert_eq!(judge(&load), Verdict::GaveUp(126));
        let silent = Facts {
            death: Change::Exited(0),
            ..KILLED
        };
        assert_eq!(judge(&silent), Verdict::Vanished(0));
    }
}
