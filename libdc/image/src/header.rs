//! The image of a run in Rio, and its first two pages.
//!
//! ```text
//! offset        what                                       survives by
//! 0x0000_0000   Header: magic, version, geometry, command  written once
//! 0x0000_1000   Live: published, status, counters          single stores
//! 0x0000_2000   path of the run's directory            written once
//! 0x0000_3000   notices to the user                        appended
//! 0x0000_4000   moments: when waits and timers began       single stores
//! 0x0008_0000   what the processes of a run share: crate::run   numbers of commits
//! 0x3808_0000   journal of the interval                    tagged tail word
//! 0x4808_0000   frame table: {page, seq, sum} a frame      ordered stores
//! 0x6808_0000   frames of 4096 bytes, growing              named by the table
//! ```
//!
//! `published` is the commit: one aligned 8-byte store makes a new state the
//! newest. A frame counts if its sequence number is not above it; the journal
//! counts if its tag is the next number. Nothing else needs to be cleared, so
//! a commit has no second step that a crash could separate from the first.
//!
//! All of it can be told from what was damaged: see [`crate::seal`], the sums in the frame
//! table (`vista_core::pages`) and in the journal.
//!
//! The first process of a run has its pages in the run's own image. Each other one has
//! an image with the same table and frames and nothing else in it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use rio_core::mix;

pub const MAGIC: [u8; 8] = *b"DCIMAGE\x01";
/// Raised whenever the layout of image or state changes.
pub const VERSION: u32 = 15;

pub const LIVE_OFFSET: usize = 0x1000;
/// The suffix of the file beside an image that has the number of the newest commit (8 bytes):
/// an older copy of the image does not agree with it.
pub const NEWEST_SUFFIX: &str = "newest";
/// Whose image this is, ended by NUL: an image in memory has no other link back.
pub const OWNER_OFFSET: usize = 0x2000;
/// What the user is to know, each `[NOTICE_SAID or NOTICE_KEPT, text, NUL]`, ended by 0.
pub const NOTICES_OFFSET: usize = 0x3000;
pub const NOTICES_LEN: usize = 0x1000;
pub const NOTICE_SAID: u8 = b'+';
/// Not said yet: the screen was the program's.
pub const NOTICE_KEPT: u8 = b'-';
/// When each thread's calls that wait, or set timers, were first made: see the runtime's
/// `thread::moment`.
pub const MOMENTS_OFFSET: usize = 0x4000;
pub const MOMENTS_LEN: usize = 0x7_c000;
pub const JOURNAL_OFFSET: usize = 0x3808_0000;
pub const JOURNAL_LEN: usize = 256 << 20;
pub const TABLE_OFFSET: usize = JOURNAL_OFFSET + JOURNAL_LEN;
/// Frames an image can hold at the most (128 GiB of pages).
pub const FRAME_MAX: usize = 32 << 20;
pub const FRAMES_OFFSET: usize = TABLE_OFFSET + FRAME_MAX * 16;
/// Bytes of address space that an image can take.
pub const IMAGE_MAX: usize = FRAMES_OFFSET + FRAME_MAX * crate::window::PAGE;

/// What a run is doing, as `ps` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Status {
    /// Made, but nothing committed yet.
    New = 0,
    Running = 1,
    Recovering = 2,
    /// The program has exited; `exit_code` holds, and `exit_seal` says so. No other number
    /// becomes this one by a bit or two.
    Done = 0x454e_4f44,
    /// The runtime gave up; `fatal` holds the reason. Resumable.
    Stopped = 4,
    /// Its user, or a shutdown, has asked it to stop and to go on later.
    Suspended = 5,
}

impl Status {
    pub const fn from_u32(v: u32) -> Option<Status> {
        Some(match v {
            0 => Status::New,
            1 => Status::Running,
            2 => Status::Recovering,
            0x454e_4f44 => Status::Done,
            4 => Status::Stopped,
            5 => Status::Suspended,
            _ => return None,
        })
    }
}

/// Why the runtime stopped a program at its last commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum FatalCode {
    None = 0,
    /// The runtime itself failed: a bug, with its message.
    Internal = 1,
    /// The storage behind Rio has no room for another commit.
    RioFull = 2,
    /// The image was written by another version.
    OtherVersion = 3,
    /// The image contradicts itself.
    Corrupt = 4,
    /// A program file changed since the commit.
    FileChanged = 5,
    /// Something that the state needs cannot be made again.
    CannotRestore = 6,
    /// The program cannot be loaded; `exit_code` is 126 or 127.
    CannotLoad = 7,
    /// Re-execution took another path than the log.
    Diverged = 8,
    /// Somebody else has changed what a rollback has to undo.
    Conflict = 9,
}

/// Detail of [`FatalCode::Conflict`]: the program held a lock, and others have changed what it
/// guards. Nothing of theirs may be left *and* the program go on.
pub const INSIDE_LOCK: isize = 1;

/// First page: written by the keeper when the run is made, then only read.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Header {
    pub magic: [u8; 8],
    pub version: u32,
    /// `size_of` of the state root, so that a rebuilt runtime is told apart.
    pub state_layout: u32,
    pub owner_uid: u32,
    pub protocol: u32,
    /// A number that no other image has: part of every sum in this one.
    pub id: u64,
    /// Checksum (FNV-1a) of the bytes before this field.
    pub checksum: u64,
}

/// Second page: what changes outside of commits.
#[repr(C)]
pub struct Live {
    /// Number of the newest commit; 0 is none. Storing it is the commit.
    pub published: AtomicU64,
    _line0: [u64; 7],
    /// (published + 1) in the high half, bytes of journal in the low half.
    pub journal: AtomicU64,
    /// An input or output call under way: see [`Inflight`].
    pub input: Inflight,
    pub output: Inflight,
    /// [`Status`].
    pub status: AtomicU32,
    pub exit_code: AtomicU32,
    /// Signal that ended the program, 0 if it exited.
    pub exit_signal: AtomicU32,
    /// [`FatalCode`].
    pub fatal: AtomicU32,
    /// errno or other detail of `fatal`.
    pub fatal_detail: AtomicU64,
    pub keeper_pid: AtomicU32,
    pub recoveries: AtomicU64,
    /// Crashes in a row from the same commit, and that commit.
    pub crashes: AtomicU64,
    pub crash_commit: AtomicU64,
    /// Commits, pages copied and ns spent in commits since the run began.
    pub commits: AtomicU64,
    pub pages_copied: AtomicU64,
    pub commit_ns: AtomicU64,
    /// Dirty pages that came from the hot set.
    pub pages_hot: AtomicU64,
    /// System calls dispatched, and those that came by SIGSYS.
    pub calls: AtomicU64,
    pub calls_trapped: AtomicU64,
    pub visible_events: AtomicU64,
    pub nd_events: AtomicU64,
    /// Bytes ever appended to the journal.
    pub journal_bytes: AtomicU64,
    /// CLOCK_MONOTONIC ns when the last recovery began (set by the keeper right
    /// after the death was seen) and when the program ran again.
    pub recovery_begin_ns: AtomicU64,
    pub recovery_end_ns: AtomicU64,
    /// Ring of the last recovery times, ns: that of the Nth recovery, which
    /// `recoveries` counts, is at N modulo the length. 0 until it has ended.
    pub recovery_ns: [AtomicU64; 64],
    /// Message that belongs to `fatal`, UTF-8, NUL-terminated.
    pub message: [u8; 512],
    /// Nonzero: `dcrun kill` wants the next death of the worker to be final.
    pub kill_requested: AtomicU32,
    /// Raised by each worker once it has settled what the one before left under
    /// way. Calls under way belong to the generation that they are noted in.
    pub generation: AtomicU64,
    /// Bytes that the worker of `dead_generation` had read and written when it
    /// died, as proc(5) counts them. Written by the keeper, once a generation:
    /// a worker that dies while it recovers must not hide the counts of the
    /// one before.
    pub dead_rchar: AtomicU64,
    pub dead_wchar: AtomicU64,
    pub dead_generation: AtomicU64,
    /// Lines of the trace so far.
    pub trace_sequence: AtomicU64,
    /// Of `nd_events` those whose results went to the log, the bytes of it, and
    /// those whose results were fed from it again.
    pub logged_events: AtomicU64,
    pub logged_bytes: AtomicU64,
    pub replayed_events: AtomicU64,
    /// Messages: of `visible_events` those that left through a socket, of
    /// `nd_events` those that came in through one.
    pub send_events: AtomicU64,
    pub receive_events: AtomicU64,
    /// Times that the log had to be made durable before an event.
    pub log_flushes: AtomicU64,
    /// And the time that this took.
    pub log_flush_ns: AtomicU64,
    /// Commits because the log had reached its bound.
    pub log_bound_commits: AtomicU64,
    /// `protocols::Protocol as u8` of the protocol in force, and how often it
    /// was changed.
    pub protocol_now: AtomicU32,
    pub protocol_moves: AtomicU32,
    /// What things cost, as `auto` has measured it, ns: a commit, a record of the
    /// log, making its tail durable.
    pub cost_commit_ns: AtomicU64,
    pub cost_record_ns: AtomicU64,
    pub cost_flush_ns: AtomicU64,
    /// Why it was changed last, UTF-8, NUL-terminated.
    pub protocol_reason: [u8; 320],
    /// `journal`, as it was when the storage last had all of it.
    pub journal_durable: AtomicU64,
    /// Pages that were mapped from the image because they were cold, ever; and
    /// pieces of memory that were so and woke again.
    pub pages_folded: AtomicU64,
    pub folds_undone: AtomicU64,
    /// The kernel's number of the group that was last given the terminal, if that
    /// was the program's own; else 0. A dead worker's group is known by it.
    pub front_group: AtomicU64,
    /// Signals that came when there was no worker, for the one that recovers: bit N
    /// is signal N + 1. Written by the keeper; the worker takes them out.
    pub signals_missed: AtomicU64,
    /// Signals from outside that the first process's runtime has taken from the kernel, by
    /// number: those that the keeper passed on; those of others, and when the last of these
    /// came, and whose it was ([`crate::stamp::Stamp`]).
    pub signals_passed: [AtomicU32; 32],
    pub signals_of_others: [AtomicU32; 32],
    pub last_of_others: [AtomicU64; 32],
    /// Signals that the first process may have sent itself, or set a timer for: bit N is
    /// signal N + 1.
    pub signals_own: AtomicU64,
    /// One more than the journal's offset of the record about the write to a file
    /// that is under way; 0 is none.
    pub file_write: AtomicU64,
    /// Sum of the kernel's boot id when the newest worker began: after a reboot files
    /// have what had reached the disk, not what was written last.
    pub boot_sum: AtomicU64,
    /// Changes of names that processes of the run have made: paths noted before one may
    /// lead elsewhere behind it.
    pub renames: AtomicU64,
    /// The interval in which a process of the run has last stored into a mapped file.
    pub stored_in: AtomicU64,
    /// Files of processes of the run that have a second name of ours, or more than these
    /// (after a death nobody counts anew): while there are none, nobody looks for them.
    pub second_names: AtomicU64,
    /// A sum of how the program ended: see [`Live::seal_end`].
    pub exit_seal: AtomicU64,
    /// Signals that suspend the run when somebody outside of it sends them, and that its
    /// program then does not get: bit N is signal N + 1. Written by the keeper.
    pub suspend_on: AtomicU64,
    /// The run is to be suspended: the signal that asked for it, or [`ASKED`]; else 0.
    pub suspend_wanted: AtomicU32,
    /// Nonzero: the keeper wants a commit, of whichever process sees this first.
    pub commit_wanted: AtomicU32,
}

/// In `Live::suspend_wanted`: `dcrun suspend` has asked.
pub const ASKED: u32 = 1 << 8;

impl Live {
    fn end_of(&self, image: u64) -> u64 {
        let code = u64::from(self.exit_code.load(Relaxed));
        mix(
            image,
            code << 32 | u64::from(self.exit_signal.load(Relaxed)),
        ) | 1
    }

    /// Notes how the program ended.
    pub fn seal_end(&self, image: u64, code: u32, signal: u32) {
        self.exit_code.store(code, Relaxed);
        self.exit_signal.store(signal, Relaxed);
        self.exit_seal.store(self.end_of(image), Release);
    }

    /// Whether that is what was noted.
    pub fn end_is_sealed(&self, image: u64) -> bool {
        self.exit_seal.load(Acquire) == self.end_of(image)
    }
}

/// In `Live::dead_rchar` and `dead_wchar`: all died at once, and nobody has counted.
pub const UNCOUNTED: u64 = u64::MAX;

/// The call that the worker is in the middle of. After a death the keeper
/// compares `before` with what the kernel counted, and so learns whether the
/// call happened (design: the zombie's /proc/PID/io is exact).
#[repr(C)]
pub struct Inflight {
    /// [`UNDER_WAY`] while the call is; and a sum of what is noted of it.
    pub active: AtomicU32,
    pub fd: AtomicU32,
    /// Bytes asked for.
    pub len: AtomicU64,
    /// `rchar` or `wchar` of its process ([`crate::run::Process`]) before the call.
    pub before: AtomicU64,
    /// Slot of the thread that makes the call.
    pub thread: AtomicU32,
    _pad: u32,
    pub seal: AtomicU64,
    /// Checksum of the bytes written.
    pub sum: AtomicU64,
    /// Output that the kernel notes itself: where in the image its bytes begin
    /// (0: it does not), and how far it has got.
    pub from: AtomicU64,
    pub done: AtomicU64,
}

const UNDER_WAY: u32 = 0x4c4c_4143;

impl Inflight {
    /// Notes that the call of a process is under way, all else of it being noted.
    #[inline(always)]
    pub fn begin(&self, slot: usize) {
        self.seal.store(self.sum_of(slot), Release);
        self.active.store(UNDER_WAY, Release);
    }

    /// And that it is over. (Killed in between it counts as under way, which is found to
    /// be on record.)
    #[inline(always)]
    pub fn end(&self) {
        self.active.store(0, Release);
        self.seal.store(0, Release);
    }

    pub fn is_under_way(&self) -> bool {
        self.active.load(Acquire) != 0 || self.seal.load(Acquire) != 0
    }

    /// Whether what is noted of a call under way is what the process has noted.
    pub fn is_sound(&self, slot: usize) -> bool {
        !self.is_under_way() || self.seal.load(Acquire) == self.sum_of(slot)
    }

    fn sum_of(&self, slot: usize) -> u64 {
        let two = |low: &AtomicU32, high: u32| u64::from(low.load(Relaxed)) | u64::from(high) << 32;
        let who = mix(two(&self.fd, slot as u32), two(&self.thread, 0));
        let what = mix(self.len.load(Relaxed), self.before.load(Relaxed));
        let which = mix(self.sum.load(Relaxed), self.from.load(Relaxed));
        mix(who, mix(what, which)) | 1
    }
}

const _: () = assert!(size_of::<Header>() <= 4096);
const _: () = assert!(size_of::<Live>() <= 4096);

/// FNV-1a, 64 bits: enough to tell a damaged header, small enough for no_std.
pub const fn checksum(bytes: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    let mut i = 0;
    while i < bytes.len() {
        h = (h ^ bytes[i] as u64).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    h
}
