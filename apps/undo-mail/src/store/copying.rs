//! COPY and MOVE, which must have happened once also where they were cut short.
//!
//! That a folder holds messages of these UndoIDs does not say that they were copied: it may have held
//! others of them before. So the next UID of the target is written down before the command, in a
//! file `live/begun/LSN`. What has a higher UID has come by this command, for no other verb that
//! could bring these messages there is executed beside it. (A power cut may lose the note. Then the
//! command is given again: a copy too many is better than one too few.)

use std::io;
use std::path::{Path, PathBuf};

use undo::Call;

use super::{Answer, Done, MailStore, Shown};
use crate::imap::pool::{Tried, Trouble, good};
use crate::imap::token;
use crate::names::{Folder, Message};
use crate::verbs::Verb;

/// The notes of copies that are under way.
pub(super) struct Begun {
    folder: PathBuf,
}

/// Where a folder was when something began: its UIDVALIDITY and next UID.
type Point = (u32, u32);

impl Begun {
    pub fn open(folder: &Path) -> Begun {
        Begun {
            folder: folder.to_owned(),
        }
    }

    fn path(&self, lsn: u64) -> PathBuf {
        self.folder.join(lsn.to_string())
    }

    fn note(&self, lsn: u64, (validity, next): Point) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        std::fs::write(self.path(lsn), format!("{validity} {next}\n"))
    }

    /// What is on record. (A note that is not whole was not followed by a command.)
    fn read(&self, lsn: u64) -> Option<Point> {
        let text = std::fs::read_to_string(self.path(lsn)).ok()?;
        let (validity, next) = text.strip_suffix('\n')?.split_once(' ')?;
        Some((validity.parse().ok()?, next.parse().ok()?))
    }

    fn forget(&self, lsn: u64) {
        let _ = std::fs::remove_file(self.path(lsn));
    }
}

impl MailStore {
    pub(super) fn copy(
        &self,
        call: &Call<'_, Verb>,
        folder: &Folder,
        messages: &[Message],
        to: &Folder,
        moves: bool,
        settle: bool,
    ) -> Done {
        let user = &call.verb.user;
        let (name, target) = (self.name(user, folder)?, self.name(user, to)?);
        let mut come = Vec::new();
        if settle {
            come = self.come_since(user, &target, self.begun.read(call.lsn))?;
        } else if let Some(point) = self.point_of(user, &target)? {
            self.begun.note(call.lsn, point)?;
        }
        let (mut copied, mut rest) = (Vec::new(), Vec::new());
        for message in messages {
            match come.iter().position(|id| *id == message.id) {
                Some(at) => {
                    come.swap_remove(at);
                    copied.push(*message);
                }
                None => rest.push(*message),
            }
        }
        if moves && !copied.is_empty() {
            // Their copies are there, so all that is left to do is that they go.
            self.expunge(call, &name, &copied)?;
        }
        // Dovecot's MOVE from a folder to itself leaves two UIDs for one file, and later gives it a third.
        let in_two = moves && name == target;
        let word = match moves && !in_two {
            true => "UID MOVE",
            false => "UID COPY",
        };
        let some = !copied.is_empty();
        let done = self.on_messages(call, &name, &rest, some, moves, |set| {
            let mut command = format!("{word} {set} ").into_bytes();
            command.extend(token::quote(target.as_bytes()));
            command
        });
        let done = match done {
            Ok(done) if in_two => self.expunge(call, &name, &rest).map(|_| done),
            done => done,
        };
        if !matches!(done, Err(Trouble::Gone(_))) {
            self.begun.forget(call.lsn);
        }
        let (Shown::Messages(found), answer) = done? else {
            return Ok((Shown::Nothing, Answer::default()));
        };
        let was_there = |m: &Message| {
            let at = rest.iter().position(|other| other == m);
            at.map_or(1, |at| found[at])
        };
        Ok((
            Shown::Messages(messages.iter().map(was_there).collect()),
            answer,
        ))
    }

    /// Where a folder is now; `None` if it is not there, which the command itself will tell.
    fn point_of(&self, user: &str, name: &str) -> Tried<Option<Point>> {
        let answer = self.pool.with(user, |session| {
            let mut command = b"STATUS ".to_vec();
            command.extend(token::quote(name.as_bytes()));
            command.extend(b" (UIDVALIDITY UIDNEXT)");
            good(session.ask(&command)?)
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(Trouble::Refused(_)) => return Ok(None),
            Err(gone) => return Err(gone),
        };
        let value = |word: &str| {
            let values = answer.untagged.iter().filter_map(|r| r.get(2)?.list());
            let mut pairs = values.flat_map(|list| list.chunks_exact(2));
            pairs
                .find(|pair| pair[0].word().as_deref() == Some(word))
                .and_then(|pair| pair[1].number())
        };
        Ok(value("UIDVALIDITY").zip(value("UIDNEXT")))
    }

    /// The UndoIDs of what has come into a folder since then.
    fn come_since(&self, user: &str, name: &str, point: Option<Point>) -> Tried<Vec<u64>> {
        let Some((validity, next)) = point else {
            return Ok(Vec::new());
        };
        // A session that has it open need not see what has come last (Dovecot); a new one does.
        self.pool.forget_folder(user, name);
        self.pool.within(user, name, true, |session, listing| {
            let selected = session.selected.as_ref();
            let is_same = selected.is_some_and(|s| s.uid_validity == validity);
            let new = listing.iter().filter(|(uid, _)| is_same && *uid >= next);
            Ok(new.map(|(_, message)| message.id).collect())
        })
    }
}
