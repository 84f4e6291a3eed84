//! A reader for the little of ELF64 that a keeper needs: may this file run
//! here at all, and which segments does the runtime consist of.

/// Why a file is not an x86-64 executable.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    NotElf,
    Class(u8),
    Machine(u16),
    Kind(u16),
    Damaged,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unfit::NotElf => {
                f.write_str("it is neither an ELF file nor a script that begins with #!")
            }
            Unfit::Class(1) => f.write_str("it is a 32-bit ELF file; only x86-64 programs run"),
            Unfit::Class(n) => write!(f, "it is an ELF file of the unknown class {n}"),
            Unfit::Machine(n) => {
                let name = match n {
                    3 => "i386",
                    40 => "ARM",
                    183 => "AArch64",
                    243 => "RISC-V",
                    _ => "another machine",
                };
                write!(
                    f,
                    "it is an ELF file for {name} (machine {n}); only x86-64 programs run"
                )
            }
            Unfit::Kind(n) => write!(f, "it is an ELF file, but no executable (type {n})"),
            Unfit::Damaged => f.write_str("its ELF headers contradict themselves or are cut off"),
        }
    }
}

/// A loadable part of an executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub address: u64,
    pub file_len: u64,
    pub memory_len: u64,
    pub readable: bool,
    pub writable: bool,
    pub executable: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Executable {
    pub entry: u64,
    pub segments: Vec<Segment>,
}

const HEADER_LEN: usize = 64;
const PROGRAM_HEADER_LEN: usize = 56;
const PT_LOAD: u32 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;

/// Whether `start`, the first bytes of a file, begins an x86-64 executable.
pub fn check(start: &[u8]) -> Result<(), Unfit> {
    if !start.starts_with(b"\x7fELF") {
        return Err(Unfit::NotElf);
    }
    match start.get(4) {
        Some(2) => {}
        Some(&class) => return Err(Unfit::Class(class)),
        None => return Err(Unfit::Damaged),
    }
    if start.len() < HEADER_LEN || start[5] != 1 {
        return Err(Unfit::Damaged);
    }
    match half(start, 18) {
        Some(EM_X86_64) => {}
        Some(machine) => return Err(Unfit::Machine(machine)),
        None => return Err(Unfit::Damaged),
    }
    match half(start, 16) {
        Some(ET_EXEC | ET_DYN) => Ok(()),
        Some(kind) => Err(Unfit::Kind(kind)),
        None => Err(Unfit::Damaged),
    }
}

/// Entry and segments of a file whose headers lie within `start`.
pub fn parse(start: &[u8]) -> Result<Executable, Unfit> {
    check(start)?;
    let entry = double(start, 24).ok_or(Unfit::Damaged)?;
    let table = double(start, 32).ok_or(Unfit::Damaged)? as usize;
    let entry_len = half(start, 54).ok_or(Unfit::Damaged)? as usize;
    let count = half(start, 56).ok_or(Unfit::Damaged)? as usize;
    if entry_len != PROGRAM_HEADER_LEN {
        return Err(Unfit::Damaged);
    }
    let mut segments = Vec::new();
    for index in 0..count {
        let at = table.checked_add(index * entry_len).ok_or(Unfit::Damaged)?;
        let header = at
            .checked_add(entry_len)
            .and_then(|end| start.get(at..end))
            .ok_or(Unfit::Damaged)?;
        let word = |offset| double(header, offset).ok_or(Unfit::Damaged);
        if full(header, 0) != Some(PT_LOAD) || word(40)? == 0 {
            continue;
        }
        let flags = full(header, 4).ok_or(Unfit::Damaged)?;
        let segment = Segment {
            offset: word(8)?,
            address: word(16)?,
            file_len: word(32)?,
            memory_len: word(40)?,
            readable: flags & 4 != 0,
            writable: flags & 2 != 0,
            executable: flags & 1 != 0,
        };
        let congruent = segment.offset % 4096 == segment.address % 4096;
        if segment.file_len > segment.memory_len || !congruent {
            return Err(Unfit::Damaged);
        }
        segments.push(segment);
    }
    Ok(Executable { entry, segments })
}

/// What stands there, as many bytes; none behind the end.
pub fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}
pub fn half(from: &[u8], at: usize) -> Option<u16> {
    bytes(from, at).map(u16::from_le_bytes)
}
pub fn full(from: &[u8], at: usize) -> Option<u32> {
    bytes(from, at).map(u32::from_le_bytes)
}
pub fn double(from: &[u8], at: usize) -> Option<u64> {
    bytes(from, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u16, machine: u16, programs: &[[u64; 6]]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend(kind.to_le_bytes());
        file.extend(machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(0x2000_0000_1000u64.to_le_bytes());
        file.extend(64u64.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for field in [64, 56, programs.len() as u16, 0, 0, 0] {
            file.extend(field.to_le_bytes());
        }
        for [flags, offset, address, file_len, memory_len, align] in programs {
            file.extend((1u32).to_le_bytes());
            file.extend((*flags as u32).to_le_bytes());
            for field in [offset, address, address, file_len, memory_len, align] {
                file.extend(field.to_le_bytes());
            }
        }
        file
    }

    #[test]
    fn reads_segments() {
        let file = header(2, 62, &[[5, 0x1000, 0x2000_0000_1000, 0x10, 0x2000, 4096]]);
        let read = parse(&file).unwrap();
        assert_eq!(read.entry, 0x2000_0000_1000);
        assert_eq!(read.segments.len(), 1);
        let segment = read.segments[0];
        assert!(segment.readable && segment.executable && !segment.writable);
        assert_eq!((segment.file_len, segment.memory_len), (0x10, 0x2000));
    }

    #[test]
    fn tells_why_a_file_is_unfit() {
        assert_eq!(check(b"hello"), Err(Unfit::NotElf));
        assert_eq!(check(b"\x7fELF\x01\x01"), Err(Unfit::Class(1)));
        assert_eq!(check(&header(2, 183, &[])), Err(Unfit::Machine(183)));
        assert_eq!(check(&header(1, 62, &[])), Err(Unfit::Kind(1)));
        assert_eq!(check(&header(3, 62, &[])[..40]), Err(Unfit::Damaged));
    }

    #[test]
    fn refuses_tables_that_lead_outside() {
        let mut file = header(2, 62, &[[5, 0, 0, 16, 16, 4096]]);
        file[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(parse(&file), Err(Unfit::Damaged));
        let longer_in_file = header(2, 62, &[[5, 0, 0, 32, 16, 4096]]);
        assert_eq!(parse(&longer_in_file), Err(Unfit::Damaged));
    }
}
