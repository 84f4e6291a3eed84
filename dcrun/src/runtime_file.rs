//! The runtime's executable: where it lies, and its segments.
//!
//! What the environment names comes first: it is the only place that somebody
//! chose by hand.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dc_image::window::{RUNTIME_BASE, RUNTIME_END};

use crate::elf::{self, Executable};
use crate::message::{Doing, Failure, Outcome};

const NAME: &str = "dc-runtime";
const VARIABLE: &str = "DCRUN_RUNTIME";

/// The runtime, opened and understood.
pub struct Runtime {
    pub file: File,
    pub executable: Executable,
}

pub fn open() -> Outcome<Runtime> {
    let own = std::env::current_exe().doing(|| "dcrun: find its own executable".to_owned())?;
    let places = places(&own, std::env::var_os(VARIABLE).map(PathBuf::from));
    for place in &places {
        match File::open(place) {
            Ok(file) => return read(place, file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::own(format!(
                    "runtime {}: {error}",
                    place.display()
                )));
            }
        }
    }
    let tried: Vec<String> = places
        .iter()
        .map(|place| place.display().to_string())
        .collect();
    Err(Failure::own(format!(
        "runtime {NAME}: not found as {}; install it beside dcrun, or name it in {VARIABLE}",
        tried.join(" or ")
    )))
}

/// Where the environment says, beside dcrun, in the installed place.
fn places(own: &Path, named: Option<PathBuf>) -> Vec<PathBuf> {
    let directory = own.parent().unwrap_or(Path::new("/"));
    let beside = directory.join(NAME);
    let installed = directory.join("../lib/dcrun").join(NAME);
    named.into_iter().chain([beside, installed]).collect()
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
    Ok(Runtime { file, executable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_where_it_was_told_then_beside_itself() {
        let places = places(Path::new("/opt/bin/dcrun"), Some(PathBuf::from("/x/rt")));
        let expected = [
            "/x/rt",
            "/opt/bin/dc-runtime",
            "/opt/bin/../lib/dcrun/dc-runtime",
        ];
        assert_eq!(places, expected.map(PathBuf::from));
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
