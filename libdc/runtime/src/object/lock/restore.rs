//! A recovery takes the locks of the last commit again, and gives back those taken since.

use super::*;

/// Whether a recovery must take care of POSIX locks.
pub fn any_posix() -> bool {
    held().iter().any(|h| h.kind == POSIX) || taken_since()
}

fn taken_since() -> bool {
    record::own(0).any(|r| r.kind == record::LOCKED)
}

/// At recovery, when descriptors are in place: the program holds what it held.
pub fn restore(warm: bool) {
    // First what others of the run may wait for, who held it at the commit.
    if warm {
        give_back();
    }
    flock::take_again_of_several();
    for i in 0..held().len() {
        let h = held()[i];
        if h.kind != NONE {
            take_again(&h);
        }
    }
}

/// Whatever was taken since the commit. (No record tells of a lock that a call under way has
/// just been given.)
fn give_back() {
    let taken_since = taken_since();
    flock::give_back_of_several();
    for (fd, file) in each_file() {
        let f = open_file(file);
        if !matches!(f.kind, Kind::Regular | Kind::Directory) {
            continue;
        }
        // What this dcrun was given may be locked by whoever gave it.
        if f.inherited != OWN && !taken_since {
            continue;
        }
        if shared_with_others(f) {
            // Another process may hold what this one does not.
            give_back_gaps(fd, POSIX, file, f.dev, f.ino);
            continue;
        }
        if find(FLOCK, file).is_none() && flock::of_several(file).is_none() {
            sys!(FLOCK, fd, LOCK_UN);
        }
        if f.kind == Kind::Regular {
            give_back_gaps(fd, POSIX, file, f.dev, f.ino);
            give_back_gaps(fd, DESCRIPTION, file, f.dev, f.ino);
        }
    }
}

/// What is not in the table is not held.
fn give_back_gaps(fd: i32, kind: u32, file: u32, dev: u64, ino: u64) {
    let command = if kind == POSIX { F_SETLK } else { F_OFD_SETLK };
    let mut at = 0;
    loop {
        let next = held()
            .iter()
            .filter(|h| is_of(h, kind, file, dev, ino) && h.start >= at)
            .min_by_key(|h| h.start);
        let end = next.map_or(TO_THE_END, |h| h.start);
        if end > at {
            apply(fd, command, F_UNLCK, at, end);
        }
        match next {
            Some(h) => at = h.end,
            None => return,
        }
    }
}

/// So long is waited for somebody who tries a lock and gives it back, in steps of 20 ms.
const PATIENCE: usize = 100;

pub(super) fn take_again(h: &Held) {
    let fd = match h.kind {
        POSIX => (0..state().root.fd_high as i32).find(|&fd| {
            known_file(fd).is_some_and(|file| {
                let f = open_file(file);
                let mode = f.flags as usize & O_ACCMODE;
                let fits = mode == O_RDWR || (mode == 1) == (h.mode != F_RDLCK);
                (f.dev, f.ino) == (h.dev, h.ino) && fits
            })
        }),
        _ => any_fd(h.file),
    };
    match fd {
        Some(fd) => take_by(h, fd),
        // It is mapped, and comes with that.
        None if h.kind != POSIX && is_referred_to(h.file) => {}
        None => cannot(h, -EBADF, -1),
    }
}

fn is_referred_to(file: u32) -> bool {
    state().file_refs[file as usize - 1] > 0
}

/// At recovery: a file is mapped again, by a descriptor that is the mapping's alone. If the
/// program has none of it any more, the mapping has what the description had locked.
pub fn restore_mapped(file: u32, fd: i32) {
    if any_fd(file).is_some() {
        return;
    }
    for h in held().iter().filter(|h| h.kind != POSIX && h.file == file) {
        if h.kind != NONE {
            take_by(h, fd);
        }
    }
    if let Some(mode) = flock::of_several(file).filter(|&mode| mode != 0) {
        // Unless another process of the run has it already.
        sys!(FLOCK, fd, mode | LOCK_NB);
    }
}

fn take_by(h: &Held, fd: i32) {
    let mut r = 0;
    for _ in 0..PATIENCE {
        r = match h.kind {
            FLOCK => sys!(FLOCK, fd, h.mode | LOCK_NB),
            POSIX => apply(fd, F_SETLK, h.mode, h.start, h.end),
            DESCRIPTION => apply(fd, F_OFD_SETLK, h.mode, h.start, h.end),
            _ => sys!(FCNTL, fd, F_SETLEASE, h.mode),
        };
        if r != -EAGAIN && r != -EACCES {
            break;
        }
        let pause = [0usize, 20_000_000];
        sys!(NANOSLEEP, &raw const pause, 0);
    }
    if failed(r) {
        cannot(h, r, fd);
    }
}

fn cannot(h: &Held, r: isize, fd: i32) {
    let path = match known_file(fd) {
        Some(file) => {
            let f = open_file(file);
            core::str::from_utf8(&f.path[..f.path_len as usize]).unwrap_or("?")
        }
        None => "a file that is closed",
    };
    let kind = match h.kind {
        FLOCK => "flock",
        POSIX => "fcntl",
        DESCRIPTION => "open file description",
        _ => "lease",
    };
    fatal::stop(
        FatalCode::CannotRestore,
        r,
        format_args!(
            "take the {kind} lock on {path} again, which the program held: error {}: somebody \
             else holds it now; resume when it is free",
            -r
        ),
    )
}
