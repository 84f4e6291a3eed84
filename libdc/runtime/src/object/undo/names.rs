//! Names that come, go and move: what is noted before, and what of it shows after.
//!
//! ```text
//! CREATED, MADE_DIR  a name is made; MADE follows and says what stands there
//! UNLINKED           a name goes; its file has another one, or lies in a vault
//! REMOVED_DIR        a directory goes; it lies in a vault, empty
//! RENAMED            one name becomes another, or two are exchanged
//! ```

use super::place::Place;
use super::vault::Vault;
use super::*;
use core::sync::atomic::Ordering::Relaxed;

/// Of a record about names; paths follow, each ended by NUL.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct NameHead {
    /// The directory.
    pub dev: u64,
    pub ino: u64,
    /// What stands or stood there; 0 if it is not known yet.
    pub of_dev: u64,
    pub of_ino: u64,
    /// The other directory: of the new name, or the vault.
    pub other_dev: u64,
    pub other_ino: u64,
    /// Of an exchange the inode of the other file; of a directory that can only be
    /// made anew its mode, owner and group.
    pub more: u64,
    pub owner: u64,
    pub path_len: u32,
    pub other_len: u32,
}

/// [`NameHead::more`] of a removed directory that lies in no vault.
pub const ANEW: u64 = 1 << 32;

impl NameHead {
    pub fn at(place: &Place, st: Option<&Stat>) -> NameHead {
        NameHead {
            dev: place.dev,
            ino: place.ino,
            of_dev: st.map_or(0, |st| st.dev),
            of_ino: st.map_or(0, |st| st.ino),
            other_dev: 0,
            other_ino: 0,
            more: 0,
            owner: 0,
            path_len: 0,
            other_len: 0,
        }
    }
}

fn note(kind: u32, mut h: NameHead, path: &[u8], other: &[u8]) -> u32 {
    engine().undo.tree_changed = true;
    h.path_len = path.len() as u32;
    h.other_len = other.len() as u32;
    let at = engine().journal.tail() as u32;
    record::append(kind, &[bytes_of(&h), path, b"\0", other, b"\0"]);
    at
}

/// Before a name is made: the record, for [`made`]. `of` is what will stand there, if
/// that is there already under another name.
pub fn before_create(place: &Place, is_dir: bool, of: Option<&Stat>) -> u32 {
    let kind = if is_dir {
        record::MADE_DIR
    } else {
        record::CREATED
    };
    note(kind, NameHead::at(place, of), place.path(), b"")
}

/// It was made: this is what a rollback may take away.
pub fn made(record: u32, st: &Stat) {
    record::append(
        record::MADE,
        &[
            &record.to_le_bytes(),
            &[0; 4],
            &st.dev.to_le_bytes(),
            &st.ino.to_le_bytes(),
        ],
    );
    if st.kind() == S_IFREG {
        note_changed(st.dev, st.ino);
    }
}

/// It was not made, or nothing of the call at all.
pub fn not_done(record: u32) {
    record::append(record::UNDONE, &[&record.to_le_bytes(), &[0; 4]]);
}

/// Before a name goes that its file keeps a second one for.
pub fn before_unlink(place: &Place, st: &Stat, vault: &Vault) -> u32 {
    let mut h = NameHead::at(place, Some(st));
    (h.other_dev, h.other_ino) = (vault.dev, vault.ino);
    note(record::UNLINKED, h, place.path(), vault.path())
}

/// Before an empty directory goes into a vault.
pub fn before_rmdir(place: &Place, st: &Stat, vault: &Vault) -> u32 {
    let mut h = NameHead::at(place, Some(st));
    (h.other_dev, h.other_ino) = (vault.dev, vault.ino);
    note(record::REMOVED_DIR, h, place.path(), vault.path())
}

/// The same where it can only be made anew.
pub fn before_rmdir_anew(place: &Place, st: &Stat) -> u32 {
    let mut h = NameHead::at(place, Some(st));
    h.more = ANEW | u64::from(st.mode);
    h.owner = u64::from(st.uid) << 32 | u64::from(st.gid);
    note(record::REMOVED_DIR, h, place.path(), b"")
}

/// Changes of names by all processes of the run: a path that was noted before may lead
/// elsewhere behind one.
pub fn renames() -> u64 {
    engine().live().renames.load(Relaxed)
}

pub fn renames_go_on() {
    engine().live().renames.fetch_add(1, Relaxed);
}

/// Before one name becomes another; `other` is what stands under the second name, if
/// the two are exchanged.
pub fn before_rename(from: &Place, to: &Place, st: &Stat, other: Option<&Stat>) -> u32 {
    renames_go_on();
    let mut h = NameHead::at(from, Some(st));
    (h.other_dev, h.other_ino) = (to.dev, to.ino);
    h.more = other.map_or(0, |st| st.ino);
    note(record::RENAMED, h, from.path(), to.path())
}
