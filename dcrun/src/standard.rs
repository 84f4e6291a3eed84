//! What a run had as its standard descriptors, so that it can go on without anybody to give them.
//!
//! A run that is resumed by hand gets what its new `dcrun` was given. One that a service resumes
//! gets what it had, where that has a name: files and devices come back by their paths, input
//! behind what was read (the recovery sees to that), output at the end, for what is there was
//! seen. Pipes and sockets went with who was at their other end: instead of them there is
//! /dev/null to read, and the file `output` in the run's directory to write. Nobody can give a
//! terminal back: such a run waits for its user.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::{Value, json};

use crate::machine::descriptors;
use crate::message::{Doing, Outcome, say};
use crate::record;
use crate::run_directory::RunDirectory;

/// Where a run prints that had a pipe there.
pub const OUTPUT: &str = "output";

/// One of the three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standard {
    Closed,
    Terminal,
    /// A file or device with a name; its inode, and its flags of open(2) that say how it is used.
    Named {
        path: PathBuf,
        inode: u64,
        flags: i32,
    },
    Other,
}

/// How descriptor 0, 1 or 2 is used, as fcntl(2) tells.
const USE: i32 = libc::O_ACCMODE | libc::O_APPEND;

/// Those that this process was given.
pub fn given() -> [Standard; 3] {
    [0, 1, 2].map(look)
}

fn look(number: RawFd) -> Standard {
    if !descriptors::is_open(number) {
        return Standard::Closed;
    }
    let descriptor = descriptors::placed(&number);
    if nix::unistd::isatty(descriptor).unwrap_or(false) {
        return Standard::Terminal;
    }
    let of = |path: &Path| {
        let about = fs::metadata(path).ok()?;
        Some((about.dev(), about.ino()))
    };
    let link = PathBuf::from(format!("/proc/self/fd/{number}"));
    let named = || {
        let path = fs::read_link(&link).ok()?;
        let kind = fs::metadata(&link).ok()?.file_type();
        let has_name = kind.is_file() || kind.is_char_device() || kind.is_block_device();
        let inode =
            (has_name && path.is_absolute() && of(&path) == of(&link)).then_some(of(&link)?.1)?;
        let flags = fcntl(descriptor, FcntlArg::F_GETFL).ok()? & USE;
        Some(Standard::Named { path, inode, flags })
    };
    named().unwrap_or(Standard::Other)
}

/// Gives this process what the run had, at the same numbers, and nothing else below the others.
pub fn put_back(run: &RunDirectory, standard: &[Standard; 3]) -> Outcome<()> {
    let mut made: [Option<File>; 3] = [const { None }; 3];
    for number in 0..3 {
        let file = match &standard[number] {
            Standard::Closed => continue,
            Standard::Named { path, inode, flags } => {
                // Two numbers of one file that is written share an offset, as they did.
                let same = (0..number).find(|&other| {
                    standard[other] == standard[number] && flags & libc::O_ACCMODE != libc::O_RDONLY
                });
                match same.and_then(|other| made[other].as_ref()) {
                    Some(file) => file.try_clone().ok(),
                    None => open_named(run, path, *inode, *flags),
                }
            }
            Standard::Terminal | Standard::Other => None,
        };
        made[number] = Some(match file {
            Some(file) => file,
            None if number == 0 => {
                File::open("/dev/null").doing(|| "/dev/null: open it".to_owned())?
            }
            None => open_output(run)?,
        });
    }
    // None of them may stand in the way of another.
    for file in &mut made {
        if let Some(open) = file.take() {
            let high = fcntl(open.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(16))
                .doing(|| format!("{}: place its descriptors", run.name))?;
            *file = Some(descriptors::adopt(high));
        }
    }
    for (number, file) in (0..).zip(made) {
        descriptors::close(number);
        if let Some(file) = file {
            let doing = || format!("{}: place its descriptor {number}", run.name);
            descriptors::place(file.into(), number).doing(doing)?;
            let kept = fcntl(
                descriptors::placed(&number),
                FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
            );
            kept.doing(doing)?;
        }
    }
    Ok(())
}

/// What stood there under this name, if it still does.
fn open_named(run: &RunDirectory, path: &Path, inode: u64, flags: i32) -> Option<File> {
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    let opened = OpenOptions::new()
        .read(flags & libc::O_ACCMODE != libc::O_WRONLY)
        .write(writes)
        .custom_flags(flags & libc::O_APPEND | libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path);
    let usable = opened.and_then(|mut file| {
        let about = file.metadata()?;
        if about.ino() != inode || about.file_type().is_fifo() {
            return Err(std::io::Error::other("it is another file by now"));
        }
        wait_where_it_must(&file, OFlag::from_bits_truncate(flags & libc::O_APPEND))?;
        if writes && about.is_file() {
            file.seek(SeekFrom::End(0))?;
        }
        Ok(file)
    });
    usable
        .inspect_err(|error| {
            say(&format!(
                "{}: {}: {error}; it goes on without it (reading nothing, and writing to {OUTPUT} in \
                 its directory)",
                run.name,
                path.display()
            ));
        })
        .ok()
}

fn open_output(run: &RunDirectory) -> Outcome<File> {
    let file = run.open_to_add(OUTPUT)?;
    wait_where_it_must(&file, OFlag::O_APPEND)
        .doing(|| format!("{}: open its {OUTPUT}", run.name))?;
    Ok(file)
}

/// It was opened so that nobody is waited for; the program shall wait.
fn wait_where_it_must(file: &File, flags: OFlag) -> std::io::Result<()> {
    fcntl(file, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Whether any of it is a terminal.
pub fn has_terminal(standard: &[Standard; 3]) -> bool {
    standard.contains(&Standard::Terminal)
}

/// Whether something is to be found in [`OUTPUT`].
pub fn prints_elsewhere(standard: &[Standard; 3]) -> bool {
    standard[1..]
        .iter()
        .any(|one| matches!(one, Standard::Terminal | Standard::Other))
}

pub fn to_json(standard: &[Standard; 3]) -> Value {
    let one = |standard: &Standard| match standard {
        Standard::Closed => json!("closed"),
        Standard::Terminal => json!("terminal"),
        Standard::Other => json!("other"),
        Standard::Named { path, inode, flags } => json!({
            "path": record::text(path.as_os_str()),
            "inode": inode,
            "flags": flags,
        }),
    };
    standard.iter().map(one).collect()
}

/// Records of earlier versions say nothing of it.
pub fn from_json(value: &Value) -> Option<[Standard; 3]> {
    const UNKNOWN: [Standard; 3] = [const { Standard::Other }; 3];
    let one = |value: &Value| match value.as_str() {
        Some("closed") => Some(Standard::Closed),
        Some("terminal") => Some(Standard::Terminal),
        Some("other") => Some(Standard::Other),
        Some(_) => None,
        None => {
            let path = record::bytes(&value["path"]).map(|path: OsString| PathBuf::from(path))?;
            let flags = i32::try_from(value["flags"].as_i64()?).ok()?;
            (path.is_absolute() && flags & !USE == 0).then_some(Standard::Named {
                path,
                inode: value["inode"].as_u64()?,
                flags,
            })
        }
    };
    if value.is_null() {
        return Some(UNKNOWN);
    }
    let [a, b, c] = value.as_array()?.as_slice() else {
        return None;
    };
    Some([one(a)?, one(b)?, one(c)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote() {
        let named = Standard::Named {
            path: "/tmp/x y".into(),
            inode: 7,
            flags: libc::O_WRONLY | libc::O_APPEND,
        };
        let all = [Standard::Closed, Standard::Terminal, named];
        assert_eq!(from_json(&to_json(&all)), Some(all.clone()));
        assert!(
            has_terminal(&all)
                && !prints_elsewhere(&[Standard::Other, Standard::Closed, Standard::Closed])
        );
        assert_eq!(from_json(&Value::Null).unwrap()[0], Standard::Other);
        for bad in [
            json!([]),
            json!(["x", "closed", "closed"]),
            json!([{"path": "x", "inode": 1, "flags": 0}, "closed", "closed"]),
        ] {
            assert_eq!(from_json(&bad), None, "{bad}");
        }
    }
}
