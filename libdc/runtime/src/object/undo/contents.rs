//! Bytes and sizes of files: what was there before a change.
//!
//! ```text
//! FILE_SIZE   a file is changed for the first time in this interval: size, time, path
//! FILE_PATH   its path by now, after something was renamed
//! FILE_BYTES  bytes that are about to be overwritten or cut off
//! WROTE       see written.rs
//! ```

use super::place::Named;
use super::written::{self, CONTENTS_UNKNOWN};
use super::*;
use crate::object::{lock, process};
use crate::state::OpenFile;
use core::sync::atomic::Ordering::Relaxed;

/// Of FILE_BYTES; the bytes follow.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct BytesHead {
    pub dev: u64,
    pub ino: u64,
    pub at: u64,
    /// The record that has the path.
    pub path_at: u32,
    /// With [`STORED`], if it was before a store into mapped memory.
    pub len: u32,
}

/// Of these bytes nothing says what the program has left in their place.
pub const STORED: u32 = 1 << 31;

/// What is known of a file that this interval changes.
#[derive(Clone, Copy)]
pub struct Entry {
    pub dev: u64,
    pub ino: u64,
    pub now: u64,
    pub path_at: u32,
    pub mapped: bool,
}

fn known(dev: u64, ino: u64) -> Option<&'static mut Size> {
    let p = &mut engine().undo;
    p.sizes[..p.len]
        .iter_mut()
        .find(|s| (s.dev, s.ino) == (dev, ino))
}

/// In `OpenFile::words`: the interval in which O_TMPFILE made it.
pub const MADE_NAMELESS: usize = 13;

/// Whether a file has no name and had no life at the commit: nothing of it is undone.
/// (Its inode's number may be another file's before the rollback.)
pub fn is_new_and_nameless(f: &OpenFile) -> bool {
    f.unlinked != 0 && f.words[MADE_NAMELESS] == engine().store.published() + 1
}

/// The entry of an open file; its first change in this interval is noted.
pub fn entry(fd: i32, file: u32) -> Option<Entry> {
    let f = open_file(file);
    if is_new_and_nameless(f) {
        return None;
    }
    if let Some(s) = known(f.dev, f.ino) {
        if s.renames != names::renames() {
            s.path_at = note_path(fd, f);
            s.renames = names::renames();
        }
        if crate::run::is_tree() {
            // Another process of the run may have changed it since.
            s.now = Stat::of_fd(fd).ok()?.size;
        }
        return Some(Entry {
            dev: s.dev,
            ino: s.ino,
            now: s.now,
            path_at: s.path_at,
            mapped: s.mapped || stores_elsewhere(),
        });
    }
    let st = Stat::of_fd(fd).ok()?;
    Some(remember(fd, f, &st))
}

/// The same of a file that is only mapped, and that this process may not open: it has given
/// up the rights that it had when it mapped it. A recovery begins with them again. How long
/// the file is nobody tells; what lies behind its end cannot be read.
fn entry_without(f: &mut OpenFile) -> Option<Entry> {
    if f.path_len == 0 || is_new_and_nameless(f) {
        return None;
    }
    note_changed(f.dev, f.ino);
    Some(Entry {
        dev: f.dev,
        ino: f.ino,
        now: u64::MAX,
        path_at: note_path(-1, f),
        mapped: true,
    })
}

/// A descriptor, for the moment, of a file that is only mapped.
fn open_mapped(f: &OpenFile) -> Option<i32> {
    let slot = high_fd::OBJECT;
    let fd = place::open_path(place::AT_FDCWD, f.path.as_ptr(), 0, slot).ok()?;
    Stat::of_fd(fd)
        .is_ok_and(|st| (st.dev, st.ino) == (f.dev, f.ino))
        .then_some(fd)
}

/// The path of an open file, as the kernel has it now.
fn path_now<'a>(fd: i32, f: &mut OpenFile, room: &'a mut [u8; 4096]) -> &'a [u8] {
    let mut n = process::fd_path(fd, &mut room[..4095]);
    if room[..n].ends_with(b" (deleted)") {
        nameless::adopt(f);
    }
    if nameless::path_of_ours(f).is_some() || n == 0 || room[0] != b'/' {
        n = f.path_len as usize;
        room[..n].copy_from_slice(&f.path[..n]);
    }
    room[n] = 0;
    &room[..n]
}

fn note_path(fd: i32, f: &mut OpenFile) -> u32 {
    let mut room = [0u8; 4096];
    let path = path_now(fd, f, &mut room);
    let head = FileHead {
        dev: f.dev,
        ino: f.ino,
        at: 0,
        path_len: path.len() as u32,
        other_len: 0,
    };
    let at = engine().journal.tail() as u32;
    record::append(record::FILE_PATH, &[bytes_of(&head), path, b"\0"]);
    at
}

fn remember(fd: i32, f: &mut OpenFile, st: &Stat) -> Entry {
    let mut room = [0u8; 4096];
    let path = path_now(fd, f, &mut room);
    let head = FileHead {
        dev: st.dev,
        ino: st.ino,
        at: st.size,
        path_len: path.len() as u32,
        other_len: size_of_val(&st.mtime) as u32,
    };
    let path_at = engine().journal.tail() as u32;
    record::append(
        record::FILE_SIZE,
        &[bytes_of(&head), path, b"\0", bytes_of(&st.mtime)],
    );
    note_changed(st.dev, st.ino);
    let p = &mut engine().undo;
    if p.len < MAX_SIZES {
        p.sizes[p.len] = Size {
            dev: st.dev,
            ino: st.ino,
            now: st.size,
            path_at,
            renames: names::renames(),
            mapped: false,
        };
        p.len += 1;
    }
    Entry {
        dev: st.dev,
        ino: st.ino,
        now: st.size,
        path_at,
        mapped: stores_elsewhere(),
    }
}

/// Whether a process of the run has stored into a mapped file in this interval: of several
/// each knows its own files only.
fn stores_elsewhere() -> bool {
    crate::run::is_tree() && engine().live().stored_in.load(Relaxed) == interval()
}

fn interval() -> u64 {
    engine().store.published() + 1
}

/// The program has left a file at another size.
pub fn now_is(dev: u64, ino: u64, size: u64) {
    if let Some(s) = known(dev, ino) {
        s.now = size;
    }
}

/// Before bytes `at..at+len` of an open file change: what was there. False if it is
/// committed around instead, or cannot be kept.
pub fn before_change(fd: i32, file: u32, at: u64, len: u64) -> bool {
    let Some(e) = entry(fd, file) else {
        return false;
    };
    if at >= e.now {
        return true;
    }
    let to = at.saturating_add(len).min(e.now);
    if to - at > KEPT_MAX && commit_around() {
        // The commit has voided the entry.
        entry(fd, file);
        return false;
    }
    let path_at = entry(fd, file).map_or(0, |e| e.path_at);
    save_bytes(fd, file, path_at, at, to)
}

/// For a change of so much that keeping what was before is worse than two commits: one
/// before it and one after. A crash in between re-executes the call from the same
/// state, which has the same effect on the same file. False where that cannot be: in a
/// replay.
fn commit_around() -> bool {
    if crate::event::is_behind() {
        return false;
    }
    let l = crate::machine::entry::local();
    crate::event::tell(protocols::Event::CommitRequested, 0);
    crate::commit::commit(l);
    crate::event::tell(protocols::Event::CommitRequested, 0);
    l.commit_after = true;
    true
}

fn save_bytes(fd: i32, file: u32, path_at: u32, from: u64, to: u64) -> bool {
    let f = open_file(file);
    if f.flags as usize & O_ACCMODE != 1 {
        copy_bytes(fd, f, path_at, from, to);
        return true;
    }
    // Opened for writing only: it is read through another description, whose end must
    // not be the end of the program's locks.
    let mut opened = 0;
    lock::beside(lock::holds_posix(f.dev, f.ino), || {
        opened = Named::of(fd).open(O_CLOEXEC);
        if !failed(opened) {
            copy_bytes(opened as i32, f, path_at, from, to);
            sys!(CLOSE, opened);
        }
    });
    if failed(opened) {
        commit_around();
        entry(fd, file);
    }
    !failed(opened)
}

fn copy_bytes(reader: i32, f: &OpenFile, path_at: u32, from: u64, to: u64) {
    let mut at = from;
    while at < to {
        let want = ((to - at) as usize).min(CHUNK);
        let head = BytesHead {
            dev: f.dev,
            ino: f.ino,
            at,
            path_at,
            len: 0,
        };
        let n = save_image(head, want, |room| {
            let n = sys!(PREAD64, reader, room, want, at);
            crate::object::input::count_read(n);
            n
        });
        if n <= 0 {
            break;
        }
        at += n as u64;
    }
    record::bound();
}

/// Makes a record of `want` bytes of a file, or of as many as `fill` puts where it is
/// told to; what that says.
fn save_image(mut head: BytesHead, want: usize, fill: impl FnOnce(*mut u8) -> isize) -> isize {
    let (room, room_len) = engine().journal.room();
    let lead = size_of::<BytesHead>();
    if lead + want > room_len {
        crate::fatal::stop(
            dc_image::FatalCode::RioFull,
            0,
            format_args!("the journal of this interval has no room for what a call overwrites"),
        );
    }
    // SAFETY: the journal has this room.
    let n = unsafe {
        let n = fill(room.add(lead));
        head.len |= n.max(0) as u32;
        core::ptr::copy_nonoverlapping(bytes_of(&head).as_ptr(), room, lead);
        n
    };
    if n > 0 {
        let _ = record::append_in_place(record::FILE_BYTES, lead + n as usize);
        record::make_durable();
    }
    n
}

/// Before the program stores into a mapped file, the bytes of which from `at` on lie at
/// `from`.
pub fn before_store(file: u32, at: u64, from: usize, len: usize) {
    let f = open_file(file);
    engine().live().stored_in.store(interval(), Relaxed);
    let fd = any_fd(file).or_else(|| {
        // Its descriptor may be closed long since.
        open_mapped(f).or_else(|| nameless::adopt(f).then(|| open_mapped(f))?)
    });
    let known_by = fd.and_then(|fd| Some((fd, entry(fd, file)?)));
    let Some((fd, e)) = known_by.or_else(|| Some((-1, entry_without(f)?))) else {
        if !is_new_and_nameless(f) {
            crate::object::regular::warn_shared_mapping(file);
        }
        return;
    };
    if fd >= 0
        && let Some(s) = known(f.dev, f.ino)
        && !core::mem::replace(&mut s.mapped, true)
    {
        // What a store does natively: on a tmpfs the kernel does not notice one into
        // memory that was read-only before.
        const AT_EMPTY_PATH: usize = 0x1000;
        sys!(UTIMENSAT, fd, c"".as_ptr(), 0, AT_EMPTY_PATH);
    }
    let end = (at + len as u64).min(e.now);
    let mut at = at;
    let mut from = from;
    while at < end {
        let want = ((end - at) as usize).min(CHUNK);
        let head = BytesHead {
            dev: e.dev,
            ino: e.ino,
            at,
            path_at: e.path_at,
            len: STORED,
        };
        let n = save_image(head, want, |room| {
            // SAFETY: the room is there; what cannot be read faults, and will for
            // the program (behind the end of the file).
            let read = unsafe { user::try_copy(room, from as *const u8, want) };
            if read { want as isize } else { 0 }
        });
        if n <= 0 {
            return;
        }
        (at, from) = (at + want as u64, from + want);
    }
    record::bound();
}

/// What an open has to note before it is made. (One lives at a time, on the stack: there
/// is no heap to put the place on.)
#[allow(clippy::large_enum_variant)]
pub enum Opening {
    /// It makes nothing and cuts nothing.
    Plain,
    /// It makes a file there.
    Makes(place::Place),
    /// It cuts a file: that is done behind it, by ftruncate(2).
    Cuts,
    /// It fails.
    Fails(isize),
}

pub fn before_open(dir: usize, at: usize, flags: usize) -> Opening {
    use place::{O_DIRECTORY, O_NOFOLLOW, O_PATH, Place, Unplaced, stat_at};
    const AT_SYMLINK_NOFOLLOW: usize = 0x100;
    let exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
    let follow = if exclusive || flags & O_NOFOLLOW != 0 {
        AT_SYMLINK_NOFOLLOW
    } else {
        0
    };
    match stat_at(dir as i32, at as *const u8, follow) {
        Err(e) if e == -ENOENT && flags & O_CREAT != 0 => {
            let place = Place::of(high_fd::DIRECTORY, dir, at);
            let place = match (place, follow) {
                (Ok(place), 0) => place.followed(high_fd::DIRECTORY),
                (place, _) => place,
            };
            match place {
                Ok(place) => Opening::Makes(place),
                Err(Unplaced::NoName) => Opening::Plain,
                Err(Unplaced::Error(e)) => Opening::Fails(e),
            }
        }
        Err(_) => Opening::Plain,
        // The kernel might find it gone by then, and make it, which nobody has noted.
        Ok(st) if exclusive && flags & (O_PATH | O_DIRECTORY) == 0 && st.kind() != S_IFDIR => {
            Opening::Fails(-EEXIST)
        }
        Ok(st) if exclusive || st.kind() != S_IFREG => Opening::Plain,
        Ok(_) if flags & O_TRUNC != 0 && flags & O_ACCMODE != 0 => Opening::Cuts,
        Ok(_) => Opening::Plain,
    }
}

/// Before an open file is cut (or grown) to `size`.
pub fn before_truncate(fd: i32, file: u32, size: u64) {
    before_change(fd, file, size, u64::MAX - size);
    if let Some(e) = entry(fd, file) {
        written::note(&e, size, 0, e.now, size, CONTENTS_UNKNOWN);
        now_is(e.dev, e.ino, size);
    }
}

/// Before fallocate(2).
pub fn before_allocate(fd: i32, file: u32, mode: usize, at: u64, len: u64) {
    const KEEP_SIZE: usize = 1;
    const COLLAPSE: usize = 8;
    const INSERT: usize = 0x20;
    let Some(e) = entry(fd, file) else { return };
    let end = at.saturating_add(len);
    let size = match mode {
        COLLAPSE => e.now.saturating_sub(len),
        INSERT => e.now.saturating_add(len),
        _ if mode & KEEP_SIZE != 0 => e.now,
        _ => e.now.max(end),
    };
    let changes_bytes = mode & !KEEP_SIZE != 0;
    let moves_bytes = matches!(mode, COLLAPSE | INSERT);
    if changes_bytes {
        let len = if moves_bytes { u64::MAX - at } else { len };
        before_change(fd, file, at, len);
    }
    if let Some(e) = entry(fd, file) {
        written::note(&e, at, 0, e.now, size, CONTENTS_UNKNOWN);
        now_is(e.dev, e.ino, size);
    }
}
