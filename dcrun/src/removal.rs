//! A run's directory is removed, and nothing else.
//!
//! It goes by descriptors from the state directory downward and follows no link,
//! so that nobody can lead it elsewhere while it works. It stays on one file
//! system: what was mounted below is somebody else's.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::message::{Failure, Outcome};
use crate::state_directory;

/// By these a run is recognised, so they go last: one that is half removed can
/// be removed again.
const LAST: [&CStr; 2] = [c"run.json", c"keeper.pid"];

/// Removes the directory of the run of this name, which must be a checked one.
pub fn remove(name: &str) -> Outcome<()> {
    let says = |what: String| Failure::own(format!("{name}: remove its directory: {what}"));
    let Some(state) = state_directory::open_it()? else {
        return Ok(());
    };
    let step = |error: Errno| says(error.desc().to_owned());
    let run = open_directory(&state, name).map_err(step)?;
    let device = fstat(&run).map_err(step)?.st_dev;
    empty(&run, device).map_err(|(at, error)| says(format!("{at}: {}", error.desc())))?;
    unlinkat(&state, name, UnlinkatFlags::RemoveDir).map_err(step)
}

/// Bytes that a run's directory holds in its storage, without what has other
/// names outside of it.
pub fn size_bytes(name: &str) -> u64 {
    let Ok(Some(state)) = state_directory::open_it() else {
        return 0;
    };
    let Ok(run) = open_directory(&state, name) else {
        return 0;
    };
    let entries = entries(&run).unwrap_or_default();
    let about = |name: &CString| fstatat(&run, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok();
    entries
        .iter()
        .filter_map(about)
        .filter(|about| about.st_nlink == 1)
        .map(|about| about.st_blocks as u64 * 512)
        .sum()
}

type Failed = (String, Errno);

fn empty(directory: &OwnedFd, device: u64) -> Result<(), Failed> {
    let mut names = entries(directory).map_err(|error| ("list it".to_owned(), error))?;
    names.sort_by_key(|name| LAST.contains(&name.as_c_str()));
    for name in names {
        let failed = |error| (name.to_string_lossy().into_owned(), error);
        let about = match fstatat(directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(about) => about,
            Err(Errno::ENOENT) => continue,
            Err(error) => return Err(failed(error)),
        };
        let how = if is_directory(&about) {
            let below = open_directory(directory, name.as_c_str()).map_err(failed)?;
            // Of what is open now, not of what was looked at before.
            if fstat(&below).map_err(failed)?.st_dev != device {
                return Err(failed(Errno::EXDEV));
            }
            empty(&below, device).map_err(|(at, error)| {
                let parent = name.to_string_lossy();
                (format!("{parent}/{at}"), error)
            })?;
            UnlinkatFlags::RemoveDir
        } else {
            UnlinkatFlags::NoRemoveDir
        };
        match unlinkat(directory, name.as_c_str(), how) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

fn is_directory(about: &FileStat) -> bool {
    about.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

fn open_directory<P: ?Sized + nix::NixPath>(at: &OwnedFd, name: &P) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn entries(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let again = open_directory(directory, ".")?;
    let mut found = Vec::new();
    for entry in Dir::from_fd(again)?.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            found.push(name);
        }
    }
    Ok(found)
}
