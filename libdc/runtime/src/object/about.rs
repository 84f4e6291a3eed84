//! What /proc says of the process itself: its program, its arguments.
//!
//! A worker is a copy of the keeper, and the kernel would tell of that. So the kernel is
//! told what the program is: the range of its arguments and environment, its stack and its
//! heap by anybody (PR_SET_MM_MAP), the program file by those who may (CAP_SYS_ADMIN or
//! CAP_CHECKPOINT_RESTORE). Then all that is in /proc is right by whatever call it is read.
//! Where the kernel does not take the file, the calls that name it by a path of /proc are
//! answered from the state. The number of a process in such a path is the program's.
//!
//! state:     [`Ranges`], and the path of the program file
//! restore:   told again, the file before memory is mapped
//! survives:  warm and cold
#![allow(unsafe_code)]

use super::undo::place::AT_FDCWD;
use crate::engine::{MAX_THREADS, engine, state};
use crate::fatal::Text;
use crate::machine::frame::Local;
use crate::machine::sys::{errno::*, failed};
use crate::machine::{nr, user};
use crate::sys;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering::*};
use dc_image::window;

/// `struct prctl_mm_map` without its last two fields.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ranges {
    pub code: [u64; 2],
    pub data: [u64; 2],
    pub heap: [u64; 2],
    pub stack: u64,
    pub arguments: [u64; 2],
    pub environment: [u64; 2],
    pub auxv: u64,
    pub auxv_len: u32,
}

const PR_SET_MM: usize = 35;
const PR_SET_MM_MAP: usize = 14;
const NO_FILE: u32 = u32::MAX;

/// The kernel has another file for this process's program than the program's.
static ANOTHER: AtomicBool = AtomicBool::new(true);

/// Tells the kernel which file the program is. Nothing of it may be mapped yet.
pub fn tell_file() {
    const O_CLOEXEC: usize = 0o2000000;
    let fd = sys!(OPEN, state().root.exe.as_ptr(), O_CLOEXEC);
    if failed(fd) {
        return ANOTHER.store(true, Relaxed);
    }
    // Ranges that the kernel takes; the right ones come when they are known.
    let some = [window::USER_MIN as u64; 2];
    let ranges = Ranges {
        code: [some[0], some[0] + 1],
        data: some,
        heap: some,
        stack: some[0],
        arguments: some,
        environment: some,
        auxv: 0,
        auxv_len: 0,
    };
    ANOTHER.store(failed(tell(&ranges, fd as u32)), Relaxed);
    sys!(CLOSE, fd);
}

/// Tells the kernel of the ranges in the state.
pub fn tell_ranges() {
    let ranges = state().root.ranges;
    if ranges.stack != 0 {
        tell(&ranges, NO_FILE);
    }
}

fn tell(r: &Ranges, file: u32) -> isize {
    let words: [u64; 13] = [
        r.code[0],
        r.code[1],
        r.data[0],
        r.data[1],
        r.heap[0],
        r.heap[1],
        r.stack,
        r.arguments[0],
        r.arguments[1],
        r.environment[0],
        r.environment[1],
        r.auxv,
        u64::from(r.auxv_len) | u64::from(file) << 32,
    ];
    let len = size_of_val(&words);
    sys!(PRCTL, PR_SET_MM, PR_SET_MM_MAP, words.as_ptr(), len, 0)
}

/// What a path of the program means.
enum Meant {
    /// The program file of this process, where the kernel would give another one.
    Program,
    /// Another path: the number of a process is not the kernel's.
    Path(Text<128>),
}

const PROC: &[u8; 6] = b"/proc/";

fn meant(dir: i32, at: usize) -> Option<Meant> {
    meant_if(dir, at, ANOTHER.load(Relaxed))
}

/// The same; the program file is told if `asked`.
fn meant_if(dir: i32, at: usize, asked: bool) -> Option<Meant> {
    let absolute = user::read::<[u8; 6]>(at).as_ref() == Some(PROC);
    if !absolute && (dir == AT_FDCWD || !asked) {
        return None;
    }
    let mut text = [0u8; 128];
    let n = user::read_cstr(at, &mut text).ok()?;
    meant_by(dir, &text[..n], asked)
}

fn meant_by(dir: i32, text: &[u8], asked: bool) -> Option<Meant> {
    let absolute = text.starts_with(PROC);
    let mut path = Text::<128>::new();
    if !absolute {
        if !text.ends_with(b"exe") || text[0] == b'/' || dir == AT_FDCWD {
            return None;
        }
        let mut of_dir = [0u8; 100];
        let len = super::process::fd_path(dir, &mut of_dir);
        path.append(&of_dir[..len]);
        path.append(b"/");
    }
    path.append(text);
    let rest = path.as_bytes().strip_prefix(PROC)?;
    let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
    let (who, rest) = rest.split_at(end);
    let number = number(who);
    let own = number.is_none_or(is_own) && (number.is_some() || is_self(who));
    if own && asked && is_program(rest) {
        return Some(Meant::Program);
    }
    if !text.starts_with(PROC) {
        return None;
    }
    kernels(path.as_bytes()).map(Meant::Path)
}

/// A path of a process's folder as the kernel has it, ending in NUL; none if that is the same.
pub fn kernels(path: &[u8]) -> Option<Text<128>> {
    let process = |number| match is_own(number) {
        true if number == state().root.pid => engine().pid,
        true => crate::thread::real_tid(number),
        false => crate::run::real_id(number),
    };
    let mut path = renumbered(path, process, crate::thread::real_tid)?;
    path.append(b"\0");
    Some(path)
}

/// A path of a process's folder as the program has it, of one that the kernel shows; none if
/// that is the same.
pub fn as_known(path: &[u8]) -> Option<Text<128>> {
    renumbered(path, crate::run::known_id, crate::thread::known_tid)
}

/// A path of a process's folder with other numbers of the process and of the thread.
fn renumbered(
    path: &[u8],
    process: impl Fn(i32) -> i32,
    thread: impl Fn(i32) -> i32,
) -> Option<Text<128>> {
    let rest = path.strip_prefix(PROC)?;
    let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
    let (who, rest) = rest.split_at(end);
    let old = number(who);
    let new = old.map(process);
    let task = thread_in(rest).map(|(number, behind)| (thread(number), behind));
    if new == old && task.map(|t| t.0) == thread_in(rest).map(|t| t.0) {
        return None;
    }
    let mut path = Text::new();
    path.append(PROC);
    let _ = match new {
        Some(new) => write!(path, "{new}"),
        None => path.write_str(core::str::from_utf8(who).unwrap_or("self")),
    };
    match task {
        Some((task, behind)) => {
            let _ = write!(path, "/task/{task}");
            path.append(behind);
        }
        None => path.append(rest),
    }
    Some(path)
}

/// Whether a path leads into the folder of a thread, by its number.
pub fn names_thread(path: &[u8]) -> bool {
    let rest = path.strip_prefix(PROC).unwrap_or_default();
    let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
    thread_in(&rest[end..]).is_some()
}

/// The thread that the rest of a path names, and what follows.
fn thread_in(rest: &[u8]) -> Option<(i32, &[u8])> {
    let task = rest.strip_prefix(b"/task/")?;
    let end = task.iter().position(|&b| b == b'/').unwrap_or(task.len());
    Some((number(&task[..end])?, &task[end..]))
}

fn is_self(who: &[u8]) -> bool {
    who == b"self" || who == b"thread-self"
}

/// The number of a thread of this process, as the program knows it.
fn is_own(number: i32) -> bool {
    let s = state();
    number == s.root.pid
        || (0..MAX_THREADS.min(engine().thread_high))
            .any(|slot| s.threads[slot].used != 0 && s.threads[slot].tid == number)
}

fn is_program(rest: &[u8]) -> bool {
    thread_in(rest).map_or(rest, |(_, behind)| behind) == b"/exe"
}

fn number(text: &[u8]) -> Option<i32> {
    let digits = !text.is_empty() && text.len() < 10 && text.iter().all(u8::is_ascii_digit);
    digits.then(|| {
        text.iter()
            .fold(0, |value, digit| value * 10 + i32::from(digit - b'0'))
    })
}

/// A path for the kernel, in the place of the program's.
pub struct Path {
    at: usize,
    text: Text<128>,
}

impl Path {
    /// Of a call that follows a link at the end.
    pub fn followed(dir: i32, at: usize) -> Path {
        Path::of(at, meant(dir, at))
    }

    /// The program's as it is.
    pub fn given(at: usize) -> Path {
        Path::of(at, None)
    }

    /// Of an open. A recovery opens it again before the kernel is told of the program, so
    /// that is by its own name.
    pub fn opened(dir: i32, at: usize, follows: bool) -> Path {
        Path::of(at, meant_if(dir, at, follows))
    }

    /// Of the runtime's own copy of a path, ending in NUL.
    pub fn copied(dir: i32, path: &[u8; 4096], follows: bool) -> Path {
        let n = path.iter().position(|&b| b == 0).unwrap_or(0);
        let short = if n < 128 { &path[..n] } else { &[] };
        let meant = meant_by(dir, short, follows && ANOTHER.load(Relaxed));
        Path::of(path.as_ptr() as usize, meant)
    }

    /// What stands in the place of the program's, ending in NUL.
    pub fn own(&self, given: usize) -> Option<&[u8]> {
        match self.text.as_bytes() {
            [] if self.at == given => None,
            [] => {
                let exe = &state().root.exe;
                let n = exe.iter().position(|&b| b == 0)?;
                Some(&exe[..=n])
            }
            text => Some(text),
        }
    }

    fn of(at: usize, meant: Option<Meant>) -> Path {
        let (at, text) = match meant {
            Some(Meant::Program) => (state().root.exe.as_ptr() as usize, Text::new()),
            Some(Meant::Path(text)) => (at, text),
            None => (at, Text::new()),
        };
        Path { at, text }
    }

    /// Of a call about the link itself.
    pub fn not_followed(dir: i32, at: usize) -> Path {
        let text = match meant_if(dir, at, false) {
            Some(Meant::Path(text)) => text,
            _ => Text::new(),
        };
        Path { at, text }
    }

    /// Where it lies; as long as this value lives.
    pub fn address(&self) -> usize {
        match self.text.as_bytes() {
            [] => self.at,
            text => text.as_ptr() as usize,
        }
    }
}

/// readlink(2), readlinkat(2).
pub fn readlink(l: &mut Local, mut a: [usize; 6]) -> isize {
    let with_dir = l.frame.nr == nr::READLINKAT;
    let (dir, i) = match with_dir {
        true => (a[0] as i32, 1),
        false => (AT_FDCWD, 0),
    };
    let [at, to, len] = [a[i], a[i + 1], a[i + 2]];
    if let Some(Meant::Program) = meant(dir, at) {
        if len as i32 <= 0 {
            return -EINVAL;
        }
        let exe = &state().root.exe;
        let n = exe.iter().position(|&c| c == 0).unwrap_or(0).min(len);
        return match user::write_bytes(to, &exe[..n]) {
            true => n as isize,
            false => -EFAULT,
        };
    }
    let path = Path::not_followed(dir, at);
    a[i] = path.address();
    // SAFETY: the program's own call with its own arguments, or a path of ours.
    unsafe { crate::machine::sys::raw6(l.frame.nr, a) }
}

/// access(2), faccessat(2), faccessat2(2).
pub fn access(l: &mut Local, mut a: [usize; 6]) -> isize {
    let (dir, i) = match l.frame.nr {
        nr::ACCESS => (AT_FDCWD, 0),
        _ => (a[0] as i32, 1),
    };
    let path = Path::followed(dir, a[i]);
    a[i] = path.address();
    // SAFETY: as above.
    unsafe { crate::machine::sys::raw6(l.frame.nr, a) }
}
