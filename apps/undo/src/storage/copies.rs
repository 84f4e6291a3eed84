//! Snapshots as copies: works everywhere, for every user. Where the file system has reflinks
//! (btrfs, XFS) the contents of files are shared, and only names and inodes are made anew.

use std::path::{Path, PathBuf};

use super::{
    Storage, Tools, exchange, finished, forget_unfinished, put_aside, remove_aside, remove_slowly,
    remove_tree, sync_file_system, sync_folder,
};
use crate::{Context, Error, Result};

/// So often a copy is begun whose files go away under it.
const TRIES: usize = 5;

pub struct Copies {
    live: PathBuf,
    snapshots: PathBuf,
    tools: Tools,
}

impl Copies {
    /// Opens the storage in `home`, and removes what a death has left half done.
    pub fn open(home: &Path) -> Result<Copies> {
        let (live, snapshots) = (home.join("live"), home.join("snapshots"));
        let copies = Copies {
            live,
            snapshots,
            tools: Tools::open(home)?,
        };
        for folder in [&copies.live, &copies.snapshots] {
            std::fs::create_dir_all(folder).context(folder.display(), "create")?;
        }
        put_aside(&home.join("live.new"))?;
        forget_unfinished(&copies.snapshots)?;
        Ok(copies)
    }
}

impl Storage for Copies {
    fn live(&self) -> &Path {
        &self.live
    }

    fn snapshot(&self, name: &str) -> Result<()> {
        let fresh = self.snapshots.join(format!("{name}.new"));
        let mut tries = 0;
        loop {
            remove_tree(&fresh)?;
            tries += 1;
            match self.tools.copy_tree(&self.live, &fresh) {
                Err(error) if tries < TRIES => {
                    // A service that runs on has taken a lock file away while it was copied.
                    if !error.to_string().contains("No such file") {
                        return Err(error);
                    }
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
                done => break done?,
            }
        }
        sync_file_system(&self.snapshots)?;
        let place = self.snapshots.join(name);
        std::fs::rename(&fresh, &place).context(place.display(), "name a snapshot")?;
        sync_folder(&self.snapshots)
    }

    fn restore(&self, name: &str) -> Result<()> {
        let source = existing(&self.snapshots, name)?;
        let fresh = self.live.with_extension("new");
        put_aside(&fresh)?;
        self.tools.copy_tree(&source, &fresh)?;
        sync_file_system(&self.snapshots)?;
        exchange(&self.live, &fresh)?;
        put_aside(&fresh)
    }

    fn restore_paths(&self, name: &str, paths: &[PathBuf]) -> Result<()> {
        self.tools
            .replace_paths(&self.live, &existing(&self.snapshots, name)?, paths)
    }

    fn remove(&self, name: &str) -> Result<()> {
        put_aside(&self.snapshots.join(name))
    }

    fn tidy(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        let home = self.live.parent().unwrap_or(&self.live);
        let remove = |path: &Path| remove_slowly(path, stop);
        remove_aside(home, "live.new", stop, remove)?;
        remove_aside(&self.snapshots, "", stop, remove)
    }

    fn list(&self) -> Result<Vec<String>> {
        finished(&self.snapshots)
    }

    fn is_constant_time(&self) -> bool {
        false
    }

    fn wants_files_closed(&self) -> bool {
        false
    }

    fn kind(&self) -> &'static str {
        "copies"
    }
}

pub(super) fn existing(snapshots: &Path, name: &str) -> Result<PathBuf> {
    let place = snapshots.join(name);
    if place.symlink_metadata().is_ok() {
        return Ok(place);
    }
    Err(
        Error::new(format!("snapshot {name}"), "restore", "it is not there")
            .advise("choose another one: `undo snapshots` lists them"),
    )
}
