//! The descriptor numbers that belong to dcrun: a block above all that the
//! program can get.
//!
//! The soft limit is raised so that the block fits above it; the program is
//! told its old limit. Where the hard limit leaves no room above, the block
//! lies below it, and the program sees a lower limit.

use std::os::fd::RawFd;

use dc_image::boot::high_fd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::message::{Doing, Failure, Outcome};

/// Fewer numbers than this are not worth running a program with.
const FEWEST: u64 = 64;
/// Above this the kernel's table, as long as its highest number, costs too much
/// in every fork; no limit of a real program comes near.
const HIGHEST: u64 = 1 << 19;

/// The block, and what the program is told of its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub fd_base: i32,
    pub nofile: [u64; 2],
}

impl Reservation {
    /// The number of one of `high_fd`'s places.
    pub fn number(&self, place: i32) -> i32 {
        self.fd_base + place
    }
}

/// Reserves the block; `inherited` are the descriptors that are open already.
pub fn reserve(inherited: &[RawFd]) -> Outcome<Reservation> {
    let count = high_fd::COUNT as u64;
    let (soft, mut hard) =
        getrlimit(Resource::RLIMIT_NOFILE).doing(|| "limit of open files: read it".to_owned())?;
    let wanted = soft.min(HIGHEST) + count;
    if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, soft, wanted).is_ok() {
        hard = wanted;
    }
    let reservation = place(soft, hard)?;
    let needed = reservation.fd_base as u64 + count;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard)
            .doing(|| format!("limit of open files: raise it to {needed}"))?;
    }
    let block = reservation.number(0)..reservation.number(high_fd::COUNT);
    if let Some(taken) = inherited.iter().find(|number| block.contains(number)) {
        return Err(Failure::own(format!(
            "descriptor {taken}: it was open when dcrun was called, in the range that dcrun needs \
             for itself; close it, or raise the limit of open files (`ulimit -n`) above it"
        )));
    }
    Ok(reservation)
}

/// Where the block lies under these limits.
pub fn place(soft: u64, hard: u64) -> Outcome<Reservation> {
    let base = soft
        .min(HIGHEST)
        .min(hard.saturating_sub(high_fd::COUNT as u64));
    if base < FEWEST {
        return Err(Failure::own(format!(
            "limit of open files: the hard limit of {hard} leaves no room for the {} that dcrun \
             needs; raise it (`ulimit -Hn {}`)",
            high_fd::COUNT,
            high_fd::COUNT as u64 + 1024
        )));
    }
    Ok(Reservation {
        fd_base: base as i32,
        nofile: [soft.min(base), hard],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_keeps_its_limit_where_there_is_room() {
        let usual = place(1024, 524_288).unwrap();
        assert_eq!(
            usual,
            Reservation {
                fd_base: 1024,
                nofile: [1024, 524_288]
            }
        );
        let tight = place(4096, 4096).unwrap();
        assert_eq!(
            tight,
            Reservation {
                fd_base: 3072,
                nofile: [3072, 4096]
            }
        );
        let endless = place(u64::MAX, u64::MAX).unwrap();
        assert_eq!(endless.fd_base as u64, HIGHEST);
        assert!(
            place(1024, 1024)
                .unwrap_err()
                .to_string()
                .contains("ulimit")
        );
    }
}
