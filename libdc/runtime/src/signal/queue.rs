//! Signals that have arrived and are not delivered yet, a queue per thread.
//!
//! The kernel's own queue ends at our handler; from there on a signal is the
//! runtime's to keep. Only the thread itself touches its queue (its handlers
//! interrupt it, but fill a slot before they count it).
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering::*, compiler_fence};

pub const QUEUE_LEN: usize = 64;

/// `siginfo_t`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct SigInfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    pub rest: [u8; 116],
}

#[repr(C)]
pub struct Queue {
    /// One bit for each used entry.
    used: u64,
    entries: [SigInfo; QUEUE_LEN],
    order: [u32; QUEUE_LEN],
    next: u32,
    pub lost: u32,
}

impl Clone for Queue {
    fn clone(&self) -> Queue {
        *self
    }
}
impl Copy for Queue {}

impl SigInfo {
    /// Of a timer's signal: which.
    pub fn timer_id(&self) -> i32 {
        i32::from_le_bytes([self.rest[4], self.rest[5], self.rest[6], self.rest[7]])
    }

    /// Of a fault: where.
    pub fn address(&self) -> usize {
        let mut address = [0; 8];
        address.copy_from_slice(&self.rest[4..12]);
        usize::from_le_bytes(address)
    }
}

impl Queue {
    /// Nothing waits.
    pub const NEW: Queue = Queue {
        used: 0,
        entries: [SigInfo {
            signo: 0,
            errno: 0,
            code: 0,
            rest: [0; 116],
        }; QUEUE_LEN],
        order: [0; QUEUE_LEN],
        next: 0,
        lost: 0,
    };

    fn bits(&self) -> &AtomicU64 {
        // SAFETY: a plain aligned u64 seen as an atomic one.
        unsafe { &*(&raw const self.used).cast::<AtomicU64>() }
    }

    /// Adds a signal, and says whether it did: standard signals do not queue twice.
    pub fn push(&mut self, info: &SigInfo) -> bool {
        let used = self.bits().load(Relaxed);
        if info.signo < 32 {
            for i in 0..QUEUE_LEN {
                if used & (1 << i) != 0 && self.entries[i].signo == info.signo {
                    return false;
                }
            }
        }
        self.push_another(info)
    }

    /// Adds one beside others of its number.
    pub fn push_another(&mut self, info: &SigInfo) -> bool {
        let used = self.bits().load(Relaxed);
        let i = used.trailing_ones() as usize;
        if i >= QUEUE_LEN {
            self.lost += 1;
            return false;
        }
        self.entries[i] = *info;
        self.order[i] = self.next;
        self.next = self.next.wrapping_add(1);
        compiler_fence(SeqCst);
        self.bits().fetch_or(1 << i, SeqCst);
        true
    }

    /// Whether one more finds room.
    pub fn has_room(&self) -> bool {
        self.bits().load(Relaxed) != u64::MAX
    }

    /// Those that wait, in no order.
    pub fn waiting(&self) -> impl Iterator<Item = &SigInfo> {
        let used = self.bits().load(SeqCst);
        self.entries
            .iter()
            .enumerate()
            .filter_map(move |(i, info)| (used & (1 << i) != 0).then_some(info))
    }

    /// Takes the oldest signal that is in `set` (bit signo-1).
    pub fn take(&mut self, set: u64) -> Option<SigInfo> {
        self.take_if(set, |_| true)
    }

    /// The same of those of which something is true.
    pub fn take_if(&mut self, set: u64, is_meant: impl Fn(&SigInfo) -> bool) -> Option<SigInfo> {
        let i = self.oldest(set, is_meant)?;
        let info = self.entries[i];
        self.bits().fetch_and(!(1 << i), SeqCst);
        Some(info)
    }

    fn oldest(&self, set: u64, is_meant: impl Fn(&SigInfo) -> bool) -> Option<usize> {
        let used = self.bits().load(SeqCst);
        (0..QUEUE_LEN)
            .filter(|&i| used & (1 << i) != 0 && set & (1 << (self.entries[i].signo - 1)) != 0)
            .filter(|&i| is_meant(&self.entries[i]))
            .min_by_key(|&i| {
                // Synchronous faults first, then in order of arrival.
                let sync = matches!(self.entries[i].signo, 4 | 5 | 7 | 8 | 11);
                (!sync, self.order[i].wrapping_sub(self.next))
            })
    }

    /// Signals waiting, as a mask.
    pub fn pending(&self) -> u64 {
        let used = self.bits().load(SeqCst);
        (0..QUEUE_LEN)
            .filter(|&i| used & (1 << i) != 0)
            .fold(0, |m, i| m | 1 << (self.entries[i].signo - 1))
    }

    pub fn is_empty(&self) -> bool {
        self.bits().load(Relaxed) == 0
    }

    /// Forgets all of it. (Two pages and more: in a child those that are not written stay
    /// its parent's.)
    pub fn clear(&mut self) {
        if !self.is_empty() || self.lost != 0 {
            *self = Queue::NEW;
        }
    }
}
