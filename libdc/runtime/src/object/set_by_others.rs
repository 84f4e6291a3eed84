//! Settings of a process that another process of the run makes: `renice`, `taskset`, `prlimit`
//! and their like are programs, and a shell calls them with its own number.
//!
//! state:     with that of the process that has them ([`super::schedule`], [`super::limits`],
//!            [`super::attributes`])
//! intercept: the calls of those that name somebody else; an open of a setting in somebody
//!            else's folder of /proc
//! restore:   as what the process has set itself
//!
//! Whoever makes such a setting cannot tell whom it means: a number may be that of a thread,
//! a group or a user. So it says to all others that something was set, and each asks the
//! kernel when it is staged next.
#![allow(unsafe_code)]

use super::{attributes, group, limits, schedule};
use crate::engine::engine;
use crate::machine::sys::failed;
use crate::run;
use crate::run::unit;
use core::sync::atomic::Ordering::SeqCst;
use dc_image::run::{Life, Process};

/// Makes a call that may change settings of other processes. Under the big lock, so that no
/// commit falls between the call and what is said of it.
pub fn call(number: usize, a: [usize; 6]) -> isize {
    // SAFETY: the program's own call with its own arguments.
    let r = unsafe { crate::machine::sys::raw6(number, a) };
    if !failed(r) {
        say();
    }
    r
}

/// Something was set, of whomever. Under the big lock.
fn say() {
    for (slot, p) in run::others() {
        p.set_by_others.fetch_or(SETTINGS, SeqCst);
        unit::look_at(slot);
    }
}

const SETTINGS: u64 = 1;
const FILES: u64 = 2;

/// Whose folder of /proc a path leads to, by number; 0 is none.
pub fn folder_of(path: &[u8]) -> i32 {
    let name = path.strip_prefix(b"/proc/").unwrap_or_default();
    let digits = name.iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0, |n: i32, b| {
        n.wrapping_mul(10).wrapping_add(i32::from(b - b'0'))
    })
}

/// Whether a path leads into the folder of a process of the run.
pub fn is_of_run(path: &[u8]) -> bool {
    path.starts_with(b"/proc/self/")
        || path.starts_with(b"/proc/thread-self/")
        || meant_by(path).next().is_some()
}

/// The processes that a path of /proc may mean: the kernel has it with its own number, the
/// program with that which it knows.
fn meant_by(path: &[u8]) -> impl Iterator<Item = (usize, &'static Process)> {
    let number = folder_of(path);
    run::all().filter(move |(_, p)| {
        let numbers = [p.id.load(SeqCst), p.real.load(SeqCst)];
        number != 0 && p.life() == Life::Lives && numbers.contains(&number)
    })
}

/// A file in somebody's folder of /proc was opened to be written, or was written.
pub fn file_of(path: &[u8]) {
    for (slot, p) in meant_by(path).filter(|(slot, _)| *slot != engine().slot) {
        p.set_by_others.fetch_or(FILES, SeqCst);
        unit::look_at(slot);
    }
}

/// Before a commit: what others have set of this process.
#[inline(always)]
pub fn save() {
    if run::me().set_by_others.load(SeqCst) != 0 {
        ask();
    }
}

#[cold]
fn ask() {
    let what = run::me().set_by_others.swap(0, SeqCst);
    if what & FILES != 0 {
        attributes::others_wrote_files();
    }
    if what & SETTINGS != 0 {
        schedule::note_all();
        limits::note_all();
    }
}

/// The kernel's number of a process or thread that the program names.
pub fn real(id: usize) -> usize {
    match id {
        0 => 0,
        _ => match crate::thread::real_tid(id as i32) {
            same if same == id as i32 => group::real(same) as usize,
            own => own as usize,
        },
    }
}
