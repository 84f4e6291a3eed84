//! Looks at folders that are no verbs, and changes of the tree of folders, in turns.
//!
//! What a client's NOOP or search needs is no part of history, so the scoreboard does not know of it.
//! But Dovecot must not look into a folder while another of its processes renames it: the look writes
//! the list of UIDs anew, where the folder no longer is. Such a folder was seen empty from then on.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard};

/// By user: how many looks there are, and whether the tree is being changed.
#[derive(Default)]
pub struct Turns {
    users: Mutex<HashMap<String, (usize, bool)>>,
    changed: Condvar,
}

/// A look, or a change. Dropping it ends the turn.
pub struct Turn<'a> {
    turns: &'a Turns,
    user: String,
    changes: bool,
}

impl Turns {
    /// Waits until nobody changes the tree of this user.
    pub fn look(&self, user: &str) -> Turn<'_> {
        let mut users = self.without_change(user);
        users.entry(user.to_owned()).or_default().0 += 1;
        self.turn(user, false)
    }

    /// Waits until nobody looks at the folders of this user.
    pub fn change(&self, user: &str) -> Turn<'_> {
        let mut users = self.without_change(user);
        users.entry(user.to_owned()).or_default().1 = true;
        // (From here on no look begins.)
        while users.get(user).is_some_and(|(looks, _)| *looks > 0) {
            users = self.changed.wait(users).unwrap_or_else(|p| p.into_inner());
        }
        self.turn(user, true)
    }

    fn without_change(&self, user: &str) -> MutexGuard<'_, HashMap<String, (usize, bool)>> {
        let mut users = self.lock();
        while users.get(user).is_some_and(|(_, changes)| *changes) {
            users = self.changed.wait(users).unwrap_or_else(|p| p.into_inner());
        }
        users
    }

    fn turn(&self, user: &str, changes: bool) -> Turn<'_> {
        Turn {
            turns: self,
            user: user.to_owned(),
            changes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (usize, bool)>> {
        self.users.lock().unwrap_or_else(|p| p.into_inner())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut users = self.turns.lock();
        if let Some(turns) = users.get_mut(&self.user) {
            match self.changes {
                true => turns.1 = false,
                false => turns.0 -= 1,
            }
            if *turns == (0, false) {
                users.remove(&self.user);
            }
        }
        self.turns.changed.notify_all();
    }
}
