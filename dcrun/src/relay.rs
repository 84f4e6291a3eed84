//! Signals between dcrun and its program: to whoever sends one, dcrun is the
//! program.

use crate::machine::signals::{self, Arrived};

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

/// Signals that came when there was no worker: the next one gets them. It has
/// all of them blocked until the program's handlers are in place again.
#[derive(Default)]
pub struct Missed {
    /// Bit N stands for signal N.
    numbers: u128,
}

impl Missed {
    /// What had arrived until the worker `dead` was reaped: those of the
    /// terminal it had got itself.
    pub fn while_it_died(dead: i32) -> Missed {
        let mut numbers = 0;
        while let Some(arrived) = signals::poll() {
            if is_for_program(&arrived, dead) {
                numbers |= 1 << arrived.number;
            }
        }
        Missed { numbers }
    }

    /// Sends these, and what arrived since, to the new worker.
    pub fn pass_on(&mut self, pid: i32) {
        const TERMINALS: [i32; 5] = [
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTSTP,
            libc::SIGWINCH,
            libc::SIGHUP,
        ];
        while let Some(arrived) = signals::poll() {
            if is_for_program(&arrived, pid) || TERMINALS.contains(&arrived.number) {
                self.numbers |= 1 << arrived.number;
            }
        }
        for number in (1..=64).filter(|number| self.numbers >> number & 1 != 0) {
            signals::send(pid, number);
        }
        self.numbers = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_to_the_keeper_alone_is_passed_on() {
        let arrived = |number, by_process, sender| Arrived {
            number,
            by_process,
            sender,
        };
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
