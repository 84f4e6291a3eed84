//! Eager patching of system call sites.
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
//! What has no such five bytes is caught by Syscall User Dispatch.

use crate::engine::engine;
use crate::machine::frame::LOCAL_ENTRY;
use crate::machine::sys::failed;
use crate::space::{self, PROT_WRITE};
use crate::sys;
use dc_image::window::PAGE;

const POOL_LEN: usize = 64 << 10;
const STUB_LEN: usize = 24;
const MAX_POOLS: usize = 64;
/// rt_sigreturn and clone3-like calls that must come with the true stack.
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

/// Patches what it finds in a mapped executable range.
pub fn patch_range(from: usize, to: usize, prot: u32) {
    // SAFETY: just mapped and readable; pages beyond the end of the file would
    // fault, so the end is found first.
    let len = readable(from, to) - from;
    let text = unsafe { core::slice::from_raw_parts(from as *const u8, len) };
    let mut writable = false;
    let mut i = 5;
    while i + 2 <= len {
        if text[i] != 0x0f {
            i += 1;
            continue;
        }
        if text[i + 1] == 0x05 && text[i - 5] == 0xb8 {
            let number = u32::from_le_bytes([text[i - 4], text[i - 3], text[i - 2], text[i - 1]]);
            let rex = i >= 6 && text[i - 6] & 0xf0 == 0x40;
            if number < 512 && !rex && !NEVER.contains(&number) {
                if !writable && prot & PROT_WRITE == 0 {
                    if failed(sys!(MPROTECT, from, to - from, 7)) {
                        return;
                    }
                    writable = true;
                }
                patch_site(from + i - 5, number);
            }
        }
        i += 1;
    }
    if writable {
        sys!(MPROTECT, from, to - from, prot);
    }
}

/// The end of what can be read of a file mapping.
fn readable(from: usize, to: usize) -> usize {
    let mut end = to;
    let mut probe = [0u8; 1];
    while end > from && !crate::machine::user::read_bytes(end - 1, &mut probe) {
        end -= PAGE;
    }
    end
}

fn patch_site(site: usize, number: u32) {
    let Some(stub) = engine().stubs.room_near(site) else {
        return;
    };
    let mut code = [0u8; STUB_LEN];
    code[0] = 0xb8;
    code[1..5].copy_from_slice(&number.to_le_bytes());
    code[5..7].copy_from_slice(&[0x48, 0xb9]);
    code[7..15].copy_from_slice(&(site + 7).to_le_bytes());
    code[15..19].copy_from_slice(&[0x65, 0xff, 0x24, 0x25]);
    code[19..23].copy_from_slice(&(LOCAL_ENTRY as u32).to_le_bytes());
    code[23] = 0x90;
    let rel = (stub as i64 - (site as i64 + 5)) as i32;
    let mut jump = [0xe9u8; 5];
    jump[1..].copy_from_slice(&rel.to_le_bytes());
    // SAFETY: both lie in writable memory of the program's half; no thread of
    // the program runs in text that is only being mapped.
    unsafe {
        core::ptr::copy_nonoverlapping(code.as_ptr(), stub as *mut u8, STUB_LEN);
        core::ptr::copy_nonoverlapping(jump.as_ptr(), site as *mut u8, 5);
    }
    let first = site & !(PAGE - 1);
    note_once(first);
    if (site + 4) & !(PAGE - 1) != first {
        note_once(first + PAGE);
    }
}

/// Pages come in ascending order: comparing with the last is enough.
fn note_once(page: usize) {
    let e = engine();
    // SAFETY: below extra_len entries are set.
    if e.extra_len > 0 && unsafe { e.extra.add(e.extra_len - 1).read() } == page {
        return;
    }
    space::note_extra(page);
}
