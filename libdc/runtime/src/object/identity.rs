//! What a thread may do: user and group ids, groups, capabilities, securebits,
//! no_new_privs. (Threads of a process each have their own; libc changes them all.)
//!
//! state:     [`Credentials`] of each thread, read from the kernel behind each change;
//!            groups that are many in a table of their own
//! intercept: setuid and its relatives, setgroups, capset, some of prctl
//! restore:   the last thing before a thread goes on, after all that needs the rights
//!            of the keeper; then read again and compared
//! survives:  warm and cold; where the kernel refuses, the recovery stops and says which
//!
//! A worker is a copy of the keeper, and begins with its rights. No instruction of the
//! program is run before all threads have given theirs up ([`restore_all`]). A change is
//! committed with the call that makes it, so that no later death comes to before it.
#![allow(unsafe_code)]

use super::{attributes, limits, schedule};
use crate::engine::{MAX_THREADS, engine, state};
use crate::machine::entry::local;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::{event, fatal, sys};
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, Ordering::*};
use dc_image::FatalCode;

const PR_SET_PDEATHSIG: usize = 1;
const PR_CAPBSET_READ: usize = 23;
const PR_CAPBSET_DROP: usize = 24;
const PR_GET_SECUREBITS: usize = 27;
const PR_SET_SECUREBITS: usize = 28;
const PR_SET_NO_NEW_PRIVS: usize = 38;
const PR_GET_NO_NEW_PRIVS: usize = 39;
const PR_CAP_AMBIENT: usize = 47;
const AMBIENT_IS_SET: usize = 1;
const AMBIENT_RAISE: usize = 2;
const AMBIENT_CLEAR_ALL: usize = 4;
/// Changes of ids leave capabilities alone.
const NO_SETUID_FIXUP: u32 = 1 << 2;
/// So many groups lie in a thread's record; more in [`State::groups`].
///
/// [`State::groups`]: crate::state::State::groups
const FEW: usize = 32;
pub const GROUPS_MAX: usize = 65536;

/// Credentials of a thread.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Credentials {
    /// The program has changed them.
    pub changed: u32,
    pub group_count: u32,
    /// Real, effective, saved, of file accesses.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    pub groups: [u32; FEW],
    pub securebits: u32,
    pub no_new_privs: u32,
    /// Effective, permitted, inheritable, bounding, ambient: a bit each.
    pub capabilities: [u64; 5],
}

impl Credentials {
    const ZERO: Credentials = Credentials {
        changed: 0,
        group_count: 0,
        uids: [0; 4],
        gids: [0; 4],
        groups: [0; FEW],
        securebits: 0,
        no_new_privs: 0,
        capabilities: [0; 5],
    };
}

/// What the kernel says of the calling thread. Groups that do not fit into a record
/// go to `more`.
fn read(more: &mut [u32; GROUPS_MAX]) -> Credentials {
    let mut c = Credentials::ZERO;
    let [r, e, s, f] = &mut c.uids;
    sys!(GETRESUID, r as *mut u32, e as *mut u32, s as *mut u32);
    // An id that cannot be changes nothing, and the answer is the present one.
    *f = sys!(SETFSUID, u32::MAX) as u32;
    let [r, e, s, f] = &mut c.gids;
    sys!(GETRESGID, r as *mut u32, e as *mut u32, s as *mut u32);
    *f = sys!(SETFSGID, u32::MAX) as u32;
    let n = sys!(GETGROUPS, 0, 0).max(0) as usize;
    c.group_count = n as u32;
    if n <= FEW {
        sys!(GETGROUPS, n, c.groups.as_mut_ptr());
    } else {
        engine().pieces.wake(
            more.as_ptr() as usize,
            more.as_ptr() as usize + 4 * GROUPS_MAX,
        );
        sys!(GETGROUPS, n.min(GROUPS_MAX), more.as_mut_ptr());
    }
    c.securebits = sys!(PRCTL, PR_GET_SECUREBITS, 0, 0, 0, 0) as u32;
    c.no_new_privs = has_no_new_privs().into();
    let [effective, permitted, inheritable] = capget();
    c.capabilities = [effective, permitted, inheritable, 0, 0];
    for cap in 0..64 {
        let bounding = sys!(PRCTL, PR_CAPBSET_READ, cap, 0, 0, 0);
        if failed(bounding) {
            break;
        }
        let ambient = sys!(PRCTL, PR_CAP_AMBIENT, AMBIENT_IS_SET, cap, 0, 0);
        c.capabilities[3] |= u64::from(bounding == 1) << cap;
        c.capabilities[4] |= u64::from(ambient == 1) << cap;
    }
    c
}

/// `struct __user_cap_header_struct`, version 3, of the calling thread.
const CAP_HEADER: [u32; 2] = [0x2008_0522, 0];

fn capget() -> [u64; 3] {
    let header = CAP_HEADER;
    let mut data = [[0u32; 3]; 2];
    sys!(CAPGET, header.as_ptr(), data.as_mut_ptr());
    [0, 1, 2].map(|i| u64::from(data[0][i]) | u64::from(data[1][i]) << 32)
}

/// Whether the calling thread may raise hard limits of resources.
pub fn may_raise_limits() -> bool {
    const CAP_SYS_RESOURCE: u64 = 24;
    has_capability(CAP_SYS_RESOURCE)
}

/// Whether the calling thread can get no new rights by an exec.
pub fn has_no_new_privs() -> bool {
    sys!(PRCTL, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1
}

pub fn give_no_new_privs() {
    sys!(PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/// Whether it may filter system calls though it could still get new rights.
pub fn may_filter() -> bool {
    const CAP_SYS_ADMIN: u64 = 21;
    has_capability(CAP_SYS_ADMIN)
}

fn has_capability(which: u64) -> bool {
    let [effective, ..] = capget();
    effective & 1 << which != 0
}

fn capset(sets: [u64; 3]) -> isize {
    let header = CAP_HEADER;
    let data = [sets.map(|s| s as u32), sets.map(|s| (s >> 32) as u32)];
    sys!(CAPSET, header.as_ptr(), data.as_ptr())
}

/// A fresh program: what it was given.
pub fn begin(l: &Local) {
    let s = state();
    s.threads[l.slot as usize].credentials = read(&mut s.groups);
}

/// A new thread has what its maker has.
pub fn inherit(from: u32, to: u32) {
    let threads = &mut state().threads;
    threads[to as usize].credentials = threads[from as usize].credentials;
    threads[to as usize].schedule = threads[from as usize].schedule;
    threads[to as usize].cpu = crate::object::cpu_time::CpuTime::ZERO;
}

/// setuid(2) and all others that change what a thread may do.
pub fn change(l: &mut Local, a: [usize; 6]) -> isize {
    open_before(l);
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(l.frame.nr, a) };
    if !failed(r) {
        changed(l);
    }
    r
}

/// A process that has not been committed yet opens what that needs (its image, its page map)
/// while it may.
pub fn open_before(l: &mut Local) {
    if !engine().tracking && !event::is_behind() {
        event::commit_and_move(l);
    }
}

/// The calling thread may do other things than before.
pub fn changed(l: &mut Local) {
    let s = state();
    let mut now = read(&mut s.groups);
    now.changed = 1;
    let record = &mut s.threads[l.slot as usize].credentials;
    if *record != now {
        *record = now;
        die_with_keeper();
        crate::run::image::replace_companion();
        attributes::credentials_changed();
        commit_soon(l);
    }
}

/// An exec: saved ids become the effective ones, and who is not root has of his capabilities
/// the ambient ones only.
pub fn executed(l: &mut Local) {
    const KEEP: u32 = u32::MAX;
    let have = state().threads[l.slot as usize].credentials;
    let ([ur, ue, us, _], [_, ge, gs, _]) = (have.uids, have.gids);
    let [effective, permitted, inheritable, _, ambient] = have.capabilities;
    let too_many = ur != 0 && ue != 0 && effective | permitted != ambient;
    if ue == us && ge == gs && !too_many {
        return;
    }
    sys!(SETRESGID, KEEP, KEEP, ge);
    sys!(SETRESUID, KEEP, KEEP, ue);
    if too_many {
        capset([ambient, ambient, inheritable]);
    }
    changed(l);
}

/// Opens something with no more rights than an exec leaves.
pub fn as_after_exec(open: impl FnOnce() -> isize) -> isize {
    let have = state().threads[local().slot as usize].credentials;
    let ([ur, ue, ..], [effective, permitted, inheritable, _, ambient]) =
        (have.uids, have.capabilities);
    if ur == 0 || ue == 0 || effective == ambient {
        return open();
    }
    capset([ambient, permitted, inheritable]);
    let r = open();
    capset([effective, permitted, inheritable]);
    r
}

/// Whether an exec would give root capabilities back that the program has given up.
pub fn regains_by_exec() -> bool {
    const SECBIT_NOROOT: u32 = 1;
    let have = state().threads[local().slot as usize].credentials;
    let ([ur, ue, ..], [_, permitted, inheritable, bounding, _]) = (have.uids, have.capabilities);
    let is_root = (ur == 0 || ue == 0) && have.securebits & SECBIT_NOROOT == 0;
    is_root && (bounding | inheritable) & !permitted != 0
}

/// A change of credentials takes this away: a worker never outlives its keeper.
fn die_with_keeper() {
    let keeper = engine().live().keeper_pid.load(Relaxed) as isize;
    let parent = sys!(GETPPID);
    sys!(PRCTL, PR_SET_PDEATHSIG, 9, 0, 0, 0);
    if parent == keeper && sys!(GETPPID) != keeper {
        fatal::die();
    }
}

/// Commits with the call under way, or as soon as the program has caught up with what
/// was seen of it.
pub fn commit_soon(l: &mut Local) {
    if event::is_behind() {
        engine().tick.store(true, Relaxed);
    } else {
        event::tell(protocols::Event::CommitRequested, 0);
        l.commit_after = true;
    }
}

/// Threads that have yet to give up what is not theirs.
static WAITED_FOR: AtomicU32 = AtomicU32::new(0);

/// At recovery, before the other threads are made: so many there will be.
pub fn expect_threads() {
    let others = (0..MAX_THREADS).filter(|&i| state().threads[i].used != 0);
    WAITED_FOR.store(others.count() as u32 - 1, SeqCst);
}

/// Whether the program has given up or changed rights: then what a recovery opens for it,
/// with the rights of the keeper, must be what it had.
pub fn is_changed() -> bool {
    let threads = state().threads.iter();
    threads
        .filter(|t| t.used != 0)
        .any(|t| t.credentials.changed != 0)
}

/// First of all that a thread does which a recovery has made.
pub fn of_other_thread(l: &Local) {
    // The first thread may end before this one.
    die_with_keeper();
    if engine().live().status.load(SeqCst) != dc_image::Status::Recovering as u32 {
        return;
    }
    schedule::restore(l);
    restore(l);
    WAITED_FOR.fetch_sub(1, SeqCst);
}

/// At recovery, on the first thread, when nothing is left to do that needs the keeper's
/// rights.
pub fn restore_all(l: &Local) {
    attributes::restore();
    schedule::restore(l);
    while WAITED_FOR.load(SeqCst) != 0 {
        sys!(SCHED_YIELD);
    }
    limits::restore();
    restore(l);
    attributes::restore_last();
    if is_changed() {
        crate::run::image::replace_companion();
    }
}

/// Gives the calling thread what it had, and no more. Only where neither the program
/// has changed anything nor the kernel lets us may it have what its user has today:
/// another session of the same user.
fn restore(l: &Local) {
    let s = state();
    let want = s.threads[l.slot as usize].credentials;
    let groups = &s.groups;
    // One thread at a time has the table. (Not the big lock: who waits for that gives
    // its registers away, which this thread does not have yet.)
    while BUSY.swap(1, Acquire) != 0 {
        sys!(SCHED_YIELD);
    }
    give(&want, groups, beside());
    BUSY.store(0, Release);
}

static BUSY: AtomicU32 = AtomicU32::new(0);

fn give(want: &Credentials, groups: &[u32; GROUPS_MAX], more: &mut [u32; GROUPS_MAX]) {
    let have = read(more);
    if same(want, &have, groups, more) {
        return;
    }
    apply(want, groups);
    let have = read(more);
    die_with_keeper();
    let theirs = want.changed == 0 && have.uids == want.uids && have.uids[0] != 0;
    if !same(want, &have, groups, more) && !theirs {
        refuse(want, &have);
    }
}

/// What the kernel says is read beside, not into the program's table.
fn beside() -> &'static mut [u32; GROUPS_MAX] {
    static mut GROUPS: [u32; GROUPS_MAX] = [0; GROUPS_MAX];
    // SAFETY: used by one thread at a time, see `restore`.
    unsafe { &mut *(&raw mut GROUPS) }
}

fn same(
    want: &Credentials,
    have: &Credentials,
    groups: &[u32; GROUPS_MAX],
    more: &[u32; GROUPS_MAX],
) -> bool {
    let n = want.group_count as usize;
    let changed = have.changed;
    Credentials { changed, ..*want } == *have && (n <= FEW || groups[..n] == more[..n])
}

/// Ids first, while capabilities allow it and do not follow from ids; then capabilities,
/// which nothing that is left to do needs.
fn apply(want: &Credentials, groups: &[u32; GROUPS_MAX]) {
    let [effective, permitted, inheritable, bounding, ambient] = want.capabilities;
    for cap in (0..64).filter(|cap| bounding & 1 << cap == 0) {
        if sys!(PRCTL, PR_CAPBSET_READ, cap, 0, 0, 0) == 1 {
            sys!(PRCTL, PR_CAPBSET_DROP, cap, 0, 0, 0);
        }
    }
    let n = want.group_count as usize;
    let list = if n <= FEW {
        want.groups.as_ptr()
    } else {
        groups.as_ptr()
    };
    sys!(SETGROUPS, n, list);
    let bits = sys!(PRCTL, PR_GET_SECUREBITS, 0, 0, 0, 0) as u32;
    let fixed = failed(sys!(
        PRCTL,
        PR_SET_SECUREBITS,
        bits | NO_SETUID_FIXUP,
        0,
        0,
        0
    ));
    let [gr, ge, gs, gf] = want.gids;
    sys!(SETRESGID, gr, ge, gs);
    sys!(SETFSGID, gf);
    let [ur, ue, us, uf] = want.uids;
    sys!(SETRESUID, ur, ue, us);
    sys!(SETFSUID, uf);
    if !fixed {
        let [_, all, _] = capget();
        capset([all, all, inheritable]);
        sys!(PRCTL, PR_CAP_AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0);
        for cap in (0..64).filter(|cap| ambient & 1 << cap != 0) {
            sys!(PRCTL, PR_CAP_AMBIENT, AMBIENT_RAISE, cap, 0, 0);
        }
        sys!(PRCTL, PR_SET_SECUREBITS, want.securebits, 0, 0, 0);
    }
    capset([effective, permitted, inheritable]);
    if want.no_new_privs != 0 {
        give_no_new_privs();
    }
}

/// What cannot be had back is named; the program stays at its last commit.
fn refuse(want: &Credentials, have: &Credentials) -> ! {
    let mut what = fatal::Text::<300>::new();
    let mut say = |name: &str, differs: bool| {
        if differs {
            let comma = if what.as_bytes().is_empty() { "" } else { ", " };
            let _ = write!(what, "{comma}{name}");
        }
    };
    say("user ids", want.uids != have.uids);
    say("group ids", want.gids != have.gids);
    say(
        "groups",
        (want.group_count, want.groups) != (have.group_count, have.groups),
    );
    let sets = [
        "effective",
        "permitted",
        "inheritable",
        "bounding",
        "ambient",
    ];
    for (i, set) in sets.into_iter().enumerate() {
        say(set, want.capabilities[i] != have.capabilities[i]);
    }
    say("securebits", want.securebits != have.securebits);
    say("no_new_privs", want.no_new_privs != have.no_new_privs);
    fatal::stop(
        FatalCode::CannotRestore,
        EPERM,
        format_args!(
            "restore what the program may do (user {}, group {}): the kernel does not give back: \
             {}; resume as the user who started it",
            want.uids[1],
            want.gids[1],
            core::str::from_utf8(what.as_bytes()).unwrap_or("?")
        ),
    )
}
