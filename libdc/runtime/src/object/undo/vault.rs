//! Vaults: where what is removed lies until the next commit.
//!
//! A file that is unlinked or replaced keeps a second name, a directory that is removed
//! is moved. On the file system of the run's directory that is the vault. On that of the
//! image, or of images in memory, it is the directory of images, where the keeper removes
//! with the image what is left (POSIX semaphores and shared memory are files of /dev/shm).
//! On any other it is a directory `.dcrun-kept-PID` as far up as one can be made: a directory that
//! the program may remove stands in one that it may write to, so it is never that one
//! which holds the vault. (Beside the removed file it would keep its directory from
//! being empty.)

use super::place::{AT_FDCWD, O_DIRECTORY, O_NOFOLLOW, Place, identity, open_path};
use super::*;
use crate::fatal::Text;
use core::fmt::Write;
use core::sync::atomic::Ordering::Relaxed;

/// So many file systems have a vault at once; the next one commits.
const MAX_VAULTS: usize = 8;
pub const PATH_ROOM: usize = 1024;
pub const VAULT_NAME: &[u8] = b".dcrun-kept-";

#[derive(Clone, Copy)]
pub struct Vault {
    pub mount: u64,
    pub dev: u64,
    pub ino: u64,
    path: [u8; PATH_ROOM],
    path_len: usize,
}

impl Vault {
    pub const NONE: Vault = Vault {
        mount: 0,
        dev: 0,
        ino: 0,
        path: [0; PATH_ROOM],
        path_len: 0,
    };

    /// Without its NUL; that of the run's directory is empty.
    pub fn path(&self) -> &[u8] {
        &self.path[..self.path_len]
    }

    /// Made for nothing else, it goes once nothing is left in it.
    pub fn remove_if_empty(&self) {
        if is_own_vault(self.path()) {
            sys!(RMDIR, self.path.as_ptr());
        }
    }

    /// A descriptor of it, for the moment.
    pub fn open(&self) -> Result<i32, isize> {
        open_vault(self.dev, self.ino, &self.path[..self.path_len + 1])
    }
}

/// A vault by what a record says of it; the path ends in NUL.
pub fn open_vault(dev: u64, ino: u64, path: &[u8]) -> Result<i32, isize> {
    if path.len() <= 1 {
        return Ok(engine().high_fd(high_fd::RUN_DIR));
    }
    let fd = open_path(
        AT_FDCWD,
        path.as_ptr(),
        O_DIRECTORY | O_NOFOLLOW,
        high_fd::VAULT,
    )?;
    match identity(fd) {
        Ok(id) if (id.dev, id.ino) == (dev, ino) => Ok(fd),
        Ok(_) => Err(-ENOENT),
        Err(e) => Err(e),
    }
}

/// The vault for what stands in a place: found, or made.
pub fn vault_for(place: &Place) -> Option<Vault> {
    let run = engine().high_fd(high_fd::RUN_DIR);
    if engine().undo.run_mount == 0 {
        engine().undo.run_mount = identity(run).map_or(u64::MAX, |id| id.mount);
    }
    if engine().undo.run_mount == place.mount {
        return Some(Vault {
            mount: place.mount,
            ..Vault::NONE
        });
    }
    let p = &mut engine().undo;
    if let Some(v) = p.vaults[..p.vaults_len]
        .iter()
        .find(|v| v.mount == place.mount && v.open().is_ok())
    {
        return Some(*v);
    }
    if p.vaults_len == MAX_VAULTS {
        crate::commit::commit(crate::machine::entry::local());
        engine().undo.vaults_len = 0;
    }
    let vault = beside_image(place.mount).or_else(|| make_vault(place))?;
    let p = &mut engine().undo;
    p.vaults[p.vaults_len] = vault;
    p.vaults_len += 1;
    Some(vault)
}

pub const NO_VAULTS: [Vault; MAX_VAULTS] = [Vault::NONE; MAX_VAULTS];

/// A directory of images on this mount.
fn beside_image(mount: u64) -> Option<Vault> {
    (0..nameless::PLACES).find_map(|nth| {
        let directory = nameless::directory(nth)?;
        let len = nameless::text(&directory).len();
        let mut path = [0u8; PATH_ROOM];
        path[..len].copy_from_slice(&directory[..len]);
        let fd = open_path(AT_FDCWD, path.as_ptr(), O_DIRECTORY, high_fd::VAULT).ok()?;
        let id = identity(fd).ok()?;
        (id.mount == mount).then_some(Vault {
            mount,
            dev: id.dev,
            ino: id.ino,
            path,
            path_len: len,
        })
    })
}

/// Whether a vault is one of those directories that are made for nothing else.
pub fn is_own_vault(path: &[u8]) -> bool {
    path.strip_suffix(b"\0")
        .unwrap_or(path)
        .rsplit(|&b| b == b'/')
        .next()
        .is_some_and(|name| name.starts_with(VAULT_NAME))
}

/// The name by which a vault keeps a file or directory. Its path may end in NUL.
pub fn name_in(vault: &[u8], ino: u64) -> [u8; 64] {
    let mut name = [0u8; 64];
    if vault.len() <= 1 || is_own_vault(vault) {
        name[..32].copy_from_slice(&kept_name(ino));
    } else {
        let text = nameless::name_beside(ino);
        name[..text.as_bytes().len()].copy_from_slice(text.as_bytes());
    }
    name
}

/// As far up as a directory can be made, on the same mount.
fn make_vault(place: &Place) -> Option<Vault> {
    let whole = place.path();
    let directory = whole.iter().rposition(|&b| b == b'/')?;
    let name = own_vault_name();
    let ends = (1..=directory.max(1)).filter(|&i| i == 1 || i == directory || whole[i] == b'/');
    for end in ends {
        // (A name of one letter below the root ends where the root's path does.)
        if end == 1 && directory == 1 && whole[1] != b'/' {
            continue;
        }
        if let Some(vault) = make_vault_in(&whole[..end], name.as_bytes(), place.mount) {
            return Some(vault);
        }
    }
    None
}

/// One name for all processes of the run, so that each finds what another one keeps.
fn own_vault_name() -> Text<40> {
    let first = crate::run::process(0).id.load(Relaxed);
    let mut name = Text::<40>::new();
    name.append(VAULT_NAME);
    let _ = write!(name, "{first}");
    name
}

/// Opens a file that lies in a vault made for nothing else, somewhere above this path.
pub fn open_above(path: &[u8], ino: u64, flags: usize) -> isize {
    let vault = own_vault_name();
    let kept = kept_name(ino);
    let ends = path.iter().enumerate().filter(|&(_, &b)| b == b'/');
    for (end, _) in ends.take_while(|&(end, _)| end + 80 < PATH_ROOM) {
        let mut name = Text::<PATH_ROOM>::new();
        name.append(&path[..=end]);
        name.append(vault.as_bytes());
        name.append(b"/");
        name.append(&kept[..25]);
        name.append(b"\0");
        let fd = sys!(OPEN, name.as_bytes().as_ptr(), flags, 0);
        if !failed(fd) {
            return fd;
        }
    }
    -ENOENT
}

fn make_vault_in(directory: &[u8], name: &[u8], mount: u64) -> Option<Vault> {
    let mut path = [0u8; PATH_ROOM];
    let mut len = directory.len();
    if len + name.len() + 2 > PATH_ROOM {
        return None;
    }
    path[..len].copy_from_slice(directory);
    let fd = open_path(AT_FDCWD, path.as_ptr(), O_DIRECTORY, high_fd::VAULT).ok()?;
    identity(fd).ok().filter(|id| id.mount == mount)?;
    if len > 1 {
        path[len] = b'/';
        len += 1;
    }
    path[len..len + name.len()].copy_from_slice(name);
    len += name.len();
    let r = sys!(MKDIR, path.as_ptr(), 0o700);
    if failed(r) && r != -EEXIST {
        return None;
    }
    let flags = O_DIRECTORY | O_NOFOLLOW;
    let fd = open_path(AT_FDCWD, path.as_ptr(), flags, high_fd::VAULT).ok()?;
    let (id, st) = (identity(fd).ok()?, Stat::of_fd(fd).ok()?);
    // Nobody else may have put it there.
    (st.uid == sys!(GETEUID) as u32 && st.mode & 0o077 == 0).then_some(Vault {
        mount: id.mount,
        dev: id.dev,
        ino: id.ino,
        path,
        path_len: len,
    })
}

/// The name by which the run's directory keeps a file: its inode.
pub fn kept_name(ino: u64) -> [u8; 32] {
    let mut name = [0u8; 32];
    name[..5].copy_from_slice(b"kept-");
    let mut n = ino;
    for i in (5..25).rev() {
        name[i] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    name
}
