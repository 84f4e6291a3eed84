//! The system calls about signals.

use super::*;
use crate::machine::frame::ATTENTION_STOP;
use crate::machine::sys::errno::*;
use crate::state::SigAction;
use crate::thread::deadline::Deadline;
use crate::{event, thread};

pub fn sigaction(_l: &mut Local, a: [usize; 6]) -> isize {
    let [sig, new, old, size, ..] = a;
    if size != 8 || sig == 0 || sig > 64 {
        return -EINVAL;
    }
    let sig = sig as i32;
    let current = state().root.actions[sig as usize];
    if new != 0 {
        let Some(mut act) = user::read::<SigAction>(new) else {
            return -EFAULT;
        };
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
    if !ends && (act.handler == SIG_DFL || act.handler == SIG_IGN) {
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
    let mut kernel = 0u64;
    sys!(RT_SIGPENDING, &raw mut kernel, 8);
    let all = (kernel | l.queue.pending()) & mask_of(l);
    let n = a[1].min(8);
    if user::write_bytes(a[0], &all.to_le_bytes()[..n]) {
        0
    } else {
        -EFAULT
    }
}

pub fn sigaltstack(l: &mut Local, a: [usize; 6]) -> isize {
    let [new, old, ..] = a;
    let record = &mut state().threads[l.slot as usize];
    let mut current = record.altstack;
    let on = current[2] != 0 && l.frame.rsp.wrapping_sub(current[0]) <= current[2];
    if current[2] == 0 {
        current[1] = 2;
    } else if on {
        current[1] |= 1;
    }
    if new != 0 {
        let Some(ss) = user::read::<[usize; 3]>(new) else {
            return -EFAULT;
        };
        if on {
            return -EPERM;
        }
        let flags = ss[1] & 0xffff_ffff;
        if flags & 0xffff & !3 != 0 {
            return -EINVAL;
        }
        if flags & 2 != 0 {
            record.altstack = [0, 2, 0];
        } else {
            if ss[2] < 2048 {
                return -ENOMEM;
            }
            record.altstack = [ss[0], flags & !1, ss[2]];
        }
    }
    if old != 0 && !user::write(old, &current) {
        return -EFAULT;
    }
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
    if state().threads[l.slot as usize].has_saved_mask != 0 && l.queue.pending() & !mask_of(l) == 0
    {
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
        if l.queue.pending() & !mask_of(l) != 0 {
            l.interrupted = true;
            return r;
        }
        if l.attention.load(SeqCst) & ATTENTION_STOP != 0 {
            thread::pause_for_stop(l);
            thread::commit_for_tick(l);
        }
    }
}

pub fn sigtimedwait(l: &mut Local, a: [usize; 6]) -> isize {
    let Some(set) = user::read::<u64>(a[0]) else {
        return -EFAULT;
    };
    let mut args = a;
    args[0] = &raw const set as usize;
    let mut info = SigInfo {
        signo: 0,
        errno: 0,
        code: 0,
        rest: [0; 116],
    };
    args[1] = &raw mut info as usize;
    let n = crate::machine::nr::RT_SIGTIMEDWAIT;
    let mut deadline = Deadline::of(l, n, &args);
    deadline.begin(n, &mut args);
    let r = loop {
        if let Some(i) = l.queue.take(set) {
            info = i;
            break i.signo as isize;
        }
        let r = thread::wait(l, n, args);
        if deadline.goes_on(l, n, &mut args, r) {
            continue;
        }
        if r != -EINTR {
            if r > 0 {
                crate::run::signals::translate_sender(&mut info);
            }
            break r;
        }
        l.attention.fetch_and(!ATTENTION_SIGNAL, SeqCst);
        if l.queue.pending() & (!mask_of(l) | set) != 0 && l.queue.pending() & set == 0 {
            l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
            l.interrupted = true;
            return r;
        }
        if l.attention.load(SeqCst) & ATTENTION_STOP != 0 {
            thread::pause_for_stop(l);
            thread::commit_for_tick(l);
        }
        deadline.shorten(&mut args);
    };
    l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
    if r > 0 && a[1] != 0 && !user::write(a[1], &outside::as_sent(&info)) {
        return -EFAULT;
    }
    let _guard = engine().lock.acquire(l);
    event::non_deterministic(l);
    r
}
