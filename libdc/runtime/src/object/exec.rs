//! execve: another program in the same process.
//!
//! The kernel's execve would take the runtime away with the old program, so it
//! is done here: the program's half is unmapped, what does not outlive an exec
//! is reset (handlers, timers, descriptors marked close-on-exec), and the new
//! program is loaded as the first one was. `#!` scripts are followed as the
//! kernel follows them.
//!
//! survives: like everything else; a commit follows at once
#![allow(unsafe_code)]

use super::descriptor;
use super::process::absolute;
use super::stat::{S_IFMT, S_IFREG, Stat};
use crate::engine::{engine, state};
use crate::machine::frame::{Frame, Local};
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::{boot, fatal, load, signal, space, sys};
use core::sync::atomic::Ordering::*;
use dc_image::FatalCode;
use dc_image::boot::Slice;

const MAX_STRINGS: usize = 4096;
const MAX_BYTES: usize = 2 << 20;
const AT_FDCWD: i32 = -100;

/// Strings on their way from the old program to the new one.
struct Strings {
    list: *mut u64,
    len: usize,
    bytes: *mut u8,
    used: usize,
}

impl Strings {
    fn new() -> Option<Strings> {
        let arena = &mut engine().arena;
        let list = arena.alloc(MAX_STRINGS * 8).cast::<u64>();
        let bytes = arena.alloc(MAX_BYTES);
        (!list.is_null() && !bytes.is_null()).then_some(Strings {
            list,
            len: 0,
            bytes,
            used: 0,
        })
    }

    fn push(&mut self, text: &[u8]) -> Result<(), isize> {
        const E2BIG: isize = 7;
        if self.len == MAX_STRINGS || self.used + text.len() + 1 > MAX_BYTES {
            return Err(-E2BIG);
        }
        // SAFETY: within the block of MAX_BYTES, and the list of MAX_STRINGS.
        unsafe {
            let at = self.bytes.add(self.used);
            core::ptr::copy_nonoverlapping(text.as_ptr(), at, text.len());
            at.add(text.len()).write(0);
            self.list.add(self.len).write(at as u64);
        }
        self.used += text.len() + 1;
        self.len += 1;
        Ok(())
    }

    /// An array of the program, ending in a null pointer.
    fn push_array(&mut self, mut at: usize) -> Result<(), isize> {
        let mut text = [0u8; 4096];
        while at != 0 {
            let Some(p) = user::read::<usize>(at) else {
                return Err(-EFAULT);
            };
            if p == 0 {
                break;
            }
            match user::read_cstr(p, &mut text) {
                Ok(n) => self.push(&text[..n])?,
                Err(e) if e == -ENAMETOOLONG => self.push_long(p)?,
                Err(e) => return Err(e),
            }
            at += 8;
        }
        Ok(())
    }

    /// A string longer than a page, read straight into its place.
    fn push_long(&mut self, p: usize) -> Result<(), isize> {
        // SAFETY: the rest of the block.
        let room = unsafe {
            core::slice::from_raw_parts_mut(self.bytes.add(self.used), MAX_BYTES - self.used)
        };
        let n = user::read_cstr(p, room)?;
        let at = room.as_ptr() as u64;
        if self.len == MAX_STRINGS {
            return Err(-7);
        }
        // SAFETY: within the list.
        unsafe { self.list.add(self.len).write(at) };
        self.len += 1;
        self.used += n + 1;
        Ok(())
    }

    fn slice(&self) -> Slice {
        Slice {
            addr: self.list as u64,
            len: self.len as u64,
        }
    }
}

pub fn execve(l: &mut Local, a: [usize; 6]) -> isize {
    let _guard = engine().lock.acquire(l);
    if engine().thread_count.load(Relaxed) > 1 {
        crate::say!("execve with several threads is not supported yet");
        return -ENOSYS;
    }
    match prepare(a) {
        Ok((path, argv, envp)) => replace(l, &path, &argv, &envp),
        Err(e) => e,
    }
}

type Prepared = ([u8; 4096], Strings, Strings);

/// Everything that can fail while the old program is still there.
fn prepare(a: [usize; 6]) -> Result<Prepared, isize> {
    let mut path = [0u8; 4096];
    let mut n = absolute(AT_FDCWD, a[0], &mut path)?;
    let (Some(mut given), Some(mut argv), Some(mut envp)) =
        (Strings::new(), Strings::new(), Strings::new())
    else {
        return Err(-ENOMEM);
    };
    given.push_array(a[1])?;
    envp.push_array(a[2])?;
    // `#!`: the interpreter and its argument come before the script's name.
    let mut before: [([u8; 256], usize); 8] = [([0; 256], 0); 8];
    let mut before_len = 0;
    let mut script = [0u8; 4096];
    let mut script_len = 0;
    for _ in 0..5 {
        let mut head = [0u8; 256];
        let got = check(&path, &mut head)?;
        if head[..2] != *b"#!" {
            if got < 20 || head[..4] != *b"\x7fELF" || head[4] != 2 || head[18] != 62 {
                return Err(-ENOEXEC);
            }
            break;
        }
        if script_len == 0 {
            // The name as it was given.
            script_len = user::read_cstr(a[0], &mut script)?;
        }
        let line = head[2..got].split(|&b| b == b'\n').next().unwrap_or(&[]);
        let line = line.trim_ascii();
        let end = line
            .iter()
            .position(|b| b.is_ascii_whitespace())
            .unwrap_or(line.len());
        let (interp, arg) = (&line[..end], line[end..].trim_ascii());
        if interp.is_empty() || before_len + 2 > before.len() {
            return Err(-ENOEXEC);
        }
        // Later interpreters come first.
        let added = 1 + (!arg.is_empty()) as usize;
        before.copy_within(0..before_len, added);
        for (i, text) in [interp, arg].into_iter().take(added).enumerate() {
            before[i].0[..text.len()].copy_from_slice(text);
            before[i].1 = text.len();
        }
        before_len += added;
        path = [0; 4096];
        path[..interp.len()].copy_from_slice(interp);
        n = interp.len();
    }
    let mut skip = 0;
    if script_len > 0 {
        for (text, len) in &before[..before_len] {
            argv.push(&text[..*len])?;
        }
        argv.push(&script[..script_len])?;
        skip = 1;
    }
    for i in skip..given.len {
        // SAFETY: filled above; strings end in NUL.
        let text = unsafe {
            core::ffi::CStr::from_ptr(given.list.add(i).read() as *const core::ffi::c_char)
        };
        argv.push(text.to_bytes())?;
    }
    path[n] = 0;
    Ok((path, argv, envp))
}

/// Whether a file may be executed; its first bytes.
fn check(path: &[u8; 4096], head: &mut [u8; 256]) -> Result<usize, isize> {
    const X_OK: usize = 1;
    let r = sys!(ACCESS, path.as_ptr(), X_OK);
    if failed(r) {
        return Err(r);
    }
    let fd = sys!(OPEN, path.as_ptr(), descriptor::O_CLOEXEC);
    if failed(fd) {
        return Err(fd);
    }
    let st = Stat::of_fd(fd as i32);
    let n = sys!(READ, fd, head.as_mut_ptr(), head.len());
    super::input::count_read(n);
    sys!(CLOSE, fd);
    const SET_ID: u32 = 0o6000;
    match st {
        Ok(st) if st.mode & S_IFMT != S_IFREG || st.mode & SET_ID != 0 => Err(-EACCES),
        _ if n < 0 => Err(n),
        _ => Ok(n as usize),
    }
}

/// The point of no return.
fn replace(l: &mut Local, path: &[u8; 4096], argv: &Strings, envp: &Strings) -> isize {
    crate::run::birth::leave_memory();
    reset_thread(l);
    reset_signals();
    super::timers::delete_all();
    for fd in 0..state().root.fd_high as i32 {
        if descriptor::known_file(fd).is_some() && state().fds[fd as usize].cloexec != 0 {
            descriptor::close_locked(l, fd);
        }
    }
    crate::sysv::leave_memory();
    while state().root.vma_count > 0 {
        let v = crate::space::areas()[0];
        super::memfd::before_unmap(v.start as usize, v.end as usize);
        sys!(MUNMAP, v.start, v.end - v.start);
        space::remove(v.start, v.end);
    }
    let e = engine();
    e.stubs = crate::patch::StubPools::new();
    let root = &mut state().root;
    root.at_recovery = [0; 2];
    root.recovery_return = 0;
    let n = path.iter().position(|&b| b == 0).unwrap_or(0);
    let copy = e.arena.alloc(4096);
    // SAFETY: a page of the arena.
    unsafe { core::ptr::copy_nonoverlapping(path.as_ptr(), copy, n + 1) };
    e.boot.program = Slice {
        addr: copy as u64,
        len: n as u64,
    };
    e.boot.argv = argv.slice();
    e.boot.envp = envp.slice();
    match load::program() {
        Ok((rip, sp)) => {
            l.frame = Frame::ZERO;
            l.frame.rip = rip;
            l.frame.rsp = sp;
            l.frame.nr = usize::MAX;
        }
        Err((_, why)) => fatal::stop(
            FatalCode::CannotLoad,
            0,
            format_args!("execve: the program file {why}"),
        ),
    }
    boot::set_name();
    boot::initial_vectors(l);
    const ARCH_SET_FS: usize = 0x1002;
    sys!(ARCH_PRCTL, ARCH_SET_FS, 0);
    crate::run::birth::release_parent();
    crate::event::non_deterministic(l);
    // In a run of several, what it has been is of no use to anybody: the next commit
    // begins with what it is.
    l.commit_after = !crate::run::is_tree();
    0
}

/// What the kernel knows of this thread's memory.
fn reset_thread(l: &mut Local) {
    let record = &mut state().threads[l.slot as usize];
    let rseq = record.rseq;
    if rseq[0] != 0 {
        sys!(RSEQ, rseq[0], rseq[1], 1, rseq[2]);
    }
    sys!(SET_ROBUST_LIST, 0, 24);
    record.rseq = [0; 3];
    record.robust_list = [0; 2];
    record.clear_tid = 0;
    record.altstack = [0, 2, 0];
    record.name = [0; 16];
}

/// Handlers go, what is ignored stays ignored.
fn reset_signals() {
    for sig in 1..=64 {
        let act = &mut state().root.actions[sig as usize];
        let ignored = act.handler == signal::SIG_IGN;
        *act = crate::state::SigAction::default();
        if ignored {
            act.handler = signal::SIG_IGN;
        }
        let act = *act;
        if signal::RESERVED & signal::bit(sig) == 0 && !ignored {
            signal::calls::install_for(sig, &act);
        }
    }
}
