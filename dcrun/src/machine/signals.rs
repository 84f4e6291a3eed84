//! Signals of the keeper: none is handled, all are waited for.
//!
//! The keeper blocks everything and takes signals one by one, so that it needs
//! no handler and the worker's child state is simply the saved mask and the
//! one disposition that had to be changed.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Signals that the keeper leaves alone: its own bugs shall still kill it.
const OWN_FAULTS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
];

/// The signal state that dcrun was called with, which the program shall find.
pub struct Inherited {
    mask: libc::sigset_t,
    on_child: libc::sigaction,
}

/// A signal that was sent to the keeper.
pub struct Arrived {
    pub number: i32,
    /// Sent by kill(2) and the like: perhaps to the keeper alone. A signal of
    /// the terminal goes to the whole group, so the worker has its own copy.
    pub by_process: bool,
    pub sender: i32,
    /// What was sent along (sigqueue(3)), if that is how it came.
    queued: Option<libc::siginfo_t>,
}

fn waited_for() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set; sigdelset then edits it in place.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for signal in OWN_FAULTS {
            libc::sigdelset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Blocks all signals, makes the deaths of children visible even if dcrun was
/// called with SIGCHLD ignored, and returns what was before.
pub fn take_over() -> Inherited {
    let set = waited_for();
    let mut mask = MaybeUninit::uninit();
    let mut on_child = MaybeUninit::uninit();
    // SAFETY: both outputs are written by calls that cannot fail with valid
    // arguments; SIG_DFL needs no handler.
    unsafe {
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, mask.as_mut_ptr());
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGCHLD, &raw const default, on_child.as_mut_ptr());
        Inherited {
            mask: mask.assume_init(),
            on_child: on_child.assume_init(),
        }
    }
}

impl Inherited {
    /// The mask as the kernel has it: bit 0 is signal 1.
    pub fn mask(&self) -> u64 {
        (1..=64)
            .filter(|&signal| self.blocks(signal))
            .map(|signal| 1 << (signal - 1))
            .sum()
    }

    fn blocks(&self, signal: i32) -> bool {
        // SAFETY: the set was filled by the kernel; a number that libc keeps
        // for itself is merely answered by -1.
        unsafe { libc::sigismember(&raw const self.mask, signal) == 1 }
    }
}

/// In the forked child: dispositions as dcrun was called. Async-signal-safe.
pub fn give_dispositions_back(inherited: &Inherited) {
    // SAFETY: the action was obtained from the kernel by `take_over`.
    unsafe {
        libc::sigaction(
            libc::SIGCHLD,
            &raw const inherited.on_child,
            std::ptr::null_mut(),
        );
    }
}

/// In the forked child: the mask as dcrun was called. Async-signal-safe.
pub fn give_mask_back(inherited: &Inherited) {
    // SAFETY: the mask was obtained from the kernel by `take_over`.
    unsafe {
        libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const inherited.mask,
            std::ptr::null_mut(),
        );
    }
}

/// Waits for the next signal.
pub fn wait() -> Arrived {
    loop {
        // Only EINTR is possible, after a stop and continue.
        if let Some(arrived) = take(None) {
            return arrived;
        }
    }
}

/// Takes a signal that has arrived already, if there is one.
pub fn poll() -> Option<Arrived> {
    wait_for(Duration::ZERO)
}

/// Waits for the next signal, but not longer than this.
pub fn wait_for(patience: Duration) -> Option<Arrived> {
    take(Some(libc::timespec {
        tv_sec: patience.as_secs() as i64,
        tv_nsec: i64::from(patience.subsec_nanos()),
    }))
}

fn take(patience: Option<libc::timespec>) -> Option<Arrived> {
    let set = waited_for();
    let patience = patience
        .as_ref()
        .map_or(std::ptr::null(), |time| &raw const *time);
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the set is initialised, info has room for one siginfo, and the
    // time is null or lives on this frame.
    let number = unsafe { libc::sigtimedwait(&raw const set, info.as_mut_ptr(), patience) };
    if number <= 0 {
        return None;
    }
    // SAFETY: zeroed, then filled by the kernel; si_pid is valid for signals of
    // processes and merely meaningless for others.
    let (code, sender) = unsafe {
        (
            info.assume_init_ref().si_code,
            info.assume_init_ref().si_pid(),
        )
    };
    // SAFETY: as above, of which any bits are valid.
    let queued = (code == libc::SI_QUEUE).then(|| unsafe { info.assume_init() });
    Some(Arrived {
        number,
        by_process: code <= 0,
        sender,
        queued,
    })
}

impl Arrived {
    /// One that tests make up.
    #[cfg(test)]
    pub fn new(number: i32, by_process: bool, sender: i32) -> Arrived {
        Arrived {
            number,
            by_process,
            sender,
            queued: None,
        }
    }
}

/// Passes a signal on to the worker, with what was sent along.
pub fn pass(pid: i32, arrived: &Arrived) {
    let Some(info) = &arrived.queued else {
        return send(pid, arrived.number);
    };
    let info: *const libc::siginfo_t = info;
    // SAFETY: the kernel reads one siginfo.
    unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, pid, arrived.number, info) };
}

/// Stops the keeper by the default action of `signal`, as its worker was, and
/// returns once somebody continued it.
pub fn stop_self(signal: i32) {
    // SAFETY: only the dispositions and mask of this single thread change, and
    // they are put back.
    unsafe {
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        let mut before = MaybeUninit::uninit();
        libc::sigaction(signal, &raw const default, before.as_mut_ptr());
        let mut only = MaybeUninit::uninit();
        libc::sigemptyset(only.as_mut_ptr());
        libc::sigaddset(only.as_mut_ptr(), signal);
        libc::kill(libc::getpid(), signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, only.as_ptr(), std::ptr::null_mut());
        libc::sigprocmask(libc::SIG_BLOCK, only.as_ptr(), std::ptr::null_mut());
        libc::sigaction(signal, before.as_ptr(), std::ptr::null_mut());
    }
}

/// Sends a signal; a receiver that is gone is no error.
pub fn send(pid: i32, signal: i32) {
    // SAFETY: kill takes no pointer.
    unsafe { libc::kill(pid, signal) };
}

/// Whether a process of that id exists (a zombie counts).
pub fn exists(pid: i32) -> bool {
    // SAFETY: kill takes no pointer; signal 0 is only a question.
    let answer = unsafe { libc::kill(pid, 0) };
    answer == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}
