//! How each verb is carried out.
use undo::{Call, Mode};

use super::{Answer, Done, MailStore, Shown};
use crate::imap::pool::{Tried, Trouble, good};
use crate::imap::token::{self, Token};
use crate::names::{self, Folder, Message};
use crate::verbs::{Act, Verb};

impl MailStore {
    /// Carries a verb out. `settle`: perhaps that has happened already, perhaps half of it.
    pub(super) fn act(&self, call: &Call<'_, Verb>, settle: bool) -> Done {
        let user = &call.verb.user;
        match &call.verb.act {
            Act::Deliver {
                id,
                from,
                to,
                body,
                options,
                ..
            } => {
                if settle && self.is_delivered(to, *id)? {
                    return nothing();
                }
                let marked = names::with_id(*id, body);
                match self.smtp.deliver(from, to, options, &marked)? {
                    Ok(()) => {
                        self.note_queued(call, *id);
                        nothing()
                    }
                    Err(reply) => Err(Trouble::Refused(reply.to_string())),
                }
            }
            Act::Append {
                folder,
                id,
                flags,
                date,
                body,
            } => {
                let name = self.name(user, folder)?;
                if settle && self.holds(user, &name, *id)? {
                    return nothing();
                }
                self.append(user, &name, *id, flags, date, body)
            }
            Act::Explain { id, body } => {
                if settle && self.holds(user, "INBOX", *id)? {
                    return nothing();
                }
                self.append(user, "INBOX", *id, "", "", body)
            }
            Act::Fetch {
                folder,
                messages,
                items,
            } => self.fetch(call, folder, messages, items),
            Act::Store {
                folder,
                messages,
                how,
                flags,
            } => {
                let name = self.name(user, folder)?;
                self.on_messages(call, &name, messages, true, false, |set| {
                    format!("UID STORE {set} {how}.SILENT ({flags})").into_bytes()
                })
            }
            Act::Copy {
                folder,
                messages,
                to,
            }
            | Act::Move {
                folder,
                messages,
                to,
            } => {
                let moves = matches!(call.verb.act, Act::Move { .. });
                self.copy(call, folder, messages, to, moves, settle)
            }
            Act::Select { folder, read_only } => {
                let name = self.name(user, folder)?;
                if matches!(call.mode, Mode::Replay(_)) {
                    // Nobody looks: that it can be opened is all that counts.
                    self.pool.open(user, &name, *read_only)?;
                    return nothing();
                }
                self.pool
                    .within(user, &name, *read_only, |session, listing| {
                        let selected = session.selected.clone();
                        let (flags, permanent_flags) = selected
                            .map(|s| (s.flags, s.permanent_flags))
                            .unwrap_or_default();
                        let listing = listing.clone();
                        Ok((
                            Shown::Nothing,
                            Answer {
                                listing,
                                flags,
                                permanent_flags,
                                ..Answer::default()
                            },
                        ))
                    })
            }
            Act::Expunge { folder, messages } | Act::Close { folder, messages } => {
                let name = self.name(user, folder)?;
                self.expunge(call, &name, messages)
            }
            Act::List {
                reference,
                pattern,
                subscribed,
            } => {
                let word = if *subscribed { "LSUB" } else { "LIST" };
                let mut command = format!("{word} ").into_bytes();
                command.extend(token::quote(reference.as_bytes()));
                command.push(b' ');
                command.extend(token::quote(pattern.as_bytes()));
                let answer = self.pool.ask(user, &command)?;
                let is_list =
                    |r: &&Vec<Token>| r.first().and_then(Token::word).as_deref() == Some(word);
                let untagged: Vec<Vec<Token>> =
                    answer.untagged.iter().filter(is_list).cloned().collect();
                let names = untagged
                    .iter()
                    .filter_map(|r| r.get(3).and_then(Token::bytes));
                let shown = names.map(|n| names::hash(&[n])).collect();
                Ok((
                    Shown::Folders(shown),
                    Answer {
                        untagged,
                        ..Answer::default()
                    },
                ))
            }
            Act::Status { folder, items } => {
                let name = self.name(user, folder)?;
                let mut command = b"STATUS ".to_vec();
                command.extend(token::quote(name.as_bytes()));
                command.extend(format!(" ({items})").as_bytes());
                let answer = self.pool.ask(user, &command)?;
                Ok((
                    Shown::Nothing,
                    Answer {
                        untagged: answer.untagged,
                        ..Answer::default()
                    },
                ))
            }
            Act::Create { folder } => {
                let was_there = settle || self.exists(user, &folder.name)?;
                let result = self.simple(user, "CREATE", &[&folder.name]);
                let there = |text: &str| text.to_uppercase().contains("EXISTS");
                match result {
                    Err(Trouble::Refused(text)) if settle && there(&text) => {}
                    // Dovecot may say NO to what it has done, if another of its processes looks
                    // at the same time. What has happened must be history.
                    Err(Trouble::Refused(_))
                        if !was_there && self.exists(user, &folder.name)? => {}
                    other => drop(other?),
                }
                let delimiter = self.delimiter(user)?;
                self.factory.set(user, folder, &folder.name, &delimiter)?;
                nothing()
            }
            Act::Rename { folder, to } => {
                let _turn = self.turns.change(user);
                let name = self.name(user, folder)?;
                if !(settle && name == *to) {
                    let was_there =
                        settle || (self.exists(user, &name)? && !self.exists(user, to)?);
                    let result = self.simple(user, "RENAME", &[&name, to]);
                    let has_moved =
                        || Ok(self.exists(user, to)? && !self.exists(user, &name)?) as Tried<bool>;
                    if result.is_err() && !(was_there && has_moved()?) {
                        result?;
                    }
                }
                self.pool.forget_folder(user, &name);
                let delimiter = self.delimiter(user)?;
                self.pool.rename_folder(user, &name, to, &delimiter)?;
                self.factory.set(user, folder, to, &delimiter)?;
                nothing()
            }
            Act::Delete { folder } => {
                let _turn = self.turns.change(user);
                if settle && self.factory.name(user, folder)?.is_none() {
                    return nothing();
                }
                let name = self.name(user, folder)?;
                // A session that has it selected would keep it alive.
                self.pool.forget_folder(user, &name);
                let was_there = settle || self.exists(user, &name)?;
                let result = self.simple(user, "DELETE", &[&name]);
                // A server may say NO to what it has done. What has happened must be history.
                if result.is_err() && (!was_there || self.exists(user, &name)?) {
                    result?;
                }
                self.pool.remove_folder(user, &name)?;
                self.factory.remove(user, folder)?;
                nothing()
            }
            Act::Subscribe { folder, on } => {
                let name = self.name(user, folder)?;
                let word = if *on { "SUBSCRIBE" } else { "UNSUBSCRIBE" };
                self.simple(user, word, &[&name])
            }
        }
    }

    /// Removes messages. The flag is set again: what the client wanted gone must go, also if a replay
    /// finds it without the flag.
    pub(super) fn expunge(&self, call: &Call<'_, Verb>, name: &str, messages: &[Message]) -> Done {
        self.on_messages(call, name, messages, true, false, |set| {
            format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)").into_bytes()
        })?;
        self.on_messages(call, name, messages, true, true, |set| {
            format!("UID EXPUNGE {set}").into_bytes()
        })
    }

    fn simple(&self, user: &str, word: &str, names: &[&str]) -> Done {
        self.pool.with(user, |session| {
            let mut command = word.as_bytes().to_vec();
            for name in names {
                command.push(b' ');
                command.extend(token::quote(name.as_bytes()));
            }
            good(session.ask(&command)?)
        })?;
        nothing()
    }

    fn exists(&self, user: &str, name: &str) -> Tried<bool> {
        let mut command = b"LIST \"\" ".to_vec();
        command.extend(token::quote(name.as_bytes()));
        let answer = self.pool.ask(user, &command)?;
        Ok(answer
            .untagged
            .iter()
            .any(|r| r.first().and_then(Token::word).as_deref() == Some("LIST")))
    }

    pub(super) fn name(&self, user: &str, folder: &Folder) -> Tried<String> {
        self.factory.name(user, folder)?.ok_or_else(|| {
            Trouble::Refused(format!("the folder {} is not there any more", folder.name))
        })
    }
}

pub(super) fn nothing() -> Done {
    Ok((Shown::Nothing, Answer::default()))
}
