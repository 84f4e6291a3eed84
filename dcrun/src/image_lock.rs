//! Whose image it is: all processes of a run hold a lock on it, by the description that they share.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::machine::{descriptors, process, signals};
use crate::message::{Doing, Failure, Outcome};

/// Waits until no process of an earlier keeper has an image any more.
///
/// The run's lock is free as soon as keeper and first worker have closed their descriptors.
/// Only then are the others told of the keeper's death, and until they are gone they may go
/// on, and store what they do into the image.
pub fn await_the_dead(path: &Path) -> Outcome<()> {
    /// Longer than it takes any process to die.
    const DYING: Duration = Duration::from_secs(60);
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let Ok(file) = opened else {
        return Ok(());
    };
    let begun = Instant::now();
    let mut looks = STOPPED;
    while !lock(&file, path)? {
        if begun.elapsed() > looks {
            end_stopped(path);
            looks += STOPPED;
        }
        if begun.elapsed() > DYING {
            return Err(Failure::own(format!(
                "image {}: processes of the run still have it, though their dcrun is dead; end                  them, then resume",
                path.display()
            )));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// So long they are left to themselves.
const STOPPED: Duration = Duration::from_millis(500);

/// One that was stopped from outside right after its birth does not end with its keeper, and
/// not by itself: it is killed, if it is stopped and has the image mapped.
fn end_stopped(path: &Path) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for pid in numbers.filter(|&pid: &i32| process::is_stopped(pid)) {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let is_of_run = |line: &str| line.ends_with(&format!(" {}", path.display()));
        if maps.lines().any(is_of_run) {
            signals::send(pid, libc::SIGKILL);
        }
    }
}

/// From here on the image is that of a run that lives, until the last of its processes is
/// gone. False if it is still another one's.
pub fn lock(file: &File, path: &Path) -> Outcome<bool> {
    descriptors::lock_description(file.as_raw_fd())
        .doing(|| format!("image {}: lock it", path.display()))
}
