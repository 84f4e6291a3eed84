//! Playing the records of an interval back, newest first. Every step may be
//! repeated: a crash in the middle of a rollback is harmless.
#![allow(unsafe_code)]

use super::attribute::{AttributeHead, LeftHead, MetaHead, looked_at, open_object};
use super::conflict::{self, Step, Trouble, compares};
use super::contents::{BytesHead, STORED};
use super::names::NameHead;
use super::place::Named;
use super::written::{CONTENTS_UNKNOWN, REPLACES, Sum, WroteHead};
use super::*;
use crate::machine::nr;
use core::sync::atomic::Ordering::Relaxed;
use dc_image::boot::{self, Mode};
use vista_core::journal::Record;

/// At recovery: plays the records back, newest first, and says of each that it
/// was. A second rollback of the same interval leaves those out: the program
/// has run again in between, and what it has then done comes first.
pub fn roll_back() {
    let (room, room_len) = engine().journal.room();
    // SAFETY: the free part of the journal serves as scratch memory; its first
    // half stays free for what is appended here.
    let offsets = unsafe {
        core::slice::from_raw_parts_mut(
            room.add(room_len / 2).next_multiple_of_8(),
            (room_len / 8).saturating_sub(4).min(1 << 22),
        )
    };
    let (n, cutting) = to_undo(offsets);
    if engine().boot.mode == Mode::Cold as u32
        && compares()
        && conflict::wanted() == boot::conflict::STOP
        && let Err((path, trouble)) = look::for_others(&offsets[..n])
    {
        conflict::met(path, trouble);
    }
    let mut open = Open::none();
    if let Some((offset, size)) = cutting {
        // The death came in the middle of this.
        if let Err(trouble) = open.cut_again(offset, size) {
            conflict::met(open.path, trouble);
        }
        open.end();
    }
    for (nth, &offset) in offsets[..n].iter().rev().enumerate() {
        if engine().boot.plant == dc_image::boot::plant::SKIP_UNDO && nth % 3 == 2 {
            continue;
        }
        let Some(r) = record::of_all(offset as usize).next() else {
            continue;
        };
        if engine().boot.plant == boot::plant::SKIP_UNDO_OF + r.kind {
            continue;
        }
        if !matches!(
            r.kind,
            record::FILE_SIZE | record::FILE_BYTES | record::WROTE
        ) {
            open.end();
        }
        if let Err(trouble) = undo_one(&r, &mut open)
            && !is_nobodys(&r, &trouble)
        {
            conflict::met(path_of(&r), trouble);
            open.leave(&r);
        }
        if open.is_open() {
            open.pending = Some(offset);
        } else {
            record::append(record::UNDONE, &[&offset.to_le_bytes(), &[0; 4]]);
        }
    }
    open.end();
    engine().live().file_write.store(0, Relaxed);
    drop_kept_names();
    stamp::renew();
}

trait Align8 {
    fn next_multiple_of_8(self) -> *mut u32;
}
impl Align8 for *mut u8 {
    fn next_multiple_of_8(self) -> *mut u32 {
        (self as usize).next_multiple_of(8) as *mut u32
    }
}

/// The records to undo, oldest first; how many they are, and the cut that was under way
/// when an earlier recovery died.
fn to_undo(offsets: &mut [u32]) -> (usize, Option<(u32, u64)>) {
    let mut n = 0;
    let mut cutting = None;
    for r in record::of_all(0) {
        if record::is_undo(r.kind) {
            let replaces = r.kind == record::WROTE
                && value_of::<WroteHead>(r.payload).is_some_and(|h| h.flags & REPLACES != 0);
            if replaces && n > 0 {
                n -= 1;
            }
            if n == offsets.len() {
                crate::fatal::stop(
                    dc_image::FatalCode::CannotRestore,
                    0,
                    format_args!("undo the changes of files since the last commit: too many"),
                );
            }
            offsets[n] = r.offset as u32;
            n += 1;
        } else if matches!(r.kind, record::UNDONE | record::CUTTING)
            && let Some(offset) = value_of::<u32>(r.payload)
        {
            if let Some(at) = offsets[..n].iter().rposition(|&o| o == offset) {
                n = at;
            }
            cutting = value_of::<u64>(r.payload.get(8..).unwrap_or(b""))
                .filter(|_| r.kind == record::CUTTING)
                .map(|size| (offset, size));
        }
    }
    (n, cutting)
}

/// Whether a record is about a file that had no name then and is gone: it was made since
/// the commit, and its descriptors went with the program.
fn is_nobodys(r: &Record<'static>, trouble: &Trouble) -> bool {
    let path = path_of(r);
    matches!(trouble, Trouble::Gone(_))
        && path
            .strip_suffix(b"\0")
            .unwrap_or(path)
            .ends_with(b" (deleted)")
}

/// The record `kind` that says more of another one: it follows soon.
fn said_of(r: &Record, kind: u32) -> Option<&'static [u8]> {
    record::of_all(r.offset)
        .skip(1)
        .take(8)
        .find(|more| more.kind == kind && value_of::<u32>(more.payload) == Some(r.offset as u32))
        .map(|more| more.payload)
}

fn undo_one(r: &Record<'static>, open: &mut Open) -> Step {
    match r.kind {
        record::META => {
            let (h, path, _) = parts::<MetaHead>(r, |h| h.path_len)?;
            let left = said_of(r, record::LEFT).and_then(value_of::<LeftHead>);
            attribute::put_back(&h, path, left)
        }
        record::ATTRIBUTE => {
            let (h, path, rest) = parts::<AttributeHead>(r, |h| h.path_len)?;
            let left = said_of(r, record::LEFT_ATTRIBUTE).and_then(|p| value_of::<u64>(&p[8..]));
            attribute::put_back_attribute(&h, path, rest, left)
        }
        record::FILE_SIZE | record::FILE_BYTES | record::WROTE => undo_contents(r, open),
        record::SYSTEM_V => match crate::sysv::room::put_back(r.payload) {
            true => Ok(()),
            false => Err(Trouble::Failed("read its record", -EIO)),
        },
        _ => {
            let (h, path, other) = parts::<NameHead>(r, |h| h.path_len)?;
            match r.kind {
                record::CREATED | record::MADE_DIR => {
                    let made = said_of(r, record::MADE)
                        .and_then(|p| Some((value_of(&p[8..])?, value_of(&p[16..])?)));
                    put_back::take_away(&h, path, r.kind == record::MADE_DIR, made)
                }
                record::UNLINKED => put_back::give_back(&h, path, other),
                record::REMOVED_DIR => put_back::give_directory_back(&h, path, other),
                record::RENAMED => put_back::rename_back(&h, path, other),
                _ => Ok(()),
            }
        }
    }
}

/// Head, path with its NUL, and what follows.
fn parts<'a, T: Copy>(
    r: &Record<'a>,
    path_len: impl Fn(&T) -> u32,
) -> Result<(T, &'a [u8], &'a [u8]), Trouble> {
    let damaged = Trouble::Failed("read its record", -EIO);
    let Some(h) = value_of::<T>(r.payload) else {
        return Err(damaged);
    };
    let at = size_of::<T>();
    match r.payload.get(at..at + path_len(&h) as usize + 1) {
        Some(path) => Ok((h, path, &r.payload[at + path.len()..])),
        None => Err(damaged),
    }
}

/// The path of what a record is about, for messages.
fn path_of(r: &Record<'static>) -> &'static [u8] {
    let path = match r.kind {
        record::META => parts::<MetaHead>(r, |h| h.path_len).map(|p| p.1),
        record::ATTRIBUTE => parts::<AttributeHead>(r, |h| h.path_len).map(|p| p.1),
        record::FILE_SIZE => parts::<FileHead>(r, |h| h.path_len).map(|p| p.1),
        record::SYSTEM_V => Ok(b"a System V object\0".as_slice()),
        record::FILE_BYTES => {
            Ok(value_of::<BytesHead>(r.payload).map_or(b"".as_slice(), |h| path_at(h.path_at)))
        }
        record::WROTE => {
            Ok(value_of::<WroteHead>(r.payload).map_or(b"".as_slice(), |h| path_at(h.path_at)))
        }
        _ => parts::<NameHead>(r, |h| h.path_len).map(|p| p.1),
    };
    path.unwrap_or(b"?")
}

/// The path in a FILE_SIZE or FILE_PATH.
pub(super) fn path_at(offset: u32) -> &'static [u8] {
    record::of_all(offset as usize)
        .next()
        .filter(|r| matches!(r.kind, record::FILE_SIZE | record::FILE_PATH))
        .and_then(|r| parts::<FileHead>(&r, |h| h.path_len).ok())
        .map_or(b"\0", |p| p.1)
}

/// The file whose contents are being put back, and what is still to do with it: many
/// appends are undone by one cut.
struct Open {
    fd: i32,
    dev: u64,
    ino: u64,
    cut: Option<u64>,
    /// The oldest record that was looked at and is not said to be undone yet.
    pending: Option<u32>,
    path: &'static [u8],
    /// Files that are left as others have changed them.
    left: [(u64, u64); 16],
    left_len: usize,
    /// The file of which it is known that nobody else has it open.
    alone: (u64, u64),
}

impl Open {
    fn none() -> Open {
        Open {
            fd: -1,
            dev: 0,
            ino: 0,
            cut: None,
            pending: None,
            path: b"",
            left: [(0, 0); 16],
            left_len: 0,
            alone: (0, 0),
        }
    }

    fn is_open(&self) -> bool {
        self.fd >= 0
    }

    fn end(&mut self) {
        if !self.is_open() {
            return;
        }
        if let Err(trouble) = self.settle() {
            conflict::met(self.path, trouble);
        }
        sys!(CLOSE, self.fd);
        self.fd = -1;
    }

    /// What was looked at is undone: the file has the size that it had before.
    fn settle(&mut self) -> Step {
        let pending = self.pending.take();
        if let Some(size) = self.cut.take() {
            let offset = pending.unwrap_or(u32::MAX);
            record::append(
                record::CUTTING,
                &[&offset.to_le_bytes(), &[0; 4], &size.to_le_bytes()],
            );
            looked_at(sys!(FTRUNCATE, self.fd, size), "set its size")?;
        }
        if let Some(offset) = pending {
            record::append(record::UNDONE, &[&offset.to_le_bytes(), &[0; 4]]);
        }
        Ok(())
    }

    /// A cut that a death may have come before.
    fn cut_again(&mut self, offset: u32, size: u64) -> Step {
        let record = record::of_all(offset as usize).next();
        let Some(h) = record
            .filter(|r| r.kind == record::WROTE)
            .and_then(|r| value_of::<WroteHead>(r.payload))
        else {
            return Ok(());
        };
        self.be(h.dev, h.ino, path_at(h.path_at))?;
        (self.cut, self.pending) = (Some(size), Some(offset));
        self.settle()
    }

    /// The contents of what a record is about stay as they are.
    fn leave(&mut self, r: &Record) {
        let file = match r.kind {
            record::WROTE => value_of::<WroteHead>(r.payload).map(|h| (h.dev, h.ino)),
            record::FILE_BYTES => value_of::<BytesHead>(r.payload).map(|h| (h.dev, h.ino)),
            _ => None,
        };
        if let Some(file) = file
            && self.left_len < self.left.len()
        {
            self.left[self.left_len] = file;
            self.left_len += 1;
        }
    }

    fn is_left(&self, dev: u64, ino: u64) -> bool {
        self.left[..self.left_len].contains(&(dev, ino))
    }

    /// Stores into a mapped file cannot be compared with anything. While the program was
    /// alive it held the locks by which others kept away; when all had died it did not, and
    /// whoever has the file open may have changed it since.
    fn look_for_others(&mut self, dev: u64, ino: u64, path: &[u8]) -> Step {
        let is_cold = engine().boot.mode == Mode::Cold as u32;
        if !is_cold || !compares() || self.alone == (dev, ino) {
            return Ok(());
        }
        self.end();
        if conflict::wanted() == boot::conflict::THEIRS {
            // Others have changed something: whoever changes one file may have changed the
            // next, and come and gone.
            return Err(Trouble::Shared);
        }
        let (fd, _) = open_object(dev, ino, path)?;
        // The dead may be of them: what a large one had mapped the kernel takes apart after
        // its locks are free.
        const BREATH: [usize; 2] = [0, 50_000_000];
        let mut patience = 200;
        while elsewhere::others_have(Named::of(fd).open(elsewhere::O_ASKS)) {
            if patience == 0 {
                return Err(Trouble::Shared);
            }
            patience -= 1;
            sys!(NANOSLEEP, BREATH.as_ptr(), 0);
        }
        self.alone = (dev, ino);
        Ok(())
    }

    fn be(&mut self, dev: u64, ino: u64, path: &'static [u8]) -> Step {
        if self.is_open() && (self.dev, self.ino) == (dev, ino) {
            return Ok(());
        }
        self.end();
        self.path = path;
        self.fd = open_contents(dev, ino, path)?;
        (self.dev, self.ino) = (dev, ino);
        Ok(())
    }

    fn size(&self) -> Result<u64, Trouble> {
        match self.cut {
            Some(size) => Ok(size),
            None => Stat::of_fd(self.fd)
                .map(|st| st.size)
                .map_err(Trouble::Gone),
        }
    }
}

/// Opens a file by its identity, for reading and writing.
fn open_contents(dev: u64, ino: u64, path: &[u8]) -> Result<i32, Trouble> {
    let (fd, st) = open_object(dev, ino, path)?;
    let name = Named::of(fd);
    let mut r = name.open(O_CLOEXEC | O_RDWR);
    if r == -EACCES && st.uid == sys!(GETEUID) as u32 {
        // It was opened before it became read-only.
        const AT_EMPTY_PATH: usize = 0x1000;
        let empty = c"".as_ptr();
        let mode = st.mode & 0o7777;
        looked_at(
            sys!(FCHMODAT2, fd, empty, mode | 0o600, AT_EMPTY_PATH),
            "make it writable for the moment",
        )?;
        r = name.open(O_CLOEXEC | O_RDWR);
        looked_at(
            sys!(FCHMODAT2, fd, empty, mode, AT_EMPTY_PATH),
            "set its mode",
        )?;
    }
    if failed(r) {
        return Err(Trouble::Failed("open it for writing", r));
    }
    Ok(crate::reserved::move_high(r, high_fd::FILE))
}

fn undo_contents(r: &Record<'static>, open: &mut Open) -> Step {
    match r.kind {
        record::WROTE => {
            let Some(h) = value_of::<WroteHead>(r.payload) else {
                return Ok(());
            };
            if open.is_left(h.dev, h.ino) {
                return Ok(());
            }
            open.be(h.dev, h.ino, path_at(h.path_at))?;
            undo_write(&h, r.offset, open)
        }
        record::FILE_BYTES => {
            let Some(h) = value_of::<BytesHead>(r.payload) else {
                return Ok(());
            };
            if open.is_left(h.dev, h.ino) {
                return Ok(());
            }
            if h.len & STORED != 0 {
                open.look_for_others(h.dev, h.ino, path_at(h.path_at))?;
            }
            open.be(h.dev, h.ino, path_at(h.path_at))?;
            open.settle()?;
            let data = &r.payload[size_of::<BytesHead>()..];
            let len = (h.len & !STORED) as usize;
            write_all(open.fd, &data[..len.min(data.len())], h.at)
        }
        _ => {
            let (h, path, mtime) = parts::<FileHead>(r, |h| h.path_len)?;
            if open.is_left(h.dev, h.ino) {
                return Ok(());
            }
            open.be(h.dev, h.ino, path)?;
            open.settle()?;
            // The oldest record of a file, so the last to be undone: programs ask
            // for the time to see whether somebody else has changed their file.
            if let Some(mtime) = value_of::<[u64; 2]>(mtime)
                && open.size()? == h.at
            {
                const UTIME_OMIT: u64 = 0x3fff_fffe;
                let times = [0, UTIME_OMIT, mtime[0], mtime[1]];
                let r = sys!(UTIMENSAT, open.fd, 0, &raw const times, 0);
                // Who may write a file of somebody else may not set its time.
                if r != -EPERM {
                    looked_at(r, "set its time")?;
                }
            }
            Ok(())
        }
    }
}

fn undo_write(h: &WroteHead, offset: usize, open: &mut Open) -> Step {
    let under_way = engine().live().file_write.load(Relaxed) == offset as u64 + 1;
    let size = open.size()?;
    if compares() {
        let (least, most) = (
            h.size_before.min(h.size_after),
            h.size_before.max(h.size_after),
        );
        if size != h.size_after && !(under_way && (least..=most).contains(&size)) {
            return Err(Trouble::Size {
                there: size,
                left: h.size_after,
            });
        }
        let sum_counts = h.flags & CONTENTS_UNKNOWN == 0 && h.len > 0 && !under_way;
        if sum_counts && sum_of_file(open.fd, h.at, h.len)? != h.sum {
            return Err(Trouble::Bytes {
                from: h.at,
                to: h.at + h.len,
            });
        }
    }
    if size != h.size_before {
        open.cut = Some(h.size_before);
    }
    Ok(())
}

/// The sum of what is there.
pub(super) fn sum_of_file(fd: i32, at: u64, len: u64) -> Result<u64, Trouble> {
    let mut sum = Sum::new();
    let mut piece = [0u8; 16384];
    let mut done = 0;
    while done < len {
        let want = ((len - done) as usize).min(piece.len());
        let n = sys!(PREAD64, fd, piece.as_mut_ptr(), want, at + done);
        crate::object::input::count_read(n);
        looked_at(n, "read it")?;
        if n == 0 {
            break;
        }
        sum.add(&piece[..n as usize]);
        done += n as u64;
    }
    Ok(sum.end())
}

fn write_all(fd: i32, data: &[u8], at: u64) -> Step {
    let mut done = 0;
    while done < data.len() {
        let rest = &data[done..];
        // SAFETY: from the journal, which is mapped.
        let n = unsafe {
            crate::machine::sys::raw6(
                nr::PWRITE64,
                [
                    fd as usize,
                    rest.as_ptr() as usize,
                    rest.len(),
                    at as usize + done,
                    0,
                    0,
                ],
            )
        };
        looked_at(n, "write what was there")?;
        if n == 0 {
            return Err(Trouble::Failed("write what was there", -EIO));
        }
        crate::fatal::count_written(n as usize);
        done += n as usize;
    }
    Ok(())
}

/// At the end of a rollback: files that have their names again need ours no
/// longer.
fn drop_kept_names() {
    for r in record::of_all(0) {
        if matches!(r.kind, record::UNLINKED | record::REMOVED_DIR)
            && let Ok((h, _, vault)) = parts::<NameHead>(&r, |h| h.path_len)
        {
            put_back::drop_kept(&h, vault, r.kind == record::REMOVED_DIR);
        }
    }
}
