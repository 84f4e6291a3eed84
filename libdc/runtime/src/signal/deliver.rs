//! Handing a signal to the program: the frame on its stack, as the kernel
//! would have built it, and the way back through rt_sigreturn.
//!
//! ```text
//! high   xsave area, 64-aligned, then FP_XSTATE_MAGIC2
//!        siginfo (128)
//!        ucontext (304)
//! low    address of the program's restorer      <- rsp at the handler
//! ```
#![allow(unsafe_code)]

use super::calls::{SS_AUTODISARM, is_on, is_within, set_altstack};
use super::queue::SigInfo;
use super::*;
use crate::event;
use crate::machine::sys::errno::EINTR;
use crate::machine::{nr, user, vector};
use crate::object::{aio, transfer};
use crate::space;

const FRAME_LEN: usize = 8 + size_of::<UContext>() + 128;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
const SEGV_ACCERR: i32 = 2;
/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
const UC_FLAGS: u64 = 7;

/// Delivers what can be delivered now. Under the big lock.
pub fn deliver_pending(l: &mut Local) {
    loop {
        if event::is_behind() && forced(l) == 0 {
            // A signal closes a log, so there is none in the one that is
            // replayed; and before output that is met again there was none.
            // Those that come meanwhile are delivered at the end.
            l.attention.fetch_and(!ATTENTION_SIGNAL, SeqCst);
            return;
        }
        if transfer::must_end_first(l) {
            // Whoever ends it looks again.
            l.attention.fetch_and(!ATTENTION_SIGNAL, SeqCst);
            return;
        }
        let mask = mask_of(l);
        let held = held::mask(l);
        let set = !mask & !held | forced(l);
        let own = l.queue.take(set);
        let Some(info) = own.or_else(|| for_process::take(l.slot, set)) else {
            // What remains is blocked or held; who ends that looks again.
            l.attention.fetch_and(!ATTENTION_SIGNAL, SeqCst);
            if waiting_for(l) & !mask_of(l) & !held::mask(l) == 0 {
                restore_saved_mask(l);
                // Where another thread was quicker, nothing has come of it here.
                return end_call(l, true);
            }
            l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
            continue;
        };
        deliver(l, &info);
        if core::mem::take(&mut l.flooded) {
            // There is room for what waits in the kernel.
            let mask = mask_of(l);
            set_mask(l, mask);
        }
    }
}

/// A signal that the call under way has brought about comes before anything else. Under the
/// big lock.
pub fn at_once(l: &mut Local, info: &SigInfo) {
    deliver(l, info);
}

/// Synchronous faults cannot stay blocked.
fn forced(l: &Local) -> u64 {
    l.queue.pending() & (bit(4) | bit(5) | bit(7) | bit(8) | bit(11))
}

/// sigsuspend and its like give the old mask back after the handler's frame
/// was built with it, or here if there was no handler.
fn restore_saved_mask(l: &mut Local) {
    let r = &mut state().threads[l.slot as usize];
    if r.has_saved_mask != 0 {
        r.has_saved_mask = 0;
        let m = r.saved_mask;
        set_mask(l, m);
    }
}

fn deliver(l: &mut Local, info: &SigInfo) {
    let sig = info.signo;
    // (What may not be executed is no store.)
    let store = info.code == SEGV_ACCERR && info.address() != l.frame.rip;
    if sig == SIGSEGV && store && space::shared::store(info.address()) {
        return;
    }
    const SEGV_MAPERR: i32 = 1;
    if sig == SIGSEGV && info.code == SEGV_MAPERR && space::downward::grow(info.address()) {
        return;
    }
    let act = state().root.actions[sig as usize];
    let from_outside = outside::is(info);
    if from_outside {
        outside::count(info);
    }
    crate::object::timers::rang(info);
    if crate::run::stranger::is_one() {
        crate::run::stranger::pass_on(l, info);
        return end_call(l, true);
    }
    match act.handler {
        SIG_IGN if info.code <= 0 || !matches!(sig, 4 | 5 | 7 | 8 | 11) => {
            return end_call(l, true);
        }
        SIG_DFL | SIG_IGN => match sig {
            17 | 18 | 23 | 28 => return end_call(l, true),
            20..=22 => {
                crate::run::job_control::is_to_stop(sig);
                return end_call(l, true);
            }
            _ => crate::run::signals::end_by(l, sig),
        },
        _ => {}
    }
    if from_outside {
        outside::note(l, info);
    }
    event::unloggable(l);
    let restarts = act.flags & SA_RESTART != 0 && crate::table::row(l.frame.nr).restarts;
    end_call(l, restarts || l.early);
    end_wait_with_mask(l);
    let record = &mut state().threads[l.slot as usize];
    let old_mask = if record.has_saved_mask != 0 {
        record.saved_mask
    } else {
        record.sigmask
    };
    if !build_frame(l, info, &act, old_mask) {
        return without_frame(l, sig);
    }
    let record = &mut state().threads[l.slot as usize];
    record.has_saved_mask = 0;
    if record.altstack[1] & SS_AUTODISARM != 0 {
        record.altstack = [0, 0, 0];
    }
    let mut mask = state().threads[l.slot as usize].sigmask | act.mask;
    if act.flags & SA_NODEFER == 0 {
        mask |= bit(sig);
    }
    set_mask(l, mask);
    if act.flags & SA_RESETHAND != 0 {
        state().root.actions[sig as usize].handler = SIG_DFL;
        let dfl = [
            SIG_DFL,
            SA_RESTORER,
            entry::sigreturn as *const () as usize,
            0,
        ];
        if RESERVED & bit(sig) == 0 {
            sys!(RT_SIGACTION, sig, &raw const dfl, 0, 8);
        }
    }
}

/// There was no room on the stack for a handler's frame: that is a fault, which may have a
/// handler on another stack.
fn without_frame(l: &mut Local, sig: i32) {
    const SI_KERNEL: i32 = 0x80;
    let handler = state().root.actions[SIGSEGV as usize].handler;
    let blocked = mask_of(l) & bit(SIGSEGV) != 0;
    if sig == SIGSEGV || blocked || matches!(handler, SIG_DFL | SIG_IGN) {
        crate::run::signals::end_by(l, SIGSEGV);
    }
    let fault = SigInfo {
        signo: SIGSEGV,
        errno: 0,
        code: SI_KERNEL,
        rest: [0; 116],
    };
    deliver(l, &fault);
}

/// A recovery has put the thread before a call that waits with another mask (sigsuspend,
/// ppoll and the like), and the mask is in force. To the program the signal came in that
/// call, which ends with it: made again behind the handler it might wait for ever.
fn end_wait_with_mask(l: &mut Local) {
    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    let waits = state().threads[l.slot as usize].has_saved_mask != 0;
    if waits && l.frame.rax == l.frame.nr && user::read(l.frame.rip) == Some(SYSCALL) {
        l.frame.call_answered(EINTR.wrapping_neg() as usize);
    }
}

/// A call that the signal broke off ends with EINTR, or is made again: if nothing
/// came of the signal, if it had not begun to wait, or if the handler says so and
/// the call is of that kind.
fn end_call(l: &mut Local, again: bool) {
    if again && l.interrupted && l.frame.rax as isize == -EINTR {
        l.frame.call_again();
    }
    (l.interrupted, l.early) = (false, false);
}

/// Makes the thread run `function(arg)` of the program before it goes on, on
/// its own stack, like a handler; `back` ends in rt_sigreturn.
pub fn call_function(l: &mut Local, function: usize, arg: usize, back: usize) {
    let info = SigInfo {
        signo: 0,
        errno: 0,
        code: 0,
        rest: [0; 116],
    };
    let act = crate::state::SigAction {
        handler: function,
        flags: 0,
        restorer: back,
        mask: 0,
    };
    let mask = mask_of(l);
    if build_frame(l, &info, &act, mask) {
        l.frame.rdi = arg;
    }
}

fn build_frame(
    l: &mut Local,
    info: &SigInfo,
    act: &crate::state::SigAction,
    old_mask: u64,
) -> bool {
    let record = &mut state().threads[l.slot as usize];
    // At a recovery it may stand in the middle of a write, which this ends.
    match core::mem::take(&mut record.moved_bytes) {
        0 => {}
        written => {
            if l.frame.rax == nr::SENDFILE {
                transfer::answered(l.slot, l.frame.args(), written);
            }
            l.frame.call_answered(written);
        }
    }
    if let Some(submitted) = aio::cut_short(l) {
        l.frame.call_answered(submitted);
    }
    let record = &mut state().threads[l.slot as usize];
    let altstack = record.altstack;
    let f = &l.frame;
    let is_on_it = is_on(&altstack, f.rsp);
    let enters = act.flags & SA_ONSTACK != 0 && altstack[2] != 0 && !is_on_it;
    let mut sp = match enters {
        true => altstack[0] + altstack[2],
        false => f.rsp.wrapping_sub(128),
    };
    let xsave_len = vector::standard_size();
    sp = sp.wrapping_sub(xsave_len + 4);
    sp &= !63;
    let fpstate = sp;
    sp = (sp.wrapping_sub(FRAME_LEN - 8) & !15).wrapping_sub(8);
    // What lies below an alternate stack is none of it.
    if (enters || is_on_it) && !is_within(&altstack, sp) {
        return false;
    }
    // A stack may lie in memory whose stores are noted.
    space::shared::open(sp, fpstate + xsave_len + 4);
    let uc = UContext {
        flags: UC_FLAGS,
        link: 0,
        stack: altstack,
        r8: f.r8,
        r9: f.r9,
        r10: f.r10,
        r11: f.r11,
        r12: f.r12,
        r13: f.r13,
        r14: f.r14,
        r15: f.r15,
        rdi: f.rdi,
        rsi: f.rsi,
        rbp: f.rbp,
        rbx: f.rbx,
        rdx: f.rdx,
        rax: f.rax,
        rcx: f.rcx,
        rsp: f.rsp,
        rip: f.rip,
        rflags: f.rflags,
        segments: [0x33, 0, 0, 0x2b],
        err: 0,
        trapno: if info.signo == SIGSEGV { 14 } else { 0 },
        oldmask: old_mask as usize,
        cr2: if info.signo == SIGSEGV {
            usize::from_le_bytes(info.rest[4..12].try_into().unwrap_or([0; 8]))
        } else {
            0
        },
        fpstate,
        reserved: [0; 8],
        sigmask: old_mask,
    };
    let xmm = f.xmm;
    // The vector state, in the standard format with the kernel's marks.
    let area = &mut l.xsave.bytes;
    // SAFETY: the thread's own area; xmm0-15 are put in from the frame.
    unsafe {
        vector::save_standard(area.as_mut_ptr());
        vector::set_xmm(area.as_mut_ptr(), &xmm);
    }
    let marks: [u32; 5] = [
        FP_XSTATE_MAGIC1,
        (xsave_len + 4) as u32,
        vector::mask() as u32,
        (vector::mask() >> 32) as u32,
        xsave_len as u32,
    ];
    for (i, m) in marks.iter().enumerate() {
        area[464 + i * 4..468 + i * 4].copy_from_slice(&m.to_le_bytes());
    }
    area[484..512].fill(0);
    let ok = user::write_bytes(fpstate, &area[..xsave_len])
        && user::write(fpstate + xsave_len, &FP_XSTATE_MAGIC2)
        && user::write(sp, &act.restorer)
        && user::write(sp + 8, &uc)
        && user::write(sp + 8 + size_of::<UContext>(), &outside::as_sent(info));
    if !ok {
        return false;
    }
    let f = &mut l.frame;
    f.rip = act.handler;
    f.rsp = sp;
    f.rdi = info.signo as usize;
    f.rsi = sp + 8 + size_of::<UContext>();
    f.rdx = sp + 8;
    f.rax = 0;
    f.rflags &= !(1 << 10 | 1 << 8);
    l.again = false;
    true
}

/// rt_sigreturn: the registers, mask and vector state of the frame that the
/// program's stack pointer shows.
pub fn sigreturn(l: &mut Local) -> isize {
    let at = l.frame.rsp;
    let Some(uc) = user::read::<UContext>(at) else {
        die_of(SIGSEGV)
    };
    let f = &mut l.frame;
    (f.r8, f.r9, f.r10, f.r11) = (uc.r8, uc.r9, uc.r10, uc.r11);
    (f.r12, f.r13, f.r14, f.r15) = (uc.r12, uc.r13, uc.r14, uc.r15);
    (f.rdi, f.rsi, f.rbp, f.rbx) = (uc.rdi, uc.rsi, uc.rbp, uc.rbx);
    (f.rdx, f.rax, f.rcx, f.rsp) = (uc.rdx, uc.rax, uc.rcx, uc.rsp);
    f.rip = uc.rip;
    f.rflags = (uc.rflags & 0xcd5) | 0x202;
    f.nr = crate::dispatch::AFTER_SIGRETURN;
    if uc.fpstate != 0 {
        load_vectors(l, uc.fpstate);
    }
    l.again = false;
    l.interrupted = false;
    // (Where it cannot be set it stays as it is.)
    let altstack = &mut state().threads[l.slot as usize].altstack;
    set_altstack(altstack, uc.stack, uc.rsp);
    set_mask(l, uc.sigmask);
    l.frame.rax as isize
}

fn load_vectors(l: &mut Local, fpstate: usize) {
    let len = vector::standard_size();
    let Some(magic) = user::read::<u32>(fpstate + 464) else {
        die_of(SIGSEGV)
    };
    let want = if magic == FP_XSTATE_MAGIC1 { len } else { 512 };
    if !user::read_bytes(fpstate, &mut l.xsave.bytes[..want]) {
        die_of(SIGSEGV);
    }
    let area = &mut l.xsave.bytes;
    if want == 512 {
        area[512..576].fill(0);
        area[512] = 3;
    } else {
        // Only what we know, and no reserved bits: xrstor would fault.
        let bv = u64::from_le_bytes(area[512..520].try_into().unwrap_or([0; 8])) & vector::mask();
        area[512..520].copy_from_slice(&bv.to_le_bytes());
        area[520..576].fill(0);
    }
    // MXCSR's reserved bits.
    let mxcsr = u32::from_le_bytes(area[24..28].try_into().unwrap_or([0; 4])) & 0xffff;
    area[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    // SAFETY: an area of the standard format, made harmless above.
    unsafe {
        l.frame.xmm = vector::get_xmm(area.as_ptr());
        vector::load(area.as_ptr());
    }
}
