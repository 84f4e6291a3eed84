//! rt_sigtimedwait(2): a thread waits for signals that it blocks.
//!
//! They stay in the kernel until somebody holds the lock, and are taken in the order in which
//! they came. What the kernel would hand out itself were in nobody's hands while another thread
//! or process commits. So the wait is one upon a signalfd, which tells that there are some and
//! takes none.
#![allow(unsafe_code)]

use super::*;
use crate::engine::MAX_THREADS;
use crate::machine::frame::ATTENTION_STOP;
use crate::machine::nr;
use crate::machine::sys::errno::*;
use crate::thread::deadline::Deadline;
use crate::{event, object, reserved, thread};
use core::sync::atomic::AtomicU64;
use dc_image::boot::high_fd;

pub fn sigtimedwait(l: &mut Local, a: [usize; 6]) -> isize {
    const NS: u64 = 1_000_000_000;
    let [set_at, info_at, timeout_at, size, ..] = a;
    if size != 8 {
        return -EINVAL;
    }
    let Some(set) = user::read::<u64>(set_at) else {
        return -EFAULT;
    };
    let mut timeout = [0u64; 2];
    if timeout_at != 0 {
        match user::read::<[u64; 2]>(timeout_at) {
            Some(given) if given[1] < NS && given[0] as i64 >= 0 => timeout = given,
            Some(_) => return -EINVAL,
            None => return -EFAULT,
        }
    }
    let set = set & !(bit(SIGKILL) | bit(SIGSTOP));
    l.awaited_signals.store(set, SeqCst);
    let r = wait(l, set, (timeout_at != 0).then_some(&mut timeout), &a);
    l.awaited_signals.store(0, SeqCst);
    let Ok(info) = r else {
        return r.err().unwrap_or(0);
    };
    if info_at != 0 {
        let info = outside::as_sent(&info);
        crate::space::shared::open(info_at, info_at.saturating_add(size_of_val(&info)));
        if !user::write(info_at, &info) {
            // The signal is taken: made again, the call would wait for another one.
            l.is_final = true;
            return -EFAULT;
        }
    }
    info.signo as isize
}

/// Waits for one of a set, and takes it: `Err` has what the call answers instead.
fn wait(
    l: &mut Local,
    set: u64,
    timeout: Option<&mut [u64; 2]>,
    a: &[usize; 6],
) -> Result<SigInfo, isize> {
    const POLLIN: u64 = 1;
    let n = nr::RT_SIGTIMEDWAIT;
    let mut deadline = Deadline::of(l, n, a);
    let timeout = timeout.map_or(0, |timeout| timeout.as_mut_ptr() as usize);
    let polled = AtomicU64::new(0);
    let mut args = [polled.as_ptr() as usize, 1, timeout, 0, 8, 0];
    deadline.begin(n, &mut args);
    loop {
        let guard = engine().lock.acquire(l);
        if let Some(info) = next(l, set) {
            event::non_deterministic(l);
            return Ok(info);
        }
        let fd = watch(all_awaited());
        if failed(fd) {
            return Err(fd);
        }
        drop(guard);
        crate::object::deferred_close::close_before_wait(l);
        // (`struct pollfd`)
        polled.store(fd as u64 | POLLIN << 32, Relaxed);
        let r = match thread::wait(l, nr::PPOLL, args) {
            0 => -EAGAIN,
            r => r,
        };
        if r == 1 || waiting_for(l) & set != 0 || deadline.goes_on(l, n, &mut args, r) {
            deadline.shorten(&mut args);
            continue;
        }
        if r != -EINTR {
            return Err(r);
        }
        if thread::signal_waits(l) {
            l.interrupted = true;
            return Err(r);
        }
        thread::wait_on(l);
        if l.attention.load(SeqCst) & ATTENTION_STOP != 0 {
            thread::pause_for_stop(l);
            thread::commit_for_tick(l);
        }
        deadline.shorten(&mut args);
    }
}

/// The oldest that waits of a set. Under the lock.
fn next(l: &mut Local, set: u64) -> Option<SigInfo> {
    let by_signalfd = object::signalfd::masks();
    collect(l, all_awaited() & !by_signalfd);
    let mut info = take(l, set);
    if info.is_none() && set & by_signalfd != 0 {
        // Whoever reads the descriptor may be meant as well: no more than is asked for.
        collect_one(l, set & by_signalfd);
        info = take(l, set);
    }
    let info = info?;
    if outside::is(&info) {
        outside::count(&info);
        outside::note(l, &info);
    }
    if thread::signal_waits(l) {
        l.attention.fetch_or(ATTENTION_SIGNAL, SeqCst);
    }
    Some(info)
}

fn take(l: &mut Local, set: u64) -> Option<SigInfo> {
    let own = l.queue.take(set);
    own.or_else(|| for_process::take(l.slot, set))
}

/// What any thread of this process waits for.
fn all_awaited() -> u64 {
    (0..engine().thread_high.min(MAX_THREADS))
        .map(|slot| engine().threads[slot])
        .filter(|t| !t.is_null())
        // SAFETY: blocks are never unmapped; only an atomic is read.
        .map(|t| unsafe { &*t }.awaited_signals.load(SeqCst))
        .fold(0, |all, set| all | set)
}

/// The descriptor that is readable when one of a set waits in the kernel.
fn watch(set: u64) -> isize {
    const O_CLOEXEC: usize = 0o2000000;
    let known = engine().high_fd(high_fd::AWAITED);
    let r = sys!(SIGNALFD4, known, &raw const set, 8, 0);
    if !failed(r) {
        return r;
    }
    let made = sys!(SIGNALFD4, -1isize, &raw const set, 8, O_CLOEXEC);
    match failed(made) {
        true => made,
        false => reserved::move_high(made, high_fd::AWAITED) as isize,
    }
}
