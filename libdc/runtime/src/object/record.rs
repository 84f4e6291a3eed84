//! The records of the journal, and how they look in it.
//!
//! Records about files come *before* the deed, so that a rollback knows what
//! to undo whatever moment the crash chose; records about input and output
//! come after it, and [`dc_image::header::Inflight`] covers the gap.
//!
//! The processes of a run share one journal, whose order is that of what happened. A
//! record's kind carries in its upper bits which of them it is of.
#![allow(unsafe_code)]

use crate::engine::engine;
use crate::fatal;
use crate::machine::sys::failed;
use core::sync::atomic::Ordering::Relaxed;
use dc_image::FatalCode;
use vista_core::journal::{Found, JournalFull, RECORD_HEAD, Record};

/// Input consumed: [`IoHead`], then the bytes.
pub const INPUT: u32 = 1;
/// Output made: [`IoHead`].
pub const OUTPUT: u32 = 2;
/// A close is deferred: the number that the program closed i32, and where it went i32.
pub const DEFERRED: u32 = 3;
/// Undo: a file had this size: [`FileHead`] with `at` = size, path, time.
pub const FILE_SIZE: u32 = 4;
/// Undo: bytes of a file: see [`super::undo::contents`].
pub const FILE_BYTES: u32 = 5;
/// Undo: a name came into being; this and the next four: see [`super::undo::names`].
pub const CREATED: u32 = 6;
/// Undo: a directory came into being.
pub const MADE_DIR: u32 = 7;
/// Undo: a name went away, its file is kept under another.
pub const UNLINKED: u32 = 8;
/// Undo: a directory went away.
pub const REMOVED_DIR: u32 = 9;
/// Undo: renamed: from, to.
pub const RENAMED: u32 = 10;
/// Undo: mode, owner or times: see [`super::undo`]'s `attribute`.
pub const META: u32 = 11;
/// Undo: terminal settings changed: fd u32, termios (60 bytes).
pub const TERMIOS: u32 = 12;

/// Undo: an entry of an epoll set changes: the old entry, whether there was one.
pub const EPOLL_CHANGED: u32 = 13;

/// A signal from outside was delivered: thread u32, place u32 (see
/// [`crate::signal::held`]), siginfo.
pub const SIGNAL: u32 = 15;

/// What a call answered: see [`crate::log::determinant`].
pub const DETERMINANT: u32 = 16;
/// A result that could not be logged: the log ends here.
pub const LOG_CLOSED: u32 = 17;
/// A rollback has undone a record about files: its offset u32, pad. Without it
/// the next rollback of the same interval would undo it once more, behind what
/// the re-execution has done since.
pub const UNDONE: u32 = 18;
/// A recovery was made: descriptors are again those of the commit, and records
/// about moving them aside begin anew.
pub const RECOVERED: u32 = 19;

/// The log counts up to an offset of the journal only: offset u32, pad.
pub const LOG_CUT: u32 = 20;

/// A message was received: see [`super::message`].
pub const MESSAGE: u32 = 21;

/// Bit of [`IoHead::thread`]: a message, which no counter counts.
pub const MESSAGE_FLIGHT: u32 = 1 << 30;

/// Undo: an extended attribute: see [`super::undo`]'s `attribute`.
pub const ATTRIBUTE: u32 = 22;
/// Undo: a write to a file, with a sum of it: see [`super::undo::written`].
pub const WROTE: u32 = 23;
/// The path of a changed file by now: [`FileHead`], path.
pub const FILE_PATH: u32 = 24;
/// What stands where a CREATED or MADE_DIR says: its offset u32, pad, device, inode.
pub const MADE: u32 = 25;
/// What a META has become.
pub const LEFT: u32 = 26;
/// What an ATTRIBUTE has become: its offset u32, pad, sum.
pub const LEFT_ATTRIBUTE: u32 = 27;
/// A rollback is about to cut a file: offset of the oldest record that this undoes u32,
/// pad, size.
pub const CUTTING: u32 = 28;
/// A lock was taken that goes with the first close of its file: see [`super::lock`].
pub const LOCKED: u32 = 29;

/// Undo: a change of a System V object: see [`crate::sysv::room`].
pub const SYSTEM_V: u32 = 30;
/// A watch of files is about to be made or removed: the instance's open file, u32.
pub const WATCHED: u32 = 31;

/// So the program has left a file: see [`super::undo::stamp`].
pub const STAMP: u32 = 32;

/// Whether a record tells how to undo a change of files.
pub fn is_undo(kind: u32) -> bool {
    (FILE_SIZE..=META).contains(&kind) || matches!(kind, ATTRIBUTE | WROTE | SYSTEM_V)
}

/// Whether it must have reached the storage before the deed may. (What a WROTE says is
/// not needed after a power loss: see [`super::undo`]'s `conflict`.)
fn is_urgent(kind: u32) -> bool {
    is_undo(kind) && kind != WROTE
}

/// Bit of [`IoHead::thread`]: through a pipe of the program's own.
pub const OWN_PIPE: u32 = 1 << 31;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct IoHead {
    pub fd: i32,
    /// Slot, and [`OWN_PIPE`].
    pub thread: u32,
    /// [`mark`] of the call, to tell a recorded call from an unrecorded one.
    pub mark: u64,
    pub ret: u64,
    /// Of output its first bytes, of input the arguments.
    pub sum: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct FileHead {
    pub dev: u64,
    pub ino: u64,
    pub at: u64,
    pub path_len: u32,
    pub other_len: u32,
}

/// What tells one call from every other of this interval: the generation of
/// the worker, whose counters begin at zero, and its counter before the call.
pub fn mark(before: u64) -> u64 {
    let generation = engine()
        .live()
        .generation
        .load(core::sync::atomic::Ordering::Relaxed);
    generation << 44 | before & ((1 << 44) - 1)
}

/// [`OWN_PIPE`] for a pipe of the program's own.
pub fn own_pipe(fd: i32) -> u32 {
    if super::pipe::is_own(fd) { OWN_PIPE } else { 0 }
}

/// The bytes of a plain value.
pub fn bytes_of<T>(v: &T) -> &[u8] {
    // SAFETY: records are plain repr(C) data without padding that matters.
    unsafe { core::slice::from_raw_parts((v as *const T).cast::<u8>(), size_of::<T>()) }
}

/// A plain value from the start of a payload.
pub fn value_of<T: Copy>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: enough bytes, any bits are valid.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Appends a record; a journal that is full stops the program at its last
/// commit, for nothing may happen that cannot be undone.
pub fn append(kind: u32, parts: &[&[u8]]) {
    let e = engine();
    let len: usize = parts.iter().map(|p| p.len()).sum();
    e.live().journal_bytes.fetch_add(
        (len + RECORD_HEAD) as u64,
        core::sync::atomic::Ordering::Relaxed,
    );
    e.journal
        .set_sum(crate::run::run().journal_sum.load(Relaxed));
    let appended = e.journal.append(tagged(kind), parts);
    crate::run::run()
        .journal_sum
        .store(e.journal.sum(), Relaxed);
    if appended.is_err() {
        fatal::stop(
            FatalCode::RioFull,
            0,
            format_args!(
                "the journal of this interval is full; use --interval to commit more often"
            ),
        );
    }
    if is_urgent(kind) {
        make_durable();
    }
    bound();
    if is_undo(kind) && is_running() {
        crate::commit::fault_point(dc_image::boot::fault::BEFORE_CHANGE);
    }
}

/// Makes a record of this process of the payload that lies in the journal's room already.
pub fn append_in_place(kind: u32, len: usize) -> Result<(), JournalFull> {
    let e = engine();
    let sum = &crate::run::run().journal_sum;
    e.journal.set_sum(sum.load(Relaxed));
    let r = e.journal.append_in_place(tagged(kind), len);
    sum.store(e.journal.sum(), Relaxed);
    r
}

/// The kind of a record as the journal has it: with the process that it is of.
fn tagged(kind: u32) -> u32 {
    kind | (engine().slot as u32) << KIND_BITS
}

const KIND_BITS: u32 = 8;

/// The records of this process from an offset on, oldest first.
pub fn own(from: usize) -> impl Iterator<Item = Record<'static>> {
    let slot = engine().slot as u32;
    engine().journal.records(from).filter_map(move |mut r| {
        let of = r.kind >> KIND_BITS;
        r.kind &= (1 << KIND_BITS) - 1;
        (of == slot).then_some(r)
    })
}

/// This process has come back. Cold, what was on record of pipes and sockets within the run is
/// so no more: they were made anew, as of the commit.
pub fn note_recovery(warm: bool) {
    append(RECOVERED, &[&[u8::from(!warm)]]);
}

/// Where the journal stood at its last cold recovery since the commit; 0 if there was none.
pub fn last_cold_recovery() -> usize {
    own(0)
        .filter(|r| r.kind == RECOVERED && r.payload.first() == Some(&1))
        .last()
        .map_or(0, |r| r.offset)
}

/// The records of all processes of the run.
pub fn of_all(from: usize) -> impl Iterator<Item = Record<'static>> {
    engine().journal.records(from).map(|mut r| {
        r.kind &= (1 << KIND_BITS) - 1;
        r
    })
}

/// The storage has what was appended so far, when this returns. In memory it
/// has it always.
pub fn make_durable() {
    let e = engine();
    if e.boot.durable == 0 {
        return;
    }
    let r = crate::sys!(FDATASYNC, e.high_fd(dc_image::boot::high_fd::RIO));
    if failed(r) {
        fatal::stop(
            FatalCode::Internal,
            r,
            format_args!("sync the journal of this run: error {}", -r),
        );
    }
    e.journal.made_durable();
}

/// At recovery, before anything is read: what a power loss has torn is cut off.
pub fn examine() {
    super::undo::conflict::note_boot();
    if !super::undo::conflict::rebooted() {
        // The kernel that was given it still has it.
        engine().journal.nothing_was_lost();
    }
    let found = engine().journal.examine();
    crate::run::run()
        .journal_sum
        .store(engine().journal.sum(), Relaxed);
    match found {
        Found::Whole => {}
        Found::Torn { at, tail } => {
            crate::say!(
                "the last {} bytes of this run's journal did not reach the disk; it goes on \
                 without them",
                tail - at
            );
            // Before anything is appended: the old tail must not come back
            // with new records below it.
            make_durable();
        }
        Found::Damaged { at, durable } => fatal::stop(
            FatalCode::Corrupt,
            0,
            format_args!(
                "the journal of this run is damaged at byte {at} of {durable} that must be there: \
                 what the program did since its last commit is not known any more. Put a whole \
                 copy of the image back and resume, or begin again with --fresh"
            ),
        ),
    }
}

/// An interval whose journal grows long ends behind the call under way: the
/// journal has an end, and a recovery has to read all of it.
pub fn bound() {
    const LONG: usize = dc_image::header::JOURNAL_LEN / 4;
    let e = engine();
    if e.journal.tail() > LONG && is_running() && !crate::event::is_behind() {
        crate::event::tell(protocols::Event::CommitRequested, 0);
        crate::machine::entry::local().commit_after = true;
    }
}

/// A recovery appends records too, and has no call that a commit could follow.
fn is_running() -> bool {
    use core::sync::atomic::Ordering::Relaxed;
    engine().live().status.load(Relaxed) == dc_image::Status::Running as u32
}
