//! One account's mail: its mailboxes, deliveries into them, and its quota.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::disk::Disk;
use super::folders;
use super::mailbox::{Mailbox, Shared};
use super::name;
use crate::failure::{Action, Failure, Result};
use crate::message::lines;

/// So many mailboxes stay open that no session has selected: STATUS asks again.
const IDLE_MAILBOXES: usize = 32;
/// Other programs change the mail too; after so long the quota is counted anew.
const RECOUNT: Duration = Duration::from_secs(900);
/// A file in `tmp` that is older belongs to no delivery (Maildir says 36 hours).
const STALE_TMP: Duration = Duration::from_secs(36 * 3600);

pub const INBOX: &str = "INBOX";
const VALIDITY_FILE: &str = "mailstore-uidvalidity";

pub struct Account {
    /// The address that names it.
    pub name: String,
    /// Its Maildir.
    pub root: PathBuf,
    /// Octets of files it may hold.
    pub quota: Option<u64>,
    pub(super) disk: Disk,
    used: Mutex<Option<(u64, Instant)>>,
    pub(super) open: Mutex<HashMap<String, Shared>>,
    /// Held while folders are made, renamed or removed, and for UIDVALIDITYs.
    pub(super) tree: Mutex<Tree>,
}

#[derive(Default)]
pub(super) struct Tree {
    /// INBOX is there.
    ready: bool,
    /// So are the standard folders.
    has_folders: bool,
}

impl Account {
    pub fn new(name: &str, root: PathBuf, quota: Option<u64>, disk: Disk) -> Account {
        Account {
            name: name.to_string(),
            root,
            quota,
            disk,
            used: Mutex::default(),
            open: Mutex::default(),
            tree: Mutex::default(),
        }
    }

    pub(super) fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_mailboxes(&self) -> MutexGuard<'_, HashMap<String, Shared>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes INBOX if this is the account's first use, and finishes or takes away what a power cut
    /// left half done.
    pub fn prepare(&self) -> Result<()> {
        self.prepared().map(drop)
    }

    fn prepared(&self) -> Result<MutexGuard<'_, Tree>> {
        let mut tree = self.tree();
        if tree.ready {
            return Ok(tree);
        }
        folders::make_parents(&self.disk, &self.root)?;
        folders::make_maildir(&self.disk, &self.root)?;
        folders::sweep(&self.disk, &self.root)?;
        for mailbox in self.names()? {
            sweep_tmp(&self.disk, &self.dir_of(&mailbox).join("tmp"))?;
        }
        tree.ready = true;
        Ok(tree)
    }

    /// Makes the standard folders too. Nobody can tell that they were not there from the start, for
    /// all that shows or takes a mailbox but INBOX comes through here; and a mail that comes for
    /// a new account needs none of their 18 directories.
    pub(super) fn with_folders(&self) -> Result<MutexGuard<'_, Tree>> {
        let mut tree = self.prepared()?;
        if !tree.has_folders {
            self.make_standard_folders()?;
            tree.has_folders = true;
        }
        Ok(tree)
    }

    fn prepare_for(&self, mailbox: &str) -> Result<()> {
        match mailbox {
            INBOX => self.prepare(),
            _ => self.with_folders().map(drop),
        }
    }

    /// The directory of a mailbox; the name has passed `folders::check_name`.
    pub fn dir_of(&self, mailbox: &str) -> PathBuf {
        if mailbox == INBOX {
            self.root.clone()
        } else {
            self.root.join(format!(".{mailbox}"))
        }
    }

    /// Whether the account has a mailbox of this name.
    pub fn has(&self, mailbox: &str) -> Result<bool> {
        self.prepare_for(mailbox)?;
        Ok(self.exists(mailbox))
    }

    pub(super) fn exists(&self, mailbox: &str) -> bool {
        self.dir_of(mailbox).join("cur").is_dir()
    }

    /// Opens a mailbox, or gives the one that is open already; `None` if the
    /// account has none of this name.
    pub fn mailbox(&self, mailbox: &str) -> Result<Option<Shared>> {
        self.prepare_for(mailbox)?;
        // The lock is held while the mailbox is read: two of one name must not be.
        let mut open = self.open_mailboxes();
        if let Some(shared) = open.get(mailbox) {
            return Ok(Some(shared.clone()));
        }
        if !self.exists(mailbox) {
            return Ok(None);
        }
        if open.len() >= IDLE_MAILBOXES {
            open.retain(|_, shared| Shared::strong_count(shared) > 1);
        }
        let dir = self.dir_of(mailbox);
        let fresh = || self.fresh_validity();
        let shared = Shared::new(Mailbox::open(mailbox, dir, self.disk.clone(), fresh)?);
        open.insert(mailbox.to_string(), shared.clone());
        Ok(Some(shared))
    }

    /// Forgets an open mailbox whose directory is to be renamed or removed; the
    /// sessions that have it selected are told by `gone`.
    pub(super) fn forget(&self, mailbox: &str) {
        if let Some(shared) = self.open_mailboxes().remove(mailbox) {
            shared.lock().gone = true;
            shared.announce();
        }
    }

    /// Puts a message into `new`, durable when this returns. The text has CRLF or
    /// LF line ends. The name of the file's base is returned.
    pub fn deliver(&self, mailbox: &str, text: &[u8]) -> Result<String> {
        self.prepare_for(mailbox)?;
        let dir = self.dir_of(mailbox);
        let (stored, wire_len) = lines::to_stored(text);
        let base = name::fresh_base(stored.len(), wire_len);
        let staged = dir.join("tmp").join(&base);
        self.disk.create(&staged, &stored, None)?;
        if let Err(failure) = self.disk.rename(&staged, &dir.join("new").join(&base)) {
            let _ = self.disk.unlink(&staged);
            return Err(failure);
        }
        self.disk.sync_dir(&dir.join("new"))?;
        self.charge(stored.len() as i64);
        if let Some(shared) = self.open_mailboxes().get(mailbox) {
            shared.arrived_in_new();
        }
        Ok(base)
    }

    /// Octets of files that the account holds.
    pub fn used(&self) -> Result<u64> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match *used {
            Some((octets, counted)) if counted.elapsed() < RECOUNT => Ok(octets),
            _ => {
                let octets = self.count()?;
                *used = Some((octets, Instant::now()));
                Ok(octets)
            }
        }
    }

    pub fn has_quota(&self) -> bool {
        self.quota.is_some()
    }

    /// Whether so many octets more are within the quota.
    pub fn has_room_for(&self, octets: u64) -> Result<bool> {
        let Some(quota) = self.quota else {
            return Ok(true);
        };
        if self.used()?.saturating_add(octets) <= quota {
            return Ok(true);
        }
        // Before a refusal it is counted, for another program may have made room.
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(self.used()?.saturating_add(octets) <= quota)
    }

    /// Adds to what is known of the octets, or takes away.
    pub fn charge(&self, octets: i64) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((sum, _)) = used.as_mut() {
            *sum = sum.saturating_add_signed(octets);
        }
    }

    fn count(&self) -> Result<u64> {
        self.prepare()?;
        let mut octets = 0;
        for mailbox in self.names()? {
            for sub in ["new", "cur"] {
                let dir = self.dir_of(&mailbox).join(sub);
                for entry in std::fs::read_dir(&dir).on("read", &dir)? {
                    let entry = entry.on("read", &dir)?;
                    let file_name = entry.file_name();
                    let base = name::split(file_name.to_str().unwrap_or_default()).0;
                    octets += super::changes::file_len(&entry.path(), base);
                }
            }
        }
        Ok(octets)
    }

    /// A UIDVALIDITY that no mailbox of the account has ever had: durable before
    /// it is used, and never below the time.
    fn fresh_validity(&self) -> Result<u32> {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock();
        let path = self.root.join(VALIDITY_FILE);
        let last: u32 = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                let why = format!("it says {text:?} and not a number; remove it if it is broken");
                Failure::because(format!("read {}", path.display()), why)
            })?,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => 0,
            Err(cause) => return Err(cause).on("read", &path),
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_secs() as u32);
        let fresh = now.max(last.saturating_add(1)).max(1);
        self.disk.replace(&path, format!("{fresh}\n").as_bytes())?;
        Ok(fresh)
    }
}

fn sweep_tmp(disk: &Disk, tmp: &Path) -> Result<()> {
    for entry in std::fs::read_dir(tmp).on("read", tmp)? {
        let path = entry.on("read", tmp)?.path();
        let age = std::fs::metadata(&path)
            .and_then(|m| m.modified())
            .map_or(Duration::ZERO, |time| time.elapsed().unwrap_or_default());
        if age > STALE_TMP && path.is_file() {
            disk.unlink(&path)?;
        }
    }
    Ok(())
}
