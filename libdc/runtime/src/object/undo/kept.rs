//! What is removed or replaced, until the next commit: files keep a second name in a vault
//! ([`super::vault`]), directories are moved there.

use super::elsewhere;
use super::place::{O_DIRECTORY, O_NOFOLLOW, Place};
use super::vault::{PATH_ROOM, VAULT_NAME, Vault, is_own_vault, name_in, vault_for};
use super::*;
use crate::run::shared::has_file;
use core::sync::atomic::Ordering::Relaxed;
use dc_image::run::fifo_of;

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
        move_back(place, dir, &name_in(vault.path(), st.ino));
        names::not_done(record);
        return Some(-ENOTEMPTY);
    }
    note_kept(st, &vault);
    Some(0)
}

pub const ENOTEMPTY: isize = 39;

/// The directory that went last stands in its place again: that was not wanted.
pub fn put_directory_back(place: &Place) -> isize {
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
    let r = move_back(place, dir, &name_in(vault.path(), last.ino));
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
    let (name, kept) = (place.name(), kept.as_ptr());
    sys!(RENAMEAT2, place.dir, name, vault, kept, NOREPLACE)
}

/// From its vault to its place, if nothing stands there.
pub(super) fn move_back(place: &Place, vault: i32, kept: &[u8; 64]) -> isize {
    let (name, kept) = (place.name(), kept.as_ptr());
    sys!(RENAMEAT2, vault, kept, place.dir, name, NOREPLACE)
}

pub(super) const NOREPLACE: usize = 1;

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
        vault: if vault.path().is_empty() {
            0
        } else {
            known.map_or(0, |i| i as u32 + 1)
        },
        is_dir: st.kind() == S_IFDIR,
        elsewhere: elsewhere::is_needed(st, vault),
    };
    p.kept += 1;
    engine().live().second_names.fetch_add(1, Relaxed);
    // What is open of it may be found under another name now.
    names::renames_go_on();
}

/// The path of the second name that a file was given in this interval.
pub fn second_name(dev: u64, ino: u64, room: &mut [u8; PATH_ROOM]) -> Option<usize> {
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
    super::place::stat_at(dir, name.as_ptr(), 0x100).ok()?;
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
    p.elsewhere.remove_one();
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
        } else if kept.elsewhere || has_file(kept.ino) || has_file(fifo_of(kept.dev, kept.ino)) {
            p.elsewhere.add(dir, &name);
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
        v.remove_if_empty();
    }
    p.vaults_len = 0;
    for path in &p.closed[..p.closed_len] {
        if !nameless::is_needed(path) {
            match crate::run::has_company() {
                // Others may have it open.
                true => p.elsewhere.add_path(nameless::text(path)),
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
