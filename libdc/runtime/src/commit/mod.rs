//! A commit: memory, registers and kernel objects reach Rio in one step.
//!
//! 1. All other threads stop ([`crate::thread::stop_others`]), and all other processes of
//!    the run, which stage what is theirs at the same time ([`unit`]).
//! 2. What only the kernel knows (registers, file offsets) goes into the state.
//! 3. One scan finds the written pages, of program and state alike; each is
//!    copied once, into a free frame.
//! 4. One store publishes.
//! 5. What had to wait for that is done: closes become final, before-images
//!    are dropped, replaced frames are free.
#![allow(unsafe_code)]

pub mod fold;
pub mod hot;
pub mod sleep;
pub mod stream;

use crate::engine::{add, engine, state, store_and_supply};
use crate::machine::frame::Local;
use crate::machine::{clock, sys::failed, user, vector};
use crate::run::{ends, has_company, image, me, seal, unit};
use crate::space::{self, folded};
use crate::uffd::{self, PAGE_IS_PFNZERO};
use crate::{fatal, object, signal, sys, thread, trace};
use core::sync::atomic::Ordering::*;
use dc_image::boot::{fault, plant};
use dc_image::window::{self, PAGE};
use dc_image::{FatalCode, Status};
use vista_core::pages::{Copied, Full};

/// Commits the run as it stands: this process, and with it all others that have run since
/// the last commit ([`unit`]). The caller holds the big lock; its own context is "call
/// again" or "after" as `local.again` says.
pub fn commit(local: &mut Local) {
    commit_with(local, || {});
}

/// The same with a change of the tables that all have: it is made when all have staged, those
/// too that it is about.
pub fn commit_with(local: &mut Local, change: impl FnOnce()) {
    let begin = now_ns();
    let company = unit::stop_all();
    let copied = stage(local, begin);
    publish(company, copied, change);
    published(begin);
    thread::resume_others();
    let (store, mut supply) = store_and_supply();
    store.give_back(&mut supply, now_ns);
    add(&engine().live().commit_ns, now_ns() - begin);
}

/// Before something is consumed or made that only this process can tell of again: a child
/// that nobody has committed would not be there to tell.
pub fn commit_first(local: &mut Local) {
    if !engine().tracking {
        commit(local);
    }
}

/// The same by a process that ends with it: of its own memory nothing is left.
pub fn commit_end(local: &mut Local, change: impl FnOnce()) {
    let company = unit::stop_all();
    thread::stop_others(local);
    object::regular::save_offsets();
    object::pipe::save_contents();
    object::socket::pair::save();
    object::pty::save();
    publish(company, 0, change);
    crate::event::committed();
    object::deferred_close::make_final();
    object::undo::forget();
}

/// Stops the threads of this process, and stages what the commit to come has of it.
/// Answers how many pages.
pub fn stage(local: &mut Local, begin: u64) -> u64 {
    let e = engine();
    e.pieces.tell_time(begin);
    thread::stop_others(local);
    crate::run::end::take_signals(local);
    let for_signalfd = signal::collect_blocked(local);
    object::signalfd::save(for_signalfd);
    save_threads(local);
    object::regular::save_offsets();
    object::pipe::save_contents();
    object::socket::pair::save();
    object::set_by_others::save();
    object::undo::stamp::save();
    object::pty::save();
    object::attributes::save();
    crate::log::before_commit();
    e.replay.before_commit();
    let mut copied = 0;
    let staged = if e.tracking {
        copy_pages(&mut copied)
    } else {
        image::begin(&mut copied)
    };
    if let Err(full) = staged {
        rio_full(full);
    }
    copied += e.fold.lay(begin);
    // Before anybody can publish: if this process is killed behind that, and before it goes on,
    // the kernel would mark the robust mutexes that it holds, and no record would tell of it.
    space::shared::guard_again();
    me().frames_used.store(e.store.used() as u64, Relaxed);
    seal::seal_own();
    if e.slot != 0 || has_company() {
        // (The run's own image has more to come, see `publish`.)
        sync(e.image_fd);
    }
    copied
}

/// Everything is staged: one store makes it the state.
fn publish(company: bool, copied: u64, change: impl FnOnce()) {
    let e = engine();
    if company {
        unit::await_staged();
        if ends::is_anybody_dead() {
            // The keeper kills this one too, when it is told.
            fatal::die();
        }
    }
    change();
    trace::before_commit();
    seal::seal_run();
    let image = e.high_fd(dc_image::boot::high_fd::RIO);
    sync(image);
    fault_point(fault::BEFORE_PUBLISH);
    if company && sys!(GETPPID) as u32 != e.live().keeper_pid.load(Relaxed) {
        // The keeper is dead, and all processes die with it, one after the other: what
        // this one has seen of the others' ends is no part of a run.
        fatal::die();
    }
    let published = e.store.publish();
    crate::run::run().committed.store(published, Relaxed);
    sync(image);
    seal::note_newest(published);
    trace::committed();
    if company {
        unit::go_on();
    }
    let live = e.live();
    add(&live.commits, 1);
    add(&me().commits, 1);
    add(&live.pages_copied, copied);
    fault_point(fault::AFTER_COMMIT);
}

/// What had to wait for the commit. Other threads of this process are still stopped.
pub fn published(begin: u64) {
    let e = engine();
    e.fold.map_laid();
    e.store.reclaim();
    let root = &mut state().root;
    if root.head.discard_count != 0 {
        root.head.discard_count = 0;
    }
    crate::event::committed();
    object::deferred_close::make_final();
    object::undo::forget();
    e.fold.step(begin);
}

pub fn now_ns() -> u64 {
    clock::monotonic_ns()
}

/// On disk a commit is only as good as its last barrier.
fn sync(image: i32) {
    if engine().boot.durable != 0 {
        let r = sys!(FDATASYNC, image);
        if failed(r) {
            fatal::stop(
                FatalCode::Internal,
                r,
                format_args!("sync the image of this run: error {}", -r),
            );
        }
    }
}

/// Every thread's registers, as they must be when it goes on from here.
fn save_threads(local: &mut Local) {
    let e = engine();
    for slot in 0..e.thread_high {
        let p = e.threads[slot];
        if p.is_null() {
            continue;
        }
        // SAFETY: the thread is this one or stopped, and its block is not freed
        // while the lock is held.
        let t = unsafe { &mut *p };
        let made_again = t.again || t.early;
        signal::held::count_from(t, made_again.into());
        let record = &mut state().threads[slot];
        if record.used != 1 {
            record.used = 1;
        }
        if !t.queue.is_empty() || !record.queue.is_empty() {
            record.queue = t.queue;
        }
        let own = core::ptr::eq(p, local);
        if !own && !core::mem::take(&mut t.moved) {
            // It waits where it waited at the last commit.
            continue;
        }
        if own {
            // SAFETY: the record's area is XSAVE_MAX bytes, aligned.
            unsafe { vector::save_compact(record.xsave.bytes.as_mut_ptr()) };
            t.frame.fs_base = vector::fs_base();
        } else {
            let len = vector::standard_size();
            record.xsave.bytes[..len].copy_from_slice(&t.xsave.bytes[..len]);
        }
        record.frame = t.frame;
        if made_again {
            record.frame.call_again();
        }
        // SAFETY: just saved.
        unsafe { vector::set_xmm(record.xsave.bytes.as_mut_ptr(), &record.frame.xmm) };
        object::seccomp::saved(t, made_again);
    }
}

/// So many tracked pages of a commit are copied the common way. Beyond, their
/// frames are hardly in the caches, and going past them takes half as long.
const WARM: u64 = 48;

fn copy_pages(copied: &mut u64) -> Result<(), Full> {
    let e = engine();
    e.streams.measure();
    let hot = e.hot.copy_all()?;
    written_pages(|page, zero| {
        if zero && e.store.committed(page).is_none() {
            return Ok(());
        }
        *copied += 1;
        e.streams.note(page);
        // The planted bug: every seventh page of the program is not copied.
        if skips_pages()
            && copied.is_multiple_of(7)
            && !window::LOWER_HALF.contains(&page)
            && e.store.published() > 0
        {
            return Ok(());
        }
        stage_one(page, *copied > WARM)
    })?;
    *copied += object::memfd::stage_changed()?;
    e.streams.open_ahead();
    add(&e.live().pages_hot, hot);
    *copied += hot;
    for i in 0..e.extra_len {
        // SAFETY: below extra_len entries are set.
        let page = unsafe { e.extra.add(i).read() };
        // Found by no scan, so perhaps not written and still the frame itself.
        folded::own(page);
        stage_one(page, false)?;
        *copied += 1;
    }
    e.extra_len = 0;
    Ok(())
}

/// The planted bug, in every process or in children only.
fn skips_pages() -> bool {
    let e = engine();
    e.boot.plant == plant::SKIP_PAGE || e.boot.plant == plant::SKIP_CHILD_PAGE && e.slot != 0
}

/// Calls `f(page, never written since it was zero)` for every page written
/// since the last commit, and protects it again.
fn written_pages(mut f: impl FnMut(usize, bool) -> Result<(), Full>) -> Result<(), Full> {
    let mut result = Ok(());
    let e = engine();
    e.pieces.awake_runs(|pieces, from, to| {
        if result.is_ok() {
            result = scan_range(from, to, |page, zero| {
                pieces.hit(page);
                f(page, zero)
            });
        }
    });
    let (once, n) = e.pieces.take_once();
    for &(from, to) in &once[..n] {
        if result.is_ok() {
            result = scan_range(from, to, &mut f);
        }
    }
    e.pieces.age(|from, to| {
        if result.is_ok() {
            result = scan_range(from, to, &mut f);
        }
    });
    result
}

/// Looks where the range was written, and takes what is not hot.
fn scan_range(
    from: usize,
    to: usize,
    mut f: impl FnMut(usize, bool) -> Result<(), Full>,
) -> Result<(), Full> {
    let e = engine();
    let mut at = from;
    while at < to {
        let (n, walked) = scanned(uffd::look(at, to, e.regions));
        let mut group = Group::EMPTY;
        for i in 0..n {
            // SAFETY: the kernel filled the first n entries.
            let region = unsafe { *e.regions.add(i) };
            let (start, end) = (region.start as usize, region.end as usize);
            for page in (start..end).step_by(PAGE) {
                if hot::is_hot(page) {
                    group.hot += 1;
                } else if !group.extend(page) {
                    take_written(&group, &mut f)?;
                    group = Group::of(page);
                }
            }
        }
        take_written(&group, &mut f)?;
        if walked <= at {
            break;
        }
        at = walked;
    }
    Ok(())
}

/// Written pages that are not hot, near enough to be protected by one call.
struct Group {
    start: usize,
    end: usize,
    /// Hot pages behind `end`.
    hot: u32,
}

impl Group {
    const EMPTY: Group = Group::of(0);

    const fn of(page: usize) -> Group {
        Group {
            start: page,
            end: if page == 0 { 0 } else { page + PAGE },
            hot: 0,
        }
    }

    /// Takes a page in; false if a call of its own is better. A call costs about
    /// as much as the fault of a hot page that is protected by the way, or as the
    /// walk over a megabyte.
    fn extend(&mut self, page: usize) -> bool {
        let near = self.hot <= 1 && page - self.end < 1 << 20;
        if self.end == 0 {
            *self = Group::of(page);
        } else if near {
            self.end = page + PAGE;
            self.hot = 0;
        }
        self.end == page + PAGE
    }
}

/// Protects what was written in a group, and calls `f` for each page of it. What
/// this second scan finds is what counts: the kernel may have written for a call
/// of a stopped thread since the first.
fn take_written(
    group: &Group,
    f: &mut impl FnMut(usize, bool) -> Result<(), Full>,
) -> Result<(), Full> {
    let e = engine();
    let mut at = group.start;
    while at < group.end {
        let (n, walked) = scanned(uffd::scan(at, group.end, e.taken));
        for i in 0..n {
            // SAFETY: the kernel filled the first n entries.
            let region = unsafe { *e.taken.add(i) };
            let zero = region.categories & PAGE_IS_PFNZERO != 0;
            let (start, end) = (region.start as usize, region.end as usize);
            if e.folded.touches(start, end) {
                folded::each_own(start, end, |page| f(page, zero))?;
                continue;
            }
            for page in (start..end).step_by(PAGE) {
                f(page, zero)?;
            }
        }
        if walked <= at {
            break;
        }
        at = walked;
    }
    Ok(())
}

fn scanned(r: Result<(usize, usize), isize>) -> (usize, usize) {
    match r {
        Ok(r) => r,
        Err(r) => fatal::stop(
            FatalCode::Internal,
            r,
            format_args!("find written pages (PAGEMAP_SCAN): error {}", -r),
        ),
    }
}

/// Copies one page into the commit to come.
pub fn stage_page(page: usize) -> Result<(), Full> {
    stage_one(page, false)
}

/// Copies one page into the commit to come; `cold` goes past the caches.
#[inline]
fn stage_one(page: usize, cold: bool) -> Result<(), Full> {
    if let Some(page) = object::memfd::known_as(page) {
        return object::memfd::stage(page);
    }
    if space::huge::is_unchanged(page) {
        return Ok(());
    }
    let (store, mut supply) = store_and_supply();
    let seq = store.published() as u16;
    let sums = *store.sums();
    let mut copied = Copied::Not;
    let slot = store.stage(page, &mut supply, |dst| {
        if cold {
            // SAFETY: dst is a whole frame; faults on the page are caught.
            copied = unsafe { user::try_stream_page(dst, page as *const u8, &sums) };
        }
        if copied == Copied::Not {
            copied = copy_program_page(dst, page);
        }
        copied
    })?;
    if copied != Copied::Not && !space::huge::contains(page) {
        engine().hot.consider(page, slot, seq);
    }
    Ok(())
}

/// A page of the program, which may be unreadable at the moment (PROT_NONE
/// after it was written): then the kernel reads it for us.
#[inline]
pub fn copy_program_page(dst: *mut u8, page: usize) -> Copied {
    // SAFETY: dst is a whole frame; faults on the page are caught.
    if unsafe { user::try_copy(dst, page as *const u8, PAGE) } {
        return Copied::Whole;
    }
    let n = sys!(PREAD64, engine().mem, dst, PAGE, page);
    if n > 0 {
        me().rchar.fetch_add(n as u64, Relaxed);
    }
    match n == PAGE as isize {
        true => Copied::Whole,
        false => Copied::Not,
    }
}

/// The storage is full: nothing of this interval is published.
fn rio_full(full: Full) -> ! {
    engine().live().status.store(Status::Stopped as u32, SeqCst);
    fatal::stop(
        FatalCode::RioFull,
        full.0,
        format_args!(
            "commit {}: no room in Rio (error {}); the program is stopped at its last commit. \
             Make room, then `dcrun resume`",
            engine().store.published() + 1,
            -full.0
        ),
    )
}

/// Dies here if the test asked for it.
#[inline]
pub fn fault_point(point: u32) {
    let e = engine();
    if e.boot.fault & !fault::ALL != point {
        return;
    }
    let passed = crate::run::run().fault_count.fetch_add(1, Relaxed) + 1;
    if passed == e.boot.fault_at {
        if e.boot.fault & fault::ALL != 0 {
            sys!(KILL, e.live().keeper_pid.load(Relaxed), 9);
        }
        fatal::die();
    }
}
