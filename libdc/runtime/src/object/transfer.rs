//! Calls that move bytes from one descriptor to another: sendfile, copy_file_range,
//! splice, tee, vmsplice.
//!
//! Each is made of the reads and writes that the program would have made itself, so
//! that what comes from them is undone, recorded and repeated like any other: a file is
//! mapped into a window of the runtime and written from there; from a pipe the bytes are
//! first copied without being taken (tee(2)), written, and only then taken, as many as
//! were written. A death in between finds them still in the pipe.
//!
//! ```text
//! window of a thread:  TRANSFER_BASE + slot * 2 GB
//! ```
//! Less may be moved at a time than the kernel would: callers are ready for that.
//!
//! Between the write and what follows from it, the source's position or the taking from
//! the pipe, others may commit. So how much has been written stays noted in the thread's
//! state until the rest is done as well ([`carried`]): a rollback to such a commit finds
//! the call yet to be made, and makes the rest of it only.
#![allow(unsafe_code)]

use super::buffers::Buffers;
use super::descriptor::*;
use super::output::{self, Call};
use super::poll::{self, POLLIN, POLLOUT};
use super::stat::{S_IFBLK, S_IFREG, Stat};
use super::{device, input, pushback, regular};
use crate::engine::{engine, state};
use crate::event;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::space::shared;
use crate::state::Kind;
use crate::{sys, thread};
use dc_image::window::{PAGE, TRANSFER_BASE, TRANSFER_LEN};

/// As much as the kernel moves at once.
const MOST: u64 = 0x7fff_f000;
/// From or to a pipe.
const PIPE_MOST: usize = 64 << 10;
const PIPE_BUF: usize = 4096;
const NONBLOCK: usize = 2;

/// sendfile(2).
pub fn sendfile(l: &mut Local, a: [usize; 6]) -> isize {
    let [out, from, at, count, ..] = a;
    let part = {
        let _guard = engine().lock.acquire(l);
        match part_to_send(l, out, from, at, count) {
            Ok(part) => part,
            Err(0) => return stays(at),
            Err(r) => return r,
        }
    };
    let r = carry(l, out, &part, None);
    finish(l, &part, r, 0)
}

/// Of a transfer under way: so much of it is where it goes to, and nowhere else noted.
fn carried(l: &Local) -> &'static mut usize {
    &mut state().threads[l.slot as usize].moved_bytes
}

/// Writes a part, or what is left of it, to where it goes. What it has written is noted
/// before any other thread may commit.
fn carry(l: &mut Local, to: usize, part: &Part, at: Option<u64>) -> isize {
    let before = *carried(l);
    if before > 0 && (before >= part.len || !goes_in_parts(l, to)) {
        return before as isize;
    }
    let r = match at {
        None => output::write(l, [to, part.address, part.len, 0, 0, 0]),
        Some(at) => output::pwrite(l, [to, part.address, part.len, at as usize, 0, 0]),
    };
    *carried(l) = r.max(0) as usize;
    r
}

/// Whether how much of a write is out is state, so that the rest of it can be made.
fn goes_in_parts(l: &mut Local, to: usize) -> bool {
    let _guard = engine().lock.acquire(l);
    file_of(to as i32).is_some_and(|file| {
        let kind = open_file(file).kind;
        !matches!(kind, Kind::Regular | Kind::MemFd)
    })
}

/// Nothing is left to send: the program is told where it stands all the same.
fn stays(at: usize) -> isize {
    if at == 0 {
        return 0;
    }
    shared::open(at, at.saturating_add(8));
    match user::read::<u64>(at) {
        Some(position) if user::write(at, &position) => 0,
        _ => -EFAULT,
    }
}

fn part_to_send(
    l: &Local,
    out: usize,
    from: usize,
    at: usize,
    count: usize,
) -> Result<Part, isize> {
    let to = file_of(out as i32).ok_or(-EBADF)?;
    let flags = open_file(to).flags as usize;
    if flags & O_ACCMODE == 0 {
        return Err(-EBADF);
    }
    if at != 0 && failed(sys!(LSEEK, from, 0, 1)) {
        return Err(if file_of(from as i32).is_some() {
            -ESPIPE
        } else {
            -EBADF
        });
    }
    if flags & O_APPEND != 0 && open_file(to).kind == Kind::Regular {
        return Err(-EINVAL);
    }
    map(part_of(l, from as i32, at, count)?)
}

/// A part of a file that is to be moved.
struct Part {
    slot: u32,
    from: i32,
    file: u32,
    /// Where the program keeps its position, or 0 for that of the description.
    at: usize,
    position: u64,
    len: usize,
    address: usize,
}

fn part_of(l: &Local, from: i32, at: usize, count: usize) -> Result<Part, isize> {
    let file = file_of(from).ok_or(-EBADF)?;
    let f = open_file(file);
    if f.flags as usize & O_ACCMODE == 1 {
        return Err(-EBADF);
    }
    let position = match at {
        0 => sys!(LSEEK, from, 0, 1),
        at => user::read::<i64>(at).ok_or(-EFAULT)? as isize,
    };
    if position < 0 {
        return Err(-EINVAL);
    }
    let st = Stat::of_fd(from)?;
    let endless = device::gives_zeros(f);
    if !endless && !matches!(st.kind(), S_IFREG | S_IFBLK) {
        return Err(-EINVAL);
    }
    // Files of proc and sys have no size, and give what they have.
    let left = match f.kind {
        _ if endless => PIPE_MOST as u64,
        Kind::Other => PIPE_MOST as u64,
        _ => st.size.saturating_sub(position as u64).min(MOST),
    };
    let len = (count as u64).min(left) as usize;
    if len == 0 {
        return Err(0);
    }
    Ok(Part {
        slot: l.slot,
        from,
        file,
        at,
        position: position as u64,
        len,
        address: 0,
    })
}

fn window(slot: u32) -> usize {
    TRANSFER_BASE + slot as usize * TRANSFER_LEN
}

/// Puts it where it can be written from.
fn map(mut part: Part) -> Result<Part, isize> {
    const PROT_READ: usize = 1;
    const MAP_SHARED_FIXED: usize = 0x11;
    let skipped = part.position as usize % PAGE;
    let base = window(part.slot);
    let r = sys!(
        MMAP,
        base,
        part.len + skipped,
        PROT_READ,
        MAP_SHARED_FIXED,
        part.from,
        part.position as usize - skipped
    );
    if failed(r) {
        return read_in(part);
    }
    part.address = base + skipped;
    Ok(part)
}

/// Of a file that has no pages: what it gives is read.
fn read_in(mut part: Part) -> Result<Part, isize> {
    let at = anonymous(part.slot)?;
    let n = sys!(
        PREAD64,
        part.from,
        at,
        part.len.min(PIPE_MOST),
        part.position
    );
    input::count_read(n);
    if n <= 0 {
        return Err(n);
    }
    (part.address, part.len) = (at, n as usize);
    Ok(part)
}

fn anonymous(slot: u32) -> Result<usize, isize> {
    const PROT_RW: usize = 3;
    const MAP_PRIVATE_FIXED_ANONYMOUS: usize = 0x32;
    let at = window(slot);
    let flags = MAP_PRIVATE_FIXED_ANONYMOUS;
    let r = sys!(MMAP, at, PIPE_MOST, PROT_RW, flags, -1isize, 0);
    if failed(r) { Err(r) } else { Ok(at) }
}

fn unmap(part: &Part) {
    let base = part.address & !(PAGE - 1);
    sys!(MUNMAP, base, part.address + part.len - base);
}

/// So much of it was written: the position moves, and that of the target if the program
/// keeps it.
fn finish(l: &mut Local, part: &Part, r: isize, to_at: usize) -> isize {
    let _guard = engine().lock.acquire(l);
    ends(l);
    unmap(part);
    if r > 0 && to_at != 0 {
        shared::open(to_at, to_at.saturating_add(8));
        if let Some(position) = user::read::<u64>(to_at) {
            user::write(to_at, &(position + r as u64));
        }
    }
    if r > 0 && !move_on(part, r as u64) {
        // The bytes have gone: they must not go once more.
        l.is_final = true;
        return -EFAULT;
    }
    r
}

/// False if the program's own position cannot be written.
fn move_on(part: &Part, n: u64) -> bool {
    if part.at != 0 {
        shared::open(part.at, part.at.saturating_add(8));
        return user::write(part.at, &(part.position + n));
    } else {
        sys!(LSEEK, part.from, part.position + n, 0);
        regular::touch(part.file);
    }
    true
}

/// At recovery: the output that a thread makes next, if it is a sendfile.
pub fn output_next(slot: u32, a: [usize; 6]) -> Option<Call> {
    let l = engine().threads.get(slot as usize)?;
    // SAFETY: a thread's block is never freed, and all threads wait.
    let l = unsafe { l.as_ref()? };
    let part = part_to_send(l, a[0], a[1], a[2], a[3]).ok()?;
    let args = [a[0], part.address, part.len, 0, 0, 0];
    Some(Call::new(nr::WRITE, args, part.len))
}

/// It is answered: so much was sent.
pub fn answered(slot: u32, a: [usize; 6], n: usize) {
    let Some(l) = engine().threads.get(slot as usize) else {
        return;
    };
    // SAFETY: as above.
    let Some(l) = (unsafe { l.as_ref() }) else {
        return;
    };
    if let Ok(part) = part_of(l, a[1] as i32, a[2], a[3]) {
        move_on(&part, n as u64);
    }
}

/// At recovery: whether a thread stands before a transfer whose bytes are written, and not
/// yet taken from where they come from. That comes before any handler.
pub fn must_end_first(l: &Local) -> bool {
    matches!(l.frame.rax, nr::SPLICE | nr::COPY_FILE_RANGE)
        && *carried(l) > 0
        && user::read::<[u8; 2]>(l.frame.rip) == Some(SYSCALL)
}

const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// A transfer has ended: a signal may have waited for it.
fn ends(l: &mut Local) {
    *carried(l) = 0;
    thread::wait_on(l);
}

/// copy_file_range(2).
pub fn copy_file_range(l: &mut Local, a: [usize; 6]) -> isize {
    let [from, from_at, to, to_at, count, flags] = a;
    if flags != 0 {
        return -EINVAL;
    }
    let part = {
        let _guard = engine().lock.acquire(l);
        match part_to_copy(l, from, from_at, to, to_at, count) {
            Ok(part) => part,
            Err(r) => return r,
        }
    };
    let r = carry(l, to, &part.0, (to_at != 0).then_some(part.1));
    finish(l, &part.0, r, to_at)
}

fn part_to_copy(
    l: &Local,
    from: usize,
    from_at: usize,
    to: usize,
    to_at: usize,
    count: usize,
) -> Result<(Part, u64), isize> {
    const EISDIR: isize = 21;
    let source = file_of(from as i32).ok_or(-EBADF)?;
    let target = file_of(to as i32).ok_or(-EBADF)?;
    let (s, t) = (open_file(source), open_file(target));
    let (st_from, st_to) = (Stat::of_fd(from as i32)?, Stat::of_fd(to as i32)?);
    let kinds = [st_from.kind(), st_to.kind()];
    if kinds.contains(&super::stat::S_IFDIR) {
        return Err(-EISDIR);
    }
    if kinds != [super::stat::S_IFREG; 2] {
        return Err(-EINVAL);
    }
    if s.flags as usize & O_ACCMODE == 1
        || t.flags as usize & O_ACCMODE == 0
        || t.flags as usize & O_APPEND != 0
    {
        return Err(-EBADF);
    }
    if st_from.dev != st_to.dev {
        return Err(-EXDEV);
    }
    let position = match to_at {
        0 => sys!(LSEEK, to, 0, 1),
        at => user::read::<i64>(at).ok_or(-EFAULT)? as isize,
    };
    if position < 0 {
        return Err(-EINVAL);
    }
    let part = part_of(l, from as i32, from_at, count)?;
    let meets = (st_from.ino == st_to.ino)
        && part.position < position as u64 + part.len as u64
        && (position as u64) < part.position + part.len as u64;
    if meets {
        return Err(-EINVAL);
    }
    Ok((map(part)?, position as u64))
}

/// Whether two descriptors are of one pipe.
fn is_one_pipe(a: usize, b: usize) -> bool {
    let place = |fd: usize| Stat::of_fd(fd as i32).ok().map(|st| (st.dev, st.ino));
    place(a) == place(b)
}

fn is_pipe(fd: usize) -> bool {
    const S_IFIFO: u32 = super::stat::S_IFIFO;
    Stat::of_fd(fd as i32).is_ok_and(|st| st.kind() == S_IFIFO)
}

/// splice(2).
pub fn splice(l: &mut Local, a: [usize; 6]) -> isize {
    let [from, from_at, to, to_at, count, flags] = a;
    let (pipes, appends) = {
        let _guard = engine().lock.acquire(l);
        let (Some(source), Some(target)) = (file_of(from as i32), file_of(to as i32)) else {
            return -EBADF;
        };
        let flags = open_file(target).flags as usize;
        if open_file(source).flags as usize & O_ACCMODE == 1 || flags & O_ACCMODE == 0 {
            return -EBADF;
        }
        ((is_pipe(from), is_pipe(to)), flags & O_APPEND != 0)
    };
    if (pipes.0 && from_at != 0) || (pipes.1 && to_at != 0) {
        return -ESPIPE;
    }
    let waits = flags & NONBLOCK == 0;
    match pipes {
        (false, false) => -EINVAL,
        (true, false) if appends => -EINVAL,
        (true, true) if is_one_pipe(from, to) => -EINVAL,
        _ if count == 0 => 0,
        (false, true) => into_pipe(l, from, from_at, to, count, waits),
        (true, to_pipe) => {
            let room = match to_pipe {
                true => match room_in(l, to, waits) {
                    Ok(room) => room,
                    Err(e) => return e,
                },
                false => PIPE_MOST,
            };
            out_of_pipe(l, from, to, to_at, count.min(room), waits, true)
        }
    }
}

/// tee(2).
pub fn tee(l: &mut Local, a: [usize; 6]) -> isize {
    let [from, to, count, flags, ..] = a;
    {
        let _guard = engine().lock.acquire(l);
        if file_of(from as i32).is_none() || file_of(to as i32).is_none() {
            return -EBADF;
        }
        if !is_pipe(from) || !is_pipe(to) || is_one_pipe(from, to) {
            return -EINVAL;
        }
    }
    let waits = flags & NONBLOCK == 0;
    match room_in(l, to, waits) {
        Ok(room) => out_of_pipe(l, from, to, 0, count.min(room), waits, false),
        Err(e) => e,
    }
}

/// vmsplice(2): into a pipe as writev, but no more than it has room for; out of one as readv.
pub fn vmsplice(l: &mut Local, a: [usize; 6]) -> isize {
    let [fd, parts, count, flags, ..] = a;
    let mode = {
        let _guard = engine().lock.acquire(l);
        match file_of(fd as i32) {
            Some(file) if is_pipe(fd) => open_file(file).flags as usize & O_ACCMODE,
            _ => return -EBADF,
        }
    };
    match mode {
        0 => input::readv(l, [fd, parts, count, 0, 0, 0]),
        _ => {
            let args = [fd, parts, count, 0, 0, 0];
            let len = match output::vector_len(args) {
                Ok(len) => len,
                Err(e) => return e,
            };
            // A write would wait for all of it to go, and nobody may be reading.
            match room_in(l, fd, flags & NONBLOCK == 0) {
                Ok(room) if len > room => first_of(l, args, room),
                Ok(_) => output::writev(l, args),
                Err(e) => e,
            }
        }
    }
}

/// Writes so many bytes at the most, of the first of several buffers that has any.
fn first_of(l: &mut Local, a: [usize; 6], most: usize) -> isize {
    let [fd, parts, count, ..] = a;
    let buffers = (0..count).filter_map(|i| user::read::<[usize; 2]>(parts + i * 16));
    match buffers.into_iter().find(|&[_, len]| len > 0) {
        Some([at, len]) => output::write(l, [fd, at, len.min(most), 0, 0, 0]),
        None => 0,
    }
}

/// How much a pipe takes without waiting for a reader, once it takes anything.
fn room_in(l: &mut Local, to: usize, waits: bool) -> Result<usize, isize> {
    const FIONREAD: usize = 0x541b;
    const F_GETPIPE_SZ: usize = 1032;
    let fd = to as i32;
    if !poll::ready_now(fd, POLLOUT) {
        let blocks = {
            let _guard = engine().lock.acquire(l);
            file_of(fd).is_some_and(|f| open_file(f).flags as usize & O_NONBLOCK == 0)
        };
        if !waits || !blocks {
            return Err(-EAGAIN);
        }
        poll::wait_for(l, fd, POLLOUT)?;
    }
    let mut inside = 0i32;
    sys!(IOCTL, fd, FIONREAD, &raw mut inside);
    let size = sys!(FCNTL, fd, F_GETPIPE_SZ, 0);
    // How full its pages are is not to be known.
    Ok(match inside {
        0 if size > 0 => (size as usize).min(PIPE_MOST),
        _ => PIPE_BUF,
    })
}

fn into_pipe(
    l: &mut Local,
    from: usize,
    from_at: usize,
    to: usize,
    count: usize,
    waits: bool,
) -> isize {
    let consumes = {
        let _guard = engine().lock.acquire(l);
        let kind = file_of(from as i32).map(open_file);
        kind.is_some_and(|f| {
            f.kind == Kind::Socket || f.kind == Kind::Tty || device::is_consumed(f)
        })
    };
    if consumes {
        // Its bytes cannot be had without being taken.
        return -EINVAL;
    }
    let room = match room_in(l, to, waits) {
        Ok(room) => room,
        Err(e) => return e,
    };
    let part = {
        let _guard = engine().lock.acquire(l);
        match part_of(l, from as i32, from_at, count.min(room)).and_then(map) {
            Ok(part) => part,
            Err(r) => return r,
        }
    };
    let r = carry(l, to, &part, None);
    finish(l, &part, r, 0)
}

/// From a pipe: copied, written, and taken.
fn out_of_pipe(
    l: &mut Local,
    from: usize,
    to: usize,
    to_at: usize,
    count: usize,
    waits: bool,
    takes: bool,
) -> isize {
    let position = match to_at {
        0 => 0,
        at => match user::read::<u64>(at) {
            Some(position) => position,
            None => return -EFAULT,
        },
    };
    let copied = loop {
        match copy_of_pipe(l, from as i32, count.min(PIPE_MOST)) {
            Err(e) if e == -EAGAIN && waits && blocks(l, from) => {
                if let Err(e) = poll::wait_for(l, from as i32, POLLIN) {
                    return e;
                }
            }
            Err(e) => return e,
            Ok(n) => break n,
        }
    };
    if copied == 0 {
        return 0;
    }
    let at = window(l.slot);
    let part = Part {
        slot: l.slot,
        from: from as i32,
        file: 0,
        at: 0,
        position: 0,
        len: copied,
        address: at,
    };
    let r = carry(l, to, &part, (to_at != 0).then_some(position));
    if r > 0 && takes {
        take_from_pipe(l, from, at, r as usize);
    }
    ends(l);
    if r > 0 && to_at != 0 {
        user::write(to_at, &(position + r as u64));
    }
    sys!(MUNMAP, at, PIPE_MOST);
    r
}

/// Takes what was written from the pipe. It lies there, so one read takes all of it, and
/// with it goes the note of it.
fn take_from_pipe(l: &mut Local, from: usize, at: usize, len: usize) {
    let mut left = len;
    while left > 0 {
        let n = input::read(l, [from, at, left, 0, 0, 0]);
        if n <= 0 {
            break;
        }
        left -= n as usize;
    }
}

fn blocks(l: &mut Local, fd: usize) -> bool {
    let _guard = engine().lock.acquire(l);
    file_of(fd as i32).is_some_and(|f| open_file(f).flags as usize & O_NONBLOCK == 0)
}

/// What a pipe gives next, left inside of it: into the thread's window. 0 at its end.
fn copy_of_pipe(l: &mut Local, from: i32, most: usize) -> Result<usize, isize> {
    let at = anonymous(l.slot)?;
    // What came before a death comes first.
    if let Some(r) = pushback::fed(l, from, &Buffers::one(at, most), true) {
        return if failed(r) { Err(r) } else { Ok(r as usize) };
    }
    let _guard = engine().lock.acquire(l);
    let mut copy = [0i32; 2];
    let r = sys!(PIPE2, copy.as_mut_ptr(), O_NONBLOCK | O_CLOEXEC);
    if failed(r) {
        return Err(r);
    }
    let mut r = sys!(TEE, from, copy[1], most, NONBLOCK);
    if r > 0 {
        r = sys!(READ, copy[0], at, r);
        input::count_read(r);
    }
    sys!(CLOSE, copy[0]);
    sys!(CLOSE, copy[1]);
    event::non_deterministic(l);
    if failed(r) { Err(r) } else { Ok(r as usize) }
}
