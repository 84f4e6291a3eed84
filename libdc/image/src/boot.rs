//! How the keeper hands a fresh worker to the runtime.
//!
//! The keeper's child maps the runtime, its state, its arena and Rio, writes
//! one [`BootInfo`] to the start of the arena, and jumps to the runtime's entry
//! with its address in `rdi`. From then on nothing of the keeper is reachable:
//! the runtime's first act is to unmap it. Therefore every pointer in here
//! points into the arena.

/// What the worker shall do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Mode {
    /// Load the program and start it.
    Fresh = 0,
    /// The previous worker died, its descriptors are still in the shared table.
    Warm = 1,
    /// Everything died: descriptors are to be made again.
    Cold = 2,
}

/// A string or array in the arena: address and length in elements.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Slice {
    pub addr: u64,
    pub len: u64,
}

/// Descriptors of the runtime itself, by their place above [`BootInfo::fd_base`].
pub mod high_fd {
    pub const RIO: i32 = 0;
    pub const UFFD: i32 = 1;
    pub const PAGEMAP: i32 = 2;
    pub const MEM: i32 = 3;
    pub const TRACE: i32 = 4;
    /// The run's directory in the state directory.
    pub const RUN_DIR: i32 = 5;
    /// The runtime's executable, for the next worker.
    pub const RUNTIME: i32 = 6;
    /// A copy of the keeper's standard error, for messages of the runtime.
    pub const MESSAGES: i32 = 7;
    /// Scratch: a file opened for a moment.
    pub const SCRATCH: i32 = 8;
    /// The directory of the run's image, where the images of its other processes are.
    pub const IMAGES: i32 = 9;
    /// The image of a process that is not the first.
    pub const OWN_IMAGE: i32 = 10;
    /// The process's own /proc/PID/io, for whoever settles what it did at its death.
    pub const COUNTERS: i32 = 11;
    /// The directories of a call that changes names, and the file of one that
    /// changes attributes: open while the call lasts.
    pub const DIRECTORY: i32 = 12;
    pub const OTHER_DIRECTORY: i32 = 13;
    pub const OBJECT: i32 = 14;
    /// A file that is read or written on the way back.
    pub const FILE: i32 = 15;
    /// Where removed files of another file system are kept.
    pub const VAULT: i32 = 16;
    /// The program's working directory.
    pub const CWD: i32 = 17;
    /// A signalfd by which threads wait for signals.
    pub const AWAITED: i32 = 18;
    /// Where the keeper is asked to open what a process may not: see [`crate::opened`].
    pub const ASK: i32 = 19;
    /// /proc, for processes that see it no more.
    pub const PROC: i32 = 20;
    /// For the keeper's own use, up to `DEFERRED`.
    pub const KEEPER: i32 = 24;
    /// Descriptors the program has closed, kept until the next commit.
    pub const DEFERRED: i32 = 64;
    pub const DEFERRED_COUNT: i32 = 928;
    /// In the middle of them, at a cold recovery: terminals that the run had made, until all
    /// have theirs.
    pub const PTYS: i32 = DEFERRED + 400;
    pub const PTYS_COUNT: i32 = 80;
    /// Connections that were accepted in an interval that was lost, until they are again.
    pub const ACCEPTED: i32 = DEFERRED + DEFERRED_COUNT;
    pub const ACCEPTED_COUNT: i32 = 16;
    /// Descriptors that came in messages of an interval that was lost.
    pub const HANDED: i32 = ACCEPTED + ACCEPTED_COUNT;
    pub const HANDED_COUNT: i32 = 16;
    const _: () = assert!(HANDED + HANDED_COUNT <= COUNT);
    /// How many numbers are reserved in all.
    pub const COUNT: i32 = 1024;
}

/// Everything a fresh worker needs to know.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BootInfo {
    pub mode: u32,
    /// `protocols::Protocol as u8`, widened.
    pub protocol: u32,
    /// First of the reserved descriptor numbers; the program sees only lower ones.
    pub fd_base: i32,
    /// Nonzero if Rio must be synced at each commit (disk).
    pub durable: u32,
    /// Commit by the clock as well, every so many ms; 0 is never.
    pub interval_ms: u64,
    /// Bytes of the Rio window to use at the most.
    pub rio_len: u64,
    /// Absolute path of the program file, without a trailing NUL in `len`
    /// (but one is there).
    pub program: Slice,
    /// Argument and environment strings: arrays of addresses of C strings.
    pub argv: Slice,
    pub envp: Slice,
    /// The auxiliary vector as the kernel gave it to the keeper: (type, value).
    pub auxv: Slice,
    /// `RLIMIT_NOFILE` as the program shall see it: soft, hard.
    pub nofile: [u64; 2],
    /// `RLIMIT_AS` and `RLIMIT_DATA` as the program shall see them: soft, hard.
    pub memory_limits: [[u64; 2]; 2],
    /// `RLIMIT_STACK` (soft), bytes.
    pub stack_limit: u64,
    /// Nonzero if threads can be given their old ids (clone3 set_tid).
    pub can_set_tid: u32,
    /// Nonzero if a trace is wanted (descriptor `high_fd::TRACE`).
    pub trace: u32,
    /// Named fault and its count, for tests: see [`fault`].
    pub fault: u32,
    pub fault_at: u64,
    /// Planted bug, for tests: see [`plant`].
    pub plant: u32,
    /// Nonzero: pid of the worker as the program shall see it.
    pub pid: i32,
    /// The kernel's vDSO as the keeper and its children have it: its data, from
    /// below, then its code, which comes last. Of length 0: none.
    pub vdso: [Slice; 4],
    /// First address of the arena that the boot block does not use.
    pub arena_free: u64,
    /// Signals that were blocked when dcrun was called, as rt_sigprocmask has
    /// them. A fresh worker starts with this mask; one that recovers starts
    /// with everything blocked, so that no signal meets a program that has no
    /// handlers yet: the runtime sets the program's mask when it is ready.
    pub sigmask: u64,
    /// Nonzero: the protocol is chosen, and changed, by what things cost here.
    pub auto: u32,
    /// Bytes that the log of an interval may have; one that has more commits.
    pub log_limit: u64,
    /// Time that memory must have been quiet for to be mapped from the image
    /// instead of being held twice, ms; 0 is never.
    pub fold_ms: u64,
    /// The worker's entry in the run's table of processes.
    pub slot: u32,
    /// What a recovery does where others have changed a file: see [`conflict`].
    pub conflict: u32,
    /// Above all of the program's descriptors that were open when dcrun was called.
    pub inherited_end: i32,
}

/// What a recovery does where somebody else has changed what it has to undo.
pub mod conflict {
    /// It stops, and says which file and which part.
    pub const STOP: u32 = 0;
    /// What others left stays; that change of the program is not undone.
    pub const THEIRS: u32 = 1;
    /// It is undone all the same.
    pub const OURS: u32 = 2;
    pub const NAMES: &[(&str, u32)] = &[("theirs", THEIRS), ("ours", OURS)];
}

/// [`BootInfo::log_limit`] unless somebody says otherwise.
pub const LOG_LIMIT: u64 = 4 << 20;

/// [`BootInfo::fold_ms`] unless somebody says otherwise.
pub const FOLD_MS: u64 = 5_000;

/// Crash points, chosen from the environment (`DCRUN_FAULT=name:count`).
pub mod fault {
    pub const NONE: u32 = 0;
    /// Bit of each of them: the keeper dies as well (`DCRUN_FAULT=all-name:count`).
    pub const ALL: u32 = 1 << 31;
    /// Right after the count-th commit is published.
    pub const AFTER_COMMIT: u32 = 1;
    /// Everything copied, nothing published yet.
    pub const BEFORE_PUBLISH: u32 = 2;
    /// Right after a visible call returned from the kernel, before its record.
    pub const AFTER_VISIBLE: u32 = 3;
    /// Right after input was consumed, before its record.
    pub const AFTER_READ: u32 = 4;
    /// In the middle of a recovery.
    pub const IN_RECOVERY: u32 = 5;
    /// A change of a file is on record and not made yet.
    pub const BEFORE_CHANGE: u32 = 6;
    /// It is made, and nothing more is on record.
    pub const AFTER_CHANGE: u32 = 7;
    /// A program is being loaded, and its file is open.
    pub const IN_LOAD: u32 = 8;
    pub const NAMES: &[(&str, u32)] = &[
        ("in-load", IN_LOAD),
        ("after-commit", AFTER_COMMIT),
        ("before-publish", BEFORE_PUBLISH),
        ("after-visible", AFTER_VISIBLE),
        ("after-read", AFTER_READ),
        ("in-recovery", IN_RECOVERY),
        ("before-change", BEFORE_CHANGE),
        ("after-change", AFTER_CHANGE),
    ];
}

/// Bugs that a test plants to see itself catch them (`DCRUN_PLANT=name`).
pub mod plant {
    pub const NONE: u32 = 0;
    pub const SKIP_PAGE: u32 = 1;
    pub const SKIP_COMMIT: u32 = 2;
    pub const REPEAT_WRITE: u32 = 3;
    pub const LOSE_READ: u32 = 4;
    /// Every fifth determinant is left out of the log.
    pub const SKIP_RECORD: u32 = 5;
    /// Memory that is laid together again stays mapped from where it was.
    pub const STALE_FOLD: u32 = 6;
    /// Every third change of a file is not undone.
    pub const SKIP_UNDO: u32 = 7;
    /// What a recovery finds in its image is believed.
    pub const BLIND: u32 = 8;
    /// Every seventh page of a child is not copied.
    pub const SKIP_CHILD_PAGE: u32 = 9;
    /// A recovery forgets how processes have ended that nobody has waited for.
    pub const LOSE_STATUS: u32 = 10;
    /// A pipe that several have is filled twice.
    pub const DOUBLE_PIPE: u32 = 11;
    /// The last process that takes part in every fifth commit does not stage.
    pub const LAG_BEHIND: u32 = 12;
    /// A process that was killed from outside counts as one that was to end.
    pub const OWN_KILL: u32 = 13;
    /// Plus the kind of a record of a change of files: none of that kind is undone.
    pub const SKIP_UNDO_OF: u32 = 100;
    pub const NAMES: &[(&str, u32)] = &[
        ("skip-child-page", SKIP_CHILD_PAGE),
        ("lose-status", LOSE_STATUS),
        ("double-pipe", DOUBLE_PIPE),
        ("lag-behind", LAG_BEHIND),
        ("own-kill", OWN_KILL),
        ("blind", BLIND),
        ("skip-page", SKIP_PAGE),
        ("skip-commit", SKIP_COMMIT),
        ("repeat-write", REPEAT_WRITE),
        ("lose-read", LOSE_READ),
        ("skip-record", SKIP_RECORD),
        ("stale-fold", STALE_FOLD),
        ("skip-undo", SKIP_UNDO),
        ("skip-undo-of-size", SKIP_UNDO_OF + 4),
        ("skip-undo-of-bytes", SKIP_UNDO_OF + 5),
        ("skip-undo-of-created", SKIP_UNDO_OF + 6),
        ("skip-undo-of-made-dir", SKIP_UNDO_OF + 7),
        ("skip-undo-of-unlinked", SKIP_UNDO_OF + 8),
        ("skip-undo-of-removed-dir", SKIP_UNDO_OF + 9),
        ("skip-undo-of-renamed", SKIP_UNDO_OF + 10),
        ("skip-undo-of-meta", SKIP_UNDO_OF + 11),
        ("skip-undo-of-attribute", SKIP_UNDO_OF + 22),
        ("skip-undo-of-wrote", SKIP_UNDO_OF + 23),
        ("skip-undo-of-system-v", SKIP_UNDO_OF + 30),
    ];
}

/// The reserved system call by which a program talks to the runtime: `NUMBER`
/// in rax, one of the operations in rdi, its arguments in rsi and rdx. Without
/// the runtime the kernel answers ENOSYS.
pub mod api {
    /// 0xDC0: far above any number that Linux gives out.
    pub const NUMBER: u64 = 0xdc0;
    /// Answers [`PRESENT`].
    pub const PROBE: u64 = 0;
    /// Commits now; answers 0.
    pub const CHECKPOINT: u64 = 1;
    /// rsi: function, rdx: its argument; it runs before each commit. A runtime
    /// that cannot run code of the program there answers ENOSYS; libdc then
    /// runs the function before the commits that it asks for itself.
    pub const BEFORE_CHECKPOINT: u64 = 2;
    /// rsi: function, rdx: its argument; it runs after each recovery.
    pub const AT_RECOVERY: u64 = 3;
    /// rsi: a [`Statistics`], rdx: its size; the smaller size of both is filled.
    pub const STATISTICS: u64 = 4;
    /// The answer to `PROBE`; its lowest byte is the version of these calls.
    pub const PRESENT: u64 = 0x0dc0_0001;

    /// Counters since the run began. New ones are appended.
    #[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
    #[repr(C)]
    pub struct Statistics {
        /// Number of the newest commit.
        pub published: u64,
        pub recoveries: u64,
        pub pages_copied: u64,
        pub commit_ns: u64,
        pub visible_events: u64,
        pub nd_events: u64,
    }
}

impl BootInfo {
    pub const ZERO: BootInfo = BootInfo {
        mode: 0,
        protocol: 0,
        fd_base: 0,
        durable: 0,
        interval_ms: 0,
        rio_len: 0,
        program: Slice { addr: 0, len: 0 },
        argv: Slice { addr: 0, len: 0 },
        envp: Slice { addr: 0, len: 0 },
        auxv: Slice { addr: 0, len: 0 },
        nofile: [0; 2],
        memory_limits: [[u64::MAX; 2]; 2],
        stack_limit: 0,
        can_set_tid: 0,
        trace: 0,
        fault: 0,
        fault_at: 0,
        plant: 0,
        pid: 0,
        vdso: [Slice { addr: 0, len: 0 }; 4],
        arena_free: 0,
        sigmask: 0,
        auto: 0,
        log_limit: LOG_LIMIT,
        fold_ms: FOLD_MS,
        slot: 0,
        conflict: conflict::STOP,
        inherited_end: 0,
    };
}
