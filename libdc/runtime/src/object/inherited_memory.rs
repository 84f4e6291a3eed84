//! A memfd that a child inherits.
//!
//! The pages of a memfd are in the page store of one process; what another one writes into
//! them is found by nobody. So before a fork the memory becomes a file beside the image, as
//! anonymous shared memory does: its descriptors and mappings are replaced, under their
//! numbers and addresses, and from then on it is kept as mapped files are
//! ([`crate::space::shared`]).
//!
//! What is sealed against writing stays what it is: each process has the same bytes of it.
//! Seals cannot be added to such a file (EPERM, as with F_SEAL_SEAL). What was sent to
//! somebody else by a message stays a memfd as well, because he would not get the file; that
//! is said when another process of the run could write it.

use super::descriptor::*;
use super::stat::Stat;
use super::{limits, memfd};
use crate::engine::{engine, state};
use crate::machine::sys::{errno::*, failed};
use crate::run::{image, run};
use crate::space::{self, MAP_FIXED, MAP_PRIVATE};
use crate::state::Kind;
use crate::{fatal, reserved, sys};
use core::fmt::Write;
use core::sync::atomic::Ordering::Relaxed;
use dc_image::boot::high_fd;

const F_SEAL_WRITE: u32 = 8;

/// Before a fork, while the other threads are stopped: every memfd that a child could write.
pub fn become_files() -> Result<(), isize> {
    for i in 0..memfd::MAX_OBJECTS {
        let o = &state().memory_objects[i];
        if o.used != 0 && o.seals & F_SEAL_WRITE == 0 && o.sent == 0 {
            become_file(i)?;
        }
    }
    Ok(())
}

fn become_file(i: usize) -> Result<(), isize> {
    const O_RDWR_CREAT_EXCL_CLOEXEC: usize = 0o2000302;
    let number = run().shared_memory.fetch_add(1, Relaxed);
    let name = image::name(format_args!("shared-{number}"));
    let dir = engine().high_fd(high_fd::IMAGES);
    let path = name.as_bytes().as_ptr();
    let made = sys!(OPENAT, dir, path, O_RDWR_CREAT_EXCL_CLOEXEC, 0o600);
    if failed(made) {
        return Err(made);
    }
    let fd = reserved::move_high(made, high_fd::SCRATCH);
    let r = copy(i, fd);
    let done = match Stat::of_fd(fd) {
        _ if failed(r) => Err(r),
        Err(e) => Err(e),
        Ok(st) => {
            let mut path = [0u8; 512];
            let n = super::process::fd_path(fd, &mut path);
            replace(i, fd, &st, &path[..n]);
            Ok(())
        }
    };
    sys!(CLOSE, fd);
    done
}

/// The bytes of an object, but for its holes, into a file.
fn copy(i: usize, to: i32) -> isize {
    const SEEK_DATA: usize = 3;
    const SEEK_HOLE: usize = 4;
    let size = state().memory_objects[i].size;
    let r = limits::lifted(limits::RLIMIT_FSIZE, || sys!(FTRUNCATE, to, size));
    if failed(r) {
        return r;
    }
    let from = match memfd::opened_anew(i) {
        r if failed(r) => return copy_mapped(i, to),
        r => reserved::move_high(r, high_fd::OBJECT),
    };
    let mut at = 0u64;
    let mut r = 0;
    while at < size {
        r = sys!(LSEEK, from, at, SEEK_DATA);
        if failed(r) {
            r = if r == -ENXIO { 0 } else { r };
            break;
        }
        at = r as u64;
        let end = sys!(LSEEK, from, at, SEEK_HOLE).max(0) as u64;
        sys!(LSEEK, to, at, 0);
        r = sys!(SENDFILE, to, from, &raw mut at, end.saturating_sub(at));
        if r <= 0 {
            r = if r == 0 { -EIO } else { r };
            break;
        }
        super::input::count_read(r);
        fatal::count_written(r as usize);
        r = 0;
    }
    sys!(CLOSE, from);
    r
}

/// The same of an object that is only mapped.
fn copy_mapped(i: usize, to: i32) -> isize {
    let o = &state().memory_objects[i];
    let mut done = 0;
    while done < o.size {
        let r = sys!(PWRITE64, to, o.base + done, o.size - done, done);
        if r <= 0 {
            return if r == 0 { -EIO } else { r };
        }
        fatal::count_written(r as usize);
        done += r as u64;
    }
    0
}

/// The file takes the place of the object, wherever this process has it.
fn replace(i: usize, fd: i32, st: &Stat, path: &[u8]) {
    for file in 1..=state().root.file_high {
        if state().file_refs[file as usize - 1] != 0 && memfd::is_of(file, i) {
            replace_descriptors(file, fd);
            let f = open_file(file);
            f.kind = Kind::Regular;
            f.mode = st.mode;
            (f.dev, f.ino) = (st.dev, st.ino);
            f.words = [0; 16];
            set_path(f, path);
        }
    }
    for k in 0..space::areas().len() {
        let mut area = space::areas()[k];
        if area.file == 0 || area.flags & 3 == MAP_PRIVATE {
            continue;
        }
        let f = open_file(area.file);
        if (f.dev, f.ino) == (st.dev, st.ino) {
            let (from, len) = (area.start as usize, (area.end - area.start) as usize);
            engine().pieces.wake(from, from + len);
            area.tracked = 0;
            let flags = (area.flags | MAP_FIXED) as usize;
            let prot = space::shared::real_prot(&area);
            let r = sys!(MMAP, from, len, prot, flags, fd, area.offset);
            if failed(r) {
                cannot("map", r);
            }
            hold(area.file);
            space::insert(area);
        }
    }
    memfd::left(i);
}

fn cannot(what: &str, r: isize) -> ! {
    fatal::stop(
        dc_image::FatalCode::Internal,
        r,
        format_args!(
            "fork: {what} the file that a memfd has become: error {}",
            -r
        ),
    )
}

/// A description of the file, with flags and offset of the old one, under all its numbers.
fn replace_descriptors(file: u32, fd: i32) {
    const F_GETFL: usize = 3;
    const STAY: usize = O_ACCMODE | O_APPEND | O_NONBLOCK;
    let Some(old) = any_fd(file) else { return };
    let flags = sys!(FCNTL, old, F_GETFL, 0).max(0) as usize & STAY;
    let mut name = fatal::Text::<40>::new();
    let _ = write!(name, "/proc/self/fd/{fd}\0");
    let new = crate::proc::open(name.as_bytes(), flags | O_CLOEXEC);
    if failed(new) {
        cannot("open", new);
    }
    let new = reserved::move_high(new, high_fd::OBJECT);
    let at = sys!(LSEEK, old, 0, 1);
    sys!(LSEEK, new, at, 0);
    for number in 0..state().root.fd_high as i32 {
        let d = state().fds[number as usize];
        if d.file as u32 == file {
            let cloexec = if d.cloexec != 0 { O_CLOEXEC } else { 0 };
            sys!(DUP3, new, number, cloexec);
        }
    }
    sys!(CLOSE, new);
}
