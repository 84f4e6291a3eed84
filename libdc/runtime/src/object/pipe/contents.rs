//! What lies in pipes and fifos: saved at a commit by whoever has moved some, without taking
//! it (tee(2)); put back by a recovery.

use super::super::fifo;
use super::*;
use crate::fatal::Text;
use core::fmt::Write;
use core::sync::atomic::AtomicBool;
use dc_image::boot::plant;
use dc_image::run::{CONTENTS_LEN, Shared};
use dc_image::seal::contents_sum;

/// Whether a pipe of our own was written to, read from or closed since the commit.
static TOUCHED: AtomicBool = AtomicBool::new(false);

/// Data went through a descriptor.
#[inline]
pub fn touch(file: u32) {
    let f = open_file(file);
    if f.kind == Kind::Pipe && (f.peer != 0 || fifo::is_one(f)) {
        TOUCHED.store(true, Relaxed);
        let other = (f.peer != 0 && f.peer != PEER_GONE).then_some(f.peer);
        for end in [file].into_iter().chain(other) {
            let is_empty = &mut open_file(end).words[IS_EMPTY];
            if *is_empty != 0 {
                *is_empty = 0;
            }
        }
    }
    if f.kind == Kind::Socket {
        pair::touch(f);
    }
    if f.kind == Kind::Tty {
        pty::touch(f);
    }
}

/// Before a commit: what lies in our own pipes, for a cold recovery. Records
/// of (file of the reading end u32, len u32, bytes).
pub fn save_contents() {
    if !TOUCHED.swap(false, Relaxed) {
        return;
    }
    let root = &mut state().root;
    root.pipe_data_len = 0;
    for (fd, file) in each_file() {
        let f = open_file(file);
        let is_kept = f.peer != 0 || fifo::is_one(f) && f.shared != 0;
        if f.kind != Kind::Pipe || !is_kept {
            continue;
        }
        // (Where there are thousands, to ask each takes its time.)
        if f.shared == 0 && f.words[IS_EMPTY] != 0 {
            continue;
        }
        // What other processes know too is saved from either end: who has the other
        // one may be asleep.
        if f.flags as usize & O_ACCMODE == 0 || f.shared != 0 {
            save_one(file, fd);
        }
    }
}

/// This process closes its last descriptor of an end that others know too: it will not be
/// there when the next commit looks inside.
pub fn before_close(file: u32, fd: i32) {
    if TOUCHED.load(Relaxed)
        && let Some((at, shared)) = shared::of(open_file(file))
        && is_there(file, fd)
    {
        save_shared(at, shared, fd);
    }
}

/// Something went through a pipe of our own.
pub fn touched() {
    TOUCHED.store(true, Relaxed);
}

/// Keeps what lies in a pipe that other processes know too. All of them are stopped.
fn save_shared(at: usize, shared: &Shared, fd: i32) {
    let published = engine().store.published();
    let place = shared.place_for(published);
    let Some(len) = copy_of(fd, shared::contents(at, place), CONTENTS_LEN) else {
        crate::say!("more than 256 KiB in a pipe between processes will not survive a recovery");
        return;
    };
    // SAFETY: the place has room for CONTENTS_LEN bytes, of which these were just written.
    let bytes = unsafe { core::slice::from_raw_parts(shared::contents(at, place), len) };
    shared.set_with(len as u64, contents_sum(bytes), published);
}

/// Copies what lies in a pipe without taking it; none if it is more than the room. Where others
/// run, as behind a close, one may read meanwhile: then it is looked at once more.
fn copy_of(fd: i32, to: *mut u8, room: usize) -> Option<usize> {
    const PATIENCE: usize = 64;
    for _ in 0..PATIENCE {
        let n = inside(fd);
        if n > room {
            return None;
        }
        if n == 0 || copy_all(fd, to, n)? {
            return Some(n);
        }
    }
    None
}

/// How many bytes lie in a pipe.
fn inside(fd: i32) -> usize {
    const FIONREAD: usize = 0x541b;
    let mut inside = 0i32;
    sys!(IOCTL, fd, FIONREAD, &raw mut inside);
    inside.max(0) as usize
}

/// Whether so many bytes were there. None if they cannot be copied.
fn copy_all(fd: i32, to: *mut u8, n: usize) -> Option<bool> {
    const F_SETPIPE_SZ: usize = 1031;
    const SPLICE_F_NONBLOCK: usize = 2;
    let mut copy = [0i32; 2];
    if failed(sys!(PIPE2, copy.as_mut_ptr(), O_NONBLOCK)) {
        return None;
    }
    sys!(FCNTL, copy[1], F_SETPIPE_SZ, n.max(65536));
    // From the writing end it is read by its name.
    let reader = crate::proc::open(name_of(fd).as_bytes(), O_NONBLOCK | O_CLOEXEC);
    let from = if failed(reader) { fd as isize } else { reader };
    let teed = sys!(TEE, from, copy[1], n, SPLICE_F_NONBLOCK);
    let mut got = 0;
    while teed > 0 && got < teed as usize {
        let r = sys!(READ, copy[0], to.wrapping_add(got), n - got);
        count_read(r);
        if r <= 0 {
            break;
        }
        got += r as usize;
    }
    for end in [copy[0] as isize, copy[1] as isize, reader] {
        if !failed(end) {
            sys!(CLOSE, end);
        }
    }
    Some(got == n)
}

/// A descriptor's name.
fn name_of(fd: i32) -> Text<32> {
    let mut name = Text::<32>::new();
    let _ = write!(name, "/proc/self/fd/{fd}\0");
    name
}

fn save_one(file: u32, fd: i32) {
    if let Some((at, shared)) = shared::of(open_file(file)) {
        // (Who has closed it in a lost interval knows nothing of it.)
        if is_there(file, fd) {
            save_shared(at, shared, fd);
        }
        return;
    }
    const FIONREAD: usize = 0x541b;
    const F_SETPIPE_SZ: usize = 1031;
    const SPLICE_F_NONBLOCK: usize = 2;
    let root = &mut state().root;
    let at = root.pipe_data_len as usize;
    let mut inside = 0i32;
    sys!(IOCTL, fd, FIONREAD, &raw mut inside);
    if inside <= 0 {
        open_file(file).words[IS_EMPTY] = 1;
        return;
    }
    let n = inside as usize;
    let mut copy = [0i32; 2];
    if at + 8 + n > root.pipe_data.len() || failed(sys!(PIPE2, copy.as_mut_ptr(), O_NONBLOCK)) {
        crate::say!("{n} bytes in a pipe will not survive the death of dcrun itself");
        // Nor can a rollback put them back: what goes in and out is on record.
        share(file);
        return;
    }
    sys!(FCNTL, copy[1], F_SETPIPE_SZ, n.max(65536));
    let teed = sys!(TEE, fd, copy[1], n, SPLICE_F_NONBLOCK);
    let mut got = 0;
    while teed > 0 && got < teed as usize {
        // The kernel cannot write into state that sleeps.
        let mut bytes = [0u8; 4096];
        let wanted = bytes.len().min(n - got);
        let r = sys!(READ, copy[0], bytes.as_mut_ptr(), wanted);
        count_read(r);
        if r <= 0 {
            break;
        }
        root.pipe_data[at + 8 + got..][..r as usize].copy_from_slice(&bytes[..r as usize]);
        got += r as usize;
    }
    sys!(CLOSE, copy[0]);
    sys!(CLOSE, copy[1]);
    root.pipe_data[at..at + 4].copy_from_slice(&file.to_le_bytes());
    root.pipe_data[at + 4..at + 8].copy_from_slice(&(got as u32).to_le_bytes());
    root.pipe_data_len += 8 + got as u64;
}

/// At recovery: pipes hold what they held at the commit. Warm those that are state; cold
/// all that were made here, which are new (those that several know are filled when they
/// are made).
pub fn put_back(warm: bool) {
    // What the lost interval moved and is not moved again differs from what was saved.
    TOUCHED.store(true, Relaxed);
    for (fd, file) in each_file() {
        let ours = if warm { is_state(fd) } else { is_own_pipe(fd) };
        if !ours || open_file(file).flags as usize & O_ACCMODE != 0 {
            continue;
        }
        // Of several that have it one fills it again.
        let shared = shared::of(open_file(file));
        if !is_there(file, fd) || shared.is_some_and(|(_, s)| !warm || !shared::claim(s)) {
            continue;
        }
        empty(fd);
        // By its name the pipe can be opened for writing even if no other end is left.
        let end = crate::proc::open(name_of(fd).as_bytes(), O_NONBLOCK | O_CLOEXEC | 1);
        if !failed(end) {
            fill(file, end as i32);
            sys!(CLOSE, end);
        }
    }
}

fn empty(fd: i32) {
    const FIONREAD: usize = 0x541b;
    let mut inside = 0i32;
    let mut bytes = [0u8; 4096];
    while sys!(IOCTL, fd, FIONREAD, &raw mut inside) == 0 && inside > 0 {
        let r = sys!(
            READ,
            fd,
            bytes.as_mut_ptr(),
            bytes.len().min(inside as usize)
        );
        count_read(r);
        if r <= 0 {
            break;
        }
    }
}

/// Writes what was saved of one pipe.
fn fill(file: u32, to: i32) {
    if let Some((at, shared)) = shared::of(open_file(file)) {
        return fill_shared(at, shared, 0, to);
    }
    let root = &state().root;
    let mut at = 0;
    while at + 8 <= root.pipe_data_len as usize {
        let word =
            |i: usize| u32::from_le_bytes(root.pipe_data[i..i + 4].try_into().unwrap_or([0; 4]));
        let n = word(at + 4) as usize;
        if word(at) == file {
            let r = sys!(WRITE, to, root.pipe_data[at + 8..].as_ptr(), n);
            count_written(r);
        }
        at += 8 + n;
    }
}

/// What lay in a pipe that several processes know goes into it again, but for the first `from`
/// bytes.
pub fn fill_shared(at: usize, shared: &Shared, from: usize, to: i32) {
    const F_SETPIPE_SZ: usize = 1031;
    const USUAL: u64 = 65536;
    let published = engine().store.published();
    if let (Some(place), Some(len)) = (shared.place_at(published), shared.get(published)) {
        if len > USUAL {
            sys!(FCNTL, to, F_SETPIPE_SZ, len);
        }
        let times = match engine().boot.plant {
            plant::DOUBLE_PIPE => 2,
            _ => 1,
        };
        for _ in 0..times {
            let bytes = shared::inside(at, place, len as usize);
            let bytes = &bytes[from.min(bytes.len())..];
            let r = sys!(WRITE, to, bytes.as_ptr(), bytes.len());
            count_written(r);
        }
    }
}
