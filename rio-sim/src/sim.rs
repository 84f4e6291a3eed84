//! Memory whose every store can be the last one before a crash.
//!
//! [`Sim`] is a Rio that records what is done to it, in words of 8 bytes. [`Replay`] goes through
//! such a trace and gives, after each step, the images that a crash there may leave: the live one
//! (the process died) or any in which some cache lines that were not fenced are lost (the power
//! failed). Nothing has to be aborted in the middle, so a run and all its crashes are plain values.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::collections::BTreeMap;

use rio_core::{At, Errno, Rio, WINDOWS, Window};

const LINE: usize = 64;
const PAGE: usize = 4096;

/// The bytes of every window.
pub type Image = Vec<Vec<u8>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Up to 8 bytes, never across a word.
    Store {
        at: At,
        bytes: Vec<u8>,
    },
    Order {
        at: At,
        len: usize,
    },
    Keep {
        at: At,
        len: usize,
    },
    Seal,
}

pub struct Sim {
    windows: [Window; WINDOWS],
    trace: RefCell<Trace>,
}

struct Trace {
    events: Vec<Event>,
    /// What the recorded stores add up to: what differs in the user's windows was stored directly.
    seen: Image,
}

impl Sim {
    pub fn new(lens: &[usize]) -> Sim {
        Sim::from_image(&lens.iter().map(|&len| vec![0; len]).collect())
    }

    pub fn from_image(image: &Image) -> Sim {
        let mut windows = [Window::NONE; WINDOWS];
        for (window, bytes) in windows.iter_mut().zip(image) {
            let layout = layout(bytes.len());
            // SAFETY: the layout is not empty, and the copy fits what was allocated for it.
            unsafe {
                let base = alloc_zeroed(layout);
                if base.is_null() {
                    handle_alloc_error(layout);
                }
                base.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                *window = Window {
                    base,
                    len: bytes.len(),
                };
            }
        }
        Sim {
            windows,
            trace: RefCell::new(Trace {
                events: Vec::new(),
                seen: image.clone(),
            }),
        }
    }

    /// The live bytes.
    pub fn image(&self) -> Image {
        let windows = self.windows.iter().take_while(|window| window.len > 0);
        // SAFETY: the windows are this value's own allocations.
        windows
            .map(|w| unsafe { std::slice::from_raw_parts(w.base, w.len) }.to_vec())
            .collect()
    }

    /// How many steps were recorded so far.
    pub fn steps(&self) -> usize {
        self.notice_direct_stores();
        self.trace.borrow().events.len()
    }

    pub fn take_trace(&self) -> Vec<Event> {
        self.notice_direct_stores();
        std::mem::take(&mut self.trace.borrow_mut().events)
    }

    fn record(&self, event: Event) {
        self.notice_direct_stores();
        self.trace.borrow_mut().events.push(event);
    }

    /// Programs also store through references; what they changed is recorded in order of address.
    fn notice_direct_stores(&self) {
        let mut trace = self.trace.borrow_mut();
        let Trace { events, seen } = &mut *trace;
        for (index, seen) in seen.iter_mut().enumerate().skip(1) {
            let window = self.windows[index];
            // SAFETY: the window is this value's own, and references to it are not used meanwhile.
            let live = unsafe { std::slice::from_raw_parts(window.base, window.len) };
            if live == seen.as_slice() {
                continue;
            }
            for offset in (0..live.len()).step_by(8) {
                let word = offset..(offset + 8).min(live.len());
                if live[word.clone()] != seen[word.clone()] {
                    let bytes = live[word.clone()].to_vec();
                    seen[word].copy_from_slice(&bytes);
                    events.push(Event::Store {
                        at: At::new(index, offset),
                        bytes,
                    });
                }
            }
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        for window in self.windows.iter().filter(|window| !window.base.is_null()) {
            // SAFETY: allocated in `from_image` with this layout.
            unsafe { dealloc(window.base, layout(window.len)) }
        }
    }
}

// SAFETY: the windows are allocations of this value, page-aligned, and never moved.
unsafe impl Rio for Sim {
    fn window(&self, index: usize) -> Window {
        self.windows.get(index).copied().unwrap_or(Window::NONE)
    }

    fn writes_back(&self) -> bool {
        true
    }

    fn order(&self, at: At, len: usize) {
        self.record(Event::Order { at, len });
    }

    fn keep(&self, at: At, len: usize) {
        self.record(Event::Keep { at, len });
    }

    fn seal(&self) -> Result<(), Errno> {
        self.record(Event::Seal);
        Ok(())
    }

    unsafe fn store_mapped(&self, at: At, _to: *mut u8, bytes: &[u8]) {
        self.notice_direct_stores();
        let mut done = 0;
        while done < bytes.len() {
            let here = at.plus(done);
            let piece = (8 - here.offset() % 8).min(bytes.len() - done);
            let bytes = &bytes[done..done + piece];
            let to = self.windows[here.window()].base.wrapping_add(here.offset());
            // SAFETY: in a window, says the caller.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), piece) };
            let mut trace = self.trace.borrow_mut();
            trace.seen[here.window()][here.offset()..][..piece].copy_from_slice(bytes);
            trace.events.push(Event::Store {
                at: here,
                bytes: bytes.to_vec(),
            });
            done += piece;
        }
    }

    unsafe fn store_word(&self, at: At, word: u64) {
        // SAFETY: as the caller says; an aligned word is one step of `store`.
        unsafe { self.store(at, &word.to_le_bytes()) }
    }
}

/// A walk along a trace that knows what a crash would leave.
pub struct Replay {
    live: Image,
    durable: Image,
    /// Lines that differ between the two, by window and line number, with what was written back of
    /// them and waits for a fence.
    dirty: BTreeMap<(usize, usize), Option<[u8; LINE]>>,
}

impl Replay {
    pub fn new(image: &Image) -> Replay {
        Replay {
            live: image.clone(),
            durable: image.clone(),
            dirty: BTreeMap::new(),
        }
    }

    pub fn step(&mut self, event: &Event) {
        match event {
            Event::Store { at, bytes } => {
                self.live[at.window()][at.offset()..][..bytes.len()].copy_from_slice(bytes);
                self.dirty
                    .entry((at.window(), at.offset() / LINE))
                    .or_insert(None);
            }
            Event::Keep { at, len } => self.write_back(*at, *len),
            Event::Order { at, len } => {
                self.write_back(*at, *len);
                self.fence();
            }
            Event::Seal => self.fence(),
        }
    }

    /// The process died: its stores are all there.
    pub fn live(&self) -> &Image {
        &self.live
    }

    /// How many lines a power failure may lose here.
    pub fn unfenced_lines(&self) -> usize {
        self.dirty.len()
    }

    /// The power failed: of the unfenced lines, those that `survives` says are there.
    pub fn after_power_failure(&self, mut survives: impl FnMut(usize) -> bool) -> Image {
        let mut found = self.durable.clone();
        for (index, &(window, line)) in self.dirty.keys().enumerate() {
            if survives(index) {
                let line = line * LINE..(line + 1) * LINE;
                found[window][line.clone()].copy_from_slice(&self.live[window][line]);
            }
        }
        found
    }

    fn write_back(&mut self, at: At, len: usize) {
        let lines = at.offset() / LINE..(at.offset() + len).div_ceil(LINE);
        for (&(window, line), written) in self.dirty.range_mut((at.window(), lines.start)..) {
            if window != at.window() || line >= lines.end {
                break;
            }
            let bytes = &self.live[window][line * LINE..(line + 1) * LINE];
            *written = Some(bytes.try_into().expect("a line"));
        }
    }

    fn fence(&mut self) {
        let (live, durable) = (&self.live, &mut self.durable);
        self.dirty.retain(|&(window, line), written| {
            let line = line * LINE..(line + 1) * LINE;
            if let Some(bytes) = written.take() {
                durable[window][line.clone()].copy_from_slice(&bytes);
            }
            durable[window][line.clone()] != live[window][line]
        });
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len.max(1).next_multiple_of(PAGE), PAGE).expect("a size in memory")
}
