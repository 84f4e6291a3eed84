//! The filters of a process: their programs, and which came before which.
//!
//! A filter names the one before it, and each thread its newest: filters are never taken away
//! from a thread, and those that it had when it made another one are both's. The room is fixed.
//! What no thread has any more is given back when room is wanted; then the threads stand
//! still, for they read their programs without the lock.

use super::program::{self, Data, Instruction};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::errno::*;
use crate::machine::user;
use crate::thread;

/// Filters, and instructions of all of them.
const FILTERS: usize = 256;
const ROOM: usize = 1 << 14;

/// In the state. All zeros is empty.
#[repr(C)]
pub struct Table {
    /// Instructions that are used: the first ones.
    used: u32,
    filters: [Filter; FILTERS],
    instructions: [Instruction; ROOM],
}

/// A free one has no instruction.
#[derive(Clone, Copy)]
#[repr(C)]
struct Filter {
    first: u32,
    len: u32,
    /// The one before it; see [`Newest`].
    before: Newest,
}

/// A filter, by its index + 1; 0 is none.
pub type Newest = u32;

fn table() -> &'static mut Table {
    &mut state().filters
}

impl Table {
    fn program(&self, f: &Filter) -> &[Instruction] {
        let (first, len) = (f.first as usize, f.len as usize);
        self.instructions.get(first..first + len).unwrap_or(&[])
    }

    fn get(&self, which: Newest) -> Option<&Filter> {
        self.filters.get((which as usize).checked_sub(1)?)
    }

    /// A filter and all before it.
    fn chain(&self, newest: Newest) -> impl Iterator<Item = (Newest, &Filter)> {
        let mut next = newest;
        core::iter::from_fn(move || {
            let this = next;
            let f = self.get(this)?;
            next = f.before;
            Some((this, f))
        })
    }

    fn free(&self) -> Option<usize> {
        self.filters.iter().position(|f| f.len == 0)
    }
}

/// What the filters of a thread answer, the newest first: the strictest answer, and the
/// newest of several.
pub fn ask(newest: Newest, data: &Data) -> u32 {
    const ALLOW: u32 = 0x7fff_0000;
    const ACTION: u32 = 0xffff_0000;
    let strictness = |answer: u32| (answer & ACTION) as i32;
    let t = table();
    let mut answer = ALLOW;
    for (_, f) in t.chain(newest) {
        let this = program::run(t.program(f), data);
        if strictness(this) < strictness(answer) {
            answer = this;
        }
    }
    answer
}

/// Whether a filter is another one, or was there before it.
pub fn is_among(filter: Newest, newest: Newest) -> bool {
    filter == 0 || table().chain(newest).any(|(f, _)| f == filter)
}

/// Takes a program of so many instructions from the program's memory, as the newest filter
/// behind `before` or, if it is refused, not at all. Under the big lock.
pub fn add(l: &mut Local, at: usize, len: usize, before: Newest) -> Result<Newest, isize> {
    let has_room = || ROOM - table().used as usize >= len && table().free().is_some();
    if !has_room() {
        give_back(l);
    }
    let t = table();
    let first = t.used as usize;
    let (Some(free), Some(place)) = (t.free(), t.instructions.get_mut(first..first + len)) else {
        return Err(-ENOMEM);
    };
    // A copy is looked at, which nobody else can change.
    for (i, instruction) in place.iter_mut().enumerate() {
        let from = at.wrapping_add(i * size_of::<Instruction>());
        *instruction = user::read(from).ok_or(-EFAULT)?;
    }
    if !program::is_sound(place) {
        return Err(-EINVAL);
    }
    t.used += len as u32;
    t.filters[free] = Filter {
        first: first as u32,
        len: len as u32,
        before,
    };
    Ok(free as u32 + 1)
}

/// The newest of all, which no thread has got after all.
pub fn drop_last(filter: Newest) {
    let t = table();
    if let Some(f) = t.filters.get_mut((filter as usize).wrapping_sub(1)) {
        t.used = f.first;
        f.len = 0;
    }
}

/// What no thread has any more goes, and the programs of the others close up.
fn give_back(l: &mut Local) {
    thread::stop_others(l);
    let t = table();
    let mut had = [false; FILTERS];
    for slot in 0..engine().thread_high {
        let record = &state().threads[slot];
        if record.used != 0 {
            for (f, _) in t.chain(record.seccomp.newest) {
                had[f as usize - 1] = true;
            }
        }
    }
    for (f, had) in t.filters.iter_mut().zip(had) {
        if !had {
            f.len = 0;
        }
    }
    // By place: none is moved over another one.
    let mut used = 0;
    loop {
        let next = t
            .filters
            .iter_mut()
            .filter(|f| f.len != 0 && f.first >= used);
        let Some(f) = next.min_by_key(|f| f.first) else {
            break;
        };
        let (from, len) = (f.first as usize, f.len as usize);
        f.first = used;
        used += f.len;
        t.instructions
            .copy_within(from..from + len, used as usize - len);
    }
    t.used = used;
    thread::resume_others();
}
