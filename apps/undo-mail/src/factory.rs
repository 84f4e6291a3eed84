//! The UIDFactory: which folder of a user has which UndoID (paper, section 4.1.1).
//!
//! It is part of the live state, one file for each user, and so travels in time with the store:
//! after a rewind the names are those of then. Folders that did not come into being through us
//! get an UndoID that is made of their name.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::names::{self, Folder};

pub struct Factory {
    folder: PathBuf,
    cache: Mutex<HashMap<String, Names>>,
}

/// UndoIDs and names, of one user.
type Names = BTreeMap<u64, String>;

impl Factory {
    pub fn open(folder: &Path) -> Factory {
        Factory {
            folder: folder.to_owned(),
            cache: Mutex::default(),
        }
    }

    /// Forgets what was read: the state below has become another one.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// The folder that has this name now.
    pub fn folder(&self, user: &str, name: &str) -> io::Result<Folder> {
        let name = if name.eq_ignore_ascii_case("INBOX") {
            "INBOX"
        } else {
            name
        };
        let id = self.with(user, |names| {
            names
                .iter()
                .find(|(_, n)| n.as_str() == name)
                .map(|(id, _)| *id)
        })?;
        let id = id.unwrap_or_else(|| by_name(user, name));
        Ok(Folder {
            id,
            name: name.to_owned(),
        })
    }

    /// The name that this folder has now. One that never was created through us keeps its name.
    pub fn name(&self, user: &str, folder: &Folder) -> io::Result<Option<String>> {
        if folder.is_inbox() {
            return Ok(Some("INBOX".into()));
        }
        let known = self.with(user, |names| names.get(&folder.id).cloned())?;
        Ok(known
            .or_else(|| (folder.id == by_name(user, &folder.name)).then(|| folder.name.clone())))
    }

    /// Whether it came into being through us, and is not known to have gone.
    pub fn made(&self, user: &str, folder: &Folder) -> bool {
        let known = self.with(user, |names| names.contains_key(&folder.id));
        known.unwrap_or(false)
    }

    /// From now on the folder has this name. Those below it move along.
    pub fn set(&self, user: &str, folder: &Folder, name: &str, delimiter: &str) -> io::Result<()> {
        let mut cache = self.lock();
        let names = self.load(&mut cache, user)?;
        let old = names
            .insert(folder.id, name.to_owned())
            .unwrap_or_else(|| folder.name.clone());
        let below = format!("{old}{delimiter}");
        for other in names.values_mut() {
            if let Some(rest) = other.strip_prefix(&below) {
                *other = format!("{name}{delimiter}{rest}");
            }
        }
        self.save(user, names)
    }

    /// The folder is no more.
    pub fn remove(&self, user: &str, folder: &Folder) -> io::Result<()> {
        let mut cache = self.lock();
        let names = self.load(&mut cache, user)?;
        names.remove(&folder.id);
        self.save(user, names)
    }

    fn with<T>(&self, user: &str, look: impl FnOnce(&Names) -> T) -> io::Result<T> {
        let mut cache = self.lock();
        Ok(look(self.load(&mut cache, user)?))
    }

    fn load<'a>(
        &self,
        cache: &'a mut HashMap<String, Names>,
        user: &str,
    ) -> io::Result<&'a mut Names> {
        if !cache.contains_key(user) {
            let path = self.folder.join(file_name(user));
            let found = undo::settled::read::<Names>(&path).map_err(io::Error::other)?;
            cache.insert(user.to_owned(), found.unwrap_or_default());
        }
        cache
            .get_mut(user)
            .ok_or_else(|| io::Error::other("the factory lost a user"))
    }

    fn save(&self, user: &str, names: &Names) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        undo::settled::write(&self.folder.join(file_name(user)), names).map_err(io::Error::other)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Names>> {
        self.cache
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn by_name(user: &str, name: &str) -> u64 {
    match name {
        "INBOX" => names::inbox(),
        _ => names::hash(&[b"folder", user.as_bytes(), name.as_bytes()]),
    }
}

/// A user's name as a name of a file, whatever characters it has.
pub fn file_name(user: &str) -> String {
    user.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'0'..=b'9' | b'@' | b'-' | b'_' => (b as char).to_string(),
            b'.' => ".".into(),
            _ => format!("%{b:02X}"),
        })
        .collect::<String>()
        .replace("..", "%2E.")
        + ".names"
}
