//! Which file a command line means: the search of execvp, and `#!` scripts.
//!
//! The kernel resolves scripts inside execve; a worker is no execve, so the
//! keeper does what the kernel does: at most four interpreters deep, the rest
//! of the line is one argument, the script's path takes the place of argv[0].

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::elf;
use crate::message::{Doing, Failure, Outcome};

/// How many `#!` lines the kernel follows.
const SCRIPT_DEPTH: usize = 4;
/// How much of a script the kernel looks at.
const SCRIPT_LINE: usize = 256;
const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// The ELF file, absolute, without symbolic links.
    pub file: PathBuf,
    /// What execve would have been given.
    pub executed: PathBuf,
    /// The arguments it sees: for a script, the interpreter's.
    pub arguments: Vec<OsString>,
}

/// Resolves `command` as a shell would; `path` is the value of PATH.
pub fn resolve(command: &[OsString], path: Option<&OsStr>) -> Outcome<Program> {
    let found = find(&command[0], path)?;
    let mut arguments = command.to_vec();
    let mut file = found.clone();
    for _ in 0..=SCRIPT_DEPTH {
        let start = read_start(&file)?;
        let Some(line) = script_line(&start) else {
            check_executable(&file, &start)?;
            let absolute = fs::canonicalize(&file)
                .doing(|| format!("program {}: find its absolute path", file.display()))?;
            return Ok(Program {
                file: absolute,
                executed: found,
                arguments,
            });
        };
        let (interpreter, argument) = parse_script_line(line).ok_or_else(|| {
            Failure::not_executable(format!(
                "program {}: its first line names no interpreter after #!",
                file.display()
            ))
        })?;
        let script = std::mem::replace(&mut file, PathBuf::from(&interpreter));
        arguments[0] = script.clone().into_os_string();
        if let Some(argument) = argument {
            arguments.insert(0, argument);
        }
        arguments.insert(0, interpreter);
        check_file(&file).map_err(|failure| {
            Failure::not_executable(format!(
                "program {}: its interpreter cannot run: {failure}",
                script.display()
            ))
        })?;
    }
    Err(Failure::not_executable(format!(
        "program {}: more than {SCRIPT_DEPTH} #! interpreters, one of the other",
        found.display()
    )))
}

/// The search of execvp: a name with a slash is a path; else PATH is searched,
/// and a file that may not be executed is remembered, but does not end it.
fn find(name: &OsStr, path: Option<&OsStr>) -> Outcome<PathBuf> {
    if name.is_empty() {
        return Err(Failure::not_found("program: its name is empty"));
    }
    if name.as_bytes().contains(&b'/') {
        let file = PathBuf::from(name);
        return check_file(&file).map(|()| file);
    }
    let mut forbidden = None;
    let default = OsStr::new("/bin:/usr/bin");
    for directory in path.unwrap_or(default).as_bytes().split(|&b| b == b':') {
        let directory = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        let file = Path::new(OsStr::from_bytes(directory)).join(name);
        match check_file(&file) {
            Ok(()) => return Ok(file),
            Err(failure) if failure.status() == crate::message::NOT_FOUND => {}
            Err(failure) => forbidden = forbidden.or(Some(failure)),
        }
    }
    Err(forbidden.unwrap_or_else(|| {
        Failure::not_found(format!(
            "program {}: not found in PATH; give its path if it lies elsewhere",
            name.display()
        ))
    }))
}

/// Whether execve would take the file, before it looks inside.
fn check_file(file: &Path) -> Outcome<()> {
    let shown = file.display();
    let about = match fs::metadata(file) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Failure::not_executable(format!("program {shown}: {error}")));
        }
        Err(error) => return Err(Failure::not_found(format!("program {shown}: {error}"))),
    };
    let kind = about.file_type();
    if kind.is_dir() {
        return Err(Failure::not_executable(format!(
            "program {shown}: it is a directory"
        )));
    }
    if !kind.is_file() {
        let what = if kind.is_fifo() {
            "a fifo"
        } else {
            "no regular file"
        };
        return Err(Failure::not_executable(format!(
            "program {shown}: it is {what}"
        )));
    }
    access(file, AccessFlags::X_OK).map_err(|error| {
        Failure::not_executable(format!(
            "program {shown}: not executable: {}; `chmod +x` it, or see whether its file system \
             is mounted noexec",
            error.desc()
        ))
    })?;
    Ok(())
}

/// What execve would only find out by looking inside, and what it would do
/// that dcrun cannot.
fn check_executable(file: &Path, start: &[u8]) -> Outcome<()> {
    let shown = file.display();
    elf::check(start)
        .map_err(|unfit| Failure::not_executable(format!("program {shown}: {unfit}")))?;
    let mode = fs::metadata(file)
        .doing(|| format!("program {shown}: look at it"))?
        .mode();
    // Set-group-id without group execution means mandatory locking, not identity.
    let changes_group = mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0;
    if mode & SET_ID != 0 && (mode & libc::S_ISUID != 0 || changes_group) {
        return Err(Failure::not_executable(format!(
            "program {shown}: it is set-uid or set-gid, and only the kernel's execve can give \
             such a program its rights; run it without dcrun, or a copy without the bit"
        )));
    }
    Ok(())
}

fn read_start(file: &Path) -> Outcome<Vec<u8>> {
    let mut start = Vec::with_capacity(SCRIPT_LINE);
    File::open(file)
        .and_then(|file| file.take(SCRIPT_LINE as u64).read_to_end(&mut start))
        .map_err(|error| {
            Failure::not_executable(format!(
                "program {}: read it: {error}; dcrun maps programs itself and so must be able \
                 to read them",
                file.display()
            ))
        })?;
    Ok(start)
}

/// The line behind `#!`, if there is one.
fn script_line(start: &[u8]) -> Option<&[u8]> {
    let line = start.strip_prefix(b"#!")?;
    Some(line.split(|&b| b == b'\n').next().unwrap_or(line))
}

/// Interpreter, and the rest of the line as one argument.
fn parse_script_line(line: &[u8]) -> Option<(OsString, Option<OsString>)> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let line = line.trim_ascii();
    let end = line.iter().position(blank).unwrap_or(line.len());
    let (interpreter, rest) = line.split_at(end);
    let rest = rest.trim_ascii();
    let own = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    (!interpreter.is_empty()).then(|| (own(interpreter), (!rest.is_empty()).then(|| own(rest))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NOT_EXECUTABLE, NOT_FOUND};
    use std::os::unix::fs::PermissionsExt;

    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("dcrun-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
        fn file(&self, name: &str, content: &[u8], mode: u32) -> OsString {
            let path = self.0.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.into_os_string()
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn status(command: &[OsString]) -> u8 {
        resolve(command, None).unwrap_err().status()
    }

    #[test]
    fn searches_like_execvp() {
        let found = resolve(&["true".into()], Some(OsStr::new("/nowhere:/bin"))).unwrap();
        assert_eq!(found.executed, Path::new("/bin/true"));
        assert_eq!(found.arguments, ["true"]);
        assert_eq!(status(&["no-such-program-here".into()]), NOT_FOUND);
        assert_eq!(status(&["/no/such/program".into()]), NOT_FOUND);
        assert_eq!(status(&["/".into()]), NOT_EXECUTABLE);
    }

    #[test]
    fn rewrites_arguments_of_scripts() {
        let folder = Folder::new("scripts");
        let script = folder.file("s", b"#! /bin/sh  -e x \necho\n", 0o755);
        let program = resolve(&[script.clone(), "a".into()], None).unwrap();
        assert_eq!(
            program.arguments,
            ["/bin/sh".as_ref(), "-e x".as_ref(), &*script, "a".as_ref()]
        );
        assert_eq!(program.executed.as_os_str(), script);

        let line = [b"#!", script.as_bytes(), b"\n"].concat();
        let outer = folder.file("outer", &line, 0o755);
        let program = resolve(&[outer.clone(), "b".into()], None).unwrap();
        let expected: [&OsStr; 5] = [
            "/bin/sh".as_ref(),
            "-e x".as_ref(),
            &script,
            &outer,
            "b".as_ref(),
        ];
        assert_eq!(program.arguments, expected);
    }

    #[test]
    fn scripts_end() {
        let folder = Folder::new("loop");
        let path = folder.0.join("self");
        let line = [b"#!", path.as_os_str().as_bytes(), b"\n"].concat();
        let script = folder.file("self", &line, 0o755);
        assert_eq!(status(&[script]), NOT_EXECUTABLE);
        let lost = folder.file("lost", b"#!/no/interpreter\n", 0o755);
        assert_eq!(status(&[lost]), NOT_EXECUTABLE);
        let empty = folder.file("empty", b"#!  \n", 0o755);
        assert_eq!(status(&[empty]), NOT_EXECUTABLE);
    }

    #[test]
    fn refuses_what_cannot_run() {
        let folder = Folder::new("unfit");
        let text = folder.file("text", b"hello\n", 0o755);
        assert_eq!(status(&[text]), NOT_EXECUTABLE);
        let plain = folder.file("plain", b"hello\n", 0o644);
        assert_eq!(status(&[plain]), NOT_EXECUTABLE);
        let privileged = folder.file("privileged", &fs::read("/bin/true").unwrap(), 0o4755);
        assert_eq!(status(&[privileged]), NOT_EXECUTABLE);
    }
}
