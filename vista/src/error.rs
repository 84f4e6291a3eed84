//! What a caller of Vista is told.

use std::fmt;
use std::path::{Path, PathBuf};

use vista_core::Fault;

#[derive(Debug)]
pub enum Error {
    /// The storage below: a file, a mapping, a lock.
    Rio(rio_sim::Error),
    /// The image or its use, and which image.
    Image { path: PathBuf, fault: Fault },
    /// An answer of the caller's own, which aborted the transaction.
    Aborted(String),
}

impl Error {
    pub fn of(path: &Path) -> impl FnOnce(Fault) -> Error + use<> {
        let path = path.to_owned();
        move |fault| Error::Image { path, fault }
    }

    pub fn fault(&self) -> Option<Fault> {
        match self {
            Error::Image { fault, .. } => Some(*fault),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Rio(error) => error.fmt(f),
            Error::Image { path, fault } => write!(f, "{}: {fault}", path.display()),
            Error::Aborted(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

impl From<rio_sim::Error> for Error {
    fn from(error: rio_sim::Error) -> Error {
        Error::Rio(error)
    }
}
