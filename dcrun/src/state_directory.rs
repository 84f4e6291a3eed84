//! The state directory, and the way to it.
//!
//! A run is memory, arguments and environment of a program, and its record says
//! which program goes on. So nobody but the user and root may be able to read a
//! run, to change it, or to put another one in its place. That is a question of
//! every directory between `/` and the run, not of the last one alone: who can
//! write one of them can exchange what lies in it. Each is looked at through the
//! descriptor of the one before it, so that what was looked at is what is used.
//!
//! | on the way | what is taken |
//! |---|---|
//! | owner | root or the user |
//! | writable by others | only with the sticky bit, as /tmp, or by the group that has no member but the user |
//! | symbolic link | only one that root made in `/`, as /home is on some systems |
//!
//! The state directory itself belongs to the user, is no link, and has mode 0700.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, lstat, mkdirat};
use nix::unistd::{Gid, Group, Uid, User, mkdir};

use crate::machine::process;
use crate::message::{Doing, Failure, Outcome};

/// As the kernel: more links than this on one way are a circle.
const LINKS_MAX: u32 = 40;

/// Where the environment says that it is; nothing is looked at yet.
pub fn path() -> Outcome<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let path = set("DCRUN_STATE")
        .or_else(|| set("XDG_STATE_HOME").map(|path| path.join("dcrun")))
        .or_else(|| set("HOME").map(|path| path.join(".local/state/dcrun")))
        .ok_or_else(|| {
            Failure::own(
                "state directory: none of DCRUN_STATE, XDG_STATE_HOME and HOME is set; \
                 set DCRUN_STATE to a directory of yours",
            )
        })?;
    std::path::absolute(&path)
        .doing(|| format!("state directory {}: make it absolute", path.display()))
}

/// The state directory, if it is there; an error if it cannot be trusted.
pub fn find() -> Outcome<Option<PathBuf>> {
    let path = path()?;
    Ok(walk(&path, false)?.map(|_| path))
}

/// The state directory, made if it is not there.
pub fn make() -> Outcome<PathBuf> {
    let path = path()?;
    walk(&path, true)?;
    Ok(path)
}

/// The state directory itself, open, if it is there.
pub fn open_it() -> Outcome<Option<OwnedFd>> {
    walk(&path()?, false)
}

/// Whether a directory belongs to the user alone: no link, and of mode 0700.
pub fn check_private(shown: impl Display, about: &FileStat) -> Outcome<()> {
    let says = |what: String| Err(Failure::own(format!("directory {shown}: {what}")));
    match kind(about) {
        SFlag::S_IFDIR => {}
        SFlag::S_IFLNK => {
            return says(
                "it is a symbolic link, and what stands at its end may be another's; remove it, \
                 or name the directory itself"
                    .to_owned(),
            );
        }
        _ => return says("it is no directory; remove it".to_owned()),
    }
    if about.st_uid != process::uid() {
        return says(format!(
            "it belongs to user {}, not to you; remove it or choose another",
            about.st_uid
        ));
    }
    if about.st_mode & 0o077 != 0 {
        return says(format!(
            "others can enter it (mode {:o}), and images hold the memory of programs; look at \
             what is in it, then `chmod 700` it",
            about.st_mode & 0o777
        ));
    }
    Ok(())
}

/// Makes a directory for the user alone where it is known who can write, or
/// checks that it is one.
pub fn make_private(path: &Path) -> Outcome<()> {
    match mkdir(path, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => {
            return Err(Failure::own(format!(
                "directory {}: make it: {}",
                path.display(),
                error.desc()
            )));
        }
    }
    let about = lstat(path).doing(|| format!("directory {}: look at it", path.display()))?;
    check_private(path.display(), &about)
}

fn kind(about: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(about.st_mode & SFlag::S_IFMT.bits())
}

/// Goes from `/` to `path`, looking at all on the way. Without `make`, `None` if
/// it is not there.
fn walk(path: &Path, make: bool) -> Outcome<Option<OwnedFd>> {
    let fails = |at: &Path, what: &str, error: Errno| {
        Failure::own(format!(
            "state directory {}: {what} {}: {}",
            path.display(),
            at.display(),
            error.desc()
        ))
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut shown = PathBuf::from("/");
    let mut here = open(&shown, flags, Mode::empty()).map_err(|e| fails(&shown, "open", e))?;
    let about = fstat(&here).map_err(|e| fails(&shown, "look at", e))?;
    let way = Way::new(path)?;
    way.check(&shown, &about)?;
    let mut left: VecDeque<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        let is_last = left.is_empty();
        let next = shown.join(&name);
        let look = || fstatat(&here, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        let about = match look() {
            Err(Errno::ENOENT) if !make => return Ok(None),
            Err(Errno::ENOENT) => {
                match mkdirat(&here, name.as_os_str(), Mode::S_IRWXU) {
                    // Another dcrun may have been quicker.
                    Ok(()) | Err(Errno::EEXIST) => look(),
                    Err(error) => return Err(fails(&next, "make", error)),
                }
            }
            looked => looked,
        };
        let about = about.map_err(|e| fails(&next, "look at", e))?;
        if is_last {
            check_private(next.display(), &about)?;
        } else if kind(&about) == SFlag::S_IFLNK {
            links += 1;
            way.check_link(&next, &about, links)?;
            let target = readlinkat(&here, name.as_os_str())
                .map_err(|e| fails(&next, "read the link", e))?;
            let target = Path::new(&target);
            if target.is_absolute() {
                shown = PathBuf::from("/");
                here = open(&shown, flags, Mode::empty()).map_err(|e| fails(&shown, "open", e))?;
            }
            for part in names(target).into_iter().rev() {
                left.push_front(part);
            }
            continue;
        }
        let opened = openat(&here, name.as_os_str(), flags, Mode::empty());
        here = opened.map_err(|e| fails(&next, "open", e))?;
        let about = fstat(&here).map_err(|e| fails(&next, "look at", e))?;
        way.check(&next, &about)?;
        if is_last {
            check_private(next.display(), &about)?;
        }
        shown = next;
    }
    Ok(Some(here))
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsStr::new("..").to_owned()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// What was seen on the way so far, and by whom it is gone.
struct Way<'a> {
    path: &'a Path,
    user: u32,
}

impl Way<'_> {
    fn new(path: &Path) -> Outcome<Way<'_>> {
        if names(path).is_empty() {
            return Err(Failure::own(
                "state directory /: it is the root of all; set DCRUN_STATE to a directory of yours",
            ));
        }
        Ok(Way {
            path,
            user: process::uid(),
        })
    }

    fn refuse(&self, at: &Path, what: &str) -> Outcome<()> {
        Err(Failure::own(format!(
            "state directory {}: {} {what}, so another user could put other runs in its place; \
             mend that, or set DCRUN_STATE to a directory that only you can change",
            self.path.display(),
            at.display(),
        )))
    }

    fn check(&self, at: &Path, about: &FileStat) -> Outcome<()> {
        let (owner, mode) = (about.st_uid, about.st_mode);
        if owner != self.user && !is_root(owner) {
            return self.refuse(at, &format!("belongs to user {owner}"));
        }
        let by_others = mode & 0o002 != 0;
        let by_group = mode & 0o020 != 0;
        if mode & 0o1000 != 0 {
            return Ok(());
        }
        if by_others {
            return self.refuse(
                at,
                &format!("can be written by all (mode {:o})", mode & 0o7777),
            );
        }
        if by_group && !is_group_of_one(about.st_gid, self.user) {
            return self.refuse(
                at,
                &format!(
                    "can be written by group {} (mode {:o})",
                    about.st_gid,
                    mode & 0o7777
                ),
            );
        }
        Ok(())
    }

    fn check_link(&self, at: &Path, about: &FileStat, links: u32) -> Outcome<()> {
        if links > LINKS_MAX {
            return self.refuse(at, "is one of a circle of symbolic links");
        }
        if !is_root(about.st_uid) || at.parent() != Some(Path::new("/")) {
            return self.refuse(at, "is a symbolic link");
        }
        Ok(())
    }
}

/// Root, or whoever is outside of this user namespace: there the files of the
/// real root seem to belong to the overflow user (user_namespaces(7)).
fn is_root(user: u32) -> bool {
    if user == 0 {
        return true;
    }
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let words = read("/proc/self/uid_map");
    let whole = words.split_whitespace().eq(["0", "0", "4294967295"]);
    !whole && read("/proc/sys/kernel/overflowuid").trim().parse() == Ok(user)
}

/// Whether a group is the user's own, as distributions make one for each user:
/// of the user's name, the user's first group, and without other members.
fn is_group_of_one(group: u32, user: u32) -> bool {
    let (Ok(Some(user)), Ok(Some(group))) = (
        User::from_uid(Uid::from_raw(user)),
        Group::from_gid(Gid::from_raw(group)),
    ) else {
        return false;
    };
    user.gid == group.gid
        && user.name == group.name
        && group.mem.iter().all(|member| *member == user.name)
}
