//! Which file an exec means, and whether it may be executed: through `#!` to the program,
//! with the errors that the kernel gives, all before the old program is touched.
#![allow(unsafe_code)]

use super::strings::{Room, Strings};
use crate::engine::state;
use crate::fatal::Text;
use crate::load::elf;
use crate::machine::sys::{errno::*, failed};
use crate::machine::user;
use crate::object::descriptor::{self, O_CLOEXEC};
use crate::object::process::fd_path;
use crate::object::stat::{S_IFMT, S_IFREG, Stat};
use crate::object::undo::place::AT_FDCWD;
use crate::object::{about, identity};
use crate::{proc, sys};
use core::ffi::CStr;
use core::fmt::Write;

pub const AT_SYMLINK_NOFOLLOW: usize = 0x100;
pub const AT_EMPTY_PATH: usize = 0x1000;
pub const AT_EXECVE_CHECK: usize = 0x1_0000;
/// So many scripts may call each other.
const SCRIPTS_MAX: usize = 5;
/// What the kernel reads of a file to know its format.
const HEAD: usize = 256;

/// What the caller named.
pub struct Named {
    pub dir: i32,
    pub flags: usize,
    /// As it was given, ending in NUL.
    pub path: [u8; 4096],
    pub len: usize,
}

/// The program that is to be loaded.
pub struct Program {
    /// Absolute, through all links, ending in NUL.
    pub path: [u8; 4096],
    pub len: usize,
    /// The name by which it (or the first script) was called: AT_EXECFN, and the name of
    /// the process is its last part.
    pub name: [u8; 4096],
    pub name_len: usize,
    /// Why only the kernel's own execve can start it: it runs beside the run.
    pub stranger: Option<&'static str>,
}

/// A file that may be executed.
pub struct File {
    fd: i32,
    head: [u8; HEAD],
    got: usize,
    is_readable: bool,
}

impl Drop for File {
    fn drop(&mut self) {
        sys!(CLOSE, self.fd);
    }
}

impl Named {
    pub fn new(dir: i32, at: usize, flags: usize) -> Result<Named, isize> {
        if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
            return Err(-EINVAL);
        }
        let mut named = Named {
            dir,
            flags,
            path: [0; 4096],
            len: 0,
        };
        named.len = user::read_cstr(at, &mut named.path)?;
        if named.len == 0 && flags & AT_EMPTY_PATH == 0 {
            return Err(-ENOENT);
        }
        Ok(named)
    }

    /// The file; the kernel opens it before it reads the arguments.
    pub fn open(&self) -> Result<File, isize> {
        open(self.dir, &self.path, self.flags)
    }

    fn absolute(&self) -> bool {
        self.path[0] == b'/' || self.dir == AT_FDCWD
    }

    /// What the new program is told of its name.
    fn told(&self, program: &mut Program) {
        let mut text = Text::<4095>::new();
        if !self.absolute() {
            let _ = write!(text, "/dev/fd/{}", self.dir);
            if self.len > 0 {
                text.append(b"/");
            }
        }
        text.append(&self.path[..self.len]);
        let name = text.as_bytes();
        program.name[..name.len()].copy_from_slice(name);
        program.name_len = name.len();
    }

    /// Whether the new program could not open what it is named: a script that is read
    /// from a descriptor which the exec closes.
    fn is_out_of_reach(&self) -> bool {
        !self.absolute()
            && descriptor::known_file(self.dir).is_some()
            && state().fds[self.dir as usize].cloexec != 0
    }
}

impl Program {
    pub fn named(named: &Named) -> Program {
        let mut program = Program {
            path: [0; 4096],
            len: 0,
            name: [0; 4096],
            name_len: 0,
            stranger: None,
        };
        named.told(&mut program);
        program
    }

    /// Ending in NUL.
    pub fn path(&self) -> &[u8] {
        &self.path[..self.len + 1]
    }

    /// Without its end.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.name_len]
    }

    /// Whether its path is still that of an open file.
    fn leads_to(&self, fd: i32) -> bool {
        let place = |st: Stat| (st.dev, st.ino);
        let named = CStr::from_bytes_until_nul(self.path());
        let there = named.map_err(|_| -EINVAL).and_then(Stat::of_path);
        there.map(place) == Stat::of_fd(fd).map(place)
    }

    /// Says what is to run beside the run.
    pub fn is_beside_the_run(&self, why: &str) {
        let name = core::str::from_utf8(self.name()).unwrap_or("?");
        crate::say!("{name} runs beside the run, and what it does is not undone: {why}");
    }

    /// Follows the name to the program; scripts change the arguments.
    pub fn find(
        &mut self,
        named: &Named,
        mut file: File,
        arguments: &mut Strings,
        room: &mut Room,
    ) -> Result<(), isize> {
        // The name that the next interpreter gets as its argument.
        let mut called = [0u8; HEAD];
        let mut called_len = 0;
        for depth in 0.. {
            if depth > SCRIPTS_MAX {
                return Err(-ELOOP);
            }
            if !file.head.starts_with(b"#!") {
                break;
            }
            if depth == 0 && named.is_out_of_reach() {
                return Err(-ENOENT);
            }
            let (name, argument) = interpreter(&file.head, file.got)?;
            let mut path = [0u8; 4096];
            path[..name.len()].copy_from_slice(name);
            arguments.drop_front();
            match called_len {
                0 => arguments.push_front(&self.name[..self.name_len], room)?,
                n => arguments.push_front(&called[..n], room)?,
            }
            if !argument.is_empty() {
                arguments.push_front(argument, room)?;
            }
            arguments.push_front(name, room)?;
            (called, called_len) = ([0; HEAD], name.len());
            called[..called_len].copy_from_slice(&path[..called_len]);
            file = open(AT_FDCWD, &path, 0)?;
        }
        self.stranger = needs_the_kernel(&file);
        if self.stranger.is_some() {
            return Ok(());
        }
        elf::examine(file.fd)?;
        self.len = fd_path(file.fd, &mut self.path[..4095]);
        if self.len == 0 {
            return Err(-ENOENT);
        }
        // (An overlay counts the names of a file that has none any more.)
        if !self.leads_to(file.fd) {
            self.stranger = Some(NAMELESS);
        }
        Ok(())
    }
}

const NAMELESS: &str = "a recovery could not load it again, for its file has no name";

/// Why a program cannot be loaded here.
fn needs_the_kernel(file: &File) -> Option<&'static str> {
    const UNREADABLE: &str = "its file may be executed and not be read";
    const OF_ANOTHER_MACHINE: &str = "it is no x86-64 program";
    if !file.is_readable {
        return Some(UNREADABLE);
    }
    let foreign = file.head[4] != 2 || file.head[18..20] != [62, 0];
    if file.head.starts_with(b"\x7fELF") && foreign {
        return Some(OF_ANOTHER_MACHINE);
    }
    gives_rights(file.fd).or_else(|| {
        let is_nameless = Stat::of_fd(file.fd).is_ok_and(|st| st.nlink == 0);
        is_nameless.then_some(NAMELESS)
    })
}

/// Opens a file that may be executed, and reads its beginning if it may be read.
fn open(dir: i32, path: &[u8; 4096], flags: usize) -> Result<File, isize> {
    const O_PATH: usize = 0o10000000;
    const O_NOFOLLOW: usize = 0o400000;
    let empty = path[0] == 0;
    let seen = if empty {
        const F_DUPFD_CLOEXEC: usize = 1030;
        sys!(FCNTL, dir, F_DUPFD_CLOEXEC, 0)
    } else {
        let follow = match flags & AT_SYMLINK_NOFOLLOW {
            0 => 0,
            _ => O_NOFOLLOW,
        };
        let path = about::Path::copied(dir, path, follow == 0);
        sys!(OPENAT, dir, path.address(), O_PATH | O_CLOEXEC | follow, 0)
    };
    if failed(seen) {
        return Err(seen);
    }
    let seen = File {
        fd: seen as i32,
        head: [0; HEAD],
        got: 0,
        is_readable: false,
    };
    const S_IFLNK: u32 = 0o120000;
    match Stat::of_fd(seen.fd) {
        Ok(st) if st.mode & S_IFMT == S_IFLNK => return Err(-ELOOP),
        Ok(st) if st.mode & S_IFMT != S_IFREG => return Err(-EACCES),
        Ok(_) => {}
        Err(e) => return Err(e),
    }
    may_execute(seen.fd)?;
    let mut link = Text::<40>::new();
    let _ = write!(link, "/proc/self/fd/{}\0", seen.fd);
    let fd = identity::as_after_exec(|| proc::open(link.as_bytes(), O_CLOEXEC));
    if fd == -EACCES {
        return Ok(seen);
    }
    if failed(fd) {
        return Err(fd);
    }
    let mut file = File {
        fd: fd as i32,
        head: [0; HEAD],
        got: 0,
        is_readable: true,
    };
    let n = sys!(PREAD64, fd, file.head.as_mut_ptr(), HEAD, 0);
    crate::object::input::count_read(n);
    if failed(n) {
        return Err(n);
    }
    file.got = n as usize;
    Ok(file)
}

/// Whether the kernel would give the new program rights that the old one does not have, and
/// by what.
fn gives_rights(fd: i32) -> Option<&'static str> {
    const S_ISUID: u32 = 0o4000;
    const S_ISGID_AND_GROUP_EXECUTES: u32 = 0o2010;
    const ST_NOSUID: u64 = 2;
    let st = Stat::of_fd(fd).ok()?;
    // `struct statfs`: f_flags is the eleventh word.
    let mut about = [0u64; 15];
    let by_mount = failed(sys!(FSTATFS, fd, about.as_mut_ptr())) || about[10] & ST_NOSUID == 0;
    if !by_mount || identity::has_no_new_privs() {
        return None;
    }
    if identity::regains_by_exec() {
        return Some("only the kernel gives root its capabilities back");
    }
    let [ruid, euid] = [sys!(GETUID), sys!(GETEUID)].map(|id| id as u32);
    let [rgid, egid] = [sys!(GETGID), sys!(GETEGID)].map(|id| id as u32);
    if st.mode & S_ISUID != 0 && [ruid, euid] != [st.uid; 2] {
        return Some("only the kernel gives the rights of a set-uid file");
    }
    let set_gid = st.mode & S_ISGID_AND_GROUP_EXECUTES == S_ISGID_AND_GROUP_EXECUTES;
    if set_gid && [rgid, egid] != [st.gid; 2] {
        return Some("only the kernel gives the rights of a set-gid file");
    }
    let capabilities = sys!(FGETXATTR, fd, c"security.capability".as_ptr(), 0, 0);
    (capabilities > 0 && [ruid, euid] != [0; 2])
        .then_some("only the kernel gives the capabilities of a file")
}

/// Permission, a file system that forbids it: the kernel says, where it can be asked (Linux 6.14).
fn may_execute(fd: i32) -> Result<(), isize> {
    const X_OK: usize = 1;
    const AT_EACCESS: usize = 0x200;
    let flags = AT_EMPTY_PATH | AT_EXECVE_CHECK;
    let empty = c"".as_ptr();
    let mut r = sys!(EXECVEAT, fd, empty, 0, 0, flags);
    // (A descriptor that the program has closed may be put aside until the next commit, so
    // that somebody writes into the file is not to be relied upon.)
    if r == -EINVAL || r == -ENOSYS || r == -ETXTBSY {
        r = sys!(FACCESSAT2, fd, empty, X_OK, AT_EMPTY_PATH | AT_EACCESS);
    }
    match failed(r) {
        true => Err(r),
        false => Ok(()),
    }
}

/// The interpreter of a script and its argument: blanks are spaces and tabs, as the kernel
/// has it, and what it has not read of the line does not count.
fn interpreter(head: &[u8; HEAD], got: usize) -> Result<(&[u8], &[u8]), isize> {
    let blank = |b: u8| b == b' ' || b == b'\t';
    let text = &head[2..];
    let newline = text.iter().position(|&b| b == b'\n');
    let text = match newline {
        Some(end) => &text[..end],
        None => {
            let start = text.iter().position(|&b| !blank(b)).unwrap_or(text.len());
            let ends = text[start..].iter().any(|&b| blank(b) || b == 0);
            if got == HEAD && !ends {
                return Err(-ENOEXEC);
            }
            &text[..HEAD - 3]
        }
    };
    let text = text.split(|&b| b == 0).next().unwrap_or(&[]);
    let start = text.iter().position(|&b| !blank(b)).ok_or(-ENOEXEC)?;
    let end = text.iter().rposition(|&b| !blank(b)).unwrap_or(start) + 1;
    let text = &text[start..end];
    let end = text.iter().position(|&b| blank(b)).unwrap_or(text.len());
    let argument = &text[end..];
    let start = argument.iter().position(|&b| !blank(b));
    Ok((&text[..end], start.map_or(&[], |start| &argument[start..])))
}
