//! Sessions that nobody uses now, and which of them are too old to be used again.

use std::collections::HashMap;

use crate::imap::session::Session;

/// Sessions that nobody uses now, by user.
#[derive(Default)]
pub(super) struct Idle {
    pub(super) sessions: HashMap<String, Vec<Session>>,
    /// How often a user's sessions were forgotten. One that was in use then, and is older, is not
    /// kept when it comes back: what it has selected may have another name now.
    forgotten: HashMap<String, u64>,
    /// Which of those forgettings was the last because a folder was renamed or deleted. An older
    /// session may have selected what is no more, under a name that another folder has now.
    pub(super) trees: HashMap<String, u64>,
}

impl Idle {
    pub(super) fn generation(&self, user: &str) -> u64 {
        self.forgotten.get(user).copied().unwrap_or(0)
    }

    /// From now on the sessions of a user are of another generation. Returns the old ones.
    pub(super) fn forget(&mut self, user: &str) -> Vec<Session> {
        *self.forgotten.entry(user.to_owned()).or_default() += 1;
        self.sessions.remove(user).unwrap_or_default()
    }

    /// Whether a session may have selected a folder that was renamed or deleted since.
    pub(super) fn is_stale(&self, user: &str, session: &Session) -> bool {
        session.generation < self.trees.get(user).copied().unwrap_or(0)
    }
}
