//! Mode, owner, times and extended attributes, access control lists among them.
//!
//! ```text
//! META        what they were; LEFT follows and says what the program made of them
//! ATTRIBUTE   the old value of an extended attribute, and a sum of the new one
//! ```

use super::conflict::{Step, Trouble, compares};
use super::place::{AT_FDCWD, Named, O_NOFOLLOW, open_path};
use super::*;
use crate::object::process;

/// Of META; the path follows.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct MetaHead {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub path_len: u32,
    pub atime: [u64; 2],
    pub mtime: [u64; 2],
}

/// Of LEFT, which says what a META has become.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LeftHead {
    pub record: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Of ATTRIBUTE; path, name and old value follow.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct AttributeHead {
    pub dev: u64,
    pub ino: u64,
    pub path_len: u32,
    pub name_len: u32,
    /// `u64::MAX`: there was none.
    pub value_len: u64,
}

/// The path of what is open, ended by NUL; its length without.
fn path_of(fd: i32, room: &mut [u8; 4096]) -> usize {
    if let Some(path) = known_file(fd).and_then(|file| nameless::path_of_ours(open_file(file))) {
        let n = path.len().min(4095);
        room[..n].copy_from_slice(&path[..n]);
        room[n] = 0;
        return n;
    }
    let n = process::fd_path(fd, &mut room[..4095]);
    room[n] = 0;
    n
}

/// Before mode, owner or times of an open file change: the record.
pub fn before_meta(fd: i32) -> Option<u32> {
    if known_file(fd).is_some_and(|file| contents::is_new_and_nameless(open_file(file))) {
        return None;
    }
    let st = Stat::of_fd(fd).ok()?;
    note_changed(st.dev, st.ino);
    let mut path = [0u8; 4096];
    let n = path_of(fd, &mut path);
    let head = MetaHead {
        dev: st.dev,
        ino: st.ino,
        mode: st.mode,
        uid: st.uid,
        gid: st.gid,
        path_len: n as u32,
        atime: st.atime,
        mtime: st.mtime,
    };
    let at = engine().journal.tail() as u32;
    record::append(record::META, &[bytes_of(&head), &path[..n + 1]]);
    Some(at)
}

/// The change was made, or nothing was.
pub fn left_meta(record: Option<u32>, fd: i32, r: isize) {
    let Some(at) = record else { return };
    if failed(r) {
        return names::not_done(at);
    }
    if let Ok(st) = Stat::of_fd(fd) {
        let left = LeftHead {
            record: at,
            mode: st.mode,
            uid: st.uid,
            gid: st.gid,
        };
        record::append(record::LEFT, &[bytes_of(&left)]);
        stamp::after_change(fd);
    }
}

/// What a rollback needs of an attribute before it changes; the record. `name` is an
/// address of the program.
pub fn before_attribute(fd: i32, name_at: usize) -> Option<u32> {
    if known_file(fd).is_some_and(|file| contents::is_new_and_nameless(open_file(file))) {
        return None;
    }
    let mut name = [0u8; 256];
    let name_len = user::read_cstr(name_at, &mut name).ok()?;
    let st = Stat::of_fd(fd).ok()?;
    let mut path = [0u8; 4096];
    let path_len = path_of(fd, &mut path);
    let (room, room_len) = engine().journal.room();
    let lead = size_of::<AttributeHead>() + path_len + 1 + name_len + 1;
    if lead + CHUNK > room_len {
        record::bound();
        return None;
    }
    let at = engine().journal.tail() as u32;
    let parts: [&[u8]; 2] = [&path[..path_len + 1], &name[..name_len + 1]];
    // SAFETY: the journal has this room.
    let len = unsafe {
        let value = room.add(lead);
        let n = Named::of(fd).call(
            |path| sys!(GETXATTR, path, name.as_ptr(), value, CHUNK),
            |fd| sys!(FGETXATTR, fd, name.as_ptr(), value, CHUNK),
        );
        let head = AttributeHead {
            dev: st.dev,
            ino: st.ino,
            path_len: path_len as u32,
            name_len: name_len as u32,
            value_len: if n < 0 { u64::MAX } else { n as u64 },
        };
        let mut to = room;
        for part in [bytes_of(&head), parts[0], parts[1]] {
            core::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
            to = to.add(part.len());
        }
        lead + n.max(0) as usize
    };
    let _ = record::append_in_place(record::ATTRIBUTE, len);
    note_changed(st.dev, st.ino);
    record::make_durable();
    Some(at)
}

/// The attribute was changed, or nothing was: a sum of what it is now.
pub fn left_attribute(record: Option<u32>, fd: i32, r: isize) {
    let Some(at) = record else { return };
    if failed(r) {
        return names::not_done(at);
    }
    let Some(rec) = record::of_all(at as usize).next() else {
        return;
    };
    let Some(h) = value_of::<AttributeHead>(rec.payload) else {
        return;
    };
    let from = size_of::<AttributeHead>() + h.path_len as usize + 1;
    let mut name = [0u8; 256];
    let len = h.name_len as usize;
    name[..len].copy_from_slice(&rec.payload[from..from + len]);
    let sum = attribute_sum(fd, &name);
    record::append(
        record::LEFT_ATTRIBUTE,
        &[&at.to_le_bytes(), &[0; 4], &sum.to_le_bytes()],
    );
}

/// Tells one value from another; 0 if there is none.
fn attribute_sum(fd: i32, name: &[u8]) -> u64 {
    let (room, room_len) = engine().journal.room();
    // SAFETY: the free part of the journal serves as scratch memory.
    let (value, most) = unsafe { (room.add(room_len / 4), CHUNK.min(room_len / 4)) };
    let n = Named::of(fd).call(
        |path| sys!(GETXATTR, path, name.as_ptr(), value, most),
        |fd| sys!(FGETXATTR, fd, name.as_ptr(), value, most),
    );
    if failed(n) {
        return 0;
    }
    // SAFETY: the kernel wrote n bytes there.
    let bytes = unsafe { core::slice::from_raw_parts(value, n as usize) };
    let mut sum = written::Sum::new();
    sum.add(bytes);
    sum.end() | 1
}

/// What a record means, if it still is where it was: an O_PATH descriptor, and its state.
pub(super) fn open_object(dev: u64, ino: u64, path: &[u8]) -> Result<(i32, Stat), Trouble> {
    let slot = high_fd::OBJECT;
    let by_path = open_path(AT_FDCWD, path.as_ptr(), O_NOFOLLOW, slot);
    let by_path = by_path.and_then(|fd| Stat::of_fd(fd).map(|st| (fd, st)));
    let error = match by_path {
        Ok((fd, st)) if (st.dev, st.ino) == (dev, ino) => return Ok((fd, st)),
        Ok(_) => -ENOENT,
        Err(e) => e,
    };
    // It has no name, or another one: perhaps it is open, or in the vault.
    let e = engine();
    let low = 0..state().root.fd_high as i32;
    let deferred =
        e.high_fd(high_fd::DEFERRED)..e.high_fd(high_fd::DEFERRED) + high_fd::DEFERRED_COUNT;
    for fd in low.chain(deferred) {
        if let Ok(st) = Stat::of_fd(fd)
            && (st.dev, st.ino) == (dev, ino)
        {
            return Ok((fd, st));
        }
    }
    let run = e.high_fd(high_fd::RUN_DIR);
    let kept = vault::kept_name(ino);
    if let Ok(fd) = open_path(run, kept.as_ptr(), O_NOFOLLOW, slot)
        && let Ok(st) = Stat::of_fd(fd)
        && (st.dev, st.ino) == (dev, ino)
    {
        return Ok((fd, st));
    }
    if let Some(fd) = beside::open(dev, ino, path, slot)
        && let Ok(st) = Stat::of_fd(fd)
    {
        return Ok((fd, st));
    }
    Err(Trouble::Gone(error))
}

const AT_EMPTY_PATH: usize = 0x1000;

/// At recovery: mode, owner and times as they were. `left` is what the program made of
/// them, if the change is known to have been made.
pub(super) fn put_back(h: &MetaHead, path: &[u8], left: Option<LeftHead>) -> Step {
    const S_IFLNK: u32 = 0o120000;
    let (fd, now) = open_object(h.dev, h.ino, path)?;
    let is = |mode: u32, uid: u32, gid: u32| (now.mode, now.uid, now.gid) == (mode, uid, gid);
    if let Some(left) = left
        && compares()
        && !is(left.mode, left.uid, left.gid)
        && !is(h.mode, h.uid, h.gid)
    {
        return Err(Trouble::Attribute("mode or owner"));
    }
    let name = c"".as_ptr();
    let mut now = now;
    if (now.uid, now.gid) != (h.uid, h.gid) {
        let r = sys!(FCHOWNAT, fd, name, h.uid, h.gid, AT_EMPTY_PATH);
        looked_at(r, "give it back to its owner")?;
        now = Stat::of_fd(fd).map_err(Trouble::Gone)?;
    }
    if now.mode != h.mode && now.kind() != S_IFLNK {
        let r = sys!(FCHMODAT2, fd, name, h.mode & 0o7777, AT_EMPTY_PATH);
        looked_at(r, "set its mode")?;
    }
    if (now.atime, now.mtime) != (h.atime, h.mtime) {
        let times = [h.atime[0], h.atime[1], h.mtime[0], h.mtime[1]];
        let r = sys!(UTIMENSAT, fd, name, &raw const times, AT_EMPTY_PATH);
        looked_at(r, "set its times")?;
    }
    Ok(())
}

/// At recovery: an attribute as it was.
pub(super) fn put_back_attribute(
    h: &AttributeHead,
    path: &[u8],
    rest: &[u8],
    left: Option<u64>,
) -> Step {
    let (name, value) = rest.split_at(h.name_len as usize + 1);
    let (fd, _) = open_object(h.dev, h.ino, path)?;
    let named = Named::of(fd);
    let now = attribute_sum(fd, name);
    let mut sum = written::Sum::new();
    let was = match h.value_len {
        u64::MAX => 0,
        len => {
            sum.add(&value[..(len as usize).min(value.len())]);
            sum.end() | 1
        }
    };
    if now == was {
        return Ok(());
    }
    if left.is_some_and(|left| left != now) && compares() {
        return Err(Trouble::Attribute("extended attribute"));
    }
    let r = match h.value_len {
        u64::MAX => named.call(
            |path| sys!(REMOVEXATTR, path, name.as_ptr()),
            |fd| sys!(FREMOVEXATTR, fd, name.as_ptr()),
        ),
        len => named.call(
            |path| sys!(SETXATTR, path, name.as_ptr(), value.as_ptr(), len, 0),
            |fd| sys!(FSETXATTR, fd, name.as_ptr(), value.as_ptr(), len, 0),
        ),
    };
    looked_at(r, "set an extended attribute of it")
}

pub(super) fn looked_at(r: isize, what: &'static str) -> Step {
    if failed(r) {
        Err(Trouble::Failed(what, r))
    } else {
        Ok(())
    }
}
