//! UIDs that belong to the proxy: no pair of UIDVALIDITY and UID ever names two messages.
//!
//! A rewind of the store makes the real server give UIDs out again, to other messages. So clients
//! never see its UIDs, but ours. They are kept outside of the state that travels in time, in one
//! file for each folder:
//!
//! ```text
//! uidvalidity 1796000000
//! reserved 2000            synced before any UID up to it is given out
//! + 1 00061f2a3b4c5d6e 1   UID, UndoID, nth: given out
//! - 1                      its message was seen to have gone
//! ```
//!
//! A message that has gone and comes back (an undo can do that) gets another UID: clients that
//! have seen it go would not look for the old one.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::names::Message;

/// UIDs are reserved in steps of this, so that a power cut cannot make one be given out twice.
const STEP: u32 = 1000;

/// What is given out in one folder.
pub struct Numbers {
    file: File,
    pub uid_validity: u32,
    reserved: u32,
    next: u32,
    by_message: HashMap<Message, u32>,
}

/// A user, and the UndoID of a folder.
type UserFolder = (String, u64);

/// The UIDs of all folders.
pub struct Uids {
    folder: PathBuf,
    open: Mutex<HashMap<UserFolder, Arc<Mutex<Numbers>>>>,
}

impl Uids {
    pub fn open(folder: &Path) -> Uids {
        Uids {
            folder: folder.to_owned(),
            open: Mutex::default(),
        }
    }

    /// The numbers of one folder of one user.
    pub fn of(&self, user: &str, folder: u64) -> io::Result<Arc<Mutex<Numbers>>> {
        let mut open = self.open.lock().unwrap_or_else(|p| p.into_inner());
        let key = (user.to_owned(), folder);
        if let Some(numbers) = open.get(&key) {
            return Ok(numbers.clone());
        }
        let place = self.folder.join(crate::factory::file_name(user));
        std::fs::create_dir_all(&place)?;
        let numbers = Arc::new(Mutex::new(Numbers::open(
            &place.join(format!("{folder:016x}")),
        )?));
        open.insert(key, numbers.clone());
        Ok(numbers)
    }
}

impl Numbers {
    fn open(path: &Path) -> io::Result<Numbers> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e),
        };
        let now = (undo::when::now_us() / 1_000_000) as u32;
        let (mut uid_validity, mut reserved) = (None, 0);
        let mut by_uid: BTreeMap<u32, Message> = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            // A line that a death has cut short says nothing; its UID is below the reserved ones.
            match words[..] {
                ["uidvalidity", n] => uid_validity = n.parse().ok(),
                ["reserved", n] => reserved = n.parse().unwrap_or(reserved),
                ["+", uid, id, nth] => {
                    if let (Ok(uid), Ok(id), Ok(nth)) =
                        (uid.parse(), u64::from_str_radix(id, 16), nth.parse())
                    {
                        by_uid.insert(uid, Message { id, nth });
                    }
                }
                ["-", uid] => {
                    uid.parse().ok().and_then(|uid| by_uid.remove(&uid));
                }
                _ => {}
            }
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        if uid_validity.is_none() {
            writeln!(file, "uidvalidity {now}")?;
            file.sync_data()?;
        }
        Ok(Numbers {
            file,
            uid_validity: uid_validity.unwrap_or(now),
            reserved,
            next: reserved + 1,
            by_message: by_uid
                .into_iter()
                .map(|(uid, message)| (message, uid))
                .collect(),
        })
    }

    /// The UID that the next message will get.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Gives each of these messages its UID, retires those of messages that are not among them,
    /// and returns all in the order of UIDs.
    pub fn assign(
        &mut self,
        messages: impl Iterator<Item = Message>,
    ) -> io::Result<Vec<(u32, Message)>> {
        let mut shown = Vec::new();
        let mut lines = String::new();
        let mut gone = std::mem::take(&mut self.by_message);
        for message in messages {
            let uid = match gone.remove(&message) {
                Some(uid) => uid,
                None => {
                    if self.next > self.reserved {
                        self.reserved = self.next + STEP - 1;
                        writeln!(self.file, "reserved {}", self.reserved)?;
                        self.file.sync_data()?;
                    }
                    self.next += 1;
                    let uid = self.next - 1;
                    lines += &format!("+ {uid} {:016x} {}\n", message.id, message.nth);
                    uid
                }
            };
            self.by_message.insert(message, uid);
            shown.push((uid, message));
        }
        for uid in gone.into_values() {
            lines += &format!("- {uid}\n");
        }
        if !lines.is_empty() {
            self.file.write_all(lines.as_bytes())?;
        }
        shown.sort_unstable();
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(id: u64) -> Message {
        Message { id, nth: 1 }
    }

    #[test]
    fn no_uid_names_two_messages_whatever_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut named: HashMap<u32, Message> = HashMap::new();
        let mut random = 7u64;
        let mut reopened = 0;
        let mut uids = Uids::open(folder.path());
        let mut validity = None;
        for _ in 0..500 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(9);
            if random >> 60 == 0 {
                uids = Uids::open(folder.path());
                reopened += 1;
            }
            let there: Vec<Message> = (0..20)
                .filter(|n| random >> (n + 20) & 1 == 1)
                .map(m)
                .collect();
            let numbers = uids.of("ann", 1).unwrap();
            let mut numbers = numbers.lock().unwrap();
            assert_eq!(
                *validity.get_or_insert(numbers.uid_validity),
                numbers.uid_validity
            );
            let before = numbers.next();
            let shown = numbers.assign(there.iter().copied()).unwrap();
            assert_eq!(shown.len(), there.len());
            assert!(shown.is_sorted());
            for (uid, message) in shown {
                assert!(uid < numbers.next());
                match named.insert(uid, message) {
                    Some(other) => assert_eq!(other, message, "{uid} has named both"),
                    None => assert!(uid >= before),
                }
            }
        }
        assert!(reopened > 5 && named.len() > 500);
    }
}
