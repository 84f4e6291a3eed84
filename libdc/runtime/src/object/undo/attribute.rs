//! Extended attributes, access control lists among them: the old value goes into
//! the journal before the new one is set.

use super::*;

/// Before an attribute of a path is set or removed. `of_link`: of a symbolic link
/// itself, not of what it leads to.
pub fn before_attribute(path: &[u8], z: &[u8], name_at: usize, of_link: bool) {
    let mut name = [0u8; 256];
    let Some(name_len) = name_of(name_at, &mut name) else {
        return; // the call fails as well
    };
    // An access control list shows in the mode, too.
    if let Ok(st) = Stat::of_path(z.as_ptr()) {
        before_meta(path, &st);
    }
    let (room, room_len) = engine().journal.room();
    let lead = size_of::<FileHead>() + path.len() + 1 + name_len + 1;
    if lead + CHUNK > room_len {
        panic!("the journal has no room for an attribute");
    }
    let mut head = NO_HEAD;
    head.dev = of_link as u64;
    head.path_len = path.len() as u32;
    head.other_len = name_len as u32;
    // SAFETY: the journal has this room.
    let len = unsafe {
        let value = room.add(lead);
        let n = match of_link {
            true => sys!(LGETXATTR, z.as_ptr(), name.as_ptr(), value, CHUNK),
            false => sys!(GETXATTR, z.as_ptr(), name.as_ptr(), value, CHUNK),
        };
        head.at = if n < 0 { u64::MAX } else { n as u64 };
        let mut at = room;
        for part in [bytes_of(&head), path, b"\0", &name[..name_len + 1]] {
            core::ptr::copy_nonoverlapping(part.as_ptr(), at, part.len());
            at = at.add(part.len());
        }
        lead + n.max(0) as usize
    };
    let _ = record::append_in_place(record::ATTRIBUTE, len);
    record::make_durable();
}

/// The name of an attribute, ended by NUL, and its length without it.
fn name_of(at: usize, name: &mut [u8; 256]) -> Option<usize> {
    for (i, byte) in name.iter_mut().enumerate() {
        *byte = user::read::<u8>(at + i)?;
        if *byte == 0 {
            return Some(i);
        }
    }
    None
}

/// At recovery: the attribute as it was.
pub(super) fn put_back(h: &FileHead, path: &[u8], rest: &[u8]) {
    let (name, value) = rest.split_at(h.other_len as usize + 1);
    let (path, name, of_link) = (path.as_ptr(), name.as_ptr(), h.dev != 0);
    match (h.at, of_link) {
        (u64::MAX, true) => sys!(LREMOVEXATTR, path, name),
        (u64::MAX, false) => sys!(REMOVEXATTR, path, name),
        (len, true) => sys!(LSETXATTR, path, name, value.as_ptr(), len, 0),
        (len, false) => sys!(SETXATTR, path, name, value.as_ptr(), len, 0),
    };
}
