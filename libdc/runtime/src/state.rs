//! The state that a rollback restores, besides the program's pages.
//!
//! It lies in its own window, is tracked and committed page by page like the
//! program's memory, and so needs no calls that announce a change. All zero
//! bytes is the empty state. Plain data only: no pointer into the runtime.
//!
//! ```text
//! Root | threads | descriptors | mappings | open files | memory behind descriptors
//! ```

use crate::engine::MAX_THREADS;
use crate::machine::frame::Frame;
use crate::machine::vector::XsaveArea;
use crate::object::attributes::Attributes;
use crate::object::cpu_time::CpuTime;
use crate::object::identity::{Credentials, GROUPS_MAX};
use crate::object::inotify::{WATCHES, Watch};
use crate::object::limits::Limits;
use crate::object::memfd::{MAX_OBJECTS, MemoryObject};
use crate::object::schedule::Schedule;
use crate::object::seccomp;
use crate::signal::queue::SigInfo;
use crate::space::advice::Advice;
use dc_image::state_head::StateHead;
use dc_image::window;

/// Tables have room for more than the kernel gives a process of such limits; only what
/// is used of them takes memory. Where one is full, the call answers as the kernel does
/// at its own limit.
pub const MAX_FDS: usize = 1 << 16;
pub const MAX_VMAS: usize = (1 << 16) + (1 << 14);
pub const MAX_FILES: usize = (1 << 15) + (1 << 14);
pub const MAX_EPOLL: usize = 1 << 15;

#[repr(C)]
pub struct State {
    pub root: Root,
    pub threads: [ThreadRecord; MAX_THREADS],
    pub locks: [crate::object::lock::Held; crate::object::lock::MAX_LOCKS],
    pub epoll: [EpollEntry; MAX_EPOLL],
    pub fds: [Descriptor; MAX_FDS],
    pub vmas: [Vma; MAX_VMAS],
    /// How many descriptors and mappings refer to each open file; 0 is free.
    pub file_refs: [u32; MAX_FILES],
    pub memory_objects: [MemoryObject; MAX_OBJECTS],
    /// Groups of threads that have more than their records hold.
    pub groups: [u32; GROUPS_MAX],
    /// Filters of system calls, of all threads.
    pub filters: seccomp::table::Table,
    pub files: [OpenFile; MAX_FILES],
}

const _: () = assert!(size_of::<State>() <= window::STATE_LEN);

/// Open files that every program has room for: a commit looks for written pages in all of
/// the state, so more of it counts only when it is used.
const FILES_AT_FIRST: usize = 1 << 12;

impl State {
    /// Bytes that commits look at. (The open files lie last.)
    pub fn in_use() -> usize {
        let used = crate::engine::state().root.file_high as usize;
        let files = match used {
            0..=FILES_AT_FIRST => FILES_AT_FIRST,
            _ => MAX_FILES,
        };
        core::mem::offset_of!(State, files) + files * size_of::<OpenFile>()
    }
}

#[repr(C, align(4096))]
pub struct Root {
    pub head: StateHead,
    /// The protocol, as it is right behind a commit.
    pub machine_at_start: protocols::Machine,
    /// Mappings lie in `State::vmas` from the first one on: areas come at the low end
    /// as a rule, and need not move all the others.
    pub vma_first: u32,
    pub vma_count: u32,
    pub pid: i32,
    pub umask: u32,
    /// Nonzero once the process has had a child of the run, or is one.
    pub tree: u32,
    /// Nonzero: this process stands in a stranger's place.
    pub stands_in: u32,
    /// The highest open file ever used (index + 1).
    pub file_high: u32,
    /// Whether the process's group was given the terminal: see object::group.
    pub has_terminal: u32,
    /// One above the highest descriptor ever used.
    pub fd_high: u32,
    /// Open sockets that have an entry of what processes share.
    pub socket_ends: u32,
    /// Entries of `State::epoll` that were ever in use.
    pub epoll_high: u32,
    /// Entries of `State::locks` that were ever in use.
    pub lock_high: u32,
    /// The commit that has noted how files are, inside of a lock: see object::undo::stamp.
    pub stamped: u64,
    pub lock_names: crate::object::lock::by_name::Names,
    /// A file is mapped that others may write, and only read.
    pub reads_shared: u32,
    /// Emulated heap: start, current end.
    pub brk_start: u64,
    pub brk_now: u64,
    /// Where the last search for a free area ended.
    pub mmap_hint: u64,
    pub nofile: [u64; 2],
    /// How memory that comes is locked, as mlockall(2) was told.
    pub lock_to_come: u32,
    pub actions: [SigAction; 65],
    /// Signals from outside that were delivered, by number: see
    /// `Live::signals_taken`.
    pub signals_delivered: [u32; 32],
    /// Signals that wait in the kernel for a signalfd to read them.
    pub for_signalfd: [SigInfo; 64],
    pub for_signalfd_len: u32,
    /// Signals for the process that all of its threads block: see signal::for_process.
    pub signals: crate::signal::queue::Queue,
    pub itimers: [ITimer; 3],
    pub timers: [PosixTimer; 1024],
    /// Entries of `timers` that were ever used.
    pub timer_high: u32,
    /// Number of the next one.
    pub next_timer: i32,
    /// Bytes in `pushback` that the program has yet to read again.
    pub pushback_len: u64,
    /// Records: fd u32, len u32, bytes (see object::input).
    pub pushback: [u8; 1 << 20],
    /// What lies in the program's own pipes (see object::pipe).
    pub pipe_data_len: u64,
    pub pipe_data: [u8; 1 << 20],
    /// Rings of asynchronous I/O: see object::aio.
    pub aio: [u64; crate::object::aio::RINGS],
    /// Watches of files: see object::inotify.
    pub watch_high: u32,
    pub watches: [Watch; WATCHES],
    /// Function to run at recovery, and its argument (libdc).
    pub at_recovery: [usize; 2],
    /// Where that function returns to: a stub that ends in rt_sigreturn.
    pub recovery_return: usize,
    pub limits: Limits,
    pub attributes: Attributes,
    pub cpu: CpuTime,
    pub cpu_of_children: CpuTime,
    /// It has moved to namespaces or a root directory of its own: see
    /// object::attributes.
    pub left_behind: u32,
    /// See object::root_directory: its path, and device and inode, zeros if it is dcrun's.
    pub root_directory: [u8; crate::object::root_directory::ROOM],
    pub root_is: [u64; 2],
    pub comm: [u8; 16],
    pub cwd: [u8; 4096],
    /// The working directory itself: device, inode.
    pub cwd_is: [u64; 2],
    /// Absolute path of the program file, for /proc/self/exe.
    pub exe: [u8; 4096],
    /// What else /proc tells of the program: see object::about.
    pub ranges: crate::object::about::Ranges,
}

impl ITimer {
    pub const NONE: ITimer = ITimer {
        interval_us: 0,
        deadline_ns: 0,
        remaining_us: 0,
    };
}

/// `struct sigaction` as the kernel has it.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct SigAction {
    pub handler: usize,
    pub flags: usize,
    pub restorer: usize,
    pub mask: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ITimer {
    pub interval_us: u64,
    /// CLOCK_MONOTONIC deadline, ns, 0 is disarmed.
    pub deadline_ns: u64,
    pub remaining_us: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct PosixTimer {
    pub used: u32,
    pub clock: u32,
    pub id: i32,
    pub abs: u32,
    pub sigevent: [u8; 64],
    pub spec: [u64; 4],
    /// When `spec` was set, CLOCK_MONOTONIC ns.
    pub set_at_ns: u64,
}

/// One thread. What changes with every commit, the registers, lies in the first
/// page: what the processor's compact format leaves out is never written.
#[repr(C, align(4096))]
pub struct ThreadRecord {
    pub used: u32,
    pub tid: i32,
    /// Bytes that the call under way has moved so far, where it moves them in parts
    /// ([`crate::object::output`], [`crate::object::input`]).
    pub moved_bytes: usize,
    /// Messages that the call under way has sent so far ([`crate::object::socket`]).
    pub messages_sent: usize,
    /// How far a submission of asynchronous I/O is.
    pub aio: crate::object::aio::Progress,
    pub frame: Frame,
    pub sigmask: u64,
    pub altstack: [usize; 3],
    pub clear_tid: usize,
    pub robust_list: [usize; 2],
    pub rseq: [usize; 3],
    /// Mask to return to after sigsuspend, ppoll and the like.
    pub saved_mask: u64,
    pub has_saved_mask: u32,
    /// The child that it waits for (vfork), as the program knows it.
    pub vforked: i32,
    /// The descriptor + 1 of a fifo that it has opened, while it waits for who opens the
    /// other end.
    pub fifo_opened: i32,
    pub name: [u8; 16],
    pub xsave: XsaveArea,
    pub queue: crate::signal::queue::Queue,
    pub credentials: Credentials,
    pub schedule: Schedule,
    pub cpu: CpuTime,
    pub seccomp: seccomp::OfThread,
}

impl ThreadRecord {
    /// Another thread has it from now on, or its thread leaves the call that it was in.
    pub fn has_no_call_under_way(&mut self) {
        (self.moved_bytes, self.messages_sent) = (0, 0);
        (self.vforked, self.fifo_opened) = (0, 0);
        self.aio = Default::default();
        self.has_saved_mask = 0;
    }
}

const _: () = assert!(core::mem::offset_of!(ThreadRecord, xsave) <= 1024);

/// One descriptor in an epoll set.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct EpollEntry {
    /// The set's open file, 0 if the entry is free.
    pub epoll: u32,
    pub target: u32,
    pub fd: i32,
    pub events: u32,
    pub data: u64,
    /// Its input that is fed again has been reported, as an edge is: once.
    pub fed: u32,
    /// A parent has entered it, before this process was made.
    pub inherited: u32,
}

/// One descriptor number.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Descriptor {
    /// Index into `files` + 1; 0 is closed.
    pub file: u16,
    pub cloexec: u8,
    pub _pad: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    None = 0,
    Regular,
    Directory,
    Tty,
    Pipe,
    Socket,
    EventFd,
    TimerFd,
    SignalFd,
    Epoll,
    Inotify,
    MemFd,
    /// Character and block devices without state (null, zero, urandom).
    Device,
    /// Files of proc and sys, and whatever cannot be told.
    Other,
    /// A process of the run.
    PidFd,
}

/// [`OpenFile::inherited`]: nobody else.
pub const OWN: u32 = 0;
/// Received from another process, or made by a call that nobody knows: not rewound
/// either, and no other dcrun is given it.
pub const RECEIVED: u32 = u32::MAX;

/// An open file description, shared by the descriptors that `dup` made.
#[repr(C, align(4096))]
pub struct OpenFile {
    pub kind: Kind,
    /// Flags of open(2) without O_CREAT, O_EXCL and O_TRUNC.
    pub flags: u32,
    pub mode: u32,
    /// What other processes know of it too: index + 1, see `run::shared`.
    pub shared: u32,
    /// Entries of epoll sets that mean it.
    pub watched: u32,
    pub dev: u64,
    pub ino: u64,
    pub offset: u64,
    /// Who else has this description: [`OWN`], [`RECEIVED`], or the number under which
    /// dcrun was given it, plus one. Then it belongs to others too and is not rewound.
    pub inherited: u32,
    /// The offset may have changed since the last commit.
    pub touched: u32,
    /// No name of the program's leads to it any more, but one of ours: see
    /// object::undo::nameless.
    pub unlinked: u32,
    /// Both ends of a pipe are this process's: index + 1 of the other one.
    pub peer: u32,
    /// eventfd: counter and flags; timerfd: clock; memory of each kind.
    pub words: [u64; 16],
    pub termios_set: u32,
    pub termios: [u8; 64],
    pub path_len: u32,
    pub path: [u8; 3072],
}

/// One area of the program's address space.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Vma {
    pub start: u64,
    pub end: u64,
    pub prot: u32,
    /// MAP_* as given (without MAP_FIXED).
    pub flags: u32,
    /// Index into `files` + 1; 0 is anonymous.
    pub file: u32,
    /// Registered for write tracking.
    pub tracked: u16,
    pub advice: Advice,
    pub offset: u64,
}
