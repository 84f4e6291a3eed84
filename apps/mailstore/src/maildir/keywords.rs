//! Which letter of a file's name is which keyword: Dovecot's `dovecot-keywords`.
//! A line is `0 $Forwarded`: the keyword with the letter `a`. There are 26.

use std::io;
use std::path::Path;

use super::disk::Disk;
use super::name::Flags;
use crate::failure::{Action, Result};

pub const FILE_NAME: &str = "dovecot-keywords";
pub const MAX_KEYWORDS: usize = 26;

#[derive(Clone, Debug, Default)]
pub struct Keywords {
    names: Vec<Option<String>>,
}

impl Keywords {
    pub fn load(dir: &Path) -> Result<Keywords> {
        let path = dir.join(FILE_NAME);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Keywords::parse(&String::from_utf8_lossy(&bytes))),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Keywords::default()),
            Err(cause) => Err(cause).on("read", &path),
        }
    }

    /// Lines that say nothing are passed over: at worst a keyword is not shown.
    pub fn parse(text: &str) -> Keywords {
        let mut keywords = Keywords::default();
        for line in text.lines() {
            let Some((number, name)) = line.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else {
                continue;
            };
            if number < MAX_KEYWORDS && !name.is_empty() {
                if keywords.names.len() <= number {
                    keywords.names.resize(number + 1, None);
                }
                keywords.names[number] = Some(name.to_string());
            }
        }
        keywords
    }

    pub fn find(&self, name: &str) -> Option<Flags> {
        let same = |known: &Option<String>| {
            known
                .as_deref()
                .is_some_and(|k| k.eq_ignore_ascii_case(name))
        };
        self.names.iter().position(same).map(Flags::keyword)
    }

    pub fn is_full(&self) -> bool {
        self.names.iter().flatten().count() >= MAX_KEYWORDS
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().flatten().map(String::as_str)
    }

    /// The names of the keywords in `flags`.
    pub fn of(&self, flags: Flags) -> impl Iterator<Item = &str> {
        self.names
            .iter()
            .enumerate()
            .filter(move |(number, _)| flags.has(Flags::keyword(*number)))
            .filter_map(|(_, name)| name.as_deref())
    }

    /// Finds a keyword or gives it a letter, durably; `None` if all 26 are taken.
    pub fn find_or_add(&mut self, disk: &Disk, dir: &Path, name: &str) -> Result<Option<Flags>> {
        if let Some(flags) = self.find(name) {
            return Ok(Some(flags));
        }
        if self.is_full() {
            return Ok(None);
        }
        let mut fresh = self.clone();
        let number = match fresh.names.iter().position(Option::is_none) {
            Some(gap) => gap,
            None => {
                fresh.names.push(None);
                fresh.names.len() - 1
            }
        };
        fresh.names[number] = Some(name.to_string());
        let text: String = fresh
            .names
            .iter()
            .enumerate()
            .filter_map(|(number, name)| name.as_ref().map(|name| format!("{number} {name}\n")))
            .collect();
        disk.replace(&dir.join(FILE_NAME), text.as_bytes())?;
        *self = fresh;
        Ok(Some(Flags::keyword(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_lines_are_passed_over() {
        let keywords = Keywords::parse("0 $Forwarded\n99 x\n2 Junk\nnonsense\n-1 y\n3 \n");
        assert_eq!(keywords.names().collect::<Vec<_>>(), ["$Forwarded", "Junk"]);
        assert_eq!(keywords.find("junk"), Some(Flags::keyword(2)));
        let both = Flags::keyword(0)
            .with(Flags::keyword(2))
            .with(Flags::keyword(9));
        assert_eq!(keywords.of(both).count(), 2);
    }
}
