//! Whether a program waits for its user, as the kernel tells it.
//!
//! A terminal does not say when a key was dealt with. /proc does: the program has
//! read something since the key was pressed, sleeps in a call that waits for
//! input, and its terminal has none. A program that sleeps for another reason,
//! such as a disk, sleeps in another call. (How often it was scheduled would not
//! do: a key that comes while it is about to sleep finds it awake.)

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::failure::{Doing, Failure, Outcome};

pub struct Waiting {
    io: File,
    call: File,
    state: File,
    terminal: OwnedFd,
}

/// read, poll, select, epoll_wait, pselect6, ppoll, epoll_pwait
const WAITS: [&str; 7] = ["0", "7", "23", "232", "270", "271", "281"];

impl Waiting {
    /// Of the process with that pid, at the other end of whose terminal `terminal` is.
    pub fn of(pid: Pid, terminal: OwnedFd) -> Outcome<Waiting> {
        let open = |what| {
            let path = format!("/proc/{pid}/{what}");
            File::open(&path).doing(|| format!("open {path}"))
        };
        Ok(Waiting {
            io: open("io")?,
            call: open("syscall")?,
            state: open("stat")?,
            terminal,
        })
    }

    /// How many calls that read it has made.
    pub fn reads(&self) -> u64 {
        let counts = text(&self.io).unwrap_or_default();
        let count = counts.lines().find_map(|line| line.strip_prefix("syscr: "));
        count.and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// Waits until it has read since `before` and waits again; false if it ended.
    pub fn until_it_waits(&self, before: u64, patience: Instant) -> Outcome<bool> {
        loop {
            let Some(call) = text(&self.call) else {
                return Ok(false);
            };
            let number = call.split_whitespace().next().unwrap_or_default();
            if number == "-1" && self.is_dead() {
                return Ok(false);
            }
            // Of a file it may read as well, and sleep.
            let reads_a_file = number == "0" && !call.starts_with("0 0x0 ");
            if WAITS.contains(&number)
                && !reads_a_file
                && !self.has_input()
                && self.reads() > before
            {
                return Ok(true);
            }
            if Instant::now() > patience {
                return Err(Failure::new(format!(
                    "the program does not come to wait for a key (it is in call {call:?}, has read {} times)",
                    self.reads() - before
                )));
            }
            std::thread::yield_now();
        }
    }

    fn is_dead(&self) -> bool {
        let state = text(&self.state);
        state.is_none_or(|it| it.contains(") Z ") || it.contains(") X "))
    }

    fn has_input(&self) -> bool {
        let mut fds = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }
}

/// None: the process is gone.
fn text(file: &File) -> Option<String> {
    let mut bytes = [0; 256];
    let n = file.read_at(&mut bytes, 0).ok()?;
    match n {
        0 => None,
        n => Some(String::from_utf8_lossy(&bytes[..n]).into_owned()),
    }
}
