//! Whether somebody else has changed a file since the program did: its size and its time.
//!
//! What the program wrote is compared with what is there before it is undone
//! ([`super::written`]). Two things that does not tell:
//! - what others did where a state relies on bytes that it has not written. Inside of a lock
//!   a program relies on all that the lock guards; and when all processes of a run have died,
//!   nobody holds the lock. So a commit inside of a lock notes how the files are that are
//!   open for writing, and each change after it is followed by a record.
//! - what others did to a file that the program has stored into by a mapping, for nothing
//!   says what it has left there. So such a record follows each first store into a page.
//!
//! ```text
//! STAMP: [ Stamp ]      behind a change: as the program has left the file
//! ```

use super::attribute::open_object;
use super::conflict;
use super::*;
use crate::fatal;
use crate::object::{lock, regular};
use crate::state::{Kind, OpenFile};
use dc_image::FatalCode;
use dc_image::boot::Mode;

/// How a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: [u64; 2],
}

impl Stamp {
    pub fn of(st: &Stat) -> Stamp {
        Stamp {
            dev: st.dev,
            ino: st.ino,
            size: st.size,
            mtime: st.mtime,
        }
    }
}

/// In `OpenFile::words`: size and time at the commit that `Root::stamped` names, and whether
/// they are known.
const AT_COMMIT: core::ops::Range<usize> = 4..8;

/// Behind a change of contents by a call.
pub fn after_change(fd: i32) {
    if lock::was_held() {
        after_store(fd);
    }
}

/// Behind the first store into a page of a mapping, when the kernel has noticed it.
pub fn after_store(fd: i32) {
    if let Ok(st) = Stat::of_fd(fd) {
        record::append(record::STAMP, &[bytes_of(&Stamp::of(&st))]);
    }
}

/// Whether a lock may guard what a description writes. (What is only appended to harms
/// nobody; a log is shared without any lock.)
fn counts(f: &OpenFile) -> bool {
    let mode = f.flags as usize & (O_ACCMODE | O_APPEND);
    f.kind == Kind::Regular && regular::rewinds(f) && matches!(mode, 1 | O_RDWR)
}

fn open_files() -> impl Iterator<Item = (u32, &'static mut OpenFile)> {
    (1..=state().root.file_high)
        .filter(|&file| state().file_refs[file as usize - 1] != 0)
        .map(|file| (file, open_file(file)))
        .filter(|(_, f)| counts(f))
}

/// At a commit: inside of a lock, how the files are.
pub fn save() {
    if lock::exclusive().is_none() {
        return;
    }
    state().root.stamped = engine().store.published() + 1;
    for (file, f) in open_files() {
        let known = any_fd(file).and_then(|fd| Stat::of_fd(fd).ok());
        let now = match known {
            Some(st) => [st.size, st.mtime[0], st.mtime[1], 1],
            None => [0; 4],
        };
        if f.words[AT_COMMIT] != now {
            f.words[AT_COMMIT].copy_from_slice(&now);
        }
    }
}

/// What the journal says of a file.
pub enum Last {
    /// Nothing: it is as at the commit.
    Untouched,
    /// So the program has left it.
    Left(Stamp),
    /// Something of it was changed, or undone, and nobody noted how it was then.
    Unknown,
}

pub fn last_of(dev: u64, ino: u64) -> Last {
    let is_of = |r: &vista_core::journal::Record<'static>| {
        matches!(
            r.kind,
            record::FILE_SIZE | record::FILE_BYTES | record::WROTE | record::META
        ) && value_of::<[u64; 2]>(r.payload) == Some([dev, ino])
    };
    let mut last = Last::Untouched;
    for r in record::of_all(0) {
        let undone = || value_of::<u32>(r.payload).and_then(|o| record::of_all(o as usize).next());
        match r.kind {
            record::STAMP => {
                let stamp = value_of::<Stamp>(r.payload);
                if let Some(stamp) = stamp.filter(|s| (s.dev, s.ino) == (dev, ino)) {
                    last = Last::Left(stamp);
                }
            }
            record::UNDONE | record::CUTTING if undone().is_some_and(|r| is_of(&r)) => {
                last = Last::Unknown;
            }
            _ if is_of(&r) => last = Last::Unknown,
            _ => {}
        }
    }
    last
}

/// When all have died, by each process: whether it may go on inside of its lock. Before anything
/// is undone, and when the locks are taken again, for whoever had one then was waited for.
pub fn look_inside_locks() {
    let is_cold = engine().boot.mode == Mode::Cold as u32;
    if !is_cold || !conflict::compares() || state().root.stamped != engine().store.published() {
        return;
    }
    let Some(locked) = lock::exclusive() else {
        return;
    };
    for (_, f) in open_files() {
        let [size, seconds, ns, known] = [4, 5, 6, 7].map(|i| f.words[i]);
        let left = match last_of(f.dev, f.ino) {
            Last::Left(stamp) => stamp,
            Last::Untouched if known != 0 => Stamp {
                dev: f.dev,
                ino: f.ino,
                size,
                mtime: [seconds, ns],
            },
            _ => continue,
        };
        // (Whether one that is gone is needed, its descriptor will tell.)
        let Ok((_, now)) = open_object(f.dev, f.ino, &f.path) else {
            continue;
        };
        if Stamp::of(&now) != left {
            let text = |f: &'static OpenFile| {
                core::str::from_utf8(&f.path[..f.path_len as usize]).unwrap_or("?")
            };
            fatal::stop(
                FatalCode::Conflict,
                dc_image::header::INSIDE_LOCK,
                format_args!(
                    "go on inside of the lock on {}, which the program held at its last commit: \
                     others have changed {} since, and it would write over that",
                    text(open_file(locked)),
                    text(f),
                ),
            )
        }
    }
}

/// After a rollback: files are as they were, and have new times perhaps.
pub fn renew() {
    if lock::exclusive().is_none() {
        return;
    }
    for r in record::of_all(0).filter(|r| r.kind == record::FILE_SIZE) {
        let Some(h) = value_of::<FileHead>(r.payload) else {
            continue;
        };
        let at = size_of::<FileHead>();
        let path = r.payload.get(at..at + h.path_len as usize + 1);
        if let Some(Ok((fd, _))) = path.map(|path| open_object(h.dev, h.ino, path)) {
            after_store(fd);
        }
    }
}
