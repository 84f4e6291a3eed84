//! What dcrun says, and the failures it says it about.
//!
//! A failure is object + action + cause + what to do, and carries the exit
//! status that belongs to it. Everything goes to one descriptor, which is
//! moved out of the program's sight before a worker lives: number 2 belongs to
//! the program from then on.

use std::fmt;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::machine::descriptors;

/// Exit status for dcrun's own faults.
pub const OWN_FAULT: u8 = 125;
pub const NOT_EXECUTABLE: u8 = 126;
pub const NOT_FOUND: u8 = 127;

pub type Outcome<T> = Result<T, Failure>;

/// Why a command ends, and with which exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    pub fn own(text: impl Into<String>) -> Failure {
        Failure {
            status: OWN_FAULT,
            text: text.into(),
        }
    }
    pub fn not_executable(text: impl Into<String>) -> Failure {
        Failure {
            status: NOT_EXECUTABLE,
            text: text.into(),
        }
    }
    pub fn not_found(text: impl Into<String>) -> Failure {
        Failure {
            status: NOT_FOUND,
            text: text.into(),
        }
    }
    pub fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Names the object and the action of an operation that may fail.
pub trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|cause| Failure::own(format!("{}: {cause}", what())))
    }
}

static SINK: AtomicI32 = AtomicI32::new(2);

/// From now on messages go to this descriptor.
pub fn speak_through(number: RawFd) {
    SINK.store(number, Ordering::Relaxed);
}

/// One message, in one write, so that lines of several runs do not mix.
pub fn say(text: &str) {
    let line = format!("dcrun: {text}\n");
    descriptors::write_all(SINK.load(Ordering::Relaxed), line.as_bytes());
}
