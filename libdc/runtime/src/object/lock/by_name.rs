//! Locks that are names: whoever makes the name first has the lock (a dotlock, a directory, a
//! link), and gives it back by removing the name.
//!
//! Nobody says that a name is a lock. So each one that a call has made that fails where
//! something stands (O_EXCL, mkdir, link, symlink, mknod) counts as one, the last 64 of a
//! process: when it goes, or becomes another name, what the program has changed is
//! committed before, and that it went is committed after, as with any other lock.

use crate::engine::state;
use crate::event;
use crate::machine::frame::Local;
use crate::object::stat::Stat;
use crate::object::undo;

/// What stands under such names: device and inode.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Names {
    of: [[u64; 2]; 64],
    next: u64,
}

fn names() -> &'static mut Names {
    &mut state().root.lock_names
}

/// A name was made where nothing may have stood.
pub fn made(st: &Stat) {
    let names = names();
    let at = names.next as usize % names.of.len();
    names.of[at] = [st.dev, st.ino];
    names.next += 1;
}

/// Before a name goes or becomes another one: whether it may be such a lock. Then what the
/// program did while it had it is committed, and [`gone`] follows.
pub fn before_removal(l: &mut Local, st: &Stat) -> bool {
    let is_one = names().of.contains(&[st.dev, st.ino]);
    if is_one && !event::is_behind() {
        undo::publish_tree(l);
    }
    is_one
}

/// It went: others may have made it anew already.
pub fn gone(l: &mut Local, st: &Stat) {
    if st.nlink <= 1 {
        let of = &mut names().of;
        if let Some(entry) = of.iter_mut().find(|e| **e == [st.dev, st.ino]) {
            *entry = [0; 2];
        }
    }
    if !event::is_behind() {
        l.commit_after = true;
    }
}
