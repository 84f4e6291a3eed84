//! Mod-sequences (RFC 7162): the file `mailstore-modseq`.
//!
//! ```text
//! H 1732838400123456       no mod-sequence above this was given out before
//! M 17 1732838400123789 FS message 17 got this one when its flags became FS
//! ```
//! The file is a note of what clients were told, not the truth about flags: that
//! is in the names of the message files. A message whose flags differ from the
//! note gets a new mod-sequence, so a change by another program, or a note that
//! a power cut has lost, shows as a change. For the same reason nothing here is
//! synced: a mod-sequence is never below the clock's microseconds, so one that
//! was told and lost is not given out again.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::disk::Disk;
use super::name::Flags;
use crate::failure::{Action, Result};

pub const FILE_NAME: &str = "mailstore-modseq";

#[derive(Debug, Default)]
pub struct Notes {
    pub highest: u64,
    pub of_uid: HashMap<u32, (u64, Flags)>,
    /// Lines of the file, to know when most of them are old.
    lines: usize,
    /// The file is missing or ends in the middle of a line.
    rewrite: bool,
}

impl Notes {
    pub fn load(dir: &Path) -> Result<Notes> {
        let path = dir.join(FILE_NAME);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Notes::parse(&String::from_utf8_lossy(&bytes))),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Notes {
                rewrite: true,
                ..Notes::default()
            }),
            Err(cause) => Err(cause).on("read", &path),
        }
    }

    pub fn parse(text: &str) -> Notes {
        let mut notes = Notes {
            rewrite: !text.ends_with('\n'),
            ..Notes::default()
        };
        for line in text.split_inclusive('\n') {
            notes.lines += 1;
            if notes.take_line(line).is_none() {
                notes.rewrite = true;
            }
        }
        notes
    }

    fn take_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.strip_suffix('\n')?.split(' ');
        match words.next()? {
            "H" => {
                let told = words.next()?.parse().ok().filter(|m| *m < 1 << 62)?;
                self.highest = self.highest.max(told);
            }
            "M" => {
                let uid = words.next()?.parse().ok()?;
                let modseq: u64 = words
                    .next()?
                    .parse()
                    .ok()
                    .filter(|m| *m > 0 && *m < 1 << 62)?;
                let flags = Flags::of_letters(words.next()?);
                self.highest = self.highest.max(modseq);
                self.of_uid.insert(uid, (modseq, flags));
            }
            _ => return None,
        }
        Some(())
    }

    /// The next mod-sequence of the mailbox.
    pub fn next_modseq(&mut self) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_micros() as u64);
        self.highest = (self.highest + 1).max(now);
        self.highest
    }

    /// Notes what the messages have now.
    pub fn note(&mut self, disk: &Disk, dir: &Path, told: &[(u32, u64, Flags)]) -> Result<()> {
        let mut text = String::new();
        for (uid, modseq, flags) in told {
            self.of_uid.insert(*uid, (*modseq, *flags));
            text.push_str(&line(*uid, *modseq, *flags));
        }
        self.lines += told.len();
        if self.rewrite || self.lines > 2 * self.of_uid.len() + 256 {
            return self.write_all(disk, dir);
        }
        let appended = disk.append(&dir.join(FILE_NAME), text.as_bytes(), false);
        self.rewrite = appended.is_err();
        appended
    }

    fn write_all(&mut self, disk: &Disk, dir: &Path) -> Result<()> {
        let mut text = format!("H {}\n", self.highest);
        let mut all: Vec<_> = self.of_uid.iter().collect();
        all.sort_unstable_by_key(|(uid, _)| **uid);
        for (uid, (modseq, flags)) in all {
            text.push_str(&line(*uid, *modseq, *flags));
        }
        disk.replace(&dir.join(FILE_NAME), text.as_bytes())?;
        self.lines = self.of_uid.len() + 1;
        self.rewrite = false;
        Ok(())
    }
}

fn line(uid: u32, modseq: u64, flags: Flags) -> String {
    format!("M {uid} {modseq} {}\n", flags.letters())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_note_of_a_message_counts_and_torn_ones_do_not() {
        let notes = Notes::parse("H 40\nM 1 41 S\nM 1 42 FS\nM 2 43 \nM 3 99 S");
        assert_eq!(notes.of_uid[&1], (42, Flags::FLAGGED.with(Flags::SEEN)));
        assert_eq!(notes.of_uid[&2], (43, Flags::NONE));
        assert!(!notes.of_uid.contains_key(&3) && notes.rewrite);
        assert_eq!(notes.highest, 43);
    }

    #[test]
    fn mod_sequences_rise_also_without_the_file() {
        let mut first = Notes::default();
        let told = first.next_modseq();
        assert!(first.next_modseq() > told);
        let mut ahead = Notes::parse("H 4000000000000000000\n");
        assert_eq!(ahead.next_modseq(), 4000000000000000001);
    }
}
