//! Arguments and environment on their way from the old program to the new one.
//!
//! They lie in a block of the arena that every exec uses anew: while one is under way no
//! other thread runs, and what the new program has of them lies on its stack.
#![allow(unsafe_code)]

use crate::engine::engine;
use crate::machine::sys::errno::*;
use crate::machine::user;
use crate::object::limits;
use crate::sys;
use dc_image::boot::Slice;

/// The most that a kernel takes, whatever the limit of the stack: 3/4 of 8 MiB.
const BYTES_MAX: usize = 6 << 20;
/// The least that it takes.
const BYTES_MIN: usize = 128 << 10;
/// Of one string, with its end.
const STRING_MAX: usize = 32 * 4096;
/// Each string takes a byte and a pointer, so there are not more.
const COUNT_MAX: usize = BYTES_MAX / 9;
/// Entries that a script puts before its arguments: name, interpreter and argument of
/// each of five.
pub const BEFORE_MAX: usize = 16;

const LIST_LEN: usize = ((COUNT_MAX + BEFORE_MAX) * 8).next_multiple_of(4096);
const PART_LEN: usize = LIST_LEN + BYTES_MAX + STRING_MAX;
const RLIMIT_STACK: usize = 3;

/// Room that is left for strings and their pointers, as the kernel counts it.
pub struct Room(usize);

/// A list of strings.
pub struct Strings {
    /// Entries, from `first` on; those before are free for scripts.
    list: *mut u64,
    first: usize,
    end: usize,
    bytes: *mut u8,
    used: usize,
}

/// The arguments, the environment, and what room they leave. Errors are those of the
/// kernel, in its order.
pub fn read(argv: usize, envp: usize, name: &[u8]) -> Result<(Strings, Strings, Room), isize> {
    let block = block().ok_or(-ENOMEM)?;
    let (argc, envc) = (count(argv)?, count(envp)?);
    let stack = limits::value(RLIMIT_STACK).map_or(8 << 20, |v| v[0] as usize);
    let limit = (stack / 4).clamp(BYTES_MIN, BYTES_MAX);
    let pointers = (argc.max(1) + envc) * 8;
    let mut room = Room(limit.checked_sub(pointers + 1).ok_or(-E2BIG)?);
    room.take(name.len() + 1)?;
    let mut environment = Strings::at(block + PART_LEN);
    environment.read(envp, envc, &mut room)?;
    let mut arguments = Strings::at(block);
    arguments.read(argv, argc, &mut room)?;
    if argc == 0 {
        // A program has a name.
        arguments.push(b"", &mut room)?;
    }
    Ok((arguments, environment, room))
}

/// The strings are of no more use: their memory goes back.
pub fn release() {
    const MADV_DONTNEED: usize = 4;
    if let Some(block) = block() {
        sys!(MADVISE, block, 2 * PART_LEN, MADV_DONTNEED);
    }
}

/// Where they lie.
fn block() -> Option<usize> {
    static mut BLOCK: usize = 0;
    // SAFETY: under the big lock.
    let block = unsafe { &mut *(&raw mut BLOCK) };
    if *block == 0 {
        *block = engine().arena.alloc(2 * PART_LEN) as usize;
    }
    (*block != 0).then_some(*block)
}

/// Entries of an array that ends in a null pointer. Without an array there are none.
fn count(at: usize) -> Result<usize, isize> {
    if at == 0 {
        return Ok(0);
    }
    for n in 0..=COUNT_MAX {
        match user::read::<usize>(at.wrapping_add(n * 8)) {
            None => return Err(-EFAULT),
            Some(0) => return Ok(n),
            Some(_) => {}
        }
    }
    Err(-E2BIG)
}

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), isize> {
        self.0 = self.0.checked_sub(bytes).ok_or(-E2BIG)?;
        Ok(())
    }
}

impl Strings {
    fn at(part: usize) -> Strings {
        Strings {
            list: part as *mut u64,
            first: BEFORE_MAX,
            end: BEFORE_MAX,
            bytes: (part + LIST_LEN) as *mut u8,
            used: 0,
        }
    }

    fn read(&mut self, array: usize, count: usize, room: &mut Room) -> Result<(), isize> {
        for i in 0..count {
            let Some(p) = user::read::<usize>(array + i * 8) else {
                return Err(-EFAULT);
            };
            // SAFETY: the room that is left of the block: more than the longest string.
            let to =
                unsafe { core::slice::from_raw_parts_mut(self.bytes.add(self.used), STRING_MAX) };
            let n = match user::read_cstr(p, to) {
                Err(e) if e == -ENAMETOOLONG => return Err(-E2BIG),
                n => n?,
            };
            room.take(n + 1)?;
            let at = to.as_ptr() as u64;
            self.used += n + 1;
            self.put(self.end, at);
            self.end += 1;
        }
        Ok(())
    }

    fn push(&mut self, text: &[u8], room: &mut Room) -> Result<(), isize> {
        let at = self.copy(text, room)?;
        self.put(self.end, at);
        self.end += 1;
        Ok(())
    }

    /// One more at the beginning, as a script needs it.
    pub fn push_front(&mut self, text: &[u8], room: &mut Room) -> Result<(), isize> {
        let before = self.first.checked_sub(1).ok_or(-ELOOP)?;
        let at = self.copy(text, room)?;
        self.put(before, at);
        self.first = before;
        Ok(())
    }

    /// A script takes the place of the name that it was called by.
    pub fn drop_front(&mut self) {
        if self.first < self.end {
            self.first += 1;
        }
    }

    fn copy(&mut self, text: &[u8], room: &mut Room) -> Result<u64, isize> {
        room.take(text.len() + 1)?;
        // SAFETY: within the block: the room never exceeds BYTES_MAX.
        unsafe {
            let at = self.bytes.add(self.used);
            core::ptr::copy_nonoverlapping(text.as_ptr(), at, text.len());
            at.add(text.len()).write(0);
            self.used += text.len() + 1;
            Ok(at as u64)
        }
    }

    fn put(&mut self, index: usize, at: u64) {
        debug_assert!(index < COUNT_MAX + BEFORE_MAX);
        // SAFETY: within the list.
        unsafe { self.list.add(index).write(at) };
    }

    /// Addresses of C strings, as the loader takes them.
    pub fn slice(&self) -> Slice {
        Slice {
            // SAFETY: within the list.
            addr: unsafe { self.list.add(self.first) } as u64,
            len: (self.end - self.first) as u64,
        }
    }
}
