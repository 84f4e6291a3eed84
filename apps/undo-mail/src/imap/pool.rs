//! Kept connections to the real IMAP server, and what is known of its folders.
//!
//! Verbs of users and of replays take their sessions from here. A session stays logged in and
//! keeps its folder selected, so that the next verb for it costs one exchange: a replay that
//! connects anew for each verb is three times slower. [`answers`] has what comes of it, [`idle`] the
//! sessions that nobody uses, [`known`] what the pool believes of folders.

mod answers;
mod idle;
mod known;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use answers::{Tried, Trouble, fetched, good};
use idle::Idle;
pub use known::Listing;
use known::{Known, lacks};

use super::copies::Copies;
use super::separator::Separator;
use super::session::{Answer, Session};
use crate::names::Message;

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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
