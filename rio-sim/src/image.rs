//! An image on a file system: a directory `NAME/` with the files `0`, `1`, ... of its windows.
//!
//! The directory is locked while a process has it open, so that two never store into one image. A
//! new image is built under another name and renamed, so that one that has its name is whole.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// An image's directory, locked.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    lock: File,
    writable: bool,
}

impl Image {
    /// A new image that nobody sees until `publish`.
    pub fn create(path: &Path) -> Result<Image, Error> {
        if path.symlink_metadata().is_ok() {
            let taken = io::Error::from_raw_os_error(libc::EEXIST);
            return Err(Error::of_path("create image", path, taken));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".new-{}", std::process::id()));
        let hidden = PathBuf::from(name);
        // What an earlier process of this number left behind was never published.
        let _ = fs::remove_dir_all(&hidden);
        let made = DirBuilder::new().mode(0o700).create(&hidden);
        made.map_err(|cause| Error::of_path("create image", path, cause))?;
        let lock = lock(&hidden, true)?;
        Ok(Image {
            path: hidden,
            lock,
            writable: true,
        })
    }

    /// Gives the image its name: never over another one.
    pub fn publish(&mut self, path: &Path) -> Result<(), Error> {
        let c_string = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let renamed = c_string(&self.path).and_then(|from| Ok((from, c_string(path)?)));
        let (from, to) = renamed.map_err(|cause| Error::of_path("name", path, cause.into()))?;
        let (here, flags) = (libc::AT_FDCWD, libc::RENAME_NOREPLACE);
        // SAFETY: two C strings; std's rename would replace an empty directory.
        if unsafe { libc::renameat2(here, from.as_ptr(), here, to.as_ptr(), flags) } != 0 {
            return Err(Error::of_path(
                "create image",
                path,
                io::Error::last_os_error(),
            ));
        }
        self.path = path.to_owned();
        self.sync_names()?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(|cause| Error::of_path("sync directory", parent, cause))
    }

    /// Opens an existing image. Without `writable`, nothing in it can be changed through this
    /// value.
    pub fn open(path: &Path, writable: bool) -> Result<Image, Error> {
        let lock = lock(path, writable)?;
        Ok(Image {
            path: path.to_owned(),
            lock,
            writable,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_writable(&self) -> bool {
        self.writable
    }

    pub fn has(&self, name: &str) -> bool {
        self.path.join(name).symlink_metadata().is_ok()
    }

    /// Opens a file of the image: a regular one, ours, never through a link.
    pub fn file(&self, name: &str) -> Result<File, Error> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(self.writable)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let opened = options
            .open(&path)
            .and_then(|file| Ok((file.metadata()?, file)));
        let (about, file) = opened.map_err(|cause| Error::of_path("open", &path, cause))?;
        if !about.is_file() {
            let cause = "not a regular file".into();
            return Err(Error::refused(
                "open",
                &path,
                cause,
                "restore the image from a copy",
            ));
        }
        refuse_other_owner(&path, about.uid())?;
        Ok(file)
    }

    /// Makes a file of the image, empty; one that a crash left without a window is used again.
    pub fn create_file(&self, name: &str) -> Result<File, Error> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
        options
            .open(&path)
            .map_err(|cause| Error::of_path("create", &path, cause))
    }

    /// Makes the names of new files durable.
    pub fn sync_names(&self) -> Result<(), Error> {
        let synced = self.lock.sync_all();
        synced.map_err(|cause| Error::of_path("sync directory", &self.path, cause))
    }
}

fn lock(path: &Path, writable: bool) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW);
    let opened = options
        .open(path)
        .and_then(|dir| Ok((dir.metadata()?, dir)));
    let (about, dir) = opened.map_err(|cause| Error::of_path("open image", path, cause))?;
    refuse_other_owner(path, about.uid())?;
    let how = if writable {
        libc::LOCK_EX
    } else {
        libc::LOCK_SH
    };
    // SAFETY: a call on a descriptor that lives; std's own lock would need a newer toolchain.
    if unsafe { libc::flock(dir.as_raw_fd(), how | libc::LOCK_NB) } != 0 {
        return Err(Error::of_path(
            "lock image",
            path,
            io::Error::last_os_error(),
        ));
    }
    Ok(dir)
}

fn refuse_other_owner(path: &Path, uid: u32) -> Result<(), Error> {
    let you = effective_uid();
    if uid == you {
        return Ok(());
    }
    let cause = format!("it belongs to uid {uid}, you are {you}");
    Err(Error::refused("open", path, cause, "run as the owner"))
}

/// The user that new images are written for.
pub fn effective_uid() -> u32 {
    // SAFETY: a call without arguments that cannot fail.
    unsafe { libc::geteuid() }
}
