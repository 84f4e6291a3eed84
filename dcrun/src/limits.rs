//! Limits of resources (getrlimit(2)) under which a worker cannot live.
//!
//! A worker inherits the limits that dcrun was called with, for they are the
//! program's. But the kernel counts against them what the runtime needs as well:
//! the length of the image. With too little of it the runtime dies before it can say
//! why, so it is looked at before it is started; and when it is dead, whether it had
//! come to one.

use std::fs::File;

use dc_image::header::FRAMES_OFFSET;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::machine::process;
use crate::message::{Failure, Outcome};

/// What the smallest of programs needs beside the runtime.
const PROGRAM_BYTES: usize = 256 << 20;

/// A resource, what it is called by people and by the shell, and the least of it.
struct Need {
    resource: Resource,
    name: &'static str,
    option: &'static str,
    bytes: usize,
}

/// (Address space and private memory are raised for the runtime, and the program is held to
/// its own: `memory_limits`.)
const NEEDS: [Need; 1] = [Need {
    resource: Resource::RLIMIT_FSIZE,
    name: "file size",
    option: "-f",
    bytes: FRAMES_OFFSET + PROGRAM_BYTES / 2,
}];

/// An error that names the limit, if no program can run under one.
pub fn check() -> Outcome<()> {
    for need in &NEEDS {
        let Ok((soft, _)) = getrlimit(need.resource) else {
            continue;
        };
        if soft != RLIM_INFINITY && soft < need.bytes as u64 {
            return Err(Failure::own(format!(
                "limit of {}: it is {} MiB, and dcrun needs {} MiB beside what the program takes \
                 (sparse, so most of it is never touched); raise it (`ulimit {} {}`)",
                need.name,
                soft >> 20,
                need.bytes >> 20,
                need.option,
                need.bytes >> 10,
            )));
        }
    }
    Ok(())
}

/// Which limits of resources a dead worker had come to.
#[derive(Clone, Copy, Default)]
pub struct AtLimits {
    pub processor_used_up: bool,
    pub image_at_limit: bool,
    /// The limit of file sizes; 0 if it is not known.
    pub file_bytes: u64,
}

impl AtLimits {
    /// The kernel looks at processor time with each tick, so that what it counted
    /// may be a little less.
    const TICKS_MS: u64 = 50;
    /// More than the runtime asks for at once when the image grows.
    const GROWTH: u64 = 64 << 20;

    pub fn of_dead(pid: i32, image: &File) -> AtLimits {
        let Some(limits) = process::limits_of(pid) else {
            return AtLimits::default();
        };
        let used_ms = process::processor_ms(pid).unwrap_or(0);
        let len = image.metadata().map_or(0, |about| about.len());
        AtLimits {
            processor_used_up: used_ms + AtLimits::TICKS_MS
                >= limits.processor_s.saturating_mul(1000),
            image_at_limit: len + AtLimits::GROWTH > limits.file_bytes,
            file_bytes: limits.file_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_limits_are_enough() {
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn what_is_asked_for_can_be_given() {
        for need in NEEDS {
            assert!(need.bytes as u64 > 1 << 29, "{}", need.name);
            assert!((need.bytes as u64) < 1 << 46, "{}", need.name);
        }
    }
}
