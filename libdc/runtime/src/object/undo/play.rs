//! Playing the records of an interval back, newest first. Every step may be
//! repeated: a crash in the middle of a rollback is harmless.
#![allow(unsafe_code)]

use super::*;

/// At recovery: plays the images back, newest first, and says of each that it
/// was. A second rollback of the same interval leaves those out: the program
/// has run again in between, and what it has then done comes first.
pub fn roll_back() {
    // Offsets of the records, to walk them backwards.
    let (room, room_len) = engine().journal.room();
    // SAFETY: the free part of the journal serves as scratch memory; its first
    // half stays free for what is appended here.
    let offsets = unsafe {
        core::slice::from_raw_parts_mut(
            room.add(room_len / 2).next_multiple_of_8(),
            (room_len / 8).saturating_sub(4).min(1 << 22),
        )
    };
    let mut n = 0;
    for r in record::of_all(0) {
        if record::is_undo(r.kind) && n < offsets.len() {
            offsets[n] = r.offset as u32;
            n += 1;
        } else if r.kind == record::UNDONE
            && let Some(offset) = value_of::<u32>(r.payload)
            && let Some(at) = offsets[..n].iter().rposition(|&o| o == offset)
        {
            n = at;
        }
    }
    for i in (0..n).rev() {
        if let Some(r) = record::of_all(offsets[i] as usize).next() {
            undo_one(r.kind, r.payload);
            record::append(record::UNDONE, &[&offsets[i].to_le_bytes(), &[0; 4]]);
        }
    }
    drop_kept_names();
}

trait Align8 {
    fn next_multiple_of_8(self) -> *mut u32;
}
impl Align8 for *mut u8 {
    fn next_multiple_of_8(self) -> *mut u32 {
        (self as usize).next_multiple_of(8) as *mut u32
    }
}

fn undo_one(kind: u32, payload: &[u8]) {
    let Some(h) = value_of::<FileHead>(payload) else {
        return;
    };
    let at = size_of::<FileHead>();
    let path = &payload[at..at + h.path_len as usize + 1];
    let rest = &payload[at + h.path_len as usize + 1..];
    match kind {
        record::CREATED => {
            sys!(UNLINK, path.as_ptr());
        }
        record::MADE_DIR => {
            sys!(RMDIR, path.as_ptr());
        }
        record::REMOVED_DIR => {
            sys!(MKDIR, path.as_ptr(), h.at & 0o7777);
        }
        record::RENAMED
            // Undone already if the old name exists.
            if Stat::of_path(path.as_ptr()).is_err() => {
                sys!(RENAME, rest.as_ptr(), path.as_ptr());
            }
        record::UNLINKED => relink(&h, path, rest),
        record::META => {
            if let Some(m) = value_of::<[u64; 5]>(rest) {
                sys!(LCHOWN, path.as_ptr(), m[1] >> 32, m[1] as u32);
                sys!(CHMOD, path.as_ptr(), m[0] & 0o7777);
                let ts = [m[2], 0, m[3], m[4]];
                const AT_FDCWD: isize = -100;
                sys!(UTIMENSAT, AT_FDCWD, path.as_ptr(), &raw const ts, 0);
            }
        }
        record::ATTRIBUTE => attribute::put_back(&h, path, rest),
        record::FILE_SIZE | record::FILE_BYTES => restore_content(kind, &h, path, rest),
        _ => {}
    }
}

fn relink(h: &FileHead, path: &[u8], rest: &[u8]) {
    const AT_FDCWD: isize = -100;
    if Stat::of_path(path.as_ptr()).is_ok_and(|st| (st.dev, st.ino) == (h.dev, h.ino)) {
        return; // the name is there (again)
    }
    if h.at == u64::MAX {
        sys!(LINKAT, AT_FDCWD, rest.as_ptr(), AT_FDCWD, path.as_ptr(), 0);
    } else {
        let dir = engine().high_fd(high_fd::RUN_DIR);
        sys!(
            LINKAT,
            dir,
            kept_name(h.ino).as_ptr(),
            AT_FDCWD,
            path.as_ptr(),
            0
        );
    }
}

/// At the end of a rollback: files that have their names again need ours no
/// longer.
fn drop_kept_names() {
    let dir = engine().high_fd(high_fd::RUN_DIR);
    for r in record::of_all(0) {
        if r.kind == record::UNLINKED
            && let Some(h) = value_of::<FileHead>(r.payload)
            && open_without_name(h.dev, h.ino).is_none()
        {
            let other = size_of::<FileHead>() + h.path_len as usize + 1;
            match h.at {
                // Several names may have been kept by this one.
                u64::MAX => sys!(UNLINK, r.payload[other..].as_ptr()),
                _ => sys!(UNLINKAT, dir, kept_name(h.ino).as_ptr(), 0),
            };
        }
    }
}

fn restore_content(kind: u32, h: &FileHead, path: &[u8], data: &[u8]) {
    let Some(fd) = open_same(h, path) else { return };
    if kind == record::FILE_SIZE {
        sys!(FTRUNCATE, fd, h.at);
        // The oldest record of a file, so the last to be undone: programs ask
        // for the time to see whether somebody else has changed their file.
        if let Some(mtime) = value_of::<[u64; 2]>(data) {
            const UTIME_OMIT: u64 = 0x3fff_fffe;
            let times = [0, UTIME_OMIT, mtime[0], mtime[1]];
            sys!(UTIMENSAT, fd, 0, &raw const times, 0);
        }
    } else {
        let data = &data[..(h.other_len as usize).min(data.len())];
        let mut done = 0;
        while done < data.len() {
            let n = sys!(
                PWRITE64,
                fd,
                data[done..].as_ptr(),
                data.len() - done,
                h.at + done as u64
            );
            if n <= 0 {
                crate::say!("undo of a write failed (error {})", -n);
                break;
            }
            crate::fatal::count_written(n as usize);
            done += n as usize;
        }
    }
    sys!(CLOSE, fd);
}

/// The file that a record means: by its name, else by an open descriptor.
fn open_same(h: &FileHead, path: &[u8]) -> Option<i32> {
    let same = |fd: isize| {
        if failed(fd) {
            return None;
        }
        let fd = fd as i32;
        if Stat::of_fd(fd).is_ok_and(|st| (st.dev, st.ino) == (h.dev, h.ino)) {
            return Some(fd);
        }
        sys!(CLOSE, fd);
        None
    };
    if path.len() > 1
        && let Some(fd) = same(sys!(OPEN, path.as_ptr(), O_CLOEXEC | O_RDWR))
    {
        return Some(fd);
    }
    let e = engine();
    let dir = e.high_fd(high_fd::RUN_DIR);
    if let Some(fd) = same(sys!(
        OPENAT,
        dir,
        kept_name(h.ino).as_ptr(),
        O_CLOEXEC | O_RDWR
    )) {
        return Some(fd);
    }
    let low = 0..state().root.fd_high as i32;
    let limbo = e.high_fd(high_fd::LIMBO)..e.high_fd(high_fd::LIMBO) + high_fd::LIMBO_COUNT;
    for fd in low.chain(limbo) {
        if Stat::of_fd(fd).is_ok_and(|st| (st.dev, st.ino) == (h.dev, h.ino)) {
            // A duplicate: its access mode may not do, then there is no way.
            return same(sys!(DUP, fd));
        }
    }
    None
}
