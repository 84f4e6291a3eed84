//! Memory: every area at its address, every committed page in it.

use super::fill::Fill;
use crate::engine::{engine, state};
use crate::machine::sys::failed;
use crate::object::descriptor::O_RDWR;
use crate::object::stat::Stat;
use crate::object::{descriptor, lock, memfd, regular, undo};
use crate::space::{
    self, MAP_ANONYMOUS, MAP_FIXED, MAP_GROWSDOWN, MAP_POPULATE, PROT_WRITE, shared,
};
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
        let file = space::areas()[i].file;
        let is_first = space::areas()[..i].iter().all(|v| v.file != file);
        map(&mut space::areas()[i], is_first, &mut last);
        let v = space::areas()[i];
        fill.area(&v);
        if v.tracked != 0 && !uffd::track(v.start as usize, v.end as usize) {
            cannot(&v, 0);
        }
    }
    last.close();
    memfd::settle();
    e.stubs.restore();
    // All of it is as committed: nothing is dirty.
    let mut at = window::USER_MIN;
    while at < window::USER_END {
        match uffd::scan(at, window::USER_END, e.regions) {
            Ok((_, walked)) if walked > at => at = walked,
            _ => break,
        }
    }
    if let Err((v, r)) = space::advice::give() {
        cannot(&v, r);
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

/// Maps an area; the first one of a file gets what the program has locked of that.
fn map(v: &mut Vma, is_first: bool, last: &mut LastFile) {
    let len = v.end - v.start;
    let flags = (v.flags & !(MAP_POPULATE | MAP_GROWSDOWN)) | MAP_FIXED;
    if v.file == 0 {
        let flags = flags | MAP_ANONYMOUS;
        let mut r = sys!(MMAP, v.start, len, v.prot, flags, -1isize, 0);
        if flags & space::MAP_HUGETLB != 0 {
            engine().huge = true;
            if failed(r) {
                r = space::huge::replace(v, flags);
            }
        }
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
        if is_first && !last.is_its_own {
            lock::restore_mapped(v.file, last.fd as i32);
        }
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
    if memfd::is(v.file) {
        return (memfd::for_mapping(v.file), false);
    }
    let f = descriptor::open_file(v.file);
    // What may become writable needs the right to it from the beginning.
    let shared_write = !private && f.flags as usize & descriptor::O_ACCMODE == O_RDWR;
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
    let mut fd = undo::nameless::open_named(f, if shared_write { O_RDWR } else { 0 });
    if failed(fd) && v.prot & PROT_WRITE == 0 {
        // The program has given up the right with which it opened the file.
        fd = undo::nameless::open_named(f, 0);
    }
    let must_be_unchanged = private && !own_work(v);
    let is_it = |fd: i32| match must_be_unchanged {
        true => regular::unchanged(v.file, fd),
        // What stands under its name must never be mistaken for it.
        false => Stat::of_fd(fd).is_ok_and(|st| (st.dev, st.ino) == (f.dev, f.ino)),
    };
    if !failed(fd) {
        if is_it(fd as i32) {
            return fd;
        }
        sys!(CLOSE, fd);
    }
    // Perhaps a descriptor of it is still open.
    match descriptor::any_fd(v.file) {
        Some(open) if is_it(open) => sys!(DUP, open),
        _ if failed(fd) || !private => gone(v, if failed(fd) { fd } else { 0 }),
        _ => changed(v),
    }
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

fn path_of(v: &Vma) -> &'static str {
    let f = descriptor::open_file(v.file);
    core::str::from_utf8(&f.path[..f.path_len as usize]).unwrap_or("?")
}

/// What was mapped is not there any more.
fn gone(v: &Vma, r: isize) -> ! {
    let path = path_of(v);
    let why = match r {
        0 => "another file stands under its name",
        _ => "it cannot be opened",
    };
    fatal::stop(
        FatalCode::FileChanged,
        r,
        format_args!(
            "restore memory {:#x}-{:#x}: it was mapped from {path}: {why} (error {}); put the old \
             file back, or begin anew with --fresh",
            v.start, v.end, -r
        ),
    )
}

fn changed(v: &Vma) -> ! {
    let path = path_of(v);
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
