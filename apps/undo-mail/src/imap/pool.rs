//! Kept connections to the real IMAP server, and what is known of its folders.
//!
//! Verbs of users and of replays take their sessions from here. A session stays logged in and
//! keeps its folder selected, so that the next verb for it costs one exchange: a replay that
//! connects anew for each verb is three times slower.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::copies::Copies;
use super::separator::Separator;
use super::session::{Answer, Kind, Session};
use super::token::{self, Token};
use crate::names::{self, Message};

/// How the pool logs in.
#[derive(Debug, Clone)]
pub struct Login {
    /// HOST:PORT of the real server.
    pub address: String,
    /// The name that logs in as any user, with `{user}` in it: `{user}*proxy` for Dovecot.
    pub name: String,
    pub password: String,
    pub patience: Duration,
}

/// More idle sessions are not kept.
const MOST_IDLE: usize = 400;

pub struct Pool {
    login: Login,
    idle: Mutex<Idle>,
    /// UIDs of the real server, by user and folder.
    known: Mutex<HashMap<UserFolder, Arc<Mutex<Known>>>>,
    copies: Copies,
    separator: Separator,
}

/// A user, and the name of a folder.
type UserFolder = (String, String);

/// Sessions that nobody uses now, by user.
#[derive(Default)]
struct Idle {
    sessions: HashMap<String, Vec<Session>>,
    /// How often a user's sessions were forgotten. One that was in use then, and is older, is not
    /// kept when it comes back: what it has selected may have another name now.
    forgotten: HashMap<String, u64>,
    /// Which of those forgettings was the last because a folder was renamed or deleted. An older
    /// session may have selected what is no more, under a name that another folder has now.
    trees: HashMap<String, u64>,
}

impl Idle {
    fn generation(&self, user: &str) -> u64 {
        self.forgotten.get(user).copied().unwrap_or(0)
    }

    /// From now on the sessions of a user are of another generation. Returns the old ones.
    fn forget(&mut self, user: &str) -> Vec<Session> {
        *self.forgotten.entry(user.to_owned()).or_default() += 1;
        self.sessions.remove(user).unwrap_or_default()
    }

    /// Whether a session may have selected a folder that was renamed or deleted since.
    fn is_stale(&self, user: &str, session: &Session) -> bool {
        session.generation < self.trees.get(user).copied().unwrap_or(0)
    }
}

/// What a folder of the real server holds, as far as anybody has asked.
#[derive(Default)]
struct Known {
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

/// Why something could not be done with the real server.
#[derive(Debug)]
pub enum Trouble {
    /// It answered NO or BAD, and said this.
    Refused(String),
    /// It did not answer.
    Gone(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Gone(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Refused(text) => f.write_str(text),
            Trouble::Gone(error) => write!(f, "the mail server does not answer: {error}"),
        }
    }
}

pub type Tried<T> = Result<T, Trouble>;

impl Pool {
    pub fn new(login: Login, copies: Copies, separator: Separator) -> Pool {
        Pool {
            login,
            copies,
            separator,
            idle: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// Logs in with a user's own password, to see whether it is right.
    pub fn check_password(&self, user: &str, password: &str) -> io::Result<bool> {
        match Session::open(&self.login.address, user, password, self.login.patience) {
            Ok(session) => {
                session.log_out();
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn connect(&self, user: &str) -> io::Result<Session> {
        let name = self.login.name.replace("{user}", user);
        let generation = lock(&self.idle).generation(user);
        let mut session = Session::open(
            &self.login.address,
            &name,
            &self.login.password,
            self.login.patience,
        )?;
        session.generation = generation;
        self.separator.check(&mut session)?;
        Ok(session)
    }

    /// Whether the server answers at all, and is not known to be one that cannot be used.
    pub fn ready(&self) -> io::Result<()> {
        self.separator.is_not_wrong()?;
        std::net::TcpStream::connect(&self.login.address).map(drop)
    }

    /// What stands between a folder and one below it.
    pub fn separator(&self, user: &str) -> Tried<String> {
        if let Some(known) = self.separator.known() {
            return Ok(known);
        }
        // It is asked for in the first session of all.
        self.give_back(user, self.connect(user)?);
        let unknown = || Trouble::Refused("the mail server has no separator of folders".into());
        self.separator.known().ok_or_else(unknown)
    }

    /// Does something in a session of this user.
    pub fn with<T>(&self, user: &str, work: impl FnOnce(&mut Session) -> Tried<T>) -> Tried<T> {
        // (A server ends sessions that are idle for long, and the own store those whose folder is
        // renamed or deleted. What changes something must not be asked twice, so it is tried first.)
        let kept = self
            .take(user, None)
            .and_then(|mut s| s.ask(b"NOOP").is_ok().then_some(s));
        let mut session = match kept {
            Some(session) => session,
            None => self.connect(user)?,
        };
        let result = work(&mut session);
        if !matches!(result, Err(Trouble::Gone(_))) {
            self.give_back(user, session);
        }
        result
    }

    /// Asks what changes nothing: if a kept session does not answer, a new one is asked.
    pub fn ask(&self, user: &str, command: &[u8]) -> Tried<Answer> {
        let kept = self.take(user, None);
        let answer = kept.and_then(|mut session| Some((session.ask(command).ok()?, session)));
        let (answer, session) = match answer {
            Some(answered) => answered,
            None => {
                let mut session = self.connect(user)?;
                (session.ask(command)?, session)
            }
        };
        self.give_back(user, session);
        good(answer)
    }

    /// Does something in a session that has this folder selected, with a list of its messages.
    pub fn within<T>(
        &self,
        user: &str,
        folder: &str,
        read_only: bool,
        work: impl FnOnce(&mut Session, &Listing) -> Tried<T>,
    ) -> Tried<T> {
        self.within_naming(user, folder, read_only, &[], work)
    }

    /// The same, for work on these messages. If one of them is not listed, the server is asked to
    /// look again: Dovecot's NOOP need not see what another of its processes has just put there.
    pub fn within_naming<T>(
        &self,
        user: &str,
        folder: &str,
        read_only: bool,
        messages: &[Message],
        work: impl FnOnce(&mut Session, &Listing) -> Tried<T>,
    ) -> Tried<T> {
        let (mut session, was_kept) = self.selected(user, folder, read_only)?;
        let mut listing = self.listing(user, &mut session)?;
        if lacks(&listing, messages) {
            session.ask(b"CHECK")?;
            listing = self.listing(user, &mut session)?;
        }
        let is_behind = self.is_behind(user, &mut session, !was_kept);
        if was_kept && (is_behind || lacks(&listing, messages)) {
            // Nor need a folder that is open: what is opened anew is looked through from the start.
            session.selected = None;
            if let Err(refused) = session.select(folder, read_only)? {
                self.give_back(user, session);
                return Err(Trouble::Refused(refused));
            }
            listing = self.listing(user, &mut session)?;
            self.is_behind(user, &mut session, true);
        }
        let result = work(&mut session, &listing);
        self.note_gone(user, &mut session);
        if !matches!(result, Err(Trouble::Gone(_))) {
            self.give_back(user, session);
        }
        result
    }

    /// Opens a folder, and lists nothing.
    pub fn open(&self, user: &str, folder: &str, read_only: bool) -> Tried<()> {
        let (session, _) = self.selected(user, folder, read_only)?;
        self.give_back(user, session);
        Ok(())
    }

    /// A session that has this folder selected, and whether it was kept from before.
    fn selected(&self, user: &str, folder: &str, read_only: bool) -> Tried<(Session, bool)> {
        let kept = self.take(user, Some(folder));
        let was_kept = kept.is_some();
        let mut session = match kept {
            Some(session) => session,
            None => self.connect(user)?,
        };
        let mut selected = session.select(folder, read_only);
        if selected.is_err() && was_kept {
            // The server has ended a session that was idle.
            session = self.connect(user)?;
            selected = session.select(folder, read_only);
        }
        if let Err(refused) = selected? {
            self.give_back(user, session);
            return Err(Trouble::Refused(refused));
        }
        Ok((session, was_kept))
    }

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
    fn is_behind(&self, user: &str, session: &mut Session, fresh: bool) -> bool {
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

    fn note_gone(&self, user: &str, session: &mut Session) {
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

    fn take(&self, user: &str, folder: Option<&str>) -> Option<Session> {
        let mut idle = lock(&self.idle);
        let sessions = idle.sessions.get_mut(user)?;
        let matching = |s: &Session| {
            folder.is_some_and(|f| {
                s.selected
                    .as_ref()
                    .is_some_and(|selected| selected.folder == f)
            })
        };
        match sessions.iter().position(matching) {
            Some(at) => Some(sessions.swap_remove(at)),
            None => sessions.pop(),
        }
    }

    fn give_back(&self, user: &str, session: Session) {
        let mut idle = lock(&self.idle);
        let count: usize = idle.sessions.values().map(Vec::len).sum();
        if session.generation < idle.generation(user) {
            drop(idle);
            session.log_out();
            return;
        }
        // Of too many, some user's session has to go; whose is all the same.
        let surplus = idle.sessions.values_mut().find(|s| !s.is_empty());
        let surplus = surplus.filter(|_| count >= MOST_IDLE).and_then(Vec::pop);
        let sessions = idle.sessions.entry(user.to_owned()).or_default();
        sessions.push(session);
        drop(idle);
        // (Nobody needs to wait until the server has let go of it.)
        drop(surplus);
    }

    /// Forgets everything: the state below is about to become another one.
    pub fn forget(&self) {
        let sessions = std::mem::take(&mut lock(&self.idle).sessions);
        // Side by side: each waits for the end of a process of the server.
        std::thread::scope(|scope| {
            for session in sessions.into_values().flatten() {
                scope.spawn(|| session.log_out());
            }
        });
        lock(&self.known).clear();
        self.separator.check_again();
    }

    /// Has the next verbs of a user begin with new sessions.
    pub fn forget_sessions(&self, user: &str) {
        let sessions = lock(&self.idle).forget(user);
        sessions.into_iter().for_each(Session::log_out);
    }

    /// Forgets what is known of a folder that was renamed or deleted, and of those below it.
    /// Sessions that nobody uses let go of it; those in use do not come back.
    pub fn forget_folder(&self, user: &str, folder: &str) {
        let mut idle = lock(&self.idle);
        let sessions = idle.forget(user);
        let generation = idle.generation(user);
        idle.trees.insert(user.to_owned(), generation);
        drop(idle);
        let mut forgotten = Vec::new();
        lock(&self.known).retain(|(u, f), known| {
            let stays = u != user || !f.starts_with(folder);
            if !stays {
                forgotten.push(known.clone());
            }
            stays
        });
        // Whoever has not seen yet that it is forgotten is done with it when it can be locked.
        forgotten.iter().for_each(|known| drop(lock(known)));
        for mut session in sessions {
            let selected = session.selected.as_ref();
            if selected.is_some_and(|s| s.folder.starts_with(folder)) && !session.unselect() {
                session.log_out();
                continue;
            }
            session.generation = generation;
            self.give_back(user, session);
        }
    }
}

/// What the server has answered, if it has done what it was asked for.
pub fn good(answer: Answer) -> Tried<Answer> {
    match answer.kind {
        Kind::Ok => Ok(answer),
        _ => Err(Trouble::Refused(answer.text)),
    }
}

fn lacks(listing: &Listing, messages: &[Message]) -> bool {
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

/// The FETCH responses that have a UID: the UID, and names and values of the items.
pub fn fetched(untagged: &[Vec<Token>]) -> Vec<(u32, Vec<(String, Token)>)> {
    let mut found = Vec::new();
    for response in untagged {
        if response.get(1).and_then(Token::word).as_deref() != Some("FETCH") {
            continue;
        }
        let Some(list) = response.get(2).and_then(Token::list) else {
            continue;
        };
        let items: Vec<(String, Token)> = list
            .chunks_exact(2)
            .map(|pair| (pair[0].word().unwrap_or_default(), pair[1].clone()))
            .collect();
        if let Some(uid) = items
            .iter()
            .find(|(name, _)| name == "UID")
            .and_then(|(_, v)| v.number())
        {
            found.push((uid, items));
        }
    }
    found
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
