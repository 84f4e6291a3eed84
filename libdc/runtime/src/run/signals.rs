//! Signals between processes of the run, and those that end one of them.
//!
//! A signal that one process of the run sends to another one is no message to the outside:
//! after a rollback it is sent again. One that would end a process comes to its runtime
//! first, whatever the program has asked for, so that the end is committed before it
//! happens ([`super::end`]). SIGKILL never comes to anybody, so its sender commits.
#![allow(unsafe_code)]

use super::end::{self, How};
use super::{all, known_as, many, me, orphans, unit};
use crate::engine::{engine, state};
use crate::fatal::Text;
use crate::machine::frame::{ATTENTION_LOOK, ATTENTION_STOP, Local};
use crate::machine::nr;
use crate::machine::sys::{errno::*, failed};
use crate::signal::queue::SigInfo;
use crate::signal::{self, SIG_DFL, SIGKILL};
use crate::{event, sys, thread};
use core::fmt::Write;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::*;
use dc_image::run::{Life, Process};

/// Whether a process ends of a signal that it has not asked for.
pub fn ends_by_default(signo: i32) -> bool {
    const IGNORED: [i32; 4] = [17, 18, 23, 28];
    const STOPS: [i32; 4] = [19, 20, 21, 22];
    !IGNORED.contains(&signo) && !STOPS.contains(&signo) && signo != SIGKILL
}

/// Faults and what a program does to itself when it finds that it cannot go on.
fn is_crash(signo: i32) -> bool {
    matches!(signo, 4 | 5 | 6 | 7 | 8 | 11 | 24 | 31)
}

/// Has the runtime told of every signal that would end this process.
pub fn install_all() {
    for signo in 1..=64 {
        let action = state().root.actions[signo as usize];
        if action.handler == SIG_DFL && signal::RESERVED & signal::bit(signo) == 0 {
            signal::calls::install_for(signo, &action);
        }
    }
}

/// The program ends of a signal. Under the big lock.
pub fn end_by(l: &mut Local, signo: i32) -> ! {
    let recovers = engine().slot == 0 && is_crash(signo);
    if super::is_tree() && !recovers {
        end::end(l, How::Signal(signo));
    }
    signal::die_of(signo)
}

/// kill, tkill, tgkill and their queueing forms.
pub fn send(l: &mut Local, a: [usize; 6]) -> isize {
    send_as(l, l.frame.nr, a)
}

/// As the call of a number, which need not be the one that the program makes.
pub fn send_as(l: &mut Local, n: usize, mut a: [usize; 6]) -> isize {
    let by_thread = by_thread(n);
    let signo = if by_thread { a[2] } else { a[1] } as i32;
    let target = a[0] as i32;
    signal::outside::is_own(signo);
    if n == nr::TKILL {
        return to_thread(l, a);
    }
    let own = target == state().root.pid;
    if own && signo == signal::STOP {
        return -EINVAL;
    }
    if own && signo == SIGKILL {
        return kill_self(l);
    }
    if own && by_thread && waits_for_thread(l, a[1] as i32, signo, a[3]) {
        return 0;
    }
    if own {
        if engine().thread_count.load(Relaxed) > 1 {
            unit::is_signalled(engine().slot);
        }
        before_stop_or_go(me(), signo);
        // Ids may have changed with a recovery that could not keep them.
        a[0] = engine().pid as usize;
        if by_thread {
            a[1] = real_thread(l, a[1]);
        }
        // SAFETY: the program's own call with its own arguments.
        return unsafe { crate::machine::sys::raw6(n, a) };
    }
    let guard = engine().lock.acquire(l);
    if let Some(r) = crate::log::replay::answer(l) {
        return r;
    }
    if let Some((slot, p)) = known_as(target) {
        let r = to_process(l, slot, p, signo, n, a);
        drop(guard);
        return r;
    }
    if super::is_leaving(target) {
        return -ESRCH;
    }
    if target <= 0 && n == nr::KILL {
        return many::send(l, target, signo);
    }
    if signo != 0 {
        return crate::object::process::send_to_others(l, n, a);
    }
    // SAFETY: as above.
    unsafe { crate::machine::sys::raw6(n, a) }
}

fn by_thread(n: usize) -> bool {
    matches!(n, nr::TGKILL | nr::RT_TGSIGQUEUEINFO)
}

/// To another process of the run.
fn to_process(
    l: &mut Local,
    slot: usize,
    p: &Process,
    signo: i32,
    n: usize,
    mut a: [usize; 6],
) -> isize {
    if p.life() == Life::Zombie {
        return 0;
    }
    let r = permission(p);
    if failed(r) || signo == 0 {
        return r;
    }
    if signo == signal::STOP {
        return -EINVAL;
    }
    if signo == SIGKILL {
        end::kill_and_answer(l, |at, _| at == slot);
        if orphans::is_killed_for_it() {
            end::end(l, How::Signal(SIGKILL));
        }
        return 0;
    }
    // It may lie in the kernel when the next commit is made.
    unit::is_signalled(slot);
    before_stop_or_go(p, signo);
    let real = p.real.load(Relaxed);
    if by_thread(n) && a[0] == a[1] {
        a[1] = real as usize;
    }
    a[0] = real as usize;
    event::non_deterministic(l);
    // SAFETY: the program's own call with its own arguments.
    unsafe { crate::machine::sys::raw6(n, a) }
}

/// Whether this process may signal another one of the run, as kill(2) answers it. (An end that
/// the table has first could not be carried out.)
pub fn permission(p: &Process) -> isize {
    match p.real.load(Relaxed) {
        0 => 0,
        real => sys!(KILL, real, 0),
    }
}

/// What the table is to know of a signal that stops or continues.
pub fn before_stop_or_go(p: &Process, signo: i32) {
    const SIGCONT: i32 = 18;
    const SIGTSTP: i32 = 20;
    if matches!(signo, SIGCONT | signal::SIGSTOP) {
        super::stranger::gets_too(p, signo);
    }
    match signo {
        SIGCONT => unit::is_continued(p),
        SIGTSTP => p.stop_sent.store(engine().store.published() + 1, SeqCst),
        _ => {}
    }
}

fn to_thread(l: &mut Local, mut a: [usize; 6]) -> isize {
    if a[0] as i32 == l.tid {
        if a[1] as i32 == signal::STOP {
            return -EINVAL;
        }
    } else if a[1] != 0 {
        let _guard = engine().lock.acquire(l);
        if let Some(r) = crate::log::replay::answer(l) {
            return r;
        }
        event::visible(l);
        event::non_deterministic(l);
    }
    a[0] = real_thread(l, a[0]);
    // SAFETY: the program's own call with its own arguments.
    unsafe { crate::machine::sys::raw6(nr::TKILL, a) }
}

/// A thread sends a signal to another one of this process that blocks it: it waits in the
/// tables from now on. (In the kernel only that thread could take it before a commit.) In a tree
/// also to one that has a handler for it: the commit of another process may come first.
fn waits_for_thread(l: &mut Local, tid: i32, signo: i32, info_at: usize) -> bool {
    const SI_TKILL: i32 = -6;
    if !(1..=64).contains(&signo) || signal::RESERVED & signal::bit(signo) != 0 {
        return false;
    }
    if state().threads[l.slot as usize].tid == tid {
        return false;
    }
    let bit = signal::bit(signo);
    let is_handled =
        super::is_tree() && state().root.actions[signo as usize].handler > signal::SIG_IGN;
    let waits = |slot: &usize| {
        (is_handled || state().threads[*slot].sigmask & bit != 0)
            && crate::object::signalfd::masks() & bit == 0
            && signal::for_process::has_room()
    };
    // (Go sends its threads thousands that they do not block.)
    if thread::slot_of(tid).filter(waits).is_none() {
        return false;
    }
    let _guard = engine().lock.acquire(l);
    let Some(slot) = thread::slot_of(tid).filter(waits) else {
        return false;
    };
    let info = match l.frame.nr {
        nr::RT_TGSIGQUEUEINFO => match crate::machine::user::read::<SigInfo>(info_at) {
            Some(info) if info.code < 0 => SigInfo { signo, ..info },
            _ => return false,
        },
        _ => {
            let mut info = SigInfo {
                signo,
                errno: 0,
                code: SI_TKILL,
                rest: [0; 116],
            };
            let (pid, uid) = (state().root.pid, sys!(GETUID) as u32);
            info.rest[4..8].copy_from_slice(&pid.to_le_bytes());
            info.rest[8..12].copy_from_slice(&uid.to_le_bytes());
            info
        }
    };
    signal::for_process::push_for_thread(slot as u32, &info);
    true
}

/// kill(getpid(), SIGKILL): the program's own act, no failure.
fn kill_self(l: &mut Local) -> isize {
    let guard = engine().lock.acquire(l);
    core::mem::forget(guard);
    end::end(l, How::Signal(SIGKILL))
}

fn real_thread(l: &mut Local, tid: usize) -> usize {
    let _guard = engine().lock.acquire(l);
    thread::real_tid(tid as i32) as usize
}

/// Who a descriptor of pidfd_open(2) means, as the program knows it.
pub fn process_of_pidfd(fd: i32) -> Option<i32> {
    let mut path = Text::<40>::new();
    let _ = write!(path, "/proc/self/fdinfo/{fd}\0");
    let info = crate::proc::open(path.as_bytes(), 0o2000000);
    if failed(info) {
        return None;
    }
    let mut text = [0u8; 256];
    let n = sys!(READ, info, text.as_mut_ptr(), text.len());
    crate::object::input::count_read(n);
    sys!(CLOSE, info);
    let text = &text[..n.max(0) as usize];
    let mut path = [0u8; 64];
    let digits = match text.windows(5).position(|w| w == b"\nPid:") {
        Some(at) => text[at + 5..].trim_ascii_start(),
        // The process's folder means it too.
        None => {
            let n = crate::object::process::fd_path(fd, &mut path);
            let name = path[..n].strip_prefix(b"/proc/")?;
            if name.ends_with(b" (deleted)") {
                // Nobody's any more.
                return Some(-1);
            }
            name.iter().all(u8::is_ascii_digit).then_some(name)?
        }
    };
    let real = digits
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .fold(0i32, |v, b| v * 10 + i32::from(b - b'0'));
    (real > 0).then(|| super::known_id(real))
}

/// Whether a signal comes from a process of the run, by the kernel's number: one that may
/// have ended since.
pub fn is_from_run(sender: i32) -> bool {
    super::is_tree() && all().any(|(_, p)| p.worker.load(Relaxed) == sender)
}

/// Whether a hang-up tells of nothing but the death of the session's leader, which was killed
/// and will come back. (One that ends has said so in the table before.)
pub fn is_of_dead_leader(info: &signal::queue::SigInfo) -> bool {
    const SIGHUP: i32 = 1;
    const SI_KERNEL: i32 = 0x80;
    if !super::is_tree() || (info.signo, info.code) != (SIGHUP, SI_KERNEL) {
        return false;
    }
    known_as(me().session.get()).is_some_and(|(slot, p)| {
        slot != engine().slot && p.life() == Life::Lives && has_no_memory(p.real.load(Relaxed))
    })
}

/// Whether a process is dead, reaped or not.
fn has_no_memory(pid: i32) -> bool {
    let mut byte = 0u8;
    let to = [&raw mut byte as usize, 1];
    let from = [dc_image::window::RUNTIME_BASE, 1];
    sys!(PROCESS_VM_READV, pid, to.as_ptr(), 1, from.as_ptr(), 1, 0) == -ESRCH
}

/// The sender's number in a siginfo, as the program knows it.
pub fn translate_sender(info: &mut signal::queue::SigInfo) {
    const SI_USER: i32 = 0;
    const SI_QUEUE: i32 = -1;
    const SI_TKILL: i32 = -6;
    if !matches!(info.code, SI_USER | SI_QUEUE | SI_TKILL) {
        return;
    }
    let real = i32::from_le_bytes([info.rest[4], info.rest[5], info.rest[6], info.rest[7]]);
    info.rest[4..8].copy_from_slice(&super::known_id(real).to_le_bytes());
}

/// The runtime's own signal has come to this thread.
pub fn own_signal(l: &mut Local) {
    if engine().live.is_null() {
        return;
    }
    unit::signalled(l);
    signal::suspension::take_request(l);
    let wanted = me().group_wanted.swap(0, SeqCst);
    if wanted != 0 {
        let r = sys!(SETPGID, 0, wanted - 1);
        me().group_answer.store(r as i32 - 1, SeqCst);
    }
    LOOKS_AGAIN.store(true, SeqCst);
    l.attention
        .fetch_or(ATTENTION_LOOK | ATTENTION_STOP, SeqCst);
}

/// Somebody has called, and nobody has looked since.
static LOOKS_AGAIN: AtomicBool = AtomicBool::new(false);

/// Looks what has become of children, if somebody has called for it. In the thread's own course
/// and not in a handler: that may run in the middle of a commit which has this process already,
/// or does not ask it; what it took would be of that commit, and in no queue that it has.
#[inline(always)]
pub fn look_again(l: &mut Local) {
    if l.attention.load(Relaxed) & ATTENTION_LOOK != 0 {
        l.attention.fetch_and(!ATTENTION_LOOK, SeqCst);
    }
    if LOOKS_AGAIN.load(Relaxed) && LOOKS_AGAIN.swap(false, SeqCst) {
        end::take_signals(l);
        end::take_changes(l);
    }
}

/// The thread waits for the lock, which is no place to look.
pub fn look_later(l: &mut Local) {
    l.attention.fetch_and(!ATTENTION_LOOK, SeqCst);
}

/// It has the lock: it looks before it waits for anything else.
pub fn look_soon(l: &mut Local) {
    if LOOKS_AGAIN.load(SeqCst) {
        l.attention
            .fetch_or(ATTENTION_LOOK | ATTENTION_STOP, SeqCst);
    }
}
