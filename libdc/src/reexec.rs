//! Executing this program again, under dcrun.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dc_image::header::checksum;

use crate::Error;

/// Names dcrun's executable, if it lies neither beside the program nor in PATH.
const DCRUN: &str = "DCRUN";
/// Set to the run's name for the program that was executed again: if it still
/// finds no runtime, another try would not end. Its children may be programs
/// that start runs of their own.
const TRIED: &str = "DCRUN_REEXECUTED";

/// Never returns if it succeeds.
pub fn under_dcrun(file: &Path) -> Result<Infallible, Error> {
    let start = |what: &str| {
        let what = what.to_owned();
        move |cause| Error::Start(what, cause)
    };
    let own = std::env::current_exe().map_err(start("find this program's executable"))?;
    let arguments = own_arguments().map_err(start("read this program's arguments"))?;
    let file = std::path::absolute(file).map_err(start("make the name of the run absolute"))?;
    let name = name_of(&file);
    if std::env::var_os(TRIED).is_some_and(|tried| *tried == *name) {
        return Err(Error::NotRecoverable);
    }
    let mut command = Command::new(dcrun(&own));
    command.args(["run", "--name", &name, "--"]);
    command.arg(program(&own, arguments.first()));
    command.args(arguments.iter().skip(1));
    command.env(TRIED, name);
    Err(start(
        "execute dcrun, which must be in PATH, beside the program, or named by DCRUN",
    )(command.exec()))
}

/// Where the environment says, beside the program, or wherever PATH has it.
fn dcrun(own: &Path) -> PathBuf {
    if let Some(named) = std::env::var_os(DCRUN).filter(|named| !named.is_empty()) {
        return named.into();
    }
    let beside = own.with_file_name("dcrun");
    if beside.is_file() {
        beside
    } else {
        "dcrun".into()
    }
}

/// A name that tells files apart and can be read: the same file, the same run.
fn name_of(file: &Path) -> String {
    let base = file
        .file_name()
        .unwrap_or(OsStr::new("run"))
        .to_string_lossy();
    let readable: String = base
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._+".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(40)
        .collect();
    let readable = readable.trim_start_matches('.');
    format!(
        "dc_{readable}-{:010x}",
        checksum(file.as_os_str().as_bytes()) & 0xff_ffff_ffff
    )
}

/// The name this program was called by, if it leads back to it.
fn program(own: &Path, called: Option<&OsString>) -> OsString {
    let same = |called: &&OsString| {
        let identity = |path: &Path| {
            fs::metadata(path)
                .map(|about| (about.dev(), about.ino()))
                .ok()
        };
        called.as_bytes().contains(&b'/') && identity(Path::new(called)) == identity(own)
    };
    called
        .filter(same)
        .cloned()
        .unwrap_or_else(|| own.as_os_str().to_owned())
}

/// From the kernel, as a library in a C program has no other way to them.
fn own_arguments() -> io::Result<Vec<OsString>> {
    Ok(split_arguments(&fs::read("/proc/self/cmdline")?))
}

fn split_arguments(line: &[u8]) -> Vec<OsString> {
    let line = line.strip_suffix(b"\0").unwrap_or(line);
    line.split(|&b| b == 0)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_file_is_the_same_run() {
        let name = name_of(Path::new("/a/.counter state"));
        assert!(name.starts_with("dc_counter_state-"), "{name}");
        assert_eq!(name, name_of(Path::new("/a/.counter state")));
        assert_ne!(name, name_of(Path::new("/b/.counter state")));
    }

    #[test]
    fn arguments_may_be_empty() {
        assert_eq!(split_arguments(b"a\0\0b c\0"), ["a", "", "b c"]);
        assert_eq!(split_arguments(b"a\0"), ["a"]);
    }

    #[test]
    fn keeps_the_name_it_was_called_by() {
        let shell = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(program(&shell, Some(&"/bin/sh".into())), "/bin/sh");
        assert_eq!(program(&shell, Some(&"/bin/true".into())), shell);
        assert_eq!(program(&shell, Some(&"sh".into())), shell);
        assert_eq!(program(&shell, None), shell);
    }
}
