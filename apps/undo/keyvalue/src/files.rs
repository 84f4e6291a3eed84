//! The state: `USER/KEY`, one file each; a file `users` that says who may be posted to.
//!
//! Every change is a new file that is renamed over the old one, so no death leaves half a value.
//! Lines of posts begin with their identity, so that a post which may have happened is not made
//! twice; changes carry the LSN of the verb that made them for the same reason.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use undo::{Error, Result};

use crate::verbs::{Act, Shown, Verb};

/// A fault planted into the service, for tests and demonstrations.
pub type Fault = fn(&Verb) -> Option<Act>;

pub struct Files {
    root: PathBuf,
    temporary: AtomicU64,
    /// The service misbehaves while this is set: it does another act than the verb says.
    pub fault: std::sync::RwLock<Option<Fault>>,
}

impl Files {
    pub fn open(root: &Path) -> Files {
        Files {
            root: root.to_owned(),
            temporary: AtomicU64::new(std::process::id().into()),
            fault: Default::default(),
        }
    }

    /// Says who may be posted to; `None` for all.
    pub fn set_users(&self, users: Option<&[&str]>) -> io::Result<()> {
        match users {
            Some(users) => fs::write(self.root.join("users"), users.join("\n")),
            None => match fs::remove_file(self.root.join("users")) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            },
        }
    }

    pub fn ready(&self) -> Result<()> {
        match self.root.is_dir() {
            true => Ok(()),
            false => Err(Error::new(self.root.display(), "open", "it is not there")),
        }
    }

    /// Does what a verb says. `settle`: it may have been done before.
    pub fn act(&self, verb: &Verb, lsn: u64, settle: bool) -> std::result::Result<Shown, String> {
        let fault = *self.fault.read().unwrap_or_else(|p| p.into_inner());
        let faulty = fault.and_then(|fault| fault(verb));
        self.act_on(verb, faulty.as_ref().unwrap_or(&verb.act), lsn, settle)
            .map_err(|e| e.to_string())
    }

    fn act_on(&self, verb: &Verb, act: &Act, lsn: u64, settle: bool) -> io::Result<Shown> {
        let path = self.path(&verb.user, &verb.key);
        match act {
            Act::Get => Ok(Shown::Value(self.value(&path)?)),
            Act::List => Ok(Shown::Keys(self.keys(&verb.user)?)),
            Act::Put(value) => self.write(&path, &format!("{value}\n")),
            Act::Append(value) => {
                let old = read(&path)?.unwrap_or_default();
                let line = format!("{value}@{lsn}");
                if settle && old.lines().any(|l| l == line) {
                    return Ok(Shown::Nothing);
                }
                self.write(&path, &format!("{old}{line}\n"))
            }
            Act::Delete => match fs::remove_file(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && !settle => Err(e),
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(Shown::Nothing),
            },
            Act::Post { id, line, .. } => self.post(verb, &path, *id, line, settle),
        }
    }

    fn post(
        &self,
        verb: &Verb,
        path: &Path,
        id: u64,
        line: &str,
        settle: bool,
    ) -> io::Result<Shown> {
        if let Some(users) = read(&self.root.join("users"))?
            && !users.lines().any(|user| user == verb.user)
        {
            return Err(io::Error::other(format!("there is no user {}", verb.user)));
        }
        // One file a post: two of them at once need not know of each other.
        let place = path.with_extension("posts").join(format!("{id:016}"));
        match read(&place)? {
            Some(_) if settle => Ok(Shown::Nothing),
            // Whoever posts twice is seen to have done so.
            Some(old) => self.write(&place, &format!("{old}\n{line}")),
            None => self.write(&place, line),
        }
    }

    /// A value as users see it: without the LSNs, and with its posts behind.
    fn value(&self, path: &Path) -> io::Result<Option<String>> {
        let own = read(path)?.map(|text| {
            let lines = text
                .lines()
                .map(|l| l.rsplit_once('@').map_or(l, |(value, _)| value));
            lines.collect::<Vec<_>>().join("\n")
        });
        let mut posts = Vec::new();
        for name in names(&path.with_extension("posts"))? {
            posts.extend(read(&path.with_extension("posts").join(name))?);
        }
        if posts.is_empty() {
            return Ok(own);
        }
        posts.insert(0, own.unwrap_or_default());
        Ok(Some(posts.join("\n")))
    }

    fn keys(&self, user: &str) -> io::Result<Vec<String>> {
        let names = names(&self.root.join(Self::folder_of(user)))?;
        let keys: BTreeSet<String> = names
            .into_iter()
            .filter(|n| !n.starts_with('.') && n != "explanations")
            .map(|n| n.trim_end_matches(".posts").to_owned())
            .collect();
        Ok(keys.into_iter().collect())
    }

    /// Adds a line to what the user is told.
    pub fn explain(&self, user: &str, words: &str) -> io::Result<()> {
        let path = self.root.join(Self::folder_of(user)).join("explanations");
        let old = read(&path)?.unwrap_or_default();
        self.write(&path, &format!("{old}{words}\n")).map(drop)
    }

    pub fn explanations(&self, user: &str) -> io::Result<Vec<String>> {
        let path = self.root.join(Self::folder_of(user)).join("explanations");
        Ok(read(&path)?
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect())
    }

    pub fn folder_of(user: &str) -> String {
        format!("u-{user}")
    }

    fn path(&self, user: &str, key: &str) -> PathBuf {
        self.root.join(Self::folder_of(user)).join(key)
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<Shown> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        let fresh = folder.join(format!(
            ".new-{}",
            self.temporary.fetch_add(1, Ordering::Relaxed)
        ));
        fs::write(&fresh, text)?;
        fs::rename(&fresh, path)?;
        Ok(Shown::Nothing)
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut names: Vec<String> = entries
        .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}
