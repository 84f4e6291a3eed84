//! Whose image it is: all processes of a run hold a lock on it, by the description that they share.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::machine::descriptors;
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
    while !lock(&file, path)? {
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

/// From here on the image is that of a run that lives, until the last of its processes is
/// gone. False if it is still another one's.
pub fn lock(file: &File, path: &Path) -> Outcome<bool> {
    descriptors::lock_description(file.as_raw_fd())
        .doing(|| format!("image {}: lock it", path.display()))
}
