//! vfork(2), and clone(2) with CLONE_VM and CLONE_VFORK: parent and child have one memory, and the
//! parent waits until the child executes a program or ends.
//!
//! The child has memory of its own here. What it has written by then is written into its
//! parent's too, before the parent goes on, and before a commit that has the child gone. (This is
//! how posix_spawn(3) reports its error.) If the calling thread is the only one of its process,
//! the parent's memory stands still meanwhile: then all pages that the child has for
//! itself are compared with the parent's. If there are others, they write as well: then only what lies near the stack
//! pointer is compared, with how it was.
//!
//! ```text
//! spare:  [ address of the stack | changes | parent is alone | interval | words as they were .. | (address, word) .. ]
//! ```
#![allow(unsafe_code)]

use super::{known_as, me, process, unit};
use crate::engine::{engine, state};
use crate::machine::frame::Local;
use crate::machine::sys::failed;
use crate::machine::{futex, user};
use crate::object::input::count_read;
use crate::{space, sys, thread};
use core::ops::Range;
use core::sync::atomic::Ordering::*;
use dc_image::run::{SPARE_LEN, SPARE_MAX, SPARE_OFFSET};
use dc_image::window::PAGE;

const HEAD: usize = 4;
const STACK: usize = 0;
const CHANGES: usize = 1;
const IS_ALONE: usize = 2;
/// The number of the commit that is the first to have the changes.
const INTERVAL: usize = 3;
/// Words of the parent's stack that are compared.
const STACK_WORDS: usize = SPARE_LEN / 8 / 4;
const CHANGES_AT: usize = HEAD + STACK_WORDS;

fn spare(slot: usize) -> Option<&'static mut [u64]> {
    if slot >= SPARE_MAX {
        return None;
    }
    let at = super::BASE + SPARE_OFFSET + slot * SPARE_LEN;
    // SAFETY: mapped; parent and child of one vfork use it, one after the other.
    Some(unsafe { core::slice::from_raw_parts_mut(at as *mut u64, SPARE_LEN / 8) })
}

/// In the parent, before there is a child.
pub fn prepare(l: &Local, slot: usize) {
    let Some(words) = spare(slot) else { return };
    let at = l.frame.rsp & !7;
    let end = space::find(at as u64).map_or(at, |v| v.end as usize);
    let len = (end - at).min(STACK_WORDS * 8);
    words[STACK] = at as u64;
    words[CHANGES] = 0;
    words[IS_ALONE] = u64::from(engine().thread_count.load(Relaxed) == 1);
    // SAFETY: the part of the room that holds what was there.
    let bytes =
        unsafe { core::slice::from_raw_parts_mut(words[HEAD..].as_mut_ptr().cast::<u8>(), len) };
    if !user::read_bytes(at, bytes) {
        words[STACK] = 0;
    }
}

/// The child that this thread waits for, by a call that was made before a recovery.
pub fn under_way(l: &Local) -> Option<i32> {
    let child = state().threads[l.slot as usize].vforked;
    (child != 0).then_some(child)
}

/// The parent's thread is about to wait. A commit has it make its call again.
pub fn begin(l: &Local, child: i32) {
    state().threads[l.slot as usize].vforked = child;
}

/// At recovery: what a child has written that has yet to leave its parent's memory, as of the last
/// commit, was written in the interval that was lost. It is no state, and will be made anew.
pub fn forget_lost_interval() {
    let published = engine().store.published();
    for thread in state().threads.iter().filter(|t| t.vforked != 0) {
        if let Some((slot, _)) = known_as(thread.vforked)
            && let Some(words) = spare(slot)
            && words[INTERVAL] > published
        {
            words[CHANGES] = 0;
        }
    }
}

/// Waits until the child executes a program or ends. Signals wait meanwhile.
pub fn wait(l: &mut Local) {
    let child = state().threads[l.slot as usize].vforked;
    let is_alone = engine().thread_count.load(Relaxed) == 1;
    thread::enter_stopped(l);
    while let Some((slot, p)) = known_as(child)
        && p.holds_parent.load(SeqCst) != 0
    {
        thread::last::look(l);
        if unit::is_stopping() {
            if is_alone {
                take(slot);
            }
            unit::take_part(l);
        }
        futex::wait(&p.holds_parent, 1);
    }
    // Before a commit can have this process without it. (Beside other threads, one of them may
    // have a part in a commit just now.)
    let slot = known_as(child).map(|(slot, _)| slot);
    if is_alone && let Some(slot) = slot {
        take(slot);
    }
    thread::leave_stopped(l);
    if !is_alone && let Some(slot) = slot {
        take(slot);
    }
    state().threads[l.slot as usize].vforked = 0;
}

/// In the parent: writes what the child has written.
fn take(slot: usize) {
    let Some(words) = spare(slot) else { return };
    let n = (words[CHANGES] as usize).min(words.len() - CHANGES_AT);
    words[CHANGES] = 0;
    for pair in words[CHANGES_AT..][..n].chunks_exact(2) {
        user::write(pair[0] as usize, &pair[1]);
    }
}

/// The child is about to leave the memory that it has from its parent.
pub fn leave_memory() {
    let p = me();
    if p.holds_parent.load(Relaxed) == 0 {
        return;
    }
    let (Some(words), Some(parent)) = (spare(engine().slot), p.parent_at(u64::MAX)) else {
        return;
    };
    let (before, room) = words.split_at_mut(CHANGES_AT);
    let own = state().threads.iter().find(|t| t.used != 0);
    let mut changes = Changes {
        room,
        len: 0,
        rseq: own.map_or(0..0, |t| t.rseq[0]..t.rseq[0] + t.rseq[1]),
    };
    let is_alone = before[IS_ALONE] != 0;
    if !(is_alone && changes.add_all(process(parent).real.load(Relaxed))) {
        changes.len = 0;
        changes.add_stack(before);
    }
    before[CHANGES] = changes.len as u64;
    before[INTERVAL] = engine().store.published() + 1;
    // The next commit must have it in the parent's memory.
    unit::look_at(parent);
}

/// The child need not hold its parent any longer.
pub fn release_parent() {
    let p = me();
    if p.holds_parent.load(Relaxed) != 0 {
        p.hold_parent(false, engine().store.published());
        futex::wake_all(&p.holds_parent);
    }
}

/// What the child has written, as addresses and words.
struct Changes<'a> {
    room: &'a mut [u64],
    len: usize,
    /// The kernel writes its own processor's number there.
    rseq: Range<usize>,
}

impl Changes<'_> {
    /// False if there is no room for it.
    fn add(&mut self, at: usize, word: u64) -> bool {
        let Some(pair) = self.room.get_mut(self.len..self.len + 2) else {
            return false;
        };
        pair.copy_from_slice(&[at as u64, word]);
        self.len += 2;
        true
    }

    fn add_stack(&mut self, before: &[u64]) {
        let at = before[STACK] as usize;
        if at == 0 {
            return;
        }
        let end = space::find(at as u64).map_or(at, |v| v.end as usize);
        let count = ((end - at) / 8).min(STACK_WORDS);
        for (i, was) in before[HEAD..][..count].iter().enumerate() {
            let Some(now) = user::read::<u64>(at + i * 8) else {
                break;
            };
            if now != *was && !self.add(at + i * 8, now) {
                break;
            }
        }
    }

    /// What differs from the memory of the parent, which stands still. False if that cannot be
    /// looked at.
    fn add_all(&mut self, parent: i32) -> bool {
        const O_CLOEXEC: usize = 0o2000000;
        let pages = crate::proc::open(b"/proc/self/pagemap\0", O_CLOEXEC);
        if failed(pages) {
            return false;
        }
        let is_whole = space::areas()
            .iter()
            .filter(|v| may_differ(v))
            .all(|v| self.add_area(pages as i32, parent, v.start as usize..v.end as usize));
        sys!(CLOSE, pages);
        is_whole
    }

    fn add_area(&mut self, pages: i32, parent: i32, area: Range<usize>) -> bool {
        let mut entries = [0u64; 128];
        let mut at = area.start;
        while at < area.end {
            let count = ((area.end - at) / PAGE).min(entries.len());
            let r = sys!(
                PREAD64,
                pages,
                entries.as_mut_ptr(),
                count * 8,
                at / PAGE * 8
            );
            count_read(r);
            if r != (count * 8) as isize {
                return false;
            }
            for (i, entry) in entries[..count].iter().enumerate() {
                let page = at + i * PAGE;
                // What a recovery has mapped from the image the child may have written before.
                let is_own = is_own(*entry) || engine().folded.touches(page, page + PAGE);
                if is_own && !self.add_page(parent, page) {
                    return false;
                }
            }
            at += count * PAGE;
        }
        true
    }

    fn add_page(&mut self, parent: i32, at: usize) -> bool {
        const WORDS: usize = PAGE / 8;
        let mut theirs = [0u64; WORDS];
        let [to, from] = [[theirs.as_mut_ptr() as usize, PAGE], [at, PAGE]];
        let r = sys!(
            PROCESS_VM_READV,
            parent,
            to.as_ptr(),
            1,
            from.as_ptr(),
            1,
            0
        );
        if r != PAGE as isize {
            return false;
        }
        for (i, theirs) in theirs.iter().enumerate() {
            let word = at + i * 8;
            let Some(own) = user::read::<u64>(word) else {
                return false;
            };
            if own != *theirs && !self.rseq.contains(&word) && !self.add(word, own) {
                crate::say!(
                    "a child of vfork has written more into its parent's memory than can be \
                     passed on: only what is on the stack is"
                );
                return false;
            }
        }
        true
    }
}

/// Whether the child has memory of its own where it shares it natively. (Stubs are each process's
/// own: parent and child may have patched different calls since they are two, behind a recovery
/// for instance.)
fn may_differ(v: &crate::state::Vma) -> bool {
    const MAP_PRIVATE: u32 = 2;
    const PROT_WRITE: u32 = 2;
    v.flags & 3 == MAP_PRIVATE && v.prot & PROT_WRITE != 0 && !crate::patch::is_stubs(v)
}

/// Whether nobody else has this page (pagemap in proc(5)), or that cannot be told: it is swapped out.
fn is_own(entry: u64) -> bool {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const EXCLUSIVE: u64 = 1 << 56;
    entry & SWAPPED != 0 || entry & PRESENT != 0 && entry & EXCLUSIVE != 0
}
