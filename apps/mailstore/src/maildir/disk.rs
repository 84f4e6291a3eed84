//! Every call that changes the disk, so that the order of writing and syncing
//! can be read, recorded and tested in one place.
//!
//! A `Disk` may have an observer, which is told each step after it was made.
//! `tests/power_cut.rs` records the steps and builds what a power cut could
//! have left at each of them. Without an observer a step costs a comparison.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::failure::{Action, Result};

/// One change of the disk. Data is durable after `SyncFile`, a name after the
/// `SyncDir` of its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Create { path: PathBuf, bytes: Vec<u8> },
    Append { path: PathBuf, bytes: Vec<u8> },
    SyncFile(PathBuf),
    Rename { from: PathBuf, to: PathBuf },
    Link { from: PathBuf, to: PathBuf },
    Unlink(PathBuf),
    MakeDir(PathBuf),
    RemoveDir(PathBuf),
    SyncDir(PathBuf),
}

pub trait Observer: Send + Sync {
    fn saw(&self, step: Step);
}

#[derive(Clone, Default)]
pub struct Disk {
    observer: Option<Arc<dyn Observer>>,
    is_relaxed: bool,
}

impl Disk {
    pub fn observed_by(observer: Arc<dyn Observer>) -> Self {
        Disk {
            observer: Some(observer),
            is_relaxed: false,
        }
    }

    /// One that syncs nothing, for somebody who syncs all of it or throws it away.
    pub fn relaxed() -> Self {
        Disk {
            observer: None,
            is_relaxed: true,
        }
    }

    /// Creates a file that must not exist yet, with these bytes, synced.
    pub fn create(&self, path: &Path, bytes: &[u8], modified: Option<SystemTime>) -> Result<()> {
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(bytes)?;
            if let Some(time) = modified {
                file.set_modified(time)?;
            }
            self.tell(|| Step::Create {
                path: path.into(),
                bytes: bytes.into(),
            });
            match self.is_relaxed {
                true => Ok(()),
                false => file.sync_all(),
            }
        })();
        if let Err(cause) = written {
            if cause.kind() != io::ErrorKind::AlreadyExists {
                // Half a file is of use to nobody; its name was told to nobody.
                let _ = fs::remove_file(path);
            }
            return Err(cause).on("write", path);
        }
        self.tell(|| Step::SyncFile(path.into()));
        Ok(())
    }

    /// Creates an empty file: it is durable when its name is.
    pub fn create_empty(&self, path: &Path) -> Result<()> {
        let mut options = OpenOptions::new();
        let created = options.write(true).create_new(true).mode(0o600).open(path);
        created.on("write", path)?;
        self.tell(|| Step::Create {
            path: path.into(),
            bytes: Vec::new(),
        });
        Ok(())
    }

    /// Adds bytes to a file that exists, synced if `durable`.
    pub fn append(&self, path: &Path, bytes: &[u8], durable: bool) -> Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .open(path)
            .on("open", path)?;
        file.write_all(bytes).on("append to", path)?;
        self.tell(|| Step::Append {
            path: path.into(),
            bytes: bytes.into(),
        });
        if durable && !self.is_relaxed {
            file.sync_data().on("sync", path)?;
            self.tell(|| Step::SyncFile(path.into()));
        }
        Ok(())
    }

    /// Puts a file with these bytes in the place of the one that is there: after
    /// a power cut there is the old one or the new one.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        // Two writers of one file (they hold different locks) must not share it.
        static TURN: AtomicU64 = AtomicU64::new(0);
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}-{turn}.tmp", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let _ = fs::remove_file(&fresh);
        self.create(&fresh, bytes, None)?;
        self.rename(&fresh, path)?;
        self.sync_dir_of(path)
    }

    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).action(|| format!("rename {} to {}", from.display(), to.display()))?;
        self.tell(|| Step::Rename {
            from: from.into(),
            to: to.into(),
        });
        Ok(())
    }

    pub fn link(&self, from: &Path, to: &Path) -> Result<()> {
        fs::hard_link(from, to)
            .action(|| format!("link {} to {}", from.display(), to.display()))?;
        self.tell(|| Step::Link {
            from: from.into(),
            to: to.into(),
        });
        Ok(())
    }

    /// Removes a file; one that is gone already is no error.
    pub fn unlink(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.on("remove", path)?,
        }
        self.tell(|| Step::Unlink(path.into()));
        Ok(())
    }

    /// Makes a directory for the owner alone; one that exists is no error.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => other.on("make the directory", path)?,
        }
        self.tell(|| Step::MakeDir(path.into()));
        Ok(())
    }

    /// Removes a directory with all that is in it.
    pub fn remove_tree(&self, path: &Path) -> Result<()> {
        for entry in fs::read_dir(path).on("read", path)? {
            let entry = entry.on("read", path)?;
            if entry.file_type().on("look at", &entry.path())?.is_dir() {
                self.remove_tree(&entry.path())?;
            } else {
                self.unlink(&entry.path())?;
            }
        }
        fs::remove_dir(path).on("remove", path)?;
        self.tell(|| Step::RemoveDir(path.into()));
        Ok(())
    }

    pub fn sync_dir(&self, path: &Path) -> Result<()> {
        if self.is_relaxed {
            return Ok(());
        }
        File::open(path)
            .and_then(|dir| dir.sync_all())
            .on("sync", path)?;
        self.tell(|| Step::SyncDir(path.into()));
        Ok(())
    }

    pub fn sync_dir_of(&self, path: &Path) -> Result<()> {
        self.sync_dir(path.parent().unwrap_or(Path::new("/")))
    }

    fn tell(&self, step: impl FnOnce() -> Step) {
        if let Some(observer) = &self.observer {
            observer.saw(step());
        }
    }
}
