//! What is left of dead workers: their memory, with the companion that holds it
//! (see `machine::memory_holder`), and the userfaultfd that watched over it.
//!
//! Closing a userfaultfd while its memory still lives means walking through all
//! of it, so the descriptor is put aside and closed when the companion is gone.

use std::os::fd::RawFd;

use crate::machine::{descriptors, process, signals};

/// More deaths than this within the time of a few teardowns wait for them.
const PLACES: usize = 32;

pub struct Remains {
    /// First of [`PLACES`] descriptor numbers.
    first: RawFd,
    /// The companion that each place waits for; 0 is a free place.
    companions: [i32; PLACES],
}

impl Remains {
    pub const PLACES: i32 = PLACES as i32;

    pub fn new(first: RawFd) -> Remains {
        Remains {
            first,
            companions: [0; PLACES],
        }
    }

    /// Lets the memory of a dead worker go, without waiting for it. Without a
    /// companion (0) it is gone already.
    pub fn bury(&mut self, companion: i32, userfaultfd: RawFd) {
        if companion != 0 {
            signals::send(companion, libc::SIGKILL);
            if let Some(place) = self.companions.iter().position(|&there| there == 0) {
                self.companions[place] = companion;
                // There is none if the worker died too early to have made one.
                let _ = descriptors::copy(userfaultfd, self.first + place as RawFd);
            }
        }
        descriptors::close(userfaultfd);
    }

    /// Companions that are on their way; 0 stands for none.
    pub fn companions(&self) -> &[i32] {
        &self.companions
    }

    /// Waits for all companions. A run that is over leaves nothing behind: no
    /// memory, no lock, and no zombie for an init that may reap late.
    pub fn settle(&mut self) {
        for place in 0..PLACES {
            let companion = self.companions[place];
            if companion != 0 {
                process::reap(companion);
                self.reaped(companion);
            }
        }
    }

    /// A child of the keeper was reaped: if it was a companion, the rest goes.
    pub fn reaped(&mut self, pid: i32) {
        if let Some(place) = self
            .companions
            .iter()
            .position(|&companion| companion == pid)
        {
            self.companions[place] = 0;
            descriptors::close(self.first + place as RawFd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn puts_the_descriptor_aside_until_the_companion_is_gone() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let open = || std::fs::File::open("/dev/null").unwrap().into_raw_fd();
        let mut remains = Remains::new(700);
        let watched = open();
        remains.bury(pid, watched);
        assert!(!child.wait().unwrap().success(), "it was killed");
        assert!(descriptors::is_open(700));
        remains.reaped(pid + 1);
        assert!(descriptors::is_open(700));
        remains.reaped(pid);
        assert!(!descriptors::is_open(700));
        remains.bury(0, open());
        assert!(!descriptors::is_open(700));
    }
}
