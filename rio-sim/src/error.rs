//! An error is an object, an action, a cause, and what to do about it.

use std::path::Path;
use std::{fmt, io};

#[derive(Debug)]
pub struct Error {
    what: String,
    cause: io::Error,
    mend: &'static str,
}

impl Error {
    pub fn new(action: &str, object: impl fmt::Display, cause: io::Error) -> Error {
        let mend = match cause.raw_os_error() {
            Some(libc::ENOENT) => "name an image that exists, or create it",
            Some(libc::EEXIST) => "choose a place that is free",
            Some(libc::EACCES | libc::EPERM) => "run as the owner",
            Some(libc::ENOSPC | libc::EDQUOT) => "make room on that file system",
            Some(libc::ENOMEM) => "make the segment smaller, or allow more mappings",
            Some(libc::EWOULDBLOCK) => "another process has it open: wait for it, or end it",
            _ => "see the cause",
        };
        Error {
            what: format!("{action} {object}"),
            cause,
            mend,
        }
    }

    pub fn of_path(action: &str, path: &Path, cause: io::Error) -> Error {
        Error::new(action, path.display(), cause)
    }

    /// A cause that the kernel has no number for.
    pub fn refused(action: &str, path: &Path, cause: String, mend: &'static str) -> Error {
        let what = format!("{action} {}", path.display());
        Error {
            what,
            cause: io::Error::other(cause),
            mend,
        }
    }

    pub fn errno(&self) -> i32 {
        self.cause.raw_os_error().unwrap_or(libc::EINVAL)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.what, self.cause, self.mend)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}
