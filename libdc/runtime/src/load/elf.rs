//! ELF: mapping the segments of a program or a dynamic loader.
#![allow(unsafe_code)]

use crate::machine::sys::errno::{ELIBBAD, ENOEXEC};
use crate::machine::sys::failed;
use crate::object::descriptor;
use crate::object::stat::Stat;
use crate::space::{self, MAP_FIXED, MAP_PRIVATE, PROT_WRITE};
use crate::state::{Kind, Vma};
use crate::sys;
use dc_image::window::PAGE;

pub struct Loaded {
    pub entry: usize,
    /// What was added to the addresses of the file.
    pub base: usize,
    pub end: usize,
    pub phdr: usize,
    pub phnum: usize,
    pub interp: [u8; 256],
    pub interp_len: usize,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Phdr {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const MAX_PHDRS: usize = 64;
type Failure = (i32, &'static str);

/// Loads `path` (ending in NUL); position-independent files at `at`.
pub fn load(path: &[u8], at: usize) -> Result<Loaded, Failure> {
    const O_CLOEXEC: usize = 0o2000000;
    let fd = sys!(OPEN, path.as_ptr(), O_CLOEXEC);
    if failed(fd) {
        return Err((if fd == -2 { 127 } else { 126 }, "cannot be opened"));
    }
    crate::commit::fault_point(dc_image::boot::fault::IN_LOAD);
    let r = load_fd(fd as i32, path, at);
    sys!(CLOSE, fd);
    r
}

fn read_at(fd: i32, buf: &mut [u8], at: u64) -> bool {
    let n = sys!(PREAD64, fd, buf.as_mut_ptr(), buf.len(), at);
    crate::object::input::count_read(n);
    n == buf.len() as isize
}

fn u16_at(b: &[u8], i: usize) -> usize {
    u16::from_le_bytes([b[i], b[i + 1]]) as usize
}

fn u64_at(b: &[u8], i: usize) -> u64 {
    u64::from_le_bytes(b[i..i + 8].try_into().unwrap_or([0; 8]))
}

/// An ELF file's header and program headers.
struct Headers {
    kind: usize,
    entry: usize,
    phoff: u64,
    phdrs: [Phdr; MAX_PHDRS],
    phnum: usize,
}

fn headers(fd: i32) -> Result<Headers, Failure> {
    let mut head = [0u8; 64];
    if !read_at(fd, &mut head, 0) || head[..4] != *b"\x7fELF" {
        return Err((126, "is not an ELF file"));
    }
    let (kind, machine) = (u16_at(&head, 16), u16_at(&head, 18));
    if head[4] != 2 || machine != 62 || !(kind == 2 || kind == 3) {
        return Err((126, "is not an x86-64 program"));
    }
    let (phoff, phnum) = (u64_at(&head, 32), u16_at(&head, 56));
    if phnum > MAX_PHDRS || u16_at(&head, 54) != size_of::<Phdr>() {
        return Err((126, "has program headers that make no sense"));
    }
    let mut phdrs = [Phdr::default(); MAX_PHDRS];
    // SAFETY: plain data of exactly that size.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(phdrs.as_mut_ptr().cast::<u8>(), phnum * size_of::<Phdr>())
    };
    if !read_at(fd, bytes, phoff) {
        return Err((126, "is cut off"));
    }
    Ok(Headers {
        kind,
        entry: u64_at(&head, 24) as usize,
        phoff,
        phdrs,
        phnum,
    })
}

/// Whether an exec of this file can be expected to succeed; else the error of execve(2).
pub fn examine(fd: i32) -> Result<(), isize> {
    let head = headers(fd).map_err(|_| -ENOEXEC)?;
    let phdrs = &head.phdrs[..head.phnum];
    if !phdrs.iter().any(|p| p.kind == PT_LOAD && p.memsz > 0) {
        return Err(-ENOEXEC);
    }
    let Some(p) = phdrs.iter().find(|p| p.kind == PT_INTERP) else {
        return Ok(());
    };
    let mut path = [0u8; 256];
    let n = p.filesz as usize;
    if n < 2 || n > path.len() || !read_at(fd, &mut path[..n], p.offset) || path[n - 1] != 0 {
        return Err(-ENOEXEC);
    }
    const X_OK: usize = 1;
    const O_CLOEXEC: usize = 0o2000000;
    let r = sys!(ACCESS, path.as_ptr(), X_OK);
    if failed(r) {
        return Err(r);
    }
    let interp = sys!(OPEN, path.as_ptr(), O_CLOEXEC);
    if failed(interp) {
        return Err(interp);
    }
    let fits = headers(interp as i32).is_ok();
    sys!(CLOSE, interp);
    match fits {
        true => Ok(()),
        false => Err(-ELIBBAD),
    }
}

fn load_fd(fd: i32, path: &[u8], at: usize) -> Result<Loaded, Failure> {
    let head = headers(fd)?;
    let (kind, phoff, phnum) = (head.kind, head.phoff, head.phnum);
    let phdrs = &head.phdrs[..phnum];
    let loads = || phdrs.iter().filter(|p| p.kind == PT_LOAD && p.memsz > 0);
    let low = loads()
        .map(|p| p.vaddr)
        .min()
        .ok_or((126, "has nothing to load"))? as usize
        & !(PAGE - 1);
    let high = loads().map(|p| p.vaddr + p.memsz).max().unwrap_or(0) as usize;
    let align = loads()
        .map(|p| p.align as usize)
        .max()
        .unwrap_or(PAGE)
        .max(PAGE);
    let base = if kind == 3 {
        at.next_multiple_of(align) - (low & !(align - 1))
    } else {
        0
    };
    if !space::allowed(base + low, high - low) {
        return Err((126, "wants addresses that a program cannot have"));
    }
    let mut out = Loaded {
        entry: base + head.entry,
        base,
        end: base + high,
        phdr: 0,
        phnum,
        interp: [0; 256],
        interp_len: 0,
    };
    let file =
        descriptor::new_file(Kind::Regular).ok_or((126, "cannot be entered: too many files"))?;
    let f = descriptor::open_file(file);
    descriptor::set_path(f, &path[..path.len() - 1]);
    if let Ok(st) = Stat::of_fd(fd) {
        (f.dev, f.ino) = (st.dev, st.ino);
    }
    crate::object::regular::note_mapped(file, fd);
    for p in phdrs {
        match p.kind {
            PT_LOAD if p.memsz > 0 => map_segment(fd, file, p, base)?,
            PT_INTERP => {
                let n = p.filesz as usize;
                if n == 0 || n > out.interp.len() || !read_at(fd, &mut out.interp[..n], p.offset) {
                    return Err((126, "names a dynamic loader that makes no sense"));
                }
                out.interp_len = n - 1;
            }
            _ => {}
        }
        if p.kind == PT_LOAD && p.offset <= phoff && phoff < p.offset + p.filesz {
            out.phdr = base + (phoff - p.offset + p.vaddr) as usize;
        }
    }
    descriptor::release(file);
    Ok(out)
}

fn map_segment(fd: i32, file: u32, p: &Phdr, base: usize) -> Result<(), Failure> {
    let start = base + p.vaddr as usize;
    let page = start & !(PAGE - 1);
    let lead = start - page;
    let file_end = start + p.filesz as usize;
    let mem_end = (start + p.memsz as usize).next_multiple_of(PAGE);
    let prot = (p.flags & 4) >> 2 | p.flags & 2 | (p.flags & 1) << 2;
    let mut mapped_end = page;
    if p.filesz > 0 {
        let len = (file_end - page).next_multiple_of(PAGE);
        let r = sys!(
            MMAP,
            page,
            len,
            prot,
            MAP_PRIVATE | MAP_FIXED,
            fd,
            p.offset as usize - lead
        );
        if failed(r) {
            return Err((126, "cannot be mapped"));
        }
        descriptor::hold(file);
        let tracked = prot & PROT_WRITE != 0 && crate::uffd::track(page, page + len);
        space::insert(Vma {
            start: page as u64,
            end: (page + len) as u64,
            prot,
            flags: MAP_PRIVATE,
            file,
            tracked: tracked as u16,
            advice: space::advice::Advice::NONE,
            offset: p.offset - lead as u64,
        });
        mapped_end = page + len;
        if p.memsz > p.filesz && prot & PROT_WRITE != 0 {
            // SAFETY: the rest of the last page is writable memory just mapped.
            unsafe {
                core::ptr::write_bytes(file_end as *mut u8, 0, mapped_end.min(mem_end) - file_end)
            };
        }
    }
    if mem_end > mapped_end
        && failed(space::map_anonymous(
            mapped_end,
            mem_end - mapped_end,
            prot,
            0,
        ))
    {
        return Err((126, "has no room for its data"));
    }
    Ok(())
}
