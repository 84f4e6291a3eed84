//! Small programs that use every operation; each is recorded once and crashed everywhere.

use rio_core::At;
use rio_sim::sim::Sim;
use vista_core::{Core, Fault, Geometry, PAGE, SegmentInfo, create, meta_len, meta_len_of_heap};

use crate::harness::{Commit, OWNER, Random, Story, observe};

pub struct Workload {
    pub name: &'static str,
    heap_spans: usize,
    body: fn(&mut Recorder) -> Result<(), Fault>,
}

pub static WORKLOADS: &[&Workload] = &[&RANGES, &SEGMENTS, &HEAP, &LARGE, &TABLE];
pub static RANGES: Workload = Workload {
    name: "ranges",
    heap_spans: 0,
    body: ranges,
};
pub static SEGMENTS: Workload = Workload {
    name: "segments",
    heap_spans: 0,
    body: segments,
};
pub static HEAP: Workload = Workload {
    name: "heap",
    heap_spans: 3,
    body: heap,
};
pub static LARGE: Workload = Workload {
    name: "large blocks",
    heap_spans: 4,
    body: large,
};

pub static TABLE: Workload = Workload {
    name: "table",
    heap_spans: 0,
    body: table,
};

const LOG_LEN: usize = PAGE;
const RAW_LEN: usize = PAGE;
const SPAN: usize = 64 << 10;

pub struct Recorder {
    pub core: Core<Sim>,
    commits: Vec<Commit>,
}

/// Two segments (the second a heap, if the workload wants one), then the body.
pub fn run(workload: &Workload) -> Story {
    let heap_len = workload.heap_spans * SPAN;
    let geometry = Geometry {
        log_len: LOG_LEN,
        owner: OWNER,
    };
    let second_len = heap_len.max(RAW_LEN);
    let second = segment(
        "second",
        second_len,
        if heap_len > 0 { 0 } else { second_len },
    );
    let window_0 = meta_len(&geometry) + meta_len_of_heap(&second);
    let sim = Sim::new(&[window_0, RAW_LEN, second_len, 2 * RAW_LEN]);
    create(&sim, &geometry).unwrap();
    let mut core = Core::open(sim, OWNER).unwrap();
    core.add_segment(segment("first", RAW_LEN, RAW_LEN))
        .unwrap();
    core.add_segment(second).unwrap();

    let start = core.rio().image();
    core.rio().take_trace();
    let first = Commit {
        begun: 0,
        done: 0,
        state: observe(&core).unwrap(),
    };
    let mut recorder = Recorder {
        core,
        commits: vec![first],
    };
    (workload.body)(&mut recorder).unwrap();
    Story {
        start,
        trace: recorder.core.rio().take_trace(),
        commits: recorder.commits,
    }
}

impl Recorder {
    fn end(&mut self) -> Result<(), Fault> {
        let begun = self.core.rio().steps();
        self.core.end()?;
        let done = self.core.rio().steps();
        self.commits.push(Commit {
            begun,
            done,
            state: observe(&self.core)?,
        });
        Ok(())
    }
}

/// What changes without a transaction: the table of segments.
impl Recorder {
    fn change_table(
        &mut self,
        change: impl FnOnce(&mut Core<Sim>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let begun = self.core.rio().steps();
        change(&mut self.core)?;
        let done = self.core.rio().steps();
        let state = observe(&self.core)?;
        self.commits.push(Commit { begun, done, state });
        Ok(())
    }
}

fn segment(name: &str, len: usize, heap_at: usize) -> SegmentInfo {
    let mut info = SegmentInfo {
        len: len as u64,
        max_len: len as u64,
        ..SegmentInfo::NONE
    };
    info.heap_at = heap_at as u64;
    info.name[..name.len()].copy_from_slice(name.as_bytes());
    info
}

/// Overlapping and odd ranges, across lines, stored directly and through the Rio; aborts between.
fn ranges(r: &mut Recorder) -> Result<(), Fault> {
    let mut random = Random(3);
    for round in 0..10_u8 {
        r.core.begin()?;
        for _ in 0..1 + random.below(3) {
            let (offset, len) = (random.below(160), 1 + random.below(40));
            r.core.write(At::new(1, offset), &vec![round + 1; len])?;
        }
        let place = r.core.set_range(At::new(1, 60), 24)?;
        // SAFETY: the range was just declared, and the simulator's memory is this thread's.
        unsafe { place.write_bytes(0x80 | round, 24) };
        match round % 4 {
            3 => r.core.abort()?,
            _ => r.end()?,
        }
    }
    r.core.begin()?;
    r.end()
}

/// Money moves between two segments and a root, atomically.
fn segments(r: &mut Recorder) -> Result<(), Fault> {
    for round in 0..8_u64 {
        r.core.begin()?;
        r.core
            .write(At::new(1, 64), &(1000 - round).to_le_bytes())?;
        r.core
            .write(At::new(2, 64 * round as usize), &round.to_le_bytes())?;
        r.core.set_root(1, At::new(2, 64 * round as usize))?;
        r.core.write(At::new(2, 2048), &[round as u8; 72])?;
        match round % 3 {
            2 => r.core.abort()?,
            _ => r.end()?,
        }
    }
    Ok(())
}

/// A list whose nodes come and go; aborts bring back what was freed.
fn heap(r: &mut Recorder) -> Result<(), Fault> {
    let mut held: Vec<At> = Vec::new();
    let mut random = Random(5);
    for round in 0..9_u64 {
        r.core.begin()?;
        let (mut now, size) = (held.clone(), [16, 40, 700][round as usize % 3]);
        if now.len() > 2 {
            r.core.free(now.remove(random.below(3)))?;
        }
        let block = r.core.malloc(2, size)?;
        r.core.write_fresh(block, &vec![round as u8 + 1; size])?;
        r.core.set_root(2, block)?;
        now.push(block);
        if round == 4 {
            // Born and freed in one transaction.
            let brief = r.core.malloc(2, 16)?;
            r.core.free(brief)?;
        }
        match round % 4 {
            3 => r.core.abort()?,
            _ => {
                r.end()?;
                held = now;
            }
        }
    }
    Ok(())
}

/// Blocks of whole spans: several words of metadata change at once.
fn large(r: &mut Recorder) -> Result<(), Fault> {
    r.core.begin()?;
    let first = r.core.malloc(2, 2 * SPAN)?;
    r.core.write_fresh(first, b"first")?;
    r.core.set_root(2, first)?;
    r.end()?;
    for round in 0..4_u64 {
        r.core.begin()?;
        let other = r.core.malloc(2, SPAN + 1)?;
        r.core.write_fresh(other, &round.to_le_bytes())?;
        r.core.free(first)?;
        r.core.abort()?;
    }
    r.core.begin()?;
    r.core.free(first)?;
    r.core.set_root(2, At::NOWHERE)?;
    r.end()?;
    r.core.begin()?;
    let whole = r.core.malloc(2, 4 * SPAN)?;
    r.core.write_fresh(whole, b"whole")?;
    r.end()?;
    r.core.begin()?;
    r.core.free(whole)?;
    r.end()
}

/// A segment comes and grows between transactions that use it.
fn table(r: &mut Recorder) -> Result<(), Fault> {
    r.core.begin()?;
    r.core.write(At::new(1, 0), b"before")?;
    r.end()?;
    let mut third = segment("third", RAW_LEN, 2 * RAW_LEN);
    third.max_len = 2 * RAW_LEN as u64;
    r.change_table(|core| core.add_segment(third).map(|_| ()))?;
    for round in 1..4_u8 {
        r.core.begin()?;
        r.core.write(At::new(3, 8), &[round; 80])?;
        r.core.write(At::new(1, 8), &[round; 8])?;
        match round {
            2 => r.core.abort()?,
            _ => r.end()?,
        }
    }
    r.change_table(|core| core.grow(3, 2 * RAW_LEN))?;
    r.core.begin()?;
    r.core.write(At::new(3, 2 * RAW_LEN - 8), b"the end.")?;
    r.end()
}
