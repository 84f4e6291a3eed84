//! The redo log of a disk: commits are appended and synced here, and carried to the data files
//! later.
//!
//! ```text
//!       0  +--------------------------------------------------+
//!          | magic u64 | first u64 | generation u64 | sum u64 |  two headers, written in turn, so
//!    4096  +--------------------------------------------------+  that one is always whole
//!          | the other header                                 |
//!    8192  +--------------------------------------------------+
//!          | sum u64 | number u64 | len u64 | settled u64     |  record `first`
//!          |   { at u64 | len u64 | bytes, padded to 8 } ...  |
//!          +--------------------------------------------------+
//!          | record `first + 1` ...                           |  ends where number or sum do not fit
//!          +--------------------------------------------------+
//! ```
//!
//! The file is written full of zeros once, so that a commit changes no metadata of the file system.
//! When it is full, its records are replayed into the data files and it begins anew: truncation is
//! recovery, run early, and reads committed bytes only, whatever is in memory by then.
//!
//! A torn group can leave a whole record behind a torn one. So each opening, like each truncation,
//! starts a new generation before its first commit, and a record's sum is seeded with it.
//!
//! A record also says which commit was settled, that is synced, before it was written. A log ends where
//! number or sum do not fit; if a record further on has the missing commit as settled, that was no
//! crash but damage, and is refused.
//!
//! Committers that arrive while a sync runs share the next one: whoever finds no sync running
//! writes all that was appended.

use std::io;
use std::mem::{replace, take};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use rio_core::{At, Errno, WINDOWS, checksum};

use crate::medium::Medium;

const MAGIC: u64 = u64::from_le_bytes(*b"RIOREDO1");
const HEADER: usize = 32;
const HEADER_STRIDE: u64 = 4096;
const START: u64 = 2 * HEADER_STRIDE;
const RECORD_HEADER: usize = 32;
/// How much is looked through at once.
const PIECE: usize = 64 << 10;
/// How long a leader waits for the others: less than a sync, or it would not pay.
const PATIENCE: Duration = Duration::from_micros(60);

/// The files below: those of the windows, by index.
pub type Data = [Option<Box<dyn Medium>>; WINDOWS];

pub struct RedoLog {
    log: Box<dyn Medium>,
    len: u64,
    state: Mutex<State>,
    synced: Condvar,
}

struct State {
    data: Data,
    generation: u64,
    /// Whether this opening has begun a generation of its own.
    begun: bool,
    /// Records appended and not yet handed to the disk.
    pending: Vec<u8>,
    /// An emptied buffer, to append into while the other is written.
    spare: Vec<u8>,
    /// Numbers of the last record appended, and of the last one durable.
    appended: u64,
    durable: u64,
    tail: u64,
    syncing: bool,
    broken: Option<Errno>,
    syncs: u64,
    /// How many commits a sync carried lately: as many are likely to come again.
    crowd: u64,
}

impl RedoLog {
    /// Writes an empty log over the whole of a file, whose length is then the log's.
    pub fn format(log: &dyn Medium) -> io::Result<()> {
        let zeros = vec![0; 1 << 20];
        let len = log.len()?;
        for offset in (0..len).step_by(zeros.len()) {
            let piece = (len - offset).min(zeros.len() as u64) as usize;
            log.write_at(offset, &zeros[..piece])?;
        }
        log.write_at(0, &header(1, 0))?;
        log.sync()
    }

    /// Reads a log, and if it holds commits, carries them to the data files.
    ///
    /// Nothing is written before every record was checked.
    pub fn open(log: Box<dyn Medium>, data: Data) -> io::Result<RedoLog> {
        let len = log.len()?;
        let (first, generation) = newest_header(&*log)?;
        let mut state = State {
            data,
            generation,
            begun: false,
            pending: Vec::new(),
            spare: Vec::new(),
            appended: first - 1,
            durable: first - 1,
            tail: START,
            syncing: false,
            broken: None,
            syncs: 0,
            crowd: 1,
        };
        let mut lengths = [0; WINDOWS];
        for (len, file) in lengths.iter_mut().zip(&state.data) {
            *len = file.as_ref().map_or(Ok(0), |file| file.len())?;
        }
        let (tail, next) = each_record(&*log, (first, generation), |at, bytes| {
            let has = lengths.get(at.window()).copied().unwrap_or(0);
            match (at.offset() + bytes.len()) as u64 <= has {
                true => Ok(()),
                false => Err(damaged(format!("a commit names {at}+{}", bytes.len()))),
            }
        })?;
        check_end(&*log, (tail, next), generation)?;
        (state.tail, state.appended, state.durable) = (tail, next - 1, next - 1);
        if tail > START {
            truncate(&*log, &mut state)?;
        }
        Ok(RedoLog {
            log,
            len,
            state: Mutex::new(state),
            synced: Condvar::new(),
        })
    }

    /// Hands every committed byte to `visit` and changes nothing: for whoever only looks.
    pub fn read(log: &dyn Medium, mut visit: impl FnMut(At, &[u8])) -> io::Result<u64> {
        let newest = newest_header(log)?;
        let see = |at, bytes: &[u8]| {
            visit(at, bytes);
            Ok(())
        };
        let end = each_record(log, newest, see)?;
        check_end(log, end, newest.1)?;
        Ok(end.1 - newest.0)
    }

    /// Lets the log write to a window's file too.
    pub fn add_data(&self, index: usize, file: Box<dyn Medium>) {
        self.locked().data[index] = Some(file);
    }

    /// Appends a commit and returns its number; it counts once `wait` returns for it.
    pub fn append<'a>(&self, ranges: impl Iterator<Item = (At, &'a [u8])>) -> Result<u64, Errno> {
        let mut record = vec![0; RECORD_HEADER];
        for (at, bytes) in ranges {
            record.extend_from_slice(&at.word().to_le_bytes());
            record.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            record.extend_from_slice(bytes);
            record.resize(record.len().next_multiple_of(8), 0);
        }
        let room = (self.len - START) as usize;
        if record.len() > room {
            return Err(Errno(libc::EFBIG));
        }
        let mut state = self.locked();
        while state.pending.len() + record.len() > room {
            let last = state.appended;
            drop(state);
            self.wait(last)?;
            state = self.locked();
        }
        if let Some(cause) = state.broken {
            return Err(cause);
        }
        state.appended += 1;
        record[8..16].copy_from_slice(&state.appended.to_le_bytes());
        let body = (record.len() - RECORD_HEADER) as u64;
        record[16..24].copy_from_slice(&body.to_le_bytes());
        match state.pending.is_empty() {
            // A large commit that is alone need not be copied once more.
            true if record.len() > state.pending.capacity() => state.pending = record,
            _ => state.pending.extend_from_slice(&record),
        }
        Ok(state.appended)
    }

    /// Returns when the commit of this number is durable.
    pub fn wait(&self, number: u64) -> Result<(), Errno> {
        let mut state = self.locked();
        loop {
            if state.durable >= number {
                return Ok(());
            }
            if let Some(cause) = state.broken {
                return Err(cause);
            }
            if state.syncing {
                state = self
                    .synced
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            if state.crowd > 1 {
                state = self.gather(state);
            }
            state = self.sync_pending(state);
            state.syncing = false;
            self.synced.notify_all();
        }
    }

    /// How many syncs the commits took so far.
    pub fn syncs(&self) -> u64 {
        self.locked().syncs
    }

    /// Carries everything durable to the data files and empties the log.
    pub fn truncate(&self) -> Result<(), Errno> {
        let mut state = self.locked();
        while state.syncing {
            state = self
                .synced
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        truncate(&*self.log, &mut state).map_err(|cause| breaks(&mut state, cause))
    }

    /// Lets the others catch up: those that the last sync released are about to append again, and a
    /// leader that does not wait for them syncs alone, and they after it.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let (begun, room) = (Instant::now(), (self.len - START) as usize / 2);
        while state.appended - state.durable < state.crowd
            && state.pending.len() < room
            && begun.elapsed() < PATIENCE
        {
            drop(state);
            yield_now();
            state = self.locked();
        }
        state
    }

    /// Writes and syncs what was appended, without the lock, so that others go on appending.
    fn sync_pending<'a>(&'a self, mut guard: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let state = &mut *guard;
        let full = state.tail + state.pending.len() as u64 > self.len;
        if (full || !state.begun)
            && let Err(cause) = truncate(&*self.log, state)
        {
            breaks(state, cause);
            return guard;
        }
        let next = take(&mut state.spare);
        let mut group = replace(&mut state.pending, next);
        let (tail, last) = (state.tail, state.appended);
        let (generation, settled) = (state.generation, state.durable);
        state.syncs += 1;
        state.crowd = (last - state.durable).max(state.crowd * 3 / 4);
        drop(guard);
        finish_records(&mut group, generation, settled);
        let written = self
            .log
            .write_at(tail, &group)
            .and_then(|()| self.log.sync());
        let mut guard = self.locked();
        let state = &mut *guard;
        match written {
            Ok(()) => {
                state.tail += group.len() as u64;
                state.durable = last;
            }
            Err(cause) => {
                breaks(state, cause);
            }
        }
        group.clear();
        state.spare = group;
        guard
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// After a failed write or sync nobody knows what the disk holds: no commit is promised again.
fn breaks(state: &mut State, cause: io::Error) -> Errno {
    *state
        .broken
        .get_or_insert(Errno(cause.raw_os_error().unwrap_or(libc::EIO)))
}

fn truncate(log: &dyn Medium, state: &mut State) -> io::Result<()> {
    let data = &state.data;
    if state.tail > START {
        each_record(log, newest_header(log)?, |at, bytes| {
            match data.get(at.window()) {
                Some(Some(file)) => file.write_at(at.offset() as u64, bytes),
                _ => Err(damaged(format!("a commit names window {}", at.window()))),
            }
        })?;
        for file in data.iter().flatten() {
            file.sync()?;
        }
    }
    // Synced before anything is written over the old records: the old header must not find new
    // ones.
    state.generation += 1;
    let slot = state.generation % 2 * HEADER_STRIDE;
    log.write_at(slot, &header(state.durable + 1, state.generation))?;
    log.sync()?;
    state.tail = START;
    state.begun = true;
    Ok(())
}

/// Reads records while they are whole and in sequence; returns where they end, and the next number.
fn each_record(
    log: &dyn Medium,
    (first, generation): (u64, u64),
    mut visit: impl FnMut(At, &[u8]) -> io::Result<()>,
) -> io::Result<(u64, u64)> {
    let (mut offset, mut number) = (START, first);
    while let Some(record) = record_at(log, offset, number, generation)? {
        each_range(&record[RECORD_HEADER..], &mut visit)?;
        offset += record.len() as u64;
        number += 1;
    }
    Ok((offset, number))
}

/// The record of this number, if a whole one stands there.
fn record_at(
    log: &dyn Medium,
    offset: u64,
    number: u64,
    generation: u64,
) -> io::Result<Option<Vec<u8>>> {
    let Some(room) = log.len()?.checked_sub(offset + RECORD_HEADER as u64) else {
        return Ok(None);
    };
    let mut head = [0; RECORD_HEADER];
    log.read_at(offset, &mut head)?;
    let body = word(&head, 16);
    if word(&head, 8) != number || body > room || !body.is_multiple_of(8) {
        return Ok(None);
    }
    let mut record = vec![0; RECORD_HEADER + body as usize];
    log.read_at(offset, &mut record)?;
    let whole = checksum(generation, &record[8..]) == word(&record, 0);
    Ok(whole.then_some(record))
}

fn each_range(
    mut body: &[u8],
    visit: &mut impl FnMut(At, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while !body.is_empty() {
        let too_short = || damaged("a commit ends inside a range".into());
        let (head, rest) = body.split_at_checked(16).ok_or_else(too_short)?;
        let len = usize::try_from(word(head, 8)).map_err(|_| too_short())?;
        let padded = len.checked_next_multiple_of(8).ok_or_else(too_short)?;
        let (bytes, rest) = rest.split_at_checked(padded).ok_or_else(too_short)?;
        visit(At::from_word(word(head, 0)), &bytes[..len])?;
        body = rest;
    }
    Ok(())
}

fn newest_header(log: &dyn Medium) -> io::Result<(u64, u64)> {
    let mut newest = None;
    let mut torn = false;
    for slot in [0, HEADER_STRIDE] {
        let mut found = [0; HEADER];
        log.read_at(slot, &mut found)?;
        let whole = word(&found, 0) == MAGIC && checksum(MAGIC, &found[..24]) == word(&found, 24);
        let (first, generation) = (word(&found, 8), word(&found, 16));
        torn |= !whole;
        if whole && first > 0 && newest.is_none_or(|(_, other)| generation > other) {
            newest = Some((first, generation));
        }
    }
    let (first, generation) = newest.ok_or_else(|| damaged("neither header is whole".into()))?;
    // A crash tears a header only before the first record of its generation is written.
    let mut head = [0; RECORD_HEADER];
    log.read_at(START, &mut head)?;
    let next = (word(&head, 8), generation + 1);
    if torn && each_record(log, next, |_, _| Ok(()))?.0 > START {
        return Err(damaged("the newer header is not whole".into()));
    }
    Ok((first, generation))
}

fn header(first: u64, generation: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    for (slot, word) in bytes.chunks_exact_mut(8).zip([MAGIC, first, generation]) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    let sum = checksum(MAGIC, &bytes[..24]);
    bytes[24..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// What only the writer knows is put in last.
fn finish_records(mut group: &mut [u8], generation: u64, settled: u64) {
    while !group.is_empty() {
        let (record, rest) = group.split_at_mut(RECORD_HEADER + word(group, 16) as usize);
        record[24..32].copy_from_slice(&settled.to_le_bytes());
        let sum = checksum(generation, &record[8..]);
        record[..8].copy_from_slice(&sum.to_le_bytes());
        group = rest;
    }
}

/// Refuses a log in which a commit is missing that others were made after.
fn check_end(log: &dyn Medium, (tail, missing): (u64, u64), generation: u64) -> io::Result<()> {
    let (len, mut from) = (log.len()?, tail);
    let mut piece = vec![0; PIECE];
    while from + RECORD_HEADER as u64 <= len {
        piece.truncate((len - from) as usize);
        log.read_at(from, &mut piece)?;
        let starts = 0..=piece.len() - RECORD_HEADER;
        for head in starts.step_by(8).map(|at| &piece[at..][..RECORD_HEADER]) {
            let (number, settled) = (word(head, 8), word(head, 24));
            if settled < missing || number <= settled {
                continue;
            }
            let offset = from + (head.as_ptr().addr() - piece.as_ptr().addr()) as u64;
            if record_at(log, offset, number, generation)?.is_some() {
                let what = format!("commit {missing} at {tail:#x} is not whole, but {number} is");
                return Err(damaged(what));
            }
        }
        // The next piece begins with what was too short for a header.
        from += (piece.len() - RECORD_HEADER + 8) as u64;
    }
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn damaged(what: String) -> io::Error {
    io::Error::other(format!(
        "the redo log is damaged: {what}; restore the image from a copy"
    ))
}
