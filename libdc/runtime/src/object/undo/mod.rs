//! Undoing what the program did to files since the last commit.
//!
//! File content is process state: before a change its before-image goes into
//! the journal, and a rollback plays the images back, newest first. Every
//! step may be repeated: a crash in the middle of a rollback is harmless.
//!
//! A file that is unlinked keeps a second name in the run's directory until
//! the next commit; if that lies on another file system, in its own directory
//! under a name that starts with `.dcrun-`.
#![allow(unsafe_code)]

mod attribute;
mod changed;
mod kept;
pub mod nameless;
mod play;

pub use attribute::before_attribute;
pub use changed::{is_changed, note_changed, shows_in};
pub use kept::keep;
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
const MAX_KEPT: usize = 256;
const MAX_BESIDE: usize = 64;
/// Bytes copied at a time.
const CHUNK: usize = 64 << 10;
/// More than this is not kept, but committed around.
const KEPT_MAX: u64 = 16 << 20;

#[derive(Clone, Copy)]
struct Size {
    dev: u64,
    ino: u64,
    size: u64,
}

/// What this interval has recorded already.
pub struct Pending {
    sizes: [Size; MAX_SIZES],
    len: usize,
    /// Kept second names to remove at the commit: offsets are not needed, the
    /// names are numbered.
    kept: usize,
    /// Names of ours elsewhere: beside the image, or beside their files.
    beside: [[u8; 256]; MAX_BESIDE],
    beside_len: usize,
    /// The file whose name goes with the call under way.
    victim: (u64, u64),
    /// The files of the kept names: device, inode.
    files: [(u64, u64); MAX_KEPT],
    /// Open files may have names of ours.
    open_names: bool,
    /// Inodes whose names of ours go with the next commit.
    closed: [(u64, u64); 64],
    closed_len: usize,
    /// Files whose contents or attributes this interval has changed: device,
    /// inode; and whether there were more.
    changed: [(u64, u64); MAX_SIZES],
    changed_len: usize,
    changed_many: bool,
    /// Names came or went.
    tree_changed: bool,
}

impl Pending {
    pub const fn new() -> Pending {
        Pending {
            sizes: [Size {
                dev: 0,
                ino: 0,
                size: 0,
            }; MAX_SIZES],
            len: 0,
            kept: 0,
            beside: [[0; 256]; MAX_BESIDE],
            beside_len: 0,
            victim: (0, 0),
            files: [(0, 0); MAX_KEPT],
            open_names: false,
            closed: [(0, 0); 64],
            closed_len: 0,
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
        (self.kept, self.beside_len, self.closed_len) = (0, 0, 0);
    }
}

/// After a commit: nothing of the past will be undone. A second name goes,
/// unless the file has no other and is still open: then a cold recovery needs
/// it for as long as that lasts.
pub fn forget() {
    let p = &mut engine().undo;
    p.len = 0;
    let dir = engine().high_fd(high_fd::RUN_DIR);
    for i in 0..p.kept {
        let (dev, ino) = p.files[i];
        if open_without_name(dev, ino).is_some() {
            p.open_names = true;
        } else {
            sys!(UNLINKAT, dir, kept_name(ino).as_ptr(), 0);
        }
    }
    p.kept = 0;
    for i in 0..p.beside_len {
        if nameless::is_needed(&p.beside[i]) {
            p.open_names = true;
        } else {
            sys!(UNLINK, p.beside[i].as_ptr());
        }
    }
    p.beside_len = 0;
    for i in 0..p.closed_len {
        let (dev, ino) = p.closed[i];
        if open_without_name(dev, ino).is_none() {
            sys!(UNLINKAT, dir, kept_name(ino).as_ptr(), 0);
        }
    }
    p.closed_len = 0;
    p.changed_len = 0;
    p.changed_many = false;
    p.tree_changed = false;
}

fn open_without_name(dev: u64, ino: u64) -> Option<u32> {
    (ino != 0).then_some(())?;
    // Mapped ones may have no descriptor.
    let is = |&file: &u32| {
        let f = open_file(file);
        state().file_refs[file as usize - 1] != 0
            && f.unlinked != 0
            && f.kind == crate::state::Kind::Regular
            && (f.dev, f.ino) == (dev, ino)
    };
    (1..=crate::state::MAX_FILES as u32).find(is)
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

/// An open file is closed for good: with the next commit its name goes.
pub fn close_name(f: &crate::state::OpenFile) {
    let p = &mut engine().undo;
    let room = match f.unlinked {
        nameless::BY_IMAGE => {
            if p.beside_len < MAX_BESIDE {
                let n = (f.path_len as usize).min(255);
                p.beside[p.beside_len] = [0; 256];
                p.beside[p.beside_len][..n].copy_from_slice(&f.path[..n]);
                p.beside_len += 1;
            }
            MAX_BESIDE - p.beside_len
        }
        _ => {
            if p.closed_len < p.closed.len() {
                p.closed[p.closed_len] = (f.dev, f.ino);
                p.closed_len += 1;
            }
            p.closed.len() - p.closed_len
        }
    };
    if room < 16 {
        crate::event::tell(protocols::Event::CommitRequested, 0);
        crate::machine::entry::local().commit_after = true;
    }
}

/// How many of a file's names are ours, not the program's: none or one.
pub fn second_names(dev: u64, ino: u64) -> u64 {
    let p = &engine().undo;
    (p.files[..p.kept].contains(&(dev, ino)) || open_without_name(dev, ino).is_some()) as u64
}

/// Whether any file has a second name.
pub fn any_second_names() -> bool {
    let p = &engine().undo;
    p.kept != 0 || p.beside_len != 0 || p.open_names
}

/// At recovery: whether files have names of ours is not remembered elsewhere.
pub fn restore() {
    engine().undo.open_names = true;
}

/// The path in a record always ends in NUL.
fn append_path(kind: u32, head: &FileHead, path: &[u8], other: &[u8]) {
    if kind != record::FILE_SIZE {
        engine().undo.tree_changed = true;
    }
    let mut h = *head;
    h.path_len = path.len() as u32;
    h.other_len = other.len() as u32;
    record::append(kind, &[bytes_of(&h), path, b"\0", other, b"\0"]);
}

const NO_HEAD: FileHead = FileHead {
    dev: 0,
    ino: 0,
    at: 0,
    path_len: 0,
    other_len: 0,
};

/// Before bytes `at..at+len` of an open file are written (`u64::MAX`: appended).
pub fn before_change(fd: i32, file: u32, at: u64, len: u64) {
    let f = open_file(file);
    let base = |f: &crate::state::OpenFile| match base_size(f.dev, f.ino) {
        Some(size) => Some(size),
        None => {
            let st = Stat::of_fd(fd).ok()?;
            remember(&st, &f.path[..f.path_len as usize]);
            Some(st.size)
        }
    };
    let Some(size) = base(f) else { return };
    if at >= size {
        return;
    }
    let to = at.saturating_add(len).min(size);
    if to - at > KEPT_MAX && commit_around() {
        base(f);
    } else {
        save_bytes(fd, file, at, to);
    }
}

/// For a change of so much that keeping what was before is worse than two
/// commits: one before it and one behind. A crash in between makes the call
/// again from the same state, which has the same effect on the same file.
/// False where that cannot be: in a replay.
fn commit_around() -> bool {
    if engine().log.replay.is_active() {
        return false;
    }
    let l = crate::machine::entry::local();
    crate::event::tell(protocols::Event::CommitRequested, 0);
    crate::commit::commit(l);
    crate::event::tell(protocols::Event::CommitRequested, 0);
    l.commit_after = true;
    true
}

fn base_size(dev: u64, ino: u64) -> Option<u64> {
    let p = &engine().undo;
    p.sizes[..p.len]
        .iter()
        .find(|s| s.dev == dev && s.ino == ino)
        .map(|s| s.size)
}

fn remember(st: &Stat, path: &[u8]) {
    let head = FileHead {
        dev: st.dev,
        ino: st.ino,
        at: st.size,
        ..NO_HEAD
    };
    append_path(record::FILE_SIZE, &head, path, bytes_of(&st.mtime));
    note_changed(st.dev, st.ino);
    let p = &mut engine().undo;
    if p.len < MAX_SIZES {
        p.sizes[p.len] = Size {
            dev: st.dev,
            ino: st.ino,
            size: st.size,
        };
        p.len += 1;
    }
}

/// A file shrank: bytes behind its new end are new when it grows again.
fn shrink_base(dev: u64, ino: u64, size: u64) {
    let p = &mut engine().undo;
    let n = p.len;
    if let Some(s) = p.sizes[..n]
        .iter_mut()
        .find(|s| s.dev == dev && s.ino == ino)
    {
        s.size = s.size.min(size);
    }
}

fn save_bytes(fd: i32, file: u32, from: u64, to: u64) {
    let f = open_file(file);
    let scratch = engine().high_fd(high_fd::SCRATCH);
    let mut reader = fd;
    if f.flags as usize & O_ACCMODE == 1 {
        // Opened for writing only: read through another description.
        let mut link = *b"/proc/self/fd/0000000000\0";
        let mut n = fd as u32;
        for i in (14..24).rev() {
            link[i] = b'0' + (n % 10) as u8;
            n /= 10;
        }
        let mut first = 14;
        while first < 23 && link[first] == b'0' {
            first += 1;
        }
        link.copy_within(first..25, 14);
        let r = sys!(OPEN, link.as_ptr(), O_CLOEXEC);
        if failed(r) {
            crate::say!(
                "a file opened for writing only cannot be read (error {}); its change is not undone",
                -r
            );
            return;
        }
        sys!(DUP3, r, scratch, O_CLOEXEC);
        sys!(CLOSE, r);
        reader = scratch;
    }
    let mut at = from;
    while at < to {
        let want = ((to - at) as usize).min(CHUNK);
        let n = save_image(f, at, want, |room| {
            let n = sys!(PREAD64, reader, room, want, at);
            super::input::count_read(n);
            n
        });
        if n <= 0 {
            break;
        }
        at += n as u64;
    }
    record::bound();
    if reader == scratch {
        sys!(CLOSE, scratch);
    }
}

/// Makes a record of `want` bytes of a file at `at`, or of as many as `fill` puts
/// where it is told to; what that says.
fn save_image(
    f: &crate::state::OpenFile,
    at: u64,
    want: usize,
    fill: impl FnOnce(*mut u8) -> isize,
) -> isize {
    let path = &f.path[..f.path_len as usize];
    let (room, room_len) = engine().journal.room();
    let lead = size_of::<FileHead>() + path.len() + 1;
    if lead + want > room_len {
        panic!("the change of one call is too large for the journal");
    }
    // SAFETY: the journal has this room.
    let n = unsafe {
        let n = fill(room.add(lead));
        let head = FileHead {
            dev: f.dev,
            ino: f.ino,
            at,
            path_len: f.path_len,
            other_len: n.max(0) as u32,
        };
        core::ptr::copy_nonoverlapping(bytes_of(&head).as_ptr(), room, size_of::<FileHead>());
        core::ptr::copy_nonoverlapping(path.as_ptr(), room.add(size_of::<FileHead>()), path.len());
        room.add(lead - 1).write(0);
        n
    };
    if n > 0 {
        let _ = record::append_in_place(record::FILE_BYTES, lead + n as usize);
        record::make_durable();
    }
    n
}

/// Before the program stores into a mapped file, the bytes of which from `at` on
/// lie at `from`.
pub fn before_store(file: u32, at: u64, from: usize, len: usize) {
    let f = open_file(file);
    let path = &f.path[..f.path_len as usize];
    let size = base_size(f.dev, f.ino).or_else(|| {
        // Its descriptor may be closed long since.
        let st = nameless::stat_of(file)?;
        remember(&st, path);
        Some(st.size)
    });
    let Some(size) = size else {
        super::regular::warn_shared_mapping(file);
        return;
    };
    let end = (at + len as u64).min(size);
    let mut at = at;
    let mut from = from;
    while at < end {
        let want = ((end - at) as usize).min(CHUNK);
        let n = save_image(f, at, want, |room| {
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

/// Before open creates or truncates: `path` is absolute. Whether it will.
pub fn before_open(path: &[u8], flags: usize) -> bool {
    let mut z = [0u8; 4096];
    z[..path.len()].copy_from_slice(path);
    let mut st = [0u64; 18];
    let r = sys!(STAT, z.as_ptr(), &raw mut st);
    if failed(r) {
        let creates = flags & O_CREAT != 0 && r == -ENOENT;
        if creates {
            append_path(record::CREATED, &NO_HEAD, path, b"");
        }
        return creates;
    }
    let mode = st[3] as u32;
    let cuts = flags & O_TRUNC != 0 && flags & O_ACCMODE != 0 && mode & S_IFMT == S_IFREG;
    if cuts {
        before_truncate_path(&z, path, 0);
    }
    cuts
}

/// Before a file named by path is cut to `size`.
pub fn before_truncate_path(z: &[u8], path: &[u8], size: u64) {
    let mut st = Stat::ZERO;
    if failed(sys!(STAT, z.as_ptr(), &raw mut st)) {
        return;
    }
    if st.size.saturating_sub(size) > KEPT_MAX && commit_around() {
        remember(&st, path);
        shrink_base(st.dev, st.ino, size);
        return;
    }
    let r = sys!(OPEN, z.as_ptr(), O_CLOEXEC);
    if failed(r) {
        return;
    }
    let fd = r as i32;
    if let Some(file) = new_file(crate::state::Kind::Regular) {
        if let Ok(st) = Stat::of_fd(fd) {
            let f = open_file(file);
            (f.dev, f.ino) = (st.dev, st.ino);
            set_path(f, path);
            f.flags = 0;
            before_truncate(fd, file, size);
        }
        release(file);
    }
    sys!(CLOSE, fd);
}

/// Before an open file is cut (or grown) to `size`.
pub fn before_truncate(fd: i32, file: u32, size: u64) {
    before_change(fd, file, size, u64::MAX - size);
    let f = open_file(file);
    shrink_base(f.dev, f.ino, size);
}

/// Before a directory entry comes into being.
pub fn before_create(path: &[u8], is_dir: bool) {
    append_path(
        if is_dir {
            record::MADE_DIR
        } else {
            record::CREATED
        },
        &NO_HEAD,
        path,
        b"",
    );
}

pub fn before_rename(from: &[u8], to: &[u8]) {
    append_path(record::RENAMED, &NO_HEAD, from, to);
}

pub fn before_rmdir(path: &[u8], mode: u32) {
    append_path(
        record::REMOVED_DIR,
        &FileHead {
            at: mode as u64,
            ..NO_HEAD
        },
        path,
        b"",
    );
}

/// Before mode, owner or times of a path change.
pub fn before_meta(path: &[u8], st: &Stat) {
    note_changed(st.dev, st.ino);
    let times: [u64; 5] = [
        st.mode as u64,
        (st.uid as u64) << 32 | st.gid as u64,
        st.atime[0],
        st.mtime[0],
        st.mtime[1],
    ];
    let mut h = NO_HEAD;
    h.path_len = path.len() as u32;
    record::append(record::META, &[bytes_of(&h), path, b"\0", bytes_of(&times)]);
}
