//! What others have renamed, it or a directory above it: a log that was rotated, a directory
//! that was moved aside. It is looked for where it was, and its inode tells it.

use super::place::{AT_FDCWD, O_DIRECTORY, O_NOFOLLOW, O_PATH, stat_at};
use super::*;

const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const ROOM: usize = 4096;

/// The path under which a file or directory is found now, ended by NUL, and its length without.
/// `path` is where it was.
pub fn find(dev: u64, ino: u64, path: &[u8], room: &mut [u8; ROOM]) -> Option<usize> {
    let path = nameless::text(path);
    if path.len() >= ROOM || path.ends_with(b" (deleted)") {
        return None;
    }
    // The name that is another one by now: the last, or the first that leads nowhere.
    let mut end = path.len();
    loop {
        let begin = path[..end].iter().rposition(|&b| b == b'/')? + 1;
        room[..begin].copy_from_slice(&path[..begin]);
        room[begin] = 0;
        let dir = sys!(OPEN, room.as_ptr(), O_DIRECTORY | O_CLOEXEC, 0);
        if !failed(dir) {
            let found = search(dir as i32, (dev, ino), &path[end..], &mut room[begin..]);
            sys!(CLOSE, dir);
            return found.map(|len| begin + len);
        }
        if dir != -ENOENT || begin == 1 {
            return None;
        }
        end = begin - 1;
    }
}

/// The name in a directory that leads to an inode, if `rest` comes after it.
fn search(dir: i32, of: (u64, u64), rest: &[u8], room: &mut [u8]) -> Option<usize> {
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
            at += len.max(1);
            let whole = name.len() + rest.len();
            let may_be = !rest.is_empty() || value_of::<u64>(entry) == Some(of.1);
            if !may_be || whole >= room.len() {
                continue;
            }
            room[..name.len()].copy_from_slice(name);
            room[name.len()..whole].copy_from_slice(rest);
            room[whole] = 0;
            let st = stat_at(dir, room.as_ptr(), AT_SYMLINK_NOFOLLOW);
            if st.is_ok_and(|st| (st.dev, st.ino) == of) {
                return Some(whole);
            }
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
