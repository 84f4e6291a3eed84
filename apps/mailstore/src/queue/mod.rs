//! Mail that is still to go somewhere: to the relay, or into a mailbox that could
//! not take it.
//!
//! ```text
//! queue/1732838400.M1P7Q5.message     the text, CRLF
//! queue/1732838400.M1P7Q5.envelope    sender, recipients, tries: TOML
//! ```
//! The message is synced before its envelope is put in place, so an envelope has
//! its message always; a message without one was never taken, and is swept. After
//! each try the envelope is replaced, whole. A crash between a relay's "250" and
//! that leads to a second copy: SMTP cannot do better.

pub mod bounce;
pub mod client;
pub mod runner;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::failure::{Action, Failure, Result};
use crate::maildir::disk::Disk;
use crate::maildir::{folders, name};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Empty for a bounce, which must not bounce itself.
    pub sender: String,
    /// Seconds since 1970.
    pub created: u64,
    pub next_try: u64,
    pub tries: u32,
    /// The sender was told that it takes long.
    pub warned: bool,
    /// What is still to be delivered.
    pub recipients: Vec<String>,
    /// The last reply, for the sender's eyes.
    pub last_reply: String,
}

impl Envelope {
    pub fn new(sender: &str, recipients: Vec<String>) -> Envelope {
        let now = now_seconds();
        Envelope {
            sender: sender.to_string(),
            created: now,
            next_try: now,
            tries: 0,
            warned: false,
            recipients,
            last_reply: String::new(),
        }
    }
}

pub struct Queue {
    dir: PathBuf,
    disk: Disk,
    entries: Mutex<BTreeMap<String, Envelope>>,
    pub(super) wake: tokio::sync::Notify,
}

impl Queue {
    /// Opens the queue and takes up what is in it.
    pub fn open(dir: PathBuf, disk: Disk) -> Result<Queue> {
        folders::make_parents(&disk, &dir.join("x"))?;
        let (entries, orphans) = scan(&dir)?;
        for orphan in orphans {
            disk.unlink(&orphan)?;
        }
        let entries = Mutex::new(entries);
        Ok(Queue {
            dir,
            disk,
            entries,
            wake: tokio::sync::Notify::new(),
        })
    }

    /// Puts a message into the queue, durable when this returns.
    pub fn add(&self, envelope: Envelope, text: &[u8]) -> Result<()> {
        let base = name::fresh_base(0, 0);
        let id = base.split(',').next().unwrap_or(&base).to_string();
        self.disk.create(&self.message_path(&id), text, None)?;
        self.write(&id, &envelope)?;
        self.entries().insert(id, envelope);
        self.wake.notify_one();
        Ok(())
    }

    /// What is to be tried now.
    pub(super) fn due(&self, now: u64) -> Vec<(String, Envelope)> {
        self.entries()
            .iter()
            .filter(|(_, envelope)| envelope.next_try <= now)
            .map(|(id, envelope)| (id.clone(), envelope.clone()))
            .collect()
    }

    /// When something is to be tried next.
    pub(super) fn next_try(&self) -> Option<u64> {
        self.entries().values().map(|e| e.next_try).min()
    }

    pub(super) fn message(&self, id: &str) -> Result<Vec<u8>> {
        let path = self.message_path(id);
        std::fs::read(&path).on("read", &path)
    }

    /// Puts the outcome of a try on record; with no recipient left it is done.
    pub(super) fn update(&self, id: &str, envelope: Envelope) -> Result<()> {
        if envelope.recipients.is_empty() {
            self.disk.unlink(&self.envelope_path(id))?;
            self.disk.sync_dir(&self.dir)?;
            self.disk.unlink(&self.message_path(id))?;
            self.entries().remove(id);
        } else {
            self.write(id, &envelope)?;
            self.entries().insert(id.to_string(), envelope);
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.entries().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn write(&self, id: &str, envelope: &Envelope) -> Result<()> {
        let path = self.envelope_path(id);
        let text = toml::to_string(envelope).map_err(|cause| {
            Failure::because(format!("write {}", path.display()), cause.to_string())
        })?;
        self.disk.replace(&path, text.as_bytes())
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Envelope>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message_path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.message"))
    }

    fn envelope_path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.envelope"))
    }
}

/// The envelopes of a queue's directory, and the files that belong to none.
pub fn scan(dir: &Path) -> Result<(BTreeMap<String, Envelope>, Vec<PathBuf>)> {
    let mut entries = BTreeMap::new();
    let mut others = Vec::new();
    for entry in std::fs::read_dir(dir).on("read", dir)? {
        let path = entry.on("read", dir)?.path();
        let file_name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        match file_name.strip_suffix(".envelope") {
            Some(id) => drop(entries.insert(id.to_string(), read_envelope(&path)?)),
            None => others.push(path),
        }
    }
    let is_orphan = |path: &PathBuf| {
        let file_name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        file_name.ends_with(".tmp")
            || file_name
                .strip_suffix(".message")
                .is_some_and(|id| !entries.contains_key(id))
    };
    others.retain(is_orphan);
    Ok((entries, others))
}

fn read_envelope(path: &Path) -> Result<Envelope> {
    let text = std::fs::read_to_string(path).on("read", path)?;
    toml::from_str(&text).map_err(|cause| {
        let why = format!(
            "it is no envelope ({}); move it away to go on",
            cause.message()
        );
        Failure::because(format!("read {}", path.display()), why)
    })
}

pub(super) fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
