//! Discount Checking for programs that link it.
//!
//! A program needs none of this to survive kill -9: `dcrun PROGRAM` is enough.
//! This library is for programs that want to say more: that they are
//! recoverable however they are started ([`init`]), when a commit is cheap
//! ([`checkpoint`]), what to put in order before one ([`before_checkpoint`])
//! and what to make again after a recovery ([`at_recovery`]).
//!
//! Everything is one reserved system call that the runtime answers. Without
//! the runtime the kernel answers ENOSYS, so every function here then fails
//! with [`Error::NotRecoverable`] and changes nothing. For C there is `dc.h`.
//!
//! ```no_run
//! dc::init("counter.state")?;
//! for number in 0.. {
//!     println!("{number}");
//!     dc::checkpoint()?;
//! }
//! # Ok::<(), dc::Error>(())
//! ```
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod c;
#[allow(unsafe_code)]
mod call;
mod reexec;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::Path;

pub use dc_image::boot::api::Statistics;

/// Why a call to the runtime failed.
#[derive(Debug)]
pub enum Error {
    /// No runtime below this program.
    NotRecoverable,
    /// The program could not be started again under dcrun.
    Start(String, io::Error),
    /// The runtime refused; its errno.
    Refused(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotRecoverable => {
                f.write_str("this program does not run under dcrun; call init first")
            }
            Error::Start(what, cause) => write!(f, "{what}: {cause}"),
            Error::Refused(cause) => write!(f, "the runtime refused: {cause}"),
        }
    }
}

impl std::error::Error for Error {}

/// Whether the runtime is there.
pub fn is_recoverable() -> bool {
    call::probe()
}

/// Makes this program recoverable. Under dcrun there is nothing to do; else
/// the program is executed again under it, from the start, as a run whose name
/// comes from `file`: started again after a crash, it goes on with that run.
///
/// Call it first in `main`: what the program did before is done twice.
pub fn init(file: impl AsRef<Path>) -> Result<(), Error> {
    if is_recoverable() {
        return Ok(());
    }
    reexec::under_dcrun(file.as_ref()).map(|never: Infallible| match never {})
}

/// Commits now.
pub fn checkpoint() -> Result<(), Error> {
    call::checkpoint()
}

/// Has `function` called before each commit that [`checkpoint`] asks for, in
/// the thread that asks; the latest function first.
pub fn before_checkpoint(function: fn()) -> Result<(), Error> {
    call::before_checkpoint(function)
}

/// Has `function` called after each recovery, before the program goes on. There
/// is one such function: the latest.
pub fn at_recovery(function: fn()) -> Result<(), Error> {
    call::at_recovery(function)
}

/// Counters of this run.
pub fn statistics() -> Result<Statistics, Error> {
    call::statistics()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_runtime_everything_is_refused() {
        if is_recoverable() {
            return;
        }
        assert!(matches!(checkpoint(), Err(Error::NotRecoverable)));
        assert!(matches!(
            before_checkpoint(|| {}),
            Err(Error::NotRecoverable)
        ));
        assert!(matches!(at_recovery(|| {}), Err(Error::NotRecoverable)));
        assert!(matches!(statistics(), Err(Error::NotRecoverable)));
    }
}
