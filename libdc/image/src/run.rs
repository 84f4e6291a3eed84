//! What all processes of a run share: the lock, the commit under way, and the table of
//! processes.
//!
//! ```text
//! RUN_OFFSET + 0x0000_0000   Run: the lock, the commit, the recovery under way
//!            + 0x0000_1000   table of processes: 1024 bytes each
//!            + 0x0040_1000   table of what they share: 192 bytes each
//!            + 0x0060_0000   contents of pipes and sockets: two buffers for each shared object
//!            + 0x3260_0000   settings of terminals: two places for each shared object
//!            + 0x3280_0000   stacks of parents whose children run on a copy (vfork)
//!            + 0x3600_0000   System V objects: what is changed there has a before-image in
//!                            the journal, as files have
//! ```
//!
//! None of it is rolled back by copying. What belongs to a state carries the number of
//! the commit from which on it holds: a process exists from `born` on, runs until
//! `ended`, and is a zombie until `reaped`. A number above `published` belongs to an
//! interval that was lost, and counts as none. So the store that publishes a commit
//! publishes the births, the ends and the waits of its interval as well.

use crate::dated::Dated;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::*};

use crate::header::JOURNAL_OFFSET;
pub(crate) use crate::process::holds;
pub use crate::process::{Life, Process, STRANGER_ENDED, processes_sum, request};
use crate::seal::Seals;
pub use crate::shared::{
    BY_KEEPER, Inside, Settings, Shared, fifo_of, pty_number, pty_of, shared_sum,
};

/// Where the run's own part of its image begins, and how long it is.
pub const RUN_OFFSET: usize = 0x8_0000;
pub const RUN_LEN: usize = 0x3800_0000;
const _: () = assert!(RUN_OFFSET + RUN_LEN == JOURNAL_OFFSET);

pub const PROCESSES_OFFSET: usize = 0x1000;
/// Processes that a run may have at a time.
pub const PROCESS_MAX: usize = 4096;
pub const SHARED_OFFSET: usize = PROCESSES_OFFSET + PROCESS_MAX * 1024;
/// Open file descriptions that several processes may know.
pub const SHARED_MAX: usize = 1600;
pub const CONTENTS_OFFSET: usize = 0x60_0000;
/// Bytes of a pipe or socket that a commit keeps: what a socket holds, and four times what a
/// pipe does, unless somebody has asked for more (pipe(7), unix(7)).
pub const CONTENTS_LEN: usize = 256 << 10;
const _: () = assert!(SHARED_OFFSET + SHARED_MAX * size_of::<Shared>() <= CONTENTS_OFFSET);
pub const SETTINGS_OFFSET: usize = CONTENTS_OFFSET + SHARED_MAX * 2 * CONTENTS_LEN;
const _: () = assert!(SETTINGS_OFFSET + SHARED_MAX * 2 * size_of::<Settings>() <= SPARE_OFFSET);
const _: () = assert!(SPARE_OFFSET + SPARE_MAX * SPARE_LEN <= SYSV_OFFSET);
const _: () = assert!(size_of::<Process>() == 1024);
const _: () = assert!(size_of::<Run>() <= PROCESSES_OFFSET);

/// What a child of vfork(2) has written on its parent's stack, on the way to it: room for
/// the processes of the first entries.
pub const SPARE_OFFSET: usize = 0x3280_0000;
pub const SPARE_LEN: usize = 64 << 10;
pub const SPARE_MAX: usize = 512;

/// The objects of System V that the run has: tables, semaphores, queued messages.
pub const SYSV_OFFSET: usize = 0x3600_0000;
pub const SYSV_LEN: usize = 0x100_0000;
const _: () = assert!(SYSV_OFFSET + SYSV_LEN <= RUN_LEN);

/// So many threads of a process have their calls counted ([`Process::begun`]).
pub const BEGUN: usize = 64;

/// The steps of a recovery that no process takes before all have come to them.
pub const STEPS: usize = 8;

#[repr(C)]
pub struct Run {
    /// The big lock of the runtime, for all processes alike: a futex.
    pub lock: AtomicU32,
    /// Nonzero while a commit stops all processes but its own; a futex.
    pub stopping: AtomicU32,
    /// Processes of the program that live, committed or not.
    pub living: AtomicU32,
    /// One above the highest entry of the table that was ever used.
    pub high: AtomicU32,
    /// Entry of the process whose input or output call is under way, see
    /// [`crate::header::Inflight`].
    pub in_flight: AtomicU32,
    /// One above the highest entry ever used of what is shared.
    pub shared_high: AtomicU32,
    /// The sum of the journal's newest record.
    pub journal_sum: AtomicU64,
    /// Of the recovery under way: how many processes take part, and how many have come
    /// to each of its steps; futexes.
    pub recovering: AtomicU32,
    pub arrived: [AtomicU32; STEPS],
    /// The entry of the process that does what is done once for all.
    pub elder: AtomicU32,
    /// Nonzero: some process lives that is not the program's own any more (set-uid).
    pub strangers: AtomicU32,
    /// Raised when a process ends whose descriptors and memory are to go; the keeper
    /// looks at it when it is woken.
    pub ends: AtomicU32,
    /// Areas of shared memory that were ever made files beside the image.
    pub shared_memory: AtomicU32,
    /// Times that the crash point of a test was passed.
    pub fault_count: AtomicU64,
    /// Name of the image file in its directory, ended by NUL: images of processes and
    /// shared memory have it with a suffix.
    pub image_name: [u8; 256],
    /// `published` once more, stored behind it: never above it.
    pub committed: AtomicU64,
    /// Of every commit: a sum of the processes ([`processes_sum`]), and one of what they
    /// share ([`shared_sum`]).
    pub seals: Seals,
    /// A bit for each entry whose process may have done something since it staged last, or
    /// has been given something to do: a commit looks at these only.
    pub stirred: [AtomicU64; PROCESS_MAX / 64],
    /// The interval in which something went through a socket within the run last.
    pub sockets_moved: AtomicU64,
    /// The same of terminals that the run has made.
    pub terminals_moved: AtomicU64,
    /// A bit for each entry whose process is to be interrupted by the keeper, for whoever
    /// wants to has given up the right to do so.
    pub uninterrupted: [AtomicU64; PROCESS_MAX / 64],
    /// Raised behind such a bit: a futex, upon which the keeper waits.
    pub rightless: AtomicU32,
    /// The numbers that the last commit's line has in a trace and that of the one before, by
    /// whether the commit's own number is even or odd.
    pub trace_commits: [AtomicU64; 2],
    /// Companions of dead workers that were killed and may still hold memory and descriptors:
    /// that of the first process, whose descriptors are the keeper's, and those of others; 0 is
    /// a free place.
    pub dying_first: AtomicI32,
    pub dying: [AtomicI32; DYING_MAX],
    /// The entry + 1 of the process that has taken the lock last, among several.
    pub lock_holder: AtomicU32,
    /// The entry + 1 of the process that has opened fuse(4) last.
    pub served_by: AtomicU32,
    /// Nonzero: since the last commit a process has met the end of a pipe, socket or terminal.
    pub ends_met: AtomicU32,
    /// Nonzero once a process has made a fifo, or opened one.
    pub fifos: AtomicU32,
    /// Who is about to open one.
    pub openers: [Opener; OPENERS],
}

/// A thread that opens a fifo, and has not noted so far that it has it open.
#[repr(C)]
pub struct Opener {
    /// Which fifo, and which end; 0 is nobody.
    pub what: Dated,
    /// The entry of its process, and its slot in that << 16.
    pub owner: AtomicU32,
}

/// So many are known at a time.
pub const OPENERS: usize = 32;

/// So many are noted at a time.
pub const DYING_MAX: usize = 64;

impl Run {
    /// The next commit is to look at a process.
    #[inline(always)]
    pub fn stir(&self, slot: usize) {
        let (word, bit) = (&self.stirred[slot / 64], 1 << (slot % 64));
        if word.load(SeqCst) & bit == 0 {
            word.fetch_or(bit, SeqCst);
        }
    }

    /// A companion is killed that is not the first process's. False if there is no place to
    /// note it.
    pub fn note_dying(&self, companion: i32) -> bool {
        let mut places = self.dying.iter();
        places.any(|place| place.compare_exchange(0, companion, SeqCst, SeqCst).is_ok())
    }

    /// The keeper is to interrupt a process; [`Run::rightless`] is still to be woken.
    pub fn want_interrupted(&self, slot: usize) {
        self.uninterrupted[slot / 64].fetch_or(1 << (slot % 64), SeqCst);
        self.rightless.fetch_add(1, SeqCst);
    }

    /// The entries whose processes are to be interrupted; nobody is told of them again.
    pub fn take_uninterrupted(&self) -> impl Iterator<Item = usize> {
        self.uninterrupted
            .iter()
            .enumerate()
            .flat_map(|(at, word)| {
                let bits = word.swap(0, SeqCst);
                (0..64)
                    .filter(move |bit| bits & 1 << bit != 0)
                    .map(move |bit| at * 64 + bit)
            })
    }
}
