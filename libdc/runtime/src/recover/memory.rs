//! Memory: every area at its address, every committed page in it.

use super::fill::Fill;
use crate::engine::{engine, state};
use crate::machine::sys::failed;
use crate::object::{descriptor, lock, regular};
use crate::space::{self, APART, MAP_ANONYMOUS, MAP_FIXED, MAP_POPULATE, PROT_WRITE, shared};
use crate::state::Vma;
use crate::{fatal, sys, uffd};
use dc_image::FatalCode;
use dc_image::window;

pub fn restore() {
    let e = engine();
    let mut fill = Fill::new();
    let mut last = LastFile {
        file: 0,
        fd: -1,
        is_its_own: false,
    };
    for i in 0..state().root.vma_count as usize {
        let v = space::areas()[i];
        map(&v, &mut last);
        fill.area(&v);
        if v.tracked != 0 && !uffd::track(v.start as usize, v.end as usize) {
            cannot(&v, 0);
        }
    }
    last.close();
    e.stubs.restore();
    // All of it is as committed: nothing is dirty.
    let mut at = window::USER_MIN;
    while at < window::USER_END {
        match uffd::scan(at, window::USER_END, e.regions) {
            Ok((_, walked)) if walked > at => at = walked,
            _ => break,
        }
    }
}

/// The file that was mapped last: its segments follow one another.
struct LastFile {
    /// As [`Vma::file`]; 0 is none.
    file: u32,
    fd: isize,
    /// It is a descriptor of the program, which must not be closed here.
    is_its_own: bool,
}

impl LastFile {
    fn close(&mut self) {
        if self.file != 0 && !self.is_its_own {
            sys!(CLOSE, self.fd);
        }
        self.file = 0;
    }
}

fn map(v: &Vma, last: &mut LastFile) {
    let len = v.end - v.start;
    let flags = (v.flags & !(MAP_POPULATE | APART)) | MAP_FIXED;
    if v.file == 0 {
        let r = sys!(
            MMAP,
            v.start,
            len,
            v.prot,
            flags | MAP_ANONYMOUS,
            -1isize,
            0
        );
        if failed(r) {
            cannot(v, r);
        }
        return;
    }
    let private = v.flags & 3 == space::MAP_PRIVATE;
    if !private || last.file != v.file {
        last.close();
        (last.fd, last.is_its_own) = open(v, private);
        last.file = v.file;
    }
    let flags = flags & !MAP_ANONYMOUS;
    let prot = shared::real_prot(v);
    let r = sys!(MMAP, v.start, len, prot, flags, last.fd, v.offset);
    if failed(r) {
        cannot(v, r);
    }
    if !private {
        last.close();
    }
}

/// A descriptor of the file of an area, and whether it is one of the program's own: to
/// open the file and close it again would give away what the program has locked of it.
fn open(v: &Vma, private: bool) -> (isize, bool) {
    let f = descriptor::open_file(v.file);
    let shared_write = !private && v.prot & PROT_WRITE != 0;
    if lock::holds_posix(f.dev, f.ino)
        && let Some(fd) = open_already(v, shared_write)
    {
        return (fd as isize, true);
    }
    (open_anew(v, private, shared_write), false)
}

fn open_already(v: &Vma, writes: bool) -> Option<i32> {
    let of = descriptor::open_file(v.file);
    (0..state().root.fd_high as i32).find(|&fd| {
        descriptor::known_file(fd).is_some_and(|file| {
            let f = descriptor::open_file(file);
            let mode = f.flags as usize & descriptor::O_ACCMODE;
            (f.dev, f.ino) == (of.dev, of.ino) && (mode == 2 || (mode == 0 && !writes))
        })
    })
}

fn open_anew(v: &Vma, private: bool, shared_write: bool) -> isize {
    let f = descriptor::open_file(v.file);
    let fd = sys!(OPEN, f.path.as_ptr(), if shared_write { 2 } else { 0 });
    let must_be_same = private && !own_work(v);
    if failed(fd) || (must_be_same && !regular::unchanged(v.file, fd as i32)) {
        // Perhaps a descriptor of it is still open.
        if !failed(fd) {
            sys!(CLOSE, fd);
        }
        return match descriptor::any_fd(v.file) {
            Some(open) if regular::unchanged(v.file, open) => sys!(DUP, open),
            _ => changed(v),
        };
    }
    fd
}

/// Whether the program itself writes this file: then that it changed says
/// nothing, and its rollback has brought it back.
fn own_work(v: &Vma) -> bool {
    let f = descriptor::open_file(v.file);
    let same = |file: u32| {
        let o = descriptor::open_file(file);
        (o.dev, o.ino) == (f.dev, f.ino)
    };
    let opened = (0..state().root.fd_high as i32)
        .filter_map(descriptor::known_file)
        .any(|file| {
            same(file) && descriptor::open_file(file).flags as usize & descriptor::O_ACCMODE != 0
        });
    opened
        || space::areas().iter().any(|o| {
            o.file != 0
                && o.flags & 3 != space::MAP_PRIVATE
                && o.prot & PROT_WRITE != 0
                && same(o.file)
        })
}

fn changed(v: &Vma) -> ! {
    let f = descriptor::open_file(v.file);
    let path = core::str::from_utf8(&f.path[..f.path_len as usize]).unwrap_or("?");
    fatal::stop(
        FatalCode::FileChanged,
        0,
        format_args!(
            "restore memory: {path} changed since the last commit, and parts of it are not in memory; \
             put the old file back, or begin anew with --fresh"
        ),
    )
}

fn cannot(v: &Vma, r: isize) -> ! {
    fatal::stop(
        FatalCode::CannotRestore,
        r,
        format_args!("restore memory {:#x}-{:#x}: error {}", v.start, v.end, -r),
    )
}
