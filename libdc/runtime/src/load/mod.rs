//! Loading a program, as execve would.
#![allow(unsafe_code)]

pub mod elf;
pub mod stack;
pub mod vdso;

use crate::engine::{engine, state};
use crate::object::about::{self, Ranges};
use dc_image::boot::Slice;
use dc_image::window;

/// A program and what it is given.
pub struct Image<'a> {
    /// The file, absolute, ending in NUL.
    pub path: &'a [u8],
    /// The name that it was called by.
    pub name: &'a [u8],
    /// Addresses of C strings.
    pub argv: Slice,
    pub envp: Slice,
}

/// Loads the program of the boot block; returns its entry and stack pointer.
pub fn first_program() -> Result<(usize, usize), (i32, &'static str)> {
    let boot = engine().boot;
    // SAFETY: the boot block lies in the arena and ends in NUL.
    let path = unsafe {
        core::slice::from_raw_parts(
            boot.program.addr as *const u8,
            boot.program.len as usize + 1,
        )
    };
    program(&Image {
        path,
        name: &path[..path.len() - 1],
        argv: boot.argv,
        envp: boot.envp,
    })
}

/// Loads a program; returns its entry and stack pointer.
pub fn program(image: &Image) -> Result<(usize, usize), (i32, &'static str)> {
    let path = image.path;
    let root = &mut state().root;
    // (It ends in NUL; whatever is behind that says nothing.)
    root.exe[..path.len()].copy_from_slice(path);
    about::tell_file();
    let main = elf::load(path, window::PIE_BASE)?;
    let mut entry = main.entry;
    let mut base = 0;
    if main.interp_len > 0 {
        let at = crate::space::find_free(4 << 20, window::MMAP_TOP as u64, window::USER_MIN as u64)
            .ok_or((126, "no room for the dynamic loader"))?;
        let interp = elf::load(&main.interp[..main.interp_len + 1], at as usize)?;
        entry = interp.entry;
        base = interp.base;
    }
    root.brk_start = main.end.next_multiple_of(window::PAGE) as u64;
    root.brk_now = root.brk_start;
    let (sp, strings) = stack::build(image, &main, base)?;
    let root = &mut state().root;
    root.ranges = Ranges {
        code: [main.base.max(window::USER_MIN) as u64, main.end as u64],
        data: [main.end as u64; 2],
        // So the kernel knows the heap when there is one.
        heap: [root.brk_start, root.brk_start + 1],
        stack: sp as u64,
        ..strings
    };
    about::tell_ranges();
    Ok((entry, sp))
}
