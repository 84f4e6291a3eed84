//! The scoreboard under many threads: what conflicts never overlaps, and the order that is
//! numbered is the order of execution.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use undo::{About, Access, Scoreboard, Timing, Verb};

/// A verb that touches one of a few things, and reads or writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Touch {
    thing: usize,
    writes: bool,
}

impl Verb for Touch {
    fn commutes(&self, other: &Self) -> bool {
        self.thing != other.thing || !(self.writes || other.writes)
    }
    fn independent(&self, other: &Self) -> bool {
        self.commutes(other)
    }
    fn prefers(&self, other: &Self) -> Ordering {
        self.writes.cmp(&other.writes)
    }
    fn timing(&self) -> Timing {
        Timing::Synchronous
    }
    fn access(&self) -> Access<Self> {
        Access::Writes
    }
    fn about(&self) -> About {
        About::default()
    }
}

const THINGS: usize = 3;

#[test]
fn what_conflicts_never_overlaps_and_is_numbered_in_order() {
    let board = Scoreboard::default();
    let number = AtomicU64::new(0);
    let inside: Vec<AtomicI64> = (0..THINGS).map(|_| AtomicI64::new(0)).collect();
    let histories: Vec<Mutex<Vec<(u64, bool)>>> = (0..THINGS).map(|_| Mutex::default()).collect();
    let (together, waits) = (AtomicI64::new(0), AtomicI64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..16u64 {
            let (board, number, inside, histories) = (&board, &number, &inside, &histories);
            let (together, waits) = (&together, &waits);
            scope.spawn(move || {
                let mut random = thread;
                for n in 0..300 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(99);
                    let thing = (random >> 40) as usize % THINGS;
                    let writes = (random >> 50) % 3 == 0;
                    let verb = Arc::new(Touch { thing, writes });
                    // Replays enter in a fixed order, users where they are preferred.
                    let ticket = match n % 2 {
                        0 => board.enter(verb),
                        _ => board.enter_numbered(verb, || ()).0,
                    };
                    waits.fetch_max(board.load().1 as i64, SeqCst);
                    let number = ticket.wait(|| number.fetch_add(1, SeqCst));
                    // A writer is alone: it counts as a thousand readers.
                    let weight = if writes { 1000 } else { 1 };
                    let now = inside[thing].fetch_add(weight, SeqCst) + weight;
                    assert!(now <= 1000, "{now} are inside at once");
                    together.fetch_max(now % 1000, SeqCst);
                    histories[thing].lock().unwrap().push((number, writes));
                    if n % 16 == 0 {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    inside[thing].fetch_sub(weight, SeqCst);
                    drop(ticket);
                }
            });
        }
    });
    assert_eq!(board.load(), (0, 0), "all have left");
    assert!(together.load(SeqCst) > 1, "readers were inside together");
    assert!(waits.load(SeqCst) > 1, "verbs did wait");
    for history in histories {
        let history = history.into_inner().unwrap();
        for (i, &(number, writes)) in history
            .iter()
            .enumerate()
            .filter(|(_, (_, writes))| *writes)
        {
            assert!(writes);
            assert!(
                history[..i].iter().all(|(before, _)| *before < number),
                "before {number}"
            );
            assert!(
                history[i + 1..].iter().all(|(after, _)| *after > number),
                "after {number}"
            );
        }
    }
}

#[test]
fn a_preferred_verb_overtakes_those_that_wait_but_nobody_twice() {
    let board = Scoreboard::default();
    let read = || {
        Arc::new(Touch {
            thing: 0,
            writes: false,
        })
    };
    let write = || {
        Arc::new(Touch {
            thing: 0,
            writes: true,
        })
    };
    let running = board.enter(read());
    running.wait(|| ());
    let waiting = board.enter(write());
    assert_eq!(board.load(), (1, 1));
    let overtaking = board.enter(read());
    overtaking.wait(|| ());
    let second = board.enter(read());
    assert_eq!(
        board.load(),
        (2, 2),
        "the second reader waits behind the writer"
    );
    drop(running);
    drop(overtaking);
    waiting.wait(|| ());
    drop(waiting);
    second.wait(|| ());
}
