//! The ordered map, changed for ever, and killed at any moment.
//!
//!     ordered-map IMAGE [RIO] [ACKNOWLEDGED] [TRANSACTIONS]
//!
//! Transaction `n` toggles three keys of a fixed sequence, so what the map must hold after `n` of
//! them is known without having been there. The contract with whoever kills it is the bank's.
#![deny(unsafe_code)]

mod map;

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

use vista::{AnyRio, Error, Kind, Options, Ptr, Segment, SegmentOptions, Store, persistent};

use map::Handle;

const KEYS: u64 = 500;
const TOGGLES: u64 = 3;

persistent! {
    struct Progress {
        transactions: u64,
    }
}

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ordered-map: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let word = |index| arguments.get(index).map(String::as_str);
    let usage = "usage: ordered-map IMAGE [RIO] [ACKNOWLEDGED] [TRANSACTIONS]";
    let path = Path::new(word(0).ok_or_else(|| Error::Aborted(usage.into()))?);
    let kind: Kind = word(1).unwrap_or("tmpfs").parse().map_err(Error::Aborted)?;
    let number = |index| word(index).and_then(|word| word.parse().ok());
    let acknowledged: u64 = number(2).unwrap_or(0);

    let mut store = match path.exists() {
        true => Store::open_on(path, options(), |image| AnyRio::open_as(kind, image))?,
        false => Store::create_on(path, options(), |image| AnyRio::create_as(kind, image))?,
    };
    // Two segments, so that every transaction has to be atomic over both.
    let nodes = store.segment_or_create("nodes", SegmentOptions::heap(1 << 20))?;
    let counter = store.segment_or_create("progress", SegmentOptions::raw(4096))?;
    let progress = Ptr::<Progress>::from_at(counter.at(0));
    let handle = store.transaction(|tx| Handle::open(tx, nodes))?;
    let mut done = check(&mut store, &handle, nodes, progress, acknowledged)?;
    announce(done);
    for _ in 0..number(3).unwrap_or(u64::MAX) {
        store.transaction(|tx| {
            for step in done * TOGGLES..(done + 1) * TOGGLES {
                if handle.remove(tx, key(step))?.is_none() {
                    handle.insert(tx, key(step), step)?;
                }
            }
            tx.set(
                progress,
                Progress {
                    transactions: done + 1,
                },
            )
        })?;
        done += 1;
        announce(done);
    }
    check(&mut store, &handle, nodes, progress, done).map(|_| ())
}

fn options() -> Options {
    Options {
        log_len: 1 << 20,
        ..Options::default()
    }
}

/// Whoever watches may be gone; that is no reason to stop.
fn announce(done: u64) {
    let mut out = stdout().lock();
    let _ = out
        .write_all(&done.to_le_bytes())
        .and_then(|()| out.flush());
}

/// Every key's turn comes once in `KEYS` steps, in a shuffled order.
fn key(step: u64) -> u64 {
    step % KEYS * 371 % KEYS
}

/// What the map holds after so many steps: a key's every other turn inserts it.
fn expected(steps: u64) -> BTreeMap<u64, u64> {
    let mut map = BTreeMap::new();
    for turn in 0..KEYS {
        let turns = steps / KEYS + u64::from(turn < steps % KEYS);
        if turns % 2 == 1 {
            map.insert(key(turn), (turns - 1) * KEYS + turn);
        }
    }
    map
}

fn check(
    store: &mut Store<AnyRio>,
    handle: &Handle,
    nodes: Segment,
    progress: Ptr<Progress>,
    acknowledged: u64,
) -> Result<u64, Error> {
    let inconsistent = |what: String| Err(Error::Aborted(format!("inconsistent: {what}")));
    let (done, pairs) =
        store.transaction(|tx| Ok((tx.get(progress)?.transactions, handle.pairs(tx)?)))?;
    if !(acknowledged..=acknowledged + 1).contains(&done) {
        return inconsistent(format!("{done} transactions, {acknowledged} acknowledged"));
    }
    let wanted = expected(done * TOGGLES);
    if !pairs
        .iter()
        .copied()
        .eq(wanted.iter().map(|(&key, &value)| (key, value)))
    {
        return inconsistent(format!("the map is not what {done} transactions make"));
    }
    let blocks = store.blocks(nodes)?;
    if blocks != pairs.len() + 1 {
        return inconsistent(format!("{blocks} blocks for {} nodes: a leak", pairs.len()));
    }
    let lens = store.transaction(|tx| handle.len(tx))?;
    match pairs.first() {
        Some(&(key, value)) if store.transaction(|tx| handle.get(tx, key))? != Some(value) => {
            inconsistent(format!("{key} is not found, {lens} counted"))
        }
        _ => Ok(done),
    }
}
