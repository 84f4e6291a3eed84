//! What lay in a terminal of the run's own at its last commit, put into a new one.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use dc_image::terminal::{Inside, Step, steps};

use crate::machine::terminal::{self, Termios, termios};

/// Where the place of an entry has what was printed, and what led to what was typed.
pub struct Contents<'a> {
    pub inside: Inside,
    pub printed: &'a [u8],
    pub steps: &'a [u8],
    /// How it was set.
    pub termios: Termios,
}

/// A new terminal that is to hold what the old one held.
struct Filled {
    master: RawFd,
    slave: Option<std::os::fd::OwnedFd>,
}

/// Fills a new terminal. False if it does not come to hold what the old one did.
pub fn fill(master: RawFd, contents: &Contents) -> bool {
    let opened = contents.inside.opened;
    terminal::let_wait(master, false);
    let slave = opened.then(|| terminal::other_end(master).ok()).flatten();
    let is_there = slave.is_some() == opened;
    let new = Filled { master, slave };
    // In the order in which it came to be. What it echoes was printed then, and is kept as such,
    // unless nobody had it open.
    let typed = steps(contents.steps).all(|step| new.make(&step));
    new.settle();
    let printed = new.print(contents);
    terminal::let_wait(master, true);
    is_there && typed && printed && !contents.inside.is_lost
}

impl Filled {
    fn slave(&self) -> RawFd {
        self.slave.as_ref().map_or(self.master, AsRawFd::as_raw_fd)
    }

    fn make(&self, step: &Step) -> bool {
        match step {
            Step::Typed(bytes) => self.type_all(bytes),
            Step::Set(bytes) => {
                self.settle();
                terminal::set(self.slave(), &termios(bytes));
                true
            }
            Step::Read(n) => {
                self.settle();
                let mut bytes = vec![0; *n.max(&1)];
                let got = terminal::read_now(self.slave(), &mut bytes);
                // (No bytes: the end of input, which is there or waited for in vain.)
                got.map_or(*n == 0, |got| got == *n)
            }
            Step::Flushed(what) => {
                self.settle();
                terminal::flush(self.slave(), *what);
                true
            }
        }
    }

    /// Until the kernel has processed what was typed. (Where a line is there already it tells
    /// nobody whether it has: it is done within microseconds.)
    fn settle(&self) {
        if self.slave.is_some() && terminal::is_ready(self.slave())[0] {
            std::thread::sleep(Duration::from_millis(2));
        }
        if self.slave.is_some() {
            self.drain();
        }
    }

    fn type_all(&self, bytes: &[u8]) -> bool {
        self.put(self.master, bytes, 256)
    }

    /// Writes all; what is echoed must not be in the way.
    fn put(&self, to: RawFd, mut bytes: &[u8], most: usize) -> bool {
        const PATIENCE: u32 = 500;
        let mut tries = 0;
        while !bytes.is_empty() {
            // (The last part is larger, as in the runtime: then it fits that did before.)
            let part = match bytes.len() > 2048 {
                true => most.min(bytes.len()),
                false => bytes.len(),
            };
            let n = terminal::write_now(to, &bytes[..part]);
            bytes = &bytes[n..];
            tries = if n > 0 { 0 } else { tries + 1 };
            if tries > PATIENCE {
                return false;
            }
            if n == 0 {
                if to == self.master {
                    self.drain();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        true
    }

    /// Takes out what was echoed.
    fn drain(&self) {
        let mut bytes = [0; 4096];
        while terminal::read_now(self.master, &mut bytes).is_ok_and(|n| n > 0) {}
    }

    /// What was printed, as it is; then the terminal is set as it was.
    fn print(&self, contents: &Contents) -> bool {
        const OPOST: u8 = 1;
        let settings = contents.termios;
        if self.slave.is_none() {
            terminal::set(self.master, &settings);
            return contents.printed.is_empty();
        }
        let mut plain = settings;
        plain[4] &= !OPOST;
        terminal::start(self.slave());
        terminal::set(self.slave(), &plain);
        let done = self.put(self.slave(), contents.printed, 256);
        if contents.inside.is_stopped {
            self.stop(&plain);
        }
        terminal::set(self.slave(), &settings);
        done
    }

    /// Printing waits from now on, as after ^S.
    fn stop(&self, plain: &Termios) {
        const IXON: u32 = 0x400;
        const STOP: u8 = 0x13;
        let mut listens = *plain;
        listens[..4].copy_from_slice(&IXON.to_le_bytes());
        listens[17 + 9] = STOP;
        terminal::set(self.slave(), &listens);
        terminal::write_now(self.master, &[STOP]);
        for _ in 0..100 {
            if !terminal::is_ready(self.slave())[1] {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
