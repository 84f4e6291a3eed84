//! Terminals that a run has made itself, when everything has died: made again, under their
//! numbers, before anybody is started whose terminal they are.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use dc_image::boot::high_fd;
use dc_image::run::{BY_KEEPER, Shared, pty_number};

use crate::machine::shared::SharedLive;
use crate::machine::{descriptors, terminal};
use crate::message::{Doing, Failure, Outcome};
use crate::reserve::Reservation;

/// Makes them, and says in what the processes share where they are. All workers inherit
/// them, and close what they do not need.
pub fn make_again(live: &SharedLive, reservation: &Reservation) -> Outcome<usize> {
    let published = live.published.load(Acquire);
    let mut wanted: Vec<(u32, &Shared)> = live
        .shared()
        .iter()
        .filter(|s| s.get(published).is_some() && !s.is_free_at(published))
        .filter_map(|s| Some((pty_number(s.ino.load(Relaxed))?, s)))
        .collect();
    wanted.sort_by_key(|(number, _)| *number);
    if wanted.len() > high_fd::PTYS_COUNT as usize {
        return Err(Failure::own(format!(
            "the run has {} terminals of its own, and only {} can be made again",
            wanted.len(),
            high_fd::PTYS_COUNT
        )));
    }
    let mut aside: Vec<RawFd> = Vec::new();
    for (at, (number, shared)) in wanted.iter().enumerate() {
        let place = reservation.number(high_fd::PTYS) + at as i32;
        let made = loop {
            // The kernel gives the lowest number that is free.
            let (fd, given) =
                terminal::new_pty().doing(|| format!("make terminal /dev/pts/{number} again"))?;
            if given >= *number {
                break (given == *number).then_some(fd);
            }
            aside.push(fd);
        };
        let Some(fd) = made else {
            return Err(Failure::own(format!(
                "terminal /dev/pts/{number}, which the run has made, is somebody else's now; \
                 resume the run when that is closed"
            )));
        };
        descriptors::copy(fd, place).doing(|| format!("terminal /dev/pts/{number}: place it"))?;
        descriptors::close(fd);
        shared.made[0].store(place, Relaxed);
        shared.maker.store(BY_KEEPER, Release);
    }
    for fd in aside {
        descriptors::close(fd);
    }
    Ok(wanted.len())
}
