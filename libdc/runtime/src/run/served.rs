//! File systems that the run itself serves (fuse(4)).
//!
//! A call on a file may hold the big lock, and whoever is in one cannot take part in a commit.
//! On such a file system it waits for the daemon's answer; the daemon, if it is of this run,
//! waits for the lock or for the commit. Neither would ever go on. So whoever has waited for a
//! process for long looks what that one waits for, and stops the run with a word. Served by
//! a run of its own such a file system is like any.

use super::{process, run};
use crate::commit::now_ns;
use crate::engine::engine;
use crate::fatal::{self, Text};
use crate::machine::sys::failed;
use crate::object::input;
use crate::sys;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering::*};
use dc_image::FatalCode;
use dc_image::run::Process;

/// An answer that takes longer than this never comes.
const LONG_NS: u64 = 10_000_000_000;

/// Since when it is waited for one and the same call of a process, and which that is.
static SINCE: AtomicU64 = AtomicU64::new(0);
static CALL: AtomicU64 = AtomicU64::new(0);

/// This process can serve a file system from now on.
pub fn begins() {
    run().served_by.store(engine().slot as u32 + 1, Relaxed);
}

/// This thread has waited for the lock for a while.
#[cold]
pub fn look_for_holder() {
    let holder = run().lock_holder.load(Relaxed);
    if holder != 0 {
        look(holder as usize - 1);
    }
}

/// This thread waits for something that the process with this entry is to do.
#[cold]
pub fn look(slot: usize) {
    let server = run().served_by.load(Relaxed);
    if server == 0 {
        return;
    }
    let p = process(slot);
    let call = p.calls.load(Relaxed) << 16 | slot as u64;
    if CALL.swap(call, Relaxed) != call || !waits_for_an_answer(p) {
        SINCE.store(now_ns(), Relaxed);
        return;
    }
    if now_ns().saturating_sub(SINCE.load(Relaxed)) < LONG_NS {
        return;
    }
    fatal::stop(
        FatalCode::CannotRestore,
        0,
        format_args!(
            "process {} waits for a file system that process {} of the same run serves (FUSE), \
             and that one cannot answer meanwhile; serve it outside of this run",
            p.id.load(Relaxed),
            process(server as usize - 1).id.load(Relaxed)
        ),
    );
}

/// Whether a process is in a request to a file system of fuse(4).
fn waits_for_an_answer(p: &Process) -> bool {
    const O_CLOEXEC: usize = 0o2000000;
    let mut path = Text::<40>::new();
    let _ = write!(path, "/proc/{}/wchan\0", p.real.load(SeqCst));
    let fd = crate::proc::open(path.as_bytes(), O_CLOEXEC);
    if failed(fd) {
        return false;
    }
    let mut name = [0u8; 64];
    let n = sys!(READ, fd, name.as_mut_ptr(), name.len());
    input::count_read(n);
    sys!(CLOSE, fd);
    name.starts_with(b"request_wait_answer")
}
