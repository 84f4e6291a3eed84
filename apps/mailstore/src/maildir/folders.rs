//! The tree of an account's mailboxes: names, making, renaming, removing,
//! subscriptions.
//!
//! `.` separates levels, as in Maildir++, and a name on the wire (modified
//! UTF-7) is the name of the directory behind one more `.`. A directory that
//! begins with `..` is one being made or removed: a rename puts it in its place
//! or takes it away, whole, and what a power cut left of one is swept later.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::account::{Account, INBOX};
use super::disk::Disk;
use crate::failure::{Action, Result};

pub const SEPARATOR: char = '.';
const SUBSCRIPTIONS: &str = "subscriptions";
/// A directory's name has at most 255 octets, and ours begins with a dot.
const MAX_NAME: usize = 240;

/// The mailboxes of a new account, and which of RFC 6154's attributes they have.
pub const SPECIAL: [(&str, &str); 5] = [
    ("Archive", "\\Archive"),
    ("Drafts", "\\Drafts"),
    ("Junk", "\\Junk"),
    ("Sent", "\\Sent"),
    ("Trash", "\\Trash"),
];

pub fn special_use(mailbox: &str) -> Option<&'static str> {
    SPECIAL
        .iter()
        .find(|special| special.0 == mailbox)
        .map(|special| special.1)
}

/// Why a name cannot be that of a mailbox; else the name, INBOX in capitals.
pub fn check_name(name: &str) -> std::result::Result<String, &'static str> {
    if name.eq_ignore_ascii_case(INBOX) {
        return Ok(INBOX.to_string());
    }
    if name.is_empty() {
        return Err("the name is empty");
    }
    if name.len() > MAX_NAME {
        return Err("the name is longer than 240 octets");
    }
    if name.contains('/') {
        return Err("the name contains '/'; levels are separated by '.'");
    }
    if name.contains(['*', '%']) {
        return Err("the name contains a wildcard");
    }
    if !name.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err("the name is not in modified UTF-7");
    }
    if name.split(SEPARATOR).any(str::is_empty) {
        return Err("a level of the name is empty");
    }
    Ok(name.to_string())
}

/// Makes the directories above a Maildir.
pub fn make_parents(disk: &Disk, root: &Path) -> Result<()> {
    let missing: Vec<&Path> = root
        .ancestors()
        .skip(1)
        .take_while(|dir| !dir.is_dir())
        .collect();
    for dir in missing.into_iter().rev() {
        disk.make_dir(dir)?;
        disk.sync_dir_of(dir)?;
    }
    Ok(())
}

/// Makes a Maildir, or what is missing of it.
pub fn make_maildir(disk: &Disk, dir: &Path) -> Result<()> {
    if ["tmp", "new", "cur"]
        .iter()
        .all(|sub| dir.join(sub).is_dir())
    {
        return Ok(());
    }
    disk.make_dir(dir)?;
    for sub in ["tmp", "new", "cur"] {
        disk.make_dir(&dir.join(sub))?;
    }
    disk.sync_dir(dir)?;
    disk.sync_dir_of(dir)
}

/// Removes what was being made or removed when the power went.
pub fn sweep(disk: &Disk, root: &Path) -> Result<()> {
    for entry in std::fs::read_dir(root).on("read", root)? {
        let entry = entry.on("read", root)?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(".."))
        {
            disk.remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

impl Account {
    /// The names of all mailboxes, INBOX among them, sorted.
    pub fn list(&self) -> Result<BTreeSet<String>> {
        let _tree = self.with_folders()?;
        self.names()
    }

    /// Those that are on the disk; the standard folders of a new account need not be.
    pub fn names(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::from([INBOX.to_string()]);
        for entry in std::fs::read_dir(&self.root).on("read", &self.root)? {
            let entry = entry.on("read", &self.root)?;
            let file_name = entry.file_name();
            let Some(name) = file_name.to_str().and_then(|name| name.strip_prefix('.')) else {
                continue;
            };
            if check_name(name).as_deref() == Ok(name) && entry.path().join("cur").is_dir() {
                names.insert(name.to_string());
            }
        }
        Ok(names)
    }

    pub fn create(&self, mailbox: &str) -> Result<bool> {
        let _tree = self.with_folders()?;
        self.make_folder(mailbox)
    }

    /// Removes a mailbox with its messages; those below it stay.
    pub fn delete(&self, mailbox: &str) -> Result<bool> {
        let _tree = self.with_folders()?;
        if mailbox == INBOX || !self.exists(mailbox) {
            return Ok(false);
        }
        self.forget(mailbox);
        let grave = self.root.join(unseen_name("gone"));
        self.disk.rename(&self.dir_of(mailbox), &grave)?;
        self.disk.sync_dir(&self.root)?;
        self.disk.remove_tree(&grave)?;
        Ok(true)
    }

    /// Renames a mailbox and all below it. Each of them is renamed whole, one by
    /// one: a power cut may leave some with the old name.
    pub fn rename(&self, from: &str, to: &str) -> Result<Renamed> {
        let _tree = self.with_folders()?;
        let below = format!("{from}{SEPARATOR}");
        let mut pairs = Vec::new();
        for name in self.names()? {
            if name == from {
                pairs.push((name, to.to_string()));
            } else if let Some(rest) = name.strip_prefix(&below).filter(|_| from != INBOX) {
                let renamed = format!("{to}{SEPARATOR}{rest}");
                pairs.push((name, renamed));
            }
        }
        if pairs.is_empty() {
            return Ok(Renamed::Missing);
        }
        if pairs.iter().any(|(_, to)| self.exists(to)) {
            return Ok(Renamed::Exists);
        }
        if pairs.iter().any(|(_, to)| check_name(to).is_err()) {
            return Ok(Renamed::TooLong);
        }
        for (from, to) in &pairs {
            self.forget(from);
            self.disk.rename(&self.dir_of(from), &self.dir_of(to))?;
        }
        self.disk.sync_dir(&self.root)?;
        Ok(Renamed::Done)
    }

    pub fn subscriptions(&self) -> Result<BTreeSet<String>> {
        let _tree = self.with_folders()?;
        self.read_subscriptions()
    }

    fn read_subscriptions(&self) -> Result<BTreeSet<String>> {
        let path = self.root.join(SUBSCRIPTIONS);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(parse_subscriptions(&String::from_utf8_lossy(&bytes))),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(cause) => Err(cause).on("read", &path),
        }
    }

    pub fn subscribe(&self, mailbox: &str, wanted: bool) -> Result<()> {
        let _tree = self.with_folders()?;
        let before = self.read_subscriptions()?;
        let mut names = before.clone();
        if wanted {
            names.insert(mailbox.to_string())
        } else {
            names.remove(mailbox)
        };
        if names == before {
            return Ok(());
        }
        self.write_subscriptions(names.iter().map(String::as_str))
    }

    /// The folders of a new account. The file of subscriptions comes last: when it
    /// is there, the account is not new.
    pub(super) fn make_standard_folders(&self) -> Result<()> {
        if self.root.join(SUBSCRIPTIONS).exists() {
            return Ok(());
        }
        self.make_folders(&SPECIAL.map(|(name, _)| name))?;
        self.write_subscriptions([INBOX].into_iter().chain(SPECIAL.iter().map(|s| s.0)))
    }

    /// Makes a mailbox; false if it is there.
    fn make_folder(&self, mailbox: &str) -> Result<bool> {
        self.make_folders(&[mailbox])
    }

    /// Makes those of these mailboxes that are not there; false if all are. Each is made elsewhere
    /// and put into its place whole. (All are made before the first is synced: a file system with a
    /// journal writes it once then.)
    fn make_folders(&self, mailboxes: &[&str]) -> Result<bool> {
        let missing = mailboxes.iter().filter(|mailbox| !self.exists(mailbox));
        let fresh: Vec<(&&str, PathBuf)> = missing
            .map(|mailbox| (mailbox, self.root.join(unseen_name("new"))))
            .collect();
        for (_, dir) in &fresh {
            self.disk.make_dir(dir)?;
            for sub in ["tmp", "new", "cur"] {
                self.disk.make_dir(&dir.join(sub))?;
            }
            self.disk.create_empty(&dir.join("maildirfolder"))?;
        }
        for (_, dir) in &fresh {
            self.disk.sync_dir(dir)?;
        }
        for (mailbox, dir) in &fresh {
            self.disk.rename(dir, &self.dir_of(mailbox))?;
        }
        if !fresh.is_empty() {
            self.disk.sync_dir(&self.root)?;
        }
        Ok(!fresh.is_empty())
    }

    fn write_subscriptions<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<()> {
        let text: String = names.map(|name| format!("{name}\n")).collect();
        self.disk
            .replace(&self.root.join(SUBSCRIPTIONS), text.as_bytes())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renamed {
    Done,
    Missing,
    Exists,
    TooLong,
}

/// One name a line; Dovecot's second version has a head and tabs between levels.
fn parse_subscriptions(text: &str) -> BTreeSet<String> {
    let second = text.starts_with("V\t2\n");
    text.lines()
        .skip(if second { 2 } else { 0 })
        .map(|line| {
            if second {
                line.replace('\t', ".")
            } else {
                line.to_string()
            }
        })
        .filter_map(|name| check_name(&name).ok())
        .collect()
}

fn unseen_name(purpose: &str) -> String {
    static TURN: AtomicU64 = AtomicU64::new(0);
    format!(
        "..{purpose}-{}-{}",
        std::process::id(),
        TURN.fetch_add(1, Ordering::Relaxed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_account_are_refused() {
        for bad in [
            "", "a/b", "../x", "..", ".", ".a", "a.", "a..b", "a*", "a%b", "\u{e4}", "a\nb", "/etc",
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name(&"x".repeat(241)).is_err());
        assert_eq!(check_name("inbox").unwrap(), "INBOX");
        assert_eq!(check_name("Lists.rust&AOQ-").unwrap(), "Lists.rust&AOQ-");
    }

    #[test]
    fn both_versions_of_subscriptions_are_read() {
        let names = BTreeSet::from(["INBOX".to_string(), "a.b".to_string()]);
        assert_eq!(parse_subscriptions("inbox\na.b\n../x\n"), names);
        assert_eq!(parse_subscriptions("V\t2\n\nINBOX\na\tb\n"), names);
    }
}
