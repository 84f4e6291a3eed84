//! Signals between dcrun and its program: to whoever sends one, dcrun is the
//! program.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use dc_image::count::Count;
use dc_image::header::Live;

use crate::addressee::{Addressee, Sent};
use crate::apart;
use crate::machine::process;
use crate::machine::shared::SharedLive;
use crate::machine::signals::{self, Arrived};
use crate::suspension;

const TERMINALS: [i32; 5] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTSTP,
    libc::SIGWINCH,
    libc::SIGHUP,
];

/// Signals that somebody sends to dcrun but means for the program. One of the
/// terminal went to the whole group, and so to the worker as well.
pub fn is_for_program(arrived: &Arrived, worker: i32) -> bool {
    const KEEPERS_OWN: [i32; 5] = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGPIPE,
    ];
    arrived.by_process && arrived.sender != worker && !KEEPERS_OWN.contains(&arrived.number)
}

/// The next signal that has arrived and does not ask for the run's suspension.
fn next(live: &Live) -> Option<Arrived> {
    loop {
        let arrived = signals::poll()?;
        if !suspension::is_asked_by(&arrived, live) {
            return Some(arrived);
        }
    }
}

/// Signals that came when there was no worker: the next one gets them.
#[derive(Default)]
pub struct Missed {
    /// Bit N stands for signal N.
    numbers: u128,
}

impl Missed {
    /// What others send, and the program or its timers do not send again when
    /// they start over from the commit.
    const OTHERS_SEND: u128 = 1 << libc::SIGINT
        | 1 << libc::SIGQUIT
        | 1 << libc::SIGWINCH
        | 1 << libc::SIGHUP
        | 1 << libc::SIGTERM;
    /// What the program may send itself, or may not: `Live::signals_own`.
    const OTHERS_MAY_SEND: u128 =
        1 << libc::SIGUSR1 | 1 << libc::SIGUSR2 | 1 << libc::SIGSTKFLT | 1 << libc::SIGPWR;

    /// What had arrived until the worker `dead` was reaped: what its keeper got
    /// alone, what the kernel still held for it, and what came from the terminal
    /// when it was dead already, which the kernel drops.
    pub fn while_it_died(
        live: &SharedLive,
        dead: i32,
        pending: u64,
        copies: &mut Copies,
        addressee: &mut Addressee,
    ) -> Missed {
        let own = u128::from(live.signals_own.load(SeqCst)) << 1;
        let suspend = u128::from(live.suspend_on.load(Relaxed)) << 1;
        let others_send = Missed::OTHERS_SEND | Missed::OTHERS_MAY_SEND & !own;
        let pending = u128::from(pending) << 1;
        let mut numbers = pending & others_send & !suspend;
        if let Some(number) = (1..32).find(|n| (pending & suspend & !own) >> n & 1 != 0) {
            live.suspend_wanted.store(number, SeqCst);
        }
        let mut for_program = Vec::new();
        while let Some(arrived) = next(live) {
            if is_for_program(&arrived, dead) {
                for_program.push(Sent::from(&arrived));
            } else {
                copies.arrived(&arrived);
            }
        }
        numbers |= addressee.lost(&for_program, live);
        numbers |= copies.without_original(&live.first().signals_taken);
        Missed { numbers }
    }

    /// Leaves them where the worker that is about to recover finds them, and puts
    /// them in with those that it brings back. Sent, one might come when the program
    /// has had its like already.
    pub fn leave(&mut self, live: &Live, copies: &mut Copies) {
        while let Some(arrived) = next(live) {
            if is_for_program(&arrived, 0) || TERMINALS.contains(&arrived.number) {
                self.numbers |= 1 << arrived.number;
            }
        }
        live.signals_missed
            .fetch_or((self.numbers >> 1) as u64, SeqCst);
        for number in (1..=64).filter(|number| self.numbers >> number & 1 != 0) {
            copies.sent(number);
        }
        self.numbers = 0;
    }

    /// Sends these, and what arrived since, to the new worker. It has all signals
    /// blocked until the program's handlers are in place.
    pub fn pass_on(
        &mut self,
        pid: i32,
        live: &Live,
        copies: &mut Copies,
        addressee: &mut Addressee,
    ) {
        while let Some(arrived) = next(live) {
            if Copies::COUNTED.contains(&arrived.number) && !arrived.by_process {
                // It came before the worker was there, or the worker has its own.
                copies.arrived(&arrived);
                copies.doubtful |= 1 << arrived.number;
            } else if is_for_program(&arrived, pid) || TERMINALS.contains(&arrived.number) {
                self.numbers |= 1 << arrived.number;
            }
        }
        for number in (1..=64).filter(|number| self.numbers >> number & 1 != 0) {
            signals::send(pid, number);
            addressee.was_passed(number);
            copies.sent(number);
        }
        self.numbers = 0;
    }
}

/// `Live::signals_taken`.
type Taken = [Count; 32];

/// The keeper's copies of signals that the terminal sent to the whole group.
///
/// A worker that was killed just before has not got its own: the keeper has one
/// more than the worker's runtime took from the kernel (`Live::signals_taken`).
/// The two are compared over moments only, since a signal that the program
/// ignores or blocks is never taken.
#[derive(Default)]
pub struct Copies {
    arrived: [u32; 32],
    /// What the worker had taken when the terminal was last quiet.
    taken: [u32; 32],
    /// Those that came when the worker was being started: bit N stands for signal N.
    doubtful: u128,
}

impl Copies {
    /// So long after a signal of the terminal the worker has taken its own.
    pub const SETTLED: Duration = Duration::from_millis(50);
    /// On a busy machine it may take more of those, but so many at the most: a worker that is
    /// stopped takes nothing.
    pub const LONGEST: u32 = 40;

    const COUNTED: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGWINCH, libc::SIGHUP];

    pub fn arrived(&mut self, arrived: &Arrived) {
        if !arrived.by_process {
            self.sent(arrived.number);
        }
    }

    /// What the keeper sends the worker takes as well.
    pub fn sent(&mut self, number: i32) {
        if Copies::COUNTED.contains(&number) {
            self.arrived[number as usize] += 1;
        }
    }

    /// Whether there is something to compare.
    pub fn any(&self) -> bool {
        self.arrived.iter().any(|&count| count != 0)
    }

    /// Whether the worker has yet to take one of them.
    pub fn on_their_way(&self, worker: i32) -> bool {
        let pending = u128::from(apart::look(move || process::signals_on_their_way(worker))) << 1;
        Copies::COUNTED
            .iter()
            .any(|&number| self.arrived[number as usize] != 0 && pending >> number & 1 != 0)
    }

    /// Nothing came for a while: the worker has whatever came before.
    pub fn settle(&mut self, taken: &Taken) {
        self.arrived = [0; 32];
        self.taken = taken.each_ref().map(|counter| counter.load(Relaxed));
    }

    /// Nothing came for a while after the worker was started: it has taken its own of
    /// what came just then, or has none, and gets the keeper's.
    pub fn send_lost(&mut self, pid: i32, taken: &Taken) {
        let lost = self.lost(taken);
        for number in (1..32).filter(|number| lost >> number & 1 != 0) {
            signals::send(pid, number);
        }
        self.doubtful = 0;
    }

    fn lost(&self, taken: &Taken) -> u128 {
        self.doubtful & self.without_original(taken)
    }

    fn without_original(&self, taken: &Taken) -> u128 {
        (1..32)
            .filter(|&number| {
                let taken = taken[number].load(Relaxed);
                self.arrived[number] > taken.wrapping_sub(self.taken[number])
            })
            .fold(0, |numbers, number| numbers | 1 << number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_without_original_is_missed() {
        // SAFETY: Live is plain data of which any bits are valid.
        let taken = Taken::default();
        let interrupt = Arrived::new(libc::SIGINT, false, 0);
        let mut copies = Copies::default();
        copies.settle(&taken);
        assert!(!copies.any());
        copies.arrived(&interrupt);
        assert!(copies.any());
        assert_eq!(copies.without_original(&taken), 1 << libc::SIGINT);
        taken[libc::SIGINT as usize].store(1, Relaxed);
        assert_eq!(copies.without_original(&taken), 0);
        copies.arrived(&interrupt);
        assert_eq!(copies.without_original(&taken), 1 << libc::SIGINT);
        copies.settle(&taken);
        assert_eq!(copies.without_original(&taken), 0);
    }

    #[test]
    fn a_copy_that_came_with_the_worker_is_lost_unless_it_was_taken() {
        let taken = Taken::default();
        let mut copies = Copies::default();
        copies.settle(&taken);
        copies.sent(libc::SIGINT);
        copies.doubtful = 1 << libc::SIGINT;
        assert_eq!(copies.lost(&taken), 1 << libc::SIGINT);
        taken[libc::SIGINT as usize].store(1, Relaxed);
        assert_eq!(copies.lost(&taken), 0);
    }

    #[test]
    fn only_what_was_sent_to_the_keeper_alone_is_passed_on() {
        let arrived = Arrived::new;
        assert!(is_for_program(&arrived(libc::SIGTERM, true, 7), 100));
        assert!(
            !is_for_program(&arrived(libc::SIGINT, false, 0), 100),
            "of the terminal"
        );
        assert!(
            !is_for_program(&arrived(libc::SIGTERM, true, 100), 100),
            "of the program"
        );
        assert!(!is_for_program(&arrived(libc::SIGCHLD, true, 7), 100));
    }
}
