//! Real programs driven through a pty, killed and compared with a native run.
//!
//! A [`Session`] is a program from a package, or a small one of our own, with everything a person at a terminal would
//! do to it. [`run`] plays the session natively for a [`Reference`], then plays it again in another [`Mode`] — under
//! `dcrun`, and under `dcrun` while something kills it — and [`compare`]s the two [`Outcome`]s: exit status, files,
//! output bytes, screens. What must hold is that nobody can tell the runs apart.
//!
//! The crate never links the engine: it knows `dcrun` as a user does, by its command line. Reading order: `session`
//! (what is played), `drive` (who types), `killer` (who kills), `compare` (who judges), `runner` (who calls them all).

#![forbid(unsafe_code)]

mod chain;
mod chance;
mod compare;
mod console;
mod dcrun;
mod drive;
mod error;
mod killer;
mod notice;
mod outcome;
mod plants;
mod report;
mod runner;
mod session;
mod sessions;
mod soak;
mod stillness;
mod stream;
mod toolchain;
mod workdir;

pub use compare::{Difference, Kind, Verdict, compare};
pub use dcrun::{Dcrun, RunInfo};
pub use error::{Error, Result};
pub use outcome::{FileImage, Outcome};
pub use plants::{Plant, catch};
pub use report::Report;
pub use runner::{Fault, Mode, Options, Reference, run, run_against};
pub use session::{Channel, Contents, Program, Session, Step, Stream};
pub use sessions::{session, sessions};
pub use soak::{Tally, soak};
