//! Where a process that is not the first has its pages, and what it needs to be
//! committed at all.
//!
//! A child is born without any of it: its memory is not tracked, it has no image and no
//! companion. Most children exec or end before anybody commits. The first commit that
//! has to have a process in it gives it all that: an image of its own, whose table and
//! frames are mapped where the first process has its own, tracking of all its memory,
//! and a copy of every page that is its own and not a file's.
#![allow(unsafe_code)]

use super::{handed, me, run};
use crate::engine::{Supplier, engine};
use crate::fatal::{self, Text};
use crate::machine::sys::{errno::*, failed};
use crate::machine::{entry, futex};
use crate::object::{limits, memfd};
use crate::space;
use crate::uffd::{self, PAGE_IS_PFNZERO};
use crate::{commit, sys};
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, Ordering::*};
use dc_image::FatalCode;
use dc_image::boot::high_fd;
use dc_image::header;
use dc_image::window::*;
use vista_core::pages::{Full, PageStore, Place};

const PROT_RW: usize = 3;
const MAP_SHARED: usize = 1;
const MAP_FIXED: usize = 0x10;
const MAP_NORESERVE: usize = 0x4000;
const O_RDWR: usize = 2;
const O_CREAT: usize = 0o100;
const O_TRUNC: usize = 0o1000;
const O_NOFOLLOW: usize = 0o400000;
const O_CLOEXEC: usize = 0o2000000;

/// The name of a file that belongs to the run's image: that of the image with a suffix.
pub fn name(suffix: core::fmt::Arguments) -> Text<320> {
    let mut text = Text::<320>::new();
    let own = &run().image_name;
    let len = own.iter().position(|&b| b == 0).unwrap_or(own.len());
    text.append(&own[..len]);
    let _ = write!(text, ".{suffix}\0");
    text
}

/// Makes this process one that commits and comes back: gives it an image, and stages
/// all of it. All its other threads are stopped.
pub fn begin(copied: &mut u64) -> Result<(), Full> {
    let e = engine();
    // None of its pages is hot any more, and what sleeps beside hot ones is looked at by no scan.
    e.pieces.wake(0, USER_END);
    open_new();
    e.tracking = true;
    start_companion();
    me().frame_limit.store(0, Relaxed);
    open_store()?;
    me().has_image.store(1, SeqCst);
    if !uffd::track(STATE_BASE, STATE_BASE + STATE_LEN) {
        cannot("track its memory (UFFDIO_REGISTER)", 0);
    }
    copy_own(STATE_BASE, STATE_BASE + STATE_LEN, copied)?;
    for i in 0..space::areas().len() {
        let v = space::areas()[i];
        if v.tracked == 0 {
            continue;
        }
        let (from, to) = (v.start as usize, v.end as usize);
        if !uffd::track(from, to) {
            cannot("track its memory (UFFDIO_REGISTER)", 0);
        }
        copy_own(from, to, copied)?;
    }
    e.pieces.stale = true;
    e.extra_len = 0;
    memfd::all_changed();
    *copied += memfd::stage_changed()?;
    Ok(())
}

/// Protects a range, and stages the pages of it that are this process's own.
fn copy_own(from: usize, to: usize, copied: &mut u64) -> Result<(), Full> {
    let e = engine();
    let mut at = from;
    while at < to {
        match uffd::scan(at, to, e.taken) {
            Ok((_, walked)) if walked > at => at = walked,
            _ => break,
        }
    }
    let mut at = from;
    while at < to {
        let (n, walked) = match uffd::own(at, to, e.regions) {
            Ok(found) => found,
            Err(r) => cannot("find its pages (PAGEMAP_SCAN)", r),
        };
        for i in 0..n {
            // SAFETY: the kernel filled the first n entries.
            let region = unsafe { *e.regions.add(i) };
            if region.categories & PAGE_IS_PFNZERO != 0 {
                continue;
            }
            for page in (region.start as usize..region.end as usize).step_by(PAGE) {
                commit::stage_page(page)?;
                *copied += 1;
            }
        }
        if walked <= at {
            break;
        }
        at = walked;
    }
    Ok(())
}

/// Makes the image of this process, and opens what finds its pages and counts what it does.
/// Where it may not, the keeper does.
fn open_new() {
    let e = engine();
    let fd = open_image(O_CREAT | O_TRUNC);
    let may = fd != -EACCES && fd != -EPERM;
    if may && failed(fd) {
        cannot("open its image", fd);
    }
    let by_itself = may.then(|| {
        e.image_fd = crate::reserved::move_high(fd, high_fd::OWN_IMAGE);
        keep_counters();
        uffd::open()
    });
    let tracked = match by_itself {
        Some(Ok(())) => Ok(()),
        // (It may have no /proc: chroot(2).)
        _ => open_handed(),
    };
    if let Err(r) = tracked {
        cannot("track its memory (userfaultfd, pagemap)", r);
    }
    let r = limits::lifted(limits::RLIMIT_FSIZE, || {
        sys!(FTRUNCATE, e.image_fd, header::FRAMES_OFFSET)
    });
    if failed(r) {
        cannot("give its image its length", r);
    }
    map();
}

fn open_handed() -> Result<(), isize> {
    let e = engine();
    let [image, pages, memory, counters] = match handed::ask() {
        Ok(opened) => opened,
        Err(r) => cannot("have its image opened by dcrun", r),
    };
    e.image_fd = crate::reserved::move_high(image as isize, high_fd::OWN_IMAGE);
    e.pagemap = crate::reserved::move_high(pages as isize, high_fd::PAGEMAP);
    e.mem = crate::reserved::move_high(memory as isize, high_fd::MEM);
    if counters >= 0 {
        crate::reserved::move_high(counters as isize, high_fd::COUNTERS);
    }
    uffd::open_tracker()
}

fn open_image(more: usize) -> isize {
    let name = name(format_args!("{}", engine().slot));
    let flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | more;
    let at = engine().high_fd(high_fd::IMAGES);
    sys!(OPENAT, at, name.as_bytes().as_ptr(), flags, 0o600)
}

/// At a recovery: opens the image of this process, which is not the first.
pub fn open() {
    let fd = open_image(0);
    if failed(fd) {
        cannot("open its image", fd);
    }
    engine().image_fd = crate::reserved::move_high(fd, high_fd::OWN_IMAGE);
    map();
}

/// Maps the table and the frames of its image.
fn map() {
    let e = engine();
    let r = sys!(
        MMAP,
        RIO_BASE + header::TABLE_OFFSET,
        header::IMAGE_MAX - header::TABLE_OFFSET,
        PROT_RW,
        MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
        e.image_fd,
        header::TABLE_OFFSET
    );
    if failed(r) {
        cannot("map its image", r);
    }
}

/// Where this process's pages lie.
fn place() -> Place {
    Place {
        table: (RIO_BASE + header::TABLE_OFFSET) as *mut _,
        frames: (RIO_BASE + header::FRAMES_OFFSET) as *mut u8,
        frame_max: header::FRAME_MAX,
        published: &raw const engine().live().published,
        limit: &raw const me().frame_limit,
        seed: super::seal::own_key(),
    }
}

/// Opens the page store of this process in its image.
pub fn open_store() -> Result<(), Full> {
    let e = engine();
    let mut supply = Supplier {
        arena: &mut e.arena,
        rio_fd: e.image_fd,
    };
    // SAFETY: the image is mapped for the life of the worker.
    e.store = unsafe { PageStore::open(place(), &mut supply) }?;
    Ok(())
}

/// A page store without pages, for a child that nobody has committed yet.
pub fn blank_store() -> Result<(), Full> {
    let e = engine();
    let mut supply = Supplier {
        arena: &mut e.arena,
        rio_fd: -1,
    };
    // SAFETY: as above; nothing is staged in it.
    e.store = unsafe { PageStore::blank(place(), &mut supply) }?;
    Ok(())
}

/// Keeps the kernel's counts of this process where they can be read when it is dead.
pub fn keep_counters() {
    let fd = crate::proc::open(b"/proc/self/io\0", O_CLOEXEC);
    if !failed(fd) {
        crate::reserved::move_high(fd, high_fd::COUNTERS);
    }
}

/// At a recovery: the companion of the dead worker goes, this one gets its own.
pub fn renew() {
    let old = me().companion.load(SeqCst);
    keep_counters();
    // First the new one: at no time is there none.
    start_companion();
    if old != 0 {
        sys!(KILL, old, crate::signal::SIGKILL);
        crate::recover::dying::note_own(old as i32);
    }
}

/// This process has given up rights: its companion, whose memory it can write, must not go
/// on with them. (It may not be allowed to kill the old one, which therefore ends itself.)
pub fn replace_companion() {
    let old = me().companion.load(SeqCst);
    if old == 0 {
        return;
    }
    while COMPANION_WAITS.load(SeqCst) != COMPANION.load(SeqCst) {
        sys!(SCHED_YIELD);
    }
    COMPANION.fetch_add(1, SeqCst);
    start_companion();
    futex::wake_all(&COMPANION);
}

/// Counts the companions of this memory: each ends when there is a later one.
static COMPANION: AtomicU32 = AtomicU32::new(1);
/// The latest one that waits for its end.
static COMPANION_WAITS: AtomicU32 = AtomicU32::new(1);

/// Starts a process that shares memory and descriptors with this one and sleeps: at the
/// death of this one the descriptors are still there, under their numbers.
pub fn start_companion() {
    const CLONE_VM: u64 = 0x100;
    const CLONE_FILES: u64 = 0x400;
    const CLONE_PARENT: u64 = 0x8000;
    const CLONE_PARENT_SETTID: u64 = 0x10_0000;
    const STACK: usize = 4096;
    let e = engine();
    let stack = e.arena.alloc(STACK) as u64;
    let args: [u64; 11] = [
        CLONE_VM | CLONE_FILES | CLONE_PARENT | CLONE_PARENT_SETTID,
        0,
        0,
        me().companion.as_ptr() as u64,
        0,
        stack,
        STACK as u64,
        0,
        0,
        0,
        0,
    ];
    let all = u64::MAX;
    let mut old = 0u64;
    sys!(RT_SIGPROCMASK, 2, &raw const all, &raw mut old, 8);
    COMPANION_WAITS.store(0, SeqCst);
    let r = limits::lifted(limits::RLIMIT_NPROC, || {
        // SAFETY: the stack is the companion's own.
        unsafe { entry::clone_to(args.as_ptr().cast(), 88, core::ptr::null_mut(), companion) }
    });
    sys!(RT_SIGPROCMASK, 2, &raw const old, 0, 8);
    if failed(r) {
        cannot("make a process that keeps its descriptors", r);
    }
}

/// The life of a companion: out of reach of signals to the program's group and terminal, it
/// ends with the keeper. (The number of a session is free for the next worker only if nobody
/// is in it.)
extern "C" fn companion(_: *mut ()) -> ! {
    const PR_SET_PDEATHSIG: usize = 1;
    const PR_SET_NAME: usize = 15;
    const SIGKILL: usize = 9;
    sys!(SETSID);
    sys!(PRCTL, PR_SET_NAME, c"dcrun-memory".as_ptr());
    sys!(PRCTL, PR_SET_PDEATHSIG, SIGKILL);
    if sys!(GETPPID) as u32 != engine().live().keeper_pid.load(Relaxed) {
        sys!(EXIT_GROUP, 0);
    }
    let own = COMPANION.load(SeqCst);
    COMPANION_WAITS.store(own, SeqCst);
    while COMPANION.load(SeqCst) == own {
        futex::wait(&COMPANION, own);
    }
    sys!(EXIT_GROUP, 0);
    fatal::die()
}

fn cannot(what: &str, r: isize) -> ! {
    fatal::stop(
        FatalCode::Internal,
        r,
        format_args!(
            "process {}: cannot {what}: error {}; `dcrun doctor` says what the machine offers",
            me().id.load(Relaxed),
            -r
        ),
    )
}
