//! Makes the programs that no package brings: C and Go files of our own, compiled once and kept by their contents.
//!
//! They lie in the temporary directory, one directory for each user, named by a hash of the source and the command, so
//! that an edited program is never mistaken for the old one, and runs side by side do not compile the same file into
//! each other: the binary appears by a rename.

use crate::error::{Context, Error, Result};
use crate::session::Program;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The path of the program, compiled if need be.
pub fn locate(program: &Program) -> Result<PathBuf> {
    match program {
        Program::Installed(path) | Program::InWorkDir(path) => Ok(PathBuf::from(path)),
        Program::C {
            name,
            source,
            compiler,
        } => make(name, "c", source, |file, out| {
            let mut command = Command::new(compiler[0]);
            command.args(&compiler[1..]).arg("-o").arg(out).arg(file);
            // Libraries are looked up after the file that needs them.
            command.arg("-lpthread").arg("-lm");
            command
        }),
        Program::Go { name, source } => make(name, "go", source, |file, out| {
            let mut command = Command::new("/usr/bin/go");
            command.args(["build", "-o"]).arg(out).arg(file);
            command.env("GO111MODULE", "off").env("CGO_ENABLED", "0");
            command.env("GOCACHE", file.with_file_name("go-cache"));
            command
        }),
    }
}

fn make(
    name: &str,
    extension: &str,
    source: &str,
    command: impl Fn(&Path, &Path) -> Command,
) -> Result<PathBuf> {
    let place = place()?;
    let mut hasher = DefaultHasher::new();
    (
        source,
        format!("{:?}", command(Path::new("in"), Path::new("out"))),
    )
        .hash(&mut hasher);
    let stem = format!("{name}-{:016x}", hasher.finish());
    let binary = place.join(&stem);
    if binary.exists() {
        return Ok(binary);
    }
    let draft = place.join(format!("{stem}.{}", std::process::id()));
    let file = draft.with_extension(format!("{}.{extension}", std::process::id()));
    fs::write(&file, source).context(format_args!("write {}", file.display()))?;
    let output = command(&file, &draft)
        .output()
        .context(format_args!("run the compiler for {name}"))?;
    if !output.status.success() {
        return Err(Error::new(format!(
            "compile {name}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    fs::rename(&draft, &binary).context(format_args!("place {}", binary.display()))?;
    let _ = fs::remove_file(&file);
    Ok(binary)
}

/// This user's directory of compiled programs; one that somebody else made is not trusted.
fn place() -> Result<PathBuf> {
    let user = nix::unistd::geteuid().as_raw();
    let place = std::env::temp_dir().join(format!("guests-programs-{user}"));
    match fs::DirBuilder::new().mode(0o700).create(&place) {
        Ok(()) => Ok(place),
        Err(_) if fs::symlink_metadata(&place).is_ok_and(|m| m.is_dir() && m.uid() == user) => {
            Ok(place)
        }
        Err(cause) => Err(Error::new(format!("make {}: {cause}", place.display()))),
    }
}
