//! flock(2): a lock of an open file description.
//!
//! Of a description that one process knows it stands in that process's table ([`super::Held`]),
//! of one that several know in their entry of what is shared: whichever of them takes it or
//! gives it back, and whichever has ended since.

use super::restore::take_again;
use super::*;
use dc_image::run::Shared;

/// flock(2).
pub fn flock(l: &mut Local, a: [usize; 6]) -> isize {
    let fd = a[0] as i32;
    let op = a[1] as u32 & !LOCK_NB;
    let Some(file) = entered(l, fd) else {
        return -EBADF;
    };
    let was = {
        let _guard = engine().lock.acquire(l);
        let was = find(FLOCK, file);
        let mode = match of_several(file) {
            Some(mode) => mode,
            None => was.map_or(0, |i| held()[i].mode),
        };
        if mode != 0 && (mode == LOCK_EX || op == LOCK_UN) && op != LOCK_EX {
            undo::publish_all(l);
        }
        was
    };
    let r = thread::wait_or_signal(l, nr::FLOCK, a);
    if failed(r) {
        return r;
    }
    let _guard = engine().lock.acquire(l);
    if file_of(fd) != Some(file) {
        return r;
    }
    if let Some((_, s)) = crate::run::shared::of(open_file(file)) {
        lock_of_several(l, s, fd, op);
        return r;
    }
    match op {
        LOCK_UN => {
            if let Some(i) = was {
                released(l, i);
            }
        }
        LOCK_SH | LOCK_EX => {
            let lock = Held::of_all(FLOCK, op, file);
            if let Some(i) = find(FLOCK, file) {
                held()[i].mode = op;
            } else if !enter_lock(lock) {
                sys!(FLOCK, fd, LOCK_UN);
                return -ENOLCK;
            }
            record::append(record::LOCKED, &[&fd.to_le_bytes(), &[0; 4]]);
        }
        _ => {}
    }
    r
}

/// The flock of a description that several processes know is kept where all of them find
/// it: `flock 9` in a script is a process that takes it, ends, and leaves it to the shell.
fn lock_of_several(l: &mut Local, s: &Shared, fd: i32, op: u32) {
    let published = engine().store.published();
    let had = s.lock_at(u64::MAX).unwrap_or(0) != 0;
    if op == LOCK_UN {
        s.set_lock(0, published);
        if had && !event::is_behind() {
            l.commit_after = true;
        }
    } else if matches!(op, LOCK_SH | LOCK_EX) {
        s.set_lock(op.into(), published);
        record::append(record::LOCKED, &[&fd.to_le_bytes(), &[0; 4]]);
    }
}

/// The flock of a file that several processes know, if it is one.
pub fn of_several(file: u32) -> Option<u32> {
    let (_, s) = crate::run::shared::of(open_file(file))?;
    Some(s.lock_at(u64::MAX).unwrap_or(0) as u32)
}

/// One that keeps all others out.
pub fn exclusive_of_several() -> Option<u32> {
    if !crate::run::is_tree() {
        return None;
    }
    (0..state().root.fd_high as i32)
        .filter_map(known_file)
        .find(|&file| of_several(file) == Some(LOCK_EX))
}

/// Before a fork: a description is about to be known to several processes, and so is its
/// flock.
pub fn becomes_shared(file: u32, s: &Shared) {
    if let Some(i) = find(FLOCK, file) {
        let since = held()[i].since;
        s.set_lock(held()[i].mode.into(), since.saturating_sub(1));
        held()[i].kind = NONE;
    }
}

/// The last number of a description that several have known is closed: the description may
/// live on until the commit, its lock may not.
pub fn last_closes(l: &mut Local, fd: i32, file: u32) {
    if of_several(file).is_some_and(|mode| mode != 0) {
        undo::publish_all(l);
        sys!(FLOCK, fd, LOCK_UN);
        if let Some((_, s)) = crate::run::shared::of(open_file(file)) {
            lock_of_several(l, s, fd, LOCK_UN);
        }
    }
}

/// At a warm recovery: nobody had locked this description of several at the commit.
pub fn give_back_of_several() {
    for (fd, file, mode) in descriptions_of_several() {
        let f = open_file(file);
        // (What this dcrun was given may be locked by whoever gave it.)
        if mode == 0 && f.inherited == OWN && f.kind == Kind::Regular {
            sys!(FLOCK, fd, LOCK_UN);
        }
    }
}

/// What several processes know: each that has such a description says the same of it.
pub fn take_again_of_several() {
    for (_, file, mode) in descriptions_of_several() {
        if mode != 0 {
            take_again(&Held::of_all(FLOCK, mode, file));
        }
    }
}

/// Each with a descriptor, and how it was locked at the commit.
fn descriptions_of_several() -> impl Iterator<Item = (i32, u32, u32)> {
    let published = engine().store.published();
    each_file().filter_map(move |(fd, file)| {
        let (_, s) = crate::run::shared::of(open_file(file))?;
        Some((fd, file, s.lock_at(published).unwrap_or(0) as u32))
    })
}
