//! What the pool believes of folders: which UID is which message, and which are there.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};

use super::{Pool, Tried, Trouble, fetched, good, lock};
use crate::imap::session::Session;
use crate::imap::token;
use crate::names::{self, Message};

/// What a folder of the real server holds, as far as anybody has asked.
#[derive(Default)]
pub(super) struct Known {
    uid_validity: u32,
    named: HashMap<u32, Message>,
    /// The highest number that a copy of a message ever had here.
    highest: HashMap<u64, u16>,
    /// UIDs whose names are on disk.
    written: HashSet<u32>,
    /// UIDs that some session has listed, and none has been told to be gone.
    there: HashSet<u32>,
}

impl Known {
    fn new(uid_validity: u32, written: HashMap<u32, Message>) -> Known {
        let mut known = Known {
            uid_validity,
            written: written.keys().copied().collect(),
            ..Known::default()
        };
        for message in written.values() {
            let highest = known.highest.entry(message.id).or_default();
            *highest = message.nth.max(*highest);
        }
        known.named = written;
        known
    }

    /// Names messages that have come, UIDs and UndoIDs in their order. Returns what is to be
    /// written: that one is not the first, and which its equals are.
    fn number(&mut self, fresh: &[(u32, u64)]) -> Vec<(u32, Message)> {
        let mut numbered = Vec::new();
        for &(uid, id) in fresh {
            let highest = self.highest.entry(id).or_default();
            *highest = highest.saturating_add(1);
            let message = Message { id, nth: *highest };
            if message.nth > 1 {
                let equal = self.named.iter().filter(|(_, m)| m.id == id);
                numbered.extend(equal.map(|(uid, m)| (*uid, *m)));
                numbered.push((uid, message));
            }
            self.named.insert(uid, message);
        }
        numbered.retain(|(uid, _)| !self.written.contains(uid));
        self.written.extend(numbered.iter().map(|(uid, _)| *uid));
        numbered
    }
}

/// The messages of a folder, in the order of the real server.
pub type Listing = Vec<(u32, Message)>;

impl Pool {
    /// The messages of the selected folder. Asks for the UndoIDs of those that are new only.
    pub fn listing(&self, user: &str, session: &mut Session) -> Tried<Listing> {
        let Some(selected) = session.selected.clone() else {
            return Ok(Vec::new());
        };
        let known = self.known(user, &selected.folder);
        let mut known = lock(&known);
        if self.is_stale(user, session) {
            let why = "the folder was renamed or deleted meanwhile";
            return Err(Trouble::Refused(why.into()));
        }
        if selected.uids.len() != selected.exists {
            good(session.list_uids()?)?;
        }
        let uids = session
            .selected
            .as_ref()
            .map_or(Vec::new(), |s| s.uids.clone());
        let (folder, validity) = (&selected.folder, selected.uid_validity);
        if known.uid_validity != validity {
            let written = self.copies.read(user, folder, validity, &uids)?;
            *known = Known::new(validity, written);
        }
        // Another session may have brought the list up to date, or a rename may have made us
        // forget what we knew: a UID that is listed need not have an UndoID yet.
        let unknown: Vec<u32> = uids
            .iter()
            .copied()
            .filter(|uid| !known.named.contains_key(uid))
            .collect();
        let mut fresh = Vec::new();
        for some in unknown.chunks(2000) {
            let mut ids: HashMap<u32, u64> = fetch_ids(session, some)?.into_iter().collect();
            // (One that is not answered was expunged between the list and the fetch.)
            fresh.extend(some.iter().filter_map(|uid| Some((*uid, ids.remove(uid)?))));
        }
        let numbered = known.number(&fresh);
        self.copies.write(user, folder, validity, &numbered)?;
        Ok(uids
            .iter()
            .filter_map(|uid| Some((*uid, *known.named.get(uid)?)))
            .collect())
    }

    /// The UndoIDs of those of these messages that have been in a folder, as far as anybody has
    /// looked: whatever was removed from it was listed before. (What is written down may be of an
    /// earlier folder of this name.)
    pub fn had(&self, user: &str, folder: &str, messages: &[Message]) -> io::Result<HashSet<u64>> {
        let known = self.known(user, folder);
        let known = lock(&known);
        let written = match known.uid_validity {
            0 => self.copies.ids(user, folder)?,
            _ => HashSet::new(),
        };
        let had = |id: &u64| known.highest.contains_key(id) || written.contains(id);
        Ok(messages.iter().map(|m| m.id).filter(had).collect())
    }

    fn known(&self, user: &str, folder: &str) -> Arc<Mutex<Known>> {
        let key = (user.to_owned(), folder.to_owned());
        lock(&self.known).entry(key).or_default().clone()
    }

    /// Whether a session does not list what another one has listed, though nobody was told that it
    /// has gone. Dovecot's sessions may lag behind each other so. What a `fresh` one does not list
    /// has gone.
    pub(super) fn is_behind(&self, user: &str, session: &mut Session, fresh: bool) -> bool {
        self.note_gone(user, session);
        let Some(selected) = &session.selected else {
            return false;
        };
        let known = self.known(user, &selected.folder);
        let mut known = lock(&known);
        if self.is_stale(user, session) {
            return false;
        }
        let listed: HashSet<u32> = selected.uids.iter().copied().collect();
        if fresh {
            known.there = listed;
            return false;
        }
        let is_behind = !known.there.is_subset(&listed);
        known.there.extend(listed);
        is_behind
    }

    pub(super) fn note_gone(&self, user: &str, session: &mut Session) {
        let Some(selected) = session.selected.as_mut() else {
            return;
        };
        let gone = std::mem::take(&mut selected.gone);
        if !gone.is_empty() {
            let known = self.known(user, &selected.folder);
            let mut known = lock(&known);
            if !self.is_stale(user, session) {
                known.there.retain(|uid| !gone.contains(uid));
            }
        }
    }

    /// Whether what a session has selected may be no more. What is known of a folder is not changed
    /// by such a one: this is asked while it is locked, and whoever forgets it waits for the lock.
    fn is_stale(&self, user: &str, session: &Session) -> bool {
        lock(&self.idle).is_stale(user, session)
    }

    /// Writes down which messages these are, before they go: one that comes back has another number.
    pub fn write_names(
        &self,
        user: &str,
        session: &Session,
        messages: &[Message],
    ) -> io::Result<()> {
        let Some(selected) = &session.selected else {
            return Ok(());
        };
        let known = self.known(user, &selected.folder);
        let mut known = lock(&known);
        if self.is_stale(user, session) {
            return Ok(());
        }
        let wanted: HashSet<&Message> = messages.iter().collect();
        let named = selected.uids.iter().filter_map(|uid| {
            let message = known.named.get(uid)?;
            (wanted.contains(message) && !known.written.contains(uid)).then_some((*uid, *message))
        });
        let named: Vec<(u32, Message)> = named.collect();
        known.written.extend(named.iter().map(|(uid, _)| *uid));
        self.copies
            .write(user, &selected.folder, selected.uid_validity, &named)
    }

    /// A folder was renamed, with those below it.
    pub fn rename_folder(
        &self,
        user: &str,
        from: &str,
        to: &str,
        delimiter: &str,
    ) -> io::Result<()> {
        self.copies.rename(user, from, to, delimiter)
    }

    /// A folder was deleted.
    pub fn remove_folder(&self, user: &str, folder: &str) -> io::Result<()> {
        self.copies.remove(user, folder)
    }
}

pub(super) fn lacks(listing: &Listing, messages: &[Message]) -> bool {
    let listed: HashSet<&Message> = listing.iter().map(|(_, m)| m).collect();
    messages.iter().any(|m| !listed.contains(m))
}

/// The UndoIDs of some messages.
fn fetch_ids(session: &mut Session, uids: &[u32]) -> Tried<Vec<(u32, u64)>> {
    let set = token::show_set(uids);
    let field = names::FIELD.to_uppercase();
    let command = format!("UID FETCH {set} (UID BODY.PEEK[HEADER.FIELDS ({field})])");
    let answer = session.ask(command.as_bytes())?;
    let mut found = Vec::new();
    let mut foreign = Vec::new();
    for (uid, items) in fetched(&answer.untagged) {
        let header = items
            .iter()
            .find(|(name, _)| name.starts_with("BODY"))
            .and_then(|(_, v)| v.bytes());
        match header.and_then(names::marked_id) {
            Some(id) => found.push((uid, id)),
            None => foreign.push(uid),
        }
    }
    if !foreign.is_empty() {
        // They did not come through us. Their header is their name.
        let set = token::show_set(&foreign);
        let answer = session.ask(format!("UID FETCH {set} (UID BODY.PEEK[HEADER])").as_bytes())?;
        for (uid, items) in fetched(&answer.untagged) {
            let header = items
                .iter()
                .find(|(name, _)| name.starts_with("BODY"))
                .and_then(|(_, v)| v.bytes());
            if let Some(header) = header {
                found.push((uid, names::id_of(header)));
            }
        }
    }
    Ok(found)
}
