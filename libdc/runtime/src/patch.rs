//! Patching of system call sites.
//!
//! ```text
//! before   b8 nr nr nr nr   mov eax, nr        after   e9 rel32    jmp stub
//!          0f 05            syscall                    0f 05       syscall (stays)
//!
//! stub     b8 nr nr nr nr         mov eax, nr
//!          48 b9 <site + 7>       mov rcx, return address
//!          65 ff 24 25 <offset>   jmp [gs:entry]
//! ```
//!
//! Only the five bytes before the `syscall` change, so whoever jumps to the
//! syscall, returns behind it or was interrupted at it finds what was there.
//! read(2) is number 0, and compilers write `xor eax, eax` for it, two bytes.
//! They become a short jump to a landing of five bytes in the padding between
//! two functions, which nothing reaches otherwise.
//!
//! What has neither form is caught by Syscall User Dispatch.
#![allow(unsafe_code)]

use crate::engine::engine;
use crate::machine::frame::LOCAL_ENTRY;
use crate::machine::frame::Local;
use crate::machine::sys::failed;
use crate::machine::user;
use crate::space::{self, PROT_WRITE};
use crate::{sys, thread};
use dc_image::window::PAGE;

const POOL_LEN: usize = 64 << 10;
const STUB_LEN: usize = 24;
const MAX_POOLS: usize = 64;
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

    /// At recovery: pools are found again by their mark in the table of areas.
    pub fn restore(&mut self) {
        self.len = 0;
        for v in space::areas() {
            if v.flags & STUB_MARK != 0 && self.len < MAX_POOLS {
                // Full as far as new stubs are concerned.
                self.pools[self.len] = Pool {
                    at: v.start as usize,
                    used: POOL_LEN,
                };
                self.len += 1;
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

/// A flag that mmap ignores (MAP_EXECUTABLE), to know our areas by.
const STUB_MARK: u32 = 0x1000;

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

/// The call of this frame came by SIGSYS. If its site is of the common form,
/// the next call from there will come by a jump. Under the big lock.
///
/// Sites are patched when they are first used, not when their text is mapped:
/// bytes that only look like a site (a displacement of 0x1e0 before a real
/// `syscall` does) are told apart by the number that is truly in rax, text
/// that never makes a call stays shared with its file, and start-up does not
/// read all libraries.
pub fn consider(l: &mut Local) {
    let number = l.frame.nr;
    let site = l.frame.rip.wrapping_sub(7);
    let mut code = [0u8; 8];
    let unfit = number >= 512 && number != crate::object::api::NR;
    if unfit || NEVER.contains(&(number as u32)) || !user::read_bytes(site - 1, &mut code) {
        return;
    }
    if code[6..8] != [0x0f, 0x05] {
        return;
    }
    let rex = code[0] & 0xf0 == 0x40;
    let found = u32::from_le_bytes([code[2], code[3], code[4], code[5]]);
    let long = !rex && code[1] == 0xb8 && found as usize == number;
    let short = number == 0 && code[4..6] == [0x31, 0xc0];
    let landing = match (long, short) {
        (true, _) => site,
        (_, true) => match padding_near(site + 3) {
            Some(at) => at,
            None => return,
        },
        _ => return,
    };
    let (first, last) = (
        landing.min(site) & !(PAGE - 1),
        (landing.max(site) + 7) & !(PAGE - 1),
    );
    let Some(v) = space::find(site as u64) else {
        return;
    };
    let prot = v.prot;
    let inside = first as u64 >= v.start && (last + PAGE) as u64 <= v.end;
    if v.file == 0 || v.flags & 3 != space::MAP_PRIVATE || !inside {
        return;
    }
    // No other thread may be between the bytes while they change.
    thread::stop_others(l);
    let writable = prot & PROT_WRITE != 0;
    let len = last + PAGE - first;
    if writable || !failed(sys!(MPROTECT, first, len, prot | PROT_WRITE)) {
        patch_site(
            landing,
            site + 7,
            number as u32,
            (!long).then_some(site + 3),
        );
        if !writable {
            sys!(MPROTECT, first, len, prot);
        }
    }
    thread::resume_others();
}

/// Five bytes of padding between two functions, within reach of a short jump
/// from `site`: nops that follow a `ret` and end where a function may begin.
fn padding_near(site: usize) -> Option<usize> {
    const NOPS: [&[u8]; 6] = [
        &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
        &[0x66, 0x0f, 0x1f, 0x44, 0, 0],
        &[0x0f, 0x1f, 0x44, 0, 0],
    ];
    let reach = site - 100..site + 110;
    let mut end = reach.start.next_multiple_of(16);
    while end < reach.end {
        let mut before = [0u8; 12];
        if user::read_bytes(end - 12, &mut before) {
            for nop in NOPS {
                let at = 12 - nop.len();
                if before[at..] == *nop
                    && before[at - 1] == 0xc3
                    && reach.contains(&(end - nop.len()))
                {
                    return Some(end - nop.len());
                }
            }
        }
        end += 16;
    }
    None
}

/// Puts a jump to a new stub at `landing`, and a short jump to the landing at
/// `short`, if the site is of that form. The stub returns to `back`.
fn patch_site(landing: usize, back: usize, number: u32, short: Option<usize>) {
    let Some(stub) = engine().stubs.room_near(landing) else {
        return;
    };
    let mut code = [0u8; STUB_LEN];
    code[0] = 0xb8;
    code[1..5].copy_from_slice(&number.to_le_bytes());
    code[5..7].copy_from_slice(&[0x48, 0xb9]);
    code[7..15].copy_from_slice(&back.to_le_bytes());
    code[15..19].copy_from_slice(&[0x65, 0xff, 0x24, 0x25]);
    code[19..23].copy_from_slice(&(LOCAL_ENTRY as u32).to_le_bytes());
    code[23] = 0x90;
    let rel = (stub as i64 - (landing as i64 + 5)) as i32;
    let mut jump = [0xe9u8; 5];
    jump[1..].copy_from_slice(&rel.to_le_bytes());
    // SAFETY: all of it lies in memory of the program's half that is writable
    // now, and all other threads are stopped, none of them inside the bytes.
    unsafe {
        core::ptr::copy_nonoverlapping(code.as_ptr(), stub as *mut u8, STUB_LEN);
        core::ptr::copy_nonoverlapping(jump.as_ptr(), landing as *mut u8, 5);
        if let Some(site) = short {
            let hop = [0xeb, (landing as i64 - (site as i64 + 2)) as u8];
            core::ptr::copy_nonoverlapping(hop.as_ptr(), site as *mut u8, 2);
        }
    }
    let (from, to) = (landing.min(back - 7), (landing + 5).max(back));
    for page in (from & !(PAGE - 1)..to).step_by(PAGE) {
        space::note_extra(page);
    }
}
