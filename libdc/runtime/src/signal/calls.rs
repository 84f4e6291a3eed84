//! The system calls about signals.

use super::*;
use crate::machine::frame::ATTENTION_STOP;
use crate::machine::sys::errno::*;
use crate::state::SigAction;
use crate::thread;

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
    let suspends = act.handler == SIG_DFL && super::suspension::signals() & bit(sig) != 0;
    if !ends && !suspends && (act.handler == SIG_DFL || act.handler == SIG_IGN) {
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
    crate::object::deferred_close::close_before_wait(l);
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
