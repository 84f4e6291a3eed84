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

use super::held;
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

/// What became of a file whose name goes.
pub enum Kept {
    /// It has a second name; the record.
    Linked(u32),
    /// It can have none: it was moved into the vault, so its name is gone.
    Moved,
    /// It has no other name and gets none.
    Not,
}

/// Before the last name of a file may go: gives it a second one. With `may_move` its
/// only name may become that.
pub fn keep(place: &Place, st: &Stat, may_move: bool) -> Kept {
    if engine().undo.kept == MAX_KEPT {
        crate::commit::commit(crate::machine::entry::local());
    }
    let Some(vault) = vault_for(place) else {
        return Kept::Not;
    };
    let Ok(dir) = vault.open() else {
        return Kept::Not;
    };
    let record = names::before_unlink(place, st, &vault);
    let kept = name_in(vault.path(), st.ino);
    let r = sys!(LINKAT, place.dir, place.name(), dir, kept.as_ptr(), 0);
    if !failed(r) || r == -EEXIST {
        note_kept(st, &vault);
        return Kept::Linked(record);
    }
    // Others' files cannot be linked to (proc_sys_fs(5), protected_hardlinks).
    if may_move && !failed(move_into(place, dir, &name_in(vault.path(), st.ino))) {
        note_kept(st, &vault);
        return Kept::Moved;
    }
    names::not_done(record);
    Kept::Not
}

/// A directory goes into the vault, where it stays whole. None if it cannot; else what
/// the call answers.
pub fn keep_directory(place: &Place, st: &Stat) -> Option<isize> {
    if engine().undo.kept == MAX_KEPT {
        crate::commit::commit(crate::machine::entry::local());
    }
    let vault = vault_for(place)?;
    let dir = vault.open().ok()?;
    let record = names::before_rmdir(place, st, &vault);
    if failed(move_into(place, dir, &name_in(vault.path(), st.ino))) {
        names::not_done(record);
        return None;
    }
    if !is_empty(dir, name_in(vault.path(), st.ino).as_ptr()) {
        // Somebody was faster.
        let kept = name_in(vault.path(), st.ino);
        const NOREPLACE: usize = 1;
        sys!(
            RENAMEAT2,
            dir,
            kept.as_ptr(),
            place.dir,
            place.name(),
            NOREPLACE
        );
        names::not_done(record);
        return Some(-ENOTEMPTY);
    }
    note_kept(st, &vault);
    Some(0)
}

pub const ENOTEMPTY: isize = 39;

/// The directory that went last stands in its place again: that was not wanted.
pub fn put_directory_back(place: &Place) -> isize {
    const NOREPLACE: usize = 1;
    let p = &mut engine().undo;
    let Some(last) = p.kept.checked_sub(1).map(|i| p.files[i]) else {
        return -ENOENT;
    };
    let vault = match last.vault {
        0 => Vault::NONE,
        n => p.vaults[n as usize - 1],
    };
    let dir = match vault.open() {
        Ok(dir) => dir,
        Err(e) => return e,
    };
    let kept = name_in(vault.path(), last.ino);
    let r = sys!(
        RENAMEAT2,
        dir,
        kept.as_ptr(),
        place.dir,
        place.name(),
        NOREPLACE
    );
    if !failed(r) {
        p.kept -= 1;
    }
    r
}

/// What getdents has answered without the vaults in it: they are none of the program's
/// names. `a` are its arguments, `r` the bytes that it gave.
pub fn hide_vaults(number: usize, a: [usize; 6], r: isize) -> isize {
    if engine().undo.vaults_len == 0 && !crate::run::is_tree() {
        return r;
    }
    let name_at = match number {
        crate::machine::nr::GETDENTS64 => 19,
        _ => 18,
    };
    let (mut at, mut kept) = (0, 0);
    while at < r as usize {
        let Some(len) = user::read::<u16>(a[1] + at + 16).map(usize::from) else {
            return r;
        };
        let name = user::read::<[u8; VAULT_NAME.len()]>(a[1] + at + name_at);
        if len == 0 {
            return r;
        }
        if name.is_none_or(|name| name != VAULT_NAME) {
            let mut entry = [0u8; 512];
            let n = len.min(entry.len());
            if kept != at
                && !(user::read_bytes(a[1] + at, &mut entry[..n])
                    && user::write_bytes(a[1] + kept, &entry[..n]))
            {
                return r;
            }
            kept += len;
        }
        at += len;
    }
    if kept == 0 && r > 0 {
        // Only vaults: what comes behind them, or the end.
        return match super::super::tree::raw(number, a) {
            more if more > 0 => hide_vaults(number, a, more),
            more => more,
        };
    }
    kept as isize
}

fn move_into(place: &Place, vault: i32, kept: &[u8; 64]) -> isize {
    const NOREPLACE: usize = 1;
    sys!(
        RENAMEAT2,
        place.dir,
        place.name(),
        vault,
        kept.as_ptr(),
        NOREPLACE
    )
}

/// Whether a directory has no entries but itself and the one above.
pub fn is_empty(dir: i32, name: *const u8) -> bool {
    let fd = sys!(OPENAT, dir, name, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if failed(fd) {
        return false;
    }
    let mut buffer = [0u64; 64];
    let mut empty = true;
    loop {
        let n = sys!(GETDENTS64, fd, buffer.as_mut_ptr(), size_of_val(&buffer));
        if n <= 0 {
            break;
        }
        let bytes = bytes_of(&buffer);
        let mut at = 0;
        while at < n as usize {
            let len = u16::from_le_bytes([bytes[at + 16], bytes[at + 17]]) as usize;
            let name = &bytes[at + 19..];
            empty &= name.starts_with(b".\0") || name.starts_with(b"..\0");
            at += len.max(1);
        }
    }
    sys!(CLOSE, fd);
    empty
}

fn note_kept(st: &Stat, vault: &Vault) {
    let p = &mut engine().undo;
    let known = p.vaults[..p.vaults_len]
        .iter()
        .position(|v| v.mount == vault.mount);
    p.files[p.kept] = KeptFile {
        dev: st.dev,
        ino: st.ino,
        vault: if vault.path_len == 0 {
            0
        } else {
            known.map_or(0, |i| i as u32 + 1)
        },
        is_dir: st.kind() == S_IFDIR,
        elsewhere: held::elsewhere(st, vault),
    };
    p.kept += 1;
    engine().live().second_names.fetch_add(1, Relaxed);
    // What is open of it may be found under another name now.
    names::renames_go_on();
}

/// Where a file that was kept in this interval lies, if no other name leads to it: its
/// path.
pub fn only_name(dev: u64, ino: u64, room: &mut [u8; PATH_ROOM]) -> Option<usize> {
    let p = &engine().undo;
    let kept = p.files[..p.kept]
        .iter()
        .rev()
        .find(|k| (k.dev, k.ino) == (dev, ino))?;
    let vault = match kept.vault {
        0 => Vault::NONE,
        n => p.vaults[n as usize - 1],
    };
    let dir = vault.open().ok()?;
    let name = name_in(vault.path(), ino);
    let st = super::place::stat_at(dir, name.as_ptr(), 0x100).ok()?;
    if st.nlink != 1 {
        return None;
    }
    path_in(dir, &name, room)
}

pub(super) fn path_in(dir: i32, name: &[u8; 64], path: &mut [u8; PATH_ROOM]) -> Option<usize> {
    let n = super::super::process::fd_path(dir, path);
    let name_len = name.iter().position(|&b| b == 0).unwrap_or(0);
    if n == 0 || n + 2 + name_len > PATH_ROOM {
        return None;
    }
    path[n] = b'/';
    path[n + 1..n + 1 + name_len].copy_from_slice(&name[..name_len]);
    path[n + 1 + name_len] = 0;
    Some(n + 1 + name_len)
}

/// What this interval has put into a vault.
#[derive(Clone, Copy)]
pub struct KeptFile {
    pub dev: u64,
    pub ino: u64,
    /// 0 is the run's directory.
    pub vault: u32,
    pub is_dir: bool,
    /// Another process of the run may have it open.
    pub elsewhere: bool,
}

/// After a commit: what lies in the vaults goes, unless it is a file that is still open
/// and has no other name: then a cold recovery needs it for as long as that lasts.
pub fn forget_kept() {
    let p = &mut engine().undo;
    p.held.remove_one();
    let mut gone = 0;
    for i in 0..p.kept {
        let kept = p.files[i];
        let vault = match kept.vault {
            0 => Vault::NONE,
            n => p.vaults[n as usize - 1],
        };
        let Ok(dir) = vault.open() else { continue };
        let name = name_in(vault.path(), kept.ino);
        if open_without_name(kept.dev, kept.ino).is_some() {
            p.open_names = true;
        } else if kept.elsewhere || crate::run::shared::has_file(kept.ino) {
            p.held.add(dir, &name);
        } else {
            const AT_REMOVEDIR: usize = 0x200;
            let flags = if kept.is_dir { AT_REMOVEDIR } else { 0 };
            sys!(UNLINKAT, dir, name.as_ptr(), flags);
            gone += 1;
        }
    }
    engine().live().second_names.fetch_sub(gone, Relaxed);
    p.kept = 0;
    for v in &p.vaults[..p.vaults_len] {
        // It goes if nothing is left in it.
        if is_own_vault(v.path()) {
            sys!(RMDIR, v.path.as_ptr());
        }
    }
    p.vaults_len = 0;
    for path in &p.closed[..p.closed_len] {
        if !nameless::is_needed(path) {
            match crate::run::has_company() {
                // Others may have it open.
                true => p.held.add_path(nameless::text(path)),
                false => remove_name(path),
            }
        }
    }
    p.closed_len = 0;
}

pub const CLOSED_ROOM: usize = 320;

/// An open file without a name is closed for good: with the next commit the one that we
/// gave it goes.
pub fn close_name(path: &[u8]) {
    let ours = path
        .rsplit(|&b| b == b'/')
        .next()
        .is_some_and(|name| name.starts_with(b"kept-"));
    if !ours || path.len() >= PATH_ROOM {
        return;
    }
    let p = &mut engine().undo;
    if path.len() < CLOSED_ROOM && p.closed_len < p.closed.len() {
        let entry = &mut p.closed[p.closed_len];
        entry[..path.len()].copy_from_slice(path);
        entry[path.len()] = 0;
        p.closed_len += 1;
    }
    if p.closed.len() - p.closed_len < 16 && !crate::event::is_behind() {
        crate::event::tell(protocols::Event::CommitRequested, 0);
        crate::machine::entry::local().commit_after = true;
    }
}

/// A kept name, and its vault if it was the last one there.
pub(super) fn remove_name(path: &[u8]) {
    if !failed(sys!(UNLINK, path.as_ptr())) {
        engine().live().second_names.fetch_sub(1, Relaxed);
    }
    let len = path.iter().position(|&b| b == 0).unwrap_or(0);
    let Some(slash) = path[..len].iter().rposition(|&b| b == b'/') else {
        return;
    };
    let mut vault = [0u8; PATH_ROOM];
    vault[..slash].copy_from_slice(&path[..slash]);
    if is_own_vault(&vault[..slash]) {
        sys!(RMDIR, vault.as_ptr());
    }
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
