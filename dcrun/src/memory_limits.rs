//! RLIMIT_AS and RLIMIT_DATA that dcrun was called under.
//!
//! A worker has windows that are larger than any program, and hardly used. So the soft
//! limits are raised for dcrun and its workers; the program is told its own, and the
//! runtime enforces them. A hard limit that leaves no room for the windows is an error.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::message::{Doing, Failure, Outcome};

const GIB: u64 = 1 << 30;
/// The image, the arena and what little else there is.
const ADDRESSES: u64 = 160 * GIB;
/// What of it can be written and is private.
const DATA: u64 = 20 * GIB;

/// Raises them where they are too low; soft and hard of both, as the program is to see them.
pub fn raise() -> Outcome<[[u64; 2]; 2]> {
    Ok([
        raise_one(Resource::RLIMIT_AS, "addresses", "v", ADDRESSES)?,
        raise_one(Resource::RLIMIT_DATA, "data", "d", DATA)?,
    ])
}

fn raise_one(which: Resource, what: &str, letter: &str, needed: u64) -> Outcome<[u64; 2]> {
    let (soft, hard) = getrlimit(which).doing(|| format!("limit of {what}: read it"))?;
    if soft >= needed {
        return Ok([soft, hard]);
    }
    let wanted = match hard >= needed {
        true => hard,
        false => RLIM_INFINITY,
    };
    setrlimit(which, wanted, wanted).map_err(|_| {
        Failure::own(format!(
            "limit of {what}: the hard limit of {} KiB leaves no room for the {} KiB that dcrun \
             needs; raise it (`ulimit -H{letter} {}`), and set the soft one alone (`ulimit \
             -S{letter}`), which the program is held to",
            hard / 1024,
            needed / 1024,
            needed / 1024,
        ))
    })?;
    Ok([soft, hard])
}
