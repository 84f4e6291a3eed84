//! The initial stack, as the kernel would have built it.
//!
//! ```text
//! high   strings: program path, environment, arguments, platform, 16 random bytes
//!        auxiliary vector, AT_NULL
//!        envp[], 0
//!        argv[], 0
//! low    argc                                      <- sp, aligned to 16
//! ```
//! AT_SYSINFO_EHDR shows a vDSO of ours (see [`super::vdso`]).
#![allow(unsafe_code)]

use super::Image;
use super::elf::Loaded;
use crate::engine::engine;
use crate::object::about::Ranges;
use crate::sys;
use dc_image::window::{PAGE, STACK_TOP};

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;
const AT_PLATFORM: u64 = 15;
const AT_BASE_PLATFORM: u64 = 24;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;
const AT_SYSINFO: u64 = 32;
const AT_SYSINFO_EHDR: u64 = 33;

struct Stack {
    sp: usize,
    bottom: usize,
}

impl Stack {
    fn bytes(&mut self, b: &[u8]) -> usize {
        self.sp -= b.len();
        assert!(
            self.sp > self.bottom,
            "arguments and environment are too large"
        );
        // SAFETY: within the stack area just mapped.
        unsafe { core::ptr::copy_nonoverlapping(b.as_ptr(), self.sp as *mut u8, b.len()) };
        self.sp
    }
    fn word(&mut self, w: usize) {
        self.bytes(&w.to_le_bytes());
    }
    /// A C string of the boot block.
    fn string(&mut self, at: usize) -> usize {
        // SAFETY: strings of the boot block end in NUL.
        let b = unsafe { core::ffi::CStr::from_ptr(at as *const core::ffi::c_char) };
        self.bytes(b.to_bytes_with_nul())
    }
}

pub fn build(
    image: &Image,
    main: &Loaded,
    interp_base: usize,
) -> Result<(usize, Ranges), (i32, &'static str)> {
    let boot = engine().boot;
    let len = (boot.stack_limit as usize).clamp(256 << 10, 64 << 20) & !(PAGE - 1);
    let r = crate::space::map_anonymous(
        STACK_TOP - len,
        len,
        3,
        crate::space::MAP_NORESERVE | crate::space::MAP_STACK,
    );
    if crate::machine::sys::failed(r) {
        return Err((126, "has no room for its stack"));
    }
    let mut s = Stack {
        sp: STACK_TOP - 8,
        bottom: STACK_TOP - len,
    };
    let list = |slice: dc_image::boot::Slice| {
        // SAFETY: arrays of the boot block in the arena.
        unsafe { core::slice::from_raw_parts(slice.addr as *const u64, slice.len as usize) }
    };
    let (argv, envp, auxv) = (list(image.argv), list(image.envp), {
        // SAFETY: as above, pairs.
        unsafe {
            core::slice::from_raw_parts(boot.auxv.addr as *const [u64; 2], boot.auxv.len as usize)
        }
    });
    s.bytes(b"\0");
    let execfn = s.bytes(image.name);
    // Addresses of the copied strings, kept in the arena for a moment.
    let e = engine();
    let table = e
        .arena
        .alloc((argv.len() + envp.len() + 1) * 8)
        .cast::<usize>();
    for i in (0..argv.len() + envp.len()).rev() {
        let at = if i < argv.len() {
            argv[i]
        } else {
            envp[i - argv.len()]
        };
        let v = s.string(at as usize);
        // SAFETY: the table has an entry for each.
        unsafe { table.add(i).write(v) };
    }
    let platform = s.bytes(b"x86_64\0");
    s.sp &= !15;
    let mut random = [0u8; 16];
    sys!(GETRANDOM, random.as_mut_ptr(), 16, 0);
    let random = s.bytes(&random);
    let words = 1 + argv.len() + 1 + envp.len() + 1 + (auxv.len() + 8) * 2;
    s.sp &= !15;
    if words % 2 != 0 {
        s.sp -= 8;
    }
    // The auxiliary vector, from its end.
    s.word(0);
    s.word(AT_NULL as usize);
    let mut given = 0;
    let mut put = |s: &mut Stack, k: u64, v: usize| {
        s.word(v);
        s.word(k as usize);
        given += 1;
    };
    if let Some(vdso) = super::vdso::map() {
        put(&mut s, AT_SYSINFO_EHDR, vdso);
    }
    put(&mut s, AT_EXECFN, execfn);
    put(&mut s, AT_RANDOM, random);
    put(&mut s, AT_PLATFORM, platform);
    put(&mut s, AT_ENTRY, main.entry);
    put(&mut s, AT_BASE, interp_base);
    put(&mut s, AT_PHNUM, main.phnum);
    put(&mut s, AT_PHENT, 56);
    put(&mut s, AT_PHDR, main.phdr);
    for &[k, v] in auxv.iter().rev() {
        let ours = [
            AT_NULL,
            AT_PHDR,
            AT_PHENT,
            AT_PHNUM,
            AT_BASE,
            AT_ENTRY,
            AT_PLATFORM,
            AT_BASE_PLATFORM,
            AT_RANDOM,
            AT_EXECFN,
            AT_SYSINFO,
            AT_SYSINFO_EHDR,
        ];
        if !ours.contains(&k) {
            put(&mut s, k, v as usize);
        }
    }
    // The number of entries that were left out decides about the alignment.
    let below = 1 + argv.len() + 1 + envp.len() + 1;
    if !(s.sp - below * 8).is_multiple_of(16) {
        // One more harmless pair would shift by 16; a pad word by 8 must not
        // stand inside the vector, so everything above moves instead.
        let sp = shift(s, argv.len(), envp.len(), table);
        return Ok((sp, ranges(sp, argv.len(), envp.len(), execfn)));
    }
    let sp = finish(s, argv.len(), envp.len(), table);
    Ok((sp, ranges(sp, argv.len(), envp.len(), execfn)))
}

/// Where arguments, environment and the auxiliary vector lie.
fn ranges(sp: usize, argc: usize, envc: usize, execfn: usize) -> Ranges {
    // SAFETY: words of the stack just built.
    let word = |i: usize| unsafe { ((sp + i * 8) as *const u64).read() };
    let first_env = if envc > 0 {
        word(argc + 2)
    } else {
        execfn as u64
    };
    let first_argument = if argc > 0 { word(1) } else { first_env };
    let vector = argc + envc + 3;
    let pairs = (0..).position(|i| word(vector + i * 2) == AT_NULL);
    // What the kernel has room for.
    const MOST: usize = 20 + 2;
    let pairs = pairs.map_or(0, |n| n + 1);
    Ranges {
        code: [0; 2],
        data: [0; 2],
        heap: [0; 2],
        stack: sp as u64,
        arguments: [first_argument, first_env],
        environment: [first_env, execfn as u64],
        auxv: (sp + vector * 8) as u64,
        auxv_len: if pairs <= MOST { pairs as u32 * 16 } else { 0 },
    }
}

fn finish(mut s: Stack, argc: usize, envc: usize, table: *const usize) -> usize {
    s.word(0);
    for i in (0..envc).rev() {
        // SAFETY: filled by `build`.
        s.word(unsafe { table.add(argc + i).read() });
    }
    s.word(0);
    for i in (0..argc).rev() {
        // SAFETY: as above.
        s.word(unsafe { table.add(i).read() });
    }
    s.word(argc);
    s.sp
}

/// Moves the auxiliary vector down by one word, then finishes.
fn shift(mut s: Stack, argc: usize, envc: usize, table: *const usize) -> usize {
    let from = s.sp;
    let to = s.sp - 8;
    // The vector ends at its AT_NULL pair.
    let mut end = from;
    loop {
        // SAFETY: the vector lies on the stack just written.
        let k = unsafe { (end as *const usize).read() };
        end += 16;
        if k == 0 {
            break;
        }
    }
    // SAFETY: both within the stack.
    unsafe { core::ptr::copy(from as *const u8, to as *mut u8, end - from) };
    s.sp = to;
    finish(s, argc, envc, table)
}
