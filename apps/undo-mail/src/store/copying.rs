//! COPY and MOVE, which must have happened once also where they were cut short.
//!
//! That a folder holds messages of these UndoIDs does not say that they were copied: it may have held
//! others of them before. So the next UID of the target is written down before the command, in a
//! file `live/begun/LSN`. What has a higher UID has come by this command, for no other verb that
//! could bring these messages there is executed beside it. (A power cut may lose the note. Then the
//! command is given again: a copy too many is better than one too few.)

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use undo::Call;

use super::messages::{fetch_messages, not_there};
use super::{Answer, Done, MailStore, Shown};
use crate::imap::pool::{Tried, Trouble, good};
use crate::imap::token::{self, Token};
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
        let done = self.bring(call, (&name, &target), &rest, !copied.is_empty(), moves);
        if !matches!(done, Err(Trouble::Gone(_))) {
            self.begun.forget(call.lsn);
        }
        let found = done?;
        let was_there = |m: &Message| u64::from(copied.contains(m) || found.contains(m));
        let shown = messages.iter().map(was_there).collect();
        Ok((Shown::Messages(shown), Answer::default()))
    }

    /// Copies or moves messages; says which of them were there. `some`: it may be none.
    ///
    /// Dovecot gives a message that comes back to a folder by COPY or MOVE the name of the file that
    /// it had there before. A session, or a delivery, that knows that name takes it for the one that
    /// has gone, and gives it another UID. So what has been there before is appended: that makes a
    /// file of a name of its own.
    fn bring(
        &self,
        call: &Call<'_, Verb>,
        (name, target): (&str, &str),
        messages: &[Message],
        some: bool,
        moves: bool,
    ) -> Tried<HashSet<Message>> {
        let user = &call.verb.user;
        let had = self.pool.had(user, target, messages)?;
        let back = |m: &&Message| name == target || had.contains(&m.id);
        let (back, new): (Vec<Message>, Vec<Message>) = messages.iter().partition(back);
        let (mut found, uids) = self.append_again(call, name, target, &back)?;
        let some = some || !found.is_empty();
        match self.copy_new(call, (name, target), &new, some, moves) {
            Ok(copied) => found.extend(copied),
            Err(Trouble::Refused(why)) => {
                self.take_back(user, target, &uids)?;
                return Err(Trouble::Refused(why));
            }
            Err(gone) => return Err(gone),
        }
        if moves && !uids.is_empty() {
            self.expunge(call, name, &back)?;
        }
        Ok(found)
    }

    /// Copies or moves messages that the target has never had.
    fn copy_new(
        &self,
        call: &Call<'_, Verb>,
        (name, target): (&str, &str),
        messages: &[Message],
        some: bool,
        moves: bool,
    ) -> Tried<Vec<Message>> {
        if messages.is_empty() {
            return match some {
                true => Ok(Vec::new()),
                false => Err(not_there()),
            };
        }
        let word = if moves { "UID MOVE" } else { "UID COPY" };
        let done = self.on_messages(call, name, messages, some, moves, |set| {
            let mut command = format!("{word} {set} ").into_bytes();
            command.extend(token::quote(target.as_bytes()));
            command
        });
        let (Shown::Messages(shown), _) = done? else {
            return Ok(Vec::new());
        };
        let there = messages.iter().zip(shown).filter(|(_, shown)| *shown > 0);
        Ok(there.map(|(message, _)| *message).collect())
    }

    /// Appends messages of a folder to one that has had them: all that are there, or none. Says
    /// which, and what UIDs they have got.
    fn append_again(
        &self,
        call: &Call<'_, Verb>,
        name: &str,
        target: &str,
        messages: &[Message],
    ) -> Tried<(HashSet<Message>, Vec<u32>)> {
        let (mut found, mut uids) = (HashSet::new(), Vec::new());
        if messages.is_empty() {
            return Ok((found, uids));
        }
        let user = &call.verb.user;
        self.wait_for_queued(call, name, messages);
        let done = self
            .pool
            .within_naming(user, name, false, messages, |session, listing| {
                for named in listing.iter().filter(|(_, m)| messages.contains(m)) {
                    let items = "FLAGS INTERNALDATE BODY.PEEK[]";
                    let fetched = fetch_messages(session, listing, &[named.1], items)?;
                    let Some(command) = fetched.first().and_then(|(_, i)| append(target, i)) else {
                        // It has gone since it was listed.
                        continue;
                    };
                    let answer = good(session.ask(&command)?)?;
                    found.insert(named.1);
                    uids.extend(appended(&answer.text));
                }
                Ok(())
            });
        if let Err(refused @ Trouble::Refused(_)) = done {
            self.take_back(user, target, &uids)?;
            return Err(refused);
        }
        done.map(|()| (found, uids))
    }

    /// Removes what was appended, because the rest could not be.
    fn take_back(&self, user: &str, target: &str, uids: &[u32]) -> Tried<()> {
        if uids.is_empty() {
            return Ok(());
        }
        let set = token::show_set(uids);
        self.pool.within(user, target, false, |session, _| {
            good(session.ask(format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)").as_bytes())?)?;
            good(session.ask(format!("UID EXPUNGE {set}").as_bytes())?)?;
            Ok(())
        })
    }

    /// Where a folder is now; `None` if it is not there, which the command itself will tell.
    fn point_of(&self, user: &str, name: &str) -> Tried<Option<Point>> {
        let mut command = b"STATUS ".to_vec();
        command.extend(token::quote(name.as_bytes()));
        command.extend(b" (UIDVALIDITY UIDNEXT)");
        let answer = match self.pool.ask(user, &command) {
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
        self.pool.forget_sessions(user);
        self.pool.within(user, name, true, |session, listing| {
            let selected = session.selected.as_ref();
            let is_same = selected.is_some_and(|s| s.uid_validity == validity);
            let new = listing.iter().filter(|(uid, _)| is_same && *uid >= next);
            Ok(new.map(|(_, message)| message.id).collect())
        })
    }
}

/// The command that appends a message of which these are flags, date and text.
fn append(target: &str, items: &[(String, Token)]) -> Option<Vec<u8>> {
    let item = |wanted: &str| {
        let mut items = items.iter();
        items.find(|(name, _)| name == wanted).map(|(_, v)| v)
    };
    let text = item("BODY[]")?.bytes()?;
    let mut flags = item("FLAGS")?.list()?.to_vec();
    let is_recent = |flag: &Token| flag.word().as_deref() == Some("\\RECENT");
    flags.retain(|flag| !is_recent(flag));
    let mut command = b"APPEND ".to_vec();
    command.extend(token::quote(target.as_bytes()));
    command.push(b' ');
    Token::List(flags).write(&mut command);
    command.push(b' ');
    command.extend(token::quote(item("INTERNALDATE")?.bytes()?));
    command.extend(format!(" {{{}+}}\r\n", text.len()).as_bytes());
    command.extend(text);
    Some(command)
}

/// The UID in the answer to an APPEND: `[APPENDUID 1796000000 7] done`.
fn appended(text: &str) -> Option<u32> {
    let code = text.strip_prefix("[APPENDUID ")?.split_once(']')?.0;
    code.rsplit_once(' ')?.1.parse().ok()
}
