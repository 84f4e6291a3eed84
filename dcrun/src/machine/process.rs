//! Processes: what the keeper asks the kernel about itself and its children.

use std::io;
use std::mem::MaybeUninit;

/// How a child changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Exited(i32),
    Killed(i32),
    Stopped(i32),
    Continued,
}

/// Looks, without waiting and without reaping, whether `pid` is dead.
pub fn peek_death(pid: i32) -> Option<Change> {
    if pid == 0 {
        return None;
    }
    peek(libc::P_PID, pid, libc::WEXITED).map(|(_, change)| change)
}

/// Looks, without taking note of it, whether `pid` is stopped at this moment.
pub fn peek_stop(pid: i32) -> Option<Change> {
    if pid == 0 {
        return None;
    }
    peek(libc::P_PID, pid, libc::WSTOPPED).map(|(_, change)| change)
}

/// A child that was stopped or continued since somebody asked.
pub fn take_stop() -> Option<(i32, Change)> {
    look(libc::P_ALL, 0, libc::WSTOPPED | libc::WCONTINUED)
}

/// Looks for any dead child.
pub fn peek_any_death() -> Option<(i32, Change)> {
    peek(libc::P_ALL, 0, libc::WEXITED)
}

/// What proc(5) counts of a process that is dead and not yet reaped; a user may read it of
/// his own processes only as long as they live.
pub fn counters_of(dead: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{dead}/io")).ok()
}

/// Signals that were sent to a process before it died and that it never took:
/// bit 0 is signal 1. The kernel keeps them, and says so, until it is reaped.
pub fn pending_signals(dead: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{dead}/status")).unwrap_or_default();
    parse_pending(&status) & !(1 << (libc::SIGKILL - 1))
}

/// Whether a process is dead or about to be: it has been killed, or is gone.
pub fn is_dying(pid: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return true;
    };
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    let is_dead = state.is_some_and(|state| state.trim_start().starts_with(['Z', 'X']));
    is_dead || parse_pending(&status) & 1 << (libc::SIGKILL - 1) != 0
}

/// Signals that a process has yet to take, and does not block by its first thread.
pub fn signals_on_their_way(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parse_pending(&status) & !parse_masks(&status, &["SigBlk:"])
}

/// Whether a thread of a process blocks a signal: by its own wish, or because it is in a handler.
pub fn is_blocked_in(pid: i32, number: i32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.flatten().any(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        parse_masks(&status, &["SigBlk:"]) << 1 >> number & 1 != 0
    })
}

fn parse_pending(status: &str) -> u64 {
    parse_masks(status, &["SigPnd:", "ShdPnd:"])
}

fn parse_masks(status: &str, keys: &[&str]) -> u64 {
    keys.iter()
        .filter_map(|key| status.lines().find_map(|line| line.strip_prefix(key)))
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .fold(0, |all, mask| all | mask)
}

/// Wakes whoever waits for a word in memory that processes share (futex(2)).
pub fn wake(word: &std::sync::atomic::AtomicU32) {
    // SAFETY: the word is mapped; nothing is written.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Waits while a word in memory that processes share has this value (futex(2)); may come
/// back early.
pub fn wait_while(word: &std::sync::atomic::AtomicU32, value: u32) {
    let forever = std::ptr::null::<libc::timespec>();
    // SAFETY: the word is mapped; nothing is written.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            forever,
        )
    };
}

/// Whether a child of this process lives.
pub fn is_alive(pid: i32) -> bool {
    // SAFETY: takes no pointer; the null signal is only asked about.
    (unsafe { libc::kill(pid, 0) }) == 0 && peek_death(pid).is_none()
}

/// Whether a number is that of a child of this process, dead or alive; opens nothing.
pub fn is_own_child(pid: i32) -> bool {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: info has room for one siginfo.
    (unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, info.as_mut_ptr(), options) }) == 0
}

/// Waits until `pid` is dead, without reaping it.
pub fn await_death(pid: i32) {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: info has room for one siginfo.
    while unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, info.as_mut_ptr(), options) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// All children of this process, dead ones among them.
pub fn children() -> Vec<i32> {
    let own = pid();
    let numbers = |text: String| {
        text.split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect()
    };
    // proc(5): only if the kernel was built with CONFIG_PROC_CHILDREN.
    if let Ok(text) = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
        return numbers(text);
    }
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| parent_of(pid) == Some(own))
        .collect()
}

/// The parent of a process of this pid namespace.
pub fn parent_of(pid: i32) -> Option<i32> {
    let rest = behind_name(format!("/proc/{pid}/stat"))?;
    rest.split(' ').nth(1)?.parse().ok()
}

/// What a process's or thread's `stat` tells, from its state on (proc_pid_stat(5)).
fn behind_name(stat: impl AsRef<std::path::Path>) -> Option<String> {
    // The name stands in brackets, and may hold brackets and spaces itself.
    let stat = std::fs::read_to_string(stat).ok()?;
    stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned())
}

/// Whether a process is stopped, by a signal.
pub fn is_stopped(pid: i32) -> bool {
    behind_name(format!("/proc/{pid}/stat")).is_some_and(|rest| rest.starts_with('T'))
}

/// Whether a process has ended and nobody has reaped it.
pub fn is_zombie(pid: i32) -> bool {
    behind_name(format!("/proc/{pid}/stat")).is_some_and(|rest| rest.starts_with('Z'))
}

/// Whether a process has ended and still gives up what it had open. The kernel closes that in
/// the order that it likes: locks may be free before pipes are left (proc_pid_stat(5), flags).
pub fn is_giving_up(pid: i32) -> bool {
    const PF_EXITING: u64 = 4;
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    let mut any = false;
    for thread in threads.filter_map(Result::ok) {
        let Some(rest) = behind_name(thread.path().join("stat")) else {
            continue;
        };
        let mut fields = rest.split(' ');
        let is_gone = fields
            .next()
            .is_some_and(|state| state == "Z" || state == "X");
        let flags: u64 = fields
            .nth(5)
            .and_then(|flags| flags.parse().ok())
            .unwrap_or(0);
        if flags & PF_EXITING == 0 {
            return false;
        }
        any |= !is_gone;
    }
    any
}

/// Processor time of a process, alive or not yet reaped, as RLIMIT_CPU has it: by
/// ticks. What /proc tells is by the scheduler, and may be much less.
pub fn processor_ms(pid: i32) -> Option<u64> {
    // The clock's number as clock_getcpuclockid(3) makes it, but of this kind.
    const BY_TICKS: libc::clockid_t = 0;
    let clock = !pid << 3 | BY_TICKS;
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: time has room for one timespec; a clock that does not exist is an error.
    let time = unsafe {
        if libc::clock_gettime(clock, time.as_mut_ptr()) == -1 {
            return None;
        }
        time.assume_init()
    };
    Some(time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000)
}

/// Limits of a process, alive or not yet reaped; `u64::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The hard limit of processor time.
    pub processor_s: u64,
    /// The soft limit of file sizes.
    pub file_bytes: u64,
}

pub fn limits_of(pid: i32) -> Option<Limits> {
    parse_limits(&std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

fn parse_limits(text: &str) -> Option<Limits> {
    let value = |key: &str, column: usize| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        match line.split_whitespace().nth(column)? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    };
    Some(Limits {
        processor_s: value("Max cpu time", 1)?,
        file_bytes: value("Max file size", 0)?,
    })
}

/// Reaps a child that is known to be dead.
pub fn reap(pid: i32) {
    // SAFETY: a null status is allowed.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

fn peek(which: libc::idtype_t, pid: i32, states: i32) -> Option<(i32, Change)> {
    look(which, pid, states | libc::WNOWAIT)
}

fn look(which: libc::idtype_t, pid: i32, states: i32) -> Option<(i32, Change)> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = states | libc::WNOHANG;
    // SAFETY: info has room for one siginfo, and is zeroed in case of no change.
    let (pid, code, status) = unsafe {
        if libc::waitid(which, pid as libc::id_t, info.as_mut_ptr(), options) == -1 {
            return None;
        }
        let info = info.assume_init_ref();
        (info.si_pid(), info.si_code, info.si_status())
    };
    let change = match code {
        libc::CLD_EXITED => Change::Exited(status),
        libc::CLD_KILLED | libc::CLD_DUMPED => Change::Killed(status),
        libc::CLD_STOPPED => Change::Stopped(status),
        libc::CLD_CONTINUED => Change::Continued,
        _ => return None,
    };
    (pid != 0).then_some((pid, change))
}

/// Orphans below this process become its children, so that a worker's zombie
/// is reaped here and at once.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: this prctl takes no pointer.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A copy of this process that has the same table of descriptors, and with it what is locked
/// by it: its number here, 0 there. Of several threads the copy has this one.
pub fn copy_with_descriptors() -> io::Result<i32> {
    let arguments = super::jump::CloneArguments {
        flags: libc::CLONE_FILES as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..Default::default()
    };
    // SAFETY: without CLONE_VM and a stack this is a fork. The other thread, if there is one,
    // holds no lock: it waits in the kernel, and allocates nothing.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of_val(&arguments),
        )
    };
    match answer {
        -1 => Err(io::Error::last_os_error()),
        number => Ok(number as i32),
    }
}

/// Ends this process and nothing else: what it has open is another one's as well.
pub fn exit_at_once(status: u8) -> ! {
    // SAFETY: does not come back, and runs nothing.
    unsafe { libc::_exit(status.into()) }
}

/// Processor time of a process, which need not be reaped; 0 if it is.
pub fn processor_time_ns(pid: i32) -> u64 {
    // clock_getcpuclockid(3): of all threads, as the scheduler counts it.
    let clock = !pid << 3 | 2;
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: now has room for one timespec; zero stays if the process is gone.
    let now = unsafe {
        libc::clock_gettime(clock, now.as_mut_ptr());
        now.assume_init()
    };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// CLOCK_MONOTONIC, which the runtime's timestamps are compared with.
pub fn monotonic_ns() -> u64 {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: now has room for one timespec; this clock always exists.
    let now = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr());
        now.assume_init()
    };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Real user id.
pub fn uid() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getuid() }
}

pub fn pid() -> i32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getpid() }
}

/// Sixteen random bytes.
pub fn random() -> [u8; 16] {
    let mut bytes = [0u8; 16];
    // SAFETY: the buffer is as long as it is said to be; 16 bytes come whole.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    bytes
}

/// The area that glibc registered for restartable sequences: the worker must
/// give it back before the memory under it goes, or the kernel kills it.
#[derive(Clone, Copy)]
pub struct Rseq {
    pub address: u64,
    pub len: u32,
}

pub fn rseq_of_libc() -> Option<Rseq> {
    // SAFETY: dlsym takes a C string; glibc documents both symbols as readable
    // constants, and their absence (musl, old glibc) as null.
    unsafe {
        let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
        let size = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()).cast::<u32>();
        if offset.is_null() || size.is_null() || *size == 0 {
            return None;
        }
        let thread: u64;
        std::arch::asm!("mov {}, fs:0", out(reg) thread, options(nostack, readonly, preserves_flags));
        Some(Rseq {
            address: thread.wrapping_add_signed(*offset as i64),
            len: (*size).max(32),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_parent() {
        // SAFETY: takes nothing, cannot fail.
        let parent = unsafe { libc::getppid() };
        assert_eq!(parent_of(pid()), Some(parent));
        assert_eq!(parent_of(-1), None);
    }

    #[test]
    fn reads_limits() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              5                    9                    seconds   \n\
                    Max file size             1024                 unlimited            bytes     \n";
        let limits = Limits {
            processor_s: 9,
            file_bytes: 1024,
        };
        assert_eq!(parse_limits(text), Some(limits));
        assert!(limits_of(pid()).is_some());
    }

    #[test]
    fn counts_processor_time() {
        let begun = std::time::Instant::now();
        while processor_ms(pid()).unwrap() < 20 {
            assert!(begun.elapsed().as_secs() < 20, "it does not count");
        }
    }

    #[test]
    fn reads_what_a_zombie_had_pending() {
        let status = "State:\tZ (zombie)\nSigPnd:\t0000000000000002\nShdPnd:\t0000000000000100\n";
        assert_eq!(parse_pending(status), 0x102);
    }
}
