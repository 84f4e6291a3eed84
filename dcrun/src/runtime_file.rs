//! The runtime's executable: where it lies, and its segments.
//!
//! What the environment names comes first: it is the only place that somebody
//! chose by hand. Then comes one that lies beside dcrun, or where packages put it,
//! as for those who work on it. Else it is the one inside of dcrun itself: workers map
//! files, so it is written into one that has no name and that nobody can change.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dc_image::window::{RUNTIME_BASE, RUNTIME_END};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::elf::{self, Executable};
use crate::message::{Doing, Failure, Outcome};

/// As `build.rs` has built it.
const INSIDE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dc-runtime"));
const NAME: &str = "dc-runtime";
const VARIABLE: &str = "DCRUN_RUNTIME";

/// The runtime, opened and understood.
pub struct Runtime {
    pub file: File,
    pub executable: Executable,
    /// Where it was found, for people.
    pub place: String,
}

pub fn open() -> Outcome<Runtime> {
    let says = |place: &Path| format!("runtime {}", place.display());
    if let Some(named) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        let file = File::open(&named).doing(|| format!("{} ({VARIABLE})", says(&named)))?;
        return read(&named, file);
    }
    let own = std::env::current_exe().doing(|| "dcrun: find its own executable".to_owned())?;
    for place in places(&own) {
        match File::open(&place) {
            Ok(file) => return read(&place, file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).doing(|| says(&place)),
        }
    }
    let file = unpack().doing(|| format!("runtime {NAME}: write the one inside of dcrun"))?;
    read(Path::new("inside of dcrun"), file)
}

/// The one inside, as a file in memory for as long as somebody has it open. It is not to be
/// executed, only mapped: some systems forbid the former to files without a name.
fn unpack() -> std::io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC
        | MFdFlags::MFD_ALLOW_SEALING
        | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let mut file = File::from(memfd_create(c"dc-runtime", flags)?);
    file.write_all(INSIDE)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Beside dcrun, in the installed place.
fn places(own: &Path) -> [PathBuf; 2] {
    let directory = own.parent().unwrap_or(Path::new("/"));
    let installed = directory.join("../lib/dcrun").join(NAME);
    [directory.join(NAME), installed]
}

fn read(place: &Path, file: File) -> Outcome<Runtime> {
    let shown = place.display();
    let mut start = [0u8; 4096];
    let mut len = 0;
    while len < start.len() {
        match file.read_at(&mut start[len..], len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) => return Err(Failure::own(format!("runtime {shown}: read it: {error}"))),
        }
    }
    let executable = elf::parse(&start[..len])
        .map_err(|unfit| Failure::own(format!("runtime {shown}: {unfit}")))?;
    let window = RUNTIME_BASE as u64..RUNTIME_END as u64;
    let inside = |address: u64, len: u64| {
        window.contains(&address)
            && address
                .checked_add(len)
                .is_some_and(|end| end <= window.end)
    };
    let fits = !executable.segments.is_empty()
        && executable
            .segments
            .iter()
            .all(|part| inside(part.address, part.memory_len))
        && inside(executable.entry, 1);
    if !fits {
        return Err(Failure::own(format!(
            "runtime {shown}: it is not linked for the runtime's window at {RUNTIME_BASE:#x}; \
             build it from the same source as dcrun"
        )));
    }
    Ok(Runtime {
        file,
        executable,
        place: shown.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_beside_itself() {
        let expected = ["/opt/bin/dc-runtime", "/opt/bin/../lib/dcrun/dc-runtime"];
        assert_eq!(
            places(Path::new("/opt/bin/dcrun")),
            expected.map(PathBuf::from)
        );
    }

    #[test]
    fn the_one_inside_is_whole_and_cannot_be_changed() {
        use std::os::unix::fs::FileExt;
        let runtime = read(Path::new("inside"), unpack().unwrap()).unwrap();
        assert_eq!(runtime.file.metadata().unwrap().len(), INSIDE.len() as u64);
        assert!(runtime.file.write_at(b"x", 0).is_err());
        assert!(runtime.file.set_len(1).is_err());
    }

    #[test]
    fn refuses_another_executable() {
        let file = File::open("/bin/true").unwrap();
        let refused = read(Path::new("/bin/true"), file)
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains("window"), "{refused}");
    }
}
