//! Every system call, each in one row.
//!
//! A row says what the call is to the theory (its class), how the runtime
//! treats it, whether it is made again after a handler with SA_RESTART, how its
//! result is logged ([`crate::log::shapes`]), and a note. A number that is not in
//! the table is *unknown*: committed around on both sides, with a warning.
//! `libdc/SYSTEM-CALLS.md` and `libdc/LIMITS.md` are made from it.
#![allow(unsafe_code)]

use crate::engine::engine;
use crate::log::shapes::{self, Shape};
use crate::machine::frame::Local;
use crate::machine::sys::failed;
use crate::{event, object, run, signal, space, sysv, thread};
use core::sync::atomic::{AtomicU64, Ordering::*};

/// What a call is to the theory of consistent recovery. What depends on the
/// descriptor (read, write) is told to the protocol by its handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Re-execution gives the same result, or the handler says otherwise.
    Deterministic,
    NonDeterministic,
}

pub type Handler = fn(&mut Local, [usize; 6]) -> isize;

#[derive(Clone, Copy)]
pub enum How {
    /// Straight to the kernel.
    Pass,
    /// To the kernel, and may last: the thread counts as stopped meanwhile.
    Wait,
    /// A handler that holds the big lock.
    Locked(Handler),
    /// A handler that takes the lock itself.
    Free(Handler),
    /// Answered with an error, and said once.
    Refuse(isize, &'static str),
    /// What it changes is the machine's and no state: committed around on both sides.
    Around,
    /// What it leaves in the process is not kept: committed around on both sides, and why
    /// is said once.
    Lost(&'static str),
    Unknown,
}

pub struct Row {
    pub nr: u16,
    pub name: &'static str,
    pub how: How,
    pub class: Class,
    pub restarts: bool,
    /// How its result is logged, and given back, if it can be.
    pub log: Option<Shape>,
    #[allow(dead_code)] // read by the documentation made from this table
    pub note: &'static str,
}

const LEN: usize = 470;

static UNKNOWN: Row = Row {
    nr: 0,
    name: "unknown",
    how: How::Unknown,
    class: Class::NonDeterministic,
    restarts: false,
    log: None,
    note: "",
};

/// The row of a number.
#[inline(always)]
pub fn row(nr: usize) -> &'static Row {
    match TABLE.get(nr) {
        Some(r) if !r.name.is_empty() => r,
        _ if nr == object::api::NR => &API,
        _ if nr == run::stranger::NR => &STRANGER,
        _ => &UNKNOWN,
    }
}

static API: Row = Row {
    nr: object::api::NR as u16,
    name: "dc",
    how: How::Free(object::api::call),
    class: Class::Deterministic,
    restarts: false,
    log: None,
    note: "the reserved call of libdc",
};

static STRANGER: Row = Row {
    nr: run::stranger::NR as u16,
    name: "stranger",
    how: How::Free(run::stranger::wait),
    class: Class::Deterministic,
    restarts: true,
    log: None,
    note: "the call of a process that stands in a stranger's place",
};

/// True once for each call, so that a message is not repeated.
pub fn first_time(nr: u16) -> bool {
    static SEEN: [AtomicU64; LEN.div_ceil(64) + 1] =
        [const { AtomicU64::new(0) }; LEN.div_ceil(64) + 1];
    let (i, bit) = ((nr as usize).min(LEN) / 64, 1u64 << (nr % 64));
    SEEN[i].fetch_or(bit, Relaxed) & bit == 0
}

/// A call that is no state of a run: committed around. Why nothing of it is kept is said
/// once.
pub fn around(l: &mut Local, args: [usize; 6], lost: Option<&str>) -> isize {
    let number = l.frame.nr;
    let guard = engine().lock.acquire(l);
    if let Some(why) = lost
        && first_time(number.min(LEN) as u16)
    {
        let name = row(number).name;
        crate::say!("system call {number} ({name}) is not kept by a recovery: {why}");
    }
    event::unknown(l);
    object::strays::may_come();
    engine().pieces.wake_arguments(&args);
    drop(guard);
    // It may wait for what another thread does, and writes nobody knows where.
    l.awaited = [(0, usize::MAX), (0, 0), (0, 0), (0, 0)];
    let r = thread::wait_or_signal(l, number, args);
    l.awaited = [(0, 0); 4];
    if !failed(r) && makes_descriptor(number) {
        let _guard = engine().lock.acquire(l);
        return object::descriptor::adopt_made(r as i32);
    }
    r
}

/// A number that the table does not have.
pub fn unknown(l: &mut Local, args: [usize; 6]) -> isize {
    around(l, args, Some("dcrun does not know it"))
}

/// Whether a call that is no state answers with a descriptor: mq_open, perf_event_open,
/// fanotify_init, open_tree, fsopen, fsmount, fspick, pidfd_open, pidfd_getfd, open_tree_attr.
fn makes_descriptor(nr: usize) -> bool {
    matches!(
        nr,
        240 | 298 | 300 | 428 | 430 | 432 | 433 | 434 | 438 | 467
    )
}

use Class::{Deterministic as D, NonDeterministic as N};
use How::{Around, Free, Locked, Lost, Pass, Refuse, Unknown, Wait};

const fn r(
    nr: u16,
    name: &'static str,
    how: How,
    class: Class,
    restarts: bool,
    note: &'static str,
) -> Row {
    Row {
        nr,
        name,
        how,
        class,
        restarts,
        log: shapes::of_call(nr as usize),
        note,
    }
}

const EMPTY: Row = r(0, "", Unknown, N, false, "");

static TABLE: [Row; LEN] = {
    let mut t = [const { EMPTY }; LEN];
    let mut i = 0;
    while i < ROWS.len() {
        let e = &ROWS[i];
        assert!(
            t[e.nr as usize].name.is_empty(),
            "a call stands twice in the table"
        );
        t[e.nr as usize] = r(e.nr, e.name, e.how, e.class, e.restarts, e.note);
        i += 1;
    }
    t
};

#[rustfmt::skip]
static ROWS: &[Row] = &[
    r(0, "read", Free(object::input::read), D, true, "non-deterministic unless the file is the program's own"),
    r(1, "write", Free(object::output::write), D, true, "visible unless the file is the program's own"),
    r(2, "open", Free(object::regular::open), N, true, ""),
    r(3, "close", Free(object::descriptor::close), D, false, ""),
    r(4, "stat", Free(object::stat::call), N, false, "what others may change"),
    r(5, "fstat", Free(object::stat::call), N, false, "sizes and times of files"),
    r(6, "lstat", Free(object::stat::call), N, false, "what others may change"),
    r(7, "poll", Free(object::poll::poll), N, false, ""),
    r(8, "lseek", Locked(object::regular::lseek), D, false, ""),
    r(9, "mmap", Locked(|_, a| space::calls::mmap(a)), D, false, ""),
    r(10, "mprotect", Locked(|_, a| space::calls::mprotect(a)), D, false, ""),
    r(11, "munmap", Locked(|_, a| space::calls::munmap(a)), D, false, ""),
    r(12, "brk", Locked(|_, a| space::calls::brk(a)), D, false, ""),
    r(13, "rt_sigaction", Locked(signal::calls::sigaction), D, false, ""),
    r(14, "rt_sigprocmask", Locked(signal::calls::sigprocmask), D, false, ""),
    r(15, "rt_sigreturn", Locked(|l, _| signal::deliver::sigreturn(l)), D, false, ""),
    r(16, "ioctl", Free(object::tty::ioctl), D, false, ""),
    r(17, "pread64", Free(object::input::pread), D, false, "as read"),
    r(18, "pwrite64", Free(object::output::pwrite), D, false, "as write"),
    r(19, "readv", Free(object::input::readv), D, true, "as read"),
    r(20, "writev", Free(object::output::writev), D, true, "as write"),
    r(21, "access", Free(object::about::access), N, false, "what others may change"),
    r(22, "pipe", Locked(object::pipe::pipe), D, false, ""),
    r(23, "select", Free(object::poll::select), N, false, ""),
    r(24, "sched_yield", Pass, D, false, ""),
    r(25, "mremap", Locked(|_, a| space::calls::mremap(a)), D, false, ""),
    r(26, "msync", Free(object::sync::call), D, false, "as fsync"),
    r(27, "mincore", Pass, D, false, ""),
    r(28, "madvise", Locked(|_, a| space::calls::madvise(a)), D, false, ""),
    r(29, "shmget", Locked(sysv::memory::get), D, false, "within the run; keys that others use are refused"),
    r(30, "shmat", Locked(sysv::memory::attach), D, false, "kept, warm and cold"),
    r(31, "shmctl", Locked(sysv::memory::control), D, false, "kept, warm and cold"),
    r(32, "dup", Locked(object::descriptor::dup), D, false, ""),
    r(33, "dup2", Free(object::descriptor::dup2), D, false, ""),
    r(34, "pause", Wait, N, false, ""),
    r(35, "nanosleep", Wait, N, false, "ends when it would have"),
    r(36, "getitimer", Pass, N, false, ""),
    r(37, "alarm", Locked(object::timers::alarm), N, false, ""),
    r(38, "setitimer", Locked(object::timers::setitimer), N, false, ""),
    r(39, "getpid", Free(object::process::getpid), D, false, ""),
    r(40, "sendfile", Free(object::transfer::sendfile), D, true, "as the reads and writes that it is made of"),
    r(41, "socket", Free(object::socket::make), N, false, ""),
    r(42, "connect", Free(object::socket::tie), N, true, "committed around"),
    r(43, "accept", Free(object::socket::make), N, false, "cold, a connection of others ends"),
    r(44, "sendto", Free(object::socket::send), D, true, "without address as write; else a message, once"),
    r(45, "recvfrom", Free(object::socket::recvfrom), D, true, "without address as read; a datagram goes through the journal"),
    r(46, "sendmsg", Free(object::socket::send), D, true, "without address and control data as writev; else a message, once"),
    r(47, "recvmsg", Free(object::socket::recvmsg), D, true, "as recvfrom; a stream with control data is logged, or committed around"),
    r(48, "shutdown", Free(object::socket::send_like), N, false, "committed around"),
    r(49, "bind", Free(object::socket::tie), N, false, "committed around"),
    r(50, "listen", Free(object::socket::listen), N, false, "committed around"),
    r(51, "getsockname", Pass, N, false, ""),
    r(52, "getpeername", Pass, N, false, ""),
    r(53, "socketpair", Free(object::socket::make), N, false, ""),
    r(54, "setsockopt", Free(object::socket::set_option), N, false, "committed around"),
    r(55, "getsockopt", Free(object::socket::option), N, false, ""),
    r(56, "clone", Free(thread::clone), D, false, ""),
    r(57, "fork", Free(run::birth::fork_call), D, false, ""),
    r(58, "vfork", Free(run::birth::vfork_call), D, false, ""),
    r(59, "execve", Free(object::exec::execve), D, false, ""),
    r(60, "exit", Free(thread::exit), D, false, ""),
    r(61, "wait4", Free(run::wait::wait4), D, true, "from the run's table of processes"),
    r(62, "kill", Free(run::signals::send), D, false, "within the run: its own; to others: a send"),
    r(63, "uname", Pass, D, false, ""),
    r(64, "semget", Locked(sysv::semaphore::get), D, false, "as shmget"),
    r(65, "semop", Free(sysv::semaphore::operate), D, false, "kept, warm and cold"),
    r(66, "semctl", Locked(sysv::semaphore::control), D, false, "kept, warm and cold"),
    r(67, "shmdt", Locked(sysv::memory::detach), D, false, "kept, warm and cold"),
    r(68, "msgget", Locked(sysv::queue::get), D, false, "as shmget"),
    r(69, "msgsnd", Free(sysv::queue::send), D, false, "kept, warm and cold"),
    r(70, "msgrcv", Free(sysv::queue::receive), D, false, "kept, warm and cold"),
    r(71, "msgctl", Locked(sysv::queue::control), D, false, "kept, warm and cold"),
    r(72, "fcntl", Free(object::descriptor::fcntl), D, false, ""),
    r(73, "flock", Free(object::lock::flock), N, true, "taken again cold; to release it commits what was changed"),
    r(74, "fsync", Free(object::sync::call), D, false, "what was changed is committed before"),
    r(75, "fdatasync", Free(object::sync::call), D, false, "what was changed is committed before"),
    r(76, "truncate", Locked(object::tree::change), N, false, "undone on rollback"),
    r(77, "ftruncate", Locked(object::tree::change), N, false, "undone on rollback"),
    r(78, "getdents", Locked(object::regular::getdents), N, false, ""),
    r(79, "getcwd", Pass, D, false, ""),
    r(80, "chdir", Locked(object::process::chdir), N, false, ""),
    r(81, "fchdir", Locked(object::process::chdir), N, false, ""),
    r(82, "rename", Locked(object::tree::change), N, false, "undone on rollback"),
    r(83, "mkdir", Locked(object::tree::change), N, false, "undone on rollback"),
    r(84, "rmdir", Locked(object::tree::change), N, false, "undone on rollback"),
    r(85, "creat", Free(object::regular::creat), N, true, ""),
    r(86, "link", Locked(object::tree::change), N, false, "undone on rollback"),
    r(87, "unlink", Locked(object::tree::change), N, false, "undone on rollback"),
    r(88, "symlink", Locked(object::tree::change), N, false, "undone on rollback"),
    r(89, "readlink", Free(object::about::readlink), N, false, ""),
    r(90, "chmod", Locked(object::tree::change), N, false, "undone on rollback"),
    r(91, "fchmod", Locked(object::tree::change), N, false, "undone on rollback"),
    r(92, "chown", Locked(object::tree::change), N, false, "undone on rollback"),
    r(93, "fchown", Locked(object::tree::change), N, false, "undone on rollback"),
    r(94, "lchown", Locked(object::tree::change), N, false, "undone on rollback"),
    r(95, "umask", Locked(object::process::umask), D, false, ""),
    r(96, "gettimeofday", Pass, N, false, "time, chance and load"),
    r(97, "getrlimit", Locked(object::limits::call), D, false, ""),
    r(98, "getrusage", Free(object::cpu_time::getrusage), N, false, "processor time never goes back"),
    r(99, "sysinfo", Pass, N, false, "time, chance and load"),
    r(100, "times", Free(object::cpu_time::times), N, false, "processor time never goes back"),
    r(101, "ptrace", Refuse(1, "to the kernel all processes of a run are the keeper's children, so a tracer would not hear of its tracee; trace outside of dcrun"), D, false, ""),
    r(102, "getuid", Pass, D, false, ""),
    r(103, "syslog", Around, N, false, ""),
    r(104, "getgid", Pass, D, false, ""),
    r(105, "setuid", Locked(object::identity::change), D, false, "committed with it; kept, warm and cold"),
    r(106, "setgid", Locked(object::identity::change), D, false, "committed with it; kept, warm and cold"),
    r(107, "geteuid", Pass, D, false, ""),
    r(108, "getegid", Pass, D, false, ""),
    r(109, "setpgid", Locked(object::group::setpgid), D, false, "made again, and the terminal taken back"),
    r(110, "getppid", Free(object::group::relatives), D, false, "another one after a cold recovery; logged"),
    r(111, "getpgrp", Free(object::group::relatives), D, false, "as getppid"),
    r(112, "setsid", Locked(object::group::setsid), D, false, "made again"),
    r(113, "setreuid", Locked(object::identity::change), D, false, "committed with it; kept, warm and cold"),
    r(114, "setregid", Locked(object::identity::change), D, false, "committed with it; kept, warm and cold"),
    r(115, "getgroups", Pass, D, false, ""),
    r(116, "setgroups", Locked(object::identity::change), D, false, "committed with it; kept, warm and cold"),
    r(117, "setresuid", Locked(object::identity::change), D, false, "committed with it; kept, warm and cold"),
    r(118, "getresuid", Pass, D, false, ""),
    r(119, "setresgid", Locked(object::identity::change), D, false, "committed with it; kept, warm and cold"),
    r(120, "getresgid", Pass, D, false, ""),
    r(121, "getpgid", Free(object::group::relatives), D, false, "as getppid"),
    r(122, "setfsuid", Locked(object::identity::change), D, false, "committed with it; kept, warm and cold"),
    r(123, "setfsgid", Locked(object::identity::change), D, false, "committed with it; kept, warm and cold"),
    r(124, "getsid", Free(object::group::relatives), D, false, "as getppid"),
    r(125, "capget", Pass, D, false, ""),
    r(126, "capset", Locked(object::identity::change), D, false, "committed with it; kept, warm and cold"),
    r(127, "rt_sigpending", Locked(signal::calls::sigpending), N, false, ""),
    r(128, "rt_sigtimedwait", Free(signal::awaited::sigtimedwait), N, false, ""),
    r(129, "rt_sigqueueinfo", Free(run::signals::send), D, false, "within the run: its own; to others: a send"),
    r(130, "rt_sigsuspend", Free(signal::calls::sigsuspend), N, false, ""),
    r(131, "sigaltstack", Locked(signal::calls::sigaltstack), D, false, ""),
    r(132, "utime", Locked(object::tree::change), N, false, "undone on rollback"),
    r(133, "mknod", Locked(object::tree::change), N, false, "undone on rollback"),
    r(134, "uselib", Pass, D, false, "the kernel has no such call"),
    r(135, "personality", Locked(object::attributes::personality), D, false, "kept, warm and cold"),
    r(136, "ustat", Pass, N, false, "what others may change"),
    r(137, "statfs", Pass, N, false, "what others may change"),
    r(138, "fstatfs", Pass, N, false, "sizes and times of files"),
    r(139, "sysfs", Pass, N, false, "what others may change"),
    r(140, "getpriority", Locked(object::schedule::get_priority), D, false, ""),
    r(141, "setpriority", Locked(object::schedule::set_priority), D, false, "kept, warm and cold"),
    r(142, "sched_setparam", Locked(object::schedule::set), D, false, "kept, warm and cold"),
    r(143, "sched_getparam", Locked(object::schedule::get), D, false, ""),
    r(144, "sched_setscheduler", Locked(object::schedule::set), D, false, "kept, warm and cold"),
    r(145, "sched_getscheduler", Locked(object::schedule::get), D, false, ""),
    r(146, "sched_get_priority_max", Pass, D, false, ""),
    r(147, "sched_get_priority_min", Pass, D, false, ""),
    r(148, "sched_rr_get_interval", Locked(object::schedule::get), D, false, ""),
    r(149, "mlock", Locked(space::locked::range), D, false, "kept, warm and cold"),
    r(150, "munlock", Locked(space::locked::range), D, false, "kept, warm and cold"),
    r(151, "mlockall", Locked(space::locked::all), D, false, "kept, warm and cold"),
    r(152, "munlockall", Locked(space::locked::none), D, false, "kept, warm and cold"),
    r(153, "vhangup", Around, N, false, ""),
    r(154, "modify_ldt", Refuse(38, "segments of its own are not kept"), D, false, ""),
    r(155, "pivot_root", Free(object::attributes::leave_namespace), N, false, "a recovery stops and says so: it cannot go there again"),
    r(156, "_sysctl", Pass, D, false, "the kernel has no such call"),
    r(157, "prctl", Free(object::attributes::prctl), D, false, ""),
    r(158, "arch_prctl", Free(object::process::arch_prctl), D, false, ""),
    r(159, "adjtimex", Around, N, false, ""),
    r(160, "setrlimit", Locked(object::limits::call), D, false, ""),
    r(161, "chroot", Free(object::root_directory::chroot), N, false, "committed around; kept, warm and cold"),
    r(162, "sync", Free(object::sync::call), D, false, "what was changed is committed before"),
    r(163, "acct", Around, N, false, ""),
    r(164, "settimeofday", Around, N, false, ""),
    r(165, "mount", Around, N, false, ""),
    r(166, "umount2", Free(object::deferred_close::unmount), N, false, "committed around; nothing of the runtime's own keeps the file system busy"),
    r(167, "swapon", Around, N, false, ""),
    r(168, "swapoff", Around, N, false, ""),
    r(169, "reboot", Around, N, false, ""),
    r(170, "sethostname", Around, N, false, ""),
    r(171, "setdomainname", Around, N, false, ""),
    r(172, "iopl", Refuse(1, "access to ports is not kept"), D, false, ""),
    r(173, "ioperm", Refuse(1, "access to ports is not kept"), D, false, ""),
    r(174, "create_module", Pass, D, false, "the kernel has no such call"),
    r(175, "init_module", Around, N, false, ""),
    r(176, "delete_module", Around, N, false, ""),
    r(177, "get_kernel_syms", Pass, D, false, "the kernel has no such call"),
    r(178, "query_module", Pass, D, false, "the kernel has no such call"),
    r(179, "quotactl", Around, N, false, ""),
    r(180, "nfsservctl", Pass, D, false, "the kernel has no such call"),
    r(181, "getpmsg", Pass, D, false, "the kernel has no such call"),
    r(182, "putpmsg", Pass, D, false, "the kernel has no such call"),
    r(183, "afs_syscall", Pass, D, false, "the kernel has no such call"),
    r(184, "tuxcall", Pass, D, false, "the kernel has no such call"),
    r(185, "security", Pass, D, false, "the kernel has no such call"),
    r(186, "gettid", Free(thread::gettid), D, false, ""),
    r(187, "readahead", Pass, D, false, "nothing that a rollback must undo"),
    r(188, "setxattr", Locked(object::tree::change), N, false, "undone on rollback"),
    r(189, "lsetxattr", Locked(object::tree::change), N, false, "undone on rollback"),
    r(190, "fsetxattr", Locked(object::tree::change), N, false, "undone on rollback"),
    r(191, "getxattr", Pass, N, false, "what others may change"),
    r(192, "lgetxattr", Pass, N, false, "what others may change"),
    r(193, "fgetxattr", Pass, N, false, "sizes and times of files"),
    r(194, "listxattr", Pass, N, false, "what others may change"),
    r(195, "llistxattr", Pass, N, false, "what others may change"),
    r(196, "flistxattr", Pass, N, false, "sizes and times of files"),
    r(197, "removexattr", Locked(object::tree::change), N, false, "undone on rollback"),
    r(198, "lremovexattr", Locked(object::tree::change), N, false, "undone on rollback"),
    r(199, "fremovexattr", Locked(object::tree::change), N, false, "undone on rollback"),
    r(200, "tkill", Free(run::signals::send), D, false, "within the run: its own; to others: a send"),
    r(201, "time", Pass, N, false, "time, chance and load"),
    r(202, "futex", Free(thread::futex), N, true, "restarts unless it has a timeout"),
    r(203, "sched_setaffinity", Locked(object::schedule::set), D, false, "kept, warm and cold"),
    r(204, "sched_getaffinity", Locked(object::schedule::get), D, false, ""),
    r(205, "set_thread_area", Pass, D, false, "the kernel has no such call"),
    r(206, "io_setup", Locked(object::aio::setup), D, false, "kept, warm and cold"),
    r(207, "io_destroy", Locked(object::aio::destroy), D, false, "kept, warm and cold"),
    r(208, "io_getevents", Free(object::aio::events), D, false, "kept, warm and cold"),
    r(209, "io_submit", Free(object::aio::submit), D, false, "as the reads, writes and syncs that it is made of, at once; of files and block devices only"),
    r(210, "io_cancel", Locked(object::aio::cancel), D, false, "nothing is ever under way"),
    r(211, "get_thread_area", Pass, D, false, "the kernel has no such call"),
    r(212, "lookup_dcookie", Pass, D, false, "the kernel has no such call"),
    r(213, "epoll_create", Locked(object::epoll::create), D, false, ""),
    r(214, "epoll_ctl_old", Pass, D, false, "the kernel has no such call"),
    r(215, "epoll_wait_old", Pass, D, false, "the kernel has no such call"),
    r(216, "remap_file_pages", Refuse(38, "pages out of order are not kept"), D, false, ""),
    r(217, "getdents64", Locked(object::regular::getdents), N, false, ""),
    r(218, "set_tid_address", Locked(thread::set_tid_address), D, false, ""),
    r(219, "restart_syscall", Pass, D, false, ""),
    r(220, "semtimedop", Free(sysv::semaphore::timed), D, false, "as semop"),
    r(221, "fadvise64", Pass, D, false, "nothing that a rollback must undo"),
    r(222, "timer_create", Locked(object::timers::create), D, false, ""),
    r(223, "timer_settime", Locked(object::timers::settime), N, false, ""),
    r(224, "timer_gettime", Pass, N, false, ""),
    r(225, "timer_getoverrun", Pass, N, false, ""),
    r(226, "timer_delete", Locked(object::timers::delete), D, false, ""),
    r(227, "clock_settime", Around, N, false, ""),
    r(228, "clock_gettime", Free(object::cpu_time::clock_gettime), N, false, "time, chance and load"),
    r(229, "clock_getres", Pass, D, false, ""),
    r(230, "clock_nanosleep", Wait, N, false, "ends when it would have"),
    r(231, "exit_group", Free(object::process::exit_group), D, false, ""),
    r(232, "epoll_wait", Free(object::epoll::wait), N, false, ""),
    r(233, "epoll_ctl", Locked(object::epoll::ctl), D, false, ""),
    r(234, "tgkill", Free(run::signals::send), D, false, "within the run: its own; to others: a send"),
    r(235, "utimes", Locked(object::tree::change), N, false, "undone on rollback"),
    r(236, "vserver", Pass, D, false, "the kernel has no such call"),
    r(237, "mbind", Pass, D, false, "on which node memory lies is not kept: it only makes a difference of speed"),
    r(238, "set_mempolicy", Pass, D, false, "on which node memory lies is not kept: it only makes a difference of speed"),
    r(239, "get_mempolicy", Pass, D, false, ""),
    r(240, "mq_open", Lost("messages in a queue are the kernel's: one that a lost interval has received is gone, and descriptors of queues come back warm only"), N, false, ""),
    r(241, "mq_unlink", Around, N, false, ""),
    r(242, "mq_timedsend", Lost("messages in a queue are the kernel's: one that a lost interval has received is gone, and descriptors of queues come back warm only"), N, false, ""),
    r(243, "mq_timedreceive", Lost("messages in a queue are the kernel's: one that a lost interval has received is gone, and descriptors of queues come back warm only"), N, false, ""),
    r(244, "mq_notify", Lost("messages in a queue are the kernel's: one that a lost interval has received is gone, and descriptors of queues come back warm only"), N, false, ""),
    r(245, "mq_getsetattr", Lost("messages in a queue are the kernel's: one that a lost interval has received is gone, and descriptors of queues come back warm only"), N, false, ""),
    r(246, "kexec_load", Around, N, false, ""),
    r(247, "waitid", Free(run::wait::waitid), D, true, "from the run's table of processes"),
    r(248, "add_key", Around, N, false, ""),
    r(249, "request_key", Around, N, false, ""),
    r(250, "keyctl", Lost("keyrings of its own, and a session's that it has joined, are lost with the process"), N, false, ""),
    r(251, "ioprio_set", Locked(object::schedule::set_priority), D, false, "kept, warm and cold"),
    r(252, "ioprio_get", Locked(object::schedule::get_priority), D, false, ""),
    r(253, "inotify_init", Locked(object::inotify::init), N, false, ""),
    r(254, "inotify_add_watch", Free(object::inotify::add_watch), N, false, ""),
    r(255, "inotify_rm_watch", Free(object::inotify::remove_watch), N, false, ""),
    r(256, "migrate_pages", Pass, N, false, "on which node memory lies is not kept: it only makes a difference of speed"),
    r(257, "openat", Free(object::regular::openat), N, true, ""),
    r(258, "mkdirat", Locked(object::tree::change), N, false, "undone on rollback"),
    r(259, "mknodat", Locked(object::tree::change), N, false, "undone on rollback"),
    r(260, "fchownat", Locked(object::tree::change), N, false, "undone on rollback"),
    r(261, "futimesat", Locked(object::tree::change), N, false, "undone on rollback"),
    r(262, "newfstatat", Free(object::stat::call), N, false, "what others may change"),
    r(263, "unlinkat", Locked(object::tree::change), N, false, "undone on rollback"),
    r(264, "renameat", Locked(object::tree::change), N, false, "undone on rollback"),
    r(265, "linkat", Locked(object::tree::change), N, false, "undone on rollback"),
    r(266, "symlinkat", Locked(object::tree::change), N, false, "undone on rollback"),
    r(267, "readlinkat", Free(object::about::readlink), N, false, "what others may change"),
    r(268, "fchmodat", Locked(object::tree::change), N, false, "undone on rollback"),
    r(269, "faccessat", Free(object::about::access), N, false, "what others may change"),
    r(270, "pselect6", Free(object::poll::pselect6), N, false, ""),
    r(271, "ppoll", Free(object::poll::ppoll), N, false, ""),
    r(272, "unshare", Free(object::attributes::leave_namespace), N, false, "a recovery stops and says so: it cannot go there again"),
    r(273, "set_robust_list", Locked(thread::set_robust_list), D, false, ""),
    r(274, "get_robust_list", Pass, D, false, ""),
    r(275, "splice", Free(object::transfer::splice), D, true, "as the reads and writes that it is made of"),
    r(276, "tee", Free(object::transfer::tee), D, true, "as the reads and writes that it is made of"),
    r(277, "sync_file_range", Free(object::sync::call), D, false, "what was changed is committed before"),
    r(278, "vmsplice", Free(object::transfer::vmsplice), D, true, "as the reads and writes that it is made of"),
    r(279, "move_pages", Pass, N, false, "on which node memory lies is not kept: it only makes a difference of speed"),
    r(280, "utimensat", Locked(object::tree::change), N, false, "undone on rollback"),
    r(281, "epoll_pwait", Free(object::epoll::wait), N, false, ""),
    r(282, "signalfd", Locked(object::signalfd::signalfd), D, false, ""),
    r(283, "timerfd_create", Locked(object::timerfd::create), D, false, ""),
    r(284, "eventfd", Locked(object::eventfd::eventfd), D, false, ""),
    r(285, "fallocate", Locked(object::tree::change), N, false, "undone on rollback"),
    r(286, "timerfd_settime", Locked(object::timerfd::settime), N, false, ""),
    r(287, "timerfd_gettime", Pass, N, false, ""),
    r(288, "accept4", Free(object::socket::make), N, false, "cold, a connection of others ends"),
    r(289, "signalfd4", Locked(object::signalfd::signalfd), D, false, ""),
    r(290, "eventfd2", Locked(object::eventfd::eventfd2), D, false, ""),
    r(291, "epoll_create1", Locked(object::epoll::create1), D, false, ""),
    r(292, "dup3", Free(object::descriptor::dup3), D, false, ""),
    r(293, "pipe2", Locked(object::pipe::pipe2), D, false, ""),
    r(294, "inotify_init1", Locked(object::inotify::init), N, false, ""),
    r(295, "preadv", Free(object::input::pread), D, false, "as read"),
    r(296, "pwritev", Free(object::output::pwritev), D, false, "as write"),
    r(297, "rt_tgsigqueueinfo", Free(run::signals::send), D, false, "within the run: its own; to others: a send"),
    r(298, "perf_event_open", Lost("what counts the process does not count the one that a recovery makes"), N, false, ""),
    r(299, "recvmmsg", Free(object::socket::send_like), N, true, "consumes; committed around"),
    r(300, "fanotify_init", Lost("marks, and events that wait, come back warm only"), N, false, ""),
    r(301, "fanotify_mark", Lost("marks, and events that wait, come back warm only"), N, false, ""),
    r(302, "prlimit64", Locked(object::limits::call), D, false, ""),
    r(303, "name_to_handle_at", Pass, N, false, "what others may change"),
    r(304, "open_by_handle_at", Free(object::handle::open), N, false, "as open"),
    r(305, "clock_adjtime", Around, N, false, ""),
    r(306, "syncfs", Free(object::sync::call), D, false, "what was changed is committed before"),
    r(307, "sendmmsg", Free(object::socket::send_several), D, true, "as sendmsg, one after the other"),
    r(308, "setns", Free(object::attributes::leave_namespace), N, false, "a recovery stops and says so: it cannot go there again"),
    r(309, "getcpu", Pass, N, false, "time, chance and load"),
    r(310, "process_vm_readv", Free(object::other_memory::read), N, false, ""),
    r(311, "process_vm_writev", Free(object::other_memory::write), N, false, "its own; refused (EPERM) of a process of the run; of others committed around"),
    r(312, "kcmp", Pass, N, false, ""),
    r(313, "finit_module", Around, N, false, ""),
    r(314, "sched_setattr", Locked(object::schedule::set), D, false, "kept, warm and cold"),
    r(315, "sched_getattr", Locked(object::schedule::get), D, false, ""),
    r(316, "renameat2", Locked(object::tree::change), N, false, "undone on rollback"),
    r(317, "seccomp", Locked(object::seccomp::call), D, false, "the runtime asks the filters; kept, warm and cold; user notification is refused"),
    r(318, "getrandom", Pass, N, false, "time, chance and load"),
    r(319, "memfd_create", Locked(object::memfd::create), D, false, ""),
    r(320, "kexec_file_load", Around, N, false, ""),
    r(321, "bpf", Refuse(1, "its maps and programs are not kept"), D, false, ""),
    r(322, "execveat", Free(object::exec::execveat), D, false, ""),
    r(323, "userfaultfd", Refuse(1, "the runtime tracks memory by it"), D, false, ""),
    r(324, "membarrier", Locked(object::attributes::membarrier), D, false, "registrations are kept"),
    r(325, "mlock2", Locked(space::locked::range), D, false, "kept, warm and cold"),
    r(326, "copy_file_range", Free(object::transfer::copy_file_range), D, true, "as the reads and writes that it is made of"),
    r(327, "preadv2", Free(object::input::pread), D, false, "as read"),
    r(328, "pwritev2", Free(object::output::pwritev), D, false, "as write"),
    r(329, "pkey_mprotect", Refuse(38, "protection keys are not kept"), D, false, ""),
    r(330, "pkey_alloc", Refuse(38, ""), D, false, ""),
    r(331, "pkey_free", Refuse(38, "protection keys are not kept"), D, false, ""),
    r(332, "statx", Free(object::stat::call), N, false, "what others may change"),
    r(333, "io_pgetevents", Free(object::aio::events_masked), D, false, "as io_getevents"),
    r(334, "rseq", Locked(thread::rseq), D, false, ""),
    r(424, "pidfd_send_signal", Free(object::pidfd::send_signal), D, false, "within the run as kill; else committed around"),
    r(425, "io_uring_setup", Refuse(38, "rings would be written behind the runtime"), D, false, ""),
    r(426, "io_uring_enter", Refuse(38, "rings would be written behind the runtime"), D, false, ""),
    r(427, "io_uring_register", Refuse(38, "rings would be written behind the runtime"), D, false, ""),
    r(428, "open_tree", Lost("a mount that has no place yet comes back warm only"), N, false, ""),
    r(429, "move_mount", Around, N, false, ""),
    r(430, "fsopen", Lost("a mount that has no place yet comes back warm only"), N, false, ""),
    r(431, "fsconfig", Around, N, false, ""),
    r(432, "fsmount", Lost("a mount that has no place yet comes back warm only"), N, false, ""),
    r(433, "fspick", Lost("a mount that has no place yet comes back warm only"), N, false, ""),
    r(434, "pidfd_open", Free(object::pidfd::open), N, false, "of a process of the run: kept, warm and cold; else committed around"),
    r(435, "clone3", Free(thread::clone3), D, false, ""),
    r(436, "close_range", Free(object::descriptor::close_range), D, false, ""),
    r(437, "openat2", Free(object::openat2::openat2), N, true, "as openat; what is made is undone by names"),
    r(438, "pidfd_getfd", Free(object::pidfd::get_descriptor), N, false, "refused (EPERM) of a process of the run; else committed around"),
    r(439, "faccessat2", Free(object::about::access), N, false, "what others may change"),
    r(440, "process_madvise", Refuse(38, "advice to another process is not noted there; madvise(2) is"), D, false, ""),
    r(441, "epoll_pwait2", Free(object::epoll::wait), N, false, ""),
    r(442, "mount_setattr", Around, N, false, ""),
    r(443, "quotactl_fd", Around, N, false, ""),
    r(444, "landlock_create_ruleset", Refuse(95, "it would bind the runtime too"), D, false, ""),
    r(445, "landlock_add_rule", Refuse(95, "it would bind the runtime too"), D, false, ""),
    r(446, "landlock_restrict_self", Refuse(95, "it would bind the runtime too"), D, false, ""),
    r(447, "memfd_secret", Refuse(38, ""), D, false, "memory that nobody may read cannot be committed"),
    r(448, "process_mrelease", Around, N, false, ""),
    r(449, "futex_waitv", Free(thread::futex_waitv), N, false, ""),
    r(450, "set_mempolicy_home_node", Pass, D, false, "on which node memory lies is not kept: it only makes a difference of speed"),
    r(451, "cachestat", Pass, N, false, "what others may change"),
    r(452, "fchmodat2", Locked(object::tree::change), N, false, "undone on rollback"),
    r(453, "map_shadow_stack", Refuse(38, "shadow stacks are not kept"), D, false, ""),
    r(454, "futex_wake", Refuse(38, "futex(2) is there"), D, false, ""),
    r(455, "futex_wait", Refuse(38, "futex(2) is there"), D, false, ""),
    r(456, "futex_requeue", Refuse(38, "futex(2) is there"), D, false, ""),
    r(457, "statmount", Pass, N, false, "what others may change"),
    r(458, "listmount", Pass, N, false, "what others may change"),
    r(459, "lsm_get_self_attr", Pass, N, false, "what others may change"),
    r(460, "lsm_set_self_attr", Refuse(95, "a label of its own is not kept"), D, false, ""),
    r(461, "lsm_list_modules", Pass, N, false, "what others may change"),
    r(462, "mseal", Refuse(38, "a recovery could not put such memory back"), D, false, ""),
    r(463, "setxattrat", Refuse(38, "the calls by path or descriptor are there"), D, false, ""),
    r(464, "getxattrat", Refuse(38, "the calls by path or descriptor are there"), D, false, ""),
    r(465, "listxattrat", Refuse(38, "the calls by path or descriptor are there"), D, false, ""),
    r(466, "removexattrat", Refuse(38, "the calls by path or descriptor are there"), D, false, ""),
    r(467, "open_tree_attr", Lost("a mount that has no place yet comes back warm only"), N, false, ""),
];
