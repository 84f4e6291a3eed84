//! Time-travel storage: the state of the service as a folder that can be taken, kept and brought
//! back (paper, section 4.3).
//!
//! Three ways, with one interface. All keep `HOME/live` (the folder the service works in) and
//! `HOME/snapshots/NAME`. Bringing back a snapshot destroys no other one, so a snapshot taken
//! before is the way forward again. Each operation survives `kill -9`: what is under way has a
//! name that ends in `.new`, and the last step is one rename or exchange of names.
//!
//! What is not wanted any more only gets a name that ends in `.old`; [`Storage::tidy`] removes it when
//! nobody waits. Removing takes as long as there are files, on btrfs too (the kernel lets go of each
//! inode that it has in memory: 3 s of a rewind of 3.5 s with 100,000 files). And ext4 looks for
//! free inodes among those that were removed in the last seconds, one by one, which has made a replay that
//! follows at once three times as slow.
//!
//! | | a snapshot | a rewind | needs |
//! |---|---|---|---|
//! | [`Btrfs`] | constant time | constant time | root, `HOME` on btrfs, btrfs-progs |
//! | [`Overlay`] | constant time, service stopped | constant time | root |
//! | [`Copies`] | a walk over all files (reflinks where the file system has them, else copies) | the same | nothing |

mod btrfs;
mod copies;
mod overlay;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FlockOperation, RenameFlags};

pub use btrfs::Btrfs;
pub use copies::Copies;
pub use overlay::Overlay;

use crate::{Context, Error, Result};

/// A folder that travels in time. A name of a snapshot consists of letters, digits and `-`.
pub trait Storage: Send + Sync {
    /// The folder that the service works in.
    fn live(&self) -> &Path;
    /// Keeps the live state as `name`, on stable storage when this returns.
    fn snapshot(&self, name: &str) -> Result<()>;
    /// Brings the live state to stable storage.
    fn sync(&self) -> Result<()> {
        sync_file_system(self.live())
    }
    /// Makes the live state what it was when `name` was taken. `name` stays as it is.
    fn restore(&self, name: &str) -> Result<()>;
    /// Makes these paths of the live state what they were in `name`; the rest stays.
    fn restore_paths(&self, name: &str, paths: &[PathBuf]) -> Result<()>;
    /// Forgets a snapshot. Forgetting one that is not there is no error.
    fn remove(&self, name: &str) -> Result<()>;
    /// Removes what [`Storage::restore`] and [`Storage::remove`] have put aside, as far as it gets
    /// until `stop` says so. Everything else may go on beside it.
    fn tidy(&self, stop: &dyn Fn() -> bool) -> Result<()>;
    /// The snapshots there are.
    fn list(&self) -> Result<Vec<String>>;
    /// Whether snapshots take the same time however much state there is.
    fn is_constant_time(&self) -> bool;
    /// Whether the service must not have files open during a snapshot or a rewind.
    fn wants_files_closed(&self) -> bool;
    /// How an operator calls this kind of storage.
    fn kind(&self) -> &'static str;
}

/// Opens the storage of `kind` in `home`: `btrfs`, `overlay`, `copies`, or `auto` for the first of
/// these that works there without stopping the service.
pub fn open(kind: &str, home: &Path) -> Result<Box<dyn Storage>> {
    Ok(match kind {
        "btrfs" => Box::new(Btrfs::open(home)?),
        "overlay" => Box::new(Overlay::open(home)?),
        "copies" => Box::new(Copies::open(home)?),
        "auto" => match Btrfs::open(home) {
            Ok(btrfs) => Box::new(btrfs),
            Err(_) => Box::new(Copies::open(home)?),
        },
        other => {
            return Err(
                Error::new("storage", "open", format!("there is no kind {other:?}"))
                    .advise("use auto, btrfs, overlay or copies"),
            );
        }
    })
}

/// Exchanges two folders in one step.
fn exchange(a: &Path, b: &Path) -> Result<()> {
    rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
        .context(a.display(), "exchange with its new state")?;
    sync_folder(a.parent().unwrap_or(a))
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .context(folder.display(), "sync")
}

/// Syncs the whole file system that `path` is on: one call instead of one for each file.
fn sync_file_system(path: &Path) -> Result<()> {
    let folder = File::open(path).context(path.display(), "open")?;
    rustix::fs::syncfs(folder).context(path.display(), "sync its file system")
}

/// The programs that we have copy and take snapshots.
///
/// A program outlives us if we are killed while it works, and would go on writing to what the next
/// start removes. So each inherits a lock (as its stdin), and a start waits for it.
struct Tools {
    lock: PathBuf,
    /// Held by one process at a time, for as long as its storage is open.
    _owner: File,
}

impl Tools {
    /// Makes sure that nobody else works here, and waits for the programs of an earlier run.
    fn open(home: &Path) -> Result<Tools> {
        std::fs::create_dir_all(home).context(home.display(), "create")?;
        let owner = File::create(home.join("manager.lock")).context(home.display(), "lock")?;
        rustix::fs::flock(&owner, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Error::new(
                home.display(),
                "open",
                "another undo manager works on this folder",
            )
            .advise("stop that one, or use another folder")
        })?;
        let lock = home.join("tools.lock");
        let file = File::create(&lock).context(lock.display(), "create")?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .context(lock.display(), "wait for the programs of an earlier run")?;
        Ok(Tools {
            lock,
            _owner: owner,
        })
    }

    /// Runs a program; an error has what it said on stderr.
    fn run(&self, object: &Path, action: &str, command: &mut Command) -> Result<()> {
        let lock = File::open(&self.lock).context(self.lock.display(), "open")?;
        rustix::fs::flock(&lock, FlockOperation::LockShared)
            .context(self.lock.display(), "lock")?;
        let output = command.stdin(lock).output().map_err(|cause| {
            let name = command.get_program().to_string_lossy().into_owned();
            Error::new(object.display(), action, format!("{name}: {cause}"))
                .advise(format!("install {name}"))
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', " | ");
        Err(Error::new(object.display(), action, said))
    }

    /// Copies a tree with everything it has: names, links, owners, times, attributes. `to` must
    /// not exist. `cp` knows of more kinds of files and attributes than we could write down here.
    fn copy_tree(&self, from: &Path, to: &Path) -> Result<()> {
        let arguments = ["-a", "--reflink=auto", "-T", "--"];
        self.run(
            to,
            "copy",
            Command::new("cp").args(arguments).arg(from).arg(to),
        )
    }

    /// Replaces single paths of `live` by what they are in `source`.
    fn replace_paths(&self, live: &Path, source: &Path, paths: &[PathBuf]) -> Result<()> {
        for path in paths {
            let (from, to) = (source.join(path), live.join(path));
            let fresh = to.with_extension("undo-new");
            remove_tree(&fresh)?;
            if from.symlink_metadata().is_err() {
                remove_tree(&to)?;
                continue;
            }
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent).context(parent.display(), "create")?;
            }
            self.copy_tree(&from, &fresh)?;
            // (overlayfs cannot exchange folders; a crash here is made good by doing it all again.)
            if to.symlink_metadata().is_err() || exchange(&to, &fresh).is_err() {
                remove_tree(&to)?;
                std::fs::rename(&fresh, &to).context(to.display(), "restore")?;
            } else {
                remove_tree(&fresh)?;
            }
        }
        sync_file_system(live)
    }
}

/// Removes a tree; none is no error.
fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::new(path.display(), "remove", e)),
        Ok(found) if found.is_dir() => {
            std::fs::remove_dir_all(path).context(path.display(), "remove")
        }
        Ok(_) => std::fs::remove_file(path).context(path.display(), "remove"),
    }
}

/// Gives something a name under which it is removed later; nothing is no error. (In the same folder:
/// a read-only snapshot of btrfs cannot go to another one.)
fn put_aside(path: &Path) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Ok(());
    };
    let aside = (0u64..).map(|n| {
        let mut aside = name.to_owned();
        aside.push(format!(".{n}.old"));
        path.with_file_name(aside)
    });
    // Two at once would have to be of one name: then one has nothing to put aside.
    for aside in aside {
        if aside.symlink_metadata().is_ok() {
            continue;
        }
        return match std::fs::rename(path, &aside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::new(path.display(), "put aside", e))
            }
            _ => Ok(()),
        };
    }
    Ok(())
}

/// Has `remove` take away what was put aside in a folder, of those whose names begin with `prefix`.
fn remove_aside(
    folder: &Path,
    prefix: &str,
    stop: &dyn Fn() -> bool,
    remove: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    for name in names(folder)? {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(prefix.as_bytes()) && bytes.ends_with(b".old") && !stop() {
            remove(&folder.join(name))?;
        }
    }
    Ok(())
}

/// Removes a tree file by file, until `stop` says so.
fn remove_slowly(path: &Path, stop: &dyn Fn() -> bool) -> Result<()> {
    let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    if is_folder {
        for name in names(path)? {
            if stop() {
                return Ok(());
            }
            remove_slowly(&path.join(name), stop)?;
        }
    }
    remove_tree(path)
}

fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>> {
    std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.file_name())).collect())
        .context(folder.display(), "list")
}

/// The snapshots in a folder: all names but those of work that was cut short, and of what was put
/// aside.
fn finished(folder: &Path) -> Result<Vec<String>> {
    let mut found: Vec<String> = names(folder)?
        .into_iter()
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(".new") && !name.ends_with(".old"))
        .collect();
    found.sort();
    Ok(found)
}

/// Puts aside what a death has left half made.
fn forget_unfinished(folder: &Path) -> Result<()> {
    names(folder)?
        .iter()
        .filter(|name| name.as_encoded_bytes().ends_with(b".new"))
        .try_for_each(|name| put_aside(&folder.join(name)))
}
