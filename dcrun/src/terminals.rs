//! Terminals that a run has made itself, when everything has died: made again, under their
//! numbers, before anybody is started whose terminal they are.

mod contents;

use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use dc_image::boot::high_fd;
use dc_image::run::{
    BY_KEEPER, CONTENTS_LEN, CONTENTS_OFFSET, RUN_OFFSET, SETTINGS_OFFSET, Settings, Shared,
    pty_number,
};
use dc_image::terminal::{Inside, OPENED, TYPED_OFFSET, UNKEPT};

use self::contents::Contents;

use crate::machine::shared::SharedLive;
use crate::machine::{descriptors, terminal};
use crate::message::{Doing, Failure, Outcome};
use crate::reserve::Reservation;

/// Makes them, with what lay in them, and says in what the processes share where they are. All
/// workers inherit them, and close what they do not need. Answers of how many what lay there is
/// lost.
pub fn make_again(live: &SharedLive, image: &File, reservation: &Reservation) -> Outcome<usize> {
    let published = live.published.load(Acquire);
    let mut wanted: Vec<(u32, usize, &Shared)> = live
        .shared()
        .iter()
        .enumerate()
        .filter(|(_, s)| s.get(published).is_some() && !s.is_free_at(published))
        .filter_map(|(at, s)| Some((pty_number(s.ino.load(Relaxed))?, at, s)))
        .collect();
    wanted.sort_by_key(|(number, ..)| *number);
    if wanted.len() > high_fd::PTYS_COUNT as usize {
        return Err(Failure::own(format!(
            "the run has {} terminals of its own, and only {} can be made again",
            wanted.len(),
            high_fd::PTYS_COUNT
        )));
    }
    let mut aside: Vec<RawFd> = Vec::new();
    let mut lost = 0;
    for (nth, (number, at, shared)) in wanted.iter().enumerate() {
        let place = reservation.number(high_fd::PTYS) + nth as i32;
        let fd = make(*number, &mut aside)?;
        let filled = fill(fd, *at, shared, published, image)
            .doing(|| format!("image: read what lay in terminal /dev/pts/{number}"))?;
        lost += usize::from(!filled);
        descriptors::copy(fd, place).doing(|| format!("terminal /dev/pts/{number}: place it"))?;
        descriptors::close(fd);
        shared.made[0].store(place, Relaxed);
        shared.maker.store(BY_KEEPER, Release);
    }
    for fd in aside {
        descriptors::close(fd);
    }
    Ok(lost)
}

/// A new terminal with a certain number. Whoever else had one made meanwhile may have got it:
/// then it is waited for a while, for most are not used for long.
fn make(number: u32, aside: &mut Vec<RawFd>) -> Outcome<RawFd> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let begin = Instant::now();
    loop {
        // The kernel gives the lowest number that is free.
        let (fd, given) =
            terminal::new_pty().doing(|| format!("make terminal /dev/pts/{number} again"))?;
        match given.cmp(&number) {
            Ordering::Equal => return Ok(fd),
            Ordering::Less => aside.push(fd),
            Ordering::Greater if begin.elapsed() < PATIENCE => {
                descriptors::close(fd);
                std::thread::sleep(Duration::from_millis(20));
            }
            Ordering::Greater => {
                descriptors::close(fd);
                return Err(Failure::own(format!(
                    "terminal /dev/pts/{number}, which the run has made, is somebody else's now; \
                     resume the run when that is closed"
                )));
            }
        }
    }
}

/// Fills a terminal with what the commit has of it. From then on its steps are those that the
/// commit has.
fn fill(
    master: RawFd,
    at: usize,
    shared: &Shared,
    published: u64,
    image: &File,
) -> io::Result<bool> {
    let (Some(place), Some(value)) = (shared.place_at(published), shared.get(published)) else {
        return Ok(false);
    };
    let inside = Inside::from_value(value);
    let offset =
        |place: usize| (RUN_OFFSET + CONTENTS_OFFSET + (at * 2 + place) * CONTENTS_LEN) as u64;
    let mut bytes = vec![0; inside.len().min(CONTENTS_LEN)];
    image.read_exact_at(&mut bytes, offset(place))?;
    let (printed, steps) = bytes.split_at(inside.printed.min(bytes.len()));
    image.write_all_at(steps, offset(0) + TYPED_OFFSET as u64)?;
    shared.peer.store(steps.len() as u32, Relaxed);
    shared.listener.store(0, Relaxed);
    shared.address.store(0, Relaxed);
    let flags = if inside.opened { OPENED } else { 0 } | if inside.is_lost { UNKEPT } else { 0 };
    shared.is_foreign.store(flags, Relaxed);
    let mut settings = [0; size_of::<Settings>()];
    let settings_at = SETTINGS_OFFSET + (at * 2 + place) * settings.len();
    image.read_exact_at(&mut settings, (RUN_OFFSET + settings_at) as u64)?;
    let contents = Contents {
        inside,
        printed,
        steps,
        termios: terminal::termios(&settings),
    };
    Ok(contents::fill(master, &contents))
}
