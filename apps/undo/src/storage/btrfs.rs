//! Snapshots of btrfs: the live state is a subvolume; taking and bringing back are one step each,
//! however much there is.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::copies::existing;
use super::{
    Storage, Tools, exchange, finished, forget_unfinished, put_aside, remove_aside, sync_folder,
};
use crate::{Context, Error, Result};

/// The magic number of btrfs in `statfs` (linux/magic.h).
const BTRFS_SUPER_MAGIC: i64 = 0x9123_683E;

pub struct Btrfs {
    live: PathBuf,
    snapshots: PathBuf,
    tools: Tools,
}

impl Btrfs {
    /// Opens the storage in `home`, which must be on btrfs.
    pub fn open(home: &Path) -> Result<Btrfs> {
        let advice = "use storage copies, or put the folder on btrfs";
        let kind = rustix::fs::statfs(home).context(home.display(), "look at its file system")?;
        if kind.f_type as i64 != BTRFS_SUPER_MAGIC {
            return Err(Error::new(
                home.display(),
                "open as btrfs",
                "it is on another file system",
            )
            .advise(advice));
        }
        let (live, snapshots) = (home.join("live"), home.join("snapshots"));
        let btrfs = Btrfs {
            live,
            snapshots,
            tools: Tools::open(home)?,
        };
        std::fs::create_dir_all(&btrfs.snapshots).context(btrfs.snapshots.display(), "create")?;
        if !btrfs.live.exists() {
            let mut command = Command::new("btrfs");
            command.args(["subvolume", "create"]).arg(&btrfs.live);
            btrfs.tools.run(&btrfs.live, "create", &mut command)?;
        }
        // A subvolume is known by the inode number of its root (btrfs(5)).
        if rustix::fs::stat(&btrfs.live)
            .context(btrfs.live.display(), "stat")?
            .st_ino
            != 256
        {
            return Err(
                Error::new(btrfs.live.display(), "open", "it is no subvolume")
                    .advise("move it away, start once, and move its contents back"),
            );
        }
        put_aside(&home.join("live.new"))?;
        forget_unfinished(&btrfs.snapshots)?;
        Ok(btrfs)
    }
}

impl Storage for Btrfs {
    fn live(&self) -> &Path {
        &self.live
    }

    fn snapshot(&self, name: &str) -> Result<()> {
        // Taking a snapshot writes back what is dirty and commits: no sync of ours is needed, but
        // of the name.
        let place = self.snapshots.join(name);
        self.copy(&self.live, &place, true)?;
        sync_folder(&self.snapshots)
    }

    fn restore(&self, name: &str) -> Result<()> {
        let source = existing(&self.snapshots, name)?;
        let fresh = self.live.with_extension("new");
        put_aside(&fresh)?;
        self.copy(&source, &fresh, false)?;
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
        remove_aside(home, "live.new", stop, |path| self.delete(path))?;
        remove_aside(&self.snapshots, "", stop, |path| self.delete(path))
    }

    fn list(&self) -> Result<Vec<String>> {
        finished(&self.snapshots)
    }

    fn is_constant_time(&self) -> bool {
        true
    }

    fn wants_files_closed(&self) -> bool {
        false
    }

    fn kind(&self) -> &'static str {
        "btrfs"
    }
}

impl Btrfs {
    fn copy(&self, from: &Path, to: &Path, read_only: bool) -> Result<()> {
        let mut command = Command::new("btrfs");
        command.args(["subvolume", "snapshot"]);
        if read_only {
            command.arg("-r");
        }
        self.tools
            .run(to, "take a snapshot", command.arg(from).arg(to))
    }

    fn delete(&self, path: &Path) -> Result<()> {
        let mut command = Command::new("btrfs");
        self.tools.run(
            path,
            "remove",
            command.args(["subvolume", "delete"]).arg(path),
        )
    }
}
