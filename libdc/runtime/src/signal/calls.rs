//! The system calls about signals.

use super::*;
use crate::machine::frame::ATTENTION_STOP;
use crate::machine::sys::errno::*;
use crate::state::SigAction;
use crate::thread::deadline::Deadline;
use crate::{event, thread};
use core::sync::atomic::AtomicU64;

pub fn sigaction(_l: &mut Local, a: [usize; 6]) -> isize {
    let [sig, new, old, size, ..] = a;
    if size != 8 {
        return -EINVAL;
    }
    let given = match new {
        0 => None,
        _ => match user::read::<SigAction>(new) {
            Some(act) => Some(act),
            None => return -EFAULT,
        },
    };
    let sig = sig as i32;
    if !(1..=64).contains(&sig) {
        return -EINVAL;
    }
    let current = state().root.actions[sig as usize];
    if let Some(mut act) = given {
        if sig == SIGKILL || sig == 19 {
            return -EINVAL;
        }
        act.mask &= !(bit(SIGKILL) | bit(19));
        if RESERVED & bit(sig) == 0 {
            let r = install_for(sig, &act);
            if failed(r) {
                return r;
            }
        }
        state().root.actions[sig as usize] = act;
    }
    if old != 0 && !user::write(old, &current) {
        return -EFAULT;
    }
    0
}

/// The kernel's disposition that belongs to the program's.
pub fn install_for(sig: i32, act: &SigAction) -> isize {
    let ends = act.handler == SIG_DFL
        && state().root.tree != 0
        && (crate::run::signals::ends_by_default(sig) || crate::run::job_control::stops_here(sig));
    let awaited = AWAITED.load(SeqCst) & bit(sig) != 0;
    if !ends && !awaited && (act.handler == SIG_DFL || act.handler == SIG_IGN) {
        let real = [
            act.handler,
            SA_RESTORER | act.flags & (SA_NOCLDSTOP | SA_NOCLDWAIT),
            entry::sigreturn as *const () as usize,
            0,
        ];
        sys!(RT_SIGACTION, sig, &raw const real, 0, 8)
    } else {
        install(sig, act.flags & (SA_NOCLDSTOP | SA_NOCLDWAIT))
    }
}

pub fn sigprocmask(l: &mut Local, a: [usize; 6]) -> isize {
    let [how, new, old, size, ..] = a;
    if size != 8 {
        return -EINVAL;
    }
    let current = mask_of(l);
    if new != 0 {
        let Some(set) = user::read::<u64>(new) else {
            return -EFAULT;
        };
        let mask = match how {
            0 => current | set,
            1 => current & !set,
            2 => set,
            _ => return -EINVAL,
        };
        set_mask(l, mask);
    }
    if old != 0 && !user::write(old, &current) {
        return -EFAULT;
    }
    0
}

pub fn sigpending(l: &mut Local, a: [usize; 6]) -> isize {
    if a[1] > 8 {
        return -EINVAL;
    }
    let mut kernel = 0u64;
    sys!(RT_SIGPENDING, &raw mut kernel, 8);
    let all = (kernel | waiting_for(l)) & mask_of(l);
    if user::write_bytes(a[0], &all.to_le_bytes()[..a[1]]) {
        0
    } else {
        -EFAULT
    }
}

pub fn sigaltstack(l: &mut Local, a: [usize; 6]) -> isize {
    let [new, old, ..] = a;
    let record = &mut state().threads[l.slot as usize];
    let mut current = record.altstack;
    if current[2] == 0 {
        current[1] = SS_DISABLE;
    } else if is_on(&current, l.frame.rsp) {
        current[1] |= SS_ONSTACK;
    }
    if new != 0 {
        let Some(ss) = user::read::<[usize; 3]>(new) else {
            return -EFAULT;
        };
        let r = set_altstack(&mut record.altstack, ss, l.frame.rsp);
        if failed(r) {
            return r;
        }
    }
    if old != 0 && !user::write(old, &current) {
        return -EFAULT;
    }
    0
}

const SS_ONSTACK: usize = 1;
pub const SS_DISABLE: usize = 2;
/// While a handler runs on it, it is none: the handler may leave it for good.
pub const SS_AUTODISARM: usize = 1 << 31;

/// Whether a stack pointer is on the thread's alternate stack.
pub fn is_on(altstack: &[usize; 3], sp: usize) -> bool {
    altstack[1] & SS_AUTODISARM == 0 && is_within(altstack, sp)
}

pub fn is_within(altstack: &[usize; 3], sp: usize) -> bool {
    sp > altstack[0] && sp - altstack[0] <= altstack[2]
}

/// What sigaltstack(2) does, and rt_sigreturn(2) with what it finds in the frame.
pub fn set_altstack(altstack: &mut [usize; 3], ss: [usize; 3], sp: usize) -> isize {
    const LEAST: usize = 2048;
    if is_on(altstack, sp) {
        return -EPERM;
    }
    let flags = ss[1] & 0xffff_ffff;
    *altstack = match flags & !SS_AUTODISARM {
        SS_DISABLE => [0, flags, 0],
        0 | SS_ONSTACK if ss[2] < LEAST => return -ENOMEM,
        0 | SS_ONSTACK => [ss[0], flags & !SS_ONSTACK, ss[2]],
        _ => return -EINVAL,
    };
    0
}

/// Waits with another mask: sets it, remembers the old one for the handler's
/// frame.
pub fn with_mask(l: &mut Local, mask_at: usize, size: usize) -> Result<(), isize> {
    if mask_at == 0 {
        return Ok(());
    }
    if size != 8 {
        return Err(-EINVAL);
    }
    let Some(mask) = user::read::<u64>(mask_at) else {
        return Err(-EFAULT);
    };
    let _guard = engine().lock.acquire(l);
    let r = &mut state().threads[l.slot as usize];
    // A call that a recovery makes again has set its mask before.
    if r.has_saved_mask == 0 {
        r.saved_mask = r.sigmask;
        r.has_saved_mask = 1;
    }
    set_mask(l, mask);
    Ok(())
}

/// Ends [`with_mask`] when no signal came.
pub fn end_mask(l: &mut Local) {
    let has_saved_mask = state().threads[l.slot as usize].has_saved_mask != 0;
    if has_saved_mask && waiting_for(l) & !mask_of(l) == 0 {
        let _guard = engine().lock.acquire(l);
        let r = &mut state().threads[l.slot as usize];
        r.has_saved_mask = 0;
        let m = r.saved_mask;
        set_mask(l, m);
    }
}

pub fn sigsuspend(l: &mut Local, a: [usize; 6]) -> isize {
    if let Err(e) = with_mask(l, a[0], a[1]) {
        return e;
    }
    loop {
        let r = thread::wait(l, crate::machine::nr::PAUSE, [0; 6]);
        if waiting_for(l) & !mask_of(l) != 0 {
            l.interrupted = true;
            return r;
        }
        if l.attention.load(SeqCst) & ATTENTION_STOP != 0 {
            thread::pause_for_stop(l);
            thread::commit_for_tick(l);
        }
    }
}

/// rt_sigtimedwait(2). What comes goes into the queue first, by the runtime's handler, and is
/// taken from there under the lock: what the kernel hands out itself would be in nobody's
/// hands while another thread or process commits.
pub fn sigtimedwait(l: &mut Local, a: [usize; 6]) -> isize {
    let [set_at, info_at, timeout, size, ..] = a;
    if size != 8 {
        return -EINVAL;
    }
    let Some(set) = user::read::<u64>(set_at) else {
        return -EFAULT;
    };
    let set = set & !(bit(SIGKILL) | bit(SIGSTOP));
    let n = crate::machine::nr::RT_SIGTIMEDWAIT;
    let mut deadline = Deadline::of(l, n, &[set_at, info_at, timeout, size, 0, 0]);
    have_told(set);
    let mask = mask_of(l) & !set & !RESERVED;
    let mut args = [0, 0, timeout, &raw const mask as usize, size, 0];
    deadline.begin(n, &mut args);
    l.awaited_signals.store(set, SeqCst);
    let r = loop {
        let guard = engine().lock.acquire(l);
        let info = l.queue.take(set).or_else(|| for_process::take(set));
        if let Some(info) = info {
            break was_awaited(l, &info, info_at);
        }
        drop(guard);
        let r = match thread::wait(l, crate::machine::nr::PPOLL, args) {
            0 => -EAGAIN,
            r => r,
        };
        if waiting_for(l) & set != 0 || deadline.goes_on(l, n, &mut args, r) {
            continue;
        }
        if r != -EINTR {
            break r;
        }
        if thread::signal_waits(l) {
            l.interrupted = true;
            break r;
        }
        thread::wait_on(l);
        if l.attention.load(SeqCst) & ATTENTION_STOP != 0 {
            thread::pause_for_stop(l);
            thread::commit_for_tick(l);
        }
        deadline.shorten(&mut args);
    };
    l.awaited_signals.store(0, SeqCst);
    r
}

/// A signal that the program has waited for. Under the lock.
fn was_awaited(l: &mut Local, info: &SigInfo, info_at: usize) -> isize {
    if outside::is(info) {
        outside::count(info);
        outside::note(l, info);
    }
    event::non_deterministic(l);
    if thread::signal_waits(l) {
        l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
    }
    if info_at != 0 {
        let info = outside::as_sent(info);
        crate::space::shared::open(info_at, info_at.saturating_add(size_of_val(&info)));
        if !user::write(info_at, &info) {
            // The signal is taken: made again, the call would wait for another one.
            l.is_final = true;
            return -EFAULT;
        }
    }
    info.signo as isize
}

/// Signals of which the runtime is told whatever the program does with them.
static AWAITED: AtomicU64 = AtomicU64::new(0);

/// Has the runtime's handler called for signals that the program waits for.
fn have_told(set: u64) {
    let new = set & !RESERVED & !AWAITED.fetch_or(set, SeqCst);
    for signo in (1..=64).filter(|&signo| new & bit(signo) != 0) {
        let action = state().root.actions[signo as usize];
        install_for(signo, &action);
    }
}
