//! memfd: memory with a descriptor, and no name by which it could be found again.
//!
//! state:     one [`MemoryObject`] for each, whatever descriptions and mappings of it
//!            there are; its pages, in the page store
//! intercept: memfd_create; writes, sizes and seals; mappings of it
//! save:      the pages that were written since the last commit
//! restore:   the object that a descriptor still holds is filled as it was; one that
//!            nothing holds any more is made anew, under its old numbers
//! survives:  warm and cold
//!
//! The page store knows pages by their addresses. So each object is mapped a second
//! time, privately and only to be read, in a window of the runtime, and is known by
//! its addresses there. A store through a mapping of the program is found by write
//! tracking, as in private memory; a write through a descriptor is noted by its call.
//!
//! ```text
//! program   mapping 1        mapping 2      write(fd)
//!               `---- scan -----'-------------' noted
//!                        |
//! window    base + offset: the address in the page store, and what is copied
//! ```
//!
//! It is not to be executed through a shared mapping, as with the kernel's own
//! vm.memfd_noexec: a compiler that writes code through one mapping and runs it
//! through another (asmjit's, in Erlang) would have it in memory that is no
//! state. Told so, it compiles into private memory.
//!
//! What another process writes into such memory is not seen here, and not rolled back.
#![allow(unsafe_code)]

mod restore;
mod stage;

pub use restore::{for_mapping, is_other, remake, restore, settle};
pub use stage::{stage, stage_changed};

use super::descriptor::*;
use super::limits;
use super::stat::Stat;
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::space::{self, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ};
use crate::state::{Kind, OpenFile, Vma};
use crate::{fatal, sys, uffd};
use dc_image::FatalCode;
use dc_image::boot::high_fd;
use dc_image::window::{MEMORY_BASE, MEMORY_END, PAGE};

pub const MAX_OBJECTS: usize = 512;
const MFD_CLOEXEC: usize = 1;
const MFD_ALLOW_SEALING: usize = 2;
const MFD_HUGETLB: usize = 4;
const EFBIG: isize = 27;
/// What the window gives out at the least.
const UNIT: u64 = 256 << 20;
/// `OpenFile::words`: index of the object + 1. (The first four are `regular`'s.)
const OBJECT: usize = 8;
/// Ranges written since the last commit that are told apart.
const MAX_RANGES: usize = 128;

/// Memory behind descriptors and mappings.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct MemoryObject {
    /// Open files that mean it; 0 is free.
    pub used: u32,
    /// F_GET_SEALS.
    pub seals: u32,
    /// Flags of memfd_create.
    pub flags: u32,
    pub name_len: u32,
    pub dev: u64,
    pub ino: u64,
    /// Its part of the window.
    pub base: u64,
    pub room: u64,
    /// Bytes in it, as fstat tells.
    pub size: u64,
    /// Nonzero: a descriptor of it was sent by a message.
    pub sent: u64,
    /// Ended by NUL.
    pub name: [u8; 256],
}

/// What was written since the last commit, and found by no scan: addresses of the
/// window.
#[repr(C)]
pub struct Changed {
    /// There is such memory.
    any: bool,
    len: usize,
    /// At recovery: the highest object whose holder is open.
    holders: i32,
    ranges: [(usize, usize); MAX_RANGES],
}

impl Changed {
    pub const fn new() -> Changed {
        Changed {
            any: false,
            ranges: [(0, 0); MAX_RANGES],
            len: 0,
            holders: 0,
        }
    }

    fn note(&mut self, from: usize, to: usize) {
        let (from, to) = (from & !(PAGE - 1), to.next_multiple_of(PAGE));
        let near = |r: &&mut (usize, usize)| r.0 <= to && from <= r.1;
        if let Some(r) = self.ranges[..self.len].iter_mut().find(near) {
            *r = (r.0.min(from), r.1.max(to));
            return;
        }
        if self.len == MAX_RANGES {
            // One range over the two that are nearest; what lies between is copied too.
            let by = |r: &(usize, usize)| if r.1 < from { from - r.1 } else { r.0 - to };
            let nearest = (0..self.len).min_by_key(|&i| by(&self.ranges[i]));
            let r = &mut self.ranges[nearest.unwrap_or(0)];
            *r = (r.0.min(from), r.1.max(to));
            return;
        }
        self.ranges[self.len] = (from, to);
        self.len += 1;
    }
}

/// A process that was not committed before: all of such memory is new to its image. (What
/// another process writes into it is not found here, which is said.)
pub fn all_changed() {
    for object in state().memory_objects.iter().filter(|o| o.used != 0) {
        let e = engine();
        e.memory
            .note(object.base as usize, (object.base + object.size) as usize);
        crate::say!(
            "a memfd that several processes have comes back as the one that recovers last has left it"
        );
    }
}

/// Whether a description is one.
pub fn is(file: u32) -> bool {
    open_file(file).kind == Kind::MemFd
}

fn object_of(file: u32) -> Option<&'static mut MemoryObject> {
    let f = open_file(file);
    if f.kind != Kind::MemFd {
        return None;
    }
    state()
        .memory_objects
        .get_mut((f.words[OBJECT] as usize).checked_sub(1)?)
}

fn object_of_fd(fd: i32) -> Option<&'static mut MemoryObject> {
    object_of(file_of(fd)?)
}

/// memfd_create(2).
pub fn create(_l: &mut Local, a: [usize; 6]) -> isize {
    let mut name = [0u8; 256];
    if a[1] & MFD_HUGETLB != 0 {
        // Its pages would come from a pool that a recovery may find empty.
        return -EINVAL;
    }
    let name_len = match user::read_cstr(a[0], &mut name) {
        Ok(n) => n,
        Err(r) if r == -EFAULT => return r,
        Err(_) => return -EINVAL,
    };
    let Some(i) = state().memory_objects.iter().position(|o| o.used == 0) else {
        return -EMFILE;
    };
    let Some(base) = find_window(UNIT) else {
        return -ENOMEM;
    };
    if !has_numbers(1) {
        return -EMFILE;
    }
    let r = sys!(MEMFD_CREATE, name.as_ptr(), a[1]);
    if failed(r) {
        return r;
    }
    let fd = r as i32;
    let (Ok(st), Some(file)) = (Stat::of_fd(fd), new_file(Kind::MemFd)) else {
        sys!(CLOSE, fd);
        return -EMFILE;
    };
    let object = &mut state().memory_objects[i];
    *object = MemoryObject {
        used: 0,
        seals: seals_of(fd),
        flags: a[1] as u32,
        name_len: name_len as u32,
        dev: st.dev,
        ino: st.ino,
        base,
        room: UNIT,
        size: 0,
        sent: 0,
        name,
    };
    if failed(map_window(object, fd)) {
        sys!(CLOSE, fd);
        release(file);
        return -ENOMEM;
    }
    attach(file, i, O_RDWR);
    engine().memory.any = true;
    enter(fd, file, a[1] & MFD_CLOEXEC != 0);
    r
}

/// A description of an object.
fn attach(file: u32, i: usize, flags: usize) {
    let object = &mut state().memory_objects[i];
    object.used += 1;
    let f = open_file(file);
    f.kind = Kind::MemFd;
    f.flags = flags as u32;
    f.words[OBJECT] = i as u64 + 1;
    (f.dev, f.ino) = (object.dev, object.ino);
    let mut path = fatal::Text::<300>::new();
    path.append(b"/memfd:");
    path.append(&object.name[..object.name_len as usize]);
    path.append(b" (deleted)");
    set_path(f, path.as_bytes());
}

/// A new description (of a name in /proc) may mean memory that is known.
pub fn adopt(file: u32, st: &Stat, flags: usize) -> bool {
    if !engine().memory.any {
        return false;
    }
    let known = |o: &MemoryObject| o.used != 0 && (o.dev, o.ino) == (st.dev, st.ino);
    match state().memory_objects.iter().position(known) {
        Some(i) => {
            attach(file, i, flags);
            true
        }
        None => false,
    }
}

/// The last descriptor and mapping of a description are gone.
pub fn closed(file: u32) {
    let Some(object) = object_of(file) else {
        return;
    };
    open_file(file).words[OBJECT] = 0;
    object.used -= 1;
    if object.used == 0 {
        let (from, to) = (object.base as usize, (object.base + object.room) as usize);
        sys!(MUNMAP, from, to - from);
        space::discard(from, to);
    }
}

/// Whether a description is one of this object.
pub fn is_of(file: u32, i: usize) -> bool {
    let f = open_file(file);
    f.kind == Kind::MemFd && f.words[OBJECT] as usize == i + 1
}

/// Another description of an object, to read from, if it has a descriptor.
pub fn opened_anew(i: usize) -> isize {
    let fd = (0..state().root.fd_high as i32)
        .find(|&fd| known_file(fd).is_some_and(|file| is_of(file, i)));
    match fd {
        Some(fd) => reopened(fd, O_CLOEXEC),
        None => -EBADF,
    }
}

/// The object is a file by now.
pub fn left(i: usize) {
    let o = &mut state().memory_objects[i];
    o.used = 0;
    let (from, to) = (o.base as usize, (o.base + o.room) as usize);
    sys!(MUNMAP, from, to - from);
    space::discard(from, to);
}

/// A descriptor of it goes to another process by a message.
pub fn sent(fd: i32) {
    if let Some(o) = object_of_fd(fd)
        && o.sent == 0
    {
        o.sent = 1;
    }
}

/// The lowest free part of the window, of so many bytes.
fn find_window(len: u64) -> Option<u64> {
    let used = || state().memory_objects.iter().filter(|o| o.used != 0);
    let mut at = MEMORY_BASE as u64;
    loop {
        let end = at.checked_add(len)?;
        if end > MEMORY_END as u64 {
            return None;
        }
        match used().find(|o| o.base < end && at < o.base + o.room) {
            Some(o) => at = o.base + o.room,
            None => return Some(at),
        }
    }
}

fn map_window(o: &MemoryObject, fd: i32) -> isize {
    let flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
    sys!(MMAP, o.base, o.room, PROT_READ, flags, fd, 0)
}

/// Sees to it that the window has room for so many bytes; an error number if it
/// cannot have.
fn make_room(o: &mut MemoryObject, fd: i32, size: u64) -> isize {
    if size <= o.room {
        return 0;
    }
    let grown = size.max(o.room * 2).checked_next_multiple_of(UNIT);
    let Some((base, room)) = grown.and_then(|room| Some((find_window(room)?, room))) else {
        crate::say!("a memfd of {size} bytes is refused: the runtime has no addresses for it");
        return -EFBIG;
    };
    let old = *o;
    (o.base, o.room) = (base, room);
    let r = map_window(o, fd);
    if failed(r) {
        *o = old;
        return r;
    }
    sys!(MUNMAP, old.base, old.room);
    space::discard(old.base as usize, (old.base + old.room) as usize);
    if old.size > 0 {
        let base = base as usize;
        engine().memory.note(base, base + old.size as usize);
    }
    0
}

/// Before bytes are written through a descriptor, or a file gets another size: an
/// error number if they could not be kept.
pub fn before_growth(fd: i32, at: Option<u64>, len: u64) -> isize {
    let Some(o) = object_of_fd(fd) else {
        return 0;
    };
    let at = at.unwrap_or_else(|| sys!(LSEEK, fd, 0, 1).max(0) as u64);
    make_room(o, fd, at.saturating_add(len).max(o.size))
}

/// Bytes were written through a descriptor.
pub fn written(fd: i32, at: Option<u64>, len: u64) {
    let Some(o) = object_of_fd(fd) else {
        return;
    };
    let end = match at {
        Some(at) => at + len,
        None => sys!(LSEEK, fd, 0, 1).max(0) as u64,
    };
    note_size(o, fd);
    let from = (o.base + end.saturating_sub(len)) as usize;
    engine().memory.note(from, (o.base + end) as usize);
}

fn note_size(o: &mut MemoryObject, fd: i32) {
    if let Ok(st) = Stat::of_fd(fd) {
        o.size = st.size;
    }
}

/// After ftruncate: what is behind the new end is gone, and the rest of its last
/// page is zeros.
pub fn resized(fd: i32) {
    let Some(o) = object_of_fd(fd) else {
        return;
    };
    let old = o.size;
    note_size(o, fd);
    if o.size < old {
        emptied(o, o.size, old);
    }
}

/// After fallocate of `len` bytes at `at`: with any mode but that of plain growth
/// they are zeros now.
pub fn allocated(fd: i32, mode: usize, at: u64, len: u64) {
    const KEEP_SIZE: usize = 1;
    let Some(o) = object_of_fd(fd) else {
        return;
    };
    note_size(o, fd);
    if mode & !KEEP_SIZE != 0 {
        emptied(o, at, at.saturating_add(len).min(o.room));
    }
}

fn emptied(o: &MemoryObject, from: u64, to: u64) {
    let (from, to) = ((o.base + from) as usize, (o.base + to) as usize);
    let (first, last) = (from.next_multiple_of(PAGE), to & !(PAGE - 1));
    if first < last {
        space::discard(first, last);
    }
    for edge in [from, to] {
        if !edge.is_multiple_of(PAGE) {
            engine().memory.note(edge, edge + 1);
        }
    }
}

/// After F_ADD_SEALS.
pub fn sealed(fd: i32) {
    if let Some(o) = object_of_fd(fd) {
        o.seals = seals_of(fd);
    }
}

fn seals_of(fd: i32) -> u32 {
    const F_GET_SEALS: usize = 1034;
    sys!(FCNTL, fd, F_GET_SEALS, 0).max(0) as u32
}

/// Whether stores into an area are stores into such memory.
pub fn is_mapped(v: &Vma) -> bool {
    engine().memory.any && v.file != 0 && v.flags & 3 != MAP_PRIVATE && is(v.file)
}

/// Before the mappings of a range go, or forget what was written to them.
pub fn before_unmap(from: usize, to: usize) {
    if !engine().memory.any {
        return;
    }
    let mut i = space::first_above(from as u64);
    while let Some(&v) = space::areas().get(i) {
        let (mut at, end) = (from.max(v.start as usize), to.min(v.end as usize));
        if at >= end {
            break;
        }
        i += 1;
        while is_mapped(&v) && v.tracked != 0 && at < end {
            let e = engine();
            let Ok((n, walked)) = uffd::scan(at, end, e.taken) else {
                // Then all of it counts as written.
                note_mapped(&v, at, end);
                break;
            };
            for k in 0..n {
                // SAFETY: the kernel filled the first n entries.
                let r = unsafe { *e.taken.add(k) };
                note_mapped(&v, r.start as usize, r.end as usize);
            }
            if walked <= at {
                break;
            }
            at = walked;
        }
    }
}

fn note_mapped(v: &Vma, from: usize, to: usize) {
    if let (Some(from), Some(to)) = (in_window(v, from), in_window(v, to - PAGE)) {
        engine().memory.note(from, to + PAGE);
    }
}

/// madvise(MADV_REMOVE) has emptied part of an area.
pub fn removed(from: usize, to: usize) {
    let mut i = space::first_above(from as u64);
    while let Some(v) = space::areas().get(i) {
        let (a, b) = (from.max(v.start as usize), to.min(v.end as usize));
        if a >= b {
            break;
        }
        if is_mapped(v)
            && let (Some(a), Some(b)) = (in_window(v, a), in_window(v, b - PAGE))
        {
            space::discard(a, b + PAGE);
        }
        i += 1;
    }
}

/// Where a page of a mapping lies in the window.
fn in_window(v: &Vma, page: usize) -> Option<usize> {
    let o = object_of(v.file)?;
    let offset = v.offset + (page as u64 - v.start);
    (offset < o.room).then_some((o.base + offset) as usize)
}

/// The address by which the page store knows a page, if it is of such memory.
#[inline(always)]
pub fn known_as(page: usize) -> Option<usize> {
    match engine().memory.any {
        true => known_as_other(page),
        false => None,
    }
}

#[cold]
fn known_as_other(page: usize) -> Option<usize> {
    let v = space::find(page as u64)?;
    if is_mapped(v) {
        in_window(v, page)
    } else {
        None
    }
}

/// A description of its own of an open file.
fn reopened(fd: i32, flags: usize) -> isize {
    let mut name = fatal::Text::<40>::new();
    let _ = core::fmt::Write::write_fmt(&mut name, format_args!("/proc/self/fd/{fd}\0"));
    crate::proc::open(name.as_bytes(), flags)
}
