//! What the program itself has changed since the commit, and may have been told of.

use crate::engine::engine;
use crate::event;
use crate::machine::frame::Local;
use crate::machine::{nr, user};
use crate::object::stat::{self, S_IFDIR, S_IFMT, S_IFREG, Stat};
use crate::state::OpenFile;

/// The program changes a file itself.
pub fn note_changed(dev: u64, ino: u64) {
    let p = &mut engine().undo;
    if p.changed[..p.changed_len].contains(&(dev, ino)) {
        return;
    }
    if p.changed_len == p.changed.len() {
        p.changed_many = true;
    } else {
        p.changed[p.changed_len] = (dev, ino);
        p.changed_len += 1;
    }
}

/// Whether a call has told the program of what it has done to files since the
/// commit. Done again, that would have other times and perhaps another inode,
/// so such an answer cannot be logged: a replay could not keep its word.
pub fn shows_in(number: usize, args: &[usize; 6], ret: isize) -> bool {
    let p = &engine().undo;
    if ret < 0 || (p.changed_len == 0 && !p.tree_changed) {
        return false;
    }
    let shows = |mode: u32, dev: u64, ino: u64| match mode & S_IFMT {
        S_IFDIR => p.tree_changed,
        S_IFREG => is_changed(dev, ino),
        _ => false,
    };
    let at = match number {
        nr::STAT | nr::LSTAT | nr::FSTAT => args[1],
        nr::NEWFSTATAT => args[2],
        nr::STATX => {
            return stat::of_statx(args[4]).is_some_and(|(mode, dev, ino)| shows(mode, dev, ino));
        }
        nr::GETDENTS | nr::GETDENTS64 => return p.tree_changed,
        _ => return false,
    };
    user::read::<Stat>(at).is_some_and(|st| shows(st.mode, st.dev, st.ino))
}

/// Whether the program itself has changed a file since the commit.
pub fn is_changed(dev: u64, ino: u64) -> bool {
    let p = &engine().undo;
    p.changed_many || p.changed[..p.changed_len].contains(&(dev, ino))
}

/// Whether nobody else can come to a file: it has no name.
pub fn is_private(f: &OpenFile) -> bool {
    f.unlinked != 0
}

/// Something is about to happen by which others learn that they may read a file, or
/// write it: an unlock, a close, an fsync, a rename. If the program has changed it since
/// the commit it is committed before, so that what they see does not go back, and
/// what they write is not undone. Under the big lock.
pub fn publish(l: &mut Local, dev: u64, ino: u64) {
    if is_changed(dev, ino) {
        commit_for_others(l);
    }
}

/// The same for whatever was changed.
pub fn publish_all(l: &mut Local) {
    let p = &engine().undo;
    if p.changed_len > 0 || p.changed_many {
        commit_for_others(l);
    }
}

/// The same for names too.
pub fn publish_tree(l: &mut Local) {
    let p = &engine().undo;
    if p.changed_len > 0 || p.changed_many || p.tree_changed {
        commit_for_others(l);
    }
}

fn commit_for_others(l: &mut Local) {
    if !event::is_behind() {
        event::irrevocable(l);
    }
}
