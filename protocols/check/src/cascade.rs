//! How far a failure rolls the processes back: the domino effect, and what is left of it.
//!
//! Classically, recovery looks for a consistent cut: no process may have received what its sender,
//! rolled back, has not sent. Undoing a receive rolls its process back too, to the commit before,
//! which undoes sends of its own, and so on, perhaps to the beginning. The thesis observes the
//! hidden assumption. A process that is rolled back repeats what it did up to its first
//! non-deterministic event, so sends before that are not lost, and nobody need undo their receipt.
//!
//! This works on a whole trace in memory: it explains small traces, it does not check large ones.

use crate::record::Record;
use protocols::trace::{Class, Fate, Note};
use std::collections::BTreeMap;

/// The event each process stands at after the recovery; 0 is its beginning. Processes that are not
/// rolled back are at their last event.
pub type Line = BTreeMap<u32, u64>;

/// The recovery line if aborted sends must not have been received.
pub fn classical(records: &[Record], failed: u32) -> Line {
    line(records, failed, |_, at| at)
}

/// The recovery line if only those sends are lost that depend on a non-deterministic event after
/// the commit.
pub fn by_theory(records: &[Record], failed: u32) -> Line {
    line(records, failed, |process, at| {
        let own = |r: &&Record| r.process == process && r.sequence > at;
        let last_flush = records
            .iter()
            .filter(own)
            .filter(|r| r.class == Class::Flush)
            .map(|r| r.sequence)
            .max();
        let undetermined = records.iter().filter(own).find(|r| match r.fate {
            Fate::Open => r.class.is_non_deterministic(),
            Fate::Queue => Some(r.sequence) > last_flush,
            _ => false,
        });
        undetermined.map_or(u64::MAX, |r| r.sequence - 1)
    })
}

/// `repeats(process, at)` is the last event that the process, standing at `at`, is sure to do again.
fn line(records: &[Record], failed: u32, repeats: impl Fn(u32, u64) -> u64) -> Line {
    let mut line = Line::new();
    for record in records {
        line.insert(record.process, record.sequence);
    }
    let commit_before = |process: u32, before: u64| {
        let commits = records.iter().filter(|r| {
            let commit = r.class == Class::Commit || r.fate == Fate::Commit;
            commit && r.process == process && r.sequence < before
        });
        commits.map(|r| r.sequence).max().unwrap_or(0)
    };
    // Rolled back are those that stand at a commit; the others keep what they have done.
    let mut rolled_back = vec![failed];
    line.insert(failed, commit_before(failed, u64::MAX));
    loop {
        let orphan = records.iter().find(|r| {
            let Note::From(sender, sent) = r.note else {
                return false;
            };
            let done = r.sequence <= line[&r.process];
            done && rolled_back.contains(&sender)
                && line
                    .get(&sender)
                    .is_some_and(|at| sent > *at && sent > repeats(sender, *at))
        });
        let Some(orphan) = orphan else { return line };
        line.insert(
            orphan.process,
            commit_before(orphan.process, orphan.sequence),
        );
        rolled_back.push(orphan.process);
    }
}
