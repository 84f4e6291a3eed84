//! What others have renamed, in the directory where it was: a log that was rotated, a
//! directory that was moved aside. Its inode tells it.

use super::place::{AT_FDCWD, O_DIRECTORY, O_NOFOLLOW, O_PATH, stat_at};
use super::*;

const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const ROOM: usize = 4096;

/// The path under which a file or directory is found now, ended by NUL, and its length without.
/// `path` is where it was.
pub fn find(dev: u64, ino: u64, path: &[u8], room: &mut [u8; ROOM]) -> Option<usize> {
    let path = nameless::text(path);
    let begin = path.iter().rposition(|&b| b == b'/')? + 1;
    if begin >= ROOM {
        return None;
    }
    room[..begin].copy_from_slice(&path[..begin]);
    room[begin] = 0;
    let flags = O_DIRECTORY | O_CLOEXEC;
    let dir = sys!(OPENAT, AT_FDCWD, room.as_ptr(), flags, 0);
    if failed(dir) {
        return None;
    }
    let found = search(dir as i32, dev, ino, &mut room[begin..]);
    sys!(CLOSE, dir);
    found.map(|len| begin + len)
}

/// The name of an inode in a directory.
fn search(dir: i32, dev: u64, ino: u64, room: &mut [u8]) -> Option<usize> {
    let mut buffer = [0u64; 512];
    loop {
        let n = sys!(GETDENTS64, dir, buffer.as_mut_ptr(), size_of_val(&buffer));
        if n <= 0 {
            return None;
        }
        let bytes = &bytes_of(&buffer)[..n as usize];
        let mut at = 0;
        while at + 19 < bytes.len() {
            let entry = &bytes[at..];
            let len = u16::from_le_bytes([entry[16], entry[17]]) as usize;
            let name = nameless::text(&entry[19..len.clamp(19, entry.len())]);
            // (The inode in a directory may be that of what is mounted over.)
            let is_it = value_of::<u64>(entry) == Some(ino)
                && name.len() < room.len()
                && stat_at(dir, entry[19..].as_ptr(), AT_SYMLINK_NOFOLLOW)
                    .is_ok_and(|st| (st.dev, st.ino) == (dev, ino));
            if is_it {
                room[..name.len()].copy_from_slice(name);
                room[name.len()] = 0;
                return Some(name.len());
            }
            at += len.max(1);
        }
    }
}

/// The same, opened without any right, into a slot of ours.
pub fn open(dev: u64, ino: u64, path: &[u8], slot: i32) -> Option<i32> {
    let mut room = [0u8; ROOM];
    find(dev, ino, path, &mut room)?;
    let fd = place::open_path(AT_FDCWD, room.as_ptr(), O_NOFOLLOW | O_PATH, slot).ok()?;
    let is_it = Stat::of_fd(fd).is_ok_and(|st| (st.dev, st.ino) == (dev, ino));
    is_it.then_some(fd)
}
