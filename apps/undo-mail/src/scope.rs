//! Parts of the mail that can be taken back alone: one user (`ann`), or one folder (`ann/Work`).
//!
//! A folder is taken back as the files of its Maildir. Verbs know it by the name that its user gave
//! then; so a cycle of one folder cannot reach over a verb that makes, renames or removes it, nor over
//! one that brings messages from another folder, which stays as it is. Such a cycle is refused.

use std::path::{Path, PathBuf};

use crate::factory;
use crate::imap::copies::Copies;
use crate::names::Folder;
use crate::verbs::{Act, Verb};

/// What belongs to INBOX in a Maildir whose other folders lie beside it (Maildir++), of the own store
/// and of Dovecot.
const OF_INBOX: [&str; 12] = [
    "cur",
    "new",
    "tmp",
    "dovecot-uidlist",
    "dovecot-keywords",
    "dovecot.index",
    "dovecot.index.cache",
    "dovecot.index.log",
    "dovecot.index.log.2",
    "dovecot.index.thread",
    "dovecot.index.backup",
    "mailstore-modseq",
];

pub struct Scope<'a> {
    pub user: &'a str,
    pub folder: Option<&'a str>,
}

impl Scope<'_> {
    pub fn parse(text: &str) -> Scope<'_> {
        let (user, folder) = match text.split_once('/') {
            Some((user, folder)) => (user, Some(folder)),
            None => (text, None),
        };
        let folder = folder.map(|name| match name.eq_ignore_ascii_case("INBOX") {
            true => "INBOX",
            false => name,
        });
        Scope { user, folder }
    }

    /// Its files, below the live state, where `mail_of_user` says where a user's are. `None`: it is
    /// no name of a user or folder.
    pub fn paths(&self, mail_of_user: &str) -> Option<Vec<PathBuf>> {
        let is_odd = |name: &str| name.is_empty() || name.contains('/') || name.contains("..");
        if is_odd(self.user) || self.folder.is_some_and(|f| is_odd(f) || f.starts_with('.')) {
            return None;
        }
        let mail = PathBuf::from(mail_of_user.replace("{user}", self.user));
        let copies = Path::new("copies").join(Copies::place_of(self.user));
        Some(match self.folder {
            None => {
                let names = Path::new("factory").join(factory::file_name(self.user));
                vec![mail, names, copies]
            }
            Some(folder) => {
                let mut paths = vec![copies.join(Copies::file_of(folder))];
                match folder {
                    "INBOX" => paths.extend(OF_INBOX.map(|name| mail.join(name))),
                    _ => paths.push(mail.join(format!(".{folder}"))),
                }
                paths
            }
        })
    }

    /// The part of a verb that is of this scope.
    pub fn part_of(&self, verb: &Verb) -> Option<Verb> {
        if !self.is_users(verb) {
            return None;
        }
        let Some(name) = self.folder else {
            return Some(verb.clone());
        };
        match &verb.act {
            // The other folder has them already.
            Act::Move {
                folder,
                messages,
                to,
            } if is(folder, name) && !is(to, name) => {
                let (folder, messages) = (folder.clone(), messages.clone());
                Some(Verb::new(&verb.user, Act::Expunge { folder, messages }))
            }
            Act::Copy { folder, to, .. } | Act::Move { folder, to, .. } => {
                (is(folder, name) && is(to, name)).then(|| verb.clone())
            }
            Act::Deliver { .. } | Act::Explain { .. } => (name == "INBOX").then(|| verb.clone()),
            Act::List { .. } | Act::Subscribe { .. } => None,
            _ => verb
                .folder()
                .filter(|folder| is(folder, name))
                .map(|_| verb.clone()),
        }
    }

    /// Whether a verb does to this folder what cannot be done again without others, or decides which
    /// folder has this name.
    pub fn needs_others_for(&self, verb: &Verb) -> bool {
        let Some(name) = self.folder.filter(|_| self.is_users(verb)) else {
            return false;
        };
        // Its own name, or that of one above it.
        let is_above = |other: &str| {
            let below = name.strip_prefix(other);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
        };
        match &verb.act {
            Act::Copy { folder, to, .. } | Act::Move { folder, to, .. } => {
                is(to, name) && !is(folder, name)
            }
            Act::Create { folder } | Act::Delete { folder } => folder.name == name,
            Act::Rename { folder, to } => is_above(&folder.name) || is_above(to),
            _ => false,
        }
    }

    fn is_users(&self, verb: &Verb) -> bool {
        let Act::Deliver { to, .. } = &verb.act else {
            return verb.user == self.user;
        };
        let local = to.split('@').next().unwrap_or_default();
        [to.as_str(), local]
            .iter()
            .any(|name| name.eq_ignore_ascii_case(self.user))
    }
}

fn is(folder: &Folder, name: &str) -> bool {
    match folder.is_inbox() {
        true => name == "INBOX",
        false => folder.name == name,
    }
}
