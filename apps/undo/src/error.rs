//! The one error of this crate: an object, an action, a cause, and what to do about it.

use std::fmt;

/// Why something could not be done. Its `Display` is one line:
/// `snapshot 12: restore: cp: No space left on device; free some space and try again`.
#[derive(Debug, Clone)]
pub struct Error {
    object: String,
    action: String,
    cause: String,
    advice: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `action` on `object`, because of `cause`.
    pub fn new(
        object: impl fmt::Display,
        action: impl fmt::Display,
        cause: impl fmt::Display,
    ) -> Self {
        Error {
            object: object.to_string(),
            action: action.to_string(),
            cause: cause.to_string(),
            advice: None,
        }
    }

    /// An error that another process has put into words.
    pub fn told(line: &str) -> Self {
        Error {
            object: line.into(),
            action: String::new(),
            cause: String::new(),
            advice: None,
        }
    }

    /// The same error with a word on what the operator can do.
    pub fn advise(mut self, advice: impl fmt::Display) -> Self {
        self.advice = Some(advice.to_string());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.object)?;
        if !self.action.is_empty() {
            write!(f, ": {}: {}", self.action, self.cause)?;
        }
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Turns the error of a library into one of ours, with the object and the action it was about.
pub trait Context<T> {
    fn context(self, object: impl fmt::Display, action: &str) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, object: impl fmt::Display, action: &str) -> Result<T> {
        self.map_err(|cause| Error::new(object, action, cause))
    }
}
