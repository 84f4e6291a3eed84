//! A fresh place for one run: a home, a work directory inside it, and dcrun's state.
//!
//! ```text
//! /tmp/guests-XXXXXX/
//!   home/          HOME
//!   home/work/     the program's working directory; its files are collected
//!   state/         DCRUN_STATE
//!   trace          what happened, when somebody wants to check it
//!   shell/         the fifos of the shell that starts the program, its output when that is a file
//! ```
//!
//! The name has the same length every time, because some programs print their directory.

use crate::error::{Context, Result};
use crate::outcome::FileImage;
use crate::session::Session;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub struct WorkDir {
    root: PathBuf,
    keep: bool,
}

impl WorkDir {
    pub fn prepare(session: &Session, keep: bool) -> Result<Self> {
        let template = std::env::temp_dir().join("guests-XXXXXX");
        let root = nix::unistd::mkdtemp(&template)
            .context(format_args!("make a directory from {}", template.display()))?;
        let dir = WorkDir { root, keep };
        for sub in ["home/work", "state", "shell"] {
            fs::create_dir_all(dir.root.join(sub)).context(format_args!("make {sub}"))?;
        }
        fs::set_permissions(dir.state(), fs::Permissions::from_mode(0o700))
            .context("protect the state directory")?;
        for (name, contents) in &session.files {
            let path = dir.work().join(name);
            let bytes = contents();
            fs::write(&path, &bytes).context(format_args!("write {}", path.display()))?;
            let mode = if bytes.starts_with(b"#!") {
                0o755
            } else {
                0o644
            };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                .context(format_args!("set the mode of {}", path.display()))?;
        }
        Ok(dir)
    }

    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    pub fn work(&self) -> PathBuf {
        self.root.join("home/work")
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// The trace of the run, when one is wanted.
    pub fn trace(&self) -> PathBuf {
        self.root.join("trace")
    }

    pub fn shell(&self) -> PathBuf {
        self.root.join("shell")
    }

    /// Leaves the directory behind, for whoever wants to look into it.
    pub fn keep(&mut self) -> &Path {
        self.keep = true;
        &self.root
    }

    /// Every file of the work directory, byte for byte.
    pub fn collect(&self) -> Result<BTreeMap<String, FileImage>> {
        let mut files = BTreeMap::new();
        collect_into(&self.work(), &self.work(), &mut files)?;
        Ok(files)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if !self.keep {
            // A run that hangs may still write; what stays behind lies in the temporary directory.
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

fn collect_into(base: &Path, dir: &Path, files: &mut BTreeMap<String, FileImage>) -> Result<()> {
    for entry in fs::read_dir(dir).context(format_args!("list {}", dir.display()))? {
        let path = entry
            .context(format_args!("list {}", dir.display()))?
            .path();
        let name = path
            .strip_prefix(base)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        let meta =
            fs::symlink_metadata(&path).context(format_args!("look at {}", path.display()))?;
        let mode = meta.permissions().mode() & 0o7777;
        let kind = meta.file_type();
        let image = if kind.is_symlink() {
            let target =
                fs::read_link(&path).context(format_args!("read link {}", path.display()))?;
            FileImage::Link(target.to_string_lossy().into_owned())
        } else if kind.is_dir() {
            collect_into(base, &path, files)?;
            FileImage::Directory { mode }
        } else if kind.is_file() {
            let bytes = fs::read(&path).context(format_args!("read {}", path.display()))?;
            FileImage::File { mode, bytes }
        } else if kind.is_fifo() {
            FileImage::Other("fifo".into())
        } else {
            FileImage::Other("device or socket".into())
        };
        files.insert(name, image);
    }
    Ok(())
}
