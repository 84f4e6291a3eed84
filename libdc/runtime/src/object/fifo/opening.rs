//! Two processes of a run meet in a fifo: each one's open(2) ends because of the other's.
//!
//! The kernel lets both go at once, but each notes by itself that it has the fifo open. If the
//! first one wrote, closed and ended before the second had noted anything, a commit could have that
//! end, and the second one still in its call: after a rollback it would wait for ever, and what was
//! written would be lost. So who has noted its own end waits, in its call, until all have who
//! were about to open the other one.
//!
//! Both are state. Who is about to open is a dated word in the run's image, so a rollback
//! brings it back with the call that it stands for; and a call that waits for the other side is
//! made again as that, see [`under_way`].

use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::failed;
use crate::object::descriptor::{O_ACCMODE, O_NONBLOCK, known_file, open_file};
use crate::object::stat::{S_IFIFO, Stat};
use crate::run::{process, run, unit};
use crate::{sys, thread};
use core::sync::atomic::Ordering::*;
use dc_image::run::{Life, Opener, fifo_of};

const O_RDWR: usize = 2;
const O_PATH: usize = 0o10000000;
const BREATH_NS: usize = 100_000;
/// Ten seconds: who has not come by then waits for something else.
const PATIENCE: u32 = 100_000;

/// A process of the run has made a fifo, or opened one: from now on it is looked whether what is
/// opened is one.
pub fn is_known() {
    run().fifos.store(1, Relaxed);
}

/// An open that may have to wait for the other end, until it is noted.
pub struct Opening(&'static Opener);

/// This thread is about to open. Under the big lock.
pub fn begin(l: &Local, dir: usize, path_at: usize, flags: usize) -> Option<Opening> {
    let waits = flags & (O_NONBLOCK | O_PATH) == 0 && flags & O_ACCMODE != O_RDWR;
    if !waits || run().fifos.load(Relaxed) == 0 || crate::run::is_alone() {
        return None;
    }
    let mut st = Stat::ZERO;
    if failed(sys!(NEWFSTATAT, dir, path_at, &raw mut st, 0)) || st.kind() != S_IFIFO {
        return None;
    }
    let owner = engine().slot as u32 | u32::from(l.slot as u16) << 16;
    let published = engine().store.published();
    let mut all = run().openers.iter();
    // A rollback has left it, if this call is made again.
    let is_own = |o: &&Opener| o.what.get() != 0 && o.owner.load(Relaxed) == owner;
    let is_free = |o: &&Opener| o.what.get() == 0 && o.what.at(published) == 0;
    let own = all.clone().find(is_own).or_else(|| all.find(is_free))?;
    own.owner.store(owner, Relaxed);
    own.what.set(end_of(st.dev, st.ino, flags), published);
    Some(Opening(own))
}

impl Drop for Opening {
    /// It is noted, or has failed.
    fn drop(&mut self) {
        self.0.what.set(0, engine().store.published());
    }
}

/// A fifo's end, by the mode in which it is opened.
fn end_of(dev: u64, ino: u64, flags: usize) -> i32 {
    let writes = flags & O_ACCMODE != 0;
    ((fifo_of(dev, ino) as u32 & 0x1fff_ffff | 0x2000_0000) << 1 | u32::from(writes)) as i32
}

/// This thread has opened one, which is noted; a commit has it make its call again.
pub fn is_noted(l: &Local, fd: i32) {
    state().threads[l.slot as usize].fifo_opened = fd + 1;
}

/// The descriptor that this call has opened, if it was noted before a recovery.
pub fn under_way(l: &Local) -> Option<i32> {
    let fd = state().threads[l.slot as usize].fifo_opened - 1;
    (fd >= 0).then_some(fd)
}

/// Waits until nobody is about to open the other end.
pub fn await_others(l: &mut Local) {
    let slot = l.slot as usize;
    let file = under_way(l).and_then(known_file);
    if let Some(file) = file {
        let f = open_file(file);
        let other = end_of(f.dev, f.ino, f.flags as usize) ^ 1;
        let mut patience = PATIENCE;
        thread::enter_stopped(l);
        while is_awaited(other) && patience > 0 {
            thread::last::look(l);
            if unit::is_stopping() {
                unit::take_part(l);
            }
            let breath = [0usize, BREATH_NS];
            sys!(NANOSLEEP, breath.as_ptr(), 0);
            patience -= 1;
        }
        thread::leave_stopped(l);
    }
    state().threads[slot].fifo_opened = 0;
}

fn is_awaited(end: i32) -> bool {
    run().openers.iter().any(|o| {
        let owner = (o.owner.load(Relaxed) & 0xffff) as usize;
        o.what.get() == end && process(owner).life() == Life::Lives
    })
}

/// A process ends, or executes another program: its threads open nothing any more.
pub fn leave(slot: usize) {
    for o in &run().openers {
        if o.what.get() != 0 && (o.owner.load(Relaxed) & 0xffff) as usize == slot {
            o.what.set(0, engine().store.published());
        }
    }
}
