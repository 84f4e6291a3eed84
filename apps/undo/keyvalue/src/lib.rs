//! The shortest service with Operator Undo: keys and values, each key a file.
//!
//! It is what a service must bring, in one place and without a protocol in the way, and the core's
//! tests run on it. `put`, `append` and `delete` change a key, `get` and `list` show some; `post`
//! is asynchronous: a line for a key, accepted at once, which fails for as long as the key's user
//! is not in the file `users` (so that there is something to misconfigure).
#![forbid(unsafe_code)]

mod files;
mod verbs;

pub use files::Files;
pub use verbs::{Act, Shown, Verb};

use undo::{Call, Compensation, Error, Mode, Outcome, Pause, Result, Service, Squash, Status};

/// The service below the manager.
pub struct KeyValue {
    pub files: Files,
    /// Posts that failed for good are written here, one line each: what a bounce is for mail.
    pub returned: std::path::PathBuf,
}

/// How two executions of a verb differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Differs {
    Value { key: String },
    Gone { key: String },
    Failed { why: String },
}

impl std::fmt::Display for Differs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Differs::Value { key } => write!(f, "the value of {key} has become another one"),
            Differs::Gone { key } => write!(f, "{key} is not there any more"),
            Differs::Failed { why } => write!(f, "what had succeeded fails now: {why}"),
        }
    }
}

impl Service for KeyValue {
    type Verb = Verb;
    type Tag = Shown;
    type Inconsistency = Differs;
    type Answer = Shown;

    fn execute(&self, call: &Call<Verb>) -> (Outcome<Shown>, Shown) {
        let result = self
            .files
            .act(call.verb, call.lsn, call.mode == Mode::Settle);
        let outcome = match result {
            Ok(shown) => Outcome::done(shown),
            Err(why) => Outcome::failed(why, Shown::Nothing),
        };
        let answer = outcome.tag.clone();
        (outcome, answer)
    }

    fn consistent(
        &self,
        verb: &Verb,
        original: &Outcome<Shown>,
        replayed: &Outcome<Shown>,
    ) -> std::result::Result<(), Differs> {
        if let (Status::Done, Status::Failed(why)) = (&original.status, &replayed.status) {
            return Err(Differs::Failed { why: why.clone() });
        }
        match (&original.tag, &replayed.tag) {
            (Shown::Value(before), Shown::Value(after)) if before != after => Err(Differs::Value {
                key: verb.key.clone(),
            }),
            // A key that was not there before is no inconsistency; one that has gone is.
            (Shown::Keys(before), Shown::Keys(after)) => {
                match before.iter().find(|k| !after.contains(k)) {
                    Some(key) => Err(Differs::Gone { key: key.clone() }),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn compensate(
        &self,
        call: &Call<Verb>,
        what: &Differs,
        _replayed: &Outcome<Shown>,
    ) -> Result<Compensation<Shown>> {
        self.explain(&call.verb.user, &what.to_string())?;
        Ok(Compensation {
            words: "the user was told".into(),
            outcome: None,
        })
    }

    fn squash(&self, call: &Call<Verb>, because: &[Differs]) -> Squash<Verb> {
        match call.verb.act {
            // What destroys state was perhaps decided upon by what is not true any more.
            Act::Delete | Act::Put(_) => {
                let words = format!("{} was not done: {}", call.verb.line(), because[0]);
                match self.explain(&call.verb.user, &words) {
                    Ok(()) => Squash::Cancelled(words),
                    Err(_) => Squash::Unchanged,
                }
            }
            _ => Squash::Unchanged,
        }
    }

    fn ready(&self) -> Result<()> {
        self.files.ready()
    }

    fn report_failure(&self, call: &Call<Verb>, _outcome: &Outcome<Shown>) -> Result<()> {
        use std::io::Write;
        let line = format!("{} {}\n", call.verb.user, call.verb.line());
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.returned)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|e| Error::new(self.returned.display(), "append", e))
    }

    fn quiesce(&self, _pause: Pause) -> Result<()> {
        Ok(())
    }

    fn resume(&self, _pause: Pause) -> Result<()> {
        Ok(())
    }

    fn scope_paths(&self, scope: &str) -> Option<Vec<std::path::PathBuf>> {
        Some(vec![std::path::PathBuf::from(Files::folder_of(scope))])
    }
}

impl KeyValue {
    fn explain(&self, user: &str, words: &str) -> Result<()> {
        self.files
            .explain(user, words)
            .map_err(|e| Error::new(format!("user {user}"), "explain an inconsistency", e))
    }
}
