//! What the runtime knows and a rollback does not touch.
//!
//! One value for the whole worker. The big lock guards all of it and the
//! state; what threads read without the lock is atomic.
#![allow(unsafe_code)]

use crate::arena::Arena;
use crate::machine::frame::Local;
use crate::object::limits;
use crate::state::State;
use crate::thread::Lock;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use dc_image::header::{self, Live};
use dc_image::{BootInfo, window};
use vista_core::journal::Journal;
use vista_core::pages::{PageStore, Supply};

pub const MAX_THREADS: usize = 512;

/// Pages that always go into the next commit, found by no scan.
pub const EXTRA_MAX: usize = 1 << 16;

/// In this order: what a commit and a child of a fork touch comes first, and the tables behind
/// it, for each page that is touched is a fault, and a copy of its own, for parent and child.
#[repr(C)]
pub struct Engine {
    pub boot: BootInfo,
    /// The kernel's number for this process; [`crate::state::Root::pid`] is the one
    /// that the program knows.
    pub pid: i32,
    pub live: *mut Live,
    /// Its entry in the run's table of processes.
    pub slot: usize,
    /// Its memory is tracked and committed. A child is not before the first commit that
    /// has to have it.
    pub tracking: bool,
    /// Where its frames are: the run's image, or one of its own.
    pub image_fd: i32,
    pub arena: Arena,
    pub store: PageStore,
    pub journal: Journal,
    pub lock: Lock,
    /// Nonzero while a commit stops all other threads; a futex.
    pub stopping: AtomicU32,
    pub thread_count: AtomicU32,
    /// One above the highest slot of `threads` ever used.
    pub thread_high: usize,
    pub uffd: i32,
    pub pagemap: i32,
    pub mem: i32,
    /// Text pages changed by patching since the last commit.
    pub extra: *mut usize,
    pub extra_len: usize,
    pub fold: crate::commit::fold::Fold,
    pub folded: crate::space::folded::Folded,
    /// There is memory of huge pages that the program asked for.
    pub huge: bool,
    /// Two buffers for scans.
    pub regions: *mut crate::uffd::PageRegion,
    pub taken: *mut crate::uffd::PageRegion,
    /// True if re-execution may meet output that was already made.
    pub replay: crate::object::repeated::Replay,
    /// The protocol's flag is set and no commit follows an event: calls whose
    /// only effect would be to set it may skip the lock.
    pub nd_cheap: AtomicBool,
    /// Questions for the time that were answered meanwhile without the runtime,
    /// since the protocol was last told of anything. Of several threads about so
    /// many.
    pub times_told: AtomicU64,
    /// The commit behind which a timer was set, and the clock that has it committed.
    pub timer_set: u64,
    pub timer_set_clock: i32,
    /// A tick of `--interval` is due.
    pub tick: AtomicBool,
    pub threads: [*mut Local; MAX_THREADS],
    pub stubs: crate::patch::StubPools,
    /// The protocol as it stands. What a rollback leaves of it is only which
    /// protocol it is and whether threads run, so it is no part of the state:
    /// every event would dirty a page.
    pub machine: protocols::Machine,
    pub streams: crate::commit::stream::Streams,
    pub log: crate::log::Log,
    pub memory: crate::object::memfd::Changed,
    pub shared: crate::space::shared::Shared,
    pub deferred: crate::object::deferred_close::Deferred,
    pub pieces: crate::commit::sleep::Pieces,
    pub undo: crate::object::undo::Pending,
    pub hot: crate::commit::hot::HotSet,
}

// SAFETY: guarded by the big lock, see the module.
unsafe impl Sync for Engine {}

pub static mut ENGINE: Engine = Engine {
    boot: BootInfo::ZERO,
    pid: 0,
    live: core::ptr::null_mut(),
    slot: 0,
    tracking: true,
    image_fd: -1,
    arena: Arena::new(),
    store: PageStore::closed(),
    journal: Journal::closed(),
    lock: Lock,
    stopping: AtomicU32::new(0),
    threads: [core::ptr::null_mut(); MAX_THREADS],
    thread_count: AtomicU32::new(0),
    thread_high: 0,
    machine: protocols::Machine::new(protocols::Protocol::Cbndvs),
    uffd: -1,
    pagemap: -1,
    mem: -1,
    extra: core::ptr::null_mut(),
    extra_len: 0,
    hot: crate::commit::hot::HotSet::new(),
    streams: crate::commit::stream::Streams::new(),
    pieces: crate::commit::sleep::Pieces::new(),
    fold: crate::commit::fold::Fold::new(),
    folded: crate::space::folded::Folded::new(),
    shared: crate::space::shared::Shared::new(),
    memory: crate::object::memfd::Changed::new(),
    huge: false,
    regions: core::ptr::null_mut(),
    taken: core::ptr::null_mut(),
    replay: crate::object::repeated::Replay::new(),
    log: crate::log::Log::new(),
    deferred: crate::object::deferred_close::Deferred::new(),
    undo: crate::object::undo::Pending::new(),
    stubs: crate::patch::StubPools::new(),
    nd_cheap: AtomicBool::new(false),
    times_told: AtomicU64::new(0),
    timer_set: u64::MAX,
    timer_set_clock: 0,
    tick: AtomicBool::new(false),
};

/// The engine. Callers hold the big lock, or touch atomics only.
#[inline(always)]
pub fn engine() -> &'static mut Engine {
    // SAFETY: the big lock serialises all users of non-atomic fields.
    unsafe { &mut *(&raw mut ENGINE) }
}

/// The state: everything in it is rolled back. Callers hold the big lock.
#[inline(always)]
pub fn state() -> &'static mut State {
    // SAFETY: mapped for the life of the worker; the big lock serialises.
    unsafe { &mut *(window::STATE_BASE as *mut State) }
}

impl Engine {
    #[inline(always)]
    pub fn live(&self) -> &'static Live {
        // SAFETY: mapped for the life of the worker; all fields are atomics
        // or written by a dying worker.
        unsafe { &*self.live }
    }

    pub fn high_fd(&self, which: i32) -> i32 {
        self.boot.fd_base + which
    }
}

/// Adds to a counter in Rio. Without other threads and processes that needs no locked add.
#[inline(always)]
pub fn add(counter: &AtomicU64, n: u64) {
    if crate::run::is_alone() {
        counter.store(counter.load(Relaxed) + n, Relaxed);
    } else {
        counter.fetch_add(n, Relaxed);
    }
}

/// What the page store needs from the runtime.
pub struct Supplier<'a> {
    pub arena: &'a mut Arena,
    pub rio_fd: i32,
}

impl Supply for Supplier<'_> {
    fn alloc(&mut self, bytes: usize) -> *mut u8 {
        self.arena.alloc(bytes)
    }

    fn grow(&mut self, from: usize, most: usize) -> Result<usize, isize> {
        limits::lifted(limits::RLIMIT_FSIZE, || self.grow_file(from, most))
    }

    fn give_back(&mut self, from: usize, len: usize) -> bool {
        const KEEP_SIZE_PUNCH_HOLE: usize = 3;
        let at = header::FRAMES_OFFSET + from * window::PAGE;
        let len = len * window::PAGE;
        let r = crate::sys!(FALLOCATE, self.rio_fd, KEEP_SIZE_PUNCH_HOLE, at, len);
        !crate::machine::sys::failed(r)
    }
}

impl Supplier<'_> {
    fn grow_file(&mut self, from: usize, most: usize) -> Result<usize, isize> {
        let at = header::FRAMES_OFFSET + from * window::PAGE;
        // The storage is asked for the room now, so that a store can never
        // find it missing (that would be a SIGBUS).
        let mut frames = most;
        loop {
            let r = crate::sys!(FALLOCATE, self.rio_fd, 0, at, frames * window::PAGE);
            if !crate::machine::sys::failed(r) {
                let table = header::TABLE_OFFSET + from * 16;
                let r = crate::sys!(FALLOCATE, self.rio_fd, 0, table, frames * 16);
                if crate::machine::sys::failed(r) {
                    return Err(r);
                }
                break;
            }
            if frames <= 64 {
                return Err(r);
            }
            frames /= 2;
        }
        const MADV_POPULATE_WRITE: usize = 23;
        crate::sys!(
            MADVISE,
            window::RIO_BASE + at,
            frames * window::PAGE,
            MADV_POPULATE_WRITE
        );
        Ok(from + frames)
    }
}

/// Splits the engine into the page store and its supplier.
pub fn store_and_supply() -> (&'static mut PageStore, Supplier<'static>) {
    let e = engine();
    let rio_fd = e.image_fd;
    (
        &mut e.store,
        Supplier {
            arena: &mut e.arena,
            rio_fd,
        },
    )
}
