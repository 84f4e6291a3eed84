//! Patching of system call sites.
//!
//! ```text
//! before   b8 nr nr nr nr   mov eax, nr        after   e9 rel32    jmp stub
//!          0f 05            syscall                    0f 05       syscall (stays)
//!
//! stub     b8 nr nr nr nr         mov eax, nr
//!          48 b9 <behind>         mov rcx, return address
//!          65 ff 24 25 <offset>   jmp [gs:entry]
//! ```
//!
//! The one instruction before the `syscall` moves into the stub, so whoever
//! jumps to either of them, returns behind them or was interrupted at them
//! finds what was there, and no thread can stand inside. As a rule it loads the
//! number; `site.rs` tells what else it may be. One that is shorter than a jump
//! becomes a short jump to a landing of five bytes in the padding between two
//! functions, which nothing reaches otherwise.
//!
//! What has no form known here is caught by Syscall User Dispatch.
#![allow(unsafe_code)]

use crate::engine::engine;
use crate::machine::frame::LOCAL_ENTRY;
use crate::machine::frame::Local;
use crate::machine::site::{self, CALL_LEN};
use crate::machine::sys::failed;
use crate::machine::user;
use crate::space::{self, PROT_WRITE};
use crate::state::Vma;
use crate::{sys, thread, uffd};
use dc_image::window::PAGE;

const POOL_LEN: usize = 64 << 10;
const STUB_LEN: usize = 32;
const MAX_POOLS: usize = 64;
/// `jmp rel32`.
const JUMP_LEN: usize = 5;
/// rt_sigreturn must come with the program's own stack pointer.
const NEVER: [u32; 1] = [15];

#[derive(Clone, Copy)]
struct Pool {
    at: usize,
    used: usize,
}

/// Areas of stubs, each within reach of the text it serves.
pub struct StubPools {
    pools: [Pool; MAX_POOLS],
    len: usize,
}

impl StubPools {
    pub const fn new() -> StubPools {
        StubPools {
            pools: [Pool { at: 0, used: 0 }; MAX_POOLS],
            len: 0,
        }
    }

    /// Whether an address lies in a stub.
    pub fn contains(&self, rip: usize) -> bool {
        self.pools[..self.len]
            .iter()
            .any(|p| (p.at..p.at + POOL_LEN).contains(&rip))
    }

    /// At recovery: pools are found again by their mark in the table of areas, where neighbours are
    /// one area, and their stubs by what is in them: they were made one behind the other.
    pub fn restore(&mut self) {
        self.len = 0;
        for v in space::areas() {
            if v.flags & STUB_MARK == 0 {
                continue;
            }
            for at in (v.start as usize..v.end as usize).step_by(POOL_LEN) {
                if let Some(pool) = self.pools.get_mut(self.len) {
                    *pool = Pool { at, used: used(at) };
                    self.len += 1;
                }
            }
        }
    }

    /// A place to return to from a function that the runtime has called.
    pub fn return_stub(&mut self, near: usize) -> Option<usize> {
        let at = self.room_near(near)?;
        // mov eax, 15 (rt_sigreturn); syscall
        let code = [0xb8u8, 15, 0, 0, 0, 0x0f, 0x05];
        // SAFETY: a stub's room in a writable area of ours.
        unsafe { core::ptr::copy_nonoverlapping(code.as_ptr(), at as *mut u8, code.len()) };
        Some(at)
    }

    fn room_near(&mut self, site: usize) -> Option<usize> {
        let near = |at: usize| at.abs_diff(site) < 0x7000_0000;
        for i in 0..self.len {
            let p = &mut self.pools[i];
            if near(p.at) && p.used + STUB_LEN <= POOL_LEN {
                p.used += STUB_LEN;
                return Some(p.at + p.used - STUB_LEN);
            }
        }
        if self.len == MAX_POOLS {
            return None;
        }
        let at = place_near(site)?;
        let r = space::map_anonymous(at, POOL_LEN, 7, STUB_MARK);
        if failed(r) {
            return None;
        }
        self.pools[self.len] = Pool { at, used: STUB_LEN };
        self.len += 1;
        Some(at)
    }
}

/// How much of the pool at `at` holds stubs: none begins with a zero.
fn used(at: usize) -> usize {
    let mut stubs = (0..POOL_LEN).step_by(STUB_LEN);
    // SAFETY: an area of ours, readable.
    let free = |offset: &usize| unsafe { ((at + offset) as *const u8).read() == 0 };
    stubs.find(free).unwrap_or(POOL_LEN)
}

/// A flag that mmap ignores (MAP_EXECUTABLE), to know our areas by.
const STUB_MARK: u32 = 0x1000;

/// Whether an area has stubs.
pub fn is_stubs(v: &Vma) -> bool {
    v.flags & STUB_MARK != 0
}

fn place_near(site: usize) -> Option<usize> {
    let high = (site + 0x6000_0000).min(dc_image::window::MMAP_TOP);
    let low = site
        .saturating_sub(0x6000_0000)
        .max(dc_image::window::USER_MIN);
    // Below the text first: libraries grow downward, heaps upward.
    space::find_free(POOL_LEN as u64, (site & !(PAGE - 1)) as u64, low as u64)
        .or_else(|| space::find_free(POOL_LEN as u64, high as u64, low as u64))
        .map(|a| a as usize)
}

/// The call of this frame came by SIGSYS. If its site is of a known form, the
/// next call from there will come by a jump. Under the big lock.
///
/// Sites are patched when they are first used, not when their text is mapped:
/// bytes that only look like a site (a displacement of 0x1e0 before a real
/// `syscall` does) are told apart by the number that is truly in rax, text
/// that never makes a call stays shared with its file, and start-up does not
/// read all libraries.
pub fn consider(l: &mut Local) {
    let number = l.frame.nr;
    let behind = l.frame.rip;
    let unfit = number >= 512 && number != crate::object::api::NR;
    if unfit || NEVER.contains(&(number as u32)) {
        return;
    }
    let Some(len) = site::moved(behind - CALL_LEN, number) else {
        return;
    };
    let at = behind - CALL_LEN - len;
    let landing = if len >= JUMP_LEN {
        at
    } else {
        match padding_near(at) {
            Some(at) => at,
            None => return,
        }
    };
    let (first, last) = (
        landing.min(at) & !(PAGE - 1),
        (landing + JUMP_LEN).max(behind).next_multiple_of(PAGE),
    );
    let Some(v) = space::find(at as u64) else {
        return;
    };
    let prot = v.prot;
    let inside = first as u64 >= v.start && last as u64 <= v.end;
    if v.file == 0 || v.flags & 3 != space::MAP_PRIVATE || !inside {
        return;
    }
    // No other thread may be between the bytes while they change.
    thread::stop_others(l);
    // (By its file memory is changed whatever its protection, which would divide an area.)
    if !patch_site(at, len, landing, uffd::write_own) {
        let writable = prot & PROT_WRITE != 0;
        if writable || !failed(sys!(MPROTECT, first, last - first, prot | PROT_WRITE)) {
            patch_site(at, len, landing, store);
            if !writable {
                sys!(MPROTECT, first, last - first, prot);
            }
        }
    }
    thread::resume_others();
}

/// Into memory that is writable for now.
fn store(at: usize, bytes: &[u8]) -> bool {
    // SAFETY: it lies in memory of the program's half, and all other threads are stopped,
    // none of them inside the bytes.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
    true
}

/// Five bytes of padding between two functions, within reach of a short jump
/// from `at`. Nothing comes there otherwise.
fn padding_near(at: usize) -> Option<usize> {
    let reach = at - 100..at + 110;
    let ends = (reach.start..reach.end)
        .step_by(16)
        .map(|at| at.next_multiple_of(16));
    ends.filter_map(|end| Some(end - padding_before(end)?))
        .find(|landing| reach.contains(landing))
}

/// The length of the padding that ends where a function may begin: what follows a
/// `ret`, one long nop or the traps that Go fills with.
fn padding_before(end: usize) -> Option<usize> {
    const NOPS: [&[u8]; 6] = [
        b"\x66\x2e\x0f\x1f\x84\0\0\0\0\0",
        b"\x66\x0f\x1f\x84\0\0\0\0\0",
        b"\x0f\x1f\x84\0\0\0\0\0",
        b"\x0f\x1f\x80\0\0\0\0",
        b"\x66\x0f\x1f\x44\0\0",
        b"\x0f\x1f\x44\0\0",
    ];
    const RET: u8 = 0xc3;
    const TRAP: u8 = 0xcc;
    let mut before = [0u8; 32];
    if !user::read_bytes(end - before.len(), &mut before) {
        return None;
    }
    let traps = before.iter().rev().take_while(|&&b| b == TRAP).count();
    let nop = NOPS.iter().find(|nop| before.ends_with(nop));
    let len = nop.map_or(traps, |nop| nop.len());
    let follows = before.get(before.len().checked_sub(len + 1)?);
    (len >= JUMP_LEN && follows == Some(&RET)).then_some(len)
}

/// Moves the `len` bytes of the instruction at `at`, which ends at the `syscall`,
/// into a new stub, and puts a jump there at `landing`; if that is not where the
/// instruction was, then a short jump to it there. False if the code cannot be changed so.
fn patch_site(at: usize, len: usize, landing: usize, put: impl Fn(usize, &[u8]) -> bool) -> bool {
    let Some(stub) = engine().stubs.room_near(landing) else {
        return true;
    };
    let behind = at + len + CALL_LEN;
    let mut code = [0x90u8; STUB_LEN];
    let (moved, rest) = code.split_at_mut(len);
    rest[..2].copy_from_slice(&[0x48, 0xb9]);
    rest[2..10].copy_from_slice(&behind.to_le_bytes());
    rest[10..14].copy_from_slice(&[0x65, 0xff, 0x24, 0x25]);
    rest[14..18].copy_from_slice(&(LOCAL_ENTRY as u32).to_le_bytes());
    let rel = (stub as i64 - (landing + JUMP_LEN) as i64) as i32;
    let mut jump = [0xe9u8; JUMP_LEN];
    jump[1..].copy_from_slice(&rel.to_le_bytes());
    // SAFETY: the instruction is readable, and the stub lies in an area of ours, which is
    // writable.
    unsafe {
        core::ptr::copy_nonoverlapping(at as *const u8, moved.as_mut_ptr(), len);
        core::ptr::copy_nonoverlapping(code.as_ptr(), stub as *mut u8, STUB_LEN);
    }
    // All other threads are stopped, none of them inside the bytes.
    if !put(landing, &jump) {
        return false;
    }
    if landing != at {
        put(at, &[0xeb, (landing as i64 - (at as i64 + 2)) as u8]);
    }
    let (from, to) = (landing.min(at), (landing + JUMP_LEN).max(behind));
    for page in (from & !(PAGE - 1)..to).step_by(PAGE) {
        space::note_extra(page);
    }
    true
}
