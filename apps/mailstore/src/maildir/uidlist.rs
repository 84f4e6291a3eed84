//! Which file has which UID: Dovecot's `dovecot-uidlist`, version 3.
//!
//! ```text
//! 3 V1732838400 N18 G5d3c..            UIDVALIDITY, next UID, the mailbox's GUID
//! 16 :1732838400.M1P7Q5.host,S=2310
//! 17 W2361 :1732838401.M1P7Q6.host:2,S     fields and flags may be there; not ours
//! ```
//! New lines are appended and synced before their UIDs are told to anybody. A
//! line without its end, which a power cut can leave, was not told, and is
//! dropped. The file is written anew when most of its messages are gone; the
//! next UID is then in its head, so that no UID is given out twice.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::disk::Disk;
use super::name;
use crate::failure::{Action, Failure, Result};

pub const FILE_NAME: &str = "dovecot-uidlist";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UidList {
    pub validity: u32,
    pub next: u32,
    pub guid: String,
    /// The UID of each base that has one, also of messages that are gone.
    pub uids: HashMap<String, u32>,
    /// The file ends in the middle of a line, and must be written anew before
    /// a line is appended.
    pub torn: bool,
}

impl UidList {
    pub fn new(validity: u32, guid: String) -> Self {
        UidList {
            validity,
            next: 1,
            guid,
            uids: HashMap::new(),
            torn: false,
        }
    }

    /// Reads the file of the mailbox in `dir`; `None` if there is none.
    pub fn load(dir: &Path) -> Result<Option<UidList>> {
        let path = dir.join(FILE_NAME);
        match std::fs::read(&path) {
            Ok(bytes) => UidList::parse(&bytes)
                .map(Some)
                .map_err(|why| Failure::because(format!("read {}", path.display()), why)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause).on("read", &path),
        }
    }

    pub fn parse(bytes: &[u8]) -> std::result::Result<UidList, String> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split_inclusive('\n');
        let head = lines.next().unwrap_or_default();
        let mut list = parse_head(head).ok_or_else(|| {
            format!(
                "its first line is no head of version 3: {:?}",
                head.trim_end()
            )
        })?;
        list.torn = !text.ends_with('\n');
        for (number, line) in lines.enumerate() {
            let Some(line) = line.strip_suffix('\n') else {
                break;
            };
            let (uid, base) = parse_line(line)
                .ok_or_else(|| format!("line {} is no UID with a name: {line:?}", number + 2))?;
            list.next = list.next.max(uid.saturating_add(1));
            list.uids.insert(base.to_string(), uid);
        }
        Ok(list)
    }

    /// Gives the next UID to a message. It counts only after `record`.
    pub fn assign(&mut self, base: &str) -> Result<u32> {
        let uid = self.next;
        self.next = uid.checked_add(1).ok_or_else(|| {
            Failure::because("number a message", "all UIDs of the mailbox are used up")
        })?;
        self.uids.insert(base.to_string(), uid);
        Ok(uid)
    }

    /// Makes what was assigned last durable.
    pub fn record(&mut self, disk: &Disk, dir: &Path, assigned: &[(u32, &str)]) -> Result<()> {
        if self.torn {
            return self.rewrite(disk, dir);
        }
        let lines: String = assigned
            .iter()
            .map(|(uid, base)| format!("{uid} :{base}\n"))
            .collect();
        let appended = disk.append(&dir.join(FILE_NAME), lines.as_bytes(), true);
        // Half of the lines may be there: the next record writes all anew.
        self.torn = appended.is_err();
        appended
    }

    pub fn rewrite(&mut self, disk: &Disk, dir: &Path) -> Result<()> {
        let mut lines: Vec<(u32, &str)> = self.uids.iter().map(|(b, u)| (*u, b.as_str())).collect();
        lines.sort_unstable();
        let mut text = format!("3 V{} N{} G{}\n", self.validity, self.next, self.guid);
        for (uid, base) in lines {
            text.push_str(&format!("{uid} :{base}\n"));
        }
        disk.replace(&dir.join(FILE_NAME), text.as_bytes())?;
        self.torn = false;
        Ok(())
    }
}

fn parse_head(line: &str) -> Option<UidList> {
    let line = line.strip_suffix('\n')?;
    let mut words = line.split(' ');
    if words.next() != Some("3") {
        return None;
    }
    let mut list = UidList::new(0, String::new());
    for word in words {
        let rest = word.get(1..)?;
        match word.as_bytes().first()? {
            b'V' => list.validity = rest.parse().ok().filter(|v| *v > 0)?,
            b'N' => list.next = rest.parse().ok().filter(|n| *n > 0)?,
            b'G' => list.guid = rest.to_string(),
            _ => {} // a field of a later Dovecot
        }
    }
    (list.validity > 0).then_some(list)
}

fn parse_line(line: &str) -> Option<(u32, &str)> {
    let (fields, file_name) = line.split_once(':')?;
    let uid = fields
        .split(' ')
        .next()?
        .parse()
        .ok()
        .filter(|uid| *uid > 0)?;
    let base = name::split(file_name).0;
    (!base.is_empty()).then_some((uid, base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_dovecot_writes() {
        let text = b"3 V1275660208 N25022 G3085f01b7f11094c\n\
            25006 :1276528487.M364837P9451.kurkku,S=1355,W=1394:2,\n\
            25030 W2481 :1276533073.M242911P3632.kurkku:2,F\n";
        let list = UidList::parse(text).unwrap();
        assert_eq!((list.validity, list.next), (1275660208, 25031));
        assert_eq!(list.uids["1276533073.M242911P3632.kurkku"], 25030);
        assert!(!list.torn);
    }

    #[test]
    fn drops_a_torn_line_and_refuses_a_wrong_one() {
        let list = UidList::parse(b"3 V5 N9 Gx\n9 :a\n10 :b").unwrap();
        assert_eq!((list.uids.len(), list.next, list.torn), (1, 10, true));
        for wrong in [
            &b""[..],
            b"1 V5\n",
            b"3 V0 N1\n",
            b"3 N1 V\n",
            b"3 V5 N9\nx :a\n",
            b"3 V5 N9\n7 a\n",
        ] {
            assert!(
                UidList::parse(wrong).is_err(),
                "{:?}",
                String::from_utf8_lossy(wrong)
            );
        }
    }

    #[test]
    fn the_last_uid_is_the_last() {
        let mut list = UidList::new(1, String::new());
        list.next = u32::MAX;
        assert!(list.assign("a").is_err());
    }
}
