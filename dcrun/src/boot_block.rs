//! The boot block: what a fresh worker finds at the start of its arena.
//!
//! ```text
//! ARENA_BASE   BootInfo
//! + TAIL       auxv pairs | argv addresses, 0 | envp addresses, 0 |
//!              16 random bytes | strings, each ended by NUL
//! arena_free   (page aligned) free for the runtime
//! ```
//!
//! It is built once for a run, with the addresses it will have in the worker;
//! a restart only changes fields of [`BootInfo`]. Entries of the auxiliary
//! vector that point to strings of the keeper are pointed to copies in here.

use dc_image::boot::{BootInfo, Slice};
use dc_image::window::{ARENA_BASE, PAGE};

/// Offset of everything behind [`BootInfo`].
pub const TAIL: usize = 1024;
const _: () = assert!(size_of::<BootInfo>() <= TAIL);

const AT_PLATFORM: u64 = 15;
const AT_BASE_PLATFORM: u64 = 24;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;

/// What the program is started with, as bytes without NULs.
pub struct Contents<'a> {
    pub program: &'a [u8],
    /// The file name that was executed: for a script, the script.
    pub executed: &'a [u8],
    pub arguments: &'a [Vec<u8>],
    pub environment: &'a [Vec<u8>],
    pub auxv: &'a [(u64, u64)],
    pub random: [u8; 16],
}

/// Fills the slices of `info`, and returns the bytes that belong at [`TAIL`].
pub fn build(info: &mut BootInfo, contents: &Contents<'_>) -> Vec<u8> {
    let auxv_at = 0;
    let argv_at = auxv_at + contents.auxv.len() * 16;
    let envp_at = argv_at + (contents.arguments.len() + 1) * 8;
    let random_at = envp_at + (contents.environment.len() + 1) * 8;
    let mut strings = Strings {
        start: random_at + 16,
        bytes: Vec::new(),
    };

    let program = strings.add(contents.program);
    let executed = strings.add(contents.executed);
    let platform = strings.add(b"x86_64");
    let mut tail = Vec::with_capacity(strings.start + 4096);
    for &(kind, value) in contents.auxv {
        let value = match kind {
            AT_EXECFN => executed,
            AT_PLATFORM | AT_BASE_PLATFORM => platform,
            AT_RANDOM => address(random_at),
            _ => value,
        };
        tail.extend(kind.to_ne_bytes());
        tail.extend(value.to_ne_bytes());
    }
    for array in [contents.arguments, contents.environment] {
        for string in array {
            tail.extend(strings.add(string).to_ne_bytes());
        }
        tail.extend(0u64.to_ne_bytes());
    }
    tail.extend(contents.random);
    tail.append(&mut strings.bytes);

    let slice = |at, len: usize| Slice {
        addr: address(at),
        len: len as u64,
    };
    info.auxv = slice(auxv_at, contents.auxv.len());
    info.argv = slice(argv_at, contents.arguments.len());
    info.envp = slice(envp_at, contents.environment.len());
    info.program = Slice {
        addr: program,
        len: contents.program.len() as u64,
    };
    info.arena_free = (ARENA_BASE + TAIL + tail.len()).next_multiple_of(PAGE) as u64;
    tail
}

struct Strings {
    start: usize,
    bytes: Vec<u8>,
}

impl Strings {
    /// Appends a string with its NUL; returns its address in the worker.
    fn add(&mut self, string: &[u8]) -> u64 {
        let at = address(self.start + self.bytes.len());
        self.bytes.extend(string);
        self.bytes.push(0);
        at
    }
}

/// Address in the worker of an offset in the tail.
fn address(at: usize) -> u64 {
    (ARENA_BASE + TAIL + at) as u64
}

/// Reads the bytes of /proc/self/auxv up to and including AT_NULL.
pub fn read_auxv(bytes: &[u8]) -> Vec<(u64, u64)> {
    let mut entries = Vec::new();
    for pair in bytes.chunks_exact(16) {
        let (kind, value) = pair.split_at(8);
        let kind = u64::from_ne_bytes(kind.try_into().expect("half of 16 bytes"));
        let value = u64::from_ne_bytes(value.try_into().expect("half of 16 bytes"));
        entries.push((kind, value));
        if kind == 0 {
            break;
        }
    }
    entries
}

/// The areas of the kernel's vDSO in the text of /proc/self/maps: of its data from
/// below, then of its code. Nothing if there are others than we know.
pub fn find_vdso(maps: &str) -> Option<[Slice; 4]> {
    let mut found = [Slice::default(); 4];
    let mut data = 0;
    for line in maps.lines() {
        let at = match line.rsplit(' ').next() {
            Some("[vvar]" | "[vvar_vclock]") => {
                data += 1;
                data - 1
            }
            Some("[vdso]") => found.len() - 1,
            _ => continue,
        };
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        let addr = address(from)?;
        *found[..].get_mut(at).filter(|slice| slice.len == 0)? = Slice {
            addr,
            len: address(to)? - addr,
        };
    }
    (found[3].len > 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::blank_boot_info;

    fn string_at(tail: &[u8], address: u64) -> &[u8] {
        let start = address as usize - ARENA_BASE - TAIL;
        let len = tail[start..].iter().position(|&b| b == 0).unwrap();
        &tail[start..start + len]
    }

    fn word_at(tail: &[u8], address: u64) -> u64 {
        let start = address as usize - ARENA_BASE - TAIL;
        u64::from_ne_bytes(tail[start..start + 8].try_into().unwrap())
    }

    #[test]
    fn every_pointer_leads_into_the_block() {
        let mut info = blank_boot_info();
        let tail = build(
            &mut info,
            &Contents {
                program: b"/bin/true",
                executed: b"./true",
                arguments: &[b"true".to_vec(), b"".to_vec()],
                environment: &[b"A=b".to_vec()],
                auxv: &[(6, 4096), (31, 7), (25, 9), (15, 1), (0, 0)],
                random: [7; 16],
            },
        );
        assert_eq!(string_at(&tail, info.program.addr), b"/bin/true");
        assert_eq!(info.program.len, 9);
        assert_eq!((info.argv.len, info.envp.len, info.auxv.len), (2, 1, 5));
        assert_eq!(string_at(&tail, word_at(&tail, info.argv.addr)), b"true");
        assert_eq!(string_at(&tail, word_at(&tail, info.argv.addr + 8)), b"");
        assert_eq!(word_at(&tail, info.argv.addr + 16), 0);
        assert_eq!(string_at(&tail, word_at(&tail, info.envp.addr)), b"A=b");
        assert_eq!(word_at(&tail, info.auxv.addr + 8), 4096);
        assert_eq!(
            string_at(&tail, word_at(&tail, info.auxv.addr + 24)),
            b"./true"
        );
        let random = word_at(&tail, info.auxv.addr + 40);
        assert_eq!(word_at(&tail, random), u64::from_ne_bytes([7; 8]));
        assert_eq!(
            string_at(&tail, word_at(&tail, info.auxv.addr + 56)),
            b"x86_64"
        );
        assert_eq!(info.arena_free % PAGE as u64, 0);
        assert!(info.arena_free as usize >= ARENA_BASE + TAIL + tail.len());
    }

    #[test]
    fn the_vdso_is_found_with_its_data() {
        let maps = "7ffc0000-7ffd0000 rw-p 00000000 00:00 0    [stack]\n\
                    7ffd1000-7ffd5000 r--p 00000000 00:00 0    [vvar]\n\
                    7ffd5000-7ffd7000 r--p 00000000 00:00 0    [vvar_vclock]\n\
                    7ffd7000-7ffd9000 r-xp 00000000 00:00 0    [vdso]\n";
        let found = find_vdso(maps).unwrap();
        let at = found.map(|slice| (slice.addr, slice.len));
        assert_eq!(at[0], (0x7ffd_1000, 0x4000));
        assert_eq!(at[1], (0x7ffd_5000, 0x2000));
        assert_eq!(at[2], (0, 0));
        assert_eq!(at[3], (0x7ffd_7000, 0x2000));
        assert!(find_vdso("7ffc0000-7ffd0000 rw-p 00000000 00:00 0 [stack]").is_none());
    }

    #[test]
    fn auxv_ends_at_null() {
        let mut bytes = Vec::new();
        for word in [6u64, 4096, 0, 0, 9, 9] {
            bytes.extend(word.to_ne_bytes());
        }
        assert_eq!(read_auxv(&bytes), [(6, 4096), (0, 0)]);
    }
}
