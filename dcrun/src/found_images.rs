//! Images that are found rather than known: in memory each stands apart from its
//! run's directory, and a record may name any file at all.
//!
//! So an image says whose it is (its owner's page), and only what says that it is
//! the run's own is removed with it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dc_image::header::MAGIC;

use crate::image;
use crate::machine::process;
use crate::message::{Outcome, say};
use crate::record::Record;
use crate::run_directory::RunDirectory;

/// Images in memory whose run's directory is gone, and the bytes they take.
pub fn orphans() -> Vec<(PathBuf, u64)> {
    in_memory()
        .into_iter()
        .filter(|(_, run)| is_absent(run))
        .map(|(path, _)| {
            let bytes = size_bytes(&path);
            (path, bytes)
        })
        .collect()
}

/// The images of a run: that of its record, and those in memory that name it.
pub fn of_run(run: &RunDirectory, record: Option<&Record>) -> BTreeSet<PathBuf> {
    let mut found: BTreeSet<PathBuf> = in_memory()
        .into_iter()
        .filter(|(_, owner)| run.is_at(owner))
        .map(|(path, _)| path)
        .collect();
    found.extend(record.map(|record| record.image.clone()));
    found
}

/// Removes these images of a run. What is no image of this run is left alone, and
/// said.
pub fn remove(run: &RunDirectory, images: &BTreeSet<PathBuf>) -> Outcome<()> {
    for path in images {
        match belongs(path, run) {
            Some(true) => image::remove(path)?,
            Some(false) => say(&format!(
                "{}: {} is no image of this run, so it is left alone",
                run.name,
                path.display()
            )),
            None => {}
        }
    }
    Ok(())
}

/// Bytes that these images hold.
pub fn size_bytes(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |about| about.blocks() * 512)
}

/// Whether a file is the run's own image, whatever became of its contents; `None`
/// if there is no file.
pub fn belongs(path: &Path, run: &RunDirectory) -> Option<bool> {
    let about = fs::symlink_metadata(path).ok()?;
    if !about.is_file() || about.uid() != process::uid() {
        return Some(false);
    }
    if path == run.image() {
        return Some(true);
    }
    let named_for_it = || {
        path.parent() == Some(&image::memory_directory())
            && path
                .file_name()
                .and_then(|name| name.to_str()?.strip_prefix(&*run.name)?.strip_prefix('-'))
                .and_then(|rest| rest.strip_suffix(".rio"))
                .is_some_and(|unique| {
                    unique.len() == 12 && unique.bytes().all(|b| b.is_ascii_hexdigit())
                })
    };
    Some(match owner(path) {
        Some(owner) if run.is_at(&owner) => true,
        // The state directory may have been moved since.
        Some(owner) => is_absent(&owner) && named_for_it(),
        None => named_for_it(),
    })
}

/// Whose image a file says that it is; `None` if it is no image.
pub fn owner(path: &Path) -> Option<PathBuf> {
    let file = open(path).ok()?;
    let mut magic = [0u8; 8];
    file.read_exact_at(&mut magic, 0).ok()?;
    (magic == MAGIC).then(|| image::owner(&file)).flatten()
}

/// All images in memory, with the directories of their runs.
fn in_memory() -> Vec<(PathBuf, PathBuf)> {
    let directory = image::memory_directory();
    // Another user may have made it.
    let ours = fs::symlink_metadata(&directory)
        .is_ok_and(|about| about.is_dir() && about.uid() == process::uid());
    let entries = match fs::read_dir(&directory) {
        Ok(entries) if ours => entries,
        _ => return Vec::new(),
    };
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let run = owner(&path)?;
            Some((path, run))
        })
        .collect()
}

/// A process that has this file open: the run's directory may have been removed
/// under it, and then there is no lock to tell.
pub fn user_of(path: &Path) -> Option<i32> {
    let wanted = fs::symlink_metadata(path).ok()?;
    let is_it = |link: PathBuf| {
        fs::metadata(link)
            .is_ok_and(|about| (about.dev(), about.ino()) == (wanted.dev(), wanted.ino()))
    };
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| pid != process::pid())
        .find(|pid| {
            fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .filter_map(Result::ok)
                .any(|entry| is_it(entry.path()))
        })
}

fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Opens what may be anything: a fifo shall not be waited for.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}
