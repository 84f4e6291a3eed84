//! Undoing what the program did to files since the last commit.
//!
//! Files are process state: before a change what was there goes into the journal, and a
//! rollback plays that back, newest first. Every step may be repeated: a crash in the
//! middle of a rollback is harmless.
//!
//! Three rules, kept by `play.rs` and what it calls:
//! - what is undone is told by device and inode, never by a path alone ([`place`]);
//! - what is there must be what the program left there; where somebody else has been,
//!   the recovery stops and says where ([`conflict`]);
//! - every result is looked at: a step that fails stops the recovery.
//!
//! | file | what it notes and undoes |
//! |---|---|
//! | `names.rs` | names that come, go and move |
//! | `kept.rs` | where removed files and directories lie until the commit |
//! | `contents.rs`, `written.rs` | bytes and sizes |
//! | `attribute.rs` | mode, owner, times, extended attributes |
//! | `beside.rs` | what others have renamed |
//! | `stamp.rs`, `look.rs` | whether others have changed a file since |
//! | `changed.rs` | which files the program has changed, for logs and for sharing |
#![allow(unsafe_code)]

mod attribute;
pub mod beside;
mod changed;
pub mod conflict;
pub mod contents;
mod elsewhere;
pub mod kept;
mod look;
pub mod nameless;
pub mod names;
pub mod place;
mod play;
mod put_back;
pub mod stamp;
pub mod vault;
pub mod written;

pub use attribute::{before_attribute, before_meta, left_attribute, left_meta};
pub use changed::{
    is_changed, is_private, note_changed, publish, publish_all, publish_tree, shows_in,
};
pub use contents::{before_open, before_store, before_truncate};
pub use kept::{close_name, put_directory_back};
pub use play::roll_back;

use super::descriptor::*;
use super::record::{self, FileHead, bytes_of, value_of};
use super::stat::*;
use crate::engine::{engine, state};
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::sys;
use dc_image::boot::high_fd;

const MAX_SIZES: usize = 64;
const MAX_KEPT: usize = 4096;
/// Bytes copied at a time.
const CHUNK: usize = 64 << 10;
/// More than this is not kept, but committed around.
const KEPT_MAX: u64 = 16 << 20;

/// A file whose contents this interval has changed.
#[derive(Clone, Copy)]
struct Size {
    dev: u64,
    ino: u64,
    /// As this program has left it.
    now: u64,
    /// The record that has its path, and how many renames were made before that.
    path_at: u32,
    renames: u64,
    /// Stores through a mapping have changed it as well.
    mapped: bool,
}

/// What this interval has recorded already.
#[repr(C)]
pub struct Pending {
    len: usize,
    kept: usize,
    vaults: [vault::Vault; vault::NO_VAULTS.len()],
    vaults_len: usize,
    /// The mount that the run's directory is on; 0 is not known yet.
    run_mount: u64,
    /// Open files may have names of ours.
    open_names: bool,
    closed_len: usize,
    changed_len: usize,
    changed_many: bool,
    /// Names came or went.
    tree_changed: bool,
    elsewhere: elsewhere::Elsewhere,
    sizes: [Size; MAX_SIZES],
    /// Files whose contents or attributes this interval has changed: device,
    /// inode; and whether there were more.
    changed: [(u64, u64); MAX_SIZES],
    /// What lies in vaults.
    files: [kept::KeptFile; MAX_KEPT],
    /// Names of ours that go with the next commit.
    closed: [[u8; kept::CLOSED_ROOM]; 64],
}

impl Pending {
    pub const fn new() -> Pending {
        Pending {
            sizes: [Size {
                dev: 0,
                ino: 0,
                now: 0,
                path_at: 0,
                renames: 0,
                mapped: false,
            }; MAX_SIZES],
            len: 0,
            files: [kept::KeptFile {
                dev: 0,
                ino: 0,
                vault: 0,
                is_dir: false,
                elsewhere: false,
            }; MAX_KEPT],
            kept: 0,
            vaults: vault::NO_VAULTS,
            vaults_len: 0,
            run_mount: 0,
            open_names: false,
            closed: [[0; kept::CLOSED_ROOM]; 64],
            closed_len: 0,
            elsewhere: elsewhere::Elsewhere::NONE,
            changed: [(0, 0); MAX_SIZES],
            changed_len: 0,
            changed_many: false,
            tree_changed: false,
        }
    }
}

impl Pending {
    /// In a child: what its parent keeps is the parent's.
    pub fn leave(&mut self) {
        (self.kept, self.vaults_len, self.closed_len) = (0, 0, 0);
        self.elsewhere.leave();
    }
}

/// After a commit: nothing of the past will be undone.
pub fn forget() {
    let p = &mut engine().undo;
    p.len = 0;
    if p.kept + p.vaults_len + p.closed_len > 0 || !p.elsewhere.is_empty() {
        kept::forget_kept();
    }
    p.changed_len = 0;
    p.changed_many = false;
    p.tree_changed = false;
}

fn open_without_name(dev: u64, ino: u64) -> Option<u32> {
    (ino != 0).then_some(())?;
    (0..state().root.fd_high as i32)
        .filter_map(known_file)
        .chain(
            crate::space::areas()
                .iter()
                .map(|v| v.file)
                .filter(|&file| file != 0),
        )
        .find(|&file| {
            let f = open_file(file);
            f.unlinked != 0 && (f.dev, f.ino) == (dev, ino)
        })
}

/// How many of a file's names are ours, not the program's: none or one.
pub fn second_names(dev: u64, ino: u64) -> u64 {
    let p = &engine().undo;
    (p.files[..p.kept]
        .iter()
        .any(|kept| (kept.dev, kept.ino) == (dev, ino))
        || open_without_name(dev, ino).is_some()
        || elsewhere::others_keep() && nameless::has_kept_name(dev, ino)) as u64
}

/// Whether any file has a second name.
pub fn any_second_names() -> bool {
    let p = &engine().undo;
    p.kept != 0 || p.open_names || elsewhere::others_keep()
}

/// At recovery: whether files have names of ours is not remembered elsewhere.
pub fn restore() {
    engine().undo.open_names = true;
}
