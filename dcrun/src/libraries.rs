//! Where a program's libraries lie: as ld.so(8) would search them, but for its cache, which is
//! made of the same directories.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::elf;

const USUAL: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// Files of configuration that include one another.
const DEPTH: usize = 8;

/// Directories that are searched for every library.
pub struct Directories(Vec<PathBuf>);

impl Directories {
    /// `named` is the value of LD_LIBRARY_PATH.
    pub fn new(named: Option<&str>) -> Directories {
        let named = named
            .unwrap_or_default()
            .split(':')
            .filter(|part| !part.is_empty());
        let mut all: Vec<PathBuf> = named.map(PathBuf::from).collect();
        configured(Path::new("/etc/ld.so.conf"), DEPTH, &mut all);
        all.extend(USUAL.map(PathBuf::from));
        Directories(all)
    }

    /// The file of a library that `user` needs, which searches these directories first.
    pub fn find(&self, name: &str, user: &Path, first: &[String]) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|path| is_library(path));
        }
        let origin = user.parent().unwrap_or(Path::new("/")).to_string_lossy();
        let own = first.iter().map(|directory| {
            PathBuf::from(
                directory
                    .replace("${ORIGIN}", &origin)
                    .replace("$ORIGIN", &origin),
            )
        });
        own.chain(self.0.iter().cloned())
            .map(|directory| directory.join(name))
            .find(|path| is_library(path))
    }
}

fn configured(file: &Path, depth: usize, to: &mut Vec<PathBuf>) {
    let text = fs::read_to_string(file).unwrap_or_default();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_prefix("include").map(str::trim) {
            Some(pattern) if depth > 0 => {
                for file in matching(pattern) {
                    configured(&file, depth - 1, to);
                }
            }
            None if line.starts_with('/') => to.push(PathBuf::from(line)),
            _ => {}
        }
    }
}

/// Files as `DIRECTORY/*.conf` names them, by name; or the one that is named.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new(pattern);
    let Some((before, after)) = path
        .file_name()
        .and_then(|name| name.to_str()?.split_once('*'))
    else {
        return vec![path.to_owned()];
    };
    let fits = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(before) && name.ends_with(after))
    };
    let entries = fs::read_dir(path.parent().unwrap_or(Path::new("/")));
    let entries = entries.into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
    found.sort();
    found
}

/// Not one of another machine, which may have the same name.
fn is_library(path: &Path) -> bool {
    let mut start = [0; 64];
    fs::metadata(path).is_ok_and(|about| about.is_file())
        && File::open(path).is_ok_and(|file| file.read_exact_at(&mut start, 0).is_ok())
        && elf::check(&start).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_c_library_and_nothing_that_is_none() {
        let directories = Directories::new(Some(":/etc:"));
        let user = Path::new("/bin/true");
        assert!(directories.find("libc.so.6", user, &[]).is_some());
        assert_eq!(directories.find("passwd", user, &[]), None);
        assert_eq!(directories.find("no-such-library.so", user, &[]), None);
        let own = std::env::current_exe().unwrap();
        let name = own.file_name().unwrap().to_str().unwrap();
        let beside = ["$ORIGIN".to_owned()];
        assert_eq!(directories.find(name, &own, &beside), Some(own.clone()));
        assert_eq!(directories.find("passwd", &own, &beside), None);
    }
}
