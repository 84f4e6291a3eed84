//! Crashes a recorded run everywhere, recovers, and compares with what was committed.

use std::collections::BTreeMap;
use std::fmt;

use rio_core::{At, Errno, Rio, Window};
use rio_sim::sim::{Event, Image, Replay, Sim};
use vista_core::{Core, Fault};

pub const OWNER: u32 = 7;

/// All that a user can see of an image: roots, raw segments, and the blocks of the heaps.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Observation {
    pub roots: Vec<u64>,
    pub raw: Vec<Vec<u8>>,
    pub blocks: BTreeMap<u64, Vec<u8>>,
}

/// A run: where it started, what it did, and what was committed when.
pub struct Story {
    pub start: Image,
    pub trace: Vec<Event>,
    pub commits: Vec<Commit>,
}

/// A commit is in force from `done` on, and may be from `begun` on.
pub struct Commit {
    pub begun: usize,
    pub done: usize,
    pub state: Observation,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Depth {
    /// The process dies, also in recovery; memory is as it was.
    Process,
    /// The power fails, and any unfenced line may be lost.
    Power,
}

/// What a store does to the bits that are there.
#[derive(Clone, Copy, PartialEq)]
pub enum Change {
    SetsBits,
    ClearsBits,
    Bytes,
}

#[derive(Default)]
pub struct Findings {
    pub steps: usize,
    pub cases: usize,
    pub subsets: usize,
    pub in_recovery: usize,
    pub undone: usize,
    pub kept: usize,
    pub caught: BTreeMap<&'static str, usize>,
}

impl Findings {
    pub fn violations(&self) -> usize {
        self.caught.values().sum()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Findings {
            steps,
            cases,
            subsets,
            in_recovery,
            ..
        } = self;
        write!(
            f,
            "{steps} steps, {cases} crashes ({subsets} subsets of lines, "
        )?;
        write!(
            f,
            "{in_recovery} in recovery), {} inconsistent",
            self.violations()
        )?;
        self.caught
            .iter()
            .try_for_each(|(name, count)| write!(f, ", {name} {count}"))
    }
}

/// Crashes before the first step, and after every further one.
pub fn explore(
    story: &Story,
    trace: &[Event],
    depth: Depth,
    drops: impl Fn(At, Change) -> bool + Copy,
) -> Findings {
    let mut found = Findings {
        steps: trace.len(),
        ..Findings::default()
    };
    let mut replay = Replay::new(&story.start);
    let mut random = Random(1);
    for step in 0..=trace.len() {
        if step > 0 {
            replay.step(&trace[step - 1]);
        }
        let allowed = allowed_at(story, step);
        if depth == Depth::Process {
            judge(replay.live(), &allowed, drops, true, &mut found);
            continue;
        }
        let lines = replay.unfenced_lines();
        // Few lines: every subset. Many: none, all, and samples.
        let subsets = if lines <= 6 { 1_u64 << lines } else { 24 };
        for subset in 0..subsets {
            let chosen = match subset {
                _ if lines <= 6 => subset,
                0 => 0,
                1 => u64::MAX,
                _ => random.next(),
            };
            let image = replay.after_power_failure(|line| chosen >> (line % 64) & 1 != 0);
            found.subsets += 1;
            // The recoveries of both extremes die as well: every unfenced line lost, every one kept.
            let every_one = u64::MAX >> (64 - lines.clamp(1, 64));
            let extreme = chosen & every_one == 0 || chosen & every_one == every_one;
            judge(&image, &allowed, drops, extreme, &mut found);
        }
    }
    found
}

/// The states that a crash after this many steps may recover to: the first is the older.
fn allowed_at(story: &Story, step: usize) -> Vec<&Observation> {
    let done = story
        .commits
        .iter()
        .rposition(|commit| commit.done <= step)
        .expect("a start");
    let begun = story
        .commits
        .iter()
        .rposition(|commit| commit.begun <= step)
        .expect("a start");
    (done..=begun.max(done))
        .map(|index| &story.commits[index].state)
        .collect()
}

fn judge(
    image: &Image,
    allowed: &[&Observation],
    drops: impl Fn(At, Change) -> bool + Copy,
    crash_again: bool,
    found: &mut Findings,
) {
    found.cases += 1;
    let (result, trace) = recover(image, drops);
    match name_violation(&result, allowed) {
        Some(name) => *found.caught.entry(name).or_default() += 1,
        None if result.as_ref() == Ok(allowed[0]) => found.undone += 1,
        None => found.kept += 1,
    }
    if !crash_again || result.is_err() {
        return;
    }
    // The recovery dies too, at each of its own steps, and the next one finds what it left.
    let mut replay = Replay::new(image);
    for event in &trace {
        replay.step(event);
        for power in [false, true] {
            let after = match power {
                false => replay.live().clone(),
                true => replay.after_power_failure(|line| line % 2 == 0),
            };
            found.in_recovery += 1;
            found.cases += 1;
            let (again, _) = recover(&after, drops);
            if let Some(name) = name_violation(&again, allowed) {
                *found.caught.entry(name).or_default() += 1;
            }
        }
    }
}

fn recover(
    image: &Image,
    drops: impl Fn(At, Change) -> bool,
) -> (Result<Observation, Fault>, Vec<Event>) {
    let rio = Lossy {
        sim: Sim::from_image(image),
        drops,
    };
    match Core::open(rio, OWNER) {
        Ok(core) => (observe(&core), core.rio().sim.take_trace()),
        Err(fault) => (Err(fault), Vec::new()),
    }
}

fn name_violation(
    result: &Result<Observation, Fault>,
    allowed: &[&Observation],
) -> Option<&'static str> {
    let state = match result {
        Ok(state) if allowed.contains(&state) => return None,
        Ok(state) => state,
        Err(_) => return Some("image refused"),
    };
    let same_keys = |one: &Observation| one.blocks.keys().eq(state.blocks.keys());
    match allowed.iter().any(|one| same_keys(one)) {
        false => Some("heap not undone"),
        true => Some("uncommitted bytes visible"),
    }
}

/// Looks at everything through a core that has recovered, or is between transactions.
pub fn observe<R: Rio>(core: &Core<R>) -> Result<Observation, Fault> {
    let mut state = Observation::default();
    let bytes = |at: At, len: usize| -> Result<Vec<u8>, Fault> {
        let from = core.resolve(at, len)?;
        // SAFETY: resolved to be inside a window.
        Ok(unsafe { std::slice::from_raw_parts(from, len) }.to_vec())
    };
    for segment in 1..=core.segments() {
        let info = *core.segment(segment)?;
        state.roots.push(core.root(segment)?.word());
        if info.spans() == 0 {
            state
                .raw
                .push(bytes(At::new(segment, 0), info.len as usize)?);
        }
        let mut places = Vec::new();
        core.each_block(segment, |at, len| places.push((at, len)))?;
        for (at, len) in places {
            state.blocks.insert(at.word(), bytes(at, len)?);
        }
    }
    Ok(state)
}

/// A Rio that swallows some stores: how a recovery with a fault in it behaves.
struct Lossy<D> {
    sim: Sim,
    drops: D,
}

// SAFETY: everything is the simulator's, and a store left out touches nothing.
unsafe impl<D: Fn(At, Change) -> bool> Rio for Lossy<D> {
    fn window(&self, index: usize) -> Window {
        self.sim.window(index)
    }

    fn writes_back(&self) -> bool {
        true
    }

    fn order(&self, at: At, len: usize) {
        self.sim.order(at, len);
    }

    fn keep(&self, at: At, len: usize) {
        self.sim.keep(at, len);
    }

    fn seal(&self) -> Result<(), Errno> {
        self.sim.seal()
    }

    unsafe fn store_mapped(&self, at: At, to: *mut u8, bytes: &[u8]) {
        if !(self.drops)(at, Change::Bytes) {
            // SAFETY: the caller's word is passed on.
            unsafe { self.sim.store_mapped(at, to, bytes) }
        }
    }

    unsafe fn store_word(&self, at: At, word: u64) {
        // SAFETY: the caller vouches for the word.
        let old = unsafe {
            self.sim
                .window(at.window())
                .base
                .add(at.offset())
                .cast::<u64>()
                .read()
        };
        let change = if word & !old != 0 {
            Change::SetsBits
        } else {
            Change::ClearsBits
        };
        if !(self.drops)(at, change) {
            // SAFETY: the caller's word is passed on.
            unsafe { self.sim.store_word(at, word) }
        }
    }
}

/// A small generator, so that a failing case is the same one tomorrow.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ self.0 >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ mixed >> 29
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
