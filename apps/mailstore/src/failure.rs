//! What went wrong on the disk or the network: the action with its object, and
//! the cause. One type for the whole crate, because every such error ends in
//! the same two places: a line of the log and a temporary error to a client.

use std::fmt;
use std::io;
use std::path::Path;

#[derive(Debug)]
pub struct Failure {
    action: String,
    cause: io::Error,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(action: impl Into<String>, cause: io::Error) -> Self {
        Failure {
            action: action.into(),
            cause,
        }
    }

    /// A failure whose cause is a state of things, not an errno.
    pub fn because(action: impl Into<String>, cause: impl Into<String>) -> Self {
        Failure::new(action, io::Error::other(cause.into()))
    }

    pub fn kind(&self) -> io::ErrorKind {
        self.cause.kind()
    }

    /// The disk is full or the account's quota in the file system is used up.
    pub fn is_out_of_space(&self) -> bool {
        matches!(
            self.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "cannot {}: {}", self.action, self.cause)
    }
}

impl std::error::Error for Failure {}

/// Adds the action to an error of the system.
pub trait Action<T> {
    fn action(self, action: impl FnOnce() -> String) -> Result<T>;
    fn on(self, verb: &str, path: &Path) -> Result<T>;
}

impl<T> Action<T> for io::Result<T> {
    fn action(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Failure::new(action(), cause))
    }

    fn on(self, verb: &str, path: &Path) -> Result<T> {
        self.action(|| format!("{verb} {}", path.display()))
    }
}
