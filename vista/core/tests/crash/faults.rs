//! Faults planted at the seam, where the core needs no hooks for them: in the recorded trace, or in
//! the memory under a recovery. Each has a name, and a name for what it must be caught as.

use rio_core::At;
use rio_sim::sim::Event;

use crate::harness::Change;
use crate::workloads::{HEAP, RANGES, Workload};

#[derive(Clone, Copy)]
pub enum Planted {
    RecordFenceDropped,
    TailFenceDropped,
    SealDropped,
    TailBeforeData,
    UndoSkipped,
    FreeNotUndone,
    MallocNotUndone,
}
use Planted::*;

pub const FAULTS: [Planted; 7] = [
    RecordFenceDropped,
    TailFenceDropped,
    SealDropped,
    TailBeforeData,
    UndoSkipped,
    FreeNotUndone,
    MallocNotUndone,
];

const TAIL: At = At::new(0, 4096);
const LOG: std::ops::Range<usize> = 8192..8192 + 4096;

impl Planted {
    pub fn name(self) -> &'static str {
        match self {
            RecordFenceDropped => "the fence behind an undo record dropped",
            TailFenceDropped => "the fence behind the tail dropped",
            SealDropped => "the fence before the commit dropped",
            TailBeforeData => "the tail moved before the data",
            UndoSkipped => "the undo skipped",
            FreeNotUndone => "a heap free not undone",
            MallocNotUndone => "a heap malloc not undone",
        }
    }

    pub fn shows_as(self) -> &'static str {
        match self {
            RecordFenceDropped | TailBeforeData => "image refused",
            TailFenceDropped | SealDropped | UndoSkipped => "uncommitted bytes visible",
            FreeNotUndone | MallocNotUndone => "heap not undone",
        }
    }

    pub fn workload(self) -> &'static Workload {
        match self {
            FreeNotUndone | MallocNotUndone => &HEAP,
            _ => &RANGES,
        }
    }

    /// The same steps, as a core with the fault would have done them.
    pub fn plant_in(self, trace: &[Event]) -> Vec<Event> {
        let mut trace = trace.to_vec();
        match self {
            RecordFenceDropped => drop_events(&mut trace, is_record_order),
            TailFenceDropped => drop_events(
                &mut trace,
                |event| matches!(event, Event::Order { at, .. } if *at == TAIL),
            ),
            SealDropped => drop_events(&mut trace, |event| *event == Event::Seal),
            TailBeforeData => move_tails(&mut trace),
            UndoSkipped | FreeNotUndone | MallocNotUndone => {}
        }
        trace
    }

    /// Which stores a recovery with the fault leaves out.
    pub fn drops_in_recovery(self, at: At, change: Change) -> bool {
        let heap = at.window() == 0 && at.offset() >= LOG.end;
        match self {
            UndoSkipped => at.window() == 1,
            FreeNotUndone => heap && change == Change::SetsBits,
            MallocNotUndone => heap && change == Change::ClearsBits,
            _ => false,
        }
    }
}

/// A step that does nothing stands in, so that steps keep their numbers.
fn drop_events(trace: &mut [Event], which: impl Fn(&Event) -> bool) {
    for event in trace.iter_mut().filter(|event| which(event)) {
        *event = Event::Keep { at: TAIL, len: 0 };
    }
}

/// Publishes each record before it is written.
fn move_tails(trace: &mut [Event]) {
    let mut begins = None;
    for index in 0..trace.len() {
        match &trace[index] {
            Event::Store { at, .. } if in_log(*at) => begins = begins.or(Some(index)),
            Event::Store { at, .. } if *at == TAIL => {
                if let Some(begins) = begins.take() {
                    // The store of the tail and the fence behind it.
                    trace[begins..index + 2].rotate_right(2);
                }
            }
            _ => {}
        }
    }
}

fn is_record_order(event: &Event) -> bool {
    matches!(event, Event::Order { at, .. } if in_log(*at))
}

fn in_log(at: At) -> bool {
    at.window() == 0 && LOG.contains(&at.offset())
}
