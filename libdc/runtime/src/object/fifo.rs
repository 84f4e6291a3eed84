//! Fifos: pipes that have a name (fifo(7)), so that anybody may open one.
//!
//! What goes through a fifo is output and input, as through any stream, and in a warm
//! recovery it lives on. But the kernel forgets what lies in it once nobody has it open: after
//! the death of all, unless somebody outside of the run has. Then it is filled again:
//!
//! - as it was at the commit, if the lost interval has written into it: what went in and out
//!   since is done again, as with a pipe of the run's own ([`super::pipe`]);
//! - else with what was not read of that. What was read may have come from others, who will
//!   not write it again; it is fed again, as from any stream ([`super::pushback`]).
//!
//! save:      the bytes inside, once for all processes ([`crate::run::shared`]), by whoever
//!            has moved some
//! restore:   cold: opened again, without waiting for the other end; filled by the process
//!            that has found it left
//! survives:  warm and cold

pub mod opening;

use super::descriptor::{O_CLOEXEC, O_NONBLOCK, known_file, open_file};
use super::pipe;
use super::record::{self, IoHead};
use super::stat::{S_IFIFO, S_IFMT};
use crate::engine::{engine, state};
use crate::machine::sys::{errno::*, failed};
use crate::run::shared;
use crate::state::{Kind, OWN, OpenFile};
use crate::sys;
use core::sync::atomic::Ordering::*;
use dc_image::run::{Shared, fifo_of};

const O_RDONLY: usize = 0;
const O_WRONLY: usize = 1;
const O_RDWR: usize = 2;

/// In [`Shared::made`], at a cold recovery: somebody has it open.
const LIVES: i32 = 1;
/// Nobody has, so that it is as it was at the commit; it is to be filled, or was.
const LEFT: i32 = 2;
const FILLED: i32 = 3;

/// Whether an open file is a fifo that the program has opened itself. (What dcrun was given
/// is somebody else's as well.)
pub fn is_one(f: &OpenFile) -> bool {
    f.kind == Kind::Pipe
        && f.peer == 0
        && f.inherited == OWN
        && f.mode & S_IFMT == S_IFIFO
        && f.path_len > 0
}

/// The program has opened a file; if it is a fifo, what lies in it is kept from now on.
pub fn opened(file: u32) {
    let f = open_file(file);
    if is_one(f) {
        opening::is_known();
    }
    if is_one(f) && !shared::enter_fifo(f, fifo_of(f.dev, f.ino)) {
        crate::say!("too much is shared for one more fifo: what lies in it will not come back");
    }
}

/// Cold, before any process opens one: a descriptor that keeps both ends of it open until
/// all have theirs, so that nobody waits for another one. Negative if there can be none.
pub fn hold(f: &mut OpenFile, s: &Shared) -> isize {
    if shared::claim(s) {
        let is_left = !crate::log::replay::is_due() && is_left(f);
        s.made[0].store(if is_left { LEFT } else { LIVES }, SeqCst);
    }
    // Whoever claims it looks at once.
    while s.made[0].load(SeqCst) == 0 {
        sys!(SCHED_YIELD);
    }
    match open(f, O_RDWR) {
        r if failed(r) => open(f, O_RDONLY),
        r => r,
    }
}

fn open(f: &mut OpenFile, mode: usize) -> isize {
    super::undo::nameless::open_named(f, mode | O_NONBLOCK | O_CLOEXEC)
}

/// Whether nobody has it open, and nothing is in it.
fn is_left(f: &mut OpenFile) -> bool {
    const FIONREAD: usize = 0x541b;
    const SPLICE_F_NONBLOCK: usize = 2;
    let writer = open(f, O_WRONLY);
    if !failed(writer) {
        // It has a reader.
        sys!(CLOSE, writer);
        return false;
    }
    let reader = open(f, O_RDONLY);
    if failed(reader) {
        return writer == -ENXIO;
    }
    let mut inside = 0i32;
    sys!(IOCTL, reader, FIONREAD, &raw mut inside);
    // Without taking anything: there is an end to be found, or somebody may yet write.
    let mut ends = [0i32; 2];
    let probed = match sys!(PIPE2, ends.as_mut_ptr(), O_CLOEXEC) {
        0 => {
            let teed = sys!(TEE, reader, ends[1], 1, SPLICE_F_NONBLOCK);
            for end in ends {
                sys!(CLOSE, end);
            }
            teed
        }
        r => r,
    };
    sys!(CLOSE, reader);
    inside == 0 && probed == 0
}

/// Cold: counts what this process has read and written since the commit.
pub fn count_lost_interval() {
    for r in record::own(0) {
        let Some(head) = record::value_of::<IoHead>(r.payload) else {
            continue;
        };
        let Some(s) = entry_of(head.fd) else { continue };
        match r.kind {
            record::INPUT => s.was_read.fetch_add(head.ret as u32, SeqCst),
            record::OUTPUT => s.was_written.fetch_add(head.ret as u32, SeqCst),
            _ => continue,
        };
    }
}

fn entry_of(fd: i32) -> Option<&'static Shared> {
    let f = open_file(known_file(fd)?);
    let entry = shared::of(f).filter(|_| is_one(f));
    entry.map(|(_, s)| s)
}

/// Whether this recovery has put back what was in it at the commit: then what went in and
/// out since does not count.
pub fn is_rewound(fd: i32) -> bool {
    entry_of(fd).is_some_and(|s| s.made[0].load(SeqCst) >= LEFT && is_done_again(s))
}

fn is_done_again(s: &Shared) -> bool {
    s.was_written.load(SeqCst) != 0
}

/// All have it open: it is filled, by a descriptor that [`hold`] has given.
pub fn fill(at: usize, s: &Shared, to: i32) {
    let own = engine().slot as u32 + 1;
    let is_left = s.maker.load(SeqCst) == own && s.made[0].load(SeqCst) == LEFT;
    if is_left {
        s.made[0].store(FILLED, SeqCst);
        let skipped = match is_done_again(s) {
            true => 0,
            false => s.was_read.load(SeqCst) as usize,
        };
        pipe::fill_shared(at, s, skipped, to);
    }
}

/// The fifos of this process, each with its entry.
pub fn each(mut f: impl FnMut(&mut OpenFile, usize, &'static Shared)) {
    for file in 1..=state().root.file_high {
        if state().file_refs[file as usize - 1] == 0 || !is_one(open_file(file)) {
            continue;
        }
        if let Some((at, s)) = shared::of(open_file(file)) {
            f(open_file(file), at, s);
        }
    }
}
