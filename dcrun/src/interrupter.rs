//! Interrupts processes of a run for those that may not.
//!
//! Whoever commits, or ends, interrupts another process by a signal, so that it looks what is
//! asked of it. One that has given up its rights may not signal one that has not, its parent
//! for example (kill(2)); it would wait for ever for a parent that sleeps. The keeper may. It
//! is asked by a bit and a futex in the run's image, upon which a thread of it waits: the
//! keeper itself waits for signals.
//!
//! Like the keeper the thread opens nothing, for its descriptors are the program's.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;

use crate::keeper::Keeper;
use crate::machine::process;
use crate::machine::shared::SharedLive;
use crate::machine::signals;
use crate::message::{Doing, Outcome};
use crate::suspension;
use crate::tree::RUNTIMES_OWN;

/// Enough for what the thread does.
const STACK: usize = 64 << 10;

/// Starts the thread, if processes of this run can have fewer rights than others.
pub fn start(keeper: &Keeper) -> Outcome<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let doing = || "wait for processes that may not interrupt others".to_owned();
    // Of its own, for it is still there when the keeper's has gone.
    let live = SharedLive::map(keeper.image.as_fd()).doing(doing)?;
    let thread = std::thread::Builder::new().stack_size(STACK);
    thread.spawn(move || serve(&live)).doing(doing)?;
    Ok(())
}

fn serve(live: &SharedLive) {
    let run = live.run();
    loop {
        let seen = run.rightless.load(SeqCst);
        for slot in run.take_uninterrupted() {
            let process = live.processes().get(slot);
            let pid = process.map_or(0, |p| p.real.load(SeqCst));
            // The table can be written by processes that may signal nobody else.
            if pid > 0 && process::is_own_child(pid) {
                signals::send(pid, RUNTIMES_OWN);
            }
        }
        if suspension::is_wanted(live) {
            // A process without rights was told by somebody to end.
            signals::send(process::pid(), libc::SIGCONT);
        }
        process::wait_while(&run.rightless, seen);
    }
}
