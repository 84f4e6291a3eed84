//! shmget, shmat, shmdt, shmctl: segments.
//!
//! A segment is a file beside the image, and is mapped as other shared files are: its
//! stores are found by page, and undone. It goes when nobody has it attached any more and
//! it was removed; its file goes after the commit that says so.

use super::info::{self, Asks};
use super::room::*;
use super::*;
use crate::fatal;
use crate::object::stat::Stat;
use crate::object::{descriptor, limits, process as program};
use crate::reserved;
use crate::run::{image, run};
use crate::space::{self, MAP_FIXED, PROT_READ, PROT_WRITE};
use crate::state::{Kind, Vma};
use dc_image::boot::high_fd;
use dc_image::window::PAGE;

const SHM_HUGETLB: usize = 0o4000;
const SHM_RDONLY: usize = 0o10000;
const SHM_RND: usize = 0o20000;
const SHM_REMAP: usize = 0o40000;
const SHM_EXEC: usize = 0o100000;
/// In the mode of a segment: it was removed; it is locked.
const DEST: u32 = 0o1000;
const LOCKED: u32 = 0o2000;
const SHM_LOCK: usize = 11;
const SHM_UNLOCK: usize = 12;
const MAP_SHARED: u32 = 1;
const ATIME: usize = 0;
const DTIME: usize = 1;
const CTIME: usize = 2;
const CREATOR: usize = 0;
const LAST: usize = 1;

pub fn get(l: &mut Local, a: [usize; 6]) -> isize {
    let (key, size, flags) = (a[0] as i32, a[1], a[2]);
    if flags & SHM_HUGETLB != 0 {
        // Programs that ask for huge pages go on without.
        return -ENOMEM;
    }
    let fits = |o: &Object| if size as u64 > o.size { -EINVAL } else { 0 };
    let r = super::get(Family::Memory, key, flags, fits, |o| make(o, size));
    event::non_deterministic(l);
    r
}

fn file_name(number: u32) -> fatal::Text<320> {
    image::name(format_args!("shared-{number}"))
}

fn make(o: &mut Object, size: usize) -> Result<(), isize> {
    const O_RDWR_CREAT_EXCL_CLOEXEC: usize = 0o2000302;
    if size == 0 || size > isize::MAX as usize - PAGE {
        return Err(-EINVAL);
    }
    o.number = run().shared_memory.fetch_add(1, Relaxed);
    let dir = engine().high_fd(high_fd::IMAGES);
    let name = file_name(o.number);
    let fd = sys!(
        OPENAT,
        dir,
        name.as_bytes().as_ptr(),
        O_RDWR_CREAT_EXCL_CLOEXEC,
        0o600
    );
    if failed(fd) {
        return Err(-ENOSPC);
    }
    let fd = reserved::move_high(fd, high_fd::SCRATCH);
    let r = limits::lifted(limits::RLIMIT_FSIZE, || {
        sys!(FTRUNCATE, fd, size.next_multiple_of(PAGE))
    });
    let st = Stat::of_fd(fd);
    sys!(CLOSE, fd);
    let (Ok(st), false) = (st, failed(r)) else {
        return Err(-ENOMEM);
    };
    (o.dev, o.ino) = (st.dev, st.ino);
    o.size = size as u64;
    o.pids[CREATOR] = pid();
    Ok(())
}

/// Files of segments that went before the last commit.
pub fn let_files_go() {
    let published = engine().store.published();
    let dir = engine().high_fd(high_fd::IMAGES);
    for o in &mut room().objects[Family::Memory as usize] {
        if o.used == GOES && o.free_from <= published {
            let name = file_name(o.number);
            sys!(UNLINKAT, dir, name.as_bytes().as_ptr(), 0);
            remove(o);
        }
    }
}

fn attachments() -> impl Iterator<Item = &'static mut Attachment> {
    room().attachments.iter_mut().filter(|a| a.process != 0)
}

fn attached(segment: usize) -> usize {
    attachments()
        .filter(|a| a.segment as usize == segment)
        .count()
}

pub fn attach(l: &mut Local, a: [usize; 6]) -> isize {
    let (id, addr, flags) = (a[0], a[1], a[2]);
    let o = match find(Family::Memory, id) {
        Ok(o) => o,
        Err(e) => return e,
    };
    let reads_only = flags & SHM_RDONLY != 0;
    let wanted = if reads_only { READ } else { READ | WRITE };
    if !permits(o, wanted) || flags & SHM_EXEC != 0 {
        // (Code that is changed from elsewhere cannot be patched.)
        return -EACCES;
    }
    let len = (o.size as usize).next_multiple_of(PAGE);
    let remap = flags & SHM_REMAP != 0;
    let at = match addr % PAGE {
        0 => addr,
        _ if flags & SHM_RND == 0 => return -EINVAL,
        rest => addr - rest,
    };
    if at == 0 && (remap || addr != 0) {
        return -EINVAL;
    }
    let place = match at {
        0 => 0,
        _ if remap => MAP_FIXED,
        _ => space::MAP_FIXED_NOREPLACE,
    };
    let at = match space::calls::place(at, len, place) {
        Ok(at) => at,
        Err(EEXIST) => return -EINVAL,
        Err(e) => return -e,
    };
    let Some(free) = room().attachments.iter_mut().find(|a| a.process == 0) else {
        return -ENOMEM;
    };
    let r = map(o, at, len, reads_only);
    if failed(r) {
        return r;
    }
    let new = Attachment {
        process: process(),
        segment: index_of(Family::Memory, o) as u32,
        at: at as u64,
        len: len as u64,
    };
    change(free, new);
    touch(o, ATIME);
    event::non_deterministic(l);
    at as isize
}

fn touch(o: &mut Object, time: usize) {
    let mut new = *o;
    new.times[time] = seconds();
    new.pids[LAST] = pid();
    change(o, new);
}

fn map(o: &Object, at: usize, len: usize, reads_only: bool) -> isize {
    const O_CLOEXEC: usize = 0o2000000;
    let dir = engine().high_fd(high_fd::IMAGES);
    let name = file_name(o.number);
    let mode = if reads_only { 0 } else { 2 };
    let fd = sys!(OPENAT, dir, name.as_bytes().as_ptr(), mode | O_CLOEXEC);
    if failed(fd) {
        return fd;
    }
    let fd = reserved::move_high(fd, high_fd::SCRATCH);
    let r = map_file(o, fd, at, len, reads_only);
    sys!(CLOSE, fd);
    r
}

fn map_file(o: &Object, fd: i32, at: usize, len: usize, reads_only: bool) -> isize {
    let st = match Stat::of_fd(fd) {
        Ok(st) if (st.dev, st.ino) == (o.dev, o.ino) => st,
        _ => return -EIDRM,
    };
    let mut path = [0u8; 512];
    let n = program::fd_path(fd, &mut path);
    let Some(file) = descriptor::new_file(Kind::Regular) else {
        return -ENOMEM;
    };
    let f = descriptor::open_file(file);
    f.flags = if reads_only { 0 } else { 2 };
    f.mode = st.mode;
    (f.dev, f.ino) = (st.dev, st.ino);
    descriptor::set_path(f, &path[..n]);
    let area = Vma {
        start: at as u64,
        end: (at + len) as u64,
        prot: if reads_only {
            PROT_READ
        } else {
            PROT_READ | PROT_WRITE
        },
        flags: MAP_SHARED,
        file,
        tracked: 0,
        advice: crate::space::advice::Advice::NONE,
        offset: 0,
    };
    crate::object::memfd::before_unmap(at, at + len);
    let prot = space::shared::real_prot(&area);
    let r = sys!(MMAP, at, len, prot, MAP_SHARED | MAP_FIXED, fd, 0);
    if failed(r) {
        descriptor::release(file);
        return r;
    }
    space::insert(area);
    r
}

pub fn detach(l: &mut Local, a: [usize; 6]) -> isize {
    let own = process();
    let at = a[0] as u64;
    let Some(found) = attachments().find(|a| a.process == own && a.at == at) else {
        return -EINVAL;
    };
    let (segment, from, end) = (found.segment as usize, found.at, found.at + found.len);
    unmap(segment, from, end);
    gone(found);
    event::non_deterministic(l);
    0
}

/// What is still of the segment there.
fn unmap(segment: usize, from: u64, end: u64) {
    let o = &room().objects[Family::Memory as usize][segment];
    let mut at = from;
    while let Some(&v) = space::areas().get(space::first_above(at)) {
        if v.start >= end {
            break;
        }
        at = v.end;
        let is_of_it = v.file != 0 && {
            let f = descriptor::open_file(v.file);
            (f.dev, f.ino) == (o.dev, o.ino)
        };
        if is_of_it {
            let (a, b) = (v.start.max(from), v.end.min(end));
            space::calls::munmap([a as usize, (b - a) as usize, 0, 0, 0, 0]);
        }
    }
}

fn gone(a: &mut Attachment) {
    let segment = a.segment as usize;
    let mut none = *a;
    none.process = 0;
    change(a, none);
    let o = &mut room().objects[Family::Memory as usize][segment];
    touch(o, DTIME);
    go_if_unused(o);
}

fn go_if_unused(o: &mut Object) {
    if o.mode & DEST != 0 && attached(index_of(Family::Memory, o)) == 0 {
        let mut new = *o;
        new.used = GOES;
        new.free_from = engine().store.published() + 1;
        change(o, new);
    }
}

/// After munmap(2): what lay there entirely is attached no more.
pub fn unmapped(from: usize, to: usize) {
    if !room::any() {
        return;
    }
    let own = process();
    let (from, to) = (from as u64, to as u64);
    for a in attachments().filter(|a| a.process == own && from <= a.at && a.at + a.len <= to) {
        gone(a);
    }
}

pub fn forked(child: u32) {
    let own = process();
    for i in 0..ATTACHMENTS {
        let a = room().attachments[i];
        if a.process != own {
            continue;
        }
        let Some(free) = room().attachments.iter_mut().find(|a| a.process == 0) else {
            crate::say!(
                "more than {ATTACHMENTS} System V segments are attached: nattch is too small"
            );
            return;
        };
        change(
            free,
            Attachment {
                process: child,
                ..a
            },
        );
    }
}

pub fn leave(of: u32) {
    for a in attachments().filter(|a| a.process == of) {
        gone(a);
    }
}

pub fn control(l: &mut Local, a: [usize; 6]) -> isize {
    let (command, at) = (a[1], a[2]);
    event::non_deterministic(l);
    match info::asks(Family::Memory, command) {
        Some(Asks::Place { checked }) => {
            return match info::at_place(Family::Memory, a[0], checked) {
                Ok((id, o)) => given(give_status(o, at, &status(o)), id),
                Err(e) => e,
            };
        }
        Some(asks) => return info::answer(Family::Memory, asks, at),
        None => {}
    }
    if !matches!(
        command,
        IPC_RMID | IPC_SET | IPC_STAT | SHM_LOCK | SHM_UNLOCK
    ) {
        return -EINVAL;
    }
    let o = match find(Family::Memory, a[0]) {
        Ok(o) => o,
        Err(e) => return e,
    };
    match command {
        IPC_STAT if !permits(o, READ) => -EACCES,
        IPC_STAT => give_status(o, at, &status(o)),
        _ if !owns(o) => -EPERM,
        IPC_SET => set_permission(o, at),
        IPC_RMID => {
            let mut new = *o;
            new.mode |= DEST;
            new.key = IPC_PRIVATE;
            change(o, new);
            go_if_unused(o);
            0
        }
        _ => {
            // Where memory lies is not told; that it was asked for is.
            let mut new = *o;
            new.mode = match command {
                SHM_LOCK => o.mode | LOCKED,
                _ => o.mode & !LOCKED,
            };
            change(o, new);
            0
        }
    }
}

/// `struct shmid64_ds` behind its first part.
fn status(o: &Object) -> [u64; 8] {
    let pids = o.pids[CREATOR] as u32 as u64 | (o.pids[LAST] as u32 as u64) << 32;
    let n = attached(index_of(Family::Memory, o)) as u64;
    let t = o.times;
    [o.size, t[ATIME], t[DTIME], t[CTIME], pids, n, 0, 0]
}
