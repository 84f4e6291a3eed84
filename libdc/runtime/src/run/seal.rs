//! The seals of a commit: written before it is published, checked when it comes back.
//!
//! ```text
//! frame         its entry in the table has a sum of it
//! frame table   the process's seal has the sum of all current entries, and how many
//!               frames there are
//! processes     the run's seal has a sum of what the commit has of them
//! published     must have a seal of the run, and be no older than the file beside the image
//!               says (with a copy of both this cannot be told)
//! ```
//!
//! A warm recovery checks what it is led by: the tables, and the pages of the state. (The
//! program's memory has not left the machine since.) Before a cold one the keeper reads all
//! of the image, see `dcrun`'s `check_image`.
#![allow(unsafe_code)]

use super::{all, me, run, shared, together};
use crate::engine::{engine, state};
use crate::fatal;
use crate::machine::sys::failed;
use crate::object::stat::Stat;
use crate::sys;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use dc_image::FatalCode;
use dc_image::boot::{high_fd, plant};
use dc_image::header::{FRAME_MAX, FRAMES_OFFSET, Header, NEWEST_SUFFIX};
use dc_image::run::{processes_sum, shared_sum};
use dc_image::seal::{self, OF_RUN};
use dc_image::window::{NEWEST_BASE, PAGE, RIO_BASE, STATE_BASE, STATE_LEN};

/// Maps the number of the newest commit, which is kept beside the image. Without it an older
/// copy of the image would not be told from the newest.
pub fn map_newest() {
    const O_RDWR_CREAT: usize = 2 | 0o100;
    const O_NOFOLLOW_CLOEXEC: usize = 0o400000 | 0o2000000;
    const SHARED_FIXED: usize = 0x11;
    let e = engine();
    let name = super::image::name(format_args!("{NEWEST_SUFFIX}"));
    let at = e.high_fd(high_fd::IMAGES);
    let flags = O_RDWR_CREAT | O_NOFOLLOW_CLOEXEC;
    let fd = sys!(OPENAT, at, name.as_bytes().as_ptr(), flags, 0o600);
    if failed(fd) {
        return;
    }
    let fd = crate::reserved::move_high(fd, high_fd::SCRATCH);
    // Its room is asked for now: a store must not find it missing.
    if !failed(sys!(FALLOCATE, fd, 0, 0, PAGE)) {
        let r = sys!(MMAP, NEWEST_BASE, PAGE, 3, SHARED_FIXED, fd, 0);
        MAPPED.store(!failed(r), Relaxed);
    }
    sys!(CLOSE, fd);
}

static MAPPED: AtomicBool = AtomicBool::new(false);

/// A commit is published, and has reached the storage.
#[inline]
pub fn note_newest(published: u64) {
    if MAPPED.load(Relaxed) {
        // SAFETY: a page that is mapped for the life of the worker.
        unsafe { (*(NEWEST_BASE as *const AtomicU64)).store(published, Relaxed) };
    }
}

pub fn image_id() -> u64 {
    // SAFETY: the header is mapped, and never written while workers live.
    unsafe { (*(RIO_BASE as *const Header)).id }
}

/// What tells the frames and the seal of this process from those of others.
pub fn own_key() -> u64 {
    seal::key(image_id(), engine().slot as u64 + 1)
}

/// This process has staged all that the commit to come has of it.
#[inline]
pub fn seal_own() {
    let store = &engine().store;
    let words = [store.set(), me().frame_limit.load(Relaxed)];
    me().seals.write(own_key(), store.published(), words);
}

/// All processes have.
#[inline]
pub fn seal_run() {
    let published = engine().store.published();
    let key = seal::key(image_id(), OF_RUN);
    run().seals.write(key, published, sums(published + 1));
}

fn sums(seq: u64) -> [u64; 2] {
    let shared = (0..run().shared_high.load(Relaxed) as usize).map(shared::entry);
    [
        processes_sum(all().map(|(_, p)| p), seq),
        shared_sum(shared, seq),
    ]
}

/// At recovery, before the frame table is read: whether there can be so many frames.
pub fn check_limit() {
    let limit = me().frame_limit.load(Relaxed);
    if limit > FRAME_MAX as u64 {
        damaged(format_args!(
            "it says that it has {limit} frames, more than there can be"
        ));
    }
}

/// At recovery, before pages of the state are used.
pub fn check_state() {
    let e = engine();
    let Ok(file) = Stat::of_fd(e.image_fd) else {
        return;
    };
    let needed = FRAMES_OFFSET + e.store.frames_needed() * PAGE;
    if file.size < needed as u64 {
        damaged(format_args!(
            "it is cut off at {} of {needed} bytes",
            file.size
        ));
    }
    if let Some(page) = e.store.damaged(STATE_BASE, STATE_BASE + STATE_LEN) {
        damaged(format_args!("the frame of the state's page {page:#x}"));
    }
}

/// At recovery, when what the state discards is left out.
pub fn check_tables() {
    let e = engine();
    let store = &e.store;
    let published = store.published();
    match me().seals.at(own_key(), published) {
        Ok(Some((_, [set, limit])))
            if set == store.set() && limit <= me().frame_limit.load(Relaxed) => {}
        Ok(Some(_)) => damaged(format_args!(
            "its frame table is not that of commit {published}"
        )),
        _ => damaged(format_args!("it has no seal of commit {published}")),
    }
    if !together::is_elder() {
        return;
    }
    match run().seals.at(seal::key(image_id(), OF_RUN), published) {
        Ok(Some((seq, words))) if seq == published && words == sums(published) => {}
        Ok(Some((seq, _))) if seq == published => damaged(format_args!(
            "its table of processes is not that of commit {published}"
        )),
        _ => damaged(format_args!("the run has no seal of commit {published}")),
    }
    let by = run().in_flight.load(Relaxed) as usize;
    let live = e.live();
    if !live.input.is_sound(by) || !live.output.is_sound(by) {
        damaged(format_args!("what it notes of the call that was under way"));
    }
}

pub fn damaged(what: core::fmt::Arguments) {
    if engine().boot.plant == plant::BLIND {
        return;
    }
    fatal::stop(
        FatalCode::Corrupt,
        0,
        format_args!(
            "recover process {} from its image: it is damaged: {what}; put a whole copy back",
            state().root.pid.max(me().id.load(Relaxed))
        ),
    )
}
