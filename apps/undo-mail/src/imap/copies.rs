//! Which of several equal messages in a folder is which.
//!
//! Copies of one message in one folder have the same UndoID, and are told apart by a number, from 1
//! in the order of their arrival. A number stays with its message when an earlier copy goes: a
//! client that has not heard of that yet would else name the next one. So numbers that do not
//! follow from what the folder holds are written down, and those of messages that are about to go:
//!
//! ```text
//! 1796000000 INBOX          UIDVALIDITY, and the folder
//! 7 00061f2a3b4c5d6e 2      the real server's UID, the UndoID, the number
//! ```
//!
//! One file for each folder, below `live/copies/USER`: it travels in time with the store.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::factory::file_name;
use crate::names::{self, Message};

/// Of messages that have gone, the numbers of so many are kept when a file is read.
const MOST_GONE: usize = 1000;

pub struct Copies {
    folder: PathBuf,
}

impl Copies {
    pub fn open(folder: &Path) -> Copies {
        Copies {
            folder: folder.to_owned(),
        }
    }

    /// The folder of a user's files.
    pub fn place_of(user: &str) -> String {
        file_name(user)
    }

    fn path(&self, user: &str, folder: &str) -> PathBuf {
        self.folder
            .join(Copies::place_of(user))
            .join(Copies::file_of(folder))
    }

    /// The name of a folder's file.
    pub fn file_of(folder: &str) -> String {
        format!("{:016x}", names::hash(&[folder.as_bytes()]))
    }

    /// What is written down of a folder with this UIDVALIDITY, in which `listed` are the UIDs now.
    pub fn read(
        &self,
        user: &str,
        folder: &str,
        uid_validity: u32,
        listed: &[u32],
    ) -> io::Result<HashMap<u32, Message>> {
        let path = self.path(user, folder);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
            Err(e) => return Err(e),
        };
        let mut lines = text.lines();
        if lines.next() != Some(&format!("{uid_validity} {folder}")) {
            // It is about a folder of this name that is no more.
            std::fs::remove_file(&path)?;
            return Ok(HashMap::new());
        }
        let read: Vec<(u32, Message)> = lines.filter_map(parse).collect();
        let listed: HashSet<u32> = listed.iter().copied().collect();
        let gone = read.iter().filter(|(uid, _)| !listed.contains(uid)).count();
        if gone > 2 * MOST_GONE {
            let mut surplus = gone - MOST_GONE;
            let kept = read.iter().filter(|(uid, _)| {
                let dropped = surplus > 0 && !listed.contains(uid);
                surplus -= usize::from(dropped);
                !dropped
            });
            let kept: Vec<(u32, Message)> = kept.copied().collect();
            let fresh = path.with_extension("new");
            std::fs::write(&fresh, format!("{uid_validity} {folder}\n{}", show(&kept)))?;
            std::fs::rename(&fresh, &path)?;
            return Ok(kept.into_iter().collect());
        }
        Ok(read.into_iter().collect())
    }

    /// The UndoIDs of messages that are written down of a folder, of those that have gone as well.
    pub fn ids(&self, user: &str, folder: &str) -> io::Result<HashSet<u64>> {
        let text = match std::fs::read_to_string(self.path(user, folder)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
            text => text?,
        };
        Ok(text
            .lines()
            .skip(1)
            .filter_map(parse)
            .map(|(_, m)| m.id)
            .collect())
    }

    /// Writes down which UIDs are which messages. A power cut may lose it, a death does not.
    pub fn write(
        &self,
        user: &str,
        folder: &str,
        uid_validity: u32,
        named: &[(u32, Message)],
    ) -> io::Result<()> {
        if named.is_empty() {
            return Ok(());
        }
        let path = self.path(user, folder);
        if let Some(place) = path.parent() {
            std::fs::create_dir_all(place)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut text = show(named);
        if file.metadata()?.len() == 0 {
            text = format!("{uid_validity} {folder}\n{text}");
        }
        file.write_all(text.as_bytes())
    }

    /// A folder has another name now, and so have those below it.
    pub fn rename(&self, user: &str, from: &str, to: &str, delimiter: &str) -> io::Result<()> {
        let place = self.folder.join(Copies::place_of(user));
        let files = match std::fs::read_dir(&place) {
            Ok(files) => files,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let files: Vec<_> = files.collect::<io::Result<_>>()?;
        for file in files {
            let text = std::fs::read_to_string(file.path())?;
            let Some((head, rest)) = text.split_once('\n') else {
                continue;
            };
            let (uid_validity, name) = head.split_once(' ').unwrap_or((head, ""));
            let below = name.strip_prefix(from);
            let Some(below) = below.filter(|b| b.is_empty() || b.starts_with(delimiter)) else {
                continue;
            };
            let renamed = format!("{to}{below}");
            std::fs::write(
                self.path(user, &renamed),
                format!("{uid_validity} {renamed}\n{rest}"),
            )?;
            std::fs::remove_file(file.path())?;
        }
        Ok(())
    }

    /// A folder is no more.
    pub fn remove(&self, user: &str, folder: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(user, folder)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

fn parse(line: &str) -> Option<(u32, Message)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [uid, id, nth] = words[..] else {
        return None;
    };
    let id = u64::from_str_radix(id, 16).ok()?;
    let nth = nth.parse().ok()?;
    Some((uid.parse().ok()?, Message { id, nth }))
}

fn show(named: &[(u32, Message)]) -> String {
    named
        .iter()
        .map(|(uid, m)| format!("{uid} {:016x} {}\n", m.id, m.nth))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_goes_along_with_a_rename_and_ends_with_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let copies = Copies::open(folder.path());
        let message = |nth| Message { id: 5, nth };
        for name in ["a", "a.b", "ab"] {
            copies.write("ann", name, 7, &[(1, message(2))]).unwrap();
        }
        copies.rename("ann", "a", "x.y", ".").unwrap();
        let nth = |name: &str, validity| {
            let read = copies.read("ann", name, validity, &[1]).unwrap();
            read.get(&1).map(|m| m.nth)
        };
        assert_eq!(nth("x.y", 7), Some(2));
        assert_eq!(nth("x.y.b", 7), Some(2));
        assert_eq!(nth("ab", 7), Some(2));
        assert_eq!(nth("a", 7), None);
        copies.remove("ann", "ab").unwrap();
        assert_eq!(nth("ab", 7), None);
        assert_eq!(nth("x.y", 8), None, "another folder of this name");
        assert_eq!(nth("x.y", 7), None, "and its file has gone");
    }

    #[test]
    fn a_long_past_is_forgotten_and_the_present_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let copies = Copies::open(folder.path());
        let all: Vec<(u32, Message)> = (1..=3000)
            .map(|uid| {
                (
                    uid,
                    Message {
                        id: 1,
                        nth: uid as u16,
                    },
                )
            })
            .collect();
        copies.write("ann", "a", 7, &all).unwrap();
        for _ in 0..2 {
            let read = copies.read("ann", "a", 7, &[1, 2]).unwrap();
            assert_eq!(read.len(), MOST_GONE + 2);
            assert!(read.contains_key(&1) && read.contains_key(&3000) && !read.contains_key(&3));
        }
    }
}
