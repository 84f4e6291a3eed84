//! What else the kernel knows of a process: prctl(2), personality(2), membarrier(2) and
//! the settings of /proc/self.
//!
//! state:     [`Attributes`]: what the program has set
//! intercept: prctl, personality, membarrier; an open of one of the files for writing
//! save:      the files, which nobody tells us of, at each commit once one was opened
//! restore:   the same calls
//! survives:  warm and cold; where the kernel refuses, the recovery stops and says which
//!
//! A setting that is not here is passed on, and the user is told its number once: no
//! recovery keeps it.
#![allow(unsafe_code)]

use super::{identity, schedule, seccomp};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::{fatal, run, sys};
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;

const PR_SET_PDEATHSIG: usize = 1;
const PR_GET_PDEATHSIG: usize = 2;
const PR_GET_DUMPABLE: usize = 3;
const PR_SET_DUMPABLE: usize = 4;
const PR_GET_KEEPCAPS: usize = 7;
const PR_SET_KEEPCAPS: usize = 8;
const PR_GET_TIMING: usize = 13;
const PR_SET_TIMING: usize = 14;
const PR_SET_NAME: usize = 15;
const PR_GET_NAME: usize = 16;
const PR_GET_SECCOMP: usize = 21;
const PR_SET_SECCOMP: usize = 22;
const PR_CAPBSET_READ: usize = 23;
const PR_CAPBSET_DROP: usize = 24;
const PR_SET_TSC: usize = 26;
const PR_GET_TSC: usize = 25;
const PR_TSC_SIGSEGV: usize = 2;
const PR_GET_SECUREBITS: usize = 27;
const PR_SET_SECUREBITS: usize = 28;
const PR_SET_TIMERSLACK: usize = 29;
const PR_GET_TIMERSLACK: usize = 30;
const PR_MCE_KILL: usize = 33;
const PR_MCE_KILL_GET: usize = 34;
const PR_SET_MM: usize = 35;
const PR_SET_CHILD_SUBREAPER: usize = 36;
const PR_GET_CHILD_SUBREAPER: usize = 37;
const PR_SET_NO_NEW_PRIVS: usize = 38;
const PR_GET_NO_NEW_PRIVS: usize = 39;
const PR_GET_TID_ADDRESS: usize = 40;
const PR_SET_THP_DISABLE: usize = 41;
const PR_GET_THP_DISABLE: usize = 42;
const PR_CAP_AMBIENT: usize = 47;
const PR_GET_SPECULATION_CTRL: usize = 52;
const PR_SET_SPECULATION_CTRL: usize = 53;
const PR_SET_IO_FLUSHER: usize = 57;
const PR_GET_IO_FLUSHER: usize = 58;
const PR_SET_SYSCALL_USER_DISPATCH: usize = 59;
const PR_SET_MDWE: usize = 65;
const PR_GET_MDWE: usize = 66;
const PR_SET_MEMORY_MERGE: usize = 67;
const PR_GET_MEMORY_MERGE: usize = 68;
/// "VMA": names of areas, which only /proc shows.
const PR_SET_VMA: usize = 0x5356_4d41;

/// Settings that are one call with one value, each with the place of its value.
const SIMPLE: [(usize, &str); 6] = [
    (PR_SET_THP_DISABLE, "no huge pages (PR_SET_THP_DISABLE)"),
    (
        PR_SET_CHILD_SUBREAPER,
        "reaper of orphans (PR_SET_CHILD_SUBREAPER)",
    ),
    (PR_SET_IO_FLUSHER, "PR_SET_IO_FLUSHER"),
    (
        PR_SET_MEMORY_MERGE,
        "merging of equal pages (PR_SET_MEMORY_MERGE)",
    ),
    (PR_SET_TSC, "PR_SET_TSC"),
    (PR_SET_MDWE, "no writable memory executed (PR_SET_MDWE)"),
];

/// Files of /proc/self that are settings, with their values.
const FILES: [(&core::ffi::CStr, &str); 3] = [
    (c"/proc/self/oom_score_adj", "oom_score_adj"),
    (c"/proc/self/coredump_filter", "coredump_filter"),
    (c"/proc/self/timerslack_ns", "timerslack_ns"),
];

/// In [`Attributes::files_opened`]: names of threads were written.
const NAMES: u32 = 1 << 31;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Attributes {
    /// A bit for each of [`SIMPLE`] that was set.
    simple_set: u32,
    /// A bit for each of [`FILES`] that was opened to be written.
    files_opened: u32,
    simple: [u64; 6],
    /// Their second arguments.
    simple_flags: [u64; 6],
    /// Digits, as the kernel gives them.
    files: [[u8; 24]; 3],
    /// PR_SET_DUMPABLE: its value + 1, 0 if it was not set.
    dumpable: u32,
    death_signal: u32,
    /// Nonzero once it has executed a program of its own.
    executed: u32,
    /// Value + 1.
    personality: u32,
    /// MEMBARRIER_CMD_REGISTER_*.
    membarrier: u64,
}

fn attributes() -> &'static mut Attributes {
    &mut state().root.attributes
}

pub fn prctl(l: &mut Local, a: [usize; 6]) -> isize {
    let _guard = engine().lock.acquire(l);
    let raw = || sys!(PRCTL, a[0], a[1], a[2], a[3], a[4]);
    match a[0] {
        PR_SET_MM | PR_SET_SYSCALL_USER_DISPATCH => -EINVAL,
        PR_SET_SECCOMP => seccomp::set_by_prctl(l, a[1], a[2]),
        PR_GET_SECCOMP => seccomp::mode(l),
        // The runtime reads the counter too.
        PR_SET_TSC if a[1] == PR_TSC_SIGSEGV => {
            crate::say!("a fault for reading the time stamp counter (PR_SET_TSC) is refused");
            -EINVAL
        }
        PR_SET_PDEATHSIG => death_signal(a[1]),
        PR_GET_PDEATHSIG => {
            let signal = attributes().death_signal;
            if user::write(a[1], &signal) {
                0
            } else {
                -EFAULT
            }
        }
        PR_SET_DUMPABLE => {
            identity::open_before(l);
            let r = raw();
            if !failed(r) {
                attributes().dumpable = a[1] as u32 + 1;
            }
            r
        }
        PR_SET_NAME => {
            let r = raw();
            if !failed(r) {
                let mut name = [0u8; 16];
                sys!(PRCTL, PR_GET_NAME, name.as_mut_ptr());
                state().threads[l.slot as usize].name = name;
            }
            r
        }
        PR_SET_KEEPCAPS | PR_CAPBSET_DROP | PR_SET_SECUREBITS | PR_SET_NO_NEW_PRIVS
        | PR_CAP_AMBIENT => {
            let r = raw();
            if !failed(r) {
                identity::changed(l);
            }
            r
        }
        PR_SET_TIMERSLACK => schedule::set_slack(l, a[1]),
        PR_GET_DUMPABLE
        | PR_GET_KEEPCAPS
        | PR_GET_TIMING
        | PR_SET_TIMING
        | PR_GET_NAME
        | PR_CAPBSET_READ
        | PR_GET_TSC
        | PR_GET_SECUREBITS
        | PR_GET_TIMERSLACK
        | PR_MCE_KILL_GET
        | PR_GET_CHILD_SUBREAPER
        | PR_GET_NO_NEW_PRIVS
        | PR_GET_TID_ADDRESS
        | PR_GET_THP_DISABLE
        | PR_GET_SPECULATION_CTRL
        | PR_GET_IO_FLUSHER
        | PR_GET_MDWE
        | PR_GET_MEMORY_MERGE
        | PR_SET_VMA => raw(),
        PR_SET_SPECULATION_CTRL | PR_MCE_KILL => {
            let r = raw();
            say_lost(r, a[0]);
            r
        }
        other => {
            let r = raw();
            match SIMPLE.iter().position(|s| s.0 == other) {
                Some(i) if !failed(r) => {
                    attributes().simple_set |= 1 << i;
                    attributes().simple[i] = a[1] as u64;
                    attributes().simple_flags[i] = a[2] as u64;
                    if other == PR_SET_CHILD_SUBREAPER {
                        run::me().adopts.store(u32::from(a[1] != 0), Relaxed);
                    }
                }
                Some(_) => {}
                None => say_lost(r, other),
            }
            r
        }
    }
}

fn say_lost(r: isize, what: usize) {
    if !failed(r) {
        crate::say!("prctl {what} is not kept by a recovery");
    }
}

/// The worker's parent is the keeper, which it must not outlive; so the program's own
/// wish is not told to the kernel ([`crate::run::orphans`]).
fn death_signal(signal: usize) -> isize {
    if signal > 64 {
        return -EINVAL;
    }
    if signal != 0 && run::me().parent_at(u64::MAX).is_none() {
        crate::say!(
            "the signal that the program asks for at its parent's death (PR_SET_PDEATHSIG) does \
             not come when dcrun's own parent dies"
        );
    }
    set_death_signal(signal as u32);
    0
}

/// The kernel has made the process undumpable, and forgotten its death signal.
pub fn credentials_changed() {
    const PR_GET_DUMPABLE: usize = 3;
    let now = sys!(PRCTL, PR_GET_DUMPABLE, 0, 0, 0, 0);
    attributes().dumpable = now.max(0) as u32 + 1;
    set_death_signal(0);
}

fn set_death_signal(signal: u32) {
    attributes().death_signal = signal;
    run::me().death_signal.store(signal, Relaxed);
}

/// A child has asked for nothing of this.
pub fn forked() {
    set_death_signal(0);
    crate::space::locked::forget();
    attributes().executed = 0;
    let reaper = SIMPLE.iter().position(|s| s.0 == PR_SET_CHILD_SUBREAPER);
    attributes().simple_set &= !(1 << reaper.unwrap_or(31));
}

/// At recovery: what other processes look at.
pub fn show() {
    let a = attributes();
    run::me().death_signal.store(a.death_signal, Relaxed);
    run::me().executed.store(a.executed, Relaxed);
    let reaper = SIMPLE.iter().position(|s| s.0 == PR_SET_CHILD_SUBREAPER);
    let adopts = reaper.is_some_and(|i| a.simple_set & 1 << i != 0 && a.simple[i] != 0);
    run::me().adopts.store(u32::from(adopts), Relaxed);
}

/// Another program begins. If it runs with ids that are not its user's, the kernel forgets
/// the signal.
pub fn executed() {
    attributes().executed = 1;
    crate::space::locked::forget();
    run::me().executed.store(1, Relaxed);
    let ids = [sys!(GETUID) != sys!(GETEUID), sys!(GETGID) != sys!(GETEGID)];
    if ids.contains(&true) {
        set_death_signal(0);
    }
}

/// personality(2).
pub fn personality(_l: &mut Local, a: [usize; 6]) -> isize {
    const ASK: u32 = u32::MAX;
    let r = sys!(PERSONALITY, a[0]);
    if !failed(r) && a[0] as u32 != ASK {
        attributes().personality = (a[0] as u32).saturating_add(1);
    }
    r
}

/// membarrier(2): registrations last.
pub fn membarrier(l: &mut Local, a: [usize; 6]) -> isize {
    const REGISTRATIONS: usize = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8;
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(l.frame.nr, a) };
    if !failed(r) && a[0] & REGISTRATIONS != 0 && a[0].is_power_of_two() {
        attributes().membarrier |= a[0] as u64;
    }
    r
}

/// A file was opened for writing: it may be one that is a setting.
pub fn file_opened(path: &[u8]) {
    let known = |&(_, name): &(_, &str)| path.ends_with(name.as_bytes());
    if path.starts_with(b"/proc/")
        && let Some(i) = FILES.iter().position(known)
    {
        attributes().files_opened |= 1 << i;
        super::set_by_others::file_of(path);
    }
}

/// Another process may have written settings of this one.
pub fn others_wrote_files() {
    attributes().files_opened = ((1 << FILES.len()) - 1) | NAMES;
}

/// Whether a path leads to a setting of a process of the run, or to the name of a thread.
pub fn is_setting(path: &[u8]) -> bool {
    let known = |name: &[u8]| {
        let head = path.strip_suffix(name);
        head.is_some_and(|head| head.ends_with(b"/"))
    };
    super::set_by_others::is_of_run(path)
        && (known(b"comm") || FILES.iter().any(|&(_, name)| known(name.as_bytes())))
}

/// Such a file was written.
pub fn file_written(path: &[u8]) {
    if path.ends_with(b"/comm") {
        attributes().files_opened |= NAMES;
    }
    super::set_by_others::file_of(path);
}

/// Whether a path leads to an attribute of this process.
pub fn is_own(path: &[u8]) -> bool {
    let is_own = super::set_by_others::folder_of(path) == state().root.pid;
    let name = path
        .iter()
        .rposition(|&b| b == b'/')
        .map(|at| &path[at + 1..]);
    is_own
        && FILES
            .iter()
            .any(|&(_, known)| name == Some(known.as_bytes()))
}

/// Before a commit.
#[inline(always)]
pub fn save() {
    if attributes().files_opened != 0 {
        read_files();
    }
}

#[cold]
fn read_files() {
    let a = attributes();
    if a.files_opened & NAMES != 0 {
        a.files_opened &= !NAMES;
        crate::thread::names::read();
    }
    for (i, (path, _)) in FILES.iter().enumerate() {
        if a.files_opened & 1 << i == 0 {
            continue;
        }
        let fd = crate::proc::open(path.to_bytes_with_nul(), super::descriptor::O_CLOEXEC);
        if failed(fd) {
            continue;
        }
        let mut text = [0u8; 24];
        let n = sys!(READ, fd, text.as_mut_ptr(), text.len() - 1);
        super::input::count_read(n);
        sys!(CLOSE, fd);
        // What is read in hexadecimal is written so.
        let hexadecimal = i == 1;
        let mut value = [0u8; 24];
        let from = if hexadecimal { 2 } else { 0 };
        value[..2].copy_from_slice(b"0x");
        if n > 0 {
            value[from..].copy_from_slice(&text[..24 - from]);
            if value != a.files[i] {
                a.files[i] = value;
            }
        }
    }
}

/// At recovery, before rights are given up.
pub fn restore() {
    let a = *attributes();
    for (i, (path, name)) in FILES.iter().enumerate() {
        let text = &a.files[i];
        let n = text.iter().position(|&b| b == 0).unwrap_or(0);
        if a.files_opened & 1 << i == 0 || n == 0 {
            continue;
        }
        const O_WRONLY: usize = 1;
        let fd = crate::proc::open(
            path.to_bytes_with_nul(),
            O_WRONLY | super::descriptor::O_CLOEXEC,
        );
        let r = sys!(WRITE, fd, text.as_ptr(), n);
        if r > 0 {
            fatal::count_written(r as usize);
        }
        sys!(CLOSE, fd);
        check(name, if failed(fd) { fd } else { r });
    }
    for (i, &(number, name)) in SIMPLE.iter().enumerate() {
        if a.simple_set & 1 << i != 0 {
            check(
                name,
                sys!(PRCTL, number, a.simple[i], a.simple_flags[i], 0, 0),
            );
        }
    }
    if a.personality != 0 {
        check("personality", sys!(PERSONALITY, a.personality - 1));
    }
    for bit in (0..64).filter(|bit| a.membarrier & 1 << bit != 0) {
        check("membarrier", sys!(MEMBARRIER, 1u64 << bit, 0, 0));
    }
}

/// At recovery, when credentials are as they were: they would change it again.
pub fn restore_last() {
    let dumpable = attributes().dumpable;
    if dumpable != 0 {
        // The kernel sets 2 by itself only (fs.suid_dumpable), and takes 0 for less.
        let value = if dumpable == 2 { 1 } else { 0 };
        check("dumpable", sys!(PRCTL, PR_SET_DUMPABLE, value, 0, 0, 0));
    }
}

fn check(name: &str, r: isize) {
    if failed(r) {
        fatal::stop(
            FatalCode::CannotRestore,
            r,
            format_args!(
                "restore a setting of the process: {name}: error {}; resume as the user who \
                 started it",
                -r
            ),
        )
    }
}

/// unshare(2), setns(2), pivot_root(2): what a program has left behind by them
/// a recovery cannot leave again.
pub fn leave_namespace(l: &mut Local, a: [usize; 6]) -> isize {
    // CLONE_FS, CLONE_FILES and CLONE_SYSVSEM are nothing of this kind.
    const NOT_SPACES: usize = 0x200 | 0x400 | 0x40000;
    let left = match l.frame.nr {
        nr::UNSHARE if a[0] & !NOT_SPACES == 0 => 0,
        nr::UNSHARE | nr::SETNS => NAMESPACES,
        _ => ROOT_DIRECTORY,
    };
    let lost = (left != 0).then_some("a recovery stops, for it cannot go there again");
    let r = crate::table::around(l, a, lost);
    if !failed(r) && left != 0 {
        let _guard = engine().lock.acquire(l);
        state().root.left_behind |= left;
        identity::commit_soon(l);
    }
    r
}

/// The program has a root directory that a recovery cannot give it again.
pub fn leaves_root() {
    state().root.left_behind |= ROOT_DIRECTORY;
}

const NAMESPACES: u32 = 1;
const ROOT_DIRECTORY: u32 = 2;

/// At recovery: before anything is opened by a name that may mean something else.
pub fn check_left_behind() {
    let what = match state().root.left_behind {
        0 => return,
        ROOT_DIRECTORY => "another root directory (chroot, pivot_root)",
        _ => "namespaces of its own (unshare, setns)",
    };
    fatal::stop(
        FatalCode::CannotRestore,
        0,
        format_args!(
            "the program had moved to {what}, which a recovery cannot make again; it would have \
             rights that it gave up. Begin again with --fresh"
        ),
    )
}
