//! What an ELF file says of its links: interpreter, libraries, and the functions that it takes
//! from others or, linked statically, has of its own.
//!
//! It is read for people who ask, so a part that contradicts itself is one that says nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::elf::{double, full, half};

const HEADER: usize = 64;
const SECTION: usize = 64;
const PROGRAM: usize = 56;
const SYMBOL: usize = 24;
/// No table of what is asked here is longer.
const LONGEST: u64 = 256 << 20;
const SECTIONS_MAX: usize = 1 << 16;

const PT_INTERP: u32 = 3;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNAMIC: u32 = 6;
const SHT_DYNSYM: u32 = 11;
const DT_NEEDED: u64 = 1;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

#[derive(Debug, Default)]
pub struct Links {
    pub interpreter: Option<String>,
    pub needed: Vec<String>,
    /// Directories to search them in, with `$ORIGIN` in them.
    pub search: Vec<String>,
    pub imported: Vec<String>,
    /// What it has of its own, if that is in it.
    pub defined: Vec<String>,
    pub is_of_go: bool,
    /// It says nothing of its parts.
    pub is_bare: bool,
}

struct Section {
    name: u32,
    kind: u32,
    offset: u64,
    len: u64,
    link: u32,
}

/// Of a file that begins an x86-64 executable or library.
pub fn read(file: &File) -> Links {
    let mut links = Links::default();
    let Some(header) = bytes_at(file, 0, HEADER as u64) else {
        return links;
    };
    links.interpreter = interpreter(file, &header);
    let sections = sections(file, &header);
    links.is_bare = sections.is_empty();
    let names = half(&header, 62).and_then(|at| contents(file, sections.get(usize::from(at))?));
    for section in &sections {
        let name = names
            .as_deref()
            .map_or("", |names| string(names, section.name as usize));
        links.is_of_go |= matches!(name, ".go.buildinfo" | ".note.go.buildid");
        let strings = || contents(file, sections.get(section.link as usize)?);
        let (Some(table), Some(strings)) = (match section.kind {
            SHT_DYNAMIC | SHT_DYNSYM | SHT_SYMTAB => (contents(file, section), strings()),
            _ => (None, None),
        }) else {
            continue;
        };
        match section.kind {
            SHT_DYNAMIC => dynamic(&table, &strings, &mut links),
            SHT_DYNSYM => {
                let all = symbols(&table, &strings);
                links
                    .imported
                    .extend(all.filter(|s| !s.is_defined).map(|s| s.name));
            }
            _ => {
                let all = symbols(&table, &strings);
                links
                    .defined
                    .extend(all.filter(|s| s.is_defined).map(|s| s.name));
            }
        }
    }
    links
}

fn interpreter(file: &File, header: &[u8]) -> Option<String> {
    let (at, count) = (double(header, 32)?, usize::from(half(header, 56)?));
    let table = bytes_at(file, at, (count * PROGRAM) as u64)?;
    let part = table
        .chunks_exact(PROGRAM)
        .find(|part| full(part, 0) == Some(PT_INTERP))?;
    let text = bytes_at(file, double(part, 8)?, double(part, 32)?.min(4096))?;
    Some(string(&text, 0).to_owned())
}

fn sections(file: &File, header: &[u8]) -> Vec<Section> {
    let read = || {
        let (at, count) = (double(header, 40)?, usize::from(half(header, 60)?));
        let fits = at != 0 && count <= SECTIONS_MAX && half(header, 58)? == SECTION as u16;
        fits.then(|| bytes_at(file, at, (count * SECTION) as u64))?
    };
    let table = read().unwrap_or_default();
    let one = |entry: &[u8]| {
        Some(Section {
            name: full(entry, 0)?,
            kind: full(entry, 4)?,
            offset: double(entry, 24)?,
            len: double(entry, 32)?,
            link: full(entry, 40)?,
        })
    };
    table.chunks_exact(SECTION).filter_map(one).collect()
}

fn dynamic(table: &[u8], strings: &[u8], links: &mut Links) {
    for entry in table.chunks_exact(16) {
        let (Some(tag), Some(value)) = (double(entry, 0), double(entry, 8)) else {
            continue;
        };
        let text = || string(strings, value as usize).to_owned();
        match tag {
            DT_NEEDED => links.needed.push(text()),
            DT_RPATH | DT_RUNPATH => links.search.extend(text().split(':').map(str::to_owned)),
            _ => {}
        }
    }
}

struct Symbol {
    name: String,
    is_defined: bool,
}

fn symbols<'a>(table: &'a [u8], strings: &'a [u8]) -> impl Iterator<Item = Symbol> + 'a {
    table.chunks_exact(SYMBOL).filter_map(|entry| {
        let name = string(strings, full(entry, 0)? as usize);
        (!name.is_empty()).then(|| Symbol {
            // (A static one may carry its version.)
            name: name.split('@').next().unwrap_or(name).to_owned(),
            is_defined: half(entry, 6) != Some(0),
        })
    })
}

fn contents(file: &File, section: &Section) -> Option<Vec<u8>> {
    bytes_at(file, section.offset, section.len)
}

/// `None` if they are not all there.
fn bytes_at(file: &File, at: u64, len: u64) -> Option<Vec<u8>> {
    // Before there is room made for it: a damaged length may be any.
    let end = at.checked_add(len)?;
    if len > LONGEST || end > file.metadata().ok()?.len() {
        return None;
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

/// The text that begins there; empty if it is none.
fn string(table: &[u8], at: usize) -> &str {
    let text = table.get(at..).unwrap_or_default();
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_links() {
        let links = read(&File::open("/proc/self/exe").unwrap());
        assert!(links.interpreter.unwrap().contains("ld-linux"));
        assert!(links.needed.iter().any(|name| name.starts_with("libc.so")));
        assert!(
            links.imported.iter().any(|name| name == "waitid"),
            "{:?}",
            links.imported
        );
        assert!(!links.is_of_go && !links.is_bare);
    }

    /// Whatever bytes they are, there is an answer.
    #[test]
    fn damaged_files_say_less() {
        let whole = std::fs::read("/bin/true").unwrap();
        let path = std::env::temp_dir().join(format!("dcrun-links-{}", std::process::id()));
        let mut seed = 1u64;
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..4 {
                seed = seed
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let in_headers = seed >> 40 & 1 == 0;
                let range = if in_headers { 1024 } else { bytes.len() };
                let at = (seed >> 33) as usize % range;
                bytes[at] = (seed >> 20) as u8;
            }
            bytes.truncate((seed >> 8) as usize % (2 * whole.len()));
            std::fs::write(&path, &bytes).unwrap();
            read(&File::open(&path).unwrap());
        }
        std::fs::remove_file(&path).unwrap();
    }
}
