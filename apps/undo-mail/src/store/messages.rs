//! What is done to messages: found by their UndoIDs, fetched, stored, copied, appended.
use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use undo::{Call, Mode};

use super::act::nothing;
use super::{Answer, Done, MailStore, Shown, lock};
use crate::canonical;
use crate::imap::pool::{Listing, Tried, Trouble, fetched, good};
use crate::imap::session::Session;
use crate::imap::token::{self, Token};
use crate::names::{self, Folder, Message};
use crate::verbs::Verb;

impl MailStore {
    pub fn append(
        &self,
        user: &str,
        name: &str,
        id: u64,
        flags: &str,
        date: &str,
        body: &[u8],
    ) -> Done {
        let marked = names::with_id(id, body);
        self.pool.with(user, |session| {
            let mut command = b"APPEND ".to_vec();
            command.extend(token::quote(name.as_bytes()));
            command.extend(format!(" ({flags})").as_bytes());
            if !date.is_empty() {
                command.extend(format!(" \"{date}\"").as_bytes());
            }
            command.extend(format!(" {{{}+}}\r\n", marked.len()).as_bytes());
            command.extend(&marked);
            good(session.ask(&command)?)
        })?;
        nothing()
    }

    /// Whether a folder holds a message with this UndoID.
    pub(super) fn holds(&self, user: &str, name: &str, id: u64) -> Tried<bool> {
        self.pool.within(user, name, true, |_, listing| {
            Ok(listing.iter().any(|(_, m)| m.id == id))
        })
    }

    /// Whether a delivery that may have happened did: the message is in a folder of its recipient,
    /// or turns up there while a server that queues mail may still have it.
    pub(super) fn is_delivered(&self, to: &str, id: u64) -> Tried<bool> {
        let user = self.settings.user_of(to);
        let end = Instant::now() + self.patience();
        loop {
            // (The user may change folders while mail comes: the board lets the two go together.)
            let turn = self.turns.look(&user);
            let found = self.is_somewhere(&user, id)?;
            drop(turn);
            if found || self.settings.smtp.lmtp || Instant::now() >= end {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn is_somewhere(&self, user: &str, id: u64) -> Tried<bool> {
        let folders = match self.pool.ask(user, b"LIST \"\" \"*\"") {
            Ok(folders) => folders,
            // There is no such user: an alias, perhaps.
            Err(Trouble::Gone(e)) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(false);
            }
            Err(trouble) => return Err(trouble),
        };
        let names = folders.untagged.iter().filter_map(|r| r.get(3)?.text());
        for name in names {
            match self.holds(user, &name, id) {
                Ok(true) => return Ok(true),
                // Some names cannot be selected.
                Ok(false) | Err(Trouble::Refused(_)) => {}
                // Who does not know whether it is there must not say that it is not.
                Err(gone) => return Err(gone),
            }
        }
        Ok(false)
    }

    pub(super) fn fetch(
        &self,
        call: &Call<'_, Verb>,
        folder: &Folder,
        messages: &[Message],
        items: &str,
    ) -> Done {
        let user = &call.verb.user;
        let name = self.name(user, folder)?;
        let read_only = call.mode == Mode::ReadOnly;
        self.wait_for_queued(call, &name, messages);
        let mut found =
            self.pool
                .within_naming(user, &name, read_only, messages, |session, listing| {
                    fetch_messages(session, listing, messages, items)
                })?;
        let mut by_message: std::collections::HashMap<Message, u64> = found
            .iter()
            .map(|(m, items)| (*m, canonical::shown(items)))
            .collect();
        let shown = messages
            .iter()
            .map(|m| by_message.remove(m).unwrap_or(0))
            .collect();
        found.sort_by_key(|(m, _)| *m);
        Ok((
            Shown::Messages(shown),
            Answer {
                fetched: found,
                ..Answer::default()
            },
        ))
    }

    /// A server that queues mail has accepted this message in a replay.
    pub(super) fn note_queued(&self, call: &Call<'_, Verb>, id: u64) {
        if !self.settings.smtp.lmtp && matches!(call.mode, Mode::Replay(_)) {
            lock(&self.queued).insert(id, Instant::now());
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.settings.imap.arrival_patience_s)
    }

    /// Waits for those of these messages that the real server has accepted and may not have stored
    /// yet. A client has seen them before it named them; a replay need not.
    pub(super) fn wait_for_queued(&self, call: &Call<'_, Verb>, name: &str, messages: &[Message]) {
        let user = &call.verb.user;
        let patience = self.patience();
        let mut missing: Vec<(u64, Instant)> = {
            let mut queued = lock(&self.queued);
            queued.retain(|_, since| since.elapsed() < patience);
            let since = messages
                .iter()
                .filter_map(|m| Some((m.id, *queued.get(&m.id)?)));
            since.collect()
        };
        while !missing.is_empty() {
            let there = self.pool.within(user, name, true, |_, listing| {
                Ok(listing.iter().map(|(_, m)| m.id).collect::<HashSet<u64>>())
            });
            let Ok(there) = there else { return };
            // It may be in another folder by now: then this verb did not find it then either.
            missing.retain(|(id, since)| {
                let has_come = there.contains(id) || self.is_somewhere(user, *id).unwrap_or(false);
                if has_come {
                    lock(&self.queued).remove(id);
                }
                !has_come && since.elapsed() < patience
            });
            if !missing.is_empty() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Does something to messages of a folder. Those that are not there are left out, if `some`
    /// are enough, and written down if they go by it; whether a verb that found less than it should is inconsistent is not for here.
    pub(super) fn on_messages(
        &self,
        call: &Call<'_, Verb>,
        name: &str,
        messages: &[Message],
        some: bool,
        goes: bool,
        command: impl Fn(&str) -> Vec<u8>,
    ) -> Done {
        let user = &call.verb.user;
        self.wait_for_queued(call, name, messages);
        self.pool
            .within_naming(user, name, false, messages, |session, listing| {
                let (uids, there) = uids_of(listing, messages);
                if uids.is_empty() && !messages.is_empty() && !some {
                    return Err(not_there());
                }
                if goes {
                    self.pool.write_names(user, session, messages)?;
                }
                if !uids.is_empty() {
                    good(session.ask(&command(&token::show_set(&uids)))?)?;
                }
                let shown = messages
                    .iter()
                    .map(|m| u64::from(there.contains(m)))
                    .collect();
                Ok((Shown::Messages(shown), Answer::default()))
            })
    }
}

pub(super) fn not_there() -> Trouble {
    Trouble::Refused("the messages are not there any more".into())
}

/// The UIDs that these messages have now, ascending, and which of them there are.
fn uids_of(listing: &Listing, messages: &[Message]) -> (Vec<u32>, HashSet<Message>) {
    let wanted: HashSet<&Message> = messages.iter().collect();
    let found: Vec<&(u32, Message)> = listing.iter().filter(|(_, m)| wanted.contains(m)).collect();
    let mut uids: Vec<u32> = found.iter().map(|(uid, _)| *uid).collect();
    uids.sort_unstable();
    (uids, found.into_iter().map(|(_, m)| *m).collect())
}

type Fetched = Vec<(Message, Vec<(String, Token)>)>;

/// Fetches items of messages as a client would, and gives them back under their UndoIDs.
pub fn fetch_messages(
    session: &mut Session,
    listing: &Listing,
    messages: &[Message],
    items: &str,
) -> Tried<Fetched> {
    let (uids, _) = uids_of(listing, messages);
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    let command = format!("UID FETCH {} (UID {items})", token::show_set(&uids));
    let answer = good(session.ask(command.as_bytes())?)?;
    let by_uid: std::collections::HashMap<u32, Message> = listing.iter().copied().collect();
    let mut found = Fetched::new();
    for (uid, items) in fetched(&answer.untagged) {
        let Some(&message) = by_uid.get(&uid) else {
            continue;
        };
        // Flags that others change come as responses of their own.
        match found.iter_mut().rev().find(|(m, _)| *m == message) {
            Some((_, known)) => {
                let new = items
                    .into_iter()
                    .filter(|(n, _)| !known.iter().any(|(k, _)| k == n));
                let new: Vec<_> = new.collect();
                known.extend(new);
            }
            None => found.push((message, items)),
        }
    }
    Ok(found)
}
